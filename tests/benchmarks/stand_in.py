"""A run that sleeps in place of training."""

import time
from types import SimpleNamespace
from typing import Any

import torch

from common.training.signals import StopRequest

EPOCH_SECONDS, IMAGES = 0.2, 100


class SleepingRun:
    """What the benchmark uses of a ``Training``."""

    device = torch.device("cpu")
    method = SimpleNamespace(sampler=SimpleNamespace(num_samples=IMAGES))

    def run_epoch(self, stop: StopRequest) -> bool:
        time.sleep(EPOCH_SECONDS)
        return True

    def end_epoch(self) -> dict[str, float]:
        return {}


def sleeping_run() -> Any:
    return SleepingRun()
