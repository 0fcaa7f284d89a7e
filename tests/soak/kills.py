"""Runs killed at random moments, again and again, until they have ended."""

import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil

from tests.classification.trainer import Ended
from tests.soak import runs
from tests.soak.equality import Progress, differences, lost, partial_files
from tests.soak.runs import Launcher, Process, StuckError, Subject

MOST_KILLS = 4
"""Of one run; the moments are drawn from its whole time, so it would hardly ever end by itself."""
_TERMINATED = 0.2
_LAST_WORDS = "stopped after a checkpoint; the same command goes on"


@dataclass
class Reference:
    """An undisturbed run.

    Attributes:
        subject: what it is.
        place: where it lies.
        seconds: from its start to its end; the least that was seen so far.
    """

    subject: Subject
    place: Path
    seconds: float


@dataclass
class Course:
    """One run from its first start to its end, with what was done to it.

    Attributes:
        subject: its name.
        faults: one after the other, in words.
        phases: where each kill fell: starting, training, ending.
        partial: kills that left a file half-written.
        left: such files that a cache still holds at the end; an hour later its next use deletes
            them, as another process might be writing them.
        problems: why it is not as the undisturbed one; empty: it is.
        lost: what was lost, in words.
    """

    subject: str
    faults: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    partial: int = 0
    left: int = 0
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether it ended equal to the undisturbed run."""
        return not self.problems


def undisturbed(launcher: Launcher, subject: Subject, place: Path) -> Reference:
    """Train a subject without disturbing it; a forked one twice, as the first takes longer.

    Raises:
        RuntimeError: it fails all the same, or the two differ.
    """
    first = _undisturbed(launcher, subject, place)
    if not subject.forked:
        return first
    second = _undisturbed(launcher, subject, place.with_name(f"{place.name}, again"))
    if problems := differences(second.place, first.place):
        raise RuntimeError(f"{subject.name} differs undisturbed: {problems}")
    return second


def _undisturbed(launcher: Launcher, subject: Subject, place: Path) -> Reference:
    place.mkdir(parents=True)
    start = time.monotonic()
    ended = launcher.start(subject, place).wait()
    if ended.code:
        raise RuntimeError(f"{subject.name} fails undisturbed: {ended}")
    return Reference(subject, place, time.monotonic() - start)


@dataclass(frozen=True)
class _Blow:
    """What is sent, and to whom."""

    number: signal.Signals
    to: str
    processes: list[psutil.Process]


def _draw_blow(process: Process, ranks: int, draw: random.Random) -> _Blow:
    """SIGKILL, more rarely SIGTERM; to all processes of the run, to one, or to torchrun alone."""
    number = signal.SIGTERM if draw.random() < _TERMINATED else signal.SIGKILL
    programs, everything = process.programs(), process.all()
    if ranks == 1:
        # Workers do not heed SIGTERM; without their program they end.
        choices = [("it", programs), ("it and its workers", everything)]
    else:
        choices = [("torchrun", programs[:1]), ("torchrun and ranks", everything)]
        choices += [(f"rank {rank}", [one]) for rank, one in enumerate(programs[1:])]
    to, processes = draw.choice(choices)
    return _Blow(number, to, processes)


def _phase(process: Process, said: str) -> str:
    """How far a start had come, by what it said."""
    epochs = [line for line in said.splitlines() if "epoch " in line]
    if not epochs:
        return "starting"
    done, _, of = epochs[-1].partition("epoch ")[2].split()[0].partition("/")
    return "ending" if done == of else "training"


def _unexpected(ended: Ended, blow: _Blow, ranks: int) -> list[str]:
    """An end that the signal does not explain. torchrun answers with tracebacks of its own."""
    if ranks > 1 or ended.code == -blow.number:
        return []
    if blow.number == signal.SIGTERM and ended.code == 128 + signal.SIGTERM:
        lines = [line for line in ended.err.splitlines() if "Traceback" in line]
        return lines if _LAST_WORDS in ended.err else [f"no last words: {ended.err}"]
    return [f"{blow.number.name} ended it with {ended.code}: {ended.err[-500:]}"]


def killed_course(
    launcher: Launcher, reference: Reference, place: Path, draw: random.Random, kills: int
) -> Course:
    """Kill a run so many times, at moments drawn from the undisturbed run's time, and let it end.

    It may end before its last kill.
    """
    subject, course, before = reference.subject, Course(reference.subject.name), Progress()
    others: list[psutil.Process] = []
    try:
        while True:
            start = time.monotonic()
            process = launcher.start(subject, place)
            moment = draw.uniform(0, reference.seconds)
            if len(course.faults) == kills or process.ended_within(moment):
                _let_end(process, course)
                if not course.faults:
                    # The first run of all takes longer: moments would fall behind the end.
                    reference.seconds = min(reference.seconds, time.monotonic() - start)
                break
            others += process.all()
            ended = _strike(process, subject, draw, course, place, before)
            if ended.code == 0:
                break
    except StuckError as error:
        course.problems.append(str(error))
    if left := runs.gone(others):
        course.problems.append(f"{len(left)} processes did not end")
    course.left = partial_files(place)
    course.problems += differences(place, reference.place)
    return course


def _let_end(process: Process, course: Course) -> None:
    ended = process.wait()
    if ended.code:
        course.problems.append(f"ended with {ended.code}: {ended.err[-500:]}")


def _strike(
    process: Process,
    subject: Subject,
    draw: random.Random,
    course: Course,
    place: Path,
    before: Progress,
) -> Ended:
    """Kill a process and note what came of it; it may be just ending by itself."""
    # Of a start before; what this start writes with it is cleared first.
    partial = partial_files(place)
    blow = _draw_blow(process, subject.ranks, draw)
    runs.send(blow.processes, blow.number)
    ended = process.wait()
    if ended.code == 0:
        return ended
    course.faults.append(f"{blow.number.name} to {blow.to}")
    course.phases.append(_phase(process, ended.out))
    course.problems += _unexpected(ended, blow, subject.ranks)
    course.partial += partial_files(place) > partial
    if subject.ranks == 1:  # Ranks may outlive torchrun; they go on writing.
        course.lost += lost(before, place)
    return ended


def kill_all(
    launcher: Launcher,
    references: Sequence[Reference],
    folder: Path,
    draw: random.Random,
    kills: int,
) -> Iterator[Course]:
    """Courses of all subjects in turn until so many kills have been tried."""
    tried = 0
    for number in count():
        if tried >= kills:
            return
        place = folder / f"course-{number}"
        place.mkdir(parents=True)
        wanted = min(draw.randint(1, MOST_KILLS), kills - tried)
        reference = references[number % len(references)]
        course = killed_course(launcher, reference, place, draw, wanted)
        tried += len(course.faults)
        if course.equal and not course.lost:
            shutil.rmtree(place)
        yield course
