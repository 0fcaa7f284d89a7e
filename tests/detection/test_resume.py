"""Killed or stopped at whatever moment, the same command ends as if nothing had happened."""

import signal
from pathlib import Path

import pytest

from common.training.folder import load_tensors
from tests.classification.trainer import assert_nothing_left_over, assert_same_run, read_record
from tests.detection.runs import EPOCHS, STEPS, TRAIN, options
from tests.detection.trainer import DetectionTrainer, first_stage_folder

RUNS = {
    # A fixed tau: by Eq. 10 an AP of some thousandths weighs all categories alike.
    "cdb-w-ce by ap": options("cdb-w-ce", tau=2),
    "cdb-w-ce by proposals": options("cdb-w-ce", difficulty="proposals"),
    "bags-clc": options("bags", second=True),
}
EVERY_EPOCH = ("--checkpoint-seconds", "0")


def first_stage_steps(name: str) -> int:
    """Steps that a run takes before its own: its first stage's, whose batch is the recipe's."""
    return EPOCHS * (TRAIN // 8) if name.endswith("-clc") else 0


@pytest.mark.parametrize(
    ("name", "workers"),
    [("cdb-w-ce by ap", "0"), ("bags-clc", "0"), ("cdb-w-ce by proposals", "2")],
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
