"""Full disks and damaged files: what was wrong is said, its remedy is followed, the run ends."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import torch

from classification.image_files import read_square
from common.errors import UserError
from data_prep.image_list import read_image_list
from tests.classification.trainer import Ended
from tests.soak.equality import Progress, differences, lost, progress
from tests.soak.kills import Course, Reference
from tests.soak.runs import EVERY_IMAGE, MNIST, TWO_STAGES, VIDEO, Launcher, Process, StuckError

BENCHED: Final = (MNIST, TWO_STAGES, EVERY_IMAGE, VIDEO)
"""The runs that are tried."""
_SIDE: Final = 40

Damage = Callable[[Path, random.Random], str]
"""Hurts a file; says how."""


def flip(path: Path, draw: random.Random) -> str:
    """Change a byte, wherever it is."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= draw.randint(1, 255)
    _overwrite(path, bytes(content))
    return f"byte {place} of {len(content)} changed"


def cut(path: Path, draw: random.Random) -> str:
    """Cut the end off."""
    content = path.read_bytes()
    # A JPEG of which no more than its end marker is missing, two bytes, may be whole all the same.
    kept = draw.randrange(len(content) - 2)
    _overwrite(path, content[:kept])
    return f"cut to {kept} of {len(content)} bytes"


def blank(path: Path, draw: random.Random) -> str:
    """Zeros in place of its content, as some file systems leave after a power cut."""
    _overwrite(path, bytes(path.stat().st_size))
    return f"{path.stat().st_size} zeros"


def _overwrite(path: Path, content: bytes) -> None:
    """Into the same file, as a disk or a foreign program would: no new one under its name."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))


@dataclass
class Bench:
    """Where faults are tried: each on a run of its own, in a place of its own.

    Attributes:
        launcher: starts the runs.
        references: undisturbed runs, by name.
        data: the soak's folders of images and clips.
        folder: of the places.
        draw: says where and when.
        mounts: whether a small file system can be mounted.
    """

    launcher: Launcher
    references: dict[str, Reference]
    data: dict[str, Path]
    folder: Path
    draw: random.Random
    mounts: bool
    _places: Iterator[int] = field(default_factory=count)

    @contextmanager
    def course(self, reference: Reference, disk: int = 0) -> Iterator[tuple[Course, Path]]:
        """A course and its place, on a disk of so many bytes if any; compared at the end."""
        place = self.folder / f"fault-{next(self._places)}"
        place.mkdir(parents=True)
        course = Course(reference.subject.name)
        with ExitStack() as stack:
            if disk:
                stack.enter_context(small_disk(place, disk))
            try:
                yield course, place
            except StuckError as error:
                course.problems.append(str(error))
            course.problems += differences(place, reference.place)
        if course.equal and not course.lost:
            shutil.rmtree(place)

    def start(self, reference: Reference, place: Path, **how: Any) -> Process:
        """Start it, or go on with it; ``how``: see :meth:`Launcher.start`."""
        return self.launcher.start(reference.subject, place, **how)

    def end(self, course: Course, reference: Reference, place: Path, **how: Any) -> Ended:
        """Let it go on to its end."""
        ended = self.start(reference, place, **how).wait()
        if ended.code:
            course.problems.append(f"ended with {ended.code}: {ended.err[-500:]}")
        return ended

    def interrupt(self, reference: Reference, place: Path, pattern: str) -> Path:
        """Kill the run as soon as a file of that pattern is there.

        Returns:
            The file.

        Raises:
            StuckError: it ended without.
        """
        process = self.start(reference, place)
        while not (found := sorted(place.glob(pattern))):
            if process.ended_within(0):
                raise StuckError(f"ended without {pattern}: {process.reap()}")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return found[-1]


def refused(course: Course, ended: Ended, *words: str) -> None:
    """Note it unless the run has ended with code 2 and one sentence that holds the words."""
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    fits = len(errors) == 1 and all(word in errors[0] for word in words)
    if ended.code != 2 or not fits or "Traceback" in ended.err:
        course.problems.append(f"no sentence with {words}: {ended.code}, {ended.err[-500:]}")


# ---- the disk


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of ``size`` bytes in memory at ``place``; needs to be root.

    Raises:
        OSError: it cannot be mounted.
    """
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", str(place)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        raise OSError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a small file system here."""
    try:
        with small_disk(folder, 1 << 20):
            return True
    except OSError:
        return False


def fill_up(path: Path, room: int) -> None:
    """Write a file until only ``room`` bytes are free."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while (free := shutil.disk_usage(path.parent).free) > room:
            file.write(bytes(min(free - room, 1 << 20)))


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def full_disk(bench: Bench, name: str) -> Course:
    """A disk with too little room: the run stops with a sentence, and ends when there is room."""
    reference = bench.references[name]
    needed = _size(reference.place)
    room = bench.draw.randrange(needed)
    with bench.course(reference, 4 * needed + 2**22) as (course, place):
        course.faults.append(f"{room} of {needed} bytes free")
        fill_up(place / "filler", room)
        refused(course, bench.start(reference, place).wait(), "free some space")
        course.lost += lost(Progress(), place)
        (place / "filler").unlink()
        bench.end(course, reference, place)
    return course


def filled_while_running(bench: Bench, name: str) -> Course:
    """A disk that is filled while the run goes on, at a random moment after its first checkpoint.

    The run may end before; then nothing was tried.
    """
    reference = bench.references[name]
    with bench.course(reference, 4 * _size(reference.place) + 2**22) as (course, place):
        process = bench.start(reference, place)
        while not process.ended_within(0) and not [*place.glob("runs/*/*/checkpoint.pt")]:
            pass
        time.sleep(bench.draw.uniform(0, reference.seconds / 8))
        fill_up(place / "filler", 0)
        if (ended := process.wait()).code:
            course.faults.append("filled after the first checkpoint")
            refused(course, ended, "No room left", "free some space")
            course.lost += lost(Progress(), place)
        (place / "filler").unlink()
        bench.end(course, reference, place)
    return course


def limited_files(bench: Bench, name: str) -> Course:
    """In place of a full disk, for who may not mount one: no file may be larger than a limit."""
    reference = bench.references[name]
    largest = max(path.stat().st_size for path in reference.place.rglob("weights.pt"))
    limit = bench.draw.randrange(largest)
    with bench.course(reference) as (course, place):
        course.faults.append(f"files of at most {limit} bytes, {largest} needed")
        refused(course, bench.start(reference, place, limit=limit).wait(), "free some space")
        bench.end(course, reference, place)
    return course


# ---- damaged files


def damaged_image(bench: Bench, name: str, part: str, damage: Damage | None) -> Course:
    """An image of a part that cannot be read (None: is missing), then put back."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        # In a folder of their own: the others' stay as they are.
        images = place / "images"
        shutil.copytree(bench.data["images"], images)
        path = images / bench.draw.choice(read_image_list(images / f"{part}.txt").paths)
        content = path.read_bytes()
        if damage is None:
            path.unlink()
        said = damage(path, bench.draw) if damage else "missing"
        course.faults.append(f"{part} image: {said}")
        refused(course, bench.start(reference, place, data=images).wait(), path.name)
        path.write_bytes(content)
        bench.end(course, reference, place, data=images)
    return course


def damaged_cache(bench: Bench, name: str, pattern: str, damage: Damage) -> Course:
    """A file of a cache hurt, while the run is interrupted: never wrong pixels."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        bench.interrupt(reference, place, "runs/*/*/checkpoint.pt")
        path = bench.draw.choice(sorted(place.glob(pattern)))
        course.faults.append(f"{path.name}: {damage(path, bench.draw)}")
        bench.end(course, reference, place)
    return course


def damaged_while_read(bench: Bench, name: str, pattern: str) -> Course:
    """A byte of every file of a cache changed while the run reads it: never wrong pixels."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        process = bench.start(reference, place)
        while not process.ended_within(0) and not [*place.glob("runs/*/*/checkpoint.pt")]:
            pass
        for path in sorted(place.glob(pattern)):
            flip(path, bench.draw)
        course.faults.append("a byte of every file changed while the run reads them")
        ended = process.wait()
        if ended.code:
            course.problems.append(f"ended with {ended.code}: {ended.err[-500:]}")
    return course


def damaged_checkpoint(bench: Bench, name: str, damage: Damage) -> Course:
    """A checkpoint hurt: refused by name; moved away, as told, the run starts anew."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        path = bench.interrupt(reference, place, "runs/*/*/checkpoint.pt")
        course.faults.append(f"checkpoint: {damage(path, bench.draw)}")
        refused(course, bench.start(reference, place).wait(), str(path), "move it elsewhere")
        path.unlink()
        bench.end(course, reference, place)
    return course


def damaged_config(bench: Bench, name: str, damage: Damage) -> Course:
    """The settings beside a checkpoint hurt: refused by name; deleted, the run goes on."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        path = bench.interrupt(reference, place, "runs/*/*/checkpoint.pt").with_name("config.json")
        course.faults.append(f"config.json: {damage(path, bench.draw)}")
        refused(course, bench.start(reference, place).wait(), str(path))
        path.unlink()
        before = progress(place)
        bench.end(course, reference, place)
        course.lost += lost(before, place)
    return course


def damaged_record(bench: Bench, name: str, damage: Damage) -> Course:
    """A finished run's record hurt: refused by name; moved away, as told, the run is made again."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        bench.end(course, reference, place)
        (path,) = place.glob("runs/*/*/record.json")
        course.faults.append(f"record: {damage(path, bench.draw)}")
        refused(course, bench.start(reference, place).wait(), str(path), "move it elsewhere")
        path.unlink()
        bench.end(course, reference, place)
    return course


def damaged_first_stage(bench: Bench, name: str, damage: Damage) -> Course:
    """The weights that a second stage starts from hurt: refused by name, with a remedy."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        record = bench.interrupt(reference, place, "runs/*/*/record.json")
        path = record.with_name("weights.pt")
        course.faults.append(f"first stage's weights: {damage(path, bench.draw)}")
        refused(course, bench.start(reference, place).wait(), str(path))
        shutil.rmtree(path.parent)
        bench.end(course, reference, place)
    return course


def started_twice(bench: Bench, name: str, killed: bool) -> Course:
    """Two processes for one run at once: one waits; if the first is killed it takes over."""
    reference = bench.references[name]
    with bench.course(reference) as (course, place):
        course.faults.append("two at once, the first killed" if killed else "two at once")
        processes = [bench.start(reference, place) for _ in range(2)]
        if killed:
            processes[0].ended_within(bench.draw.uniform(0, reference.seconds))
            os.kill(processes[0].pid, signal.SIGKILL)
        codes = [process.wait().code for process in processes]
        if codes[1] or codes[0] not in ((0, -signal.SIGKILL) if killed else (0,)):
            course.problems.append(f"ended with {codes}")
    return course


def decode_changed(
    images: Path, scratch: Path, draw: random.Random, tries: int
) -> dict[str, dict[str, int]]:
    """What becomes of images of which one byte was changed: a limit of the formats, not of a run.

    Args:
        images: a folder of JPEG and PNG files.
        scratch: a folder.
        draw: says which image and where.
        tries: of each format.

    Returns:
        By format: how many were refused, gave the same pixels, gave others.
    """
    found = {}
    for suffix in ("jpg", "png"):
        counts = {"refused": 0, "same": 0, "other": 0}
        paths, copy = sorted(images.rglob(f"*.{suffix}")), scratch / f"changed.{suffix}"
        for path in draw.choices(paths, k=tries):
            shutil.copy(path, copy)
            flip(copy, draw)
            counts[_decoded(path, copy)] += 1
        found[suffix] = counts
    return found


def _decoded(path: Path, copy: Path) -> str:
    try:
        pixels, _ = read_square(copy, _SIDE)
    except UserError:
        return "refused"
    return "same" if torch.equal(pixels, read_square(path, _SIDE)[0]) else "other"


# ---- all of them

Trial = Callable[[Bench], Course]
"""Tries one fault."""


def list_trials(bench: Bench) -> Iterator[tuple[str, Trial]]:
    """The row of the table, and what is tried."""
    mnist, stages, images, video = (s.name for s in BENCHED)
    if bench.mounts:
        for name in (mnist, mnist, mnist, stages, stages, video):
            yield "disk too small", partial(full_disk, name=name)
        for name in (mnist, mnist, stages):
            yield "disk filled meanwhile", partial(filled_while_running, name=name)
    else:
        for name in (mnist, mnist, mnist, video):
            yield "files limited in size", partial(limited_files, name=name)
    for name, part, damage in (
        (images, "train", cut),
        (images, "test", blank),
        (stages, "difficulty", cut),
        (stages, "train", blank),
        (images, "train", None),
    ):
        yield "image damaged", partial(damaged_image, name=name, part=part, damage=damage)
    for name, row, pattern in (
        (stages, "image cache shard damaged", "cache/*/shard-*.npy"),
        (video, "frame cache file damaged", "cache/*.npy"),
    ):
        for damage in (flip, cut):
            yield row, partial(damaged_cache, name=name, pattern=pattern, damage=damage)
        yield row, partial(damaged_while_read, name=name, pattern=pattern)
    for name, damage in ((mnist, flip), (mnist, cut), (stages, flip), (video, blank)):
        yield "checkpoint damaged", partial(damaged_checkpoint, name=name, damage=damage)
    for damage in (cut, blank):
        yield "record damaged", partial(damaged_record, name=mnist, damage=damage)
    yield "settings damaged", partial(damaged_config, name=mnist, damage=cut)
    yield "first stage's weights damaged", partial(damaged_first_stage, name=stages, damage=flip)
    for name, killed in ((mnist, False), (stages, False), (mnist, True)):
        yield "run started twice", partial(started_twice, name=name, killed=killed)


def try_all(bench: Bench) -> Iterator[tuple[str, Course]]:
    """The row of the table and the course of each fault, one after the other."""
    for row, trial in list_trials(bench):
        yield row, trial(bench)
