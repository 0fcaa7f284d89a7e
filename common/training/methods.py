"""What the methods are made of in every task: the balancer, the sampler, the class weights.

Shapes: C classes, N training samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common.balancer import ClassDifficultyBalancer
from common.losses import Reduction, weighted_mean
from common.sampler import (
    ClassProbabilitySampler,
    EpochSampler,
    ImageWeightSampler,
    InstanceBalancedSampler,
    frequency_probabilities,
)
from common.training.settings import RunConfig, uses_difficulty
from common.weights import class_balanced_weights, sample_weights

Reduce = Callable[[Tensor, Tensor], Tensor]
"""Losses (B,) and labels (B,) -> the loss of a step, 0-d."""


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
    ).to(device)


def make_sampler(
    config: RunConfig, labels: Tensor, num_classes: int, generator: torch.Generator
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
    config: RunConfig,
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


def follow_difficulty(sampler: EpochSampler, balancer: ClassDifficultyBalancer | None) -> None:
    """Before an epoch: CDB-S samples with the probabilities of the last difficulty (Eq. 15)."""
    if balancer is not None and isinstance(sampler, ClassProbabilitySampler):
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
