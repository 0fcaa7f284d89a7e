"""Classification heads of the detection methods, the same in every engine.

Which method has which head, and what the head is made from, say :mod:`detection.methods`.

Shapes: R proposals, C categories, L logits a proposal; background is label C.
"""

from detection.heads.bags import BagsHead
from detection.heads.base import ClassificationHead
from detection.heads.calibrated import CalibratedHead, calibration_proposals
from detection.heads.sigmoid import EqlHead, FocalDivisor, FocalHead
from detection.heads.softmax import Reduce, SoftmaxHead, lrw_class_weights

__all__ = [
    "ClassificationHead",
    "SoftmaxHead",
    "Reduce",
    "lrw_class_weights",
    "FocalDivisor",
    "FocalHead",
    "EqlHead",
    "BagsHead",
    "CalibratedHead",
    "calibration_proposals",
]
