"""What the benchmarks share: timing several jobs in turn, and a line for each figure.

What a program has shown, it can write as a file of measurements (``analysis/measured.py``).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from common.files import write_atomically
from common.training.provenance import environment

Job = Callable[[], float]
"""Does its work and returns the seconds it took, or seconds per step, image or whatever."""
Times = dict[str, list[float]]
"""What each job returned, by name, one number a round."""
_shown: Final[list[dict[str, Any]]] = []


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
    ends = {"smallest": _rounded(min(values)), "largest": _rounded(max(values))}
    row = {"what": label, "value": _rounded(middle)} | (ends if len(values) > 1 else {})
    _shown.append(row | {"unit": unit})


def _rounded(value: float) -> float:
    """To three digits; a whole number as such."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option that :func:`write_shown` is given."""
    parser.add_argument("--out", type=Path, help="file for what is printed, as benchmarks/measured")


def write_shown(out: Path | None, command: str, rounds: int, device: torch.device) -> None:
    """Write all that was shown, with the machine and the day; without ``out`` nothing.

    Raises:
        UserError: the file cannot be written.
    """
    if out is None:
        return
    made = environment(device)
    hardware = made["hardware"]
    threads = f"{hardware['threads']} torch thread" + "s" * (hardware["threads"] != 1)
    content: dict[str, Any] = {
        "command": command,
        "machine": f"{hardware['cores']} cores of {hardware['processor']}, {hardware['device']}",
        "versions": made["versions"],
        "date": datetime.now(UTC).date().isoformat(),
        "how": f"Median (smallest .. largest) of {rounds} interleaved measurements, {threads}.",
        "rows": _shown,
    }
    write_atomically(out, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def at_least(limit: int) -> Callable[[str], int]:
    """For the command line: reads a whole number of at least ``limit``."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < limit:
            raise argparse.ArgumentTypeError(f"must be at least {limit}, not {number}")
        return number

    return whole_number
