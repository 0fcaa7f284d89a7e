"""Training processes of video runs: those of tests/classification with another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.task import Task
from tests.classification.trainer import Trainer
from video.train import TASK


@dataclass(kw_only=True)
class VideoTrainer(Trainer):
    """Starts ``video.train`` in processes that can be killed."""

    task: Task[Any, Any, Any] = TASK
    data: Path
    """The set that runs are of which name no other."""

    def command_line(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """``arguments``, which begin with a recipe, and the data."""
        return arguments if "--data" in arguments else (*arguments, "--data", str(self.data))
