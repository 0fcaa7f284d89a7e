"""The settings that the runs of all tasks have in common, and how settings are checked.

A setting is a field of a frozen dataclass, with its help and range in its :class:`Setting`. The
settings of a method are a class of their own, a base of every config that allows the method; the
settings of a data set are a subclass of :class:`RunConfig`, in the ``recipes.py`` of its task.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import pairwise
from operator import ge, gt, le, lt
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from typing_extensions import Doc

from common.errors import UserError
from common.losses import Reduction
from common.tau import LARGEST_TAU_MAX, SMALLEST_EPS, parse_tau
from common.training.record import STEADIERS
from common.training.schedule import step_schedule

_NONE: Final = object()


@dataclass(frozen=True)
class Setting(Doc):
    """What a field's annotation says of it; tyro shows a ``Doc`` as the option's help."""

    documentation: str
    """Shown as help."""
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    earlier: Any = _NONE
    """What a run was made with whose record lacks the setting, if there are such; it need not be
    today's default."""

    @property
    def came_later(self) -> bool:
        """Whether there are records of runs that were made before there was the setting."""
        return self.earlier is not _NONE


_HOLDS = {"at_least": ge, "at_most": le, "below": lt, "above": gt}
"""The limits of a setting, and whether (value, limit) keeps each."""

NAME_ORDER: Final = (
    "tau_max", "tau_power", "eps", "normalize_weights", "sampler_unit", "difficulty_average",
    "difficulty_prior", "weights_from_epoch", "loss_reduction", "focal_gamma", "cfs_q", "cb_beta",
    "la_tau", "epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "difficulty",
    "difficulty_period", "rfs_threshold", "eql_gamma", "eql_threshold", "split_seed",
    "l2rw_batch_size", "architecture", "initialisation", "input_scaling", "lists", "warmup_epochs",
    "milestones", "lr_decay", "warmup_steps", "gradient_clip", "backbone", "augmentation",
    "network", "model", "start", "min_size", "max_size", "frames", "frame_height", "frame_width",
    "stored_side", "crop", "max_angle", "flip", "colour_jitter", "detections", "score_threshold",
    "precision", "mwn_batch_size", "mwn_learning_rate", "ldam_margin", "ldam_scale", "drw_epoch",
    "hard_weight", "decay_bias", "difficulty_per_class", "mwn_virtual_step", "samples_per_class",
    "stage1_epochs", "focal_alpha", "bags_beta", "calibration_threshold", "norm_tau",
    "mixup_alpha", "head_size", "trained", "optimizer", "patience",
)  # fmt: skip
"""In this order a run's name tells the settings that are not the recipe's; never to be changed. A
setting that is not here comes after these, in the order of the configuration's fields."""
_ALWAYS_NAMED: Final = {
    "tau": "tau-{}", "stage1": "stage1-{}", "imbalance": "imbalance-{:.15g}", "task": "{}",
}  # fmt: skip
"""What a name tells before these, of a configuration that has it."""
_NOT_NAMED: Final = {"recipe", "dataset", "method", "seed", *_ALWAYS_NAMED}
LONGEST_NAME: Final = 217
"""Characters of a run's name: its figure, ``course_GROUP_RUN.png``, has then at most 255 in every
group of ours, the longest of which has 26."""
_IN_FOLDERS: Final = str.maketrans({"/": "+", ":": "--"})
"""What a folder's name cannot hold everywhere, and what it has in its place."""

DATASET: Final = Setting("Data set.")
METHOD: Final = Setting("Loss or sampler; the names of the paper's tables.")
RECIPE: Final = Setting("The recipe that these settings depart from.")
EPOCHS: Final = Setting("Passes over as many samples as the training set has.", at_least=1)
BATCH_SIZE: Final = Setting("Samples a step, over all processes.", at_least=1)
LEARNING_RATE: Final = Setting("The highest one where it follows a schedule.", above=0)
MOMENTUM: Final = Setting("Of SGD.", at_least=0, below=1)
WEIGHT_DECAY: Final = Setting("On all parameters.", at_least=0)
MILESTONES: Final = Setting(
    "After so many epochs each the learning rate is multiplied by lr_decay."
)
LR_DECAY: Final = Setting("Factor at each milestone.", above=0, at_most=1)
STAGE1_METHOD: Final = Setting("The method of the first stage.")
STAGE1_EPOCHS: Final = Setting("Epochs of the first stage; None: its recipe's.", at_least=1)
REDUCTION: Final = Setting(
    "Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing."
)


@dataclass(frozen=True)
class MethodSettings:
    """The settings of a method; as it stands, of one without any."""

    unused: ClassVar[tuple[str, ...]] = ()
    """Settings that count for every method which does not name them here."""
    usual_reduction: ClassVar[Reduction] = "batch-size"
    """What 'None: by the method' of ``loss_reduction`` stands for."""

    @staticmethod
    def check(config: Any) -> None:
        """Refuse settings of a run of the method that contradict each other.

        Raises:
            UserError: naming the option.
        """


@dataclass(frozen=True)
class DifficultySettings(MethodSettings):
    """CDB's: how difficulty becomes weights (Eqs. 3-10), and what steadies it."""

    least_deferral: ClassVar[int] = 2
    """The least ``weights_from_epoch`` with an effect: classes weigh alike in the first epoch."""
    tau: Annotated[
        str | None,
        Setting(
            "CDB: a law (linear, polynomial, logarithmic, sigmoid, sigmoid-accv, sigmoid-code) or "
            "a fixed number >= 0; None: sigmoid (Eq. 10)."
        ),
    ] = None
    tau_max: Annotated[
        float, Setting("CDB: T_M of Eqs. 7-10.", at_least=0, at_most=LARGEST_TAU_MAX)
    ] = 5.0
    tau_power: Annotated[float, Setting("CDB: p of Eq. 8, not given in the paper.", at_least=1)] = (
        2.0
    )
    eps: Annotated[float, Setting("CDB: epsilon of Eq. 5.", at_least=SMALLEST_EPS, below=1)] = 0.01
    normalize_weights: Annotated[
        bool,
        Setting("CDB: scale the class weights to sum to the number of classes (authors' code)."),
    ] = True
    difficulty_average: Annotated[
        float,
        Setting(
            "CDB, not in the paper: weight of the earlier epochs in a class's performance, an "
            "exponential moving average; 0: the last epoch alone.",
            at_least=0,
            below=1,
            earlier=0.0,
        ),
    ] = 0.0
    weights_from_epoch: Annotated[
        int,
        Setting(
            "CDB, not in the paper: classes weigh alike, and cdb-s draws every image once, for so "
            "many epochs (deferred re-weighting, Cao et al. 2019); 0: from the start as printed.",
            at_least=0,
            earlier=0,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class RunConfig(DifficultySettings):
    """One training run. Two runs of equal configurations give the same numbers."""

    dataset: Annotated[str, DATASET]
    method: Annotated[str, METHOD] = "ce"
    seed: Annotated[
        int,
        Setting(
            "Seed of the initial weights, the sampler and all other random numbers of training.",
            at_least=0,
        ),
    ] = 0
    loss_reduction: Annotated[Reduction | None, REDUCTION] = "batch-size"
    epochs: Annotated[int, EPOCHS] = 100
    batch_size: Annotated[int, BATCH_SIZE] = 100
    learning_rate: Annotated[float, LEARNING_RATE] = 0.001
    momentum: Annotated[float, MOMENTUM] = 0.9
    weight_decay: Annotated[float, WEIGHT_DECAY] = 0.0005

    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = {}
    """The settings of each method of the task. A setting of one of these classes counts for the
    methods whose class declares it, any other for all methods."""
    recipes: ClassVar[Mapping[str, Any]] = {}
    """The recipes of the task, by name; set where they are."""
    name_order: ClassVar[tuple[str, ...]] = NAME_ORDER
    """The settings in the order in which a run's name tells them."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        _check_choices(self)
        _check_ranges(self)
        _check_effect(self)
        _check_deferral(self)
        self.own_settings.check(self)
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
    def own_settings(self) -> type[MethodSettings]:
        """Those of its method."""
        return self.method_settings.get(self.method, MethodSettings)

    @property
    def uses_difficulty(self) -> bool:
        """Whether the method is one of the paper's (CDB)."""
        return issubclass(self.own_settings, DifficultySettings)

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
        return "" if self.tau is None else f"tau={self.tau}{self.steadied}"

    @property
    def steadied(self) -> str:
        """What the variant says of the steadiers: ' average=0.9'; empty without one."""
        values = zip(("average", "prior", "from-epoch"), STEADIERS, strict=True)
        told = {word: getattr(self, name, 0) for word, name in values}
        return "".join(f" {word}={value:.15g}" for word, value in told.items() if value)

    def filled_in(self) -> dict[str, Any]:
        """Every 'None: as ...' that is filled in, by its name; see :func:`resolved`."""
        tau = self.tau
        if tau is None and self.uses_difficulty:
            tau = "sigmoid"  # Eq. 10
        return {
            # One spelling for one number.
            "tau": tau if tau is None else str(parse_tau(tau)),
            "loss_reduction": self.loss_reduction or self.own_settings.usual_reduction,
        }

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The step size, as a record tells it; in training times :meth:`warm_up`.

        Args:
            epoch: complete epochs, from 0.
            progress: share of the epoch under way that is done after this step, in (0, 1].
        """
        return self.learning_rate

    def warm_up(self, steps_taken: int) -> float:
        """Factor of the learning rate after so many steps of the whole run, in (0, 1]."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class SteppedConfig(RunConfig):
    """A run whose learning rate falls in steps."""

    milestones: Annotated[tuple[int, ...], MILESTONES] = ()
    lr_decay: Annotated[float, LR_DECAY] = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        if self.milestones is not None:  # A second stage's may be its method's.
            object.__setattr__(self, "milestones", checked_milestones(self.milestones))

    @property
    def highest_rate(self) -> float:
        """The learning rate before the first milestone."""
        return self.learning_rate

    @property
    def growing_epochs(self) -> float:
        """Epochs over which it grows, step by step, to that."""
        return 0

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """Steps down; see :func:`step_schedule`."""
        return step_schedule(
            self.highest_rate,
            epoch,
            progress,
            warmup_epochs=self.growing_epochs,
            milestones=self.milestones,
            decay=self.lr_decay,
        )


Config = TypeVar("Config", bound=RunConfig)


# mypy takes no class of a dataclass for hashable, so each table stands behind a plain function.


def settings_of(kind: type) -> Mapping[str, Setting]:
    """What the annotations of a class say of its settings, by field."""
    return _settings_of(kind)


@cache
def _settings_of(kind: type) -> Mapping[str, Setting]:
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for said in getattr(hint, "__metadata__", ()):
            if isinstance(said, Setting):
                found[name] = said
    return found


def without_effect(kind: type, method: str) -> frozenset[str]:
    """Settings of a kind of configuration that do not count for a method."""
    return _idle(kind, method)


@cache
def _idle(kind: type, method: str) -> frozenset[str]:
    of_method: Mapping[str, type[MethodSettings]] = kind.method_settings  # type: ignore[attr-defined]
    own = of_method.get(method, MethodSettings)
    of_some = {name for settings in of_method.values() for name in settings_of(settings)}
    return frozenset(of_some - settings_of(own).keys()) | {*own.unused}


def _counts(name: str, config: RunConfig) -> bool:
    """Whether a setting is for one of the run's methods."""
    return any(name not in without_effect(type(config), method) for method in config.methods)


def _all_settings(config: RunConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return settings


def plain(config: RunConfig) -> dict[str, Any]:
    """The settings that count for the run, as JSON gives them back (a tuple is a list).

    Without those that are as in earlier runs, whose records lack them: a run that could be made
    before has the settings that it had then.
    """
    said = settings_of(type(config))
    return {
        name: value
        for name, value in _all_settings(config).items()
        if _counts(name, config) and (name not in said or said[name].earlier != value)
    }


def read_config(settings: Mapping[str, Any], recipes: Mapping[str, Config]) -> Config:
    """The configuration whose settings a run's folder or a record holds, today's or an older one's.

    A setting that it lacks, because it was made before the setting was there, has the value that
    the run was made with; one that does not count for the run is not looked at.

    Args:
        settings: as :func:`plain` gives them.
        recipes: of the task.

    Raises:
        UserError: for a value out of its range.
        KeyError, TypeError, ValueError: when they are not those of a recipe.
    """
    name = settings.get("recipe", settings["dataset"])
    if name not in recipes:
        raise ValueError(f"{name} is not one of {', '.join(recipes)}")
    kind = type(recipes[name])
    method = settings.get("method", kind.method)
    stages = {method, settings.get("stage1", method)}
    said = settings_of(kind)
    idle = frozenset.intersection(*(without_effect(kind, stage) for stage in stages))
    # Records of all tasks named settings that their task's methods never had.
    never = {*NAME_ORDER} - said.keys()
    told = {name: value for name, value in settings.items() if name not in idle | never}
    lacking = {
        name: setting.earlier
        for name, setting in said.items()
        if setting.came_later and name not in without_effect(kind, method)
    }
    return kind(**(lacking | told))


def read_folder(folder: Path, task: str, recipes: Mapping[str, Config]) -> Config:
    """The configuration that a run's folder was made with.

    Raises:
        UserError: when there is none, or it is of another version.
    """
    try:
        return read_config(json.loads((folder / "config.json").read_bytes()), recipes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder} is not the folder of a {task} run of this version ({error}); name a folder "
            "that holds config.json and weights.pt."
        ) from error


def as_today(settings: dict[str, Any], recipes: Mapping[str, RunConfig]) -> dict[str, Any]:
    """Settings that :func:`plain` gave, now or before, as it gives them now.

    Those of no configuration of today stay as they are.
    """
    try:
        return plain(read_config(settings, recipes))
    except (UserError, ValueError, TypeError, KeyError, AttributeError):
        return settings


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
        if field.name not in own and _counts(field.name, first)
    }


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


def resolved(config: Config) -> Config:
    """The configuration with every 'None: as ...' filled in, as it is recorded."""
    changes: Any = config.filled_in()
    return replace(config, **changes)


def run_name(config: RunConfig) -> str:
    """The run's name: method, what is always named, every setting that is not the recipe's, seed.

    A name of more than :data:`LONGEST_NAME` characters ends, before the seed, with a hash of what
    does not fit.
    """
    config = resolved(config)
    recipe: RunConfig = config.recipes[config.recipe_name]
    usual = resolved(replace(recipe, seed=config.seed, method=config.method))
    always = {name: getattr(config, name, None) for name in _ALWAYS_NAMED}
    parts = [config.table_method]
    parts += [
        _ALWAYS_NAMED[name].format(value) for name, value in always.items() if value is not None
    ]
    return _short_name([*parts, *changed_settings(config, usual)], f"seed-{config.seed}")


def _short_name(parts: Sequence[str], seed: str) -> str:
    """The parts and the seed, of at most :data:`LONGEST_NAME` characters."""
    name = "_".join([*parts, seed])
    if len(name) <= LONGEST_NAME:
        return name
    rest = f"and-{hashlib.sha256('_'.join(parts).encode()).hexdigest()[:12]}_{seed}"
    kept = list(parts)
    while len("_".join([*kept, rest])) > LONGEST_NAME:
        kept.pop()
    return "_".join([*kept, rest])


def _in_name_order(config: RunConfig) -> Iterable[str]:
    """The configuration's fields in the order of its name."""
    names = [field.name for field in fields(config)]
    order = (*config.name_order, *names)
    return sorted(names, key=order.index)


def changed_settings(config: RunConfig, usual: RunConfig) -> list[str]:
    """What a run's name says of every setting that is not the usual one: ``epochs-3``.

    The usual one of a setting that came later is that of the runs that were named without it.

    Args:
        config: a resolved configuration.
        usual: the one it departs from, resolved.
    """
    # Where a default has changed since, names go by what it was.
    defaults = {field.name: field.default for field in fields(usual)}
    before, now = _all_settings(usual), _all_settings(config)
    for name, setting in settings_of(type(usual)).items():
        if setting.came_later and setting.earlier != defaults[name]:
            before[name] = setting.earlier
    parts = []
    for name in _in_name_order(config):
        value = now[name]
        if name not in _NOT_NAMED and _counts(name, config) and value != before[name]:
            text = "-".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{name.replace('_', '-')}-{text}".translate(_IN_FOLDERS))
    return parts


def _choices(kind: type) -> Mapping[str, tuple[str, ...]]:
    """The names that a field can have, for each field that is one of some names (or None)."""
    return _choices_of(kind)


@cache
def _choices_of(kind: type) -> Mapping[str, tuple[str, ...]]:
    choices = {}
    for name, hint in get_type_hints(kind).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
        names = [get_args(kind) for kind in kinds if get_origin(kind) is Literal]
        if names:
            choices[name] = names[0]
    return choices


def _check_choices(config: RunConfig) -> None:
    """Refuse a name that the data set does not know: a record can be read from anywhere."""
    for name, choices in _choices(type(config)).items():
        value = getattr(config, name)
        if value is not None and value not in choices:
            raise UserError(f"{option(name)} {value} is not one of {', '.join(choices)}.")


def _users(name: str, kind: type[RunConfig]) -> Iterator[str]:
    """Methods of a configuration that a setting of some methods counts for."""
    choices = _choices(kind).get("method", ())
    named = (method for method in kind.method_settings if method in choices)
    return (method for method in named if name not in without_effect(kind, method))


def _check_effect(config: RunConfig) -> None:
    """Refuse a setting that departs from its default but never reaches the method's code."""
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default and not _counts(field.name, config):
            others = " or ".join(_users(field.name, type(config)))
            raise UserError(
                f"{option(field.name)} {value} has no effect on --method {config.method}; leave it "
                + (f"out, or choose {others}." if others else "out.")
            )


def _check_deferral(config: RunConfig) -> None:
    """Refuse weights that come into force too late to count, or when they would anyway."""
    start, own = config.weights_from_epoch, config.own_settings
    if not start:
        return
    if not issubclass(own, DifficultySettings):
        # Let through so far by a first stage that uses it, which has weights from its start.
        reason = f"--method {config.method}, the stage that it is for; leave it out"
    elif start >= config.epochs:
        reason = f"the run's {config.epochs} epochs; lower it"
    elif start < own.least_deferral:
        reason = (
            f"--method {config.method}, whose classes weigh alike in the first epoch anyway; leave "
            "it out"
        )
    else:
        return
    raise UserError(f"--weights-from-epoch {start} has no effect on {reason}.")


def _check_ranges(config: RunConfig) -> None:
    """Refuse a number out of its range, by the name of its option."""
    said = settings_of(type(config))
    for word, holds in _HOLDS.items():
        for name, setting in said.items():
            limit, value = getattr(setting, word), getattr(config, name)
            if limit is None or value is None:
                continue
            # NaN fails every comparison, and is refused with the rest; infinity is refused too.
            if not (holds(value, limit) and math.isfinite(value)):
                words = f"{word.replace('_', ' ')} {limit}"
                raise UserError(f"{option(name)} must be {words}, not {value}.")
