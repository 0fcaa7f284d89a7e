import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.difficulty import (
    ClassAccuracy,
    check_labels,
    class_accuracy,
    count_per_class,
    difficulty_from_performance,
    performance_from_error,
    smoothed_accuracy,
)

C = 4
thorough = settings(deadline=None, max_examples=60, derandomize=True)
batches_of_pairs = st.lists(
    st.lists(st.tuples(st.integers(0, C - 1), st.integers(0, C - 1)), min_size=1, max_size=12),
    max_size=4,
)


class Table(nn.Module):
    """'Images' are indices of rows of logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, index: Tensor) -> Tensor:
        return self.logits[index]


def slow_class_accuracy(predictions: list[int], labels: list[int]) -> list[float]:
    accuracy = []
    for c in range(C):
        total = right = 0
        for prediction, label in zip(predictions, labels, strict=True):
            if label == c:
                total += 1
                right += prediction == c
        accuracy.append(right / total if total else math.nan)
    return accuracy


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Sequential(nn.Linear(8, C))
    )


def random_batches(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 3, generator=generator), torch.randint(C, (16,), generator=generator))
        for _ in range(3)
    ]


@thorough
@given(batches_of_pairs)
def test_accuracy_over_batches_equals_eq_1_counted_by_hand(
    batches: list[list[tuple[int, int]]],
) -> None:
    accuracy = ClassAccuracy(C)
    for batch in batches:
        predictions, labels = torch.tensor(batch).unbind(1)
        accuracy.add(predictions, labels)
    pairs = [pair for batch in batches for pair in batch]
    expected = slow_class_accuracy([p for p, _ in pairs], [y for _, y in pairs])
    torch.testing.assert_close(
        accuracy.compute(),
        torch.tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def test_a_batch_allocates_nothing_for_the_classes_it_does_not_hold() -> None:
    accuracy = ClassAccuracy(1_000_000)
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            if "index_add" not in str(function) and "select" not in str(function):
                sizes.append(result.numel())
            return result

    with Sizes():
        accuracy.add(torch.tensor([0, 5, 5]), torch.tensor([0, 5, 6]))
    assert sizes
    assert max(sizes) <= 3
    assert accuracy.compute()[[0, 5, 6]].tolist() == [1.0, 1.0, 0.0]


def test_class_without_sample_is_not_measured_rather_than_zero() -> None:
    accuracy = ClassAccuracy(3)
    accuracy.add(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert accuracy.compute()[0] == 0.5
    assert accuracy.compute()[1:].isnan().all()


def test_no_sample_at_all_measures_no_class() -> None:
    assert ClassAccuracy(2).compute().isnan().all()


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes_is_refused_and_named(label: int) -> None:
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.2"):
        check_labels(torch.tensor([0, label, 2]), num_classes=3)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes_is_not_counted_but_refused_by_its_value(label: int) -> None:
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.2.*ignore_index"):
        ClassAccuracy(3).add(torch.tensor([0]), torch.tensor([label]))
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.2"):
        count_per_class([0, label], 3)
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.2"):
        class_accuracy(nn.Identity(), [(torch.eye(3), [0, 1, label])], 3)


def test_labels_at_both_ends_of_the_range_are_accepted() -> None:
    check_labels(torch.tensor([0, 2]), num_classes=3)


def test_weights_are_summed_per_class() -> None:
    labels, weights = torch.tensor([1, 0, 1]), torch.tensor([0.5, 2.0, 0.25])
    assert count_per_class(labels, 3, weights).tolist() == [2.0, 0.75, 0.0]


def test_class_accuracy_of_a_known_model() -> None:
    # Rows predict 0, 1, 1, 2.
    model = Table(torch.eye(3)[[0, 1, 1, 2]])
    batches = [
        (torch.tensor([0, 1]), torch.tensor([0, 0])),
        (torch.tensor([2, 3]), torch.tensor([1, 1])),
    ]
    accuracy = class_accuracy(model, batches, num_classes=3)
    assert accuracy[:2].tolist() == [0.5, 0.5]
    assert accuracy[2].isnan()


def test_measuring_works_for_a_model_without_parameters() -> None:
    batches = [(torch.eye(2), torch.tensor([0, 0]))]
    assert class_accuracy(nn.Identity(), batches, 2)[0] == 0.5


def test_measuring_uses_evaluation_mode() -> None:
    model = network().train()
    expected = ClassAccuracy(C)
    model.eval()
    for images, labels in random_batches():
        expected.add(model(images).argmax(1), labels)
    model.train()
    assert torch.equal(class_accuracy(model, random_batches(), C), expected.compute())


def test_measuring_leaves_parameters_statistics_and_gradients_untouched() -> None:
    model = network().train()
    model(torch.randn(8, 3)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    class_accuracy(model, random_batches(), C)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(after) == 6
    assert all(torch.equal(a, b) for a, b in zip(gradients, after, strict=True))


def test_measuring_leaves_the_random_numbers_untouched() -> None:
    model = network().train()
    state = torch.get_rng_state()
    class_accuracy(model, random_batches(), C)
    assert torch.equal(torch.get_rng_state(), state)


def test_measuring_gives_every_module_its_own_mode_back() -> None:
    model = network().train()
    model.get_submodule("1").eval()  # a frozen BatchNorm
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    class_accuracy(model, random_batches(), C)
    assert [module.training for module in model.modules()] == modes


def test_modes_come_back_when_reading_the_data_fails() -> None:
    def broken() -> Iterator[tuple[Tensor, Tensor]]:
        yield random_batches()[0]
        raise OSError("disk")

    model = network().train()
    model.get_submodule("1").eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(OSError, match="disk"):
        class_accuracy(model, broken(), C)
    assert [module.training for module in model.modules()] == modes


def test_measured_accuracy_can_be_used_in_autograd() -> None:
    accuracy = class_accuracy(network(), random_batches(), C)
    factor = torch.ones(C, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((accuracy * factor).sum(), [factor])
    assert torch.equal(gradient, accuracy)


def test_labels_of_any_integer_kind_are_counted() -> None:
    batches: list[tuple[Tensor, Any]] = [
        (torch.eye(3), [0, 1, 0]),
        (torch.eye(3), np.array([0, 2, 2], dtype=np.int16)),
        (torch.eye(3), torch.tensor([1, 1, 2], dtype=torch.uint8)),
    ]
    assert class_accuracy(nn.Identity(), batches, 3).tolist() == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3]
    )
    assert count_per_class(np.array([2, 2, 0], dtype=np.uint8), 3).tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="label 5 is outside"):
        check_labels([1, 5], 3)


@pytest.mark.parametrize("ignored", [255, -100])
def test_pixels_are_measured_and_the_ignored_left_out(ignored: int) -> None:
    predicted = torch.tensor([[[0, 1], [1, 2]], [[2, 2], [0, 0]]])
    logits = nn.functional.one_hot(predicted, 3).movedim(-1, 1).double()
    labels = torch.tensor([[[0, ignored], [1, 1]], [[2, 1], [ignored, 0]]])
    accuracy = class_accuracy(nn.Identity(), [(logits, labels)], 3, ignore_index=ignored)
    assert accuracy.tolist() == pytest.approx([1.0, 1 / 3, 1.0])


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (
            torch.zeros(2, 1),
            [0, 1],
            r"logits of shape \(B, 3\), not \(2, 1\); give the logits 0 and z",
        ),
        (torch.zeros(2), [0, 1], r"logits of shape \(B, 3\), not \(2,\)"),
        (torch.zeros(2, 2), [0, 1], r"logits of shape \(B, 3\), not \(2, 2\)$"),
        (torch.zeros(2, 5), [0, 1], r"logits of shape \(B, 3\), not \(2, 5\)$"),
        (torch.zeros(2, 3), [[0], [1]], r"labels of shape \(2, 1\) do not fit"),
        (torch.zeros(2, 3), [[1, 0, 0], [0, 1, 0]], r"labels of shape \(2, 3\) do not fit"),
        (torch.zeros(2, 3), [0], r"labels of shape \(1,\) do not fit"),
        (torch.tensor([[math.nan] * 3, [0.0, 1.0, math.nan]]), [0, 1], "NaN for 2 of the samples"),
    ],
)
def test_logits_that_cannot_be_measured_are_refused(
    logits: Tensor, labels: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        class_accuracy(nn.Identity(), [(logits, labels)], 3)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((torch.zeros(2, 3), [0, 1], ["a", "b"]), "a pair of images and labels, not a tuple of 3"),
        ({"images": torch.zeros(2, 3), "labels": [0, 1]}, "not a dict"),
        (torch.zeros(2, 3), "not a Tensor"),
        (
            ((torch.zeros(2, 3), torch.zeros(2, 3)), [0, 1]),
            r"tensor of logits \(B, C\), not a tuple",
        ),
        (({"logits": torch.zeros(2, 3)}, [0, 1]), r"tensor of logits \(B, C\), not a dict"),
        ((torch.zeros(2, 3), torch.eye(2, 3)), "class indices, integers"),
    ],
)
def test_batch_or_output_of_another_kind_is_refused(batch: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        class_accuracy(nn.Identity(), [batch], 3)


@thorough
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=6))
def test_difficulty_is_one_minus_performance_and_kept_where_not_measured(
    performance: list[float | None],
) -> None:
    previous = [0.1 * c for c in range(len(performance))]
    difficulty = difficulty_from_performance(
        torch.tensor([math.nan if a is None else a for a in performance], dtype=torch.float64),
        torch.tensor(previous, dtype=torch.float64),
    )
    expected = [d if a is None else 1 - a for a, d in zip(performance, previous, strict=True)]
    assert difficulty.tolist() == expected


def test_performance_that_rounding_has_put_beyond_0_1_is_cut() -> None:
    performance = torch.tensor([1 + 2e-16, 1 + 9e-7, -9e-7, 1.0], dtype=torch.float64)
    difficulty = difficulty_from_performance(performance, torch.ones(4, dtype=torch.float64))
    assert difficulty.tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("value", [-0.001, -2e-6, 1.000002, 1.001, 55.0, math.inf, -math.inf])
def test_performance_outside_0_1_is_refused_with_the_adapter_named(value: float) -> None:
    with pytest.raises(ValueError, match=r"of class 1 is outside .* performance_from_error"):
        difficulty_from_performance(torch.tensor([0.5, value]), torch.ones(2))


def test_error_becomes_performance_linearly_and_cut_to_0_1() -> None:
    error = torch.tensor([2.0, 1.0, 4.0, 6.0, 9.0, math.nan])
    performance = performance_from_error(error, best=2.0, worst=6.0)
    assert performance[:5].tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert performance[5].isnan()


def test_larger_error_means_larger_difficulty() -> None:
    performance = performance_from_error(torch.tensor([1.0, 3.0, 2.0]), best=0.0, worst=4.0)
    difficulty = difficulty_from_performance(performance, torch.ones(3))
    assert difficulty.tolist() == [0.25, 0.75, 0.5]


@pytest.mark.parametrize(
    ("best", "worst"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (-math.inf, 0.0), (0.0, math.nan)]
)
def test_adapter_without_a_finite_range_is_refused(best: float, worst: float) -> None:
    with pytest.raises(ValueError, match="must be greater than best"):
        performance_from_error(torch.tensor([0.5]), best=best, worst=worst)


# The prior, off as printed.


def test_prior_worked_by_hand() -> None:
    # (0 + 1) / (2 + 2), (3 + 1) / (3 + 2), (1 + 1) / (2 + 2); a class without a sample.
    accuracy = ClassAccuracy(C, prior=1.0)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    accuracy.add(torch.tensor([1, 2, 1, 1, 1, 2, 0]), labels)
    expected = torch.tensor([0.25, 0.8, 0.5, math.nan], dtype=torch.float64)
    torch.testing.assert_close(accuracy.compute(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0, 7.0])
def test_smoothing_an_accuracy_is_to_the_bit_measuring_with_the_prior(prior: float) -> None:
    """Also where m / M M is not m in floating point, as for 1 / 49 49."""
    pairs = [(m, total) for total in range(1, 130) for m in range(total + 1)]
    right, totals = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    smoothed = smoothed_accuracy(right / totals, totals, prior)
    assert torch.equal(smoothed, (right + prior) / (totals + 2 * prior))
    assert bool(((smoothed > 0) & (smoothed < 1)).all()) is (prior > 0)


def test_class_accuracy_with_a_prior_is_the_smoothed_one_to_the_bit() -> None:
    torch.manual_seed(0)
    model, batches = network(), random_batches()
    batches = [(images[labels != 3], labels[labels != 3]) for images, labels in batches]
    counts = count_per_class(torch.cat([labels for _, labels in batches]), C)
    measured = class_accuracy(model, batches, C)
    expected = smoothed_accuracy(measured, counts, 2.0)
    assert expected.isnan().tolist() == [False] * 3 + [True]
    found = class_accuracy(model, batches, C, prior=2.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert measured[:3].tolist() != found[:3].tolist()


@pytest.mark.parametrize("prior", [-1.0, math.inf, math.nan])
def test_prior_that_is_no_number_of_samples_is_refused(prior: float) -> None:
    for refused in (
        lambda: ClassAccuracy(C, prior=prior),
        lambda: class_accuracy(network(), [], C, prior=prior),
        lambda: smoothed_accuracy(torch.ones(1), [1], prior),
    ):
        with pytest.raises(ValueError, match=f"prior must be .* not {prior}"):
            refused()
