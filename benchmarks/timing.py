"""What the benchmarks share: timing several jobs in turn, and a line for each figure."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch

Job = Callable[[], float]
"""Does its work and returns the seconds it took, or seconds per step, image or whatever."""
Times = dict[str, list[float]]
"""What each job returned, by name, one number a round."""


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall time of one call, with whatever it leaves a CUDA ``device`` to do."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device | None) -> None:
    """Until the device has done everything it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(jobs: Mapping[str, Job], rounds: int) -> Times:
    """Each job once to warm up, then all of them in turn, ``rounds`` times.

    In turn, so that what slows the machine for a while slows every job alike.
    """
    for job in jobs.values():
        job()
    times: Times = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(job())
    return times


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Quotients round by round."""
    return [x / y for x, y in zip(above, below, strict=True)]


def show(label: str, values: list[float], unit: str, target: str = "") -> None:
    """One line: median, smallest, largest, and what we want."""
    middle = statistics.median(values)
    line = f"{label:<58} {middle:8.2f} ({min(values):.2f} .. {max(values):.2f}) {unit:<9} {target}"
    print(line.rstrip(), flush=True)


def at_least(limit: int) -> Callable[[str], int]:
    """For the command line: reads a whole number of at least ``limit``."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < limit:
            raise argparse.ArgumentTypeError(f"must be at least {limit}, not {number}")
        return number

    return whole_number
