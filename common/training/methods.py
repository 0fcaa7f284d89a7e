"""What the methods are made of in every task: balancer, sampler, class weights, loss.

Shapes: C classes, N training samples.
"""

from collections.abc import Callable
from functools import partial

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
        average=config.difficulty_average,
        start_epoch=config.weights_from_epoch,
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


def make_loss(config: RunConfig, class_counts: Tensor, device: torch.device) -> PerSampleLoss:
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
