"""Class-frequency sampling. Shapes: C classes."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from common.sampler import ClassProbabilitySampler, EpochSampler, frequency_probabilities
from common.training.methods.base import LogitMethod
from common.training.settings import MethodSettings, Setting


@dataclass(frozen=True)
class CfsSettings(MethodSettings):
    """Of class-frequency sampling."""

    cfs_q: Annotated[
        float, Setting("cfs: class probability proportional to n_c^q.", at_least=0)
    ] = 0.5


class ClassFrequencySampling(LogitMethod):
    """Cross-entropy; a class is drawn with a probability in proportion to a power of its samples.

    After Mikolov et al. 2013, who sample words; see :func:`common.sampler.frequency_probabilities`.
    """

    Settings = CfsSettings

    def make_sampler(
        self, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> EpochSampler:
        """p_c in proportion to n_c^q."""
        sampler = ClassProbabilitySampler(labels, num_classes, generator)
        probabilities = frequency_probabilities(sampler.class_counts, self.config.cfs_q)
        sampler.set_class_probabilities(probabilities)
        return sampler
