"""The runs that the soak test disturbs, the processes they are in, and what is left of them.

Every run is the real program. Most start in forked processes, so that faults fall into reading,
training and writing rather than into seconds of imports; some start as a user starts them, with
and without torchrun.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from tests.classification.small_cifar import small_run
from tests.classification.trainer import ROOT, Ended, Trainer
from tests.video.synthetic import options

LIMIT_SECONDS = 300.0
"""A run of seconds that has not ended by then never will."""

_POLL_SECONDS = 0.005
_COMMON = ("--device", "cpu", "--checkpoint-seconds", "0")
_IMAGES = (
    "--stored-side", "40", "--crop", "32", "--precision", "float32", "--flip", "0",
    "--epochs", "2", "--batch-size", "64",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A run that is disturbed.

    Attributes:
        name: in the table.
        words: of the command line: the recipe, then options.
        module: the program.
        data: which of the soak's folders is its ``--data``; empty: none.
        cached: with a cache of its own, filled at its start.
        ranks: more than 1: under torchrun.
        forked: by the fork server; else with its own Python, as a user starts it.
        whole: with all its data and its own network; else with the tests' small stand-ins.
    """

    name: str
    words: tuple[str, ...]
    module: str = "classification.train"
    data: str = ""
    cached: bool = False
    ranks: int = 1
    forked: bool = True
    whole: bool = True

    def arguments(self, place: Path, data: Path | None) -> tuple[str, ...]:
        """The command line in ``place``, but for ``--out``."""
        words = (*self.words, *_COMMON)
        if data is not None:
            words += ("--data", str(data))
        return (*words, "--cache", str(place / "cache")) if self.cached else words


def _mnist(method: str, epochs: int, note: str = "", **how: Any) -> Subject:
    words = ("mnist-lt", "--method", method, "--epochs", str(epochs))
    return Subject(f"MNIST-LT {method}{note}", words, **how)


_OLTR = ("image-folder-oltr", *_IMAGES, "--stage1-epochs", "2", "--workers", "1")
MNIST = _mnist("cdb-s", 5)
TWO_STAGES = Subject("image folder OLTR, cached", _OLTR, data="images", cached=True, whole=False)
DECODED = Subject(
    "image folder cdb-s, decoded",
    ("image-folder", "--method", "cdb-s", *_IMAGES, "--workers", "1"),
    data="images",
    whole=False,
)
EVERY_IMAGE = replace(
    DECODED,
    name="image folder ce, decoded",
    words=("image-folder", "--method", "ce", *_IMAGES, "--workers", "1"),
)
"""Reads every training image; a sampler such as CDB-S's leaves some out."""
VIDEO = Subject(
    "video cdb-s, cached",
    (*options("cdb-s"), "--workers", "1"),
    "video.train",
    data="verbs",
    cached=True,
)
FORKED = (
    MNIST,
    _mnist("cdb-w-ce", 5),
    _mnist("l2rw", 2),
    Subject("CIFAR meta-weight-net", small_run("cifar100-lt", "meta-weight-net"), whole=False),
    Subject(
        "CIFAR cRT with cdb-s",
        small_run("cifar100-lt-crt", "cdb-s", "--stage1-epochs", "2"),
        whole=False,
    ),
    TWO_STAGES,
    DECODED,
    VIDEO,
    Subject("video cdb-w-ce, decoded", options("cdb-w-ce"), "video.train", data="verbs"),
)
"""Two-stage, meta-learning, image and video runs of about a second."""
AS_STARTED = (
    _mnist("cdb-w-ce", 3, ", own command", forked=False),
    _mnist("cdb-s", 3, ", torchrun of 2", forked=False, ranks=2),
    replace(TWO_STAGES, name="image folder OLTR, cached, own command", forked=False, whole=True),
    replace(VIDEO, name="video cdb-s, cached, own command", forked=False),
)
"""Whole runs with their seconds of imports, one of them of two processes under torchrun."""


class StuckError(Exception):
    """A process that does not end, or ends before what is waited for."""


@dataclass(frozen=True)
class Process:
    """A run's process, and those it has started.

    Attributes:
        pid: its number; of a process this one has started, so that it stays until it is waited for.
        reap: waits for its end; its exit code and what it has written.
    """

    pid: int
    reap: Callable[[], Ended]

    def ended_within(self, seconds: float) -> bool:
        """Whether it ends by itself in so many seconds; returns as soon as it has."""
        end = time.monotonic() + seconds
        while psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def wait(self) -> Ended:
        """Its end.

        Raises:
            StuckError: it did not come; the process is killed.
        """
        if not self.ended_within(LIMIT_SECONDS):
            send(self.all(), signal.SIGKILL)
            raise StuckError(f"not ended after {LIMIT_SECONDS:g} s: {self.reap()}")
        return self.reap()

    def all(self) -> list[psutil.Process]:
        """It and all below it, the first started first."""
        main = psutil.Process(self.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            return [main, *main.children(recursive=True)]
        return [main]

    def programs(self) -> list[psutil.Process]:
        """Those that train, and torchrun; without what they have started to read and decode."""
        own = psutil.Process(self.pid)
        ranks = [child for child in own.children() if "LOCAL_RANK" in _environment(child)]
        return [own, *ranks]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        environment: dict[str, str] = process.environ()
    except psutil.Error:
        return {}
    return environment


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def gone(processes: list[psutil.Process], seconds: float = 30.0) -> list[psutil.Process]:
    """Kills what does not end in so many seconds, and gives it back."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    send(alive, signal.SIGKILL)
    return list(alive)


def _reap_forked(trainer: Trainer, pid: int) -> Ended:
    """Its end; one that was killed at once has not even opened its logs."""
    for log in trainer.logs[pid]:
        log.touch()
    return trainer.wait(pid)


class Launcher:
    """Starts runs: by a fork server for each program, or as a user does."""

    def __init__(self, servers: dict[str, Trainer], data: dict[str, Path], logs: Path) -> None:
        """``servers``: by program; ``data``: of images and of clips; ``logs``: a folder."""
        self.servers, self.data, self._logs = servers, data, logs
        self._numbers = count()

    def start(self, subject: Subject, place: Path, data: Path | None = None, **job: Any) -> Process:
        """Start the run in ``place/runs``.

        Args:
            subject: the run.
            place: its folder.
            data: in place of the soak's own.
            job: see fork_server.py; for forked ones only.
        """
        words = subject.arguments(place, data or self.data.get(subject.data))
        if subject.forked:
            trainer = self.servers[subject.module]
            pid = trainer.start(place / "runs", *words, whole=subject.whole, **job)
            return Process(pid, partial(_reap_forked, trainer, pid))
        return self._command(subject, (*words, "--out", str(place / "runs")))

    def _command(self, subject: Subject, words: tuple[str, ...]) -> Process:
        launch: tuple[str, ...] = ("-m", subject.module)
        if subject.ranks > 1:
            # "--": else torchrun's parser takes --start for its own --start-method.
            ranks = ("--standalone", "--nproc-per-node", str(subject.ranks))
            launch = ("-m", "torch.distributed.run", *ranks, "-m", "--", subject.module)
        number = next(self._numbers)
        logs = (self._logs / f"command-{number}.out", self._logs / f"command-{number}.err")
        settings = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "GLOO_SOCKET_IFNAME": "lo"}
        with logs[0].open("w") as out, logs[1].open("w") as err:
            process = subprocess.Popen(
                [sys.executable, *launch, *words],
                cwd=ROOT, env=os.environ | settings, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

        def reap() -> Ended:
            return Ended(process.wait(), *(log.read_text() for log in logs))

        return Process(process.pid, reap)
