"""The methods of Table 1: each is a sampler, a per-sample loss, and a way to reduce the loss.

Shapes: B batch, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from classification.data import LongTailedData
from classification.l2rw import BalancedBatches, reweight
from classification.recipes import ClassificationConfig, uses_difficulty
from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from common.losses import (
    PerSampleLoss,
    Reduction,
    SoftmaxEqualizationLoss,
    cross_entropy,
    focal_loss,
    weighted_mean,
)
from common.sampler import (
    ClassProbabilitySampler,
    EpochSampler,
    InstanceBalancedSampler,
    frequency_probabilities,
)
from common.streams import Streams
from common.weights import class_balanced_weights

BatchLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Model, images (B, ...), labels (B,) -> 0-d loss."""


@dataclass
class Method:
    """What distinguishes one method from another in the training loop."""

    sampler: EpochSampler
    """Draws the training samples of an epoch."""
    batch_loss: BatchLoss
    """The loss of a step."""
    balancer: ClassDifficultyBalancer | None = None
    """CDB: updated after every epoch."""

    def before_epoch(self) -> None:
        """CDB-S: sample with the probabilities of the last difficulty (Eq. 15)."""
        if self.balancer is not None and isinstance(self.sampler, ClassProbabilitySampler):
            self.sampler.set_class_probabilities(self.balancer.probabilities)


SampleWeights = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Model, images (B, ...), labels (B,) -> weights (B,), all 1 where every sample counts alike."""


def _equal_weights(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return torch.ones(len(labels), device=labels.device)


def _reduced(
    loss: PerSampleLoss, reduction: Reduction, sample_weights: SampleWeights = _equal_weights
) -> BatchLoss:
    """The loss of a step from a per-sample loss and the weight of each sample."""

    def batch_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        weights = sample_weights(model, images, labels)
        return weighted_mean(loss(model(images), labels), weights, reduction)

    return batch_loss


def _balancer(
    config: ClassificationConfig, num_classes: int, device: torch.device
) -> ClassDifficultyBalancer:
    return ClassDifficultyBalancer(
        num_classes,
        config.tau or "sigmoid",
        tau_max=config.tau_max,
        eps=config.eps,
        power=config.tau_power,
        normalize=config.normalize_weights,
        reduction=config.loss_reduction,
    ).to(device)


def _equalization(
    config: ClassificationConfig, data: LongTailedData, streams: Streams
) -> SoftmaxEqualizationLoss:
    try:
        return SoftmaxEqualizationLoss(
            data.train_counts.to(data.train.labels.device),
            gamma=config.eql_gamma,
            threshold=config.eql_threshold,
            generator=streams["eql"],
        )
    except ValueError as error:
        raise UserError(f"--eql-threshold {config.eql_threshold} is refused: {error}.") from error


def _sample_weights(
    config: ClassificationConfig,
    data: LongTailedData,
    streams: Streams,
    balancer: ClassDifficultyBalancer | None,
) -> SampleWeights:
    """The weight a method gives each sample."""
    match config.method:
        case "cb":
            weights = class_balanced_weights(data.train_counts, config.cb_beta)
            weights = weights.to(data.train.labels.device, torch.float32)
            return lambda model, images, labels: weights[labels]
        case "l2rw":
            batches = BalancedBatches(data.difficulty, config.l2rw_batch_size, streams["l2rw"])
            # Theirs sum to 1 over the batch; 1 on average keeps every reduction comparable.
            return lambda model, images, labels: (
                len(labels) * reweight(model, images, labels, batches.draw())
            )
        case "cdb-w-ce" | "cdb-w-fl":
            assert balancer is not None
            return lambda model, images, labels: balancer.sample_weights(labels)
        case _:
            return _equal_weights


def _per_sample_loss(
    config: ClassificationConfig, data: LongTailedData, streams: Streams
) -> PerSampleLoss:
    """The loss a method gives each sample before weighting."""
    match config.method:
        case "focal" | "cdb-w-fl":
            return partial(focal_loss, gamma=config.focal_gamma)
        case "eql":
            return _equalization(config, data, streams)
        case _:
            return cross_entropy


def make_method(config: ClassificationConfig, data: LongTailedData, streams: Streams) -> Method:
    """Build the configured method.

    Args:
        config: the run.
        data: labels and class counts are used; L2RW also uses the images of the difficulty set.
        streams: gives the sampler and the losses that draw random numbers their generators.

    Raises:
        UserError: when the method cannot work on this data.
    """
    device = data.train.labels.device
    balancer = (
        _balancer(config, data.num_classes, device) if uses_difficulty(config.method) else None
    )
    resampled = config.method in ("cfs", "cdb-s")
    make_sampler = ClassProbabilitySampler if resampled else InstanceBalancedSampler
    sampler = make_sampler(data.train.labels, data.num_classes, streams["sampler"])
    if config.method == "cfs" and isinstance(sampler, ClassProbabilitySampler):
        sampler.set_class_probabilities(frequency_probabilities(data.train_counts, config.cfs_q))
    batch_loss = _reduced(
        _per_sample_loss(config, data, streams),
        config.loss_reduction,
        _sample_weights(config, data, streams, balancer),
    )
    return Method(sampler, batch_loss, balancer)
