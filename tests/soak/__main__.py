"""Faults, counted: python -m tests.soak [--kills 100] [--seed 0] [--out FILE].

Kills runs at random moments, fills disks, damages files, starts runs twice, and prints how many of
the runs ended equal to the undisturbed ones; docs/faults.md tells what is tried and what equal
means. About 15 minutes on two cores. Ends with code 1 if anything was not equal or was lost; the
folders of these runs are then kept.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from benchmarks.timing import at_least
from common.files import write_atomically
from tests.classification.trainer import ROOT, Trainer, fork_server
from tests.soak.equality import digest
from tests.soak.faults import BENCHED, Bench, can_mount, decode_changed, try_all
from tests.soak.kills import Course, Reference, kill_all, undisturbed
from tests.soak.report import as_json, make_rows, show_changed, show_moments, show_table
from tests.soak.runs import AS_STARTED, FORKED, Launcher, Subject
from tests.video.synthetic import write_set
from tests.video.trainer import VideoTrainer

CHANGED_IMAGES: Final = 200
"""Of each format, with a byte changed."""


def make_data(folder: Path) -> dict[str, Path]:
    """The documented example of an image folder, and the tests' tiny set of clips."""
    images = folder / "images"
    for step in (("example", str(images)), ("split", str(images))):
        words = [sys.executable, "-m", "data_prep.image_folder", *step]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return {"images": images, "verbs": write_set(folder / "verbs")}


@contextmanager
def make_launcher(folder: Path, data: dict[str, Path]) -> Iterator[Launcher]:
    """Both fork servers, and a folder for what the runs write to their standard output."""
    logs = {name: folder / "logs" / name for name in ("classification", "video", "commands")}
    for log in logs.values():
        log.mkdir(parents=True)
    with ExitStack() as stack:
        images, video = (stack.enter_context(fork_server(name)) for name in [*logs][:2])
        servers: dict[str, Trainer] = {
            "classification.train": Trainer(images, logs["classification"]),
            "video.train": VideoTrainer(video, logs["video"], data=data["verbs"]),
        }
        yield Launcher(servers, data, logs["commands"])


def _references(launcher: Launcher, place: Path, subjects: tuple[Subject, ...]) -> list[Reference]:
    return [undisturbed(launcher, subject, place / subject.name) for subject in subjects]


@dataclass
class Found:
    """What a soak test has found.

    Attributes:
        courses: the row of the table and the course of each run.
        changed: images with a changed byte, see :func:`decode_changed`.
        disk: how full disks were made.
    """

    courses: list[tuple[str, Course]]
    changed: dict[str, dict[str, int]]
    disk: str

    def add(self, fault: str, course: Course) -> None:
        """Keep a course, and show it."""
        self.courses.append((fault, course))
        end = "equal" if course.equal else "NOT EQUAL"
        done = "; ".join(course.faults) or "nothing"
        print(f"{fault}: {course.subject}: {done}: {end}", flush=True)
        for problem in [*course.problems, *course.lost]:
            print(f"    {problem}", flush=True)


def soak(folder: Path, kills: int, seed: int) -> Found:
    """Try everything, in a folder of its own."""
    data, draw = make_data(folder / "data"), random.Random(seed)
    before = {name: digest(path) for name, path in data.items()}
    mounts = can_mount(folder / "data")
    changed = decode_changed(data["images"], folder, random.Random(seed), CHANGED_IMAGES)
    found = Found([], changed, "tmpfs" if mounts else "limited file sizes")
    with make_launcher(folder, data) as launcher:
        # Most of the time of those started from their own command is start-up.
        for subjects, tried in ((FORKED, kills - kills // 5), (AS_STARTED, kills // 5)):
            place = folder / f"killed-{len(found.courses)}"
            references = _references(launcher, place / "references", subjects) if tried else []
            for course in kill_all(launcher, references, place, draw, tried):
                found.add("killed", course)
        named = {
            each.subject.name: each
            for each in _references(launcher, folder / "references", BENCHED)
        }
        for fault, course in try_all(Bench(launcher, named, data, folder, draw, mounts)):
            found.add(fault, course)
    for name, path in data.items():
        if digest(path) != before[name]:
            found.courses[-1][1].lost.append(f"{name} were changed by a run")
    return found


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=at_least(0), default=100, help="how many are tried")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--out", type=Path, help="file for the JSON of all that was tried")
    return parser.parse_args()


def main() -> None:
    options = _parse_arguments()
    torch.set_num_threads(1)
    folder, start = Path(tempfile.mkdtemp(prefix="soak-")), time.monotonic()
    found = soak(folder, options.kills, options.seed)
    seconds = time.monotonic() - start
    print(show_table(make_rows(found.courses)))
    print(show_moments(found.courses))
    print(f"With a byte changed, {show_changed(found.changed)}.")
    print(f"{seconds / 60:.0f} minutes")
    if options.out is not None:
        report = as_json(
            found.courses, found.changed, seed=options.seed, seconds=seconds, disk=found.disk
        )
        write_atomically(options.out, (json.dumps(report, indent=1) + "\n").encode())
    if any(course.problems or course.lost for _, course in found.courses):
        sys.exit(f"not all is well; see {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
