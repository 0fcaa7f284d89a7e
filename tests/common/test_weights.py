import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.weights import (
    class_balanced_weights,
    difficulty_weights,
    normalize_weights,
    sample_weights,
)

thorough = settings(deadline=None, max_examples=80, derandomize=True)
difficulties = st.lists(st.floats(0, 1), min_size=1, max_size=8)
taus = st.floats(0, 8)


def double(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@thorough
@given(difficulties, taus)
def test_weight_is_difficulty_to_the_power_of_tau(difficulty: list[float], tau: float) -> None:
    expected = [d**tau for d in difficulty]
    if max(expected) < sys.float_info.min:
        hardest = max(difficulty)
        expected = [(d / hardest) ** tau if hardest else 1.0 for d in difficulty]
    weights = difficulty_weights(double(difficulty), tau).tolist()
    assert weights == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_hand_worked_weights() -> None:
    weights = difficulty_weights(double([0.5, 0.1, 1.0]), torch.tensor(3.0))
    torch.testing.assert_close(weights, double([0.125, 0.001, 1.0]))


@thorough
@given(difficulties, taus)
def test_harder_class_never_weighs_less(difficulty: list[float], tau: float) -> None:
    weights = difficulty_weights(double(sorted(difficulty)), tau)
    assert bool((weights.diff() >= 0).all())


@thorough
@given(st.floats(0.01, 0.99), st.floats(0, 4), st.floats(0.01, 4))
def test_larger_tau_emphasises_the_harder_class_more(d: float, tau: float, step: float) -> None:
    easy, hard = difficulty_weights(double([0.9 * d, d]), tau)
    easier, harder = difficulty_weights(double([0.9 * d, d]), tau + step)
    assert harder / easier > hard / easy


@pytest.mark.parametrize("difficulty", [[0.0, 0.3, 1.0], [0.0, 0.0, 0.0]])
def test_tau_0_gives_equal_weights_also_where_difficulty_is_0(difficulty: list[float]) -> None:
    assert difficulty_weights(double(difficulty), 0.0).tolist() == [1.0, 1.0, 1.0]


def test_class_without_difficulty_gets_weight_0_while_another_has_some() -> None:
    assert difficulty_weights(double([0.0, 0.5]), 1.0).tolist() == [0.0, 0.5]


def test_no_difficulty_anywhere_falls_back_to_equal_weights() -> None:
    assert difficulty_weights(torch.zeros(4), 5.0).tolist() == [1.0] * 4


# d_c^tau of both classes underflows: 0.1^500 and 0.2^500, the quotient is 2^-500.
@pytest.mark.parametrize(
    ("difficulty", "tau", "expected"),
    [
        ([0.1, 0.2], 500.0, [0.5**500, 1.0]),
        ([1e-200, 1e-100], 5.0, [0.0, 1.0]),
        ([0.0, 0.2, 0.2], 1000.0, [0.0, 1.0, 1.0]),
        ([0.2 * (1 - 2**-10), 0.2], 1000.0, [(1 - 2**-10) ** 1000, 1.0]),
        # A subnormal largest weight has lost digits: 0.5^1060 and 0.25^1060 = 0.
        ([0.25, 0.5], 1060.0, [2.0**-1060, 1.0]),
        ([5e-324, 1e-323], 3.0, [0.125, 1.0]),
    ],
)
def test_weights_that_underflow_are_relative_to_the_largest(
    difficulty: list[float], tau: float, expected: list[float]
) -> None:
    weights = difficulty_weights(double(difficulty), tau).tolist()
    assert weights == pytest.approx(expected, rel=1e-12, abs=0)


def test_weights_for_numbers_of_less_range_are_relative_where_those_would_underflow() -> None:
    weights = difficulty_weights(double([0.1, 0.2]), 200.0)
    assert weights.tolist() == [0.1**200, 0.2**200]
    weights = difficulty_weights(double([0.1, 0.2]), 200.0, torch.float32)
    assert weights.tolist() == pytest.approx([0.5**200, 1.0], rel=1e-12)


@thorough
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8), taus)
def test_weights_that_do_not_underflow_are_the_plain_power_to_the_bit(
    difficulty: list[float], tau: float
) -> None:
    d = double(difficulty)
    assert torch.equal(difficulty_weights(d, tau), d**tau)


@pytest.mark.parametrize("difficulty", [-0.1, 1.1, math.nan, math.inf])
def test_difficulty_outside_0_1_is_refused(difficulty: float) -> None:
    with pytest.raises(ValueError, match="difficulty must be in"):
        difficulty_weights(double([0.5, difficulty]), 1.0)


@pytest.mark.parametrize("tau", [-0.1, math.nan])
def test_negative_tau_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be at least 0"):
        difficulty_weights(double([0.5, 0.6]), torch.tensor(tau))


@thorough
@given(
    st.lists(st.one_of(st.floats(0, 1), st.floats(0, 1e-300)), min_size=1, max_size=8).filter(any)
)
def test_normalised_weights_sum_to_the_number_of_classes(weights: list[float]) -> None:
    normalised = normalize_weights(double(weights))
    assert float(normalised.sum()) == pytest.approx(len(weights), rel=1e-6)
    assert bool((normalised >= 0).all())


def test_normalising_keeps_the_proportions() -> None:
    assert normalize_weights(double([0.1, 0.2, 0.5])).tolist() == pytest.approx(
        [0.375, 0.75, 1.875]
    )


def slow_class_balanced_weights(counts: list[int], beta: float) -> list[float]:
    """Cui et al. 2019, Eq. 2: 1 / E_n with E_n = 1 + beta + ... + beta^(n-1), summed literally."""
    weights = []
    for n in counts:
        effective_number = 0.0
        for i in range(n):
            effective_number += beta**i
        weights.append(1 / effective_number if n else 0.0)
    total = sum(weights)
    return [w * len(counts) / total for w in weights]


@thorough
@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=6).filter(any),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]),
)
def test_class_balanced_weights_equal_the_inverse_effective_number(
    counts: list[int], beta: float
) -> None:
    weights = class_balanced_weights(torch.tensor(counts), beta)
    assert weights.tolist() == pytest.approx(slow_class_balanced_weights(counts, beta), rel=1e-8)


def test_class_balanced_weights_of_mnist_lt_at_imbalance_99() -> None:
    # E_n = (1 - 0.9999^n) / 0.0001: 3904.35 for 4950, 49.878 for 50.
    head, tail = class_balanced_weights(torch.tensor([4950, 50])).tolist()
    assert tail / head == pytest.approx(3904.35 / 49.878, rel=1e-4)
    assert head + tail == pytest.approx(2)


def test_class_without_training_sample_gets_weight_0_and_no_infinity() -> None:
    weights = class_balanced_weights(torch.tensor([0, 10, 10]))
    assert weights.tolist() == pytest.approx([0.0, 1.5, 1.5])


def test_beta_0_weighs_all_classes_alike() -> None:
    assert class_balanced_weights(torch.tensor([900, 3]), beta=0.0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, math.nan])
def test_beta_outside_0_1_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be in"):
        class_balanced_weights(torch.tensor([3, 1]), beta)


CLASS_WEIGHTS = torch.tensor([0.5, 1.0, 1.5])
LABELS: dict[str, Any] = {
    "tensor": torch.tensor([2, 0, 2]),
    "uint8": torch.tensor([2, 0, 2], dtype=torch.uint8),  # torch would index with it as a mask
    "int16": torch.tensor([2, 0, 2], dtype=torch.int16),
    "list": [2, 0, 2],
    "list of tensors": list(torch.tensor([2, 0, 2])),
    "array": np.array([2, 0, 2]),
    "array of another byte order": np.array([2, 0, 2], dtype=">i4"),
    "array read backwards": np.array([2, 0, 2], dtype=np.uint8)[::-1],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_integer_kind_are_looked_up(kind: str) -> None:
    assert sample_weights(CLASS_WEIGHTS, LABELS[kind]).tolist() == [1.5, 0.5, 1.5]


def test_each_pixel_has_the_weight_of_its_class() -> None:
    labels = torch.arange(24).view(2, 3, 4) % 3
    weights = sample_weights(CLASS_WEIGHTS, labels.transpose(1, 2))
    assert torch.equal(weights, CLASS_WEIGHTS[labels].transpose(1, 2))


@pytest.mark.parametrize("ignored", [255, -100, 1])
def test_ignored_label_weighs_0(ignored: int) -> None:
    weights = sample_weights(CLASS_WEIGHTS, [[0, ignored], [2, 2]], ignore_index=ignored)
    assert weights.tolist() == [[0.5, 0.0], [1.5, 1.5]]


@pytest.mark.parametrize("label", [-1, 3, 255, -100])
def test_label_outside_the_classes_is_refused_by_its_value(label: int) -> None:
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.2.* ignore_index"):
        sample_weights(CLASS_WEIGHTS, torch.tensor([0, label]))
    with pytest.raises(ValueError, match=rf"label {label} is outside"):
        sample_weights(CLASS_WEIGHTS, [0, label, 77], ignore_index=77)


@pytest.mark.parametrize(
    "labels", [torch.tensor([[0.7, 0.3]]), [0.7, 0.3], np.array([1.0]), ["0", "1"], None]
)
def test_labels_that_are_no_class_indices_are_refused(labels: Any) -> None:
    with pytest.raises(TypeError, match=r"class indices, integers, .*mixup"):
        sample_weights(CLASS_WEIGHTS, labels)


def test_labels_are_looked_at_only_after_the_look_up_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looked(*_: object) -> None:
        raise AssertionError("a GPU would be waited for")

    monkeypatch.setattr("common.weights.check_labels", looked)
    assert sample_weights(CLASS_WEIGHTS, torch.tensor([0, 2]), 255).tolist() == [0.5, 1.5]


def test_a_compiled_step_looks_weights_up_in_one_graph() -> None:
    compiled = torch.compile(sample_weights, backend="eager", fullgraph=True)
    labels = torch.tensor([[2, 255], [0, 1]])
    assert compiled(CLASS_WEIGHTS, labels, 255).tolist() == [[1.5, 0.0], [0.5, 1.0]]
