"""Train one run: python -m video.train egtea-verbs --method cdb-w-ce --seed 0.

On several GPUs: torchrun --nproc-per-node 8 -m -- video.train egtea-verbs --method cdb-w-ce.
A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import sys
from pathlib import Path

import torch

from common.errors import run_main
from common.training.loop import Weights
from common.training.run import run
from common.training.task import Results, Task
from video.arguments import Arguments
from video.recipes import RECIPES, VideoConfig, run_name
from video.record import SCHEMA
from video.training import Training, begin, results


class VideoTask(Task[Arguments, VideoConfig, Training]):
    """Clips of actions, and the verbs that a network gives them."""

    name, recipes, arguments, schema = "video", RECIPES, Arguments, SCHEMA

    def group_and_run(self, config: VideoConfig) -> tuple[str, str]:
        """A data set is a group."""
        return config.dataset, run_name(config)

    def begin(self, arguments: Arguments, device: torch.device, first: Weights | None) -> Training:
        """The run at its first step."""
        return begin(arguments, device)

    def results(self, training: Training, arguments: Arguments, folder: Path) -> Results:
        """Accuracies of the last epoch and of the best on the difficulty set."""
        return results(training, arguments.workers)


TASK = VideoTask()


def main() -> None:
    """Command line."""
    run(TASK, TASK.parse(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
