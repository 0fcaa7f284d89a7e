"""The settings of the detection runs, and the paper's values for them (Sec. 4.2.2).

A recipe is a value; a variant is ``replace(recipe, ...)``. The command line is made from the
recipe's class.

>>> run_name(replace(LVIS, method="cdb-w-ce", epochs=3))
'cdb-w-ce_tau-sigmoid_box_epochs-3_seed-0'
>>> run_name(replace(RECIPES["lvis-clc"], method="bags", task="mask"))
'bags-clc_stage1-ce_mask_seed-0'
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import tyro

from common.errors import UserError
from common.training.methods.base import settings_of_methods
from common.training.settings import (
    BATCH_SIZE,
    DATASET,
    EPOCHS,
    LEARNING_RATE,
    LR_DECAY,
    METHOD,
    MILESTONES,
    MOMENTUM,
    RECIPE,
    STAGE1_EPOCHS,
    STAGE1_METHOD,
    WEIGHT_DECAY,
    MethodSettings,
    Setting,
    SteppedConfig,
)
from common.training.settings import resolved as resolved
from common.training.settings import run_name as run_name
from detection.methods import METHODS
from detection.methods.bags import BagsSettings
from detection.methods.base import CategoryDifficultySettings, DetectionMethod
from detection.methods.calibration import CalibrationSettings
from detection.methods.eql import EqlSettings
from detection.methods.focal import FocalSettings
from detection.methods.rfs import RfsSettings

MethodName = Literal[
    "ce", "rfs", "eql", "cdb-s", "cdb-w-ce", "focal", "lrw", "bags", "simcal", "calib"
]

DetectionRecipe = Literal["lvis", "lvis-clc", "digit-scenes", "digit-scenes-clc"]
Task = Literal["box", "mask"]
Precision = Literal["float32", "bfloat16"]
OF_TABLE_5: Final = replace(
    METHOD, documentation="Loss of the classification head, or sampler of images; Table 5's names."
)
WARMUP_STEPS: Final = Setting(
    "Steps over which the learning rate grows linearly from a third.", at_least=0
)
_OF_THE_OPTIMIZER: Final = (
    "momentum", "weight_decay", "milestones", "warmup_steps", "gradient_clip",
)  # fmt: skip
"""Settings of a second stage that are its method's to say where they are left open."""
GRADIENT_CLIP: Final = Setting("Largest norm of the gradient of a step; 0: any.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(CategoryDifficultySettings, SteppedConfig, ABC):
    """What the runs of both stages set."""

    recipe: Annotated[tyro.conf.Fixed[DetectionRecipe], RECIPE] = "lvis"
    dataset: Annotated[Literal["lvis-v0.5", "digit-scenes"], DATASET] = "lvis-v0.5"
    method: Annotated[MethodName, OF_TABLE_5] = "ce"
    task: Annotated[
        Task, Setting("Boxes (Faster R-CNN, Table 5), or boxes and masks (Mask R-CNN, Table 6).")
    ] = "box"

    epochs: Annotated[
        int,
        replace(
            EPOCHS,
            documentation="Passes over the training images (rfs: over the repeated ones).",
        ),
    ] = 12
    batch_size: Annotated[
        int,
        replace(
            BATCH_SIZE,
            documentation="Images a step, over all processes; simcal and calib: 16, an episode, at "
            "the learning rate as it is.",
        ),
    ] = 8
    learning_rate: Annotated[
        float,
        replace(
            LEARNING_RATE,
            documentation="Of SGD at 8 images a step; it grows with the batch: rate = "
            "learning_rate * batch_size / 8.",
        ),
    ] = 0.01
    weight_decay: Annotated[float, WEIGHT_DECAY] = 0.0001
    milestones: Annotated[tuple[int, ...], MILESTONES] = (8, 11)
    lr_decay: Annotated[float, LR_DECAY] = 0.1
    warmup_steps: Annotated[int, WARMUP_STEPS] = 500
    gradient_clip: Annotated[float, GRADIENT_CLIP] = 35.0

    backbone: Annotated[Literal["resnet50-fpn", "small"], Setting("Network below the heads.")] = (
        "resnet50-fpn"
    )
    start: Annotated[
        Literal["coco", "imagenet", "random"],
        Setting(
            "First weights: a detector trained on COCO, a classifier trained on ImageNet, or "
            "random."
        ),
    ] = "coco"
    min_size: Annotated[
        tuple[int, ...],
        Setting(
            "Short side of an image, in pixels: one at random in training, the last in evaluation."
        ),
    ] = (800,)
    max_size: Annotated[int, Setting("Largest long side of an image, in pixels.", at_least=32)] = (
        1333
    )
    flip: Annotated[
        float, Setting("Probability that a training image is mirrored.", at_least=0, at_most=1)
    ] = 0.5
    detections: Annotated[int, Setting("Detections kept of an image.", at_least=1)] = 300
    score_threshold: Annotated[
        float, Setting("Detections of smaller scores are dropped.", at_least=0, below=1)
    ] = 0.0
    precision: Annotated[
        Precision, Setting("Of the network's passes; weights and losses are always float32.")
    ] = "float32"

    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = settings_of_methods(METHODS)
    """The settings of each method; a stage need not have them all."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        object.__setattr__(self, "min_size", tuple(self.min_size))
        if not self.min_size or not 32 <= min(self.min_size) <= max(self.min_size) <= self.max_size:
            raise UserError(
                f"--min-size {self.min_size} must be pixels from 32 to --max-size {self.max_size}."
            )
        if self.backbone == "small" and self.start != "random":
            raise UserError(
                f"--start {self.start} has no weights for --backbone small; use --start random."
            )
        if self.weights_from_epoch and self.difficulty_period > 1:
            raise UserError(
                f"--weights-from-epoch {self.weights_from_epoch} counts measurements; "
                f"use it with --difficulty-period 1, not {self.difficulty_period}."
            )
        if self.difficulty == "proposals" and self.difficulty_period > 1:
            raise UserError(
                f"--difficulty-period {self.difficulty_period} has no effect on --difficulty "
                "proposals, which cost no pass of their own; leave it out."
            )

    @property
    def recipe_name(self) -> str:
        """The recipe it departs from."""
        return self.recipe

    @property
    def variant(self) -> str:
        """The record's ``variant``, as Tables 5 and 6 name it: what the weights began as."""
        return f"pretrained={self.start}{self.steadied}"

    @property
    def highest_rate(self) -> float:
        """The learning rate before the first milestone: scaled with the batch."""
        return self.learning_rate * self.batch_size / 8

    def warm_up(self, steps_taken: int) -> float:
        """Factor of the learning rate after so many steps of the whole run: 1/3 to 1."""
        if steps_taken >= self.warmup_steps:
            return 1.0
        return 1 / 3 + (2 / 3) * steps_taken / self.warmup_steps

    def stage1_config(self) -> "DetectorConfig | None":
        """The resolved configuration of the first stage, if this run is a second one."""
        return None

    def load_data(self, folder: Path | None, images: Path | None) -> Any:
        """The images of the three parts, as :func:`detection.sets.load_sets` gives them."""
        from detection.sets import load_sets

        return load_sets(self, folder, images)

    @abstractmethod
    def make_network(
        self, method: DetectionMethod, published: Path | None, first_stage: Any
    ) -> Any:
        """The detector at the first step, see :func:`detection.networks.make_model`."""


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(RfsSettings, EqlSettings, DetectionConfig):
    """A whole detector trained from its first weights."""

    method: Annotated[Literal["ce", "rfs", "eql", "cdb-s", "cdb-w-ce"], OF_TABLE_5] = "ce"

    def make_network(
        self, method: DetectionMethod, published: Path | None, first_stage: Any
    ) -> Any:
        """A whole detector."""
        from detection.networks import make_detector

        return make_detector(self, method, published)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(FocalSettings, BagsSettings, CalibrationSettings, DetectionConfig):
    """A second stage: the classifier of a finished run trained anew, all else frozen ('-clc').

    The first stage is the run of the recipe without -clc that has the same task, seed and network;
    it is trained first if it has not finished.
    """

    recipe: Annotated[tyro.conf.Fixed[DetectionRecipe], RECIPE] = "lvis-clc"
    stage1: Annotated[Literal["ce", "cdb-w-ce"], STAGE1_METHOD] = "ce"
    stage1_epochs: Annotated[int | None, STAGE1_EPOCHS] = None
    method: Annotated[
        Literal["focal", "lrw", "bags", "cdb-w-ce", "simcal", "calib"],
        replace(
            OF_TABLE_5,
            documentation="Loss of the new classification layer, or calibration of a second "
            "classifier beside the old.",
        ),
    ] = "cdb-w-ce"

    # None in the recipes, until the method is known; never in a resolved configuration.
    momentum: Annotated[
        float | None,
        replace(MOMENTUM, documentation="Of SGD; None: as the first stage, of simcal and calib 0."),
    ] = None  # type: ignore[assignment]
    weight_decay: Annotated[
        float | None,
        replace(
            WEIGHT_DECAY,
            documentation="Of SGD, on all trained parameters; None: as the first stage, of simcal "
            "and calib 0.",
        ),
    ] = None  # type: ignore[assignment]
    milestones: Annotated[
        tuple[int, ...] | None,
        replace(
            MILESTONES,
            documentation=f"{MILESTONES.documentation[:-1]}; None: as the first stage, of simcal "
            "and calib 7 and 10.",
        ),
    ] = None  # type: ignore[assignment]
    warmup_steps: Annotated[
        int | None,
        replace(
            WARMUP_STEPS,
            documentation=f"{WARMUP_STEPS.documentation[:-1]}; None: as the first stage, of simcal "
            "and calib 0.",
        ),
    ] = None  # type: ignore[assignment]
    gradient_clip: Annotated[
        float | None,
        replace(
            GRADIENT_CLIP,
            documentation="Largest norm of the gradient of a step, 0: any; None: as the first "
            "stage, of simcal and calib 0.",
        ),
    ] = None  # type: ignore[assignment]

    @property
    def table_method(self) -> str:
        """The record's ``method``, as Tables 5 and 6 name it."""
        return self.method + METHODS[self.method].second_stage_suffix

    @property
    def variant(self) -> str:
        """The record's ``variant``: what the frozen layers were trained with."""
        return f"pretrained={self._first_recipe}-{self.stage1}{self.steadied}"

    @property
    def _first_recipe(self) -> str:
        return self.recipe.removesuffix("-clc")

    def filled_in(self) -> dict[str, Any]:
        """Every 'None: as ...' that is filled in; how it trains is its method's to say."""
        first: Mapping[str, Any] = vars(_FIRST_STAGES[self._first_recipe])
        usual = {**first, **METHODS[self.method].trained_with}
        open_ones = [name for name in _OF_THE_OPTIMIZER if getattr(self, name) is None]
        return super().filled_in() | {name: usual[name] for name in open_ones}

    def make_network(
        self, method: DetectionMethod, published: Path | None, first_stage: Any
    ) -> Any:
        """The first stage's detector with a new class layer."""
        from detection.networks import make_second_stage

        return make_second_stage(self, method, first_stage)

    def stage1_config(self) -> DetectorConfig:
        """The resolved configuration of the first stage."""
        first = replace(
            _FIRST_STAGES[self._first_recipe],
            method=self.stage1,
            task=self.task,
            seed=self.seed,
            backbone=self.backbone,
            start=self.start,
            min_size=self.min_size,
            max_size=self.max_size,
        )
        return resolved(replace(first, epochs=self.stage1_epochs or first.epochs))


LVIS = DetectorConfig()
"""Sec. 4.2.2, and Li et al. 2020, whose set-up it keeps: warm-up, clipping, image sizes."""

DIGIT_SCENES = DetectorConfig(
    recipe="digit-scenes",
    dataset="digit-scenes",
    epochs=12,
    learning_rate=0.02,
    warmup_steps=100,
    backbone="small",
    start="random",
    min_size=(128,),
    max_size=160,
    # A mirrored digit is another one.
    flip=0.0,
    detections=100,
)
"""The rendered set that proves the path: data_prep/digit_scenes.py."""


_FIRST_STAGES: Final = {"lvis": LVIS, "digit-scenes": DIGIT_SCENES}


def _second_stage(recipe: DetectionRecipe, first: DetectorConfig) -> ClassifierConfig:
    """The recipe of a second stage: its first stage's values; how it trains says its method."""
    own = {"recipe", "method", *_OF_THE_OPTIMIZER}
    both = {field.name for field in fields(first)} & {f.name for f in fields(ClassifierConfig)}
    same: dict[str, Any] = {name: getattr(first, name) for name in both - own}
    return ClassifierConfig(recipe=recipe, **same)


RECIPES: dict[str, DetectionConfig] = {
    "lvis": LVIS,
    "lvis-clc": _second_stage("lvis-clc", LVIS),
    "digit-scenes": DIGIT_SCENES,
    "digit-scenes-clc": _second_stage("digit-scenes-clc", DIGIT_SCENES),
}
DetectionConfig.recipes = RECIPES


def group_name(config: DetectionConfig) -> str:
    """The folder of the experiment that a run belongs to: both stages stand in one."""
    return config.dataset
