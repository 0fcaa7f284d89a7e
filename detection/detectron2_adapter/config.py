"""The options of heads and balancing in detectron2's yacs configurations, and what is made of them.

Shapes: C categories.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from detectron2.config import CfgNode

import detection.methods
from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from common.losses import Reduction
from detection.detectron2_adapter.datasets import category_counts
from detection.heads import ClassificationHead, FocalDivisor
from detection.methods.bags import BagsSettings
from detection.methods.base import CategoryCounts, DifficultyMethod
from detection.methods.eql import EqlSettings
from detection.methods.focal import FocalSettings

METHODS: Final = ("ce", "cdb-w-ce", "rfs", "eql", "focal", "lrw", "bags")
"""The methods that this engine has; with '-clc' behind it only the class layer is trained."""
_RFS_SAMPLER: Final = "RepeatFactorTrainingSampler"
_ROI_HEADS: Final = "CdbROIHeads"


def add_cdb_config(cfg: CfgNode) -> None:
    """Add the options ``CDB.*``, each with its default, to detectron2's."""
    cfg.CDB = CfgNode()
    # One of METHODS, or one with '-clc' behind it.
    cfg.CDB.METHOD = "ce"
    # Of the draws of bags.
    cfg.CDB.SEED = 0
    # What weighted losses are divided by: batch-size or weight-sum.
    cfg.CDB.REDUCTION = "batch-size"
    # Of the balancer (cdb-w-ce): a law or an exponent, None: sigmoid; T_M, eps, p of Eqs. 5-10;
    # whether weights sum to C.
    cfg.CDB.TAU = None
    cfg.CDB.TAU_MAX = 5.0
    cfg.CDB.EPS = 0.01
    cfg.CDB.TAU_POWER = 2.0
    cfg.CDB.NORMALIZE = True
    # Performance of a category: "ap" on DIFFICULTY_SET, or "proposals" of the training steps.
    cfg.CDB.DIFFICULTY = "ap"
    cfg.CDB.DIFFICULTY_SET = "cdb_lvis_v0.5_difficulty"
    # Iterations between two measurements; 0 is refused, for detectron2 knows no epochs.
    cfg.CDB.PERIOD = 0
    # Largest norm of the gradient of all parameters together; 0: as SOLVER.CLIP_GRADIENTS says,
    # which clips each parameter by itself.
    cfg.CDB.CLIP_NORM = 0.0
    # Of single methods, see detection.heads.
    cfg.CDB.FOCAL_GAMMA = 2.0
    cfg.CDB.FOCAL_ALPHA = 0.25
    cfg.CDB.FOCAL_DIVISOR = "foreground"
    cfg.CDB.EQL_THRESHOLD = 1.76e-3
    cfg.CDB.BAGS_BETA = 8.0


def is_second_stage(method: str) -> bool:
    """Whether only the class layer is trained."""
    return method.endswith("-clc")


def uses_balancer(method: str) -> bool:
    """Whether the method weighs classes by their difficulty."""
    return issubclass(detection.methods.METHODS[method.removesuffix("-clc")], DifficultyMethod)


def check_method(method: str) -> None:
    """Refuse a method that this engine does not have.

    Raises:
        UserError: naming those it has.
    """
    name = method.removesuffix("-clc")
    if name not in METHODS or method == "rfs-clc":
        raise UserError(
            f"CDB.METHOD {method!r} is not one of {', '.join(METHODS)} (or one of them but rfs "
            "with -clc behind it); cdb-s, simcal and calib are python -m detection.train's alone."
        )


@dataclass(frozen=True)
class HeadSettings(EqlSettings, FocalSettings, BagsSettings):
    """What the heads of this engine are made with; what one does not need is not looked at."""

    loss_reduction: Reduction = "batch-size"
    focal_divisor: FocalDivisor = "foreground"  # type: ignore[misc] # Of FocalSettings a constant.


def make_dataset_head(
    method: str,
    num_classes: int,
    dataset: str = "",
    *,
    seed: int = 0,
    reduction: Reduction = "batch-size",
    **options: Any,
) -> ClassificationHead:
    """The head of a method; instances and images are counted in a registered training set.

    Args:
        method: one of :data:`METHODS`, with or without '-clc'. Those of cdb-w-ce reduce
            with their balancer, which the output layers give them.
        num_classes: C.
        dataset: for eql, lrw and bags, the name of the training set.
        seed: of the draws of bags.
        reduction: what a softmax's losses are divided by.
        **options: of :class:`HeadSettings`.

    Raises:
        UserError: for another method, or a training set of another number of categories.
        ValueError: for an option that the head refuses.
        TypeError: for an unknown option.
    """
    check_method(method)
    kind = detection.methods.METHODS[method.removesuffix("-clc")]
    counts = CategoryCounts(num_classes)
    if kind.counted:
        instances, share = category_counts(dataset)
        if len(instances) != num_classes:
            raise UserError(
                f"{dataset} has {len(instances)} categories; set MODEL.ROI_HEADS.NUM_CLASSES "
                f"(roi_heads.num_classes) to that, not to {num_classes}."
            )
        counts = CategoryCounts(num_classes, instances, share)
    generator = torch.Generator().manual_seed(seed)
    settings = HeadSettings(loss_reduction=reduction, **options)
    return kind.make_head(settings, counts, generator)


def head_from(cfg: CfgNode) -> ClassificationHead:
    """The head of a yacs configuration."""
    return make_dataset_head(
        cfg.CDB.METHOD,
        cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        next(iter(cfg.DATASETS.TRAIN), ""),
        seed=cfg.CDB.SEED,
        reduction=cfg.CDB.REDUCTION,
        focal_gamma=cfg.CDB.FOCAL_GAMMA,
        focal_alpha=cfg.CDB.FOCAL_ALPHA,
        focal_divisor=cfg.CDB.FOCAL_DIVISOR,
        eql_threshold=cfg.CDB.EQL_THRESHOLD,
        bags_beta=cfg.CDB.BAGS_BETA,
    )


def balancer_from(cfg: CfgNode) -> ClassDifficultyBalancer | None:
    """The balancer of a yacs configuration; None where the method has none."""
    if not uses_balancer(cfg.CDB.METHOD):
        return None
    return ClassDifficultyBalancer(
        cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        "sigmoid" if cfg.CDB.TAU is None else cfg.CDB.TAU,
        tau_max=cfg.CDB.TAU_MAX,
        eps=cfg.CDB.EPS,
        power=cfg.CDB.TAU_POWER,
        normalize=cfg.CDB.NORMALIZE,
        reduction=cfg.CDB.REDUCTION,
    )


def follow_method(cfg: CfgNode, named: tuple[str, ...] = ()) -> None:
    """Give a configuration, one of the model zoo for instance, what its method stands for.

    The RoI heads become ``CdbROIHeads``, and the sampler of images detectron2's of repeat factors
    for rfs, its plain one for any other method. (The zoo's LVIS files repeat images for all.)

    Args:
        cfg: changed in place.
        named: keys that the user set, which are left as they are.
    """
    sampler = _RFS_SAMPLER if cfg.CDB.METHOD == "rfs" else "TrainingSampler"
    if "DATALOADER.SAMPLER_TRAIN" not in named:
        cfg.DATALOADER.SAMPLER_TRAIN = sampler
    if cfg.MODEL.ROI_HEADS.NAME == "StandardROIHeads":
        cfg.MODEL.ROI_HEADS.NAME = _ROI_HEADS


def check_config(cfg: CfgNode) -> None:
    """Refuse settings that contradict each other.

    Raises:
        UserError: naming the option.
    """
    check_method(cfg.CDB.METHOD)
    if cfg.MODEL.ROI_HEADS.NAME != _ROI_HEADS:
        raise UserError(
            f"MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME} takes no classification head; use a "
            f"configuration of StandardROIHeads (such as the FPN ones), or name {_ROI_HEADS}."
        )
    if cfg.CDB.METHOD == "rfs" and _RFS_SAMPLER != cfg.DATALOADER.SAMPLER_TRAIN:
        raise UserError(f"CDB.METHOD rfs is DATALOADER.SAMPLER_TRAIN {_RFS_SAMPLER}; leave it out.")
    if cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE or cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS:
        raise UserError(
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE and USE_FED_LOSS are other class losses than that "
            "of CDB.METHOD; set both to False."
        )
    if uses_balancer(cfg.CDB.METHOD):
        _check_difficulty(cfg)


def _check_difficulty(cfg: CfgNode) -> None:
    if cfg.CDB.PERIOD < 1:
        raise UserError(
            f"CDB.PERIOD {cfg.CDB.PERIOD} must be the iterations from one measurement of the "
            "difficulty to the next; an epoch is the training images over SOLVER.IMS_PER_BATCH."
        )
    if cfg.CDB.DIFFICULTY not in ("ap", "proposals"):
        raise UserError(f"CDB.DIFFICULTY must be ap or proposals, not {cfg.CDB.DIFFICULTY!r}.")
    used = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if cfg.CDB.DIFFICULTY == "ap" and cfg.CDB.DIFFICULTY_SET in used:
        raise UserError(
            f"CDB.DIFFICULTY_SET {cfg.CDB.DIFFICULTY_SET} is trained or tested on, too; hold out "
            "images for it (python -m data_prep.lvis split)."
        )
