"""Every setting of a classification run, and the paper's values for each data set.

A recipe is a value; a variant is ``replace(recipe, ...)``. The command line is made from
:class:`ClassificationConfig`.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from operator import ge, gt, le, lt
from typing import Literal, get_args

from classification.models import Initialisation, LenetArchitecture
from common.errors import UserError
from common.losses import Reduction
from common.tau import parse_tau

Method = Literal["ce", "focal", "cfs", "cb", "eql", "l2rw", "cdb-s", "cdb-w-fl", "cdb-w-ce"]
METHODS: tuple[Method, ...] = get_args(Method)
InputScaling = Literal["standardise", "unit", "raw"]


@dataclass(frozen=True)
class ClassificationConfig:
    """One training run. Two runs of equal configurations give the same numbers."""

    dataset: Literal["mnist-lt"] = "mnist-lt"
    """Data set."""
    method: Method = "ce"
    """Loss or sampler; Table 1's names."""
    imbalance: float = 99
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
    loss_reduction: Reduction = "batch-size"
    """Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing."""

    focal_gamma: float = 1.0
    """Focusing parameter of focal and cdb-w-fl."""
    cfs_q: float = 0.5
    """cfs: class probability proportional to n_c^q."""
    cb_beta: float = 0.9999
    """cb: beta of the effective number of samples."""
    eql_gamma: float = 0.9
    """eql: probability that a rare class's logit is left out."""
    eql_threshold: float = 0.03
    """eql: lambda, the share of the training samples under which a class is rare."""
    l2rw_batch_size: int = 100
    """l2rw: images of the difficulty set in each meta step."""

    architecture: LenetArchitecture = "lenet5"
    """Network; see classification/models/lenet.py."""
    initialisation: Initialisation = "torch-default"
    """How the weights start."""
    input_scaling: InputScaling = "raw"
    """Pixels with mean 0 and standard deviation 1 (MNIST's constants), in [0, 1] (unit), or as
    stored, in [0, 255] (raw)."""
    epochs: int = 100
    """Passes over as many samples as the training set has."""
    batch_size: int = 100
    """Samples a step."""
    learning_rate: float = 0.001
    """Of SGD, constant."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.0005
    """Of SGD, on all parameters."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        _check_ranges(self)
        _check_effect(self)
        if self.tau is None:
            return
        try:
            parse_tau(self.tau)
        except ValueError as error:
            raise UserError(f"--tau {self.tau} is refused: {error}.") from error


_CDB: tuple[Method, ...] = ("cdb-s", "cdb-w-ce", "cdb-w-fl")
# The methods that an option is for, where it is not for all.
USED_BY: dict[str, tuple[Method, ...]] = {
    **dict.fromkeys(("tau", "tau_max", "tau_power", "eps", "normalize_weights"), _CDB),
    "focal_gamma": ("focal", "cdb-w-fl"),
    "cfs_q": ("cfs",),
    "cb_beta": ("cb",),
    "eql_gamma": ("eql",),
    "eql_threshold": ("eql",),
    "l2rw_batch_size": ("l2rw",),
}


def uses_difficulty(method: Method) -> bool:
    """Whether the method is one of the paper's (CDB)."""
    return method in _CDB


def _check_effect(config: ClassificationConfig) -> None:
    """Refuse a setting that departs from its default but never reaches the method's code."""
    for field in fields(config):
        users = USED_BY.get(field.name, (config.method,))
        value = getattr(config, field.name)
        if config.method not in users and value != field.default:
            raise UserError(
                f"{option(field.name)} {value} has no effect on --method {config.method}; leave it "
                f"out, or choose {' or '.join(users)}."
            )


_AT_LEAST = {
    "imbalance": 1, "seed": 0, "split_seed": 0, "tau_max": 0, "tau_power": 1, "focal_gamma": 0,
    "cfs_q": 0, "cb_beta": 0, "eql_gamma": 0, "eql_threshold": 0, "l2rw_batch_size": 1,
    "epochs": 1, "batch_size": 1, "momentum": 0, "weight_decay": 0,
}  # fmt: skip
_BELOW = {"eps": 1, "cb_beta": 1, "momentum": 1}
_ABOVE = {"eps": 0, "learning_rate": 0}
_AT_MOST = {"eql_gamma": 1, "eql_threshold": 1}
_LIMITS = (
    ("at least", _AT_LEAST, ge),
    ("at most", _AT_MOST, le),
    ("below", _BELOW, lt),
    ("above", _ABOVE, gt),
)


def _check_ranges(config: ClassificationConfig) -> None:
    for words, limits, holds in _LIMITS:
        for name, limit in limits.items():
            value = getattr(config, name)
            # NaN fails every comparison, and is refused with the rest; infinity is refused too.
            if value is not None and not (holds(value, limit) and math.isfinite(value)):
                raise UserError(f"{option(name)} must be {words} {limit}, not {value}.")


def option(field: str) -> str:
    """The command-line option of a field: ``batch_size`` -> ``--batch-size``."""
    return "--" + field.replace("_", "-")


MNIST_LT = ClassificationConfig()
"""Sec. 4.1.2. Architecture, initialisation, input scaling and reduction are our reading of what it
leaves open: docs/mnist-readings.md."""


def resolved(config: ClassificationConfig) -> ClassificationConfig:
    """The configuration with every 'None: as ...' filled in, as it is recorded."""
    tau = "sigmoid" if uses_difficulty(config.method) and config.tau is None else config.tau
    split_seed = config.seed if config.split_seed is None else config.split_seed
    # One spelling for one number: 2 and 2.0 are the same run.
    tau = tau if tau is None else str(parse_tau(tau))
    return replace(config, tau=tau, split_seed=split_seed, imbalance=float(config.imbalance))


_NAMED = {"dataset", "method", "imbalance", "seed", "tau"}


def run_name(config: ClassificationConfig) -> str:
    """The run's name: method, tau, imbalance, seed, then every setting that is not the recipe's.

    >>> run_name(replace(MNIST_LT, method="cdb-s", tau="2", imbalance=199, epochs=3))
    'cdb-s_tau-2.0_imbalance-199_epochs-3_seed-0'
    """
    config = resolved(config)
    usual = asdict(resolved(replace(RECIPES[config.dataset], seed=config.seed)))
    parts: list[str] = [config.method]
    parts += [f"tau-{config.tau}"] if config.tau is not None else []
    parts += [f"imbalance-{config.imbalance:.15g}"]
    for name, value in asdict(config).items():
        if name not in _NAMED and value != usual[name]:
            parts.append(f"{name.replace('_', '-')}-{value}")
    return "_".join([*parts, f"seed-{config.seed}"])


RECIPES: dict[str, ClassificationConfig] = {"mnist-lt": MNIST_LT}
