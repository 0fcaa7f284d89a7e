"""The methods that need logits, labels and class counts alone, a file each, and their registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from common.training.methods.balanced_softmax import BalancedSoftmax
from common.training.methods.base import LogitMethod, settings_of_methods
from common.training.methods.cb import CbSettings, ClassBalanced
from common.training.methods.cdb_s import CdbS, CdbSSettings
from common.training.methods.cdb_w_ce import CdbWCe
from common.training.methods.cdb_w_fl import CdbWFl, CdbWFlSettings
from common.training.methods.ce import CrossEntropy
from common.training.methods.cfs import CfsSettings, ClassFrequencySampling
from common.training.methods.class_aware import ClassAware
from common.training.methods.eql import Equalization
from common.training.methods.focal import Focal
from common.training.methods.logit_adjustment import LogitAdjustment, LogitAdjustmentSettings
from common.training.methods.logit_adjustment_post_hoc import LogitAdjustmentPostHoc
from common.training.methods.tau_normalisation import TauNormalisation, TauNormalisationSettings
from common.training.settings import MethodSettings, RunConfig

LOGIT_METHODS: Final[Mapping[str, type[LogitMethod]]] = {
    "ce": CrossEntropy,
    "focal": Focal,
    "cfs": ClassFrequencySampling,
    "cb": ClassBalanced,
    "eql": Equalization,
    "class-aware": ClassAware,
    "balanced-softmax": BalancedSoftmax,
    "logit-adjustment": LogitAdjustment,
    "logit-adjustment-post-hoc": LogitAdjustmentPostHoc,
    "tau-normalisation": TauNormalisation,
    "cdb-s": CdbS,
    "cdb-w-ce": CdbWCe,
    "cdb-w-fl": CdbWFl,
}
"""By the names of the command line; a refusal names the methods in this order."""


@dataclass(frozen=True)
class UsualSettings(
    CdbSSettings,
    CdbWFlSettings,
    CfsSettings,
    CbSettings,
    LogitAdjustmentSettings,
    TauNormalisationSettings,
):
    """Of the methods that every single stage on images or clips has."""


_FACTORS: Final = {
    "la_tau": LogitAdjustmentSettings.la_tau,
    "norm_tau": TauNormalisationSettings.norm_tau,
}
"""What other methods than CDB call tau, and its usual value, which no variant tells."""


@dataclass(frozen=True, kw_only=True)
class LogitConfig(RunConfig):
    """A run of a task whose network gives logits (B, C) for labels (B,).

    Whose methods it has says each configuration: their settings are bases of it.
    """

    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = settings_of_methods(
        LOGIT_METHODS
    )

    @property
    def variant(self) -> str:
        """The record's ``variant``, as the paper's tables name it."""
        for name, usual in _FACTORS.items():
            if (factor := getattr(self, name, usual)) != usual:
                return f"tau={float(factor)}"
        by_image = getattr(self, "sampler_unit", "class") == "image"
        unit = " unit=image" if by_image else ""
        return "" if self.tau is None else f"tau={self.tau}{unit}{self.steadied}"
