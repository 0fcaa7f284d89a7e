import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.losses import (
    REDUCTIONS,
    LdamLoss,
    PerSampleLoss,
    Reduction,
    SoftmaxEqualizationLoss,
    balanced_softmax_loss,
    cross_entropy,
    focal_loss,
    focal_weights,
    hinge_loss,
    logit_adjusted_loss,
    squared_error,
    weighted_mean,
)

C = 4
COUNTS = [100, 30, 4, 1]
thorough = settings(deadline=None, max_examples=60, derandomize=True)
numbers = st.floats(-8, 8, allow_nan=False)
samples = st.lists(
    st.tuples(st.lists(numbers, min_size=C, max_size=C), st.integers(0, C - 1)),
    min_size=1,
    max_size=6,
)
Samples = list[tuple[list[float], int]]


def tensors(batch: Samples) -> tuple[Tensor, Tensor]:
    logits = torch.tensor([z for z, _ in batch], dtype=torch.float64)
    return logits, torch.tensor([y for _, y in batch])


def random_batch(size: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, C, generator=generator, dtype=torch.float64)
    return logits, torch.randint(C, (size,), generator=generator)


def softmax(z: list[float]) -> list[float]:
    total = 0.0
    for value in z:
        total += math.exp(value)
    return [math.exp(value) / total for value in z]


def slow_cross_entropy(z: list[float], y: int) -> float:
    return -math.log(softmax(z)[y])


def slow_focal(z: list[float], y: int, gamma: float) -> float:
    others = sum(p for k, p in enumerate(softmax(z)) if k != y)  # 1 - p_y without cancellation
    return float(others**gamma * slow_cross_entropy(z, y))


def slow_squared_error(z: list[float], y: int) -> float:
    total = 0.0
    for k, p in enumerate(softmax(z)):
        total += (p - (1.0 if k == y else 0.0)) ** 2
    return total / len(z)


def slow_hinge(z: list[float], y: int, margin: float) -> float:
    best_other = max(value for k, value in enumerate(z) if k != y)
    return max(0.0, margin + best_other - z[y])


def slow_ldam(z: list[float], y: int, max_margin: float, scale: float) -> float:
    margin = max_margin * COUNTS[y] ** -0.25 / max(n**-0.25 for n in COUNTS)
    shifted = [scale * (value - (margin if k == y else 0.0)) for k, value in enumerate(z)]
    peak = max(shifted)
    return slow_cross_entropy([value - peak for value in shifted], y)


def slow_balanced_softmax(z: list[float], y: int) -> float:
    """Ren et al. 2020, Eq. 3: p_y = n_y e^{z_y} / sum_k n_k e^{z_k}."""
    total = 0.0
    for n, value in zip(COUNTS, z, strict=True):
        total += n * math.exp(value)
    return -math.log(COUNTS[y] * math.exp(z[y]) / total)


def slow_logit_adjustment(z: list[float], y: int, tau: float) -> float:
    """Menon et al. 2021, Eq. 10, as a sum over pairs of classes.

    log(1 + sum_{k != y} (pi_k / pi_y)^tau e^{z_k - z_y})
    """
    shares = [n / sum(COUNTS) for n in COUNTS]
    total = 0.0
    for k, value in enumerate(z):
        if k != y:
            total += (shares[k] / shares[y]) ** tau * math.exp(value - z[y])
    return math.log1p(total)


def slow_equalization(
    z: list[float], y: int, beta: list[float], share_limit: float, counts: list[int]
) -> float:
    """Tan et al. 2020: p_y = e^{z_y} / sum_k w_k e^{z_k}, w_k = 1 - beta_k T(f_k) (1 - y_k)."""
    denominator = 0.0
    for k, value in enumerate(z):
        rare = 1.0 if counts[k] / sum(counts) < share_limit else 0.0
        denominator += (1 - beta[k] * rare * (0.0 if k == y else 1.0)) * math.exp(value)
    return -math.log(math.exp(z[y]) / denominator)


def assert_per_sample(actual: Tensor, expected: list[float], tolerance: float = 1e-9) -> None:
    assert actual.shape == (len(expected),)
    assert actual.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)


@thorough
@given(samples)
def test_cross_entropy_equals_eq_11_sample_by_sample(batch: Samples) -> None:
    assert_per_sample(cross_entropy(*tensors(batch)), [slow_cross_entropy(*s) for s in batch])


@thorough
@given(samples, st.floats(0, 4))
def test_focal_loss_equals_eq_13_sample_by_sample(batch: Samples, gamma: float) -> None:
    expected = [slow_focal(z, y, gamma) for z, y in batch]
    assert_per_sample(focal_loss(*tensors(batch), gamma=gamma), expected)


@thorough
@given(samples, st.floats(0, 4))
def test_focal_weights_equal_their_definition_sample_by_sample(
    batch: Samples, gamma: float
) -> None:
    expected = []
    for z, y in batch:
        others = sum(p for k, p in enumerate(softmax(z)) if k != y)
        expected.append(others**gamma)
    assert_per_sample(focal_weights(*tensors(batch), gamma=gamma), expected)


@thorough
@given(samples)
def test_squared_error_equals_its_definition_sample_by_sample(batch: Samples) -> None:
    assert_per_sample(squared_error(*tensors(batch)), [slow_squared_error(*s) for s in batch])


@thorough
@given(samples, st.floats(0, 3))
def test_hinge_loss_equals_its_definition_sample_by_sample(batch: Samples, margin: float) -> None:
    expected = [slow_hinge(z, y, margin) for z, y in batch]
    assert_per_sample(hinge_loss(*tensors(batch), margin=margin), expected)


@thorough
@given(samples, st.floats(0, 1), st.floats(1, 40))
def test_ldam_loss_equals_its_definition_sample_by_sample(
    batch: Samples, max_margin: float, scale: float
) -> None:
    batch = [([value / 8 for value in z], y) for z, y in batch]  # cosines
    loss = LdamLoss(torch.tensor(COUNTS), max_margin=max_margin, scale=scale)
    expected = [slow_ldam(z, y, max_margin, scale) for z, y in batch]
    assert_per_sample(loss(*tensors(batch)), expected, tolerance=1e-5)


@thorough
@given(samples)
def test_balanced_softmax_equals_its_definition_sample_by_sample(batch: Samples) -> None:
    expected = [slow_balanced_softmax(*s) for s in batch]
    assert_per_sample(balanced_softmax_loss(*tensors(batch), torch.tensor(COUNTS)), expected)


@thorough
@given(samples, st.floats(0, 4))
def test_logit_adjustment_equals_its_definition_sample_by_sample(
    batch: Samples, tau: float
) -> None:
    expected = [slow_logit_adjustment(z, y, tau) for z, y in batch]
    actual = logit_adjusted_loss(*tensors(batch), torch.tensor(COUNTS), tau)
    assert_per_sample(actual, expected)


def equalization(gamma: float = 0.9, threshold: float = 0.05, seed: int = 0) -> PerSampleLoss:
    return SoftmaxEqualizationLoss(
        torch.tensor(COUNTS),
        gamma=gamma,
        threshold=threshold,
        generator=torch.Generator().manual_seed(seed),
    )


@thorough
@given(samples, st.floats(0, 1), st.integers(0, 100))
def test_softmax_equalization_equals_its_definition_sample_by_sample(
    batch: Samples, gamma: float, seed: int
) -> None:
    uniform = torch.rand(len(batch), C, generator=torch.Generator().manual_seed(seed))
    beta = (uniform < gamma).double().tolist()
    actual = equalization(gamma, seed=seed)(*tensors(batch))
    expected = [
        slow_equalization(z, y, b, 0.05, COUNTS) for (z, y), b in zip(batch, beta, strict=True)
    ]
    assert_per_sample(actual, expected)


def test_hand_worked_focal_loss() -> None:
    # p_y = 3/4.
    logits, labels = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])
    assert focal_loss(logits, labels, gamma=2.0).item() == pytest.approx(math.log(4 / 3) / 16)


def test_hand_worked_equalization_leaves_the_rare_classes_out() -> None:
    # Four equal logits, classes 2 and 3 rare: p = 1/2 for a frequent class, 1/3 for a rare one.
    losses = equalization(gamma=1.0)(torch.zeros(2, C), torch.tensor([0, 3]))
    assert losses.tolist() == pytest.approx([math.log(2), math.log(3)])


def test_equalization_without_draws_is_cross_entropy() -> None:
    logits, labels = random_batch()
    assert torch.equal(equalization(gamma=0.0)(logits, labels), cross_entropy(logits, labels))


def test_equalization_leaves_a_rare_class_out_with_probability_gamma() -> None:
    loss = SoftmaxEqualizationLoss(
        torch.tensor([99, 1]),
        gamma=0.9,
        threshold=0.1,
        generator=torch.Generator().manual_seed(0),
    )
    losses = loss(torch.zeros(20000, 2), torch.zeros(20000, dtype=torch.int64))
    left_out = (losses == 0).double().mean()  # the others are log 2
    assert float(left_out) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 20000))


def test_equalization_gives_a_left_out_logit_no_gradient() -> None:
    logits = torch.zeros(1, C, requires_grad=True)
    loss = equalization(gamma=1.0)(logits, torch.tensor([0])).sum()
    (gradient,) = torch.autograd.grad(loss, [logits])
    assert gradient.tolist() == [[-0.5, 0.5, 0.0, 0.0]]


def test_equalization_leaves_the_global_random_numbers_untouched() -> None:
    state = torch.get_rng_state()
    equalization()(*random_batch())
    assert torch.equal(torch.get_rng_state(), state)


def softmax_equalization(gamma: float = 0.6, seed: int = 0) -> SoftmaxEqualizationLoss:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(COUNTS)
    return SoftmaxEqualizationLoss(counts, gamma=gamma, threshold=0.05, generator=generator)


def test_equalization_draws_uniform_numbers_for_each_sample_and_class() -> None:
    loss = softmax_equalization()
    draws = loss.draw(4000)
    assert draws.shape == (4000, C)
    assert float(draws.min()) >= 0
    assert float(draws.max()) < 1
    # Uniform: mean 1/2 and variance 1/12, the standard error of the mean is 0.005.
    assert draws.mean(dim=0).tolist() == pytest.approx([0.5] * C, abs=0.02)
    assert draws.var(dim=0).tolist() == pytest.approx([1 / 12] * C, abs=0.005)
    assert not torch.equal(loss.draw(4000), draws)


def test_equalization_with_a_draw_made_before_is_the_one_that_draws_itself() -> None:
    logits, labels = random_batch(50)
    before, itself = softmax_equalization(), softmax_equalization()
    for _ in range(3):
        draws = before.draw(len(labels))
        state = before.generator.get_state()
        assert torch.equal(before(logits, labels, draws), itself(logits, labels))
        assert torch.equal(before.generator.get_state(), state)  # Nothing else is drawn.


def test_equalization_leaves_out_where_the_draw_is_below_gamma() -> None:
    # Classes 2 and 3 are rare; below, at and above gamma = 1/2.
    logits, labels = torch.zeros(4, C), torch.tensor([0, 0, 0, 3])
    draws = torch.tensor(
        [[0.0, 0.0, 0.49, 0.0], [0.0, 0.0, 0.5, 0.49], [0.0, 0.0, 0.5, 0.51], [0.0] * 4]
    )
    losses = softmax_equalization(gamma=0.5)(logits, labels, draws)
    assert losses.exp().tolist() == pytest.approx([2, 3, 4, 3])


@pytest.mark.parametrize("threshold", [0.0, 0.005, 1.1])
def test_equalization_refuses_a_threshold_that_makes_no_or_every_class_rare(
    threshold: float,
) -> None:
    with pytest.raises(ValueError, match="some classes and not all are rare"):
        equalization(threshold=threshold)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, math.nan])
def test_equalization_refuses_a_gamma_that_is_no_probability(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be in"):
        equalization(gamma=gamma)


def test_ldam_margins_grow_with_rarity_up_to_the_largest() -> None:
    loss = LdamLoss(torch.tensor([10000, 16, 1]), max_margin=0.5)
    assert loss.margins.tolist() == pytest.approx([0.05, 0.25, 0.5])


def test_ldam_without_margin_and_scale_is_cross_entropy() -> None:
    logits, labels = random_batch()
    loss = LdamLoss(torch.tensor(COUNTS), max_margin=0.0, scale=1.0)
    torch.testing.assert_close(loss(logits, labels), cross_entropy(logits, labels))


def test_ldam_refuses_a_class_without_sample() -> None:
    with pytest.raises(ValueError, match="at least one training sample"):
        LdamLoss(torch.tensor([5, 0]))


def test_hand_worked_adjusted_losses() -> None:
    # Equal logits, three samples to one: p is the share, with tau 2 nine to one.
    logits, labels, counts = torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([3, 1])
    ours = balanced_softmax_loss(logits, labels, counts)
    assert ours.tolist() == pytest.approx([math.log(4 / 3), math.log(4)])
    ours = logit_adjusted_loss(logits, labels, counts, tau=2.0)
    assert ours.tolist() == pytest.approx([math.log(10 / 9), math.log(10)])


def test_balanced_softmax_is_logit_adjustment_of_tau_1() -> None:
    batch, counts = random_batch(50), torch.tensor(COUNTS)
    balanced = balanced_softmax_loss(*batch, counts)
    assert torch.equal(balanced, logit_adjusted_loss(*batch, counts))
    assert torch.equal(balanced, logit_adjusted_loss(*batch, counts, tau=1.0))


@pytest.mark.parametrize("counts", [COUNTS, [5, 0, 3, 2]])
def test_logit_adjustment_of_tau_0_is_cross_entropy(counts: list[int]) -> None:
    batch = random_batch(50)
    adjusted = logit_adjusted_loss(*batch, torch.tensor(counts), tau=0.0)
    assert torch.equal(adjusted, cross_entropy(*batch))


def test_logit_adjustment_to_equal_counts_is_cross_entropy() -> None:
    batch = random_batch(50)
    adjusted = logit_adjusted_loss(*batch, torch.full((C,), 7), tau=2.0)
    torch.testing.assert_close(adjusted, cross_entropy(*batch), rtol=1e-12, atol=1e-12)


def test_logit_adjustment_takes_the_proportions_of_the_counts_alone() -> None:
    batch, counts = random_batch(50), torch.tensor(COUNTS)
    usual = logit_adjusted_loss(*batch, counts, tau=1.5)
    torch.testing.assert_close(logit_adjusted_loss(*batch, 1000 * counts, tau=1.5), usual)
    torch.testing.assert_close(logit_adjusted_loss(*batch, counts / counts.sum(), tau=1.5), usual)


def test_logit_adjustment_does_not_mind_a_constant_in_the_logits() -> None:
    (logits, labels), counts = random_batch(50), torch.tensor(COUNTS)
    shifted = logit_adjusted_loss(logits + 3.0, labels, counts)
    torch.testing.assert_close(shifted, logit_adjusted_loss(logits, labels, counts))


def test_logit_adjustment_does_not_mind_the_order_of_the_classes() -> None:
    (logits, labels), counts = random_batch(50), torch.tensor(COUNTS)
    order = torch.tensor([2, 0, 3, 1])
    place = order.argsort()
    permuted = logit_adjusted_loss(logits[:, order], place[labels], counts[order], tau=1.5)
    torch.testing.assert_close(permuted, logit_adjusted_loss(logits, labels, counts, tau=1.5))


@pytest.mark.parametrize("tau", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("size", [30.0, 200.0, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logit_adjustment_and_its_gradient_are_finite_for_extreme_logits(
    size: float, tau: float, dtype: torch.dtype
) -> None:
    rows = [[size, 0.0, -size, 0.0], [-size, 0.0, size, 0.0], [size] * 4, [-size] * 4]
    logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
    losses = logit_adjusted_loss(logits, torch.tensor([0, 0, 3, 3]), torch.tensor(COUNTS), tau)
    (gradient,) = torch.autograd.grad(losses.sum(), [logits])
    assert bool(losses.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert gradient[1, 0] == pytest.approx(-1, abs=0.1)  # a wrong sample still learns


def test_adjusted_loss_leaves_a_class_without_a_sample_out() -> None:
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 2, 3, 0, 2, 3])
    logits.requires_grad_()
    losses = balanced_softmax_loss(logits, labels, torch.tensor([5, 0, 3, 2]))
    (gradient,) = torch.autograd.grad(losses.sum(), [logits])
    others, counts = [0, 2, 3], torch.tensor([5, 3, 2])
    expected = balanced_softmax_loss(logits[:, others], torch.tensor([0, 1, 2] * 2), counts)
    torch.testing.assert_close(losses, expected)
    assert gradient[:, 1].tolist() == [0.0] * 6
    assert bool(gradient.isfinite().all())


def test_a_sample_of_a_class_without_a_sample_has_an_infinite_loss() -> None:
    losses = balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([5, 0]))
    assert losses.tolist() == [math.inf]


@pytest.mark.parametrize("tau", [-0.1, math.nan, math.inf])
def test_logit_adjustment_refuses_a_tau_below_0_or_not_finite(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be at least 0 and finite, not"):
        logit_adjusted_loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([2, 1]), tau)


@pytest.mark.parametrize("counts", [[5], [5, 1, 1], [[5, 1]], 5])
def test_adjusted_loss_refuses_counts_that_are_not_one_per_class(counts: Any) -> None:
    for loss in (balanced_softmax_loss, logit_adjusted_loss):
        with pytest.raises(ValueError, match="give one count per class"):
            loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.tensor(counts))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adjusted_loss_of_logits_of_low_precision_is_that_in_float32(dtype: torch.dtype) -> None:
    logits, labels = random_batch(50)
    logits, counts = logits.to(dtype), torch.tensor([60000, 300, 7, 1])
    expected = balanced_softmax_loss(logits.float(), labels, counts)
    assert torch.equal(balanced_softmax_loss(logits, labels, counts), expected)


def test_focal_loss_of_gamma_0_is_cross_entropy() -> None:
    logits, labels = random_batch()
    torch.testing.assert_close(
        focal_loss(logits, labels, gamma=0.0), cross_entropy(logits, labels), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_is_cross_entropy_times_its_weights(gamma: float) -> None:
    logits, labels = random_batch(50)
    weights = focal_weights(logits, labels, gamma)
    product = weights * cross_entropy(logits, labels)
    torch.testing.assert_close(focal_loss(logits, labels, gamma), product, rtol=1e-12, atol=0)


def test_hand_worked_focal_weights() -> None:
    # p_y = 3/4, then 1/4.
    logits, labels = torch.tensor([[math.log(3.0), 0.0]] * 2), torch.tensor([0, 1])
    assert focal_weights(logits, labels).tolist() == pytest.approx([0.25, 0.75])
    assert focal_weights(logits, labels, gamma=2.0).tolist() == pytest.approx([0.0625, 0.5625])
    assert focal_weights(logits, labels, gamma=0.0).tolist() == [1.0, 1.0]


def test_focal_weights_have_no_gradient_and_stay_in_0_to_1() -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    weights = focal_weights(logits, torch.tensor([0, 0]))
    assert not weights.requires_grad
    assert weights.tolist() == pytest.approx([0.0, 1.0])
    assert 0 <= float(weights.min()) <= float(weights.max()) <= 1


@pytest.mark.parametrize("gamma", [-0.1, -2.0])
def test_focal_loss_refuses_a_negative_gamma(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=gamma)


@pytest.mark.parametrize("gap", [5.0, 15.0, 17.0, 30.0, 80.0, 200.0])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_loss_and_its_gradient_are_finite_where_p_is_near_0_or_1(
    gap: float, gamma: float, dtype: torch.dtype
) -> None:
    logits = torch.tensor([[gap, 0.0], [-gap, 0.0]], dtype=dtype, requires_grad=True)
    losses = focal_loss(logits, torch.tensor([0, 0]), gamma=gamma)
    (gradient,) = torch.autograd.grad(losses.sum(), [logits])
    assert bool(losses.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert gradient[1, 0] == pytest.approx(-1, abs=0.1)  # a wrong sample still learns


def test_focal_loss_is_exact_where_p_is_near_1() -> None:
    # In float32 1 - p would be 0 or 1.2e-7 here, instead of 1.5e-7.
    gap = 15.7
    others = math.exp(-gap) / (1 + math.exp(-gap))
    loss = focal_loss(torch.tensor([[gap, 0.0]], dtype=torch.float64), torch.tensor([0]), gamma=0.5)
    assert loss.item() == pytest.approx(others**0.5 * -math.log1p(-others), rel=1e-6)


def smooth_losses() -> dict[str, PerSampleLoss]:
    return {
        "cross-entropy": cross_entropy,
        "focal 0.5": lambda z, y: focal_loss(z, y, gamma=0.5),
        "focal 1": focal_loss,
        "focal 2": lambda z, y: focal_loss(z, y, gamma=2.0),
        "squared error": squared_error,
        "hinge": hinge_loss,
        "ldam": LdamLoss(torch.tensor(COUNTS), scale=3.0),
        "balanced softmax": partial(balanced_softmax_loss, class_counts=torch.tensor(COUNTS)),
        "logit adjustment": partial(
            logit_adjusted_loss, class_counts=torch.tensor(COUNTS), tau=2.0
        ),
        # A new generator at every call: the same draw for all of gradcheck's evaluations.
        "equalization": lambda z, y: equalization(gamma=0.6)(z, y),
    }


@pytest.mark.parametrize("name", smooth_losses())
def test_gradient_equals_the_finite_difference(name: str) -> None:
    logits, labels = random_batch(size=6, seed=3)
    loss = smooth_losses()[name]
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), [logits.requires_grad_()])


@pytest.mark.parametrize("name", smooth_losses())
def test_loss_of_a_sample_depends_on_that_sample_only(name: str) -> None:
    logits, labels = random_batch(size=6, seed=3)
    loss = smooth_losses()[name]
    changed = logits.clone()
    changed[0] += torch.arange(C)
    difference = loss(changed, labels) - loss(logits, labels)
    assert difference[0] != 0
    assert difference[1:].tolist() == [0.0] * 5


@pytest.mark.parametrize("name", smooth_losses())
@pytest.mark.parametrize("label", [-1, C])
def test_loss_refuses_a_label_out_of_range(name: str, label: int) -> None:
    logits, _ = random_batch(size=1)
    with pytest.raises((IndexError, RuntimeError)):
        smooth_losses()[name](logits, torch.tensor([label]))


@pytest.mark.parametrize(
    ("loss", "gammas"),
    [
        (focal_loss, ({"gamma": 1.0}, {"gamma": 2.0})),
        (hinge_loss, ({"margin": 1.0}, {"margin": 2.0})),
    ],
)
def test_options_of_a_loss_change_it(
    loss: Callable[..., Tensor], gammas: tuple[dict[str, float], dict[str, float]]
) -> None:
    batch = random_batch()
    assert not torch.equal(loss(*batch, **gammas[0]), loss(*batch, **gammas[1]))


@thorough
@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0.1, 5)), min_size=1, max_size=6))
def test_weighted_mean_divides_by_batch_size_by_the_weights_sum_or_not_at_all(
    pairs: list[tuple[float, float]],
) -> None:
    losses, weights = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    weighted = sum(loss * w for loss, w in pairs)
    by_size = weighted_mean(losses, weights)
    by_weight = weighted_mean(losses, weights, "weight-sum")
    assert by_size.item() == pytest.approx(weighted / len(pairs), abs=1e-12)
    assert by_weight.item() == pytest.approx(weighted / sum(w for _, w in pairs), abs=1e-12)
    assert weighted_mean(losses, weights, "sum").item() == pytest.approx(weighted, abs=1e-12)


def test_weight_sum_reduction_is_torch_s_weighted_cross_entropy() -> None:
    logits, labels = random_batch()
    weights = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)
    ours = weighted_mean(cross_entropy(logits, labels), weights[labels], "weight-sum")
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, weight=weights))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batch_of_weight_0_has_loss_0_and_no_gradient(reduction: Reduction) -> None:
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = weighted_mean(losses, torch.zeros(2), reduction)
    (gradient,) = torch.autograd.grad(loss, [losses])
    assert loss.item() == 0
    assert gradient.tolist() == [0.0, 0.0]


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction must be"):
        weighted_mean(torch.ones(2), torch.ones(2), "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (2,)])
def test_loss_that_is_not_one_number_per_sample_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one loss per sample"):
        weighted_mean(torch.ones(shape), torch.ones(3))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.int64, torch.float32),
    ],
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weighted_mean_has_the_loss_s_dtype_but_at_least_float32(
    dtype: torch.dtype, kept: torch.dtype, reduction: Reduction
) -> None:
    losses, weights = torch.ones(2, dtype=dtype), torch.tensor([0.25, 0.5], dtype=torch.float64)
    result = weighted_mean(losses, weights, reduction)
    assert result.dtype == kept
    assert result.item() == {"batch-size": 0.375, "weight-sum": 1.0, "sum": 0.75}[reduction]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("reduction", "expected"), [("batch-size", 4.0), ("weight-sum", 2.0), ("sum", 280000.0)]
)
def test_weighted_mean_of_many_losses_of_low_precision_is_reduced_in_float32(
    dtype: torch.dtype, reduction: Reduction, expected: float
) -> None:
    # Their sum is beyond float16, and in bfloat16 it stops growing at 512.
    losses = torch.full((70_000,), 2.0, dtype=dtype, requires_grad=True)
    loss = weighted_mean(losses, torch.full((70_000,), 2.0), reduction)
    assert loss.item() == expected
    (gradient,) = torch.autograd.grad(loss, [losses])
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_empty_batch_has_loss_0(reduction: Reduction) -> None:
    losses = torch.empty(0, requires_grad=True)
    loss = weighted_mean(losses, torch.empty(0), reduction)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize(
    ("reduction", "expected"), [("batch-size", 7 / 2), ("weight-sum", 7 / 5), ("sum", 7.0)]
)
def test_loss_that_does_not_count_is_left_out_of_sum_and_divisor(
    reduction: Reduction, expected: float
) -> None:
    losses = torch.tensor([[1.0, math.nan], [2.0, math.inf]], requires_grad=True)
    weights = torch.tensor([[3.0, 5.0], [2.0, 5.0]])
    counted = torch.tensor([[True, False], [True, False]])
    loss = weighted_mean(losses, weights, reduction, counted)
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, [losses])
    assert gradient[:, 1].tolist() == [0.0, 0.0]
    assert weighted_mean(losses, weights, reduction, torch.zeros(2, 2).bool()).item() == 0


LABEL_KINDS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "array": np.array,
    "uint8": lambda labels: torch.tensor(labels, dtype=torch.uint8),
    "int16": lambda labels: torch.tensor(labels, dtype=torch.int16),
}


@pytest.mark.parametrize("name", smooth_losses())
@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_loss_takes_labels_of_any_integer_kind(name: str, kind: str) -> None:
    logits, labels = random_batch()
    given = LABEL_KINDS[kind](labels.tolist())
    assert torch.equal(smooth_losses()[name](logits, given), smooth_losses()[name](logits, labels))


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        focal_loss,
        squared_error,
        hinge_loss,
        partial(balanced_softmax_loss, class_counts=torch.tensor(COUNTS)),
    ],
)
def test_loss_of_pixels_is_that_of_each_pixel(loss: PerSampleLoss) -> None:
    logits, labels = random_batch(2 * 3 * 5)
    of_pixels = loss(logits.view(2, 3, 5, C).movedim(-1, 1), labels.view(2, 3, 5))
    torch.testing.assert_close(of_pixels.flatten(), loss(logits, labels))


def test_equalization_without_a_generator_is_refused() -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
        SoftmaxEqualizationLoss(torch.tensor(COUNTS), threshold=0.05, generator=None)  # type: ignore[arg-type]
