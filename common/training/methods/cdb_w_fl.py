"""CDB-W-FL, the paper's weighted focal loss."""

from dataclasses import dataclass

from common.training.methods.base import AccuracySettings
from common.training.methods.cdb_w_ce import CdbWCe
from common.training.methods.focal import Focal, FocalSettings, HardInstanceSettings


@dataclass(frozen=True)
class CdbWFlSettings(AccuracySettings, FocalSettings):
    """Of CDB-W-FL."""


@dataclass(frozen=True)
class CountedCdbWFlSettings(CdbWFlSettings, HardInstanceSettings):
    """Of CDB-W-FL where it counts hard instances."""


class CdbWFl(CdbWCe, Focal):
    """CDB-W-FL (Eq. 14): focal loss, each sample weighted by the difficulty of its class."""

    Settings = CdbWFlSettings
