"""Detectors: torchvision's Faster and Mask R-CNN with the classification heads plugged in."""

from common.training.random_draws import global_draws_from
from detection.models.pretrained import load_published
from detection.models.roi_heads import Losses, Prediction, ProposalAccuracy, total_loss
from detection.models.second_stage import (
    add_calibrated_classifier,
    freeze_all_but_classifier,
    replace_classifier,
)
from detection.models.torchvision_rcnn import LAYOUTS, Layout, Rcnn, build_rcnn

__all__ = [
    "build_rcnn",
    "Rcnn",
    "Layout",
    "LAYOUTS",
    "Losses",
    "Prediction",
    "total_loss",
    "global_draws_from",
    "ProposalAccuracy",
    "load_published",
    "freeze_all_but_classifier",
    "replace_classifier",
    "add_calibrated_classifier",
]
