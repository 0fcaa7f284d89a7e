"""The settings of the detection runs, and the paper's values for them (Sec. 4.2.2).

A recipe is a value; a variant is ``replace(recipe, ...)``. The command line is made from the
recipe's class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, TypeVar, get_args

import tyro

from common.errors import UserError
from common.training.schedule import step_schedule
from common.training.settings import (
    CDB_METHODS,
    Limits,
    RunConfig,
    changed_settings,
    checked_milestones,
    resolved_tau,
    with_limits,
)

DetectionRecipe = Literal["lvis", "lvis-clc", "digit-scenes", "digit-scenes-clc"]
Task = Literal["box", "mask"]
Measure = Literal["ap", "proposals"]
Precision = Literal["float32", "bfloat16"]
DetectionMethod = Literal[
    "ce", "rfs", "eql", "cdb-s", "cdb-w-ce", "focal", "lrw", "bags", "simcal", "calib"
]
METHODS: tuple[DetectionMethod, ...] = get_args(DetectionMethod)
_SOFTMAX_METHODS = tuple(m for m in METHODS if m not in ("focal", "eql", "bags"))
CALIBRATIONS: Final = ("simcal", "calib")
"""The methods that train a second classifier beside the detector's own."""
CALIBRATION_TRAINING: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "momentum": 0.0,
        "weight_decay": 0.0,
        "milestones": (7, 10),
        "warmup_steps": 0,
        "gradient_clip": 0.0,
    }
)
"""How the code of Wang et al. 2020 trains it: plain SGD, its rate a tenth from the start of the 8th
epoch on and a hundredth from that of the 11th."""


@dataclass(frozen=True)
class DetectionConfig(RunConfig):
    """What the runs of both stages set."""

    recipe: tyro.conf.Fixed[DetectionRecipe] = "lvis"
    """The recipe that these settings depart from."""
    dataset: Literal["lvis-v0.5", "digit-scenes"] = "lvis-v0.5"
    """Data set."""
    method: DetectionMethod = "ce"
    """Loss of the classification head, or sampler of images; Table 5's names."""
    task: Task = "box"
    """Boxes (Faster R-CNN, Table 5), or boxes and masks (Mask R-CNN, Table 6)."""

    difficulty: Measure = "ap"
    """CDB: a category's performance is its AP on the difficulty images, or the share of its
    proposals in training that are classified right."""
    difficulty_period: int = 1
    """CDB by ap: t, epochs between two measurements."""
    rfs_threshold: float = 0.001
    """rfs: t, the share of images under which a category is repeated."""
    eql_threshold: float = 0.00176
    """eql: lambda, the share of images under which a category is rare."""

    epochs: int = 12
    """Passes over the training images (rfs: over the repeated ones)."""
    batch_size: int = 8
    """Images a step, over all processes; simcal and calib: 16, an episode, at the learning rate as
    it is."""
    learning_rate: float = 0.01
    """Of SGD at 8 images a step; it grows with the batch: rate = learning_rate * batch_size / 8."""
    weight_decay: float = 0.0001
    """Of SGD, on all parameters."""
    milestones: tuple[int, ...] = (8, 11)
    """After so many epochs each the learning rate is multiplied by lr_decay."""
    lr_decay: float = 0.1
    """Factor at each milestone."""
    warmup_steps: int = 500
    """Steps over which the learning rate grows linearly from a third."""
    gradient_clip: float = 35.0
    """Largest norm of the gradient of a step; 0: any."""

    backbone: Literal["resnet50-fpn", "small"] = "resnet50-fpn"
    """Network below the heads."""
    start: Literal["coco", "imagenet", "random"] = "coco"
    """First weights: a detector trained on COCO, a classifier trained on ImageNet, or random."""
    min_size: tuple[int, ...] = (800,)
    """Short side of an image, in pixels: one at random in training, the last in evaluation."""
    max_size: int = 1333
    """Largest long side of an image, in pixels."""
    flip: float = 0.5
    """Probability that a training image is mirrored."""
    detections: int = 300
    """Detections kept of an image."""
    score_threshold: float = 0.0
    """Detections of smaller scores are dropped."""
    precision: Precision = "float32"
    """Of the network's passes; weights and losses are always float32."""

    used_by: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **RunConfig.used_by,
        "difficulty": CDB_METHODS,
        "difficulty_period": CDB_METHODS,
        "focal_gamma": ("focal",),
        "sampler_unit": (),
        # AP has no number of samples.
        "difficulty_prior": (),
        "cfs_q": (),
        "cb_beta": (),
        "la_tau": (),
        "rfs_threshold": ("rfs",),
        "eql_threshold": ("eql",),
        "loss_reduction": _SOFTMAX_METHODS,
        "batch_size": tuple(m for m in METHODS if m not in CALIBRATIONS),
    }
    """The methods that an option is for, where it is not for all."""
    limits: ClassVar[Limits] = with_limits(
        RunConfig.limits,
        at_least={
            "difficulty_period": 1, "warmup_steps": 0,
            "gradient_clip": 0, "max_size": 32, "flip": 0, "detections": 1, "score_threshold": 0,
        },
        at_most={"lr_decay": 1, "flip": 1, "rfs_threshold": 1, "eql_threshold": 1},
        above={"lr_decay": 0, "rfs_threshold": 0, "eql_threshold": 0},
        below={"score_threshold": 1},
    )  # fmt: skip
    """The range of each number."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        if self.milestones is not None:
            object.__setattr__(self, "milestones", checked_milestones(self.milestones))
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

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """Scaled with the batch, then steps down; the warm-up is :meth:`warm_up`'s."""
        return step_schedule(
            self.learning_rate * self.batch_size / 8,
            epoch,
            progress,
            warmup_epochs=0,
            milestones=self.milestones,
            decay=self.lr_decay,
        )

    def warm_up(self, step: int) -> float:
        """Factor of the learning rate at a step of the whole run, counted from 0: 1/3 to 1."""
        if step >= self.warmup_steps:
            return 1.0
        return 1 / 3 + (2 / 3) * step / self.warmup_steps


@dataclass(frozen=True)
class DetectorConfig(DetectionConfig):
    """A whole detector trained from its first weights."""

    method: Literal["ce", "rfs", "eql", "cdb-s", "cdb-w-ce"] = "ce"
    """Loss of the classification head, or sampler of images; Table 5's names."""


@dataclass(frozen=True)
class ClassifierConfig(DetectionConfig):
    """A second stage: the classifier of a finished run trained anew, all else frozen ('-clc').

    The first stage is the run of the recipe without -clc that has the same task, seed and network;
    it is trained first if it has not finished.
    """

    recipe: tyro.conf.Fixed[DetectionRecipe] = "lvis-clc"
    """The recipe that these settings depart from."""
    stage1: Literal["ce", "cdb-w-ce"] = "ce"
    """The method of the first stage."""
    stage1_epochs: int | None = None
    """Epochs of the first stage; None: its recipe's."""
    method: Literal["focal", "lrw", "bags", "cdb-w-ce", "simcal", "calib"] = "cdb-w-ce"
    """Loss of the new classification layer, or calibration of a second classifier beside the
    old."""
    focal_gamma: float = 2.0
    """Focusing parameter of focal."""
    focal_alpha: float = 0.25
    """focal: weight of a category's own proposals; the others have 1 - focal_alpha."""
    bags_beta: float = 8.0
    """bags: proposals of other bins for each foreground one."""
    calibration_threshold: int = 100
    """simcal, calib: categories of fewer instances take the calibrated classifier's scores."""

    # None in the recipes, until the method is known; never in a resolved configuration.
    momentum: float | None = None  # type: ignore[assignment]
    """Of SGD; None: as the first stage, of simcal and calib 0."""
    weight_decay: float | None = None  # type: ignore[assignment]
    """Of SGD, on all trained parameters; None: as the first stage, of simcal and calib 0."""
    milestones: tuple[int, ...] | None = None  # type: ignore[assignment]
    """After so many epochs each the learning rate is multiplied by lr_decay; None: as the first
    stage, of simcal and calib 7 and 10."""
    warmup_steps: int | None = None  # type: ignore[assignment]
    """Steps over which the learning rate grows linearly from a third; None: as the first stage, of
    simcal and calib 0."""
    gradient_clip: float | None = None  # type: ignore[assignment]
    """Largest norm of the gradient of a step, 0: any; None: as the first stage, of simcal and calib
    0."""

    used_by: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **DetectionConfig.used_by,
        "focal_alpha": ("focal",),
        "bags_beta": ("bags",),
        "calibration_threshold": CALIBRATIONS,
    }
    """The methods that an option is for, where it is not for all."""
    limits: ClassVar[Limits] = with_limits(
        DetectionConfig.limits,
        at_least={"stage1_epochs": 1, "focal_alpha": 0, "bags_beta": 0, "calibration_threshold": 0},
        at_most={"focal_alpha": 1},
    )
    """The range of each number."""

    @property
    def table_method(self) -> str:
        """The record's ``method``, as Tables 5 and 6 name it."""
        return self.method if self.method in CALIBRATIONS else f"{self.method}-clc"

    @property
    def variant(self) -> str:
        """The record's ``variant``: what the frozen layers were trained with."""
        return f"pretrained={self.recipe.removesuffix('-clc')}-{self.stage1}{self.steadied}"

    def stage1_config(self) -> DetectorConfig:
        """The resolved configuration of the first stage."""
        recipe = RECIPES[self.recipe.removesuffix("-clc")]
        assert isinstance(recipe, DetectorConfig)
        first = replace(
            recipe,
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


def _second_stage(recipe: DetectionRecipe, first: DetectionConfig) -> ClassifierConfig:
    """The recipe of a second stage: its first stage's values; how it trains says its method."""
    own: dict[str, Any] = {"recipe": recipe, "method": "cdb-w-ce", "focal_gamma": 2.0}
    own |= dict.fromkeys(CALIBRATION_TRAINING)
    known = {field.name: getattr(first, field.name) for field in fields(first)}
    return ClassifierConfig(**(known | own))


RECIPES: dict[str, DetectionConfig] = {
    "lvis": LVIS,
    "lvis-clc": _second_stage("lvis-clc", LVIS),
    "digit-scenes": DIGIT_SCENES,
    "digit-scenes-clc": _second_stage("digit-scenes-clc", DIGIT_SCENES),
}

Config = TypeVar("Config", bound=DetectionConfig)


def resolved(config: Config) -> Config:
    """The configuration with every 'None: as ...' filled in, as it is recorded."""
    reduction = config.loss_reduction or "batch-size"
    filled: dict[str, Any] = {"tau": resolved_tau(config), "loss_reduction": reduction}
    return replace(config, **filled, **_training(config))


def _training(config: DetectionConfig) -> dict[str, Any]:
    """The settings of the optimizer that a second stage leaves to its method."""
    usual: Mapping[str, Any] = vars(RECIPES[config.recipe.removesuffix("-clc")])
    if config.method in CALIBRATIONS:
        usual = CALIBRATION_TRAINING
    return {name: usual[name] for name in CALIBRATION_TRAINING if getattr(config, name) is None}


def group_name(config: DetectionConfig) -> str:
    """The folder of the experiment that a run belongs to: both stages stand in one."""
    return config.dataset


_NAMED = {"recipe", "dataset", "method", "task", "seed", "tau", "stage1"}


def run_name(config: DetectionConfig) -> str:
    """The run's name: method, tau, stage 1, task, every setting that is not the recipe's, seed.

    >>> run_name(replace(LVIS, method="cdb-w-ce", epochs=3))
    'cdb-w-ce_tau-sigmoid_box_epochs-3_seed-0'
    >>> run_name(replace(RECIPES["lvis-clc"], method="bags", task="mask"))
    'bags-clc_stage1-ce_mask_seed-0'
    """
    config = resolved(config)
    recipe = RECIPES[config.recipe_name]
    usual = resolved(replace(recipe, seed=config.seed, method=config.method, tau=config.tau))
    parts: list[str] = [config.table_method]
    parts += [f"tau-{config.tau}"] if config.tau is not None else []
    parts += [f"stage1-{config.stage1}"] if isinstance(config, ClassifierConfig) else []
    parts += [config.task, *changed_settings(config, usual, _NAMED)]
    return "_".join([*parts, f"seed-{config.seed}"])
