"""Train one run: python -m detection.train digit-scenes --method cdb-w-ce --seed 0.

On several GPUs: torchrun --nproc-per-node 4 -m -- detection.train lvis --method cdb-w-ce --seed 0.
A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import sys
from pathlib import Path

import torch

from common.errors import run_main
from common.training.loop import Weights
from common.training.run import run
from common.training.task import Results, Task
from detection.arguments import Arguments
from detection.recipes import RECIPES, DetectionConfig, group_name, run_name
from detection.record import SCHEMA
from detection.training import Training, begin, results


class DetectionTask(Task[Arguments, DetectionConfig, Training]):
    """Scenes, and the objects that a detector finds in them."""

    name, recipes, arguments, schema = "detection", RECIPES, Arguments, SCHEMA

    def group_and_run(self, config: DetectionConfig) -> tuple[str, str]:
        """Both stages of a recipe stand in one group."""
        return group_name(config), run_name(config)

    def begin(self, arguments: Arguments, device: torch.device, first: Weights | None) -> Training:
        """The run at its first step."""
        return begin(arguments, device, first)

    def results(self, training: Training, arguments: Arguments, folder: Path) -> Results:
        """AP of the last epoch, and pictures."""
        return results(training, arguments.workers, folder)


TASK = DetectionTask()


def main() -> None:
    """Command line."""
    run(TASK, TASK.parse(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
