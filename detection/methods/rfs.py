"""Repeat-factor sampling (Gupta et al. 2019)."""

from dataclasses import dataclass
from typing import Annotated

import torch

from common.sampler import EpochSampler
from common.training.settings import MethodSettings, Setting
from detection.methods.base import DetectionMethod
from detection.samplers import RepeatFactorSampler


@dataclass(frozen=True)
class RfsSettings(MethodSettings):
    """Of repeat-factor sampling."""

    rfs_threshold: Annotated[
        float,
        Setting(
            "rfs: t, the share of images under which a category is repeated.", above=0, at_most=1
        ),
    ] = 0.001


class RepeatFactorSampling(DetectionMethod):
    """Cross-entropy; images with rare categories are shown more than once an epoch."""

    Settings = RfsSettings

    def make_sampler(self, generator: torch.Generator) -> EpochSampler:
        """By the repeat factor of each image."""
        threshold = self.config.rfs_threshold
        return RepeatFactorSampler(*self.pairs, len(self.sets.train), generator, threshold)
