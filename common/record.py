"""The result record: one JSON file per finished run, checked against its task's schema.

A record says what was run (``config``, ``split``), what came out (``metrics``, ``history``) and
where (``provenance``). Everything but ``provenance`` is a function of the configuration: two runs
of one configuration on one machine write the same bytes there. A missing value is absent, never 0.
``history`` keeps what was measured; what follows from it by the paper's equations, difficulty, tau
and weights, :func:`courses` computes.

A run of the task ``detection`` is measured by AP in place of error and accuracy, and after its last
epoch only: not every method measures its difficulty set, which alone could choose a best epoch.
"""

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import torch

from common.balancer import ClassDifficultyBalancer
from common.config import uses_difficulty
from common.errors import UserError

_NUMBER_LIST = {"type": "array", "items": {"type": ["number", "null"]}}
_CLASS_HISTORY = {"type": "array", "items": _NUMBER_LIST}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_FRACTION_OR_NULL = {"anyOf": [_FRACTION, {"type": "null"}]}
_FRACTION_LIST = {"type": "array", "items": _FRACTION_OR_NULL}
_COUNT_LIST = {"type": "array", "items": {"type": "integer", "minimum": 0}}
# Macro precision and recall of the head or the tail classes; null where none has a sample.
_PRECISION_AND_RECALL = {
    "type": "object",
    "required": ["precision", "recall"],
    "additionalProperties": False,
    "properties": {"precision": _FRACTION_OR_NULL, "recall": _FRACTION_OR_NULL},
}

_EVALUATION = {
    "type": "object",
    "required": ["epoch", "error", "class_accuracy"],
    "properties": {
        "epoch": {"type": "integer", "minimum": 1},
        "error": {"type": "number", "minimum": 0, "maximum": 100},
        "class_accuracy": _FRACTION_LIST,
        "difficulty_set_accuracy": _FRACTION,
        "shot_accuracy": {"type": "object", "additionalProperties": {"type": "number"}},
        "top5_accuracy": _FRACTION,
        "macro_precision": _FRACTION,
        "macro_recall": _FRACTION,
        "head": _PRECISION_AND_RECALL,
        "tail": _PRECISION_AND_RECALL,
        "class_precision": _FRACTION_LIST,
        # Rows true, columns predicted.
        "confusion": {"type": "array", "items": _COUNT_LIST},
    },
}

SCHEMA: dict[str, Any] = {
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
        "schema": {"const": 1},
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
                "train": _COUNT_LIST,
                "difficulty": _COUNT_LIST,
                "test": _COUNT_LIST,
                "imbalance": {"type": "number", "minimum": 1},
                "digest": {"type": "string"},
                # Indices of the head classes; the others are the tail.
                "head": _COUNT_LIST,
                # What a reader of the numbers should know about the split, in sentences.
                "notes": {"type": "array", "items": {"type": "string"}},
            },
        },
        "metrics": {
            "type": "object",
            "required": ["last", "best"],
            "properties": {"last": _EVALUATION, "best": _EVALUATION},
        },
        "history": {
            "type": "object",
            "required": ["epoch", "loss", "class_accuracy"],
            "properties": {
                "epoch": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "loss": _NUMBER_LIST,
                "learning_rate": _NUMBER_LIST,
                "class_accuracy": _CLASS_HISTORY,
                "hard_instances": _CLASS_HISTORY,
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

_PERCENT_OR_NULL = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, {"type": "null"}]}
_AVERAGES = ("AP", "AP50", "AP75", "APr", "APc", "APf")
_AVERAGES_BY_SIZE = ("APs", "APm", "APl")
# In percent; null where no category was measured.
_AP = {
    "type": "object",
    "required": [*_AVERAGES, "category_ap"],
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys((*_AVERAGES, *_AVERAGES_BY_SIZE), _PERCENT_OR_NULL),
        "category_ap": {"type": "array", "items": _PERCENT_OR_NULL},
    },
}


def _detection_metrics(*kinds: str) -> dict[str, Any]:
    """What is measured once, after the last epoch: AP of each kind."""
    last = {
        "type": "object",
        "required": ["epoch", *kinds],
        "additionalProperties": False,
        "properties": {"epoch": {"type": "integer", "minimum": 1}, **dict.fromkeys(kinds, _AP)},
    }
    return {
        "type": "object",
        "required": ["last"],
        "additionalProperties": False,
        "properties": {"last": last},
    }


def _detection_schema() -> dict[str, Any]:
    """The schema of detection runs; the rest of a record is as in the other tasks.

    The split's counts are images, ``frequency`` has a letter for each category: rare, common or
    frequent. A row of ``history.class_accuracy`` holds AP in [0, 1] or the accuracy of proposals,
    null where nothing was measured.
    """
    fields: dict[str, Any] = SCHEMA["properties"]
    split = fields["split"]
    frequency = {"type": "string", "pattern": "^[rcf]+$"}
    courses = fields["history"]["properties"]
    measured = {"type": "array", "items": _FRACTION_LIST}
    return SCHEMA | {
        "properties": fields | {
            "task": {"const": "detection"},
            "condition": {"enum": ["bbox", "bbox+segm"]},
            "split": split | {
                "required": [*split["required"], "frequency"],
                "properties": split["properties"] | {"frequency": frequency},
            },
            "metrics": {"type": "object"},
            "history": fields["history"] | {"properties": courses | {"class_accuracy": measured}},
        },
        "if": {"properties": {"condition": {"const": "bbox+segm"}}},
        "then": {"properties": {"metrics": _detection_metrics("bbox", "segm")}},
        "else": {"properties": {"metrics": _detection_metrics("bbox")}},
    }  # fmt: skip


DETECTION_SCHEMA = _detection_schema()

SCHEMA_NUMBER = SCHEMA["properties"]["schema"]["const"]
_ANEW = "take a whole copy of it, or move the file away and run its experiment again"

_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
_DETECTION_VALIDATOR = jsonschema.Draft202012Validator(DETECTION_SCHEMA)


def _validator_of(record: object) -> jsonschema.Draft202012Validator:
    """The validator of a record's task."""
    is_detection = isinstance(record, dict) and record.get("task") == "detection"
    return _DETECTION_VALIDATOR if is_detection else _VALIDATOR


def check_record(record: dict[str, Any], source: object) -> None:
    """Refuse a record that does not fit its task's schema.

    Raises:
        UserError: naming ``source`` and the first field that does not fit.
    """
    number = record.get("schema") if isinstance(record, dict) else None
    if isinstance(number, int) and number > SCHEMA_NUMBER:
        raise UserError(
            f"{source} is a record of schema {number}, which a newer version of this project "
            f"wrote; this one reads schema {SCHEMA_NUMBER}: read it with that version."
        )
    error = jsonschema.exceptions.best_match(_validator_of(record).iter_errors(record))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "the record"
        raise UserError(f"{source} is not a result record ({where}: {error.message}); {_ANEW}.")


def _not_json(text: str, error: Exception) -> str:
    """What a file is whose text is no JSON, and the remedy."""
    if text.startswith("version https://git-lfs."):
        return "is Git LFS's pointer to the record; fetch the record with 'git lfs pull'"
    if any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for line in text.splitlines()):
        return (
            "holds the conflict markers of a merge; take one side's file, with git checkout --ours "
            "or --theirs"
        )
    if text.startswith("\ufeff"):
        return "begins with a byte-order mark, as an editor adds it; save it as UTF-8 without one"
    if not text.strip("\0 \r\n\t"):
        return f"is empty; {_ANEW}"
    return f"cannot be read as a result record ({error}); {_ANEW}"


def read_record(path: Path) -> dict[str, Any]:
    """Read and check one record.

    Raises:
        UserError: when the file is not JSON or does not fit the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(text)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as a result record ({error}); {_ANEW}.") from error
    except ValueError as error:
        raise UserError(f"{path} {_not_json(text, error)}.") from error
    check_record(record, path)
    return record


_BALANCER_SETTINGS = {
    "tau_max": "tau_max",
    "eps": "eps",
    "tau_power": "power",
    "normalize_weights": "normalize",
}
"""Settings of a run, and the balancer's arguments that they are."""
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
    settings, measured = record["config"], record["history"]["class_accuracy"]
    if not uses_difficulty(settings["method"]):
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
            balancer.update(torch.tensor(performance, dtype=torch.float64))
    return rows


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read every record below ``folder``, sorted by group and run; an absent folder holds none."""
    records = [read_record(path) for path in sorted(folder.rglob("*.json"))]
    return sorted(records, key=lambda record: (record["group"], record["run"]))
