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
TASK: Final = "classification"
SCHEMA: Final[dict[str, Any]] = register_schema(
    task_schema(
        TASK,
        metrics=last_and_best(_EVALUATION),
        # Of each class the samples that focal loss weighs above a bound, in each epoch (Fig. 4).
        history={"hard_instances": CLASS_HISTORY},
    )
)
