"""What a result record of image classification holds beyond what all records share."""

from typing import Any, Final

from common.training.record import (
    CLASS_HISTORY,
    evaluation,
    last_and_best,
    register_schema,
    task_schema,
)

_EVALUATION = evaluation(
    shot_accuracy={"type": "object", "additionalProperties": {"type": "number"}}
)
# Where images are held out to choose it by there is a best epoch.
_BEST_IF_HELD_OUT: Final[dict[str, Any]] = {
    "if": {
        "properties": {
            "split": {"properties": {"difficulty": {"contains": {"exclusiveMinimum": 0}}}}
        }
    },
    "then": {"properties": {"metrics": {"required": ["best"]}}},
}
TASK: Final = "classification"
SCHEMA: Final[dict[str, Any]] = register_schema(
    task_schema(
        TASK,
        metrics=last_and_best(_EVALUATION) | {"required": ["last"]},
        **_BEST_IF_HELD_OUT,
        # Of each class the samples that focal loss weighs above a bound, in each epoch (Fig. 4).
        history={"hard_instances": CLASS_HISTORY},
    )
)
