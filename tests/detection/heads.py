"""The head of each method, made as its method makes it, without a run."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from common.losses import Reduction, weighted_mean
from common.weights import sample_weights
from detection.heads import ClassificationHead, Reduce
from detection.methods import METHODS
from detection.methods.base import CategoryCounts
from detection.methods.focal import FocalSettings

HEAD_METHODS = tuple(METHODS)


def make_head(
    method: str,
    num_classes: int,
    *,
    reduce: Reduce | None = None,
    reduction: Reduction = "batch-size",
    instance_counts: Tensor | None = None,
    image_share: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> ClassificationHead:
    """The head of a method; ``reduce``: of the balancer, for cdb-w-ce."""
    kind = METHODS[method]
    usual = {"loss_reduction": reduction, "focal_divisor": FocalSettings.focal_divisor}
    chosen = SimpleNamespace(**(vars(kind.Settings()) | usual | settings))
    counts = CategoryCounts(num_classes, instance_counts, image_share)
    head = kind.make_head(chosen, counts, generator or torch.Generator().manual_seed(0))
    if method == "cdb-w-ce":
        head.reduce = reduce  # type: ignore[assignment]
    return head


def mean_by_class(
    class_weights: Tensor, reduction: Reduction, losses: Tensor, labels: Tensor
) -> Tensor:
    """As a balancer reduces losses (R,): weights (C + 1,), the last one background's."""
    return weighted_mean(losses, sample_weights(class_weights, labels), reduction)
