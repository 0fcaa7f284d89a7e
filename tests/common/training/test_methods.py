from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.balancer import ClassDifficultyBalancer
from common.losses import (
    REDUCTIONS,
    Reduction,
    SoftmaxEqualizationLoss,
    balanced_softmax_loss,
    cross_entropy,
    focal_loss,
    logit_adjusted_loss,
)
from common.sampler import ClassAwareSampler, ClassProbabilitySampler, InstanceBalancedSampler
from common.streams import Streams
from common.training.methods import LOGIT_METHODS, LogitConfig, UsualSettings
from common.training.methods.base import LogitMethod
from common.training.methods.eql import EqlSettings
from tests.common.training.made import MadeData

COUNTS = torch.tensor([9, 4, 1])
LABELS = MadeData(COUNTS).train.labels
ACCURACY = torch.tensor([0.9, 0.5, 0.1])
CDB = {"cdb-s", "cdb-w-ce", "cdb-w-fl"}
WEIGHED = {"cb", "cdb-w-ce", "cdb-w-fl"}


@dataclass(frozen=True, kw_only=True)
class Config(EqlSettings, UsualSettings, LogitConfig):
    """The settings of all of them."""

    dataset: str = "made"
    eql_threshold: float = 0.1


def config(method: str, **changes: object) -> Config:
    return replace(Config(method=method), **changes)  # type: ignore[arg-type]


def made(method: str, counts: Tensor = COUNTS, **changes: Any) -> LogitMethod:
    settings = config(method, **changes)
    rate = torch.tensor(settings.learning_rate)
    return LOGIT_METHODS[method](settings, MadeData(counts), Streams(0), rate)


def balancer_of(method: LogitMethod) -> ClassDifficultyBalancer:
    assert method.balancer is not None
    return method.balancer


def probabilities_of(method: LogitMethod) -> list[float]:
    """Of the classes, where it is these that are drawn."""
    assert isinstance(method.sampler, ClassProbabilitySampler)
    probabilities: list[float] = method.sampler.probabilities.tolist()
    return probabilities


# Difficulty.


def test_the_methods_of_the_paper_have_a_balancer_and_use_difficulty_and_no_other() -> None:
    assert {m for m in LOGIT_METHODS if made(m).balancer is not None} == CDB
    assert {m for m in LOGIT_METHODS if config(m).uses_difficulty} == CDB


def test_the_balancer_has_the_settings_of_the_run() -> None:
    usual, other = made("cdb-s"), made("cdb-s", tau="2", normalize_weights=False)
    for method in (usual, other):
        method.after_epoch(ACCURACY)
    bias = 0.9 / 0.11 - 1
    assert float(balancer_of(usual).bias) == pytest.approx(bias)
    assert float(balancer_of(usual).class_weights.sum()) == pytest.approx(3)
    assert float(balancer_of(other).tau) == 2.0
    assert balancer_of(other).class_weights.tolist() == pytest.approx([0.01, 0.25, 0.81])


@pytest.mark.parametrize("method", sorted(CDB))
def test_what_is_followed_is_the_accuracy_with_the_prior(method: str) -> None:
    plain, smoothed = made(method), made(method, difficulty_prior=2.0)
    for run in (plain, smoothed):
        run.after_epoch(torch.tensor([8 / 9, 2 / 4, 0 / 1], dtype=torch.float64))
    assert balancer_of(plain).difficulty.tolist() == pytest.approx([1 / 9, 2 / 4, 1 / 1])
    expected = [(1 + 2) / (9 + 4), (2 + 2) / (4 + 4), (1 + 2) / (1 + 4)]
    assert balancer_of(smoothed).difficulty.tolist() == pytest.approx(expected)


# Samplers.


@pytest.mark.parametrize("method", LOGIT_METHODS)
def test_cfs_and_cdb_s_choose_classes_class_aware_sampling_goes_round_and_the_others_choose_samples(
    method: str,
) -> None:
    special = {
        "cfs": ClassProbabilitySampler,
        "cdb-s": ClassProbabilitySampler,
        "class-aware": ClassAwareSampler,
    }
    assert type(made(method).sampler) is special.get(method, InstanceBalancedSampler)


def test_cfs_follows_the_root_of_the_counts_and_cdb_s_starts_with_equal_classes() -> None:
    assert probabilities_of(made("cfs")) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert probabilities_of(made("cfs", cfs_q=0.0)) == pytest.approx([1 / 3] * 3)
    assert probabilities_of(made("cdb-s")) == pytest.approx([1 / 3] * 3)


def test_cdb_s_samples_with_the_last_difficulty_and_cfs_does_not() -> None:
    cdb_s, cfs = made("cdb-s", tau="1"), made("cfs")
    before = probabilities_of(cfs)
    for method in (cdb_s, cfs):
        method.before_epoch(0)
        method.after_epoch(ACCURACY)
        method.before_epoch(1)
    assert probabilities_of(cdb_s) == pytest.approx([0.1 / 1.5, 0.5 / 1.5, 0.9 / 1.5])
    assert probabilities_of(cfs) == before


@pytest.mark.parametrize("method", LOGIT_METHODS)
def test_a_class_without_a_sample_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="class 3 has no training sample"):
        made(method, torch.tensor([9, 4, 1, 0]))


@pytest.mark.parametrize("unit", ["class", "image"])
def test_cdb_s_draws_every_image_once_until_its_probabilities_are_in_force(unit: str) -> None:
    method = made("cdb-s", tau="1", sampler_unit=unit, weights_from_epoch=2)
    for epoch in range(2):
        method.before_epoch(epoch)
        assert sorted(method.sampler.draw().tolist()) == list(range(14))
        method.after_epoch(ACCURACY)
    method.before_epoch(2)
    weights = [
        (n if unit == "image" else 1) * d for n, d in zip([9, 4, 1], [0.1, 0.5, 0.9], strict=True)
    ]
    assert probabilities_of(method) == pytest.approx([w / sum(weights) for w in weights])
    assert len(set(method.sampler.draw().tolist())) < 14


def test_cdb_s_by_image_draws_as_cdb_w_weighs() -> None:
    """p_c in proportion to n_c d_c^tau; before the first measurement every image alike."""
    method = made("cdb-s", tau="2", sampler_unit="image")
    method.before_epoch(0)
    assert probabilities_of(method) == pytest.approx([9 / 14, 4 / 14, 1 / 14])
    method.after_epoch(ACCURACY)
    method.before_epoch(1)
    weights = [9 * 0.1**2, 4 * 0.5**2, 1 * 0.9**2]
    assert probabilities_of(method) == pytest.approx([w / sum(weights) for w in weights])


def test_cdb_s_by_image_draws_the_images_of_torchs_weighted_sampler_as_often() -> None:
    sampler = made("cdb-s", tau="1", sampler_unit="image").sampler
    assert isinstance(sampler, ClassProbabilitySampler)
    weights = torch.tensor([0.25, 0.5, 1.0])
    sampler.set_class_probabilities(weights)
    drawn = torch.cat([sampler.draw() for _ in range(3000)]).bincount(minlength=14) / 42000
    expected = weights[LABELS] / weights[LABELS].sum()
    assert (drawn - expected).abs().max() < 4 * (0.2 * 0.8 / 42000) ** 0.5


# Weights of classes.


def weight_of_each_class(method: LogitMethod) -> Tensor:
    """What a loss of 1 becomes, alone in its batch."""
    return torch.stack([method.reduce(torch.ones(1), torch.tensor([label])) for label in range(3)])


def test_cb_weighs_classes_by_their_effective_number() -> None:
    weights = weight_of_each_class(made("cb", cb_beta=0.5))
    raw = [0.5 / (1 - 0.5**n) for n in COUNTS.tolist()]
    assert weights.tolist() == pytest.approx([3 * w / sum(raw) for w in raw])


@pytest.mark.parametrize("name", ["cdb-w-ce", "cdb-w-fl"])
def test_cdb_w_reduces_with_its_balancer(name: str) -> None:
    method = made(name, tau="1")
    assert weight_of_each_class(method).tolist() == [1.0, 1.0, 1.0]
    method.after_epoch(ACCURACY)
    assert weight_of_each_class(method).tolist() == pytest.approx([0.2, 1.0, 1.8])


@pytest.mark.parametrize("name", sorted(LOGIT_METHODS.keys() - WEIGHED))
def test_in_other_methods_classes_weigh_alike(name: str) -> None:
    method = made(name)
    method.after_epoch(ACCURACY)
    assert weight_of_each_class(method).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", LOGIT_METHODS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_method_divides_as_it_is_told(name: str, reduction: Reduction) -> None:
    summed, divided = (made(name, loss_reduction=told) for told in ("sum", reduction))
    for method in (summed, divided):
        method.after_epoch(ACCURACY)
    weights = weight_of_each_class(summed)
    losses, labels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 2])
    divisor = {"batch-size": 3.0, "weight-sum": float(weights.sum()), "sum": 1.0}[reduction]
    expected = float((weights * losses).sum()) / divisor
    assert float(divided.reduce(losses, labels)) == pytest.approx(expected)


# Losses.


def test_each_method_has_its_loss_with_its_settings() -> None:
    logits, labels = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.5]]), torch.tensor([0, 2])
    # Of the second sample the first class's logit would be left out, but only class 2 is rare.
    draws = torch.tensor([[0.9, 0.9, 0.2], [0.0, 0.9, 0.0]])
    eql = SoftmaxEqualizationLoss(COUNTS, gamma=0.5, threshold=0.1, generator=torch.Generator())
    expected = {
        "focal": focal_loss(logits, labels, 2.0),
        "cdb-w-fl": focal_loss(logits, labels, 2.0),
        "eql": eql(logits, labels, draws),
        "balanced-softmax": balanced_softmax_loss(logits, labels, COUNTS),
        "logit-adjustment": logit_adjusted_loss(logits, labels, COUNTS, 1.5),
    }
    own: dict[str, Any] = {
        "focal": {"focal_gamma": 2.0},
        "cdb-w-fl": {"focal_gamma": 2.0},
        "eql": {"eql_gamma": 0.5},
        "logit-adjustment": {"la_tau": 1.5},
    }
    usual = cross_entropy(logits, labels)
    for name in LOGIT_METHODS:
        losses = made(name, **own.get(name, {})).losses(logits, labels, draws)
        assert torch.equal(losses, expected.get(name, usual))
        assert torch.equal(losses, usual) is (name not in expected)


def test_eql_alone_draws_random_numbers_for_each_sample_and_class() -> None:
    drawn = {name: numbers for name in LOGIT_METHODS if (numbers := made(name).draw(5)) is not None}
    assert {name: numbers.shape for name, numbers in drawn.items()} == {"eql": (5, 3)}


class Weighing(LogitMethod):
    """Weighs samples, not classes."""

    def sample_weights(
        self, model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None
    ) -> Tensor:
        """What was drawn for each."""
        assert draws is not None
        return draws


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_of_the_samples_weigh_the_losses_of_a_step(reduction: Reduction) -> None:
    settings = config("ce", loss_reduction=reduction)
    method = Weighing(settings, MadeData(COUNTS), Streams(0), torch.tensor(0.1))
    logits, labels = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.5]]), torch.tensor([0, 2])
    loss = method.batch_loss(nn.Identity(), logits, labels, torch.tensor([0.25, 1.5]))
    first, second = cross_entropy(logits, labels).tolist()
    divisor = {"batch-size": 2.0, "weight-sum": 1.75, "sum": 1.0}[reduction]
    assert float(loss) == pytest.approx((0.25 * first + 1.5 * second) / divisor)


def test_parameters_that_are_not_trained_are_in_no_group() -> None:
    model = nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    ((parameters, rate, decay),) = made("ce").parameter_groups(model)
    assert [id(parameter) for parameter in parameters] == [id(model.weight)]
    assert (rate, decay) == (1.0, 1.0)
