"""The settings of the detection methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, get_args

from common.training.settings import DifficultySettings, MethodSettings, Setting

DetectionMethod = Literal[
    "ce", "rfs", "eql", "cdb-s", "cdb-w-ce", "focal", "lrw", "bags", "simcal", "calib"
]
METHODS: tuple[DetectionMethod, ...] = get_args(DetectionMethod)
CALIBRATIONS: Final = ("simcal", "calib")
"""The methods that train a second classifier beside the detector's own."""
Measure = Literal["ap", "proposals"]
# Not of the softmax: its loss is a sum, divided in its own way.
_NO_REDUCTION: Final = ("loss_reduction",)


@dataclass(frozen=True)
class CategoryDifficultySettings(DifficultySettings):
    """CDB's, and how a category's performance is measured."""

    difficulty: Annotated[
        Measure,
        Setting(
            "CDB: a category's performance is its AP on the difficulty images, or the share of its "
            "proposals in training that are classified right."
        ),
    ] = "ap"
    difficulty_period: Annotated[
        int, Setting("CDB by ap: t, epochs between two measurements.", at_least=1)
    ] = 1


@dataclass(frozen=True)
class RfsSettings(MethodSettings):
    """Of repeat-factor sampling (Gupta et al. 2019)."""

    rfs_threshold: Annotated[
        float,
        Setting(
            "rfs: t, the share of images under which a category is repeated.", above=0, at_most=1
        ),
    ] = 0.001


@dataclass(frozen=True)
class EqlSettings(MethodSettings):
    """Of the equalization loss (Tan et al. 2020)."""

    unused: ClassVar[tuple[str, ...]] = _NO_REDUCTION
    eql_threshold: Annotated[
        float,
        Setting(
            "eql: lambda, the share of images under which a category is rare.", above=0, at_most=1
        ),
    ] = 0.00176


@dataclass(frozen=True)
class FocalSettings(MethodSettings):
    """Of focal loss over sigmoids."""

    unused: ClassVar[tuple[str, ...]] = _NO_REDUCTION
    focal_gamma: Annotated[float, Setting("Focusing parameter of focal.", at_least=0)] = 2.0
    focal_alpha: Annotated[
        float,
        Setting(
            "focal: weight of a category's own proposals; the others have 1 - focal_alpha.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.25


@dataclass(frozen=True)
class BagsSettings(MethodSettings):
    """Of balanced group softmax (Li et al. 2020)."""

    unused: ClassVar[tuple[str, ...]] = _NO_REDUCTION
    bags_beta: Annotated[
        float, Setting("bags: proposals of other bins for each foreground one.", at_least=0)
    ] = 8.0


@dataclass(frozen=True)
class CalibrationSettings(MethodSettings):
    """Of the calibrations (Wang et al. 2020)."""

    unused: ClassVar[tuple[str, ...]] = ("batch_size",)
    calibration_threshold: Annotated[
        int,
        Setting(
            "simcal, calib: categories of fewer instances take the calibrated classifier's scores.",
            at_least=0,
        ),
    ] = 100


METHOD_SETTINGS: Final[Mapping[str, type[MethodSettings]]] = {
    "ce": MethodSettings,
    "rfs": RfsSettings,
    "eql": EqlSettings,
    "cdb-s": CategoryDifficultySettings,
    "cdb-w-ce": CategoryDifficultySettings,
    "focal": FocalSettings,
    "lrw": MethodSettings,
    "bags": BagsSettings,
    "simcal": CalibrationSettings,
    "calib": CalibrationSettings,
}
"""Of each method; a refusal names the methods in this order."""
HEAD_SETTINGS: Final = (
    "focal_gamma", "focal_alpha", "eql_threshold", "bags_beta", "calibration_threshold",
)  # fmt: skip
"""Settings that :func:`detection.heads.make_head` takes by these names."""
