"""Loss re-weighting (Li et al. 2020)."""

from typing import Any

import torch

from detection.heads import ClassificationHead, SoftmaxHead, lrw_class_weights
from detection.methods.base import CategoryCounts, DetectionMethod


class LossReweighting(DetectionMethod):
    """LRW: cross-entropy, weighted by the inverse effective number of a category's instances."""

    counted = True

    @staticmethod
    def make_head(
        settings: Any, counts: CategoryCounts, generator: torch.Generator
    ) -> ClassificationHead:
        """The softmax with fixed weights."""
        head = SoftmaxHead(
            counts.num_classes,
            lrw_class_weights(counts.of("instances")),
            reduction=settings.loss_reduction or "batch-size",
        )
        head.keeps_class_layer = True  # The code of Li et al. 2020 loads it and draws none.
        return head
