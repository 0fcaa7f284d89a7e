"""What has become of the runs of experiments: ``run_all.sh --status``, here and under Slurm.

Reads commands, one a line, from standard input; a line ``# NAME`` before them names their
experiment. Each command's training module is imported once and asked for the run's folder with
``TASK.folder_of(words)``; what stands in that folder, its lock, the logs and Slurm's queue tell the
rest. Nothing is written, and no run is disturbed.
"""

import argparse
import contextlib
import fcntl
import getpass
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from common.errors import UserError, run_main
from common.launching.local import Command, Run
from common.terminal import printable

STATES: Final = (
    "finished", "running", "queued", "failed", "stopped", "interrupted", "missing",
)  # fmt: skip
"""finished: its record is there. running: a process holds its folder, or Slurm starts it. queued:
in Slurm's queue. failed: its last start ended by an error. stopped: it, or its first stage, has a
checkpoint and nobody goes on with it. interrupted: killed before that. missing: never started."""

QUEUE_SECONDS: Final = 30.0  # the longest that Slurm's queue is waited for

_ERROR: Final = re.compile(r"(?:error: |slurmstepd: error: |[\w.]*(?:Error|Exception)\b).*")
# What run_main ends a process with, unless it only says that another has ended.
_LAST_WORDS: Final = re.compile(r"^error: (?!another process of this run has ended)", re.MULTILINE)
# torchrun's own end, or a process's that lost another: neither tells a reason.
_NO_REASON: Final = re.compile(
    r"[\w.]*ChildFailedError|error: another process of this run has ended"
)
_FRAME: Final = re.compile(r"[╭╮╰╯│─]+")
_SLURM_FAILED: Final = re.compile(r"^ended with exit code (?!0$)\d+$", re.MULTILINE)
_ATTEMPT: Final = re.compile(r"^\$ ", re.MULTILINE)
_STOPPED: Final = "stopped after a checkpoint"
_NO_FAILURE: Final = (_STOPPED, "finished already")


@dataclass(frozen=True)
class Task:
    """One task of a Slurm array that was submitted for a run."""

    name: str
    """JOB_TASK, as Slurm calls it."""
    log: Path


@dataclass(frozen=True)
class Status:
    """What has become of one run."""

    state: str
    """One of :data:`STATES`."""
    run: str
    """GROUP/RUN, or the command where it names no run."""
    words: str = ""
    """Epochs of a running or stopped run, the reason of a failed one."""
    log: Path | None = None


def split_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """Module and arguments of ``python -m MODULE ...``, also behind torchrun's own words.

    Raises:
        UserError: when there is no module.
    """
    rest = list(words)
    with contextlib.suppress(ValueError, IndexError):
        at = rest.index("-m") + 1
        if rest[at] == "torch.distributed.run":
            at = rest.index("--", at) + 1
        return rest[at], rest[at + 1 :]
    raise UserError(f"'{shlex.join(words)}' names no module after -m; see run_all.sh --dry-run.")


@cache
def _folder_of(line: str) -> Path | str:
    """The folder of a command's run, or why the command names none."""
    module, arguments = split_command(shlex.split(line))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            folder: Path = importlib.import_module(module).TASK.folder_of(arguments)
    except UserError as error:
        return str(error)
    except SystemExit:  # The parser of the command line has said what is wrong.
        return complaint(said.getvalue())
    return folder


def lacks_data(words: Sequence[str]) -> bool:
    """Whether a command's last ``--data`` is not there: its run cannot have been started."""
    places = [after for word, after in pairwise(words) if word == "--data"]
    return bool(places) and not Path(places[-1]).exists()


def complaint(text: str) -> str:
    """What a parser's framed complaint says, without its title and the hint at its end."""
    lines = [" ".join(_FRAME.sub(" ", line).split()) for line in text.splitlines()]
    said = [line for line in lines if line and not line.startswith("For full helptext")]
    return " ".join(said[1:] or said)


def last_error(text: str) -> str:
    """The last line that tells an error, without ``error:``; failing that the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    reasons = [line for line in errors if not _NO_REASON.match(line)]
    found = (reasons or errors or lines or ["no word in its log"])[-1]
    return found.removeprefix("error: ")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def last_attempt(log: Path | None) -> str:
    """What a log holds of the run's last start, without the line of its command."""
    attempts = _ATTEMPT.split("" if log is None else _read(log))
    return attempts[-1].partition("\n")[2] if len(attempts) > 1 else ""


def is_locked(folder: Path) -> bool:
    """Whether a process has the run in hand; see ``common.training.folder.RunFolder``."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_queue() -> dict[str, str]:
    """State of each task that Slurm has for this user, by its name; empty without Slurm."""
    if shutil.which("squeue") is None:
        return {}
    words = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%F_%K %T"]
    try:
        asked = subprocess.run(
            words, capture_output=True, text=True, timeout=QUEUE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"Slurm's queue cannot be read: {last_error(str(said))}", file=sys.stderr)
        return {}
    return dict(line.split(maxsplit=1) for line in asked.stdout.splitlines())


def read_tasks(slurm: Path) -> Iterator[tuple[str, Task]]:
    """Command and task of all that was submitted, oldest first.

    Args:
        slurm: the folder OUT/slurm; its ``jobs.txt`` has a line for each array: the job's number,
            the experiment, the file whose line i is the command of task i.
    """
    for entry in _read(slurm / "jobs.txt").splitlines():
        job, experiment, file = entry.split("\t")
        for number, line in enumerate(_read(Path(file)).splitlines(), start=1):
            name = f"{job}_{number}"
            yield line, Task(name, slurm / f"{experiment}-{name}.log")


@dataclass
class Look:
    """All that there is to know besides the runs' folders."""

    out: Path
    """Folder of the runs."""
    queue: dict[str, str] = field(default_factory=dict)
    """Slurm's state of each task, by its name."""
    tasks: dict[Path, list[Task]] = field(default_factory=dict)
    """Tasks submitted for a run's folder, oldest first."""

    @classmethod
    def at(cls, out: Path) -> "Look":
        """Look at the folder of the runs and at the queue."""
        submitted = (out / "slurm" / "jobs.txt").exists()
        look = cls(out, read_queue() if submitted else {})
        for line, task in read_tasks(out / "slurm"):
            folder = _folder_of(line)
            if isinstance(folder, Path):
                look.tasks.setdefault(folder, []).append(task)
        return look

    def status(self, line: str) -> Status:
        """What has become of a command's run."""
        folder = _folder_of(line)
        if isinstance(folder, str):
            given = split_command(shlex.split(line))[1]
            return Status("missing" if lacks_data(given) else "failed", shlex.join(given), folder)
        name = f"{folder.parent.name}/{folder.name}"
        tasks = self.tasks.get(folder, [])
        logs = [task.log for task in tasks]
        logs.append(self.out / "logs" / Command(tuple(shlex.split(line))).log_name)
        log = max((log for log in logs if log.exists()), key=_age, default=None)
        state, words = self._state(folder, tasks, log)
        return Status(state, name, words, log)

    def _state(self, folder: Path, tasks: list[Task], log: Path | None) -> tuple[str, str]:
        if (folder / "record.json").exists():
            return "finished", ""
        if is_locked(folder):
            return "running", epochs(log)
        queued = [self.queue[task.name] for task in tasks if task.name in self.queue]
        if any(state != "PENDING" for state in queued):
            return "running", "Slurm starts or ends it"
        if queued:
            return "queued", epochs(log)
        if (reason := failure(folder, log)) is not None:
            return "failed", reason
        if not folder.exists():
            return "missing", ""
        # The checkpoint of a first stage lies in that stage's folder.
        if (folder / "checkpoint.pt").exists() or _STOPPED in last_attempt(log):
            return "stopped", epochs(log)
        return "interrupted", ""


def _age(path: Path) -> float:
    """When it was last written; 0 where it is not."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def epochs(log: Path | None) -> str:
    """The last epoch that a log tells: ``epoch 3/40``; empty if none."""
    if log is None:
        return ""
    run = Run(Command(()), log)
    run.hear(_read(log).encode(), 0.0)
    return f"epoch {run.epoch}/{run.epochs}" if run.epochs else ""


def failure(folder: Path, log: Path | None) -> str | None:
    """Why a run's last start failed, in a line; None if it did not.

    Args:
        folder: the run's; its ``failure.json`` is there until the run's next start.
        log: the one written last, if any; it tells of what failed before there was a folder, and
            of what could leave no note (torchrun may kill the first rank before it does) by an
            ``error:`` line or the exit code that ``common/launching/slurm_task.sh`` notes.
    """
    if (folder / "failure.json").exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(_read(folder / "failure.json"))["error"])
    text = last_attempt(log)
    if log is None or not text.strip() or any(words in text for words in _NO_FAILURE):
        return None
    failed = _SLURM_FAILED.search(text) or _LAST_WORDS.search(text)
    if failed and _age(log) >= _age(folder / "checkpoint.pt"):
        # The task's own end is no reason.
        return last_error(_SLURM_FAILED.sub("", text))
    if not folder.exists() and _ERROR.search(text):
        return last_error(text)
    return None


def read_experiments(text: str) -> dict[str, list[str]]:
    """Commands by experiment, from lines ``# NAME`` and command lines."""
    found: dict[str, list[str]] = {}
    lines: list[str] = found.setdefault("", [])
    for line in text.splitlines():
        if line.startswith("# "):
            lines = found.setdefault(line.removeprefix("# "), [])
        elif line.strip():
            lines.append(line)
    return {name: commands for name, commands in found.items() if commands}


def table(experiments: dict[str, list[Status]]) -> str:
    """A line for each experiment: its runs, and how many are in each state."""
    width = max(map(len, experiments))
    rows: list[tuple[str, ...]] = [("", "runs", *STATES)]
    for name, runs in experiments.items():
        counts = Counter(run.state for run in runs)
        numbers = (str(counts[state]) if counts[state] else "-" for state in STATES)
        rows.append((name, str(len(runs)), *numbers))
    widths = [width, 5, *(max(5, len(state)) for state in STATES)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in rows)
    )


def details(experiments: dict[str, list[Status]]) -> list[str]:
    """Lines about the runs in hand, then those to go on with, then those that failed."""
    runs = {run.run: run for found in experiments.values() for run in found}
    lines = []
    for state in ("running", "stopped", "failed"):
        for run in (run for run in runs.values() if run.state == state):
            lines.append(f"{state}: {run.run}" + (f": {run.words}" if run.words else ""))
            if state == "failed" and run.log is not None:
                lines.append(f"    log: {run.log}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: prints the table and the lines about single runs.

    Raises:
        UserError: when a command names no module.
    """
    parser = argparse.ArgumentParser(prog="python -m common.launching.states", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs")
    look = Look.at(parser.parse_args(arguments).out)
    experiments = {
        name: [look.status(line) for line in commands]
        for name, commands in read_experiments(os.fsdecode(sys.stdin.buffer.read())).items()
    }
    if not experiments:
        raise UserError("there is no command on standard input; see run_all.sh --status.")
    print(printable(table(experiments)))
    print(printable("\n".join(details(experiments))))


if __name__ == "__main__":
    run_main(main)
