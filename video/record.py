"""What a result record of video classification holds beyond what all records share."""

from typing import Any, Final

from common.training.record import (
    COUNT_LIST,
    FRACTION,
    FRACTION_LIST,
    FRACTION_OR_NULL,
    evaluation,
    last_and_best,
    register_schema,
    task_schema,
)

# Macro precision and recall of the head or the tail classes; null where none has a sample.
_PRECISION_AND_RECALL: Final = {
    "type": "object",
    "required": ["precision", "recall"],
    "additionalProperties": False,
    "properties": {"precision": FRACTION_OR_NULL, "recall": FRACTION_OR_NULL},
}
_EVALUATION: Final = evaluation(
    top5_accuracy=FRACTION,
    macro_precision=FRACTION,
    macro_recall=FRACTION,
    head=_PRECISION_AND_RECALL,
    tail=_PRECISION_AND_RECALL,
    class_precision=FRACTION_LIST,
    # Rows true, columns predicted.
    confusion={"type": "array", "items": COUNT_LIST},
)
TASK: Final = "video"
SCHEMA: Final[dict[str, Any]] = register_schema(
    task_schema(
        TASK,
        metrics=last_and_best(_EVALUATION),
        # Indices of the head classes; the others are the tail.
        split={"head": COUNT_LIST},
    )
)
