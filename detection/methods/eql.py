"""The equalization loss over sigmoids (Tan et al. 2020)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from common.training.settings import MethodSettings, Setting
from detection.heads import ClassificationHead, EqlHead
from detection.methods.base import NO_REDUCTION, CategoryCounts, DetectionMethod


@dataclass(frozen=True)
class EqlSettings(MethodSettings):
    """Of the equalization loss."""

    unused: ClassVar[tuple[str, ...]] = NO_REDUCTION
    eql_threshold: Annotated[
        float,
        Setting(
            "eql: lambda, the share of images under which a category is rare.", above=0, at_most=1
        ),
    ] = 0.00176


class Equalization(DetectionMethod):
    """EQL: proposals of other categories do not push a rare category's logit down."""

    Settings = EqlSettings
    counted = True

    @staticmethod
    def make_head(
        settings: Any, counts: CategoryCounts, generator: torch.Generator
    ) -> ClassificationHead:
        """From the share of images with each category."""
        return EqlHead(counts.num_classes, counts.of("image_share"), settings.eql_threshold)
