"""The result record: one JSON file per finished run, checked against its task's schema.

A record says what was run (``config``, ``split``), what came out (``metrics``, ``history``) and
where (``provenance``). Everything but ``provenance`` is a function of the configuration: two runs
of one configuration on one machine write the same bytes there. A missing value is absent, never 0.
``history`` keeps what was measured; what follows from it by the paper's equations, difficulty, tau
and weights, :func:`courses` computes.

What the records of a task hold besides stands in the ``record`` module of its package.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any, Final

import jsonschema

from common.errors import UserError

SCHEMA_VERSION: Final = 1

NUMBER_LIST: Final = {"type": "array", "items": {"type": ["number", "null"]}}
CLASS_HISTORY: Final = {"type": "array", "items": NUMBER_LIST}
FRACTION: Final = {"type": "number", "minimum": 0, "maximum": 1}
FRACTION_OR_NULL: Final = {"anyOf": [FRACTION, {"type": "null"}]}
FRACTION_LIST: Final = {"type": "array", "items": FRACTION_OR_NULL}
COUNT_LIST: Final = {"type": "array", "items": {"type": "integer", "minimum": 0}}

SHARED_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Result of one finished run",
    "type": "object",
    "additionalProperties": False,
    "required": [
        "schema",
        "run",
        "group",
        "task",
        "dataset",
        "method",
        "variant",
        "condition",
        "seed",
        "config",
        "split",
        "metrics",
        "history",
        "provenance",
    ],
    "properties": {
        "schema": {"const": SCHEMA_VERSION},
        "run": {"type": "string", "minLength": 1},
        "group": {"type": "string", "minLength": 1},
        "task": {"type": "string"},
        "dataset": {"type": "string"},
        "method": {"type": "string"},
        "variant": {"type": "string"},
        "condition": {"type": "string"},
        "seed": {"type": "integer", "minimum": 0},
        "config": {"type": "object"},
        "split": {
            "type": "object",
            "required": ["class_names", "train", "difficulty", "test", "imbalance", "digest"],
            "properties": {
                "class_names": {"type": "array", "items": {"type": "string"}},
                "train": COUNT_LIST,
                "difficulty": COUNT_LIST,
                "test": COUNT_LIST,
                "imbalance": {"type": "number", "minimum": 1},
                "digest": {"type": "string"},
                # What a reader of the numbers should know about the split, in sentences.
                "notes": {"type": "array", "items": {"type": "string"}},
            },
        },
        "metrics": {"type": "object"},
        "history": {
            "type": "object",
            "required": ["epoch", "loss", "class_accuracy"],
            "properties": {
                "epoch": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "loss": NUMBER_LIST,
                "learning_rate": NUMBER_LIST,
                "class_accuracy": CLASS_HISTORY,
            },
        },
        "provenance": {
            "type": "object",
            "required": ["seconds", "finished", "versions", "hardware"],
            "properties": {
                "seconds": {"type": "number", "minimum": 0},
                "finished": {"type": "string"},
                "versions": {"type": "object"},
                "hardware": {"type": "object"},
                "starts": {"type": "integer", "minimum": 1},
                # Of a run whose starts differed: the versions and hardware of each, in their order,
                # from the start of that number on.
                "environments": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["from_start", "versions", "hardware"],
                        "properties": {
                            "from_start": {"type": "integer", "minimum": 1},
                            "versions": {"type": "object"},
                            "hardware": {"type": "object"},
                        },
                    },
                },
            },
        },
    },
}


def evaluation(**measures: Any) -> dict[str, Any]:
    """The schema of a classifier's metrics of one epoch: error and accuracy, and ``measures``."""
    return {
        "type": "object",
        "required": ["epoch", "error", "class_accuracy"],
        "properties": {
            "epoch": {"type": "integer", "minimum": 1},
            "error": {"type": "number", "minimum": 0, "maximum": 100},
            "class_accuracy": FRACTION_LIST,
            "difficulty_set_accuracy": FRACTION,
            **measures,
        },
    }


def last_and_best(of_epoch: dict[str, Any]) -> dict[str, Any]:
    """The schema of ``metrics`` at the last epoch, and at the best one of the difficulty set."""
    return {
        "type": "object",
        "required": ["last", "best"],
        "properties": {"last": of_epoch, "best": of_epoch},
    }


def task_schema(
    task: str,
    *,
    metrics: dict[str, Any],
    split: dict[str, Any] | None = None,
    history: dict[str, Any] | None = None,
    **rules: Any,
) -> dict[str, Any]:
    """The schema of a task's records: the shared one, and what the task adds.

    Args:
        task: the record's ``task``.
        metrics: schema of ``metrics``.
        split: further properties of ``split``; a name that ends with ``!`` is required.
        history: further properties of ``history``.
        **rules: further keywords of the whole, or properties of its own: ``condition={...}``.
    """
    fields: dict[str, Any] = SHARED_SCHEMA["properties"]
    own = {name: rule for name, rule in rules.items() if name in fields}
    added = {name.removesuffix("!"): rule for name, rule in (split or {}).items()}
    needed = [name.removesuffix("!") for name in split or {} if name.endswith("!")]
    shared, courses = fields["split"], fields["history"]
    return SHARED_SCHEMA | {name: rule for name, rule in rules.items() if name not in fields} | {
        "properties": fields | own | {
            "task": {"const": task},
            "split": shared | {
                "required": [*shared["required"], *needed],
                "properties": shared["properties"] | added,
            },
            "metrics": metrics,
            "history": courses | {"properties": courses["properties"] | (history or {})},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class _ListRule:
    """What a list may hold, numbers or strings, as a schema says it.

    Attributes:
        types: of Python, as ``json`` reads them.
        low: of a number, inclusive; finite.
        high: of a number, inclusive; finite.
        rows: the list is one of lists of these.
    """

    types: frozenset[type]
    low: float = -sys.float_info.max
    high: float = sys.float_info.max
    rows: bool = False

    def fits(self, values: list[Any]) -> bool:
        """Whether all fit; False may also mean that a rarer spelling needs a closer look."""
        if self.rows:
            if not set(map(type, values)) <= {list}:
                return False
            values = list(chain.from_iterable(values))
        kinds = set(map(type, values))
        if not kinds <= self.types:
            return False
        if str in kinds:
            return kinds == {str}
        numbers = [x for x in values if x is not None] if NoneType in kinds else values
        if not numbers:
            return True
        in_range = self.low <= min(numbers) and max(numbers) <= self.high
        # NaN is neither above nor below.
        return in_range and all(map(math.isfinite, numbers))


_NUMBERS: Final = _ListRule(frozenset({int, float, NoneType}))
_ROWS: Final = replace(_NUMBERS, rows=True)
_TYPES: Final[dict[str, set[type]]] = {
    "number": {int, float}, "integer": {int}, "null": {NoneType}, "string": {str},
}  # fmt: skip


def _list_rule(items: dict[str, Any]) -> _ListRule | None:
    """The rule of a list whose schema says these ``items``; None where it is another kind."""
    if items.keys() == {"type", "items"} and items["type"] == "array":
        inner = _list_rule(items["items"])
        return None if inner is None or inner.rows else replace(inner, rows=True)
    kinds: set[type] = set()
    limits: dict[str, float] = {}
    for choice in items.get("anyOf", [items]):
        own = {name: value for name, value in choice.items() if name != "type"}
        names = choice.get("type", "")
        names = [names] if isinstance(names, str) else names
        known = own.keys() <= {"minimum", "maximum"} and set(names) <= _TYPES.keys()
        if not known or (own and limits):
            return None
        limits |= own
        for name in names:
            kinds |= _TYPES[name]
    low, high = limits.get("minimum", _NUMBERS.low), limits.get("maximum", _NUMBERS.high)
    return _ListRule(frozenset(kinds), low, high)


def _items(
    validator: Any, items: dict[str, Any], values: Any, schema: dict[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """The keyword ``items``; plain lists, nearly all of a record, are looked at as a whole.

    jsonschema takes some 20 microseconds a number. It is asked where a list does not fit, for its
    words.
    """
    rule = _list_rule(items) if isinstance(values, list) else None
    if rule is None or not rule.fits(values):
        yield from jsonschema.Draft202012Validator.VALIDATORS["items"](
            validator, items, values, schema
        )


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"items": _items})
_SHARED_VALIDATOR = _Validator(SHARED_SCHEMA)
_VALIDATORS: Final[dict[str, Any]] = {}
"""Of each task, by its name in a record."""


def register_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Make the records of a task known, by the ``record`` module of its package.

    Args:
        schema: of :func:`task_schema`.

    Returns:
        The schema.
    """
    _VALIDATORS[schema["properties"]["task"]["const"]] = _Validator(schema)
    return schema


def _validator_of(record: object, source: object) -> Any:
    """The validator of a record's task; what has none is checked for what all records share."""
    task = record.get("task") if isinstance(record, dict) else None
    if isinstance(task, str) and task not in _VALIDATORS:
        raise UserError(
            f"{source} is a record of the task {task!r}, which is none of "
            f"{', '.join(sorted(_VALIDATORS))}; update this checkout, or take the file away."
        )
    return _VALIDATORS.get(task or "", _SHARED_VALIDATOR)


def _is_finite(value: Any) -> bool:
    """Whether every number in a value is one that JSON has.

    Python's reader takes NaN and the infinities too, and 1e999 as an infinity.
    """
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return _NUMBERS.fits(value) or _ROWS.fits(value) or all(map(_is_finite, value))
    return not isinstance(value, (int, float)) or _NUMBERS.low <= value <= _NUMBERS.high


def _no_number(value: Any, path: tuple[str, ...] = ()) -> str:
    """Where the first number stands that is not finite, as ``metrics/last/error``."""
    if isinstance(value, (dict, list)):
        pairs: Iterable[tuple[Any, Any]] = (
            value.items() if isinstance(value, dict) else enumerate(value)
        )
        name, part = next((name, part) for name, part in pairs if not _is_finite(part))
        return _no_number(part, (*path, str(name)))
    return "/".join(path)


_REMEDY: Final = (
    "get the file back from a copy or from git; without one move it elsewhere and run its "
    "experiment again"
)


def check_record(record: dict[str, Any], source: object) -> None:
    """Refuse a record that does not fit its task's schema, or holds a number that JSON has not.

    Raises:
        UserError: naming ``source`` and the first field that does not fit.
    """
    version = record.get("schema") if isinstance(record, dict) else None
    if isinstance(version, (int, float)) and version > SCHEMA_VERSION:
        raise UserError(
            f"{source} is a record of schema {version:g}, which a newer version of this project "
            f"wrote (this one reads {SCHEMA_VERSION}); update this checkout."
        )
    if not _is_finite(record):
        raise UserError(
            f"{source} has no number at {_no_number(record)} (NaN or an infinity); {_REMEDY}."
        )
    error = jsonschema.exceptions.best_match(_validator_of(record, source).iter_errors(record))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "the record"
        raise UserError(f"{source} is not a result record ({where}: {error.message}); {_REMEDY}.")


def _what_it_is(path: Path, content: bytes, error: Exception) -> str:
    """Names a file that is no JSON for what it is, with the remedy."""
    if content.startswith(b"version https://git-lfs"):
        return f"{path} is a pointer of Git LFS, not the record itself; get it with 'git lfs pull'."
    for number, line in enumerate(content.splitlines(), start=1):
        if line.startswith((b"<<<<<<< ", b">>>>>>> ")):
            return (
                f"{path} holds the conflict markers of a merge (line {number}); take one side with "
                "'git checkout --ours' or '--theirs' and this file."
            )
    if not content.strip(b"\0\t\r\n "):
        return f"{path} is empty; {_REMEDY}."
    return f"{path} cannot be read as a result record ({error}); {_REMEDY}."


class _ShortFloats(dict[str, float]):
    """Numbers by their text; accuracies, the bulk of a record, are few different ones.

    A short one is kept and shared by all records of a process, which then take a third less memory.
    """

    def __missing__(self, text: str) -> float:
        value = float(text)
        if len(text) <= _SHORT:
            self[text] = value
        return value


_SHORT: Final = 6
_SHORT_FLOATS: Final = _ShortFloats()


def read_record(path: Path) -> dict[str, Any]:
    """Read and check one record, in UTF-8 or another coding that JSON may have, marked or not.

    Raises:
        UserError: when the file is not JSON or does not fit the schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check the file and its permissions."
        ) from error
    try:
        record: dict[str, Any] = json.loads(content, parse_float=_SHORT_FLOATS.__getitem__)
    except (ValueError, RecursionError) as error:
        raise UserError(_what_it_is(path, content, error)) from error
    check_record(record, path)
    return record


NAMED_WITHOUT_EFFECT: Final = frozenset({
    "tau_max", "tau_power", "eps", "normalize_weights", "focal_gamma", "cfs_q", "cb_beta",
    "eql_gamma", "eql_threshold", "l2rw_batch_size", "mwn_batch_size", "mwn_learning_rate",
    "ldam_margin", "ldam_scale", "drw_epoch", "hard_weight", "difficulty", "difficulty_period",
    "rfs_threshold", "focal_alpha", "bags_beta", "calibration_threshold", "loss_reduction",
    "batch_size",
})  # fmt: skip
"""Settings that the first records name even where they do not count for the run. Later records do
not, and no later setting comes here."""


def config_differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of the settings in which two runs differ, sorted.

    One that is null is as good as absent; 5 and 5.0 are one value; what one of them need not name
    (:data:`NAMED_WITHOUT_EFFECT`) and does not name is not compared.
    """
    names = first.keys() | second.keys()
    names -= NAMED_WITHOUT_EFFECT - (first.keys() & second.keys())
    return sorted(name for name in names if first.get(name) != second.get(name))


_BALANCER_SETTINGS = {
    "tau_max": "tau_max",
    "eps": "eps",
    "tau_power": "power",
    "normalize_weights": "normalize",
    "difficulty_average": "average",
    "weights_from_epoch": "start_epoch",
}
"""Settings of a run, and the balancer's arguments that they are."""
STEADIERS: Final = ("difficulty_average", "difficulty_prior", "weights_from_epoch")
"""Settings that steady what follows the measured difficulty; none is the paper's."""
COURSES = ("difficulty", "bias", "tau", "class_weights")
"""What :func:`courses` gives; a record made before it may hold them too, they are not read."""


def courses(record: dict[str, Any]) -> dict[str, list[Any]]:
    """What a CDB run trained with in each epoch (Eqs. 3-10), from what it measured.

    The balancer is taken through the run's measurements again, so that the numbers are those of the
    training to the bit. Shapes: E epochs, C classes.

    Args:
        record: of a finished run.

    Returns:
        ``difficulty`` and ``class_weights`` (E, C), ``bias`` and ``tau`` (E,), an epoch's numbers
        being those before its measurement; nothing for a run without a balancer.
    """
    # Here alone: torch costs whoever reads records more than all else.
    import torch

    from common.balancer import ClassDifficultyBalancer
    from common.difficulty import smoothed_accuracy

    settings, measured = record["config"], record["history"]["class_accuracy"]
    if not settings["method"].startswith("cdb-"):  # A second stage may name the tau of its first.
        return {}
    options = {
        argument: settings[name]
        for name, argument in _BALANCER_SETTINGS.items()
        if name in settings
    }
    balancer = ClassDifficultyBalancer(len(measured[0]), settings["tau"], **options)
    rows: dict[str, list[Any]] = {name: [] for name in COURSES}
    for row in measured:
        for name, values in rows.items():
            values.append(getattr(balancer, name).tolist())
        if any(value is not None for value in row):
            performance = [math.nan if value is None else value for value in row]
            accuracy = torch.tensor(performance, dtype=torch.float64)
            if prior := settings.get("difficulty_prior", 0.0):
                accuracy = smoothed_accuracy(accuracy, record["split"]["difficulty"], prior)
            balancer.update(accuracy)
    return rows


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read every record below ``folder``, sorted by group and run; an absent folder holds none."""
    records = [read_record(path) for path in sorted(folder.rglob("*.json"))]
    return sorted(records, key=lambda record: (record["group"], record["run"]))
