"""What a result record of detection holds beyond what all records share.

A run is measured by AP in place of error and accuracy, and after its last epoch only: not every
method measures its difficulty set, which alone could choose a best epoch. The split's counts are
images, ``frequency`` has a letter for each category: rare, common or frequent. A row of
``history.class_accuracy`` holds AP in [0, 1] or the accuracy of proposals, null where nothing was
measured.
"""

from typing import Any, Final

from common.training.record import FRACTION_LIST, register_schema, task_schema

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


def _metrics(*kinds: str) -> dict[str, Any]:
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


TASK: Final = "detection"
SCHEMA: Final[dict[str, Any]] = register_schema(
    task_schema(
        TASK,
        condition={"enum": ["bbox", "bbox+segm"]},
        split={"frequency!": {"type": "string", "pattern": "^[rcf]+$"}},
        metrics={"type": "object"},
        history={"class_accuracy": {"type": "array", "items": FRACTION_LIST}},
        **{
            "if": {"properties": {"condition": {"const": "bbox+segm"}}},
            "then": {"properties": {"metrics": _metrics("bbox", "segm")}},
            "else": {"properties": {"metrics": _metrics("bbox")}},
        },
    )
)
