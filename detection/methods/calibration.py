"""SimCal (Wang et al. 2020) and Calib (Wang et al. 2019): a second classifier beside the first.

Shapes: B images a step, C categories, S steps an epoch.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from torch import Tensor

from common.distributed import world_size
from common.errors import UserError
from common.training.settings import MethodSettings, Setting
from detection.heads import CalibratedHead, ClassificationHead
from detection.methods.base import CategoryCounts, DetectionMethod
from detection.samplers import draw_episodes

EPISODE: Final = 16
"""Categories of an episode, and images a step (Wang et al. 2020)."""


@dataclass(frozen=True)
class CalibrationSettings(MethodSettings):
    """Of the calibrations."""

    unused: ClassVar[tuple[str, ...]] = ("batch_size",)
    calibration_threshold: Annotated[
        int,
        Setting(
            "simcal, calib: categories of fewer instances take the calibrated classifier's scores.",
            at_least=0,
        ),
    ] = 100


class SimCal(DetectionMethod):
    """SimCal: the calibrated classifier goes on from the detector's own layers."""

    Settings = CalibrationSettings
    counted = True
    second_stage_suffix = ""
    # How the code of Wang et al. 2020 trains it: plain SGD, its rate a tenth from the start of the
    # 8th epoch on and a hundredth from that of the 11th.
    trained_with = MappingProxyType(
        {
            "momentum": 0.0,
            "weight_decay": 0.0,
            "milestones": (7, 10),
            "warmup_steps": 0,
            "gradient_clip": 0.0,
        }
    )
    kind: ClassVar[Literal["simcal", "calib"]] = "simcal"

    @staticmethod
    def make_head(
        settings: Any, counts: CategoryCounts, generator: torch.Generator
    ) -> ClassificationHead:
        """Two softmax heads side by side."""
        original, calibrated = (
            DetectionMethod.make_head(settings, counts, generator) for _ in range(2)
        )
        threshold = settings.calibration_threshold
        return CalibratedHead(original, calibrated, counts.of("instances"), threshold)

    def add_classifier(self, model: Any, head: ClassificationHead) -> None:
        """Put a second classifier beside the detector's own."""
        from detection.models import add_calibrated_classifier

        assert isinstance(head, CalibratedHead)
        generator = self.streams["classifier"]
        add_calibrated_classifier(model, head, self.kind, generator=generator)

    @property
    def step_size(self) -> int:
        """An episode."""
        return EPISODE

    def check_step(self) -> None:
        """Refuse ranks that cannot share an episode alike."""
        if EPISODE % world_size():
            raise UserError(
                f"--method {self.config.method} has {EPISODE} images a step, which {world_size()} "
                "processes cannot share alike; start 2, 4, 8 or 16 of them."
            )

    def draw_images(self) -> tuple[Tensor, list[int]]:
        """Episodes: categories alike, then an image of each."""
        steps = max(1, len(self.sets.train) // EPISODE)
        images, wanted = draw_episodes(*self.pairs, steps, self.streams["sampler"], EPISODE)
        return images.flatten(), wanted.flatten().tolist()


class Calib(SimCal):
    """Calib: the calibrated classifier has new layers of its own."""

    kind = "calib"
