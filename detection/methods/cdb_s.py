"""CDB-S on images that hold several categories."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from common.sampler import EpochSampler
from common.training.methods.base import follow_difficulty
from detection.methods.base import CategoryDifficultySettings, DifficultyMethod
from detection.samplers import ImageDifficultySampler


@dataclass(frozen=True)
class CdbSSettings(CategoryDifficultySettings):
    """Of CDB-S."""

    least_deferral: ClassVar[int] = 1


class CdbS(DifficultyMethod):
    """CDB-S (Eq. 15): cross-entropy; a category is drawn by its difficulty, then an image with it.

    It starts with equal categories.
    """

    Settings = CdbSSettings
    sampler: ImageDifficultySampler

    def make_sampler(self, generator: torch.Generator) -> EpochSampler:
        """Of categories, then of their images."""
        sets = self.sets
        return ImageDifficultySampler(*self.pairs, len(sets.train), sets.num_classes, generator)

    def before_epoch(self, epoch: int) -> None:
        """Draw by the last difficulty."""
        super().before_epoch(epoch)
        follow_difficulty(self.sampler, self.balancer)
