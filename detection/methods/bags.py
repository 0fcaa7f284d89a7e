"""Balanced group softmax (Li et al. 2020)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from common.training.settings import MethodSettings, Setting
from detection.heads import BagsHead, ClassificationHead
from detection.methods.base import NO_REDUCTION, CategoryCounts, DetectionMethod


@dataclass(frozen=True)
class BagsSettings(MethodSettings):
    """Of balanced group softmax."""

    unused: ClassVar[tuple[str, ...]] = NO_REDUCTION
    bags_beta: Annotated[
        float, Setting("bags: proposals of other bins for each foreground one.", at_least=0)
    ] = 8.0


class BalancedGroupSoftmax(DetectionMethod):
    """BAGS: a softmax for each bin of categories with about as many instances."""

    Settings = BagsSettings
    counted = True

    @staticmethod
    def make_head(
        settings: Any, counts: CategoryCounts, generator: torch.Generator
    ) -> ClassificationHead:
        """Its proposals of other bins are drawn from ``generator``."""
        beta = settings.bags_beta
        return BagsHead(counts.num_classes, counts.of("instances"), beta, generator=generator)
