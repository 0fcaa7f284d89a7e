"""The methods of detectors, a file each, and their registry."""

from collections.abc import Mapping
from typing import Final

from detection.methods.bags import BalancedGroupSoftmax
from detection.methods.base import DetectionMethod
from detection.methods.calibration import Calib, SimCal
from detection.methods.cdb_s import CdbS
from detection.methods.cdb_w_ce import CdbWCe
from detection.methods.ce import CrossEntropy
from detection.methods.eql import Equalization
from detection.methods.focal import Focal
from detection.methods.lrw import LossReweighting
from detection.methods.rfs import RepeatFactorSampling

METHODS: Final[Mapping[str, type[DetectionMethod]]] = {
    "ce": CrossEntropy,
    "rfs": RepeatFactorSampling,
    "eql": Equalization,
    "cdb-s": CdbS,
    "cdb-w-ce": CdbWCe,
    "focal": Focal,
    "lrw": LossReweighting,
    "bags": BalancedGroupSoftmax,
    "simcal": SimCal,
    "calib": Calib,
}
"""By the names of the command line; a refusal names the methods in this order."""
