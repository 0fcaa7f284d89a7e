"""OLTR's loss, memory and groups of parameters (Liu et al. 2019).

Shapes: B samples of this rank, C classes, D features, W ranks; v_i direct feature, y_i label, c_j
centroid.

The loss of a batch, as the authors' code computes it (loss/DiscCentroidsLoss.py, run_networks.py):

    mean_i CE_i + 0.01 (A + 0.01 R)
    A = mean_i |v_i - c_{y_i}|^2 / 2                                                     attract
    R = max(0, 10 - 1/(B C) sum_i sum_{j != y_i} |v_i - c_j|^2)                            repel

R is one hinge on the batch's mean, divided by B C though only B (C - 1) distances are summed. A
moves features by its gradient, but centroids by the update of Wen et al. 2016, which the factor
0.01 does not reach: their gradient is sum_{i: y_i = j} (c_j - v_i) / (1 + n_j) / B, n_j being the
batch's samples of class j. R moves both by its gradient.

Several ranks: the mean of the ranks' gradients is the gradient of the whole batch, however it is
shared: B, n_j and the hinge's mean are those of all ranks. Every rank must call it in every step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from classification.models.oltr_network import OltrModel, OltrOutputs
from common.distributed import all_reduce_sum, world_size
from common.errors import UserError
from common.losses import cross_entropy, weighted_mean
from common.sampler import ClassAwareSampler, EpochSampler
from common.training.methods.base import Group, LogitMethod
from common.training.settings import MethodSettings, Setting

CENTROID_WEIGHT = 0.01
REPEL_WEIGHT = 0.01
MARGIN = 10.0


@dataclass(frozen=True)
class OltrSettings(MethodSettings):
    """Of OLTR."""

    # Its loss is a sum of means.
    unused: ClassVar[tuple[str, ...]] = ("loss_reduction",)
    samples_per_class: Annotated[
        int,
        Setting("Consecutive samples of a class that class-aware sampling takes.", at_least=1),
    ] = 4


def _samples_by_class(labels: Tensor, num_classes: int) -> Tensor:
    """n_j over all ranks, (C,), float32; nothing waits for the device."""
    counts = torch.zeros(num_classes, device=labels.device)
    return all_reduce_sum(counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype)))


def _mean(values: Tensor) -> Tensor:
    """Sum over the mean number of samples of a rank: (B,) -> 0-d."""
    return weighted_mean(values, torch.ones_like(values))


def attraction(direct: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """|v_i - c_{y_i}|^2 / 2, which moves features only. Shapes (B, D), (B,), (C, D) -> (B,)."""
    own = centroids.detach().index_select(0, labels)
    return (direct - own).square().sum(dim=1) / 2


def centroid_pull(direct: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """Zeros, with the gradient by which A moves centroids. Shapes (B, D), (B,), (C, D) -> (B,)."""
    share = 1.0 / (1.0 + _samples_by_class(labels, len(centroids)).index_select(0, labels))
    gaps = centroids.index_select(0, labels) - direct.detach()
    pull = share * gaps.square().sum(dim=1) / 2
    return pull - pull.detach()


def negative_distances(direct: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """1/C sum_{j != y_i} |v_i - c_j|^2, >= 0. Shapes (B, D), (B,), (C, D) -> (B,).

    By the centroids' mean m: sum_j |v - c_j|^2 = C |v - m|^2 + sum_j |c_j - m|^2, in time and
    memory (B + C) D in place of B C D.
    """
    centre = centroids.mean(dim=0)
    spread = (centroids - centre).square().sum(dim=1).mean()
    every = (direct - centre).square().sum(dim=1) + spread
    own = (direct - centroids.index_select(0, labels)).square().sum(dim=1)
    return every - own / len(centroids)


def repulsion(direct: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """R, 0-d: the mean over the ranks is that of the whole batch. (B, D), (B,), (C, D)."""
    distance = _mean(negative_distances(direct, labels, centroids))
    # The ranks open and close the hinge together.
    near = all_reduce_sum(distance) / world_size() < MARGIN
    return (MARGIN - distance) * near


def oltr_loss(outputs: OltrOutputs, labels: Tensor) -> Tensor:
    """The loss of a batch, 0-d, see above; its mean over the ranks is that of the whole batch.

    Args:
        outputs: of ``model(images, for_loss=True)``.
        labels: (B,), 0..C-1.
    """
    features = (outputs.direct, labels, outputs.centroids)
    losses = cross_entropy(outputs.logits, labels) + CENTROID_WEIGHT * attraction(*features)
    losses = losses + centroid_pull(*features)
    return _mean(losses) + CENTROID_WEIGHT * REPEL_WEIGHT * repulsion(*features)


def _check_every_class(counts: Tensor) -> None:
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        names = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"no training sample of class {names}: OLTR's memory needs one of every class; "
            "add samples or leave the class out."
        )


@torch.no_grad()
def class_means(model: OltrModel, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean direct feature of each class, (C, D), float32, the same on every rank.

    In evaluation mode; the model's mode is as before afterwards.

    Args:
        model: with the first stage's weights.
        batches: images and labels, on the model's device, without augmentation; over all ranks
            every training sample once.

    Raises:
        UserError: for a class with no sample, naming it.
    """
    # float64: the order of the samples does not show.
    sums = torch.zeros_like(model.centroids, dtype=torch.float64)
    counts = sums.new_zeros(len(sums))
    training = model.training
    model.eval()
    for images, labels in batches:
        sums.index_add_(0, labels, model.direct_features(images).double())
        counts.index_add_(0, labels, counts.new_ones(len(labels)))
    model.train(training)
    sums, counts = all_reduce_sum(sums), all_reduce_sum(counts)
    _check_every_class(counts)
    return (sums / counts[:, None]).float()


def fill_memory(model: OltrModel, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Start the memory with the class means; see :func:`class_means`."""
    means = class_means(model, batches)
    with torch.no_grad():
        model.centroids.copy_(means)


class Oltr(LogitMethod):
    """OLTR's second stage: attention, and features enriched from a memory of class centroids."""

    Settings = OltrSettings

    def make_sampler(
        self, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> EpochSampler:
        """Class-aware, a few samples of a class in a row."""
        return ClassAwareSampler(labels, num_classes, generator, self.config.samples_per_class)

    def start(self, model: Any, train: Any) -> None:
        """Fill the memory with the means of the classes."""
        fill_memory(model, train.evaluation_batches())

    def batch_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        draws: Tensor | None = None,
        alone: nn.Module | None = None,
    ) -> Tensor:
        """See :func:`oltr_loss`: the network gives more than logits."""
        return oltr_loss(model(images, for_loss=True), labels)

    def parameter_groups(self, model: nn.Module) -> list[Group]:
        """Features, classifier, centroids, as the authors' code has them.

        Of the base rate (theirs: 0.1) the hallucinator, selector and cosine classifier take all,
        features (the first stage, attention, direct feature) and centroids a tenth.
        """
        parts = {name: p for name, p in model.named_parameters() if p.requires_grad}
        centroids = [parts.pop("centroids")]
        heads = ("first.classifier.", "selector.", "cosine.")
        classifier = [parts.pop(name) for name in list(parts) if name.startswith(heads)]
        return [([*parts.values()], 0.1, 1.0), (classifier, 1.0, 1.0), (centroids, 0.1, 1.0)]
