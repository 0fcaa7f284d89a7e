"""The soak test counts what it must: here on a few kills, and on runs spoilt on purpose.

The whole of it, ``python -m tests.soak``, takes about 15 minutes and is no part of the suite.
"""

import fcntl
import json
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from common.training.folder import save_tensors
from tests.classification.small_images import write_images
from tests.classification.trainer import Ended, Trainer, fork_server
from tests.soak.equality import Progress, differences, lost, progress, run_folders
from tests.soak.faults import (
    Bench,
    Damage,
    blank,
    cut,
    damaged_checkpoint,
    damaged_record,
    decode_changed,
    flip,
    limited_files,
    list_trials,
    refused,
    started_twice,
)
from tests.soak.kills import Course, Reference, kill_all, undisturbed
from tests.soak.report import Row, make_rows, show_changed, show_moments, show_table, total
from tests.soak.runs import MNIST, Launcher, send

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
RECORDED = ROOT / "docs" / "faults" / "soak.json"
SMALL = replace(MNIST, whole=False)
RUN = "cdb-s_tau-sigmoid_imbalance-99_epochs-5_seed-0"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    logs = tmp_path_factory.mktemp("logs")
    with fork_server("classification") as server:
        yield Launcher({"classification.train": Trainer(server, logs)}, {}, logs)


@pytest.fixture(scope="module")
def reference(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return undisturbed(launcher, SMALL, tmp_path_factory.mktemp("reference") / "place")


@pytest.fixture
def finished(reference: Reference, tmp_path: Path) -> Path:
    """A copy of the undisturbed run's place; its run may be spoilt."""
    shutil.copytree(reference.place, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def bench(launcher: Launcher, reference: Reference, tmp_path: Path) -> Bench:
    draw = random.Random(0)
    return Bench(launcher, {SMALL.name: reference}, {}, tmp_path, draw, mounts=False)


# ---- kills and faults


def test_as_many_kills_as_asked_for_are_tried_and_every_run_ends_equal(
    launcher: Launcher, reference: Reference, tmp_path: Path
) -> None:
    courses = [*kill_all(launcher, [reference], tmp_path, random.Random(1), 6)]
    assert sum(len(course.faults) for course in courses) == 6
    for course in courses:
        assert (course.problems, course.lost) == ([], [])
        assert len(course.phases) == len(course.faults)
    assert not [*tmp_path.iterdir()]


def test_a_process_may_be_killed_before_its_first_step(launcher: Launcher, tmp_path: Path) -> None:
    process = launcher.start(SMALL, tmp_path)
    send(process.all(), signal.SIGKILL)
    assert process.wait() == Ended(-signal.SIGKILL, "", "")


@pytest.mark.parametrize("damage", [flip, cut, blank])
def test_a_damaged_checkpoint_is_refused_and_the_run_ends_equal_without_it(
    bench: Bench, damage: Damage
) -> None:
    course = damaged_checkpoint(bench, SMALL.name, damage)
    assert (len(course.faults), course.problems, course.lost) == (1, [], [])


def test_a_damaged_record_a_limit_and_two_starts_are_survived(bench: Bench) -> None:
    for course in (
        damaged_record(bench, SMALL.name, cut),
        limited_files(bench, SMALL.name),
        started_twice(bench, SMALL.name, killed=True),
    ):
        assert (len(course.faults), course.problems, course.lost) == (1, [], [])


@pytest.mark.parametrize("mounts", [True, False])
def test_every_fault_of_the_list_is_tried(bench: Bench, mounts: bool) -> None:
    bench.mounts = mounts
    rows = {row for row, _ in list_trials(bench)}
    assert rows >= {
        "image damaged", "image cache shard damaged", "frame cache file damaged",
        "checkpoint damaged", "record damaged", "run started twice",
    }  # fmt: skip
    assert any("disk" in row for row in rows) is mounts
    assert ("files limited in size" in rows) is not mounts


# ---- what is noticed


def test_a_copy_of_a_run_is_equal(finished: Path, reference: Reference) -> None:
    assert differences(finished, reference.place) == []


def test_another_number_of_a_record_is_noticed(finished: Path, reference: Reference) -> None:
    path = finished / "runs" / "mnist-lt" / RUN / "record.json"
    record = json.loads(path.read_text())
    record["history"]["loss"][0] += 1e-6
    path.write_text(json.dumps(record))
    (problem,) = differences(finished, reference.place)
    assert problem.startswith(f"{RUN}: ")


@pytest.mark.parametrize("damage", [cut, blank])
def test_a_damaged_record_is_noticed(finished: Path, reference: Reference, damage: Damage) -> None:
    damage(finished / "runs" / "mnist-lt" / RUN / "record.json", random.Random(0))
    (problem,) = differences(finished, reference.place)
    assert "JSONDecodeError" in problem


def test_other_provenance_is_none(finished: Path, reference: Reference) -> None:
    path = finished / "runs" / "mnist-lt" / RUN / "record.json"
    record = json.loads(path.read_text())
    record["provenance"]["starts"] = 7
    path.write_text(json.dumps(record))
    assert differences(finished, reference.place) == []


@pytest.mark.parametrize("damage", [flip, cut, blank])
def test_damaged_weights_are_noticed(finished: Path, reference: Reference, damage: Damage) -> None:
    path = finished / "runs" / "mnist-lt" / RUN / "weights.pt"
    damage(path, random.Random(0))
    (problem,) = differences(finished, reference.place)
    assert "weights.pt is truncated or damaged" in problem


@pytest.mark.parametrize("name", [".record.json.1.partial", "checkpoint.pt"])
def test_what_is_left_over_is_noticed(finished: Path, reference: Reference, name: str) -> None:
    (finished / "runs" / "mnist-lt" / RUN / name).touch()
    assert len(differences(finished, reference.place)) == 1


def test_a_held_lock_is_noticed(finished: Path, reference: Reference) -> None:
    with (finished / "runs" / "mnist-lt" / RUN / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (problem,) = differences(finished, reference.place)
    assert "Resource temporarily unavailable" in problem


def test_a_missing_run_is_noticed(finished: Path, reference: Reference) -> None:
    shutil.rmtree(finished / "runs")
    assert differences(finished, reference.place) == [f"runs [], not {[RUN]}"]


def write_checkpoint(place: Path, epoch: int, step: int) -> None:
    run = place / "runs" / "group" / "run"
    run.mkdir(parents=True, exist_ok=True)
    training = {"epoch": epoch, "step": step, "losses": torch.zeros(5)}
    save_tensors(run / "checkpoint.pt", {"state": {"training": training}})


def test_a_run_that_falls_back_has_lost_something(tmp_path: Path) -> None:
    before = Progress()
    # Behind the last step of an epoch stands the number of the next.
    for epoch, step in ((1, 3), (1, 3), (2, 5), (2, 1)):
        write_checkpoint(tmp_path, epoch, step)
        assert lost(before, tmp_path) == []
    write_checkpoint(tmp_path, 1, 4)
    assert lost(before, tmp_path) == ["run fell back from (2, 1) to (1, 4)"]
    shutil.rmtree(tmp_path / "runs")
    assert lost(Progress(run=(1, 0)), tmp_path) == ["run fell back from (1, 0) to None"]


def test_a_torn_checkpoint_is_a_loss(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, 0)
    cut(run_folders(tmp_path)["run"] / "checkpoint.pt", random.Random(0))
    (words,) = lost(Progress(), tmp_path)
    assert words.startswith("damaged by the fault: ")


def test_a_finished_run_is_furthest(finished: Path) -> None:
    assert progress(finished) == {RUN: (float("inf"), 0)}


@pytest.mark.parametrize(
    ("code", "err", "fits"),
    [
        (2, "error: a.jpg is cut off; get it again.\n", True),
        (2, "a warning\nerror: a.jpg is cut off; get it again.\n", True),
        (1, "error: a.jpg is cut off; get it again.\n", False),
        (2, "error: something is cut off.\n", False),
        (2, "error: a.jpg\nTraceback (most recent call last):\n", False),
        (2, "error: a.jpg\nerror: a.jpg\n", False),
        (0, "", False),
    ],
)
def test_only_one_sentence_with_the_name_and_code_2_is_a_refusal(
    code: int, err: str, fits: bool
) -> None:
    course = Course("run")
    refused(course, Ended(code, "", err), "a.jpg")
    assert course.equal is fits


def test_damage_changes_a_file_in_place(tmp_path: Path) -> None:
    for number, damage in enumerate((flip, cut, blank)):
        path = tmp_path / str(number)
        path.write_bytes(bytes(range(1, 101)))
        inode = path.stat().st_ino
        damage(path, random.Random(0))
        assert path.read_bytes() != bytes(range(1, 101))
        assert path.stat().st_ino == inode


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_with_a_changed_byte_are_refused_the_same_or_others(
    tmp_path: Path, suffix: str
) -> None:
    images = write_images(tmp_path / "images")
    found = decode_changed(images, tmp_path, random.Random(0), 40)[suffix]
    assert sum(found.values()) == 40
    assert found["refused"] > 0


# ---- the table


def test_rows_are_sums_over_the_runs_of_a_fault() -> None:
    courses = [
        ("killed", Course("a", ["x", "y"], ["starting", "training"], partial=1)),
        ("killed", Course("a", ["x"], ["ending"], problems=["worse"])),
        ("killed", Course("b", ["x"], ["training"], lost=["record"])),
        ("killed", Course("c")),
        ("disk", Course("a", ["x"])),
    ]
    rows = make_rows(courses)
    assert rows == [
        Row("killed", "a", 3, 2, 1, 0),
        Row("killed", "b", 1, 1, 1, 1),
        Row("disk", "a", 1, 1, 1, 0),
    ]
    assert total(rows) == Row("all", "", 5, 4, 3, 1)
    assert show_table(rows).splitlines()[2:] == [
        "| killed | a | 3 | 2 | 1 | none |",
        "| killed | b | 1 | 1 | 1 | 1 |",
        "| disk | a | 1 | 1 | 1 | none |",
        "| all |  | 5 | 4 | 3 | 1 |",
    ]
    assert show_moments(courses) == (
        "Of 4 kills 1 fell before the first epoch line of a start, 2 into the epochs and 1 after "
        "the last one; 1 left a file half-written."
    )


def test_the_page_shows_the_recorded_table() -> None:
    recorded = json.loads(RECORDED.read_text())
    courses = [(course.pop("fault"), Course(**course)) for course in map(dict, recorded["courses"])]
    rows = make_rows(courses)
    assert [asdict(row) for row in rows] == recorded["rows"]
    assert show_table(rows) in PAGE.read_text()
    words = " ".join(PAGE.read_text().split())
    assert show_moments(courses) in words
    assert show_changed(recorded["images_with_a_changed_byte"]) in words
    assert sum(row.tried for row in rows if row.fault == "killed") == 100
