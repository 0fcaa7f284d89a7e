"""Second stages: only the class layer is trained ('-clc'), or a second classifier beside it.

'-clc' (Li et al. 2020): :func:`replace_classifier`, then :func:`freeze_all_but_classifier`. Their
code draws a new layer for BAGS only; that those of CDB-W-CE-clc and of focal start anew, too, is
ours: the paper says "retrained", and our focal head has no logit for background. SimCal and Calib
(Wang et al. 2020, 2019): :func:`add_calibrated_classifier`, then the same freeze.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from common.training.random_draws import global_draws_from
from detection.heads import CalibratedHead, ClassificationHead
from detection.models.roi_heads import make_class_layer
from detection.models.torchvision_rcnn import Rcnn

Calibration = Literal["simcal", "calib"]


class CalibratedClassifier(nn.Module):
    """A classifier of its own on the pooled features of proposals.

    Attributes:
        hidden: pooled features (R, channels, 7, 7) -> (R, D).
        cls_score: D -> logits.
    """

    def __init__(self, hidden: nn.Module, cls_score: nn.Linear) -> None:
        """Two given parts."""
        super().__init__()
        self.hidden, self.cls_score = hidden, cls_score

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, channels, 7, 7) -> logits (R, L)."""
        logits: Tensor = self.cls_score(self.hidden(pooled))
        return logits


def replace_classifier(
    model: Rcnn, head: ClassificationHead, *, generator: torch.Generator
) -> None:
    """Give ``model`` another head, and a new class layer drawn from ``generator``.

    A head of ``keeps_class_layer`` goes on with the layer that is there.

    Raises:
        ValueError: when the head has another number of categories, or keeps a layer of another
            number of logits.
    """
    _check_categories(model, head)
    old = model.roi_heads.box_predictor.cls_score
    if head.keeps_class_layer:
        if old.out_features != head.num_logits:
            raise ValueError(f"the head has {head.num_logits} logits, not {old.out_features}")
        model.roi_heads.head = head.to(old.weight.device)
        return
    with global_draws_from(generator):
        layer = make_class_layer(old.in_features, head)
    model.roi_heads.box_predictor.cls_score = layer.to(old.weight.device)
    model.roi_heads.head = head.to(old.weight.device)


def _check_categories(model: Rcnn, head: ClassificationHead) -> None:
    if head.num_classes != model.roi_heads.num_classes:
        raise ValueError(
            f"the head has {head.num_classes} categories, the detector "
            f"{model.roi_heads.num_classes}"
        )


def add_calibrated_classifier(
    model: Rcnn, head: CalibratedHead, kind: Calibration, *, generator: torch.Generator
) -> None:
    """Put a second classifier beside the detector's own.

    Args:
        model: a trained detector; its class layer stays.
        head: gives the loss of the second one and the scores of both.
        kind: ``simcal``: a copy of the detector's two layers and class layer, which goes on from
            their weights; ``calib``: one new layer of as many features and a new class layer.
        generator: new layers are drawn from it.

    Raises:
        ValueError: when the head does not fit the detector's classes or its class layer.
    """
    _check_categories(model, head)
    roi_heads = model.roi_heads
    own = roi_heads.box_predictor.cls_score
    if own.out_features != head.original.num_logits:
        raise ValueError(
            f"the head's original has {head.original.num_logits} logits, the detector "
            f"{own.out_features}"
        )
    if kind == "simcal":
        if head.calibrated.num_logits != own.out_features:
            raise ValueError("simcal goes on from the class layer, so both heads must be alike")
        classifier = CalibratedClassifier(copy.deepcopy(roi_heads.box_head), copy.deepcopy(own))
    else:
        with global_draws_from(generator):
            inputs = roi_heads.box_head.fc6.in_features
            first = nn.Linear(inputs, own.in_features)
            hidden = nn.Sequential(nn.Flatten(), first, nn.ReLU())
            classifier = CalibratedClassifier(
                hidden, make_class_layer(own.in_features, head.calibrated)
            )
    roi_heads.calibrated = classifier.to(own.weight.device)
    roi_heads.head = head.to(own.weight.device)


def freeze_all_but_classifier(model: Rcnn) -> list[nn.Parameter]:
    """Train nothing but the classifier: the class layer, or the calibrated one if there is one.

    From now on a training step samples proposals as before, but computes ``loss_classifier``
    alone; frozen parts stay in evaluation mode.

    Returns:
        The parameters that are trained: what the optimizer is to hold.
    """
    model.requires_grad_(False)
    roi_heads = model.roi_heads
    trained: nn.Module = roi_heads.box_predictor.cls_score
    if roi_heads.calibrated is not None:
        trained = roi_heads.calibrated
    trained.requires_grad_(True)
    roi_heads.classifier_only = True
    model.train(model.training)
    return list(trained.parameters())
