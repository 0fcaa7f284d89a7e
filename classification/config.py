"""What the settings of every classification run have in common.

The settings of one data set are a subclass in ``recipes.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

from common.losses import Reduction
from common.training.settings import Limits, RunConfig, resolved_tau, with_limits

Method = Literal[
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "meta-weight-net", "ldam-drw", "class-aware",
    "cdb-s", "cdb-w-fl", "cdb-w-ce",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)
"""All but OLTR, which is a network too and has a recipe of its own."""
Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class ClassificationConfig(RunConfig, ABC):
    """One training run. Two runs of equal configurations give the same numbers."""

    method: Method | Literal["oltr"] = "ce"
    """Loss or sampler; Table 1's names."""
    loss_reduction: Reduction | None = "batch-size"
    """Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing; None:
    by its size, with ldam-drw by the sum of its weights as Cao et al."""
    cb_beta: float = 0.9999
    """cb, and the second phase of ldam-drw: beta of the effective number of samples."""
    eql_gamma: float = 0.9
    """eql: probability that a rare class's logit is left out."""
    eql_threshold: float = 0.005
    """eql: lambda, the share of the training samples under which a class is rare."""

    used_by: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **RunConfig.used_by,
        "hard_weight": ("focal", "cdb-w-fl"),
        "cb_beta": ("cb", "ldam-drw"),
        "eql_gamma": ("eql",),
        "eql_threshold": ("eql",),
        "l2rw_batch_size": ("l2rw",),
        "mwn_batch_size": ("meta-weight-net",),
        "mwn_learning_rate": ("meta-weight-net",),
        "mwn_virtual_step": ("meta-weight-net",),
        "ldam_margin": ("ldam-drw",),
        "ldam_scale": ("ldam-drw",),
        "drw_epoch": ("ldam-drw",),
    }
    """The methods that an option is for, where it is not for all."""
    limits: ClassVar[Limits] = with_limits(
        RunConfig.limits,
        at_least={
            "imbalance": 1, "split_seed": 0, "eql_gamma": 0, "eql_threshold": 0,
            "l2rw_batch_size": 1, "mwn_batch_size": 1, "ldam_margin": 0, "drw_epoch": 0,
            "hard_weight": 0, "warmup_epochs": 0, "stage1_epochs": 1, "stored_side": 2, "crop": 8,
            "flip": 0, "colour_jitter": 0, "difficulty_per_class": 1,
        },
        above={"mwn_learning_rate": 0, "ldam_scale": 0, "lr_decay": 0},
        at_most={
            "eql_gamma": 1, "eql_threshold": 1, "lr_decay": 1, "hard_weight": 1, "flip": 1,
            "colour_jitter": 1,
        },
    )  # fmt: skip
    """The range of each number."""

    @property
    def without_decay(self) -> tuple[str, ...]:
        """Ends of the names of parameters that have no weight decay."""
        return ()

    @property
    @abstractmethod
    def condition(self) -> str:
        """The record's ``condition``: the imbalance, as the paper's tables name it."""

    def stage1_config(self) -> "ClassificationConfig | None":
        """The resolved configuration of the first stage, if this run is a second one."""
        return None


@dataclass(frozen=True)
class SubsampledConfig(ClassificationConfig):
    """A run on a balanced data set whose training images are cut to an imbalance."""

    imbalance: float = 100
    """Samples of the most frequent class over those of the rarest, >= 1."""
    split_seed: int | None = None
    """Seed of the training, difficulty and test subsets; None: the same number as seed."""
    l2rw_batch_size: int = 100
    """l2rw: images of the difficulty set in each meta step."""

    @property
    def condition(self) -> str:
        """The record's ``condition``: the imbalance asked for."""
        return f"{self.imbalance:.15g}"


Config = TypeVar("Config", bound=ClassificationConfig)


def resolved(config: Config) -> Config:
    """The configuration with every 'None: as ...' filled in, as it is recorded."""
    usual: Reduction = "weight-sum" if config.method == "ldam-drw" else "batch-size"
    reduction = config.loss_reduction or usual
    changes: dict[str, Any] = {"tau": resolved_tau(config), "loss_reduction": reduction}
    if isinstance(config, SubsampledConfig):
        split_seed = config.seed if config.split_seed is None else config.split_seed
        changes |= {"split_seed": split_seed, "imbalance": float(config.imbalance)}
    return replace(config, **changes)
