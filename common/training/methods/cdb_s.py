"""CDB-S, the paper's sampler. Shapes: C classes."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from common.sampler import ClassProbabilitySampler, EpochSampler, ImageWeightSampler
from common.training.methods.base import AccuracySettings, DifficultyMethod, follow_difficulty
from common.training.settings import Setting

SamplerUnit = Literal["class", "image"]


@dataclass(frozen=True)
class CdbSSettings(AccuracySettings):
    """Of CDB-S."""

    least_deferral: ClassVar[int] = 1
    sampler_unit: Annotated[
        SamplerUnit,
        Setting(
            "cdb-s: what d_c^tau is the weight of: the class (Eq. 15), or each of its images.",
            earlier="class",
        ),
    ] = "class"


class CdbS(DifficultyMethod):
    """CDB-S (Eq. 15): cross-entropy; a class is drawn by its difficulty, then one of its samples.

    It starts with equal classes, or with equal images where these are what is weighed.
    """

    Settings = CdbSSettings
    sampler: ClassProbabilitySampler

    def make_sampler(
        self, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> EpochSampler:
        """Of classes, or of images weighed by their class."""
        by_class = self.config.sampler_unit == "class"
        kind = ClassProbabilitySampler if by_class else ImageWeightSampler
        return kind(labels, num_classes, generator)

    def before_epoch(self, epoch: int) -> None:
        """Draw by the last difficulty."""
        super().before_epoch(epoch)
        follow_difficulty(self.sampler, self.balancer)
