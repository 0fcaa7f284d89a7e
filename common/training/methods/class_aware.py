"""Class-aware sampling (Shen et al. 2016)."""

import torch
from torch import Tensor

from common.sampler import ClassAwareSampler, EpochSampler
from common.training.methods.base import LogitMethod


class ClassAware(LogitMethod):
    """Cross-entropy; the classes take turns, each giving its samples in turn."""

    def make_sampler(
        self, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> EpochSampler:
        """Every class is equally likely."""
        return ClassAwareSampler(labels, num_classes, generator)
