"""What it means that a disturbed run ended equal to the undisturbed one, and that nothing is lost.

Equal: the same runs are there, and of each the configuration, the weights of the last and of the
best epoch and the record but for its provenance are the same to the bit; beside them stand the
log and the free lock, no checkpoint and no part of a file.

Lost: whatever was whole on the disk, a checkpoint, weights, a record, and is damaged or further
back after a fault; a file of the data that a run has changed.
"""

import fcntl
import hashlib
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common.errors import UserError
from common.training.folder import load_tensors
from common.training.record import read_record
from tests.classification.trainer import assert_nothing_left_over, assert_same_run

Progress = dict[str, tuple[float, int]]
"""By run: epoch and step of its checkpoint; (inf, 0) when it has finished."""


def run_folders(place: Path) -> dict[str, Path]:
    """The runs of ``place/runs`` by their names."""
    return {path.name: path for path in sorted((place / "runs").glob("*/*"))}


def differences(place: Path, reference: Path) -> list[str]:
    """What is not as in the undisturbed run, in words."""
    ours, theirs = run_folders(place), run_folders(reference)
    if ours.keys() != theirs.keys():
        return [f"runs {sorted(ours)}, not {sorted(theirs)}"]
    found = []
    for name, run in ours.items():
        checks: tuple[Callable[[], None], ...] = (
            partial(assert_same_run, run, theirs[name]),
            partial(assert_nothing_left_over, run),
            partial(_assert_same_bytes, run, theirs[name], "config.json"),
            partial(_assert_free, run / "lock"),
        )
        found += [f"{name}: {words}" for check in checks if (words := _failure(check))]
    return found


def _failure(check: Callable[[], None]) -> str:
    """What is wrong; empty if nothing is."""
    try:
        check()
    except AssertionError as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line
        return str(error) or str(line)
    except (OSError, ValueError, UserError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _assert_same_bytes(run: Path, reference: Path, name: str) -> None:
    assert (run / name).read_bytes() == (reference / name).read_bytes(), f"{name} differs"


def _assert_free(lock: Path) -> None:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def progress(place: Path) -> Progress:
    """How far the runs of a place are; reads every file that could be continued from.

    Raises:
        UserError: one of them is damaged.
    """
    found: Progress = {}
    for name, run in run_folders(place).items():
        found[name] = (0, 0)
        if (run / "checkpoint.pt").exists():
            state = load_tensors(run / "checkpoint.pt")["state"]["training"]
            within = state["step"] < len(state["losses"])  # Else the epoch before is complete.
            found[name] = (state["epoch"], state["step"] if within else 0)
        if (run / "weights.pt").exists():
            load_tensors(run / "weights.pt")
        if (run / "record.json").exists():
            read_record(run / "record.json")
            found[name] = (float("inf"), 0)
    return found


def lost(before: Progress, place: Path) -> list[str]:
    """What a fault has cost since ``before``, in words; ``before`` is brought up to date."""
    try:
        now = progress(place)
    except UserError as error:
        return [f"damaged by the fault: {error}"]
    behind = [
        f"{name} fell back from {at} to {now.get(name)}"
        for name, at in before.items()
        if now.get(name, (0, 0)) < at
    ]
    before |= now
    return behind


def partial_files(place: Path) -> int:
    """How many files a killed process left half-written; the next start clears the run's."""
    return sum(1 for _ in place.rglob("*.partial"))


def digest(folder: Path) -> str:
    """Of the names and contents of all files below ``folder``."""
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\n".encode())
        content.update(path.read_bytes())
    return content.hexdigest()
