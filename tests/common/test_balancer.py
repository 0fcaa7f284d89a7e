import copy
import math
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from common.balancer import ClassDifficultyBalancer
from common.difficulty import class_accuracy, difficulty_from_performance
from common.losses import (
    REDUCTIONS,
    PerSampleLoss,
    Reduction,
    cross_entropy,
    focal_loss,
    hinge_loss,
    squared_error,
)
from common.tau import TAU_LAWS, performance_bias, tau_from_performance
from common.weights import difficulty_weights, normalize_weights

C = 3
thorough = settings(deadline=None, max_examples=60, derandomize=True)
epochs_of_performance = st.lists(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=C, max_size=C).filter(
        lambda performance: performance != [None] * C
    ),
    min_size=1,
    max_size=4,
)
LOSSES: dict[str, PerSampleLoss] = {
    "cross-entropy": cross_entropy,
    "focal": partial(focal_loss, gamma=2.0),
    "squared error": squared_error,
    "hinge": hinge_loss,
}


def performance_of(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([math.nan if a is None else a for a in values], dtype=torch.float64)


def state_of(balancer: ClassDifficultyBalancer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in balancer.state_dict().items()}


def assert_same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def updated(
    tau: Any = "sigmoid", performance: list[float] | None = None, **options: Any
) -> ClassDifficultyBalancer:
    balancer = ClassDifficultyBalancer(C, tau, **options)
    balancer.update(torch.tensor(performance or [0.9, 0.6, 0.3]))
    return balancer


def slow_sigmoid_balancer(epochs: list[list[float | None]]) -> tuple[list[float], float]:
    """Eqs. 3, 5, 10 and 4 with plain numbers: unscaled weights and tau after the epochs."""
    difficulty, seen = [1.0] * C, [False] * C
    for performance in epochs:
        for c, a in enumerate(performance):
            if a is not None:
                difficulty[c], seen[c] = 1 - a, True
    last = [1 - difficulty[c] for c in range(C) if seen[c]]
    bias = max(max(last) / (min(last) + 0.01) - 1, 0) if last else 0.0
    tau = 5 * (2 / (1 + math.exp(-bias)) - 1)
    weights = [d**tau for d in difficulty]
    return (weights if sum(weights) > 0 else [1.0] * C), tau


@thorough
@given(epochs_of_performance)
def test_balancer_follows_the_paper_s_equations_over_several_epochs(
    epochs: list[list[float | None]],
) -> None:
    balancer = ClassDifficultyBalancer(C)
    for performance in epochs:
        balancer.update(performance_of(performance))
    weights, tau = slow_sigmoid_balancer(epochs)
    scaled = [w * C / sum(weights) for w in weights]
    assert float(balancer.tau) == pytest.approx(tau, abs=1e-9)
    assert balancer.class_weights.tolist() == pytest.approx(scaled, rel=1e-5, abs=1e-30)
    shares = [w / sum(weights) for w in weights]
    assert balancer.probabilities.tolist() == pytest.approx(shares, rel=1e-6, abs=1e-30)


@thorough
@given(epochs_of_performance, st.sampled_from(sorted(TAU_LAWS)))
def test_weights_sum_to_the_number_of_classes_and_probabilities_to_1(
    epochs: list[list[float | None]], law: Any
) -> None:
    balancer = ClassDifficultyBalancer(C, law)
    for performance in epochs:
        balancer.update(performance_of(performance))
        assert float(balancer.class_weights.sum()) == pytest.approx(C, rel=1e-5)
        assert float(balancer.probabilities.sum()) == pytest.approx(1)


def test_hand_worked_update() -> None:
    # d = 0.1, 0.4, 0.7; tau 2: 0.01, 0.16, 0.49, sum 0.66.
    balancer = updated(2.0)
    assert balancer.difficulty.tolist() == pytest.approx([0.1, 0.4, 0.7])
    assert balancer.probabilities.tolist() == pytest.approx([1 / 66, 16 / 66, 49 / 66])
    assert balancer.class_weights.tolist() == pytest.approx([3 / 66, 48 / 66, 147 / 66])
    assert float(balancer.bias) == pytest.approx(0.9 / 0.31 - 1)


def test_weights_as_printed_when_not_normalised() -> None:
    balancer = updated(2.0, normalize=False)
    assert balancer.class_weights.tolist() == pytest.approx([0.01, 0.16, 0.49])


@pytest.mark.parametrize("tau", [0.0, 2.0, *TAU_LAWS])
def test_all_classes_weigh_the_same_before_the_first_update(tau: Any) -> None:
    balancer = ClassDifficultyBalancer(C, tau)
    assert balancer.difficulty.tolist() == [1.0] * C
    assert balancer.class_weights.tolist() == [1.0] * C
    assert balancer.probabilities.tolist() == pytest.approx([1 / C] * C)
    assert not balancer.measured.any()
    assert float(balancer.bias) == 0


def test_loss_before_the_first_update_is_the_plain_mean() -> None:
    losses = torch.tensor([0.5, 1.0, 3.0])
    weighted = ClassDifficultyBalancer(C).weighted_mean(losses, torch.tensor([0, 1, 1]))
    assert weighted == losses.mean()


def test_class_never_measured_keeps_difficulty_1_and_does_not_count_for_the_bias() -> None:
    balancer = ClassDifficultyBalancer(C)
    balancer.update(performance_of([0.9, None, 0.6]))
    assert balancer.difficulty.tolist() == pytest.approx([0.1, 1.0, 0.4])
    assert balancer.measured.tolist() == [True, False, True]
    assert float(balancer.bias) == pytest.approx(0.9 / 0.61 - 1)


def test_class_missing_from_a_later_measurement_keeps_its_last_difficulty() -> None:
    balancer = updated()
    balancer.update(performance_of([0.8, None, 0.5]))
    assert balancer.difficulty.tolist() == pytest.approx([0.2, 0.4, 0.5])
    assert float(balancer.bias) == pytest.approx(0.8 / 0.51 - 1)


def test_update_in_which_no_class_was_measured_is_refused_and_changes_nothing() -> None:
    balancer = updated()
    before = state_of(balancer)
    with pytest.raises(ValueError, match=r"no class was measured; .*drop_last.* spent"):
        balancer.update(class_accuracy(nn.Identity(), [], C))
    assert_same_state(before, state_of(balancer))


@pytest.mark.parametrize("kind", [list, np.array])
def test_performance_may_be_a_list_or_an_array(kind: Callable[[list[float]], Any]) -> None:
    performance = [0.9, 0.6, 0.3]
    balancer = ClassDifficultyBalancer(C)
    balancer.update(kind(performance))
    expected = ClassDifficultyBalancer(C)
    expected.update(performance_of(performance))
    assert_same_state(state_of(balancer), state_of(expected))


@pytest.mark.parametrize(
    ("tau", "options", "weights"),
    [
        (500.0, {}, [0.0, 2.0]),
        (500.0, {"normalize": False}, [0.0, 1.0]),
        (200.0, {"normalize": False}, [0.0, 1.0]),  # 1e-140: float64 has it, float32 not
        (1e300, {}, [0.0, 2.0]),
    ],
)
def test_weights_too_small_to_be_kept_are_relative_to_the_largest(
    tau: float, options: dict[str, Any], weights: list[float]
) -> None:
    balancer = ClassDifficultyBalancer(2, tau, **options)
    balancer.update(torch.tensor([0.9, 0.8]))
    assert balancer.class_weights.tolist() == weights
    assert balancer.probabilities.tolist() == pytest.approx([0.0, 1.0], abs=1e-50)


LOW_PRECISION: dict[str, Callable[[nn.Module], nn.Module]] = {
    "to": lambda model: model.to(torch.bfloat16),
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "type": lambda model: model.type(torch.float16),
    "float": lambda model: model.float(),
    "double": lambda model: model.double(),
}


@pytest.mark.parametrize("change", LOW_PRECISION)
def test_balancer_inside_a_model_of_another_precision_keeps_its_own(change: str) -> None:
    model = nn.ModuleDict({"net": nn.Linear(2, C), "balancer": updated(1.0, [0.999, 0.95, 0.5])})
    balancer = model["balancer"]
    assert isinstance(balancer, ClassDifficultyBalancer)
    held, before = balancer.class_weights, state_of(balancer)
    LOW_PRECISION[change](model)
    assert_same_state(before, state_of(balancer))
    assert {name: v.dtype for name, v in before.items()} == {
        name: v.dtype for name, v in balancer.named_buffers()
    }
    assert balancer.class_weights.tolist() == pytest.approx([0.00544, 0.27223, 2.72232], abs=1e-5)
    balancer.update(torch.tensor([0.9, 0.6, 0.3]))
    assert torch.equal(balancer.class_weights, updated(1.0).class_weights)
    assert held is balancer.class_weights


def test_balancer_made_where_the_usual_precision_is_low_has_its_own() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        balancer = updated(1.0, [0.999, 0.95, 0.5])
    finally:
        torch.set_default_dtype(torch.float32)
    assert balancer.class_weights.dtype == torch.float32
    assert balancer.difficulty.dtype == torch.float64


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9), get_swa_multi_avg_fn()])
def test_averaged_model_may_hold_a_balancer(average: Any) -> None:
    model = nn.ModuleDict({"net": nn.Linear(2, C), "balancer": ClassDifficultyBalancer(C)})
    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    for performance in ([0.9, 0.6, 0.3], [0.8, 0.5, 0.2]):
        model["balancer"].update(torch.tensor(performance))
        averaged.update_parameters(model)
    assert averaged.module["balancer"].difficulty.isfinite().all()
    assert averaged.module["balancer"].measured.tolist() == [1.0] * C


def test_state_that_says_measured_by_a_bool_is_taken() -> None:
    state = state_of(updated(performance=[0.9, math.nan, 0.3]))
    balancer = ClassDifficultyBalancer(C)
    balancer.load_state_dict(state | {"measured": state["measured"].bool()})
    assert balancer.measured.tolist() == [1.0, 0.0, 1.0]


def test_weighted_loss_goes_to_another_process_with_its_balancer() -> None:
    balancer = updated()
    weighted = balancer.weighted(partial(focal_loss, gamma=2.0))
    logits, labels = torch.zeros(2, C), torch.tensor([0, 2])
    copied, copied_balancer = pickle.loads(pickle.dumps((weighted, balancer)))
    assert torch.equal(copied(logits, labels), weighted(logits, labels))
    copied_balancer.update(torch.tensor([0.1, 0.9, 0.9]))
    assert not torch.equal(copied(logits, labels), weighted(logits, labels))


@pytest.mark.parametrize("ignored", [255, -100])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_of_pixels_leaves_the_ignored_out(ignored: int, reduction: Reduction) -> None:
    balancer = updated(reduction=reduction)
    losses, labels = torch.rand(2, 3, 4), torch.arange(24).view(2, 3, 4) % C
    labels[0, 1:] = ignored
    kept = labels != ignored
    expected = balancer.weighted_mean(losses[kept], labels[kept])
    found = balancer.weighted_mean(losses, labels, ignore_index=ignored)
    torch.testing.assert_close(found, expected)
    weighted = balancer.weighted(lambda logits, _: logits, ignore_index=ignored)
    assert torch.equal(weighted(losses, labels), found)


def test_gradient_of_micro_batches_by_one_sum_of_weights_is_the_big_batch_s() -> None:
    losses, labels = torch.tensor([0.1, 0.3, 0.2, 4.0]), torch.tensor([0, 0, 1, 2])
    whole = updated(reduction="weight-sum").weighted_mean(losses, labels)
    balancer = updated(reduction="sum")
    total = balancer.sample_weights(labels).sum()
    parts = zip(losses.split(2), labels.split(2), strict=True)
    torch.testing.assert_close(sum(balancer.weighted_mean(*part) for part in parts) / total, whole)


@pytest.mark.parametrize("tau", [0.0, 1.5, *TAU_LAWS])
def test_perfect_model_weighs_all_classes_alike(tau: Any) -> None:
    balancer = updated(tau, [1.0, 1.0, 1.0])
    assert balancer.class_weights.tolist() == [1.0] * C
    assert balancer.probabilities.tolist() == pytest.approx([1 / C] * C)


def test_perfect_class_is_left_out_for_the_epoch() -> None:
    balancer = updated("sigmoid", [1.0, 0.5, 0.5])
    assert balancer.class_weights.tolist() == [0.0, 1.5, 1.5]


def test_fixed_tau_0_weighs_all_classes_alike_also_a_perfect_one() -> None:
    assert updated(0.0, [1.0, 0.5, 0.2]).class_weights.tolist() == [1.0] * C


def test_equal_performance_weighs_all_classes_alike() -> None:
    balancer = updated("sigmoid", [0.7, 0.7, 0.7])
    assert float(balancer.tau) == 0
    assert balancer.class_weights.tolist() == pytest.approx([1.0] * C)


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_single_class_is_refused(classes: int) -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        ClassDifficultyBalancer(classes)


@pytest.mark.parametrize(
    ("tau", "options", "words"),
    [
        (-0.5, {}, "tau must be"),
        ("sigmiod", {}, "tau must be"),
        (1.0, {"eps": 0.0}, "eps must be"),
        ("sigmoid", {"eps": -0.01}, "eps must be"),
        ("sigmoid", {"eps": 1.0}, "eps must be"),
        (1.0, {"tau_max": -1.0}, "tau_max must be"),
        ("sigmoid", {"tau_max": -1.0}, "tau_max must be"),
        (1.0, {"power": 0.5}, "power must be"),
        ("polynomial", {"power": 0.5}, "power must be"),
        ("sigmoid", {"reduction": "mean"}, "reduction must be"),
        ("sigmoid", {"average": 1.0}, "average must be"),
        ("sigmoid", {"average": -0.1}, "average must be"),
        ("sigmoid", {"average": math.nan}, "average must be"),
        ("sigmoid", {"start_epoch": -1}, "start_epoch must be"),
    ],
)
def test_impossible_option_is_refused_at_once(
    tau: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ClassDifficultyBalancer(C, tau, **options)


@pytest.mark.parametrize(
    "performance",
    [
        torch.tensor([0.5, 0.5]),
        torch.tensor([[0.5, 0.5, 0.5]]),
        torch.tensor(0.5),
        torch.tensor([0.5, 1.5, 0.5]),
        torch.tensor([0.5, -0.1, 0.5]),
        torch.tensor([0.5, math.inf, 0.5]),
        torch.tensor([90.0, 60.0, 30.0]),
    ],
)
def test_refused_update_leaves_the_state_unchanged(performance: Tensor) -> None:
    balancer = updated()
    before = state_of(balancer)
    with pytest.raises(ValueError, match=r"performance"):
        balancer.update(performance)
    assert_same_state(before, state_of(balancer))


def test_update_works_in_place() -> None:
    balancer = ClassDifficultyBalancer(C)
    pointers = {name: value.data_ptr() for name, value in balancer.named_buffers()}
    held = balancer.class_weights
    balancer.update(torch.tensor([0.9, 0.6, 0.3]))
    balancer.load_state_dict(updated(performance=[0.1, 0.2, 0.3]).state_dict())
    assert {name: value.data_ptr() for name, value in balancer.named_buffers()} == pointers
    assert len(pointers) == 6
    assert held.tolist() == balancer.class_weights.tolist() != [1.0] * C


def test_update_between_forward_and_backward_does_not_change_the_gradient() -> None:
    balancer = updated()
    weights = balancer.class_weights.clone()
    losses = torch.ones(2, requires_grad=True)
    loss = balancer.weighted_mean(losses, torch.tensor([0, 2]))
    balancer.update(torch.tensor([0.1, 0.2, 0.9]))
    (gradient,) = torch.autograd.grad(loss, [losses])
    assert gradient.tolist() == pytest.approx([float(weights[0]) / 2, float(weights[2]) / 2])


@pytest.mark.parametrize("law", TAU_LAWS)
def test_restored_balancer_continues_identically(law: Any) -> None:
    balancer = updated(law, [0.9, math.nan, 0.3])
    restored = ClassDifficultyBalancer(C, law)
    restored.load_state_dict(balancer.state_dict())
    assert_same_state(state_of(balancer), state_of(restored))
    assert torch.equal(balancer.probabilities, restored.probabilities)
    for one in (balancer, restored):
        one.update(performance_of([None, None, 0.4]))
    assert_same_state(state_of(balancer), state_of(restored))
    fresh = ClassDifficultyBalancer(C, law)
    fresh.update(performance_of([None, None, 0.4]))
    assert not torch.equal(fresh.difficulty, restored.difficulty)


def test_balancer_in_a_model_is_saved_with_it_and_trains_nothing() -> None:
    model = nn.ModuleDict({"net": nn.Linear(2, C), "balancer": updated()})
    assert "balancer.difficulty" in model.state_dict()
    assert list(model["balancer"].parameters()) == []


def test_state_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        updated().load_state_dict(ClassDifficultyBalancer(C + 1).state_dict())


def test_moving_the_balancer_moves_everything_it_holds() -> None:
    balancer = updated().to("meta")
    assert {value.device.type for value in balancer.buffers()} == {"meta"}
    assert balancer.sample_weights(torch.zeros(2, dtype=torch.int64, device="meta")).is_meta


def test_copy_does_not_share_state() -> None:
    balancer = updated()
    copied = copy.deepcopy(balancer)
    copied.update(torch.tensor([0.1, 0.2, 0.3]))
    assert not torch.equal(copied.class_weights, balancer.class_weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_performance_of_any_dtype_is_taken(dtype: torch.dtype) -> None:
    balancer = ClassDifficultyBalancer(C)
    balancer.update(torch.tensor([1, 0, 1], dtype=dtype))
    assert balancer.difficulty.tolist() == [0.0, 1.0, 0.0]


def test_performance_measured_in_inference_mode_is_taken() -> None:
    balancer = ClassDifficultyBalancer(C)
    with torch.inference_mode():
        performance = torch.tensor([0.9, 0.6, 0.3]) * 1.0
        balancer.update(performance)
    losses = torch.ones(1, requires_grad=True)
    balancer.weighted_mean(losses, torch.tensor([2])).backward()
    assert losses.grad is not None


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_any_per_sample_loss_is_weighted_class_by_class(name: str, reduction: Reduction) -> None:
    balancer = updated("logarithmic", reduction=reduction)
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(7, C, generator=generator), torch.arange(7) % C
    weights = balancer.class_weights.tolist()
    total = weight_sum = 0.0
    for z, y in zip(logits, labels, strict=True):
        total += weights[y] * LOSSES[name](z[None], y[None]).item()
        weight_sum += weights[y]
    divisor = {"batch-size": 7.0, "weight-sum": weight_sum, "sum": 1.0}[reduction]
    assert balancer.weighted(LOSSES[name])(logits, labels).item() == pytest.approx(total / divisor)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_the_weighted_loss_equals_the_finite_difference(name: str) -> None:
    weighted = updated("logarithmic").weighted(LOSSES[name])
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, C, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda z: weighted(z, labels), [logits])


def test_weighted_loss_follows_later_updates() -> None:
    balancer = ClassDifficultyBalancer(C)
    weighted = balancer.weighted(cross_entropy)
    logits, labels = torch.zeros(2, C), torch.tensor([0, 0])
    before = weighted(logits, labels)
    balancer.update(torch.tensor([0.9, 0.6, 0.3]))
    assert weighted(logits, labels) < before


@pytest.mark.parametrize(
    ("base", "option"),
    [
        ("sigmoid", {"tau": "linear"}),
        ("sigmoid", {"tau": 1.0}),
        ("sigmoid", {"tau_max": 2.0}),
        ("sigmoid", {"eps": 0.2}),
        ("polynomial", {"power": 3.0}),
        ("sigmoid", {"normalize": False}),
        ("sigmoid", {"reduction": "weight-sum"}),
        ("sigmoid", {"reduction": "sum"}),
    ],
)
def test_every_option_changes_the_loss(base: str, option: dict[str, Any]) -> None:
    losses, labels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1])
    performance = [0.9, 0.6, 0.05]  # a large bias: the power of Eq. 8 shows
    plain = updated(base, performance).weighted_mean(losses, labels)
    changed = updated(**({"tau": base, "performance": performance} | option))
    assert abs(float(plain - changed.weighted_mean(losses, labels))) > 1e-3 * float(plain)


def test_every_law_gives_other_weights() -> None:
    weights = {tuple(updated(law).class_weights.tolist()) for law in TAU_LAWS}
    assert len(weights) == len(TAU_LAWS)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([-1, 0]),
        torch.tensor([0, C]),
        torch.tensor([0.0, 1.0]),
    ],
)
def test_label_that_is_no_class_is_refused_rather_than_given_a_weight(labels: Tensor) -> None:
    with pytest.raises((TypeError, ValueError), match="label"):
        updated().sample_weights(labels)


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
def test_loss_that_is_reduced_already_is_refused(reduce: Callable[[Tensor], Tensor]) -> None:
    labels = torch.tensor([0, 1, 2])
    loss = reduce(cross_entropy(torch.zeros(3, C), labels))
    with pytest.raises(ValueError, match="one loss per sample"):
        updated().weighted_mean(loss, labels)


# Steadiers: an average and deferred weights, off as printed.


@thorough
@given(epochs_of_performance, st.sampled_from(sorted(TAU_LAWS)))
def test_without_a_steadier_every_number_is_that_of_the_last_measurement_to_the_bit(
    epochs: list[list[float | None]], law: Any
) -> None:
    balancer = ClassDifficultyBalancer(C, law, average=0.0, start_epoch=0)
    difficulty, seen = torch.ones(C, dtype=torch.float64), torch.zeros(C, dtype=torch.bool)
    for values in epochs:
        performance = performance_of(values)
        balancer.update(performance)
        difficulty = difficulty_from_performance(performance, difficulty)
        seen |= ~performance.isnan()
        known = (1.0 - difficulty).where(seen, torch.nan)
        weights = difficulty_weights(difficulty, tau_from_performance(law, known))
        assert torch.equal(balancer.difficulty, difficulty)
        assert torch.equal(balancer.bias, performance_bias(known))
        assert torch.equal(balancer.tau, tau_from_performance(law, known))
        assert torch.equal(balancer.class_weights, normalize_weights(weights).float())
        assert torch.equal(balancer.probabilities, weights / weights.sum())


def test_average_worked_by_hand() -> None:
    # 0.9, 0.5 0.9 + 0.5 0.5 = 0.7; 0.6, not measured; not measured, first measured as 0.5.
    balancer = ClassDifficultyBalancer(C, 1.0, average=0.5)
    balancer.update(performance_of([0.9, 0.6, None]))
    assert balancer.difficulty.tolist() == pytest.approx([0.1, 0.4, 1.0])
    balancer.update(performance_of([0.5, None, 0.5]))
    assert balancer.difficulty.tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert float(balancer.bias) == pytest.approx(0.7 / 0.51 - 1)
    assert balancer.class_weights.tolist() == pytest.approx([3 * d / 1.2 for d in (0.3, 0.4, 0.5)])
    balancer.update(performance_of([1.0, 0.0, None]))
    assert balancer.difficulty.tolist() == pytest.approx([0.15, 0.7, 0.5])


@thorough
@given(epochs_of_performance, st.floats(0, 0.99))
def test_average_is_the_slow_one_of_each_class_by_itself(
    epochs: list[list[float | None]], average: float
) -> None:
    balancer = ClassDifficultyBalancer(C, average=average)
    for performance in epochs:
        balancer.update(performance_of(performance))
    for c in range(C):
        known = [epoch[c] for epoch in epochs if epoch[c] is not None]
        mean = known[0] if known else 0.0
        for a in known[1:]:
            mean = average * mean + (1 - average) * a  # type: ignore[operator]
        assert float(balancer.difficulty[c]) == pytest.approx(1 - mean, abs=1e-12)  # type: ignore[operator]


def test_average_cannot_hide_a_performance_out_of_range() -> None:
    balancer = updated(average=0.9)
    before = state_of(balancer)
    with pytest.raises(ValueError, match=r"performance 1.05 of class 1 is outside"):
        balancer.update(performance_of([0.9, 1.05, 0.5]))
    assert_same_state(before, state_of(balancer))


@pytest.mark.parametrize("options", [{}, {"normalize": False}])
def test_deferred_weights_are_equal_until_the_start_epoch_and_then_the_usual(
    options: dict[str, Any],
) -> None:
    usual = ClassDifficultyBalancer(C, **options)
    deferred = ClassDifficultyBalancer(C, start_epoch=2, **options)
    held = deferred.class_weights
    for epoch, performance in enumerate([[0.9, 0.6, 0.3], [0.8, 0.5, 0.4], [0.7, 0.4, 0.2]]):
        assert deferred.deferred is (epoch < 2)
        assert float(deferred.updates) == epoch
        if epoch < 2:
            assert held.tolist() == [1.0] * C
            assert deferred.probabilities.tolist() == pytest.approx([1 / C] * C)
        for one in (usual, deferred):
            one.update(performance)
        for name in ("difficulty", "measured", "bias", "tau"):
            assert torch.equal(getattr(usual, name), getattr(deferred, name))
    assert torch.equal(held, usual.class_weights)
    assert len(set(held.tolist())) == C
    assert torch.equal(deferred.probabilities, usual.probabilities)


def test_restored_steadied_balancer_continues_identically_over_its_start() -> None:
    def made() -> ClassDifficultyBalancer:
        return ClassDifficultyBalancer(C, average=0.5, start_epoch=2)

    balancer, restored = made(), made()
    balancer.update([0.9, 0.6, 0.3])
    restored.load_state_dict(state_of(balancer))
    for performance in ([0.7, math.nan, 0.4], [0.5, 0.5, 0.5]):
        for one in (balancer, restored):
            one.update(performance)
        assert_same_state(state_of(balancer), state_of(restored))
        assert len(set(restored.class_weights.tolist())) > 1


def test_state_from_before_updates_were_counted_is_taken_where_no_weight_depends_on_them() -> None:
    old = {name: value for name, value in state_of(updated()).items() if name != "updates"}
    restored = nn.ModuleDict({"balancer": ClassDifficultyBalancer(C)})
    restored.load_state_dict({f"balancer.{name}": value for name, value in old.items()})
    assert torch.equal(restored["balancer"].class_weights, updated().class_weights)
    for steadier in ({"average": 0.5}, {"start_epoch": 1}):
        with pytest.raises(RuntimeError, match=r'Missing key.* "updates"'):
            ClassDifficultyBalancer(C, **steadier).load_state_dict(old)
