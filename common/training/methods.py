"""What the methods are made of in every task: balancer, sampler, class weights, loss.

Shapes: C classes, N training samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from torch import Tensor

from common.balancer import ClassDifficultyBalancer
from common.losses import (
    PerSampleLoss,
    Reduction,
    balanced_softmax_loss,
    cross_entropy,
    focal_loss,
    logit_adjusted_loss,
    weighted_mean,
)
from common.sampler import (
    ClassProbabilitySampler,
    EpochSampler,
    ImageWeightSampler,
    InstanceBalancedSampler,
    frequency_probabilities,
)
from common.training.settings import (
    DifficultySettings,
    MethodSettings,
    RunConfig,
    Setting,
    uses_difficulty,
)
from common.weights import class_balanced_weights, sample_weights

Reduce = Callable[[Tensor, Tensor], Tensor]
"""Losses (B,) and labels (B,) -> the loss of a step, 0-d."""
SamplerUnit = Literal["class", "image"]
CB_BETA: Final = Setting("cb: beta of the effective number of samples.", at_least=0, below=1)


@dataclass(frozen=True)
class FocalSettings(MethodSettings):
    """Of focal loss."""

    focal_gamma: Annotated[
        float, Setting("Focusing parameter of focal and cdb-w-fl.", at_least=0)
    ] = 1.0

    @property
    def hard_weight(self) -> float | None:
        """Samples of a larger focal weight are counted as hard (Figure 4); None: none is."""
        return None


@dataclass(frozen=True)
class CfsSettings(MethodSettings):
    """Of class-frequency sampling."""

    cfs_q: Annotated[
        float, Setting("cfs: class probability proportional to n_c^q.", at_least=0)
    ] = 0.5


@dataclass(frozen=True)
class CbSettings(MethodSettings):
    """Of class-balanced weights (Cui et al. 2019)."""

    cb_beta: Annotated[float, CB_BETA] = 0.9999


@dataclass(frozen=True)
class LogitAdjustmentSettings(MethodSettings):
    """Of logit adjustment (Menon et al. 2021)."""

    la_tau: Annotated[
        float,
        Setting(
            "logit-adjustment: factor of the logarithm of each class's share; 1: as "
            "balanced-softmax.",
            at_least=0,
            earlier=1.0,
        ),
    ] = 1.0


@dataclass(frozen=True)
class AccuracySettings(DifficultySettings):
    """CDB's where a class's performance is its accuracy, a number of samples out of some."""

    difficulty_prior: Annotated[
        float,
        Setting(
            "CDB, not in the paper: so many more images of each class of the difficulty set count "
            "as right, and as many as wrong (additive smoothing), so that no class is at 0 or 1; "
            "0: none.",
            at_least=0,
            earlier=0.0,
        ),
    ] = 0.0


@dataclass(frozen=True)
class CdbSSettings(AccuracySettings):
    """Of CDB-S."""

    sampler_unit: Annotated[
        SamplerUnit,
        Setting(
            "cdb-s: what d_c^tau is the weight of: the class (Eq. 15), or each of its images.",
            earlier="class",
        ),
    ] = "class"


@dataclass(frozen=True)
class CdbWFlSettings(AccuracySettings, FocalSettings):
    """Of CDB-W-FL."""


METHOD_SETTINGS: Final[Mapping[str, type[MethodSettings]]] = {
    "focal": FocalSettings,
    "cfs": CfsSettings,
    "cb": CbSettings,
    "logit-adjustment": LogitAdjustmentSettings,
    "cdb-s": CdbSSettings,
    "cdb-w-ce": AccuracySettings,
    "cdb-w-fl": CdbWFlSettings,
}
"""Of each method that has some; a refusal names the methods in this order."""


@dataclass(frozen=True, kw_only=True)
class LogitConfig(
    CdbSSettings, CdbWFlSettings, CfsSettings, CbSettings, LogitAdjustmentSettings, RunConfig
):
    """A run of a task whose network gives logits (B, C) for labels (B,): it has these methods."""

    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = METHOD_SETTINGS

    @property
    def variant(self) -> str:
        """The record's ``variant``, as the paper's tables name it."""
        if self.la_tau != LogitConfig.la_tau:
            return f"tau={float(self.la_tau)}"
        unit = "" if self.sampler_unit == "class" else f" unit={self.sampler_unit}"
        return "" if self.tau is None else f"tau={self.tau}{unit}{self.steadied}"


def make_balancer(
    config: RunConfig, num_classes: int, device: torch.device
) -> ClassDifficultyBalancer | None:
    """The balancer of a CDB method, None for any other."""
    if not uses_difficulty(config.method):
        return None
    return ClassDifficultyBalancer(
        num_classes,
        config.tau or "sigmoid",
        tau_max=config.tau_max,
        eps=config.eps,
        power=config.tau_power,
        normalize=config.normalize_weights,
        reduction=config.loss_reduction or "batch-size",
        average=config.difficulty_average,
        start_epoch=config.weights_from_epoch,
    ).to(device)


def make_sampler(
    config: LogitConfig, labels: Tensor, num_classes: int, generator: torch.Generator
) -> EpochSampler:
    """The sampler of the method; CDB-S starts with equal classes, or with equal images.

    Args:
        config: the run.
        labels: (N,), 0..C-1.
        num_classes: C.
        generator: the sampler's own.

    Raises:
        ValueError: for a label out of range or a class with no sample.
    """
    if config.method not in ("cfs", "cdb-s"):
        return InstanceBalancedSampler(labels, num_classes, generator)
    if config.sampler_unit == "image":
        return ImageWeightSampler(labels, num_classes, generator)
    sampler = ClassProbabilitySampler(labels, num_classes, generator)
    if config.method == "cfs":
        probabilities = frequency_probabilities(sampler.class_counts, config.cfs_q)
        sampler.set_class_probabilities(probabilities)
    return sampler


def make_reduction(
    config: LogitConfig,
    class_counts: Tensor,
    balancer: ClassDifficultyBalancer | None,
    device: torch.device,
) -> Reduce:
    """How the losses of a step become one: weighted by class where the method weighs classes.

    Args:
        config: the run.
        class_counts: n_c of the training set, (C,).
        balancer: of :func:`make_balancer`; CDB-W reduces with it.
        device: where the loss is computed.
    """
    if balancer is not None and config.method.startswith("cdb-w"):
        return balancer.weighted_mean
    weights = torch.ones(len(class_counts))
    if config.method == "cb":
        weights = class_balanced_weights(class_counts, config.cb_beta)
    weights = weights.to(device, torch.float32)
    return partial(mean_by_class, weights, config.loss_reduction or "batch-size")


def mean_by_class(
    class_weights: Tensor, reduction: Reduction, losses: Tensor, labels: Tensor
) -> Tensor:
    """Losses (B,) and labels (B,), each loss weighted by its class, (C,) -> 0-d."""
    return weighted_mean(losses, sample_weights(class_weights, labels), reduction)


def make_loss(config: LogitConfig, class_counts: Tensor, device: torch.device) -> PerSampleLoss:
    """The loss of each sample, of the methods whose loss is one of logits, labels and counts.

    Args:
        config: the run; methods that are no loss have cross-entropy.
        class_counts: n_c of the training set, (C,).
        device: where the loss is computed.
    """
    counts = class_counts.to(device)
    match config.method:
        case "focal" | "cdb-w-fl":
            return partial(focal_loss, gamma=config.focal_gamma)
        case "balanced-softmax":
            return partial(balanced_softmax_loss, class_counts=counts)
        case "logit-adjustment":
            return partial(logit_adjusted_loss, class_counts=counts, tau=config.la_tau)
        case _:
            return cross_entropy


def follow_difficulty(sampler: EpochSampler, balancer: ClassDifficultyBalancer | None) -> None:
    """Before an epoch: CDB-S samples with the probabilities of the last difficulty (Eq. 15).

    While they are deferred it draws every image once, as cross-entropy's sampler does and as DRS
    (Cao et al. 2019).
    """
    if balancer is None or not isinstance(sampler, ClassProbabilitySampler):
        return
    if balancer.deferred:
        sampler.set_instance_balanced()
    else:
        sampler.set_class_probabilities(balancer.probabilities)


@dataclass
class Method:
    """What distinguishes one method from another in the training loop, between two epochs."""

    sampler: EpochSampler
    """Draws the training samples of an epoch."""
    balancer: ClassDifficultyBalancer | None = field(default=None, kw_only=True)
    """CDB: updated after every epoch."""

    def before_epoch(self, epoch: int) -> None:
        """Put in force what changes by the epoch; ``epoch`` counts the complete ones."""
        follow_difficulty(self.sampler, self.balancer)

    def after_epoch(self, performance: Tensor) -> None:
        """Follow what was measured, (C,), NaN where it was not; on the balancer's device."""
        if self.balancer is not None:
            self.balancer.update(performance)

    def row(self) -> dict[str, Any]:
        """Further columns of an epoch in the record's ``history``, for JSON."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the rest of a run depends on; random generators are the streams' to save."""
        balancer = self.balancer
        return {
            "sampler": self.sampler.state_dict(),
            "balancer": None if balancer is None else balancer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.sampler.load_state_dict(state["sampler"])
        if self.balancer is not None:
            self.balancer.load_state_dict(state["balancer"])
