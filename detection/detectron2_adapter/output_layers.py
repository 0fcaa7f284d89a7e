"""detectron2's box output layers with an engine-neutral classification head.

Shapes: C categories, D features, K box regressors a proposal (C, or 1 for class-agnostic boxes), L
logits a proposal (``head.num_logits``), R proposals. Background is label C, which is detectron2's
convention too.
"""

from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from common.balancer import ClassDifficultyBalancer
from detection.detectron2_adapter.config import balancer_from, head_from, is_second_stage
from detection.heads import ClassificationHead, SoftmaxHead
from detection.models import ProposalAccuracy
from detection.models.roi_heads import make_class_layer

Predictions = tuple[Tensor, Tensor]
"""Logits (R, L) and box deltas (R, 4 K)."""

_OTHER_LOSSES = ("use_sigmoid_ce", "use_fed_loss")


class HeadOutputLayers(FastRCNNOutputLayers):  # type: ignore[misc]  # detectron2 has no types
    """Class loss and scores are a :class:`~detection.heads.ClassificationHead`'s.

    Everything of the boxes is detectron2's. In a yacs configuration its options are those of
    :func:`~detection.detectron2_adapter.config.add_cdb_config`; in a LazyConfig its arguments, see
    :func:`~detection.detectron2_adapter.config.use_head`.

    Attributes:
        head: loss and probabilities from logits.
        balancer: reduces the head's losses, and its state is in the model's checkpoints; None: the
            head does so itself.
        classifier_only: compute the class loss and no other ('-clc').
        proposal_accuracy: counts of the steps so far; None: not collected.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        head: ClassificationHead,
        balancer: ClassDifficultyBalancer | None = None,
        classifier_only: bool = False,
        **options: Any,
    ) -> None:
        """Draw new layers from the global generator, as detectron2 does.

        Args:
            input_shape: of the features.
            head: loss and probabilities.
            balancer: of CDB-W-CE; ``head`` is then a :class:`~detection.heads.SoftmaxHead`.
            classifier_only: see above.
            **options: of detectron2's ``FastRCNNOutputLayers``.

        Raises:
            ValueError: for a head or a balancer of another number of categories, a balancer with a
                head that weighs no classes, or detectron2's options of another class loss.
        """
        super().__init__(input_shape, **options)
        if wrong := [name for name in _OTHER_LOSSES if options.get(name)]:
            raise ValueError(f"{wrong[0]} asks for another class loss than the head's")
        for part in filter(None, (head, balancer)):
            if part.num_classes != self.num_classes:
                raise ValueError(f"{self.num_classes} categories, but {part.num_classes} in {part}")
        if balancer is not None:
            if not isinstance(head, SoftmaxHead):
                raise ValueError(f"{type(head).__name__} has no reduction that a balancer could be")
            head.reduce = partial(balancer.weighted_mean, background_weight=1.0)
        self.cls_score: nn.Linear = make_class_layer(self.bbox_pred.in_features, head)
        self.head, self.balancer, self.classifier_only = head, balancer, classifier_only
        self.proposal_accuracy: ProposalAccuracy | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments from a yacs configuration."""
        options: dict[str, Any] = super().from_config(cfg, input_shape)
        return {
            **options,
            "head": head_from(cfg),
            "balancer": balancer_from(cfg),
            "classifier_only": is_second_stage(cfg.CDB.METHOD),
        }

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """The losses of one training step.

        Args:
            predictions: of :meth:`forward`.
            proposals: of each image, with ``proposal_boxes``, ``gt_classes`` (0..C) and, where it
                has instances, ``gt_boxes``.

        Returns:
            ``loss_cls``, and unless ``classifier_only`` ``loss_box_reg``; each 0-d.
        """
        logits, deltas = predictions
        labels = torch.cat([of_image.gt_classes for of_image in proposals])
        self._count(logits, labels)
        losses = {"loss_cls": self.head.loss(logits, labels)}
        if not self.classifier_only:
            losses["loss_box_reg"] = self._box_loss(deltas, labels, proposals)
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def _box_loss(self, deltas: Tensor, labels: Tensor, proposals: list[Instances]) -> Tensor:
        boxes = [of_image.proposal_boxes.tensor for of_image in proposals]
        # An image without instances has background only, whose boxes are not looked at.
        truth = [
            of_image.gt_boxes.tensor if of_image.has("gt_boxes") else own
            for of_image, own in zip(proposals, boxes, strict=True)
        ]
        loss: Tensor = self.box_reg_loss(torch.cat(boxes), torch.cat(truth), deltas, labels)
        return loss

    @torch.no_grad()
    def _count(self, logits: Tensor, labels: Tensor) -> None:
        """Add a step's foreground proposals to the accuracy, if it is collected."""
        if self.proposal_accuracy is not None:
            foreground = labels < self.num_classes
            probabilities = self.head.probabilities(logits[foreground])
            self.proposal_accuracy.add(probabilities.argmax(dim=1), labels[foreground])

    def predict_probs(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[Tensor, ...]:
        """Scores of each image's proposals, (R, C + 1); background's, the last, are 0.

        detectron2's inference leaves the last column out, and sigmoid heads have no score for it.
        """
        scores = self.head.probabilities(predictions[0])
        padded = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)
        parts: tuple[Tensor, ...] = padded.split([len(of_image) for of_image in proposals])
        return parts
