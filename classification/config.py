"""What the settings of every classification run have in common, and their checks.

The settings of one data set are a subclass in ``recipes.py``.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from operator import ge, gt, le, lt
from typing import Any, Literal, get_args, get_origin, get_type_hints

from common.errors import UserError
from common.losses import Reduction
from common.tau import parse_tau

Method = Literal[
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "meta-weight-net", "ldam-drw", "class-aware",
    "cdb-s", "cdb-w-fl", "cdb-w-ce",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class ClassificationConfig:
    """One training run. Two runs of equal configurations give the same numbers."""

    dataset: str
    """Data set."""
    method: Method = "ce"
    """Loss or sampler; Table 1's names."""
    imbalance: float = 100
    """Samples of the most frequent class over those of the rarest, >= 1."""
    seed: int = 0
    """Seed of the initial weights, the sampler and all other random numbers of training."""
    split_seed: int | None = None
    """Seed of the training, difficulty and test subsets; None: the same number as seed."""

    tau: str | None = None
    """CDB: a law (linear, polynomial, logarithmic, sigmoid, sigmoid-accv, sigmoid-code) or a fixed
    number >= 0; None: sigmoid (Eq. 10)."""
    tau_max: float = 5.0
    """CDB: T_M of Eqs. 7-10."""
    tau_power: float = 2.0
    """CDB: p of Eq. 8, not given in the paper."""
    eps: float = 0.01
    """CDB: epsilon of Eq. 5."""
    normalize_weights: bool = True
    """CDB: scale the class weights to sum to the number of classes (authors' code)."""
    loss_reduction: Reduction | None = "batch-size"
    """Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing; None:
    by its size, with ldam-drw by the sum of its weights as Cao et al."""

    focal_gamma: float = 1.0
    """Focusing parameter of focal and cdb-w-fl."""
    cfs_q: float = 0.5
    """cfs: class probability proportional to n_c^q."""
    cb_beta: float = 0.9999
    """cb, and the second phase of ldam-drw: beta of the effective number of samples."""
    eql_gamma: float = 0.9
    """eql: probability that a rare class's logit is left out."""
    eql_threshold: float = 0.005
    """eql: lambda, the share of the training samples under which a class is rare."""
    l2rw_batch_size: int = 100
    """l2rw: images of the difficulty set in each meta step."""

    epochs: int = 100
    """Passes over as many samples as the training set has."""
    batch_size: int = 100
    """Samples a step."""
    learning_rate: float = 0.001
    """Of SGD; the highest one where it follows a schedule."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.0005
    """Of SGD, on all parameters."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        _check_choices(self)
        check_ranges(self)
        _check_effect(self)
        if self.tau is None:
            return
        try:
            parse_tau(self.tau)
        except ValueError as error:
            raise UserError(f"--tau {self.tau} is refused: {error}.") from error

    @property
    def recipe_name(self) -> str:
        """The recipe it departs from, a key of ``recipes.RECIPES``."""
        return self.dataset

    @property
    def table_method(self) -> str:
        """The record's ``method``, as the paper's tables name it."""
        return self.method

    @property
    def variant(self) -> str:
        """The record's ``variant``, as the paper's tables name it."""
        return "" if self.tau is None else f"tau={self.tau}"

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The step size.

        Args:
            epoch: complete epochs, from 0.
            progress: share of the epoch under way that is done after this step, in (0, 1].
        """
        return self.learning_rate


_CDB: tuple[Method, ...] = ("cdb-s", "cdb-w-ce", "cdb-w-fl")
# The methods that an option is for, where it is not for all.
USED_BY: dict[str, tuple[Method, ...]] = {
    **dict.fromkeys(("tau", "tau_max", "tau_power", "eps", "normalize_weights"), _CDB),
    "focal_gamma": ("focal", "cdb-w-fl"),
    "hard_weight": ("focal", "cdb-w-fl"),
    "cfs_q": ("cfs",),
    "cb_beta": ("cb", "ldam-drw"),
    "eql_gamma": ("eql",),
    "eql_threshold": ("eql",),
    "l2rw_batch_size": ("l2rw",),
    "mwn_batch_size": ("meta-weight-net",),
    "mwn_learning_rate": ("meta-weight-net",),
    "ldam_margin": ("ldam-drw",),
    "ldam_scale": ("ldam-drw",),
    "drw_epoch": ("ldam-drw",),
}


def uses_difficulty(method: Method) -> bool:
    """Whether the method is one of the paper's (CDB)."""
    return method in _CDB


def plain(config: ClassificationConfig) -> dict[str, Any]:
    """The settings as JSON gives them back (a tuple is a list)."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return settings


def option(field: str) -> str:
    """The command-line option of a field: ``batch_size`` -> ``--batch-size``."""
    return "--" + field.replace("_", "-")


def _choices(config: ClassificationConfig) -> dict[str, tuple[str, ...]]:
    """The names that a field can have, for each field that is one of some names."""
    hints = get_type_hints(type(config)).items()
    return {name: get_args(hint) for name, hint in hints if get_origin(hint) is Literal}


def _check_choices(config: ClassificationConfig) -> None:
    """Refuse a name that the data set does not know: a record can be read from anywhere."""
    for name, choices in _choices(config).items():
        if (value := getattr(config, name)) not in choices:
            raise UserError(f"{option(name)} {value} is not one of {', '.join(choices)}.")


def _check_effect(config: ClassificationConfig) -> None:
    """Refuse a setting that departs from its default but never reaches the method's code."""
    methods = _choices(config)["method"]
    for field in fields(config):
        users = USED_BY.get(field.name, (config.method,))
        value = getattr(config, field.name)
        if config.method not in users and value != field.default:
            others = " or ".join(method for method in users if method in methods)
            raise UserError(
                f"{option(field.name)} {value} has no effect on --method {config.method}; leave it "
                + (f"out, or choose {others}." if others else "out.")
            )


_AT_LEAST = {
    "imbalance": 1, "seed": 0, "split_seed": 0, "tau_max": 0, "tau_power": 1, "focal_gamma": 0,
    "cfs_q": 0, "cb_beta": 0, "eql_gamma": 0, "eql_threshold": 0, "l2rw_batch_size": 1,
    "mwn_batch_size": 1, "ldam_margin": 0, "drw_epoch": 0, "hard_weight": 0, "warmup_epochs": 0,
    "epochs": 1, "stage1_epochs": 1, "batch_size": 1, "momentum": 0, "weight_decay": 0,
}  # fmt: skip
_BELOW = {"eps": 1, "cb_beta": 1, "momentum": 1}
_ABOVE = {"eps": 0, "learning_rate": 0, "mwn_learning_rate": 0, "ldam_scale": 0, "lr_decay": 0}
_AT_MOST = {"eql_gamma": 1, "eql_threshold": 1, "lr_decay": 1, "hard_weight": 1}
_LIMITS = (
    ("at least", _AT_LEAST, ge),
    ("at most", _AT_MOST, le),
    ("below", _BELOW, lt),
    ("above", _ABOVE, gt),
)


def check_ranges(config: ClassificationConfig) -> None:
    """Refuse a number out of its range, by the name of its option."""
    for words, limits, holds in _LIMITS:
        for name, limit in limits.items():
            value = getattr(config, name, None)
            # NaN fails every comparison, and is refused with the rest; infinity is refused too.
            if value is not None and not (holds(value, limit) and math.isfinite(value)):
                raise UserError(f"{option(name)} must be {words} {limit}, not {value}.")
