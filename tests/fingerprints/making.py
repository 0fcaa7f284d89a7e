"""All cases, so many at a time: a process for each task, and in it one for each case."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.fingerprints.cases import Case

Made = dict[str, dict[str, Any]]
"""By the name of a case what is kept of it; ``{"failed": words}`` where a command went wrong."""


def make_cases(cases: Iterable[Case], data: Path, scratch: Path, jobs: int) -> Iterator[Made]:
    """Carry them out, with a line for each; yields what is made of a task.

    This process imports nothing large, so that what one task imports is not there in another.

    Args:
        cases: those of a task together.
        data: folder of the tiny data, which is there.
        scratch: a folder for runs and results; what is made is left in it.
        jobs: cases at a time.
    """
    for task, of_task in groupby(cases, key=lambda case: case.task):
        chosen = list(of_task)
        apart(_be_the_task, task, chosen, data, scratch, jobs)
        yield dict(_results(chosen, scratch))


def _results(cases: list[Case], scratch: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for case in cases:
        path = _result(case, scratch)
        lost = {"failed": "its process has ended without a result"}
        yield case.name, json.loads(path.read_bytes()) if path.exists() else lost


def _result(case: Case, scratch: Path) -> Path:
    return scratch / f"{case.name.replace('/', ' ')}.json"


def _be_the_task(task: str, cases: list[Case], data: Path, scratch: Path, jobs: int) -> None:
    from tests.fingerprints.runs import load

    load(task)
    running: dict[int, tuple[Case, float]] = {}
    left = list(cases)
    while left or running:
        if left and len(running) < jobs:
            case = left.pop(0)
            running[_start(_be_the_case, case, data, scratch)] = case, time.monotonic()
            continue
        process, _, used = os.wait4(-1, 0)
        case, started = running.pop(process)
        seconds = time.monotonic() - started
        cpu = used.ru_utime + used.ru_stime
        print(f"{case.name}  {seconds:.1f} s ({cpu:.1f} s of a core)", flush=True)


def _be_the_case(case: Case, data: Path, scratch: Path) -> None:
    from tests.fingerprints.runs import FailedError, fingerprint

    place = scratch / case.name.replace("/", " ")
    place.mkdir()
    try:
        kept = fingerprint(case, data, place)
    except FailedError as error:
        print(f"{case.name} failed: {error}", flush=True)
        kept = {"failed": str(error)}
    _result(case, scratch).write_text(json.dumps(kept))


def apart(work: Callable[..., None], *arguments: Any) -> int:
    """Do it in a process of its own, to its end; the exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(_start(work, *arguments), 0)[1])


def _start(work: Callable[..., None], *arguments: Any) -> int:
    """Begin it in a forked process, which ends with it; its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        work(*arguments)
        sys.stdout.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)
