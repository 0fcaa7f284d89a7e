"""LVIS average precision: a fast, vectorised evaluation, and the official package beside it.

``evaluate_ap`` and ``official_ap`` take the same detections and give the same :class:`ApResult`;
the second runs the ``lvis`` package and is what the first is tested against. Needs no torch.
"""

from detection.ap.fast import evaluate_ap
from detection.ap.inputs import Detections, GroundTruth, IouType
from detection.ap.official import official_ap
from detection.ap.summary import AREAS, ApResult

__all__ = [
    "evaluate_ap",
    "official_ap",
    "GroundTruth",
    "Detections",
    "ApResult",
    "IouType",
    "AREAS",
]
