from dataclasses import replace

import pytest
import torch
from torch import Tensor

from common.balancer import ClassDifficultyBalancer
from common.losses import (
    REDUCTIONS,
    Reduction,
    balanced_softmax_loss,
    cross_entropy,
    focal_loss,
    logit_adjusted_loss,
)
from common.sampler import ClassProbabilitySampler, InstanceBalancedSampler
from common.training.methods import (
    LogitConfig,
    follow_difficulty,
    make_balancer,
    make_loss,
    make_reduction,
    make_sampler,
)

CPU = torch.device("cpu")
COUNTS = torch.tensor([9, 4, 1])
LABELS = torch.arange(3).repeat_interleave(COUNTS)
METHODS = (
    "ce", "focal", "cb", "cfs", "balanced-softmax", "logit-adjustment", "cdb-s",
    "cdb-w-ce", "cdb-w-fl",
)  # fmt: skip
ACCURACY = torch.tensor([0.9, 0.5, 0.1])


def config(method: str, **changes: object) -> LogitConfig:
    return replace(LogitConfig(dataset="made", method=method), **changes)  # type: ignore[arg-type]


def sampler_of(settings: LogitConfig) -> InstanceBalancedSampler | ClassProbabilitySampler:
    made = make_sampler(settings, LABELS, 3, torch.Generator())
    assert isinstance(made, InstanceBalancedSampler | ClassProbabilitySampler)
    return made


def test_cdb_has_a_balancer_and_no_other_method() -> None:
    with_one = {m for m in METHODS if make_balancer(config(m), 3, CPU) is not None}
    assert with_one == {"cdb-s", "cdb-w-ce", "cdb-w-fl"}


def test_the_balancer_has_the_settings_of_the_run() -> None:
    usual, other = (
        make_balancer(config("cdb-s", **changes), 3, CPU)
        for changes in ({}, {"tau": "2", "normalize_weights": False})
    )
    assert usual is not None
    assert other is not None
    for balancer in (usual, other):
        balancer.update(ACCURACY)
    bias = 0.9 / 0.11 - 1
    assert float(usual.bias) == pytest.approx(bias)
    assert float(usual.class_weights.sum()) == pytest.approx(3)
    assert float(other.tau) == 2.0
    assert other.class_weights.tolist() == pytest.approx([0.01, 0.25, 0.81])


@pytest.mark.parametrize("method", METHODS)
def test_cfs_and_cdb_s_choose_classes_and_the_others_samples(method: str) -> None:
    by_class = isinstance(sampler_of(config(method)), ClassProbabilitySampler)
    assert by_class is (method in ("cfs", "cdb-s"))


def test_cfs_follows_the_root_of_the_counts_and_cdb_s_starts_with_equal_classes() -> None:
    cfs, other, cdb_s = (
        sampler_of(settings)
        for settings in (config("cfs"), config("cfs", cfs_q=0.0), config("cdb-s"))
    )
    assert isinstance(cfs, ClassProbabilitySampler)
    assert isinstance(other, ClassProbabilitySampler)
    assert isinstance(cdb_s, ClassProbabilitySampler)
    assert cfs.probabilities.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert other.probabilities.tolist() == pytest.approx([1 / 3] * 3)
    assert cdb_s.probabilities.tolist() == pytest.approx([1 / 3] * 3)


def test_cdb_s_samples_with_the_last_difficulty_and_cfs_does_not() -> None:
    settings = config("cdb-s", tau="1")
    balancer, sampler = make_balancer(settings, 3, CPU), sampler_of(settings)
    assert balancer is not None
    assert isinstance(sampler, ClassProbabilitySampler)
    balancer.update(ACCURACY)
    follow_difficulty(sampler, balancer)
    assert sampler.probabilities.tolist() == pytest.approx([0.1 / 1.5, 0.5 / 1.5, 0.9 / 1.5])
    cfs = sampler_of(config("cfs"))
    assert isinstance(cfs, ClassProbabilitySampler)
    before = cfs.probabilities.clone()
    follow_difficulty(cfs, None)
    assert torch.equal(cfs.probabilities, before)


def weight_of_each_class(settings: LogitConfig, balancer: ClassDifficultyBalancer | None) -> Tensor:
    """What a loss of 1 becomes, alone in its batch."""
    reduce = make_reduction(settings, COUNTS, balancer, CPU)
    return torch.stack([reduce(torch.ones(1), torch.tensor([label])) for label in range(3)])


def test_cb_weighs_classes_by_their_effective_number() -> None:
    weights = weight_of_each_class(config("cb", cb_beta=0.5), None)
    raw = [0.5 / (1 - 0.5**n) for n in COUNTS.tolist()]
    assert weights.tolist() == pytest.approx([3 * w / sum(raw) for w in raw])


def test_cdb_w_reduces_with_its_balancer() -> None:
    settings = config("cdb-w-ce", tau="1")
    balancer = make_balancer(settings, 3, CPU)
    assert balancer is not None
    assert weight_of_each_class(settings, balancer).tolist() == [1.0, 1.0, 1.0]
    balancer.update(ACCURACY)
    assert weight_of_each_class(settings, balancer).tolist() == pytest.approx([0.2, 1.0, 1.8])


@pytest.mark.parametrize("method", ["ce", "focal", "cfs", "cdb-s"])
def test_in_other_methods_classes_weigh_alike(method: str) -> None:
    balancer = make_balancer(config(method), 3, CPU)
    if balancer is not None:
        balancer.update(ACCURACY)
    assert weight_of_each_class(config(method), balancer).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("method", ["ce", "cb", "cdb-w-ce"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_method_divides_as_it_is_told(method: str, reduction: Reduction) -> None:
    summed, divided = (config(method, loss_reduction=name) for name in ("sum", reduction))
    balancers = [make_balancer(settings, 3, CPU) for settings in (summed, divided)]
    for balancer in filter(None, balancers):
        balancer.update(ACCURACY)
    weights = weight_of_each_class(summed, balancers[0])
    reduce = make_reduction(divided, COUNTS, balancers[1], CPU)
    losses, labels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 2])
    divisor = {"batch-size": 3.0, "weight-sum": float(weights.sum()), "sum": 1.0}[reduction]
    expected = float((weights * losses).sum()) / divisor
    assert float(reduce(losses, labels)) == pytest.approx(expected)


def test_each_method_has_its_loss_with_its_settings() -> None:
    logits, labels = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.5]]), torch.tensor([0, 2])
    expected = {
        "focal": focal_loss(logits, labels, 2.0),
        "cdb-w-fl": focal_loss(logits, labels, 2.0),
        "balanced-softmax": balanced_softmax_loss(logits, labels, COUNTS),
        "logit-adjustment": logit_adjusted_loss(logits, labels, COUNTS, 1.5),
    }
    own = {
        "focal": {"focal_gamma": 2.0},
        "cdb-w-fl": {"focal_gamma": 2.0},
        "logit-adjustment": {"la_tau": 1.5},
    }
    for method in METHODS:
        loss = make_loss(config(method, **own.get(method, {})), COUNTS, CPU)
        usual = cross_entropy(logits, labels)
        assert torch.equal(loss(logits, labels), expected.get(method, usual))


def test_a_class_without_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="class 3 has no training sample"):
        make_sampler(config("ce"), LABELS, 4, torch.Generator())


@pytest.mark.parametrize("unit", ["class", "image"])
def test_cdb_s_draws_every_image_once_until_its_probabilities_are_in_force(unit: str) -> None:
    settings = config("cdb-s", tau="1", sampler_unit=unit, weights_from_epoch=2)
    sampler, balancer = sampler_of(settings), make_balancer(settings, 3, CPU)
    assert balancer is not None
    for _ in range(2):
        follow_difficulty(sampler, balancer)
        assert sorted(sampler.draw().tolist()) == list(range(14))
        balancer.update(ACCURACY)
    follow_difficulty(sampler, balancer)
    assert isinstance(sampler, ClassProbabilitySampler)
    weights = [
        (n if unit == "image" else 1) * d for n, d in zip([9, 4, 1], [0.1, 0.5, 0.9], strict=True)
    ]
    assert sampler.probabilities.tolist() == pytest.approx([w / sum(weights) for w in weights])
    assert len(set(sampler.draw().tolist())) < 14


def test_cdb_s_by_image_draws_as_cdb_w_weighs() -> None:
    """p_c in proportion to n_c d_c^tau; before the first measurement every image alike."""
    settings = config("cdb-s", tau="2", sampler_unit="image")
    sampler, balancer = sampler_of(settings), make_balancer(settings, 3, CPU)
    assert isinstance(sampler, ClassProbabilitySampler)
    assert balancer is not None
    assert sampler.probabilities.tolist() == pytest.approx([9 / 14, 4 / 14, 1 / 14])
    balancer.update(ACCURACY)
    follow_difficulty(sampler, balancer)
    weights = [9 * 0.1**2, 4 * 0.5**2, 1 * 0.9**2]
    assert sampler.probabilities.tolist() == pytest.approx([w / sum(weights) for w in weights])


def test_cdb_s_by_image_draws_the_images_of_torchs_weighted_sampler_as_often() -> None:
    settings = config("cdb-s", tau="1", sampler_unit="image")
    sampler = make_sampler(settings, LABELS, 3, torch.Generator().manual_seed(0))
    assert isinstance(sampler, ClassProbabilitySampler)
    weights = torch.tensor([0.25, 0.5, 1.0])
    sampler.set_class_probabilities(weights)
    drawn = torch.cat([sampler.draw() for _ in range(3000)]).bincount(minlength=14) / 42000
    expected = weights[LABELS] / weights[LABELS].sum()
    assert (drawn - expected).abs().max() < 4 * (0.2 * 0.8 / 42000) ** 0.5
