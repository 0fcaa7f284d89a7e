"""Killed or stopped at whatever moment, the same command ends as if nothing had happened."""

import os
import random
import signal
import time
from pathlib import Path

from common.training.folder import load_tensors
from tests.classification.trainer import (
    assert_nothing_left_over,
    assert_same_run,
    only_run,
    read_record,
)
from tests.video.synthetic import STEPS, options
from tests.video.trainer import VideoTrainer

GROUP = "motion-digits"
EVERY_EPOCH = ("--checkpoint-seconds", "0")


def test_terminated_within_an_epoch_whose_clips_are_read_ahead_the_run_goes_on_at_the_next_step(
    trainer: VideoTrainer, tmp_path: Path
) -> None:
    method = "cdb-s"
    run = (*options(method), "--workers", "2")
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
