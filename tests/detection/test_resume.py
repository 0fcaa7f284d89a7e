"""Killed or stopped at whatever moment, the same command ends as if nothing had happened."""

import signal
from pathlib import Path

import pytest

from common.training.folder import load_tensors
from common.training.record import courses
from tests.classification.trainer import read_record
from tests.detection.runs import EPOCHS, STEPS, TRAIN, options
from tests.detection.trainer import (
    DetectionTrainer,
    assert_nothing_left_over,
    assert_same_run,
    first_stage_folder,
)

RUNS = {
    "ce": options("ce"),
    # A fixed tau: by Eq. 10 an AP of some thousandths weighs all categories alike.
    "cdb-w-ce by ap": options("cdb-w-ce", tau=2),
    "cdb-w-ce by proposals": options("cdb-w-ce", difficulty="proposals"),
    "bags-clc": options("bags", second=True),
}
EVERY_EPOCH = ("--checkpoint-seconds", "0")


def first_stage_steps(name: str) -> int:
    """Steps that a run takes before its own: its first stage's, whose batch is the recipe's."""
    return EPOCHS * (TRAIN // 8) if name.endswith("-clc") else 0


@pytest.mark.parametrize("name", RUNS)
def test_the_course_of_the_runs_is_worth_comparing(trainer: DetectionTrainer, name: str) -> None:
    record = read_record(trainer.reference(*RUNS[name]))
    assert len(set(record["history"]["loss"])) == 2
    if name.startswith("cdb"):
        assert len({tuple(weights) for weights in courses(record)["class_weights"]}) == 2


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, "0") for name in RUNS), ("cdb-w-ce by proposals", "2")]
)
def test_terminated_within_an_epoch_the_run_continues_at_the_next_step(
    trainer: DetectionTrainer, name: str, workers: str, tmp_path: Path
) -> None:
    run = (*RUNS[name], "--workers", workers)
    # The signal comes within the step of this number, which is still taken.
    step = first_stage_steps(name) + STEPS + 2
    ended = trainer.run(tmp_path, *run, at=("step", step), what="terminate")
    assert ended.code == 128 + signal.SIGTERM
    assert ended.err == "stopped after a checkpoint; the same command goes on\n"
    path = trainer.run_folder(tmp_path, *run)
    state = load_tensors(path / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["step"]) == (1, 2)
    assert trainer.run(tmp_path, *run).code == 0
    assert read_record(path)["provenance"]["starts"] == 2
    assert_same_run(path, trainer.reference(*RUNS[name]))
    assert_nothing_left_over(path)


@pytest.mark.parametrize("name", RUNS)
def test_killed_within_both_epochs_the_run_ends_as_the_undisturbed_one(
    trainer: DetectionTrainer, name: str, tmp_path: Path
) -> None:
    # Within the first epoch, of which nothing is kept, and within the second.
    for step in (first_stage_steps(name) + 2, STEPS + 2):
        ended = trainer.run(tmp_path, *RUNS[name], *EVERY_EPOCH, at=("step", step), what="kill")
        assert ended.code == -signal.SIGKILL
    assert trainer.run(tmp_path, *RUNS[name]).code == 0
    path = trainer.run_folder(tmp_path, *RUNS[name])
    assert read_record(path)["provenance"]["starts"] == 2
    assert_same_run(path, trainer.reference(*RUNS[name]))
    assert_nothing_left_over(path)


def test_killed_within_its_first_stage_a_second_one_goes_on_there(
    trainer: DetectionTrainer, tmp_path: Path
) -> None:
    run = RUNS["bags-clc"]
    # In its second epoch, of one step.
    ended = trainer.run(tmp_path, *run, *EVERY_EPOCH, at=("step", 2), what="kill")
    assert ended.code == -signal.SIGKILL
    first = first_stage_folder(tmp_path, *run)
    assert (first / "checkpoint.pt").exists()
    assert trainer.run(tmp_path, *run).code == 0
    assert read_record(first)["provenance"]["starts"] == 2
    assert_same_run(trainer.run_folder(tmp_path, *run), trainer.reference(*run))


def test_killed_before_any_write_reaches_the_disk_the_run_ends_as_the_undisturbed_one(
    trainer: DetectionTrainer, tmp_path: Path
) -> None:
    run = options("ce", epochs=1, batch_size=8)
    # Configuration, checkpoint, picture, weights, record: each flushes its file, then the folder.
    for number, code in ((3, -9), (5, -9), (7, -9), (8, -9), (9, -9), (10, -9), (11, 0)):
        out = tmp_path / str(number)
        ended = trainer.run(out, *run, *EVERY_EPOCH, at=("fsync", number), what="kill")
        assert ended.code == code
        if code:
            assert trainer.run(out, *run).code == 0
        assert_same_run(trainer.run_folder(out, *run), trainer.reference(*run))


def test_a_finished_run_is_not_trained_again(trainer: DetectionTrainer, tmp_path: Path) -> None:
    run = options("lrw", second=True, epochs=1, stage1_epochs=1)
    assert trainer.run(tmp_path, *run).code == 0
    path = trainer.run_folder(tmp_path, *run)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    ended = trainer.run(tmp_path, *run)
    assert (ended.code, ended.out) == (0, f"finished already: {path / 'record.json'}\n")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
