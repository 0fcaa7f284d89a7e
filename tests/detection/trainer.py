"""Training processes of detection runs: those of tests/classification with another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.task import Task
from detection.train import TASK
from tests.classification.trainer import Trainer


@dataclass(kw_only=True)
class DetectionTrainer(Trainer):
    """Starts ``detection.train`` in processes that can be killed."""

    task: Task[Any, Any, Any] = TASK
    data: Path
    """The set that runs are of which name no other."""

    def command_line(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """``arguments``, which begin with a recipe, and the data."""
        if "--data" in arguments:
            return arguments
        return (*arguments, "--data", str(self.data), "--images", str(self.data))


def first_stage_folder(out: Path, *arguments: str) -> Path:
    """The folder of the first stage of a second one, by the arguments of the second."""
    first = TASK.first_stage(TASK.resolve(TASK.parse([*arguments, "--out", str(out)])))
    assert first is not None
    return TASK.folder(first)
