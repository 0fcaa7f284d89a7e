"""Training processes of video runs: those of tests/classification with another program."""

from dataclasses import dataclass
from pathlib import Path

from tests.classification.trainer import Trainer
from video.recipes import run_name
from video.train import TASK


@dataclass(kw_only=True)
class VideoTrainer(Trainer):
    """Starts ``video.train`` in processes that can be killed."""

    data: Path
    """The set that runs are of which name no other."""

    def command_line(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """``arguments``, which begin with a recipe, and the data."""
        return arguments if "--data" in arguments else (*arguments, "--data", str(self.data))

    def run_folder(self, out: Path, *arguments: str) -> Path:
        """The folder of a run below ``out``."""
        config = TASK.parse([*arguments]).config
        return out / config.dataset / run_name(config)
