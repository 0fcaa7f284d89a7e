"""Killed or stopped at whatever moment, the same command ends as if nothing had happened."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from common.training.folder import load_tensors
from common.training.record import courses
from tests.classification.trainer import (
    assert_nothing_left_over,
    assert_same_run,
    only_run,
    read_record,
)
from tests.video.synthetic import STEPS, options
from tests.video.trainer import VideoTrainer

# Without a balancer, with one, and with its probabilities in the sampler.
METHODS = ("ce", "cdb-w-ce", "cdb-s")
GROUP = "motion-digits"
EVERY_EPOCH = ("--checkpoint-seconds", "0")


@pytest.mark.parametrize("method", METHODS)
def test_the_course_of_the_runs_is_worth_comparing(trainer: VideoTrainer, method: str) -> None:
    record = read_record(trainer.reference(*options(method)))
    assert len(set(record["history"]["loss"])) == 3
    if method.startswith("cdb"):
        assert len({tuple(weights) for weights in courses(record)["class_weights"]}) >= 2


@pytest.mark.parametrize(
    ("method", "workers"), [("ce", "0"), ("cdb-w-ce", "0"), ("cdb-s", "0"), ("cdb-s", "2")]
)
def test_terminated_within_an_epoch_the_run_continues_at_the_next_step(
    trainer: VideoTrainer, method: str, workers: str, tmp_path: Path
) -> None:
    run = (*options(method), "--workers", workers)
    ended = trainer.run(tmp_path, *run, at=("step", STEPS + 2), what="terminate")
    assert ended.code == 128 + signal.SIGTERM
    assert ended.err == "stopped after a checkpoint; the same command goes on\n"
    path = only_run(tmp_path, GROUP)
    state = load_tensors(path / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["step"]) == (1, 2)
    assert trainer.run(tmp_path, *run).code == 0
    assert read_record(path)["provenance"]["starts"] == 2
    assert_same_run(path, trainer.reference(*options(method)))
    assert_nothing_left_over(path)


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_two_steps_the_run_ends_as_the_undisturbed_one(
    trainer: VideoTrainer, method: str, tmp_path: Path
) -> None:
    # From the checkpoint of the first epoch on, within the second and, after it, the third.
    for step in (STEPS + 1 + METHODS.index(method), STEPS + 3):
        ended = trainer.run(
            tmp_path, *options(method), *EVERY_EPOCH, at=("step", step), what="kill"
        )
        assert ended.code == -signal.SIGKILL
    assert trainer.run(tmp_path, *options(method)).code == 0
    path = only_run(tmp_path, GROUP)
    assert read_record(path)["provenance"]["starts"] == 3
    assert_same_run(path, trainer.reference(*options(method)))
    assert_nothing_left_over(path)


def test_killed_at_random_times_while_the_cache_is_filled_and_the_network_trained(
    trainer: VideoTrainer, tmp_path: Path
) -> None:
    run = (*options("cdb-s"), *EVERY_EPOCH, "--cache", str(tmp_path / "cache"), "--workers", "1")
    reference = trainer.reference(*options("cdb-s"))
    draw, killed = random.Random(0), 0
    for _ in range(5):
        process = trainer.start(tmp_path, *run)
        time.sleep(draw.uniform(0, 0.6))
        os.kill(process, signal.SIGKILL)
        killed += trainer.wait(process).code == -signal.SIGKILL
    assert killed > 0
    assert trainer.run(tmp_path, *run).code == 0
    assert_same_run(only_run(tmp_path, GROUP), reference)
    assert_nothing_left_over(only_run(tmp_path, GROUP))


def test_killed_before_any_write_reaches_the_disk_the_run_ends_as_the_undisturbed_one(
    trainer: VideoTrainer, tmp_path: Path
) -> None:
    run = options("cdb-w-ce", epochs=1, batch_size=28, milestones=(1,))
    # Configuration, checkpoint, weights, record: each flushes its file, then the folder.
    for number, code in ((1, -9), (3, -9), (5, -9), (6, -9), (7, -9), (8, -9), (9, 0)):
        out = tmp_path / str(number)
        ended = trainer.run(out, *run, *EVERY_EPOCH, at=("fsync", number), what="kill")
        assert ended.code == code
        if code:
            assert trainer.run(out, *run).code == 0
        assert_same_run(only_run(out, GROUP), trainer.reference(*run))


def test_a_finished_run_is_not_trained_again(trainer: VideoTrainer, tmp_path: Path) -> None:
    assert trainer.run(tmp_path, *options("ce")).code == 0
    path = only_run(tmp_path, GROUP)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    ended = trainer.run(tmp_path, *options("ce"))
    assert (ended.code, ended.out) == (0, f"finished already: {path / 'record.json'}\n")
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
