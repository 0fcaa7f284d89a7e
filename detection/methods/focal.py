"""Focal loss over sigmoids (Lin et al. 2017)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from common.training.settings import MethodSettings, Setting
from detection.heads import ClassificationHead, FocalDivisor, FocalHead
from detection.methods.base import NO_REDUCTION, CategoryCounts, DetectionMethod


@dataclass(frozen=True)
class FocalSettings(MethodSettings):
    """Of focal loss over sigmoids."""

    unused: ClassVar[tuple[str, ...]] = NO_REDUCTION
    focal_divisor: ClassVar[FocalDivisor] = "foreground"
    focal_gamma: Annotated[float, Setting("Focusing parameter of focal.", at_least=0)] = 2.0
    focal_alpha: Annotated[
        float,
        Setting(
            "focal: weight of a category's own proposals; the others have 1 - focal_alpha.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.25


class Focal(DetectionMethod):
    """Focal loss: a proposal counts the less, the surer the head is of it."""

    Settings = FocalSettings

    @staticmethod
    def make_head(
        settings: Any, counts: CategoryCounts, generator: torch.Generator
    ) -> ClassificationHead:
        """A sigmoid for each category, none for background."""
        return FocalHead(
            counts.num_classes,
            settings.focal_gamma,
            settings.focal_alpha,
            divide_by=settings.focal_divisor,
        )
