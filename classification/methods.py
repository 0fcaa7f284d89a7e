"""The methods of Table 1: each is a sampler, a per-sample loss and a weight for each sample.

Whatever is random in a step's loss is drawn beforehand, on the CPU (:attr:`Method.draw`): a step
can then be captured as a CUDA graph, and draws the same numbers on every device. Shapes: B batch,
C classes, V images of the difficulty set in a meta step.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classification.config import ClassificationConfig, EqlSettings
from classification.data import LabelledImages, LongTailedData
from classification.l2rw import L2rwSettings, reweight
from classification.meta_weight_net import MetaReweighter, MetaWeightNetSettings
from classification.oltr import OltrSettings, fill_memory, oltr_loss, parameter_groups
from classification.recipes import CifarConfig
from common.distributed import all_reduce_sum, broadcast_from_first, of_rank
from common.errors import UserError
from common.losses import (
    LdamLoss,
    PerSampleLoss,
    Reduction,
    SoftmaxEqualizationLoss,
    focal_weights,
    weighted_mean,
)
from common.sampler import ClassAwareSampler
from common.streams import Streams
from common.training import methods
from common.training.methods import (
    Reduce,
    make_balancer,
    make_loss,
    make_reduction,
    make_sampler,
    mean_by_class,
)
from common.weights import class_balanced_weights

Draw = Callable[[int], Tensor]
"""Batch size B -> the random numbers of a step."""
SampleLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Logits (B, C), labels (B,), draws -> losses (B,)."""
ModelLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Model, images (B, ...), labels (B,) -> the loss of a step, 0-d."""
SampleWeights = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
"""Model, images (B, ...), labels (B,), draws -> weights (B,)."""


class HardInstances:
    """Counts, per class, the samples of an epoch whose focal weight is above a bound (Fig. 4)."""

    def __init__(self, num_classes: int, bound: float, gamma: float, device: torch.device) -> None:
        """Start at 0."""
        self.bound, self.gamma = bound, gamma
        self.counts = torch.zeros(num_classes, device=device)

    def observe(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch of this rank, for all ranks: logits (B, C), labels (B,)."""
        hard = focal_weights(logits, labels, self.gamma) > self.bound
        found = torch.zeros_like(self.counts).index_add_(0, labels, hard.to(self.counts.dtype))
        self.counts += all_reduce_sum(found)


@dataclass
class DeferredWeights:
    """Class weights that come into force after an epoch (DRW, Cao et al. 2019)."""

    weights: Tensor
    """In force, (C,), changed in place."""
    later: Tensor
    """The weights from then on, (C,)."""
    epoch: int
    """Complete epochs from which on they are in force."""

    def before_epoch(self, epoch: int) -> None:
        """Put the weights in force if it is time."""
        self.weights.copy_(self.later if epoch >= self.epoch else torch.ones_like(self.later))


Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (B, ...) and labels (B,), each sample once."""
Group = tuple[list[nn.Parameter], float, float]
"""Parameters, and the factors of learning rate and weight decay that they are trained with."""


@dataclass
class Method(methods.Method):
    """What distinguishes one method from another in the training loop."""

    loss: SampleLoss
    """The loss of each sample before weighting."""
    reduce: Reduce
    """How the losses of a step become one, weighted by class or alike."""
    reduction: Reduction = "batch-size"
    """What losses that :attr:`weights` weighs are divided by."""
    weights: SampleWeights | None = None
    """The weight of each sample, where it is not its class's."""
    draw: Draw | None = None
    """Draws the random numbers of a step's loss, if it needs any."""
    whole_batch: bool = False
    """The weights of the samples depend on each other: every rank needs those of all."""
    of_model: ModelLoss | None = None
    """OLTR: in place of weights and losses, since its network gives more than logits."""
    start: Callable[[Any, Batches], None] | None = None
    """OLTR: done once a run, before its first epoch, with the network and the training set."""
    parameter_groups: Callable[[Any], list[Group]] | None = None
    """OLTR: what is trained; None: all parameters alike."""
    deferred: DeferredWeights | None = None
    """LDAM-DRW: the weights of its second phase."""
    meta: MetaReweighter | None = None
    """Meta-Weight-Net: the weighting network and its optimizer."""
    hard: HardInstances | None = None
    """Focal losses: the count of hard instances."""

    def before_epoch(self, epoch: int) -> None:
        """Put in force what changes by the epoch; ``epoch`` counts the complete ones."""
        super().before_epoch(epoch)
        if self.deferred is not None:
            self.deferred.before_epoch(epoch)
        if self.hard is not None:
            self.hard.counts.zero_()

    def row(self) -> dict[str, Any]:
        """Of each class the number of hard instances, where they are counted."""
        return {} if self.hard is None else {"hard_instances": self.hard.counts.int().tolist()}

    def share(self, values: Tensor) -> Tensor:
        """Of a step's samples (B, ...), or of the numbers drawn for each, what this rank needs."""
        return values if self.whole_batch else of_rank(values)

    def batch_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        draws: Tensor | None = None,
        alone: nn.Module | None = None,
    ) -> Tensor:
        """The loss of a step, 0-d; its mean over the ranks is that of the whole batch.

        Args:
            model: gives logits (B, C).
            images: (B, ...), as :meth:`share` gives them.
            labels: (B,), likewise.
            draws: of :attr:`draw`, likewise; None: drawn here.
            alone: ``model``, where that talks to other ranks in each pass, without its doing so.
        """
        if draws is None and self.draw is not None:
            draws = self.draw(len(labels)).to(labels.device)
        if self.of_model is not None:
            return self.of_model(model, images, labels)
        weights = None
        if self.weights is not None:
            weights = self.weights(alone or model, images, labels, draws)
        if self.whole_batch and weights is not None:
            # Every rank has computed them, perhaps with other rounding.
            weights = broadcast_from_first(weights)
            images, labels, weights = of_rank(images), of_rank(labels), of_rank(weights)
        logits = model(images)
        if self.hard is not None:
            self.hard.observe(logits.detach(), labels)
        losses = self.loss(logits, labels, draws)
        if weights is None:
            return self.reduce(losses, labels)
        return weighted_mean(losses, weights, self.reduction)

    def state_dict(self) -> dict[str, Any]:
        """What the rest of a run depends on; random generators are the streams' to save."""
        return super().state_dict() | {
            "meta": None if self.meta is None else self.meta.state_dict(),
            "hard": None if self.hard is None else self.hard.counts,
            "deferred": None if self.deferred is None else self.deferred.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        if self.meta is not None:
            self.meta.load_state_dict(state["meta"])
        if self.hard is not None:
            self.hard.counts.copy_(state["hard"])
        if self.deferred is not None:
            self.deferred.weights.copy_(state["deferred"])


def _equalization(
    config: EqlSettings, data: LongTailedData, streams: Streams
) -> SoftmaxEqualizationLoss:
    try:
        return SoftmaxEqualizationLoss(
            data.train_counts.to(data.train.labels.device),
            gamma=config.eql_gamma,
            threshold=config.eql_threshold,
            generator=streams["eql"],
        )
    except ValueError as error:
        refused = f"--eql-threshold {config.eql_threshold} is refused: {error}"
        raise UserError(f"{refused}; {_usable_threshold(data.train_counts)}.") from error


def _usable_threshold(counts: Tensor) -> str:
    """Which thresholds of EQL make some classes rare and not all; ``counts`` is (C,)."""
    least, most = (counts.aminmax()[end].item() / counts.sum().item() for end in (0, 1))
    if least == most:
        return "all classes have as many images here, so choose another --method"
    between = math.sqrt(least * most)
    return f"give one above {least:.3g} and below {most:.3g}, for example {between:.3g}"


def _without_draws(loss: PerSampleLoss) -> SampleLoss:
    return lambda logits, labels, draws: loss(logits, labels)


def _balanced_index(data: LongTailedData, size: int, generator: torch.Generator) -> Draw:
    """Draws (V,) images of the difficulty set, with replacement."""
    number = data.difficulty.labels.numel()
    return lambda batch_size: torch.randint(number, (size,), generator=generator)


def _set_eql(method: Method, config: EqlSettings, run: "_Run") -> None:
    method.loss = equalization = _equalization(config, run.data, run.streams)
    method.draw = equalization.draw


def _set_ldam(method: Method, config: CifarConfig, run: "_Run") -> None:
    """Margins for a cosine classifier; after ``drw_epoch`` class-balanced weights."""
    data = run.data
    device = data.train.labels.device
    counts = data.train_counts.to(device)
    ldam = LdamLoss(counts, max_margin=config.ldam_margin, scale=config.ldam_scale)
    later = class_balanced_weights(data.train_counts, config.cb_beta).to(device, torch.float32)
    start = config.milestones[0] if config.drw_epoch is None else config.drw_epoch
    method.deferred = DeferredWeights(torch.ones_like(later), later, start)
    method.loss = _without_draws(ldam)
    method.reduce = partial(mean_by_class, method.deferred.weights, method.reduction)


def _set_l2rw(method: Method, config: L2rwSettings, run: "_Run") -> None:
    balanced = run.data.difficulty
    assert isinstance(balanced, LabelledImages)  # Those that are in memory have this method.

    def weights(model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None) -> Tensor:
        assert draws is not None
        # Theirs sum to 1 over the batch; 1 on average keeps every reduction comparable.
        return len(labels) * reweight(model, images, labels, balanced.take(draws))

    method.draw = _balanced_index(run.data, config.l2rw_batch_size, run.streams["l2rw"])
    method.weights, method.whole_batch = weights, True


def _set_meta_weight_net(method: Method, config: MetaWeightNetSettings, run: "_Run") -> None:
    meta = MetaReweighter(
        run.streams["meta-weight-net"],
        learning_rate=config.mwn_learning_rate,
        virtual_step=config.mwn_virtual_step,
    ).to(run.data.train.labels.device)
    balanced = run.data.difficulty
    assert isinstance(balanced, LabelledImages)

    def weights(model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None) -> Tensor:
        assert draws is not None
        # Theirs sum to 1 over the batch; 1 on average keeps every reduction comparable.
        return len(labels) * meta.weights(model, images, labels, balanced.take(draws), run.rate)

    method.meta = meta
    method.draw = _balanced_index(run.data, config.mwn_batch_size, run.streams["meta-batches"])
    method.weights, method.whole_batch = weights, True


def _count_hard(method: Method, config: ClassificationConfig, run: "_Run") -> None:
    data, bound = run.data, config.hard_weight
    if bound is not None:
        device = data.train.labels.device
        method.hard = HardInstances(data.num_classes, bound, config.focal_gamma, device)


def _set_class_aware(method: Method, config: ClassificationConfig, run: "_Run") -> None:
    method.sampler = ClassAwareSampler(*run.sampled)


def _set_oltr(method: Method, config: OltrSettings, run: "_Run") -> None:
    method.sampler = ClassAwareSampler(*run.sampled, config.samples_per_class)
    method.of_model, method.start, method.parameter_groups = _oltr_loss, fill_memory, _oltr_groups


def _oltr_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return oltr_loss(model(images, for_loss=True), labels)


def _oltr_groups(model: Any) -> list[Group]:
    return [(group["params"], group["factor"], 1.0) for group in parameter_groups(model)]


@dataclass(frozen=True, eq=False)
class _Run:
    """What a method is made of, besides its settings."""

    data: LongTailedData
    streams: Streams
    rate: Tensor

    @property
    def sampled(self) -> tuple[Tensor, int, torch.Generator]:
        """Labels, number of classes and generator of the sampler."""
        return self.data.train.labels, self.data.num_classes, self.streams["sampler"]


_SPECIAL: Mapping[str, Callable[[Method, Any, _Run], None]] = {
    "focal": _count_hard,
    "cdb-w-fl": _count_hard,
    "eql": _set_eql,
    "l2rw": _set_l2rw,
    "meta-weight-net": _set_meta_weight_net,
    "ldam-drw": _set_ldam,
    "class-aware": _set_class_aware,
    "oltr": _set_oltr,
}
"""What a method has besides the sampler, loss and reduction that it shares with other tasks."""


def make_method(
    config: ClassificationConfig, data: LongTailedData, streams: Streams, rate: Tensor
) -> Method:
    """Build the configured method.

    Args:
        config: the run.
        data: labels and class counts are used; the meta-learning methods also use the images of
            the difficulty set.
        streams: gives the sampler and the losses that draw random numbers their generators.
        rate: the learning rate in force, 0-d, changed in place (Meta-Weight-Net's virtual step).

    Raises:
        UserError: when the method cannot work on this data.
    """
    device = data.train.labels.device
    run = _Run(data, streams, rate)
    balancer = make_balancer(config, data.num_classes, device)
    loss = _without_draws(make_loss(config, data.train_counts, device))
    reduce = make_reduction(config, data.train_counts, balancer, device)
    method = Method(make_sampler(config, *run.sampled), loss, reduce, balancer=balancer)
    method.reduction = config.loss_reduction or method.reduction
    if config.method in _SPECIAL:
        _SPECIAL[config.method](method, config, run)
    return method
