"""Train one run: python -m classification.train mnist-lt --method cdb-w-ce --imbalance 99 --seed 0.

On several GPUs: torchrun --nproc-per-node 4 -m -- classification.train cifar100-lt --method cdb-s.
A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import sys
from pathlib import Path

import torch

from classification.arguments import Arguments
from classification.config import ClassificationConfig
from classification.recipes import RECIPES, group_name, run_name
from classification.record import SCHEMA
from classification.training import Training, begin, results
from common.errors import run_main
from common.training.loop import Weights
from common.training.run import run
from common.training.task import Results, Task


class ClassificationTask(Task[Arguments, ClassificationConfig, Training]):
    """Images, in memory or in files, and the classes that a network gives them."""

    name, recipes, arguments, schema = "classification", RECIPES, Arguments, SCHEMA

    def group_and_run(self, config: ClassificationConfig) -> tuple[str, str]:
        """Both stages of a recipe stand in one group."""
        return group_name(config), run_name(config)

    def begin(self, arguments: Arguments, device: torch.device, first: Weights | None) -> Training:
        """The run at its first step."""
        return begin(arguments, device, first)

    def results(self, training: Training, arguments: Arguments, folder: Path) -> Results:
        """Error of the last epoch and of the best on the difficulty set."""
        return results(training)


TASK = ClassificationTask()


def main() -> None:
    """Command line."""
    run(TASK, TASK.parse(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
