"""The settings that the runs of all tasks have in common, and how settings are checked.

The settings of a data set are a subclass, in the ``recipes.py`` of its task.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from operator import ge, gt, le, lt
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from common.errors import UserError
from common.losses import Reduction
from common.tau import LARGEST_TAU_MAX, SMALLEST_EPS, parse_tau
from common.training.record import STEADIERS

CDB_METHODS = ("cdb-s", "cdb-w-ce", "cdb-w-fl")
"""The paper's methods."""
SamplerUnit = Literal["class", "image"]

Limits = Mapping[str, Mapping[str, float]]
_HOLDS = {"at least": ge, "at most": le, "below": lt, "above": gt}
"""What a limit is called, and whether (value, limit) keeps it."""


def with_limits(limits: Limits, **more: Mapping[str, float]) -> Limits:
    """``limits`` and further ones, by their names with ``_`` for the blank: ``at_least={...}``."""
    added = {name.replace("_", " "): values for name, values in more.items()}
    return {name: {**limits.get(name, {}), **added.get(name, {})} for name in _HOLDS}


@dataclass(frozen=True)
class RunConfig:
    """One training run. Two runs of equal configurations give the same numbers."""

    dataset: str
    """Data set."""
    method: str = "ce"
    """Loss or sampler; the names of the paper's tables."""
    seed: int = 0
    """Seed of the initial weights, the sampler and all other random numbers of training."""

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
    sampler_unit: SamplerUnit = "class"
    """cdb-s: what d_c^tau is the weight of: the class (Eq. 15), or each of its images."""
    difficulty_average: float = 0.0
    """CDB, not in the paper: weight of the earlier epochs in a class's performance, an exponential
    moving average; 0: the last epoch alone."""
    difficulty_prior: float = 0.0
    """CDB, not in the paper: so many more images of each class of the difficulty set count as
    right, and as many as wrong (additive smoothing), so that no class is at 0 or 1; 0: none."""
    weights_from_epoch: int = 0
    """CDB, not in the paper: classes weigh alike, and cdb-s draws every image once, for so many
    epochs (deferred re-weighting, Cao et al. 2019); 0: from the start as printed."""
    loss_reduction: Reduction | None = "batch-size"
    """Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing."""

    focal_gamma: float = 1.0
    """Focusing parameter of focal and cdb-w-fl."""
    cfs_q: float = 0.5
    """cfs: class probability proportional to n_c^q."""
    cb_beta: float = 0.9999
    """cb: beta of the effective number of samples."""
    la_tau: float = 1.0
    """logit-adjustment: factor of the logarithm of each class's share; 1: as balanced-softmax."""

    epochs: int = 100
    """Passes over as many samples as the training set has."""
    batch_size: int = 100
    """Samples a step, over all processes."""
    learning_rate: float = 0.001
    """Of SGD; the highest one where it follows a schedule."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.0005
    """Of SGD, on all parameters."""

    used_by: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("tau", "tau_max", "tau_power", "eps", "normalize_weights"), CDB_METHODS),
        "sampler_unit": ("cdb-s",),
        **dict.fromkeys(STEADIERS, CDB_METHODS),
        "focal_gamma": ("focal", "cdb-w-fl"),
        "cfs_q": ("cfs",),
        "cb_beta": ("cb",),
        "la_tau": ("logit-adjustment",),
    }
    """The methods that an option is for, where it is not for all."""
    earlier: ClassVar[Mapping[str, Any]] = {
        "sampler_unit": "class",
        "la_tau": 1.0,
        "difficulty_average": 0.0,
        "difficulty_prior": 0.0,
        "weights_from_epoch": 0,
    }
    """Settings that came after published records, with the value that a run was made with whose
    record lacks them; it need not be today's default."""
    limits: ClassVar[Limits] = with_limits(
        {},
        at_least={
            "seed": 0, "tau_max": 0, "tau_power": 1, "focal_gamma": 0, "cfs_q": 0, "cb_beta": 0,
            "epochs": 1, "batch_size": 1, "momentum": 0, "weight_decay": 0, "eps": SMALLEST_EPS,
            "la_tau": 0,
            "difficulty_average": 0, "difficulty_prior": 0, "weights_from_epoch": 0,
        },
        at_most={"tau_max": LARGEST_TAU_MAX},
        below={"eps": 1, "cb_beta": 1, "momentum": 1, "difficulty_average": 1},
        above={"learning_rate": 0},
    )  # fmt: skip
    """The range of each number."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        _check_choices(self)
        _check_ranges(self)
        _check_effect(self)
        _check_deferral(self)
        if self.tau is None:
            return
        try:
            parse_tau(self.tau)
        except ValueError as error:
            raise UserError(f"--tau {self.tau} is refused: {error}.") from error

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose settings count: the run's, and its first stage's if they are given."""
        return (self.method,)

    @property
    def recipe_name(self) -> str:
        """The recipe it departs from."""
        return self.dataset

    @property
    def table_method(self) -> str:
        """The record's ``method``, as the paper's tables name it."""
        return self.method

    @property
    def variant(self) -> str:
        """The record's ``variant``, as the paper's tables name it."""
        if self.la_tau != RunConfig.la_tau:
            return f"tau={float(self.la_tau)}"
        unit = "" if self.sampler_unit == "class" else f" unit={self.sampler_unit}"
        return "" if self.tau is None else f"tau={self.tau}{unit}{self.steadied}"

    @property
    def steadied(self) -> str:
        """What the variant says of the steadiers: ' average=0.9'; empty without one."""
        values = zip(("average", "prior", "from-epoch"), STEADIERS, strict=True)
        told = {word: getattr(self, name) for word, name in values}
        return "".join(f" {word}={value:.15g}" for word, value in told.items() if value)

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The step size.

        Args:
            epoch: complete epochs, from 0.
            progress: share of the epoch under way that is done after this step, in (0, 1].
        """
        return self.learning_rate


def uses_difficulty(method: str) -> bool:
    """Whether the method is one of the paper's (CDB)."""
    return method in CDB_METHODS


def _all_settings(config: RunConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return settings


def _counts(name: str, config: RunConfig) -> bool:
    """Whether a setting is for one of the run's methods."""
    return bool(set(config.methods) & set(config.used_by.get(name, config.methods)))


def plain(config: RunConfig) -> dict[str, Any]:
    """The settings as JSON gives them back (a tuple is a list).

    Of those in ``earlier`` only what counts for the method and differs from what records without
    them were made with: a run that could be made before has the settings that it had then.
    """
    earlier = config.earlier
    return {
        name: value
        for name, value in _all_settings(config).items()
        if name not in earlier or (_counts(name, config) and value != earlier[name])
    }


def handed_on(second: RunConfig, first: RunConfig, own: Collection[str]) -> dict[str, Any]:
    """What a second stage says of its first: every setting that counts for the first's method.

    Args:
        second: the second stage.
        first: the first, of the right method, otherwise as its recipe has it.
        own: settings that each stage has for itself.
    """
    return {
        field.name: getattr(second, field.name)
        for field in fields(first)
        if field.name not in own and first.method in first.used_by.get(field.name, (first.method,))
    }


def with_earlier(kind: type[RunConfig], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that :func:`plain` gave, now or before some were there, with all that count."""
    method = settings.get("method", kind.method)
    lacking = {
        name: old
        for name, old in kind.earlier.items()
        if method in kind.used_by.get(name, (method,))
    }
    return lacking | settings


def checked_milestones(milestones: Sequence[int]) -> tuple[int, ...]:
    """Milestones as a tuple, which JSON gives as a list.

    Raises:
        UserError: when they are not in growing order from 1 up.
    """
    if any(later <= earlier for earlier, later in pairwise((0, *milestones))):
        raise UserError(
            f"--milestones must be epochs from 1 up in growing order, not {tuple(milestones)}."
        )
    return tuple(milestones)


def option(field: str) -> str:
    """The command-line option of a field: ``batch_size`` -> ``--batch-size``."""
    return "--" + field.replace("_", "-")


def resolved_tau(config: RunConfig) -> str | None:
    """Tau as it is recorded: Eq. 10 where CDB is given none, and one spelling for one number."""
    tau = "sigmoid" if uses_difficulty(config.method) and config.tau is None else config.tau
    return tau if tau is None else str(parse_tau(tau))


def changed_settings(config: RunConfig, usual: RunConfig, named: set[str]) -> list[str]:
    """What a run's name says of every setting that is not the usual one: ``epochs-3``.

    The usual one of a setting in ``earlier`` is that of the runs that were named without it.

    Args:
        config: a resolved configuration.
        usual: the one it departs from, resolved.
        named: fields that the name tells already.
    """
    # Where a default has changed since, names go by what it was.
    defaults = {field.name: field.default for field in fields(usual)}
    before = _all_settings(usual)
    before |= {name: old for name, old in usual.earlier.items() if defaults[name] != old}
    parts = []
    for name, value in _all_settings(config).items():
        if name in config.earlier and not _counts(name, config):
            continue
        if name not in named and value != before[name]:
            text = "-".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{name.replace('_', '-')}-{text}")
    return parts


def _choices(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The names that a field can have, for each field that is one of some names (or None)."""
    choices = {}
    for name, hint in get_type_hints(type(config)).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
        names = [get_args(kind) for kind in kinds if get_origin(kind) is Literal]
        if names and getattr(config, name) is not None:
            choices[name] = names[0]
    return choices


def _check_choices(config: RunConfig) -> None:
    """Refuse a name that the data set does not know: a record can be read from anywhere."""
    for name, choices in _choices(config).items():
        if (value := getattr(config, name)) not in choices:
            raise UserError(f"{option(name)} {value} is not one of {', '.join(choices)}.")


def _check_effect(config: RunConfig) -> None:
    """Refuse a setting that departs from its default but never reaches the method's code."""
    methods = _choices(config).get("method", ())
    for field in fields(config):
        users = config.used_by.get(field.name, (config.method,))
        value = getattr(config, field.name)
        if not set(config.methods) & set(users) and value != field.default:
            others = " or ".join(method for method in users if method in methods)
            raise UserError(
                f"{option(field.name)} {value} has no effect on --method {config.method}; leave it "
                + (f"out, or choose {others}." if others else "out.")
            )


def _check_deferral(config: RunConfig) -> None:
    """Refuse weights that come into force too late to count, or when they would anyway."""
    start = config.weights_from_epoch
    if not start:
        return
    if not uses_difficulty(config.method):
        # Let through so far by a first stage that uses it, which has weights from its start.
        reason = f"--method {config.method}, the stage that it is for; leave it out"
    elif start >= config.epochs:
        reason = f"the run's {config.epochs} epochs; lower it"
    elif start == 1 and config.method.startswith("cdb-w"):
        reason = (
            f"--method {config.method}, whose classes weigh alike in the first epoch anyway; leave "
            "it out"
        )
    else:
        return
    raise UserError(f"--weights-from-epoch {start} has no effect on {reason}.")


def _check_ranges(config: RunConfig) -> None:
    """Refuse a number out of its range, by the name of its option."""
    for words, limits in config.limits.items():
        for name, limit in limits.items():
            value = getattr(config, name, None)
            # NaN fails every comparison, and is refused with the rest; infinity is refused too.
            if value is not None and not (_HOLDS[words](value, limit) and math.isfinite(value)):
                raise UserError(f"{option(name)} must be {words} {limit}, not {value}.")
