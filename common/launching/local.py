"""Run many commands, N at a time: ``python -m common.launching.local -j 2 commands.txt``.

Reads one shell-quoted command a line. Each run writes to a log of its own; one progress line counts
the finished, running and failed runs and estimates the remaining time from what has been measured.
A failing run does not stop the others. Needs the standard library and rich, so it starts at once
and takes no memory from the runs.

A run may print ``epoch K/N`` lines, K epochs of N being finished: the first tells where it begins
(0, or more for a run that is resumed), the others its progress. ``finished already`` says that it
had nothing to do.
"""

import argparse
import fcntl
import heapq
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from common.errors import EXIT_USER_ERROR, UserError, describe_os_error, run_main
from common.files import IN_USE

POLL_SECONDS = 0.1  # how often ended runs are looked for
READ_SECONDS = 1.0  # how often the logs are read and the bar is drawn
LINE_SECONDS = 10.0  # how often a line is printed where there is no terminal
GRACE_SECONDS = 10.0  # how long an interrupted run may take to end

# Of a running run: before that its start-up, seconds of imports, would count for too much.
LEAST_DONE = 0.05

_EPOCH = re.compile(rb"\bepoch (\d+)/(\d+)")
_ALREADY = re.compile(rb"\bfinished already\b")
_IN_USE = re.compile(re.escape(IN_USE).encode())
_NOT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")
# Which seed and which folder say nothing about how long a run takes, nor does the log's name need
# the interpreter and the folder.
_SEED_OPTION = re.compile(r"--seed(=.*)?")
_OUT_OPTION = re.compile(r"--out(=.*)?")


def _without(option: re.Pattern[str], words: Sequence[str]) -> tuple[str, ...]:
    """``words`` without one option and its value (``--option value``, ``--option=value``)."""
    kept: list[str] = []
    skip_value = False
    for word in words:
        match = option.fullmatch(word)
        if skip_value:
            skip_value = False
        elif match:
            skip_value = match[1] is None
        else:
            kept.append(word)
    return tuple(kept)


@dataclass(frozen=True)
class Command:
    """One command to run, as its words."""

    words: tuple[str, ...]

    @property
    def kind(self) -> tuple[str, ...]:
        """The command but for its seed: runs of one kind take about the same time."""
        return _without(_SEED_OPTION, self.words)

    @property
    def log_name(self) -> str:
        """A readable file name: ``python -m a.b x --seed 0 --out runs`` gives ``x_seed-0.log``."""
        words = list(_without(_OUT_OPTION, self.words))
        if "-m" in words[:-2]:
            words = words[words.index("-m") + 2 :]
        name = " ".join(words).replace(" --", "_").replace(" ", "-")
        return _NOT_IN_A_FILE_NAME.sub("-", name).strip("-")[:180] + ".log"


def read_commands(text: str, source: str) -> list[Command]:
    """The commands of ``text``, one a line, without blank lines, ``#`` comments and repetitions.

    Raises:
        UserError: when a line is not shell-quoted, or there is no command at all.
    """
    commands: dict[Command, None] = {}  # a set that keeps the order
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = tuple(shlex.split(line, comments=True))
        except ValueError as error:
            raise UserError(
                f"{source}, line {number}: {error}; quote the command as for a shell."
            ) from error
        if words:
            commands[Command(words)] = None
    if not commands:
        raise UserError(f"{source} holds no command; write one a line.")
    return list(commands)


@dataclass
class Run:
    """A started command and what its log has said so far. Times are seconds of one steady clock."""

    command: Command
    log: Path
    started: float = 0.0
    process: "subprocess.Popen[bytes] | None" = None
    exit_code: int | None = None
    seconds: float = 0.0
    """Duration once ended."""
    already: bool = False
    """The run said that it was finished before it began."""
    elsewhere: bool = False
    """The run said that another process had it in hand."""
    epochs: int = 0
    """Length of the run, 0 while unknown."""
    epoch: int = 0
    """Epochs finished, those before a resume included."""
    resumed_at: int = 0
    """Epochs finished when this start of the run began."""
    heard: float = 0.0
    """When the last epoch was reported."""
    _offset: int = field(default=0, repr=False)

    @property
    def failed(self) -> bool:
        """Ended with an exit code other than 0."""
        return self.exit_code not in (None, 0)

    @property
    def work(self) -> tuple[float, float]:
        """Measured (seconds, fraction of a whole run done in them); (0, 0) when unknown."""
        if self.already or self.failed:
            return 0.0, 0.0
        ended = self.exit_code == 0
        if not self.epochs:
            return (self.seconds, 1.0) if ended else (0.0, 0.0)
        done = (self.epochs if ended else self.epoch) - self.resumed_at
        if done == 0 or not (ended or done >= LEAST_DONE * self.epochs):
            return 0.0, 0.0
        return self.seconds if ended else self.heard - self.started, done / self.epochs

    def remaining(self, whole: float, now: float) -> float:
        """Seconds left when a whole run of this kind takes ``whole`` seconds, never below 0."""
        if not self.epochs:
            return max(0.0, whole - (now - self.started))
        left = whole * (1.0 - self.epoch / self.epochs)
        return max(0.0, left - (now - self.heard))

    def hear(self, text: bytes, now: float) -> None:
        """Take in what the run has printed since the last call."""
        self.already = self.already or _ALREADY.search(text) is not None
        self.elsewhere = self.elsewhere or _IN_USE.search(text) is not None
        for match in _EPOCH.finditer(text):
            epoch, epochs = int(match[1]), int(match[2])
            if epoch > epochs or epochs == 0:
                continue
            if not self.epochs:
                self.resumed_at = epoch
            self.epoch, self.epochs, self.heard = epoch, epochs, now

    def read_log(self, now: float) -> None:
        """Read the log's new whole lines; after the end also a last line without a line break."""
        with self.log.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        if self.exit_code is None:
            text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        self.hear(text, now)

    def last_line(self) -> str:
        """The last line of the log that is not blank."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "(empty log)")


def seconds_by_kind(runs: Sequence[Run]) -> dict[tuple[str, ...], float]:
    """Seconds a whole run takes, for each kind measured: total seconds over total work done."""
    totals: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for run in runs:
        seconds, fraction = run.work
        totals[run.command.kind][0] += seconds
        totals[run.command.kind][1] += fraction
    return {kind: seconds / work for kind, (seconds, work) in totals.items() if work > 0}


def remaining_seconds(
    runs: Sequence[Run], queue: Sequence[Command], jobs: int, now: float
) -> float | None:
    """Seconds until all is done, or None before anything is known.

    A kind not seen yet takes the mean of those seen. The queue is played through: each command in
    turn starts where the first job becomes free. So the estimate is never less than the work left
    over ``jobs``, nor than the longest running remainder.
    """
    running = [run for run in runs if run.exit_code is None]
    if not running and not queue:
        return 0.0
    known = seconds_by_kind(runs)
    if not known:
        return None
    mean = sum(known.values()) / len(known)
    free_at = [run.remaining(known.get(run.command.kind, mean), now) for run in running]
    free_at += [0.0] * (jobs - len(free_at))
    heapq.heapify(free_at)
    for command in queue:
        heapq.heapreplace(free_at, free_at[0] + known.get(command.kind, mean))
    return max(free_at)


def describe_seconds(seconds: float) -> str:
    """A duration in round words: ``40 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def child_environment() -> dict[str, str]:
    """The environment of a run: one thread each, and output that is written at once.

    Our own GOMP_SPINCOUNT, which ``common`` has set, passes on to the runs.
    """
    settings = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return settings | dict(os.environ)


def _lock(file: BinaryIO) -> bool:
    """Whether a log is ours: the run that gets it as its output keeps the lock until it ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # No locks on this file system.
        return True
    return True


class Launcher:
    """Runs commands ``jobs`` at a time, in their order."""

    def __init__(self, commands: Sequence[Command], jobs: int, logs: Path) -> None:
        self.queue = list(commands)
        self.total = len(self.queue)
        self.jobs = jobs
        self.logs = logs
        self.runs: list[Run] = []
        self.stop_signal = 0
        self._log_names: set[str] = set()

    @property
    def running(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self.runs if run.exit_code is None]

    @property
    def failed(self) -> list[Run]:
        """The runs that ended with an exit code other than 0."""
        return [run for run in self.runs if run.failed]

    @property
    def work_done(self) -> float:
        """Runs done, the parts of running ones included; at most the number of commands."""
        parts = (run.epoch / run.epochs for run in self.running if run.epochs)
        return len(self.runs) - len(self.running) + sum(parts)

    def status(self, now: float) -> str:
        """Counts and remaining time, in words."""
        ended = len(self.runs) - len(self.running)
        left = remaining_seconds(self.runs, self.queue, self.jobs, now)
        if left is None:
            remaining = "estimating the time left"
        else:
            remaining = f"about {describe_seconds(left)} left"
        waiting = sum(run.elsewhere and not run.epochs for run in self.running)
        running = f"{len(self.running)} running"
        if waiting:
            running += f" ({waiting} wait for another process that has the run in hand)"
        return (
            f"{ended - len(self.failed)} of {self.total} finished, {running}, "
            f"{len(self.failed)} failed, {remaining}"
        )

    def step(self) -> None:
        """Notice the runs that have ended and start the next ones."""
        for run in self.running:
            code = run.process.poll() if run.process else None
            if code is not None:
                self._end(run, code)
        while self.queue and len(self.running) < self.jobs:
            self._start(self.queue.pop(0))

    def read_logs(self) -> None:
        """Bring the progress of the running runs up to date."""
        for run in self.running:
            run.read_log(time.monotonic())

    def stop(self) -> None:
        """End the running children: SIGTERM, and SIGKILL to what is still there after a while."""
        for run in self.running:
            self._signal(run, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for run in self.running:
            if run.process:
                try:
                    run.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._signal(run, signal.SIGKILL)
                    run.process.wait()

    def _signal(self, run: Run, number: signal.Signals) -> None:
        # Not yet reaped, so the process group exists: its number cannot belong to another.
        if run.process and run.process.poll() is None:
            os.killpg(run.process.pid, number)

    def _start(self, command: Command) -> None:
        log, file = self._open_log(command)
        run = Run(command, log, started=time.monotonic())
        with file:
            file.write(os.fsencode(f"$ {shlex.join(command.words)}\n"))
            file.flush()
            run._offset = file.tell()
            try:
                # A session of its own, so that Ctrl-C reaches the launcher alone and stop() reaches
                # all that the command has started.
                run.process = subprocess.Popen(
                    command.words, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    env=child_environment(), start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                file.write(os.fsencode(f"error: {command.words[0]} cannot be started: {error}\n"))
                run.exit_code = 127
        self.runs.append(run)

    def _end(self, run: Run, code: int) -> None:
        now = time.monotonic()
        run.exit_code = code
        run.seconds = now - run.started
        run.read_log(now)

    def _open_log(self, command: Command) -> tuple[Path, BinaryIO]:
        """A log of the command's name, which no other run of this launch or another writes."""
        name, number = command.log_name, 2
        while True:
            if name not in self._log_names:
                file = (self.logs / name).open("ab")
                if _lock(file):
                    self._log_names.add(name)
                    return self.logs / name, file
                file.close()
            name = f"{command.log_name.removesuffix('.log')}-{number}.log"
            number += 1


class Display:
    """One progress bar on a terminal, else a plain line every 10 seconds."""

    def __init__(self, launcher: Launcher, console: Console) -> None:
        self._launcher = launcher
        self._console = console
        self._next_line = 0.0
        self._bar: Progress | None = None
        if console.is_interactive:  # Not in TERM=dumb: nothing is drawn.
            columns = (BarColumn(), TextColumn("{task.description}"))
            # Drawn by hand once a second: rich's own thread would draw ten times as often.
            self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self._bar.add_task("", total=launcher.total)

    def __enter__(self) -> "Display":
        self._context: AbstractContextManager[object] = self._bar or nullcontext()
        self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def update(self, now: float) -> None:
        """Show the launcher's status as it is."""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            status = self._launcher.status(now)
            self._bar.update(task, completed=self._launcher.work_done, description=status)
            self._bar.refresh()
        elif now >= self._next_line:
            print(self._launcher.status(now), flush=True)
            self._next_line = now + LINE_SECONDS


def launch(launcher: Launcher, display: Display) -> None:
    """Run everything; returns early, with all runs ended, after a signal."""
    next_read = 0.0
    try:
        launcher.step()
        while launcher.running and not launcher.stop_signal:
            if time.monotonic() >= next_read:
                launcher.read_logs()
                display.update(time.monotonic())
                next_read = time.monotonic() + READ_SECONDS
            time.sleep(POLL_SECONDS)
            launcher.step()
    finally:
        launcher.stop()


def report(launcher: Launcher, seconds: float) -> int:
    """Print what came of the runs. Returns the exit code: 0, 1, or 2 when all errors are users'."""
    failed = launcher.failed
    ended = [run for run in launcher.runs if run.exit_code == 0]
    already = sum(run.already for run in ended)
    elsewhere = sum(run.already and run.elsewhere for run in ended)
    by_another = f", {elsewhere} by another process meanwhile" if elsewhere else ""
    print(
        f"{len(ended)} of {launcher.total} finished ({already} of them already{by_another}), "
        f"{len(failed)} failed, in {seconds:.0f} s; logs in {launcher.logs}",
        flush=True,
    )
    for run in failed:
        print(
            f"failed with exit code {run.exit_code}: {shlex.join(run.command.words)}\n"
            f"    {run.last_line()}\n    log: {run.log}",
            file=sys.stderr,
        )
    if not failed:
        return 0
    return EXIT_USER_ERROR if all(run.exit_code == EXIT_USER_ERROR for run in failed) else 1


def _listen(launcher: Launcher) -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end the runs first."""

    def remember(number: int, frame: FrameType | None) -> None:
        launcher.stop_signal = number

    signal.signal(signal.SIGINT, remember)
    signal.signal(signal.SIGTERM, remember)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup: leave it so
        signal.signal(signal.SIGHUP, remember)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m common.launching.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "commands", nargs="?", default="-", help="file of commands (default: stdin)"
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many run at a time")
    parser.add_argument("--logs", type=Path, default=Path("runs/logs"), help="folder of the logs")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UserError(
            f"-j {options.jobs}: at least one run at a time is needed; give -j 1 or more."
        )
    return options


def _read_source(name: str) -> list[Command]:
    if name == "-":
        return read_commands(os.fsdecode(sys.stdin.buffer.read()), "standard input")
    try:
        return read_commands(os.fsdecode(Path(name).read_bytes()), name)
    except OSError as error:
        raise describe_os_error(error, name) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: run the commands and exit with the code of :func:`report`.

    Raises:
        UserError: for options or commands that make no sense, and for logs that cannot be written.
    """
    options = _parse_arguments(arguments)
    launcher = Launcher(_read_source(options.commands), options.jobs, options.logs)
    started = time.monotonic()
    _listen(launcher)
    try:
        launcher.logs.mkdir(parents=True, exist_ok=True)
        # A file is no terminal, whatever FORCE_COLOR says.
        with Display(launcher, Console(force_terminal=sys.stdout.isatty())) as display:
            launch(launcher, display)
    except OSError as error:
        raise describe_os_error(error, launcher.logs) from error
    if launcher.stop_signal:
        print("interrupted; the same command continues where the runs stopped", file=sys.stderr)
        sys.exit(128 + launcher.stop_signal)
    sys.exit(report(launcher, time.monotonic() - started))


if __name__ == "__main__":
    run_main(main)
