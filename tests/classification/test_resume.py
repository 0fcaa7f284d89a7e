import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.training.folder import load_tensors
from common.training.record import courses
from tests.classification import small_cifar
from tests.classification.small_cifar import small_run
from tests.classification.trainer import (
    ROOT,
    Trainer,
    assert_nothing_left_over,
    assert_same_run,
    only_run,
    read_record,
    run_folder,
)

# With a random loss, and with batches of their own; for the rest of what a restart must keep, and
# for the other tasks, see tests/common/training/test_conformance.py.
METHODS = ("eql", "l2rw")
BATCH = 25
STEPS = 500 // BATCH  # see fork_server.py
EPOCHS = 4


def options(method: str) -> tuple[str, ...]:
    # A learning rate at which each epoch's difficulty differs from the last.
    own = {"l2rw": ("--l2rw-batch-size", "50"), "eql": ("--eql-threshold", "0.45")}
    return (
        "--method", method, "--epochs", str(EPOCHS), "--batch-size", str(BATCH),
        "--learning-rate", "0.01", "--loss-reduction", "batch-size", "--imbalance", "1.5",
        *own.get(method, ()),
    )  # fmt: skip


SHORT = ("--method", "cdb-s", "--epochs", "2", "--batch-size", "100", "--imbalance", "4")
EVERY_EPOCH = ("--checkpoint-seconds", "0")


def wait_until(words: str, process: int, trainer: Trainer) -> None:
    """Wait until the output of ``process`` holds ``words``."""
    end = time.monotonic() + 60
    while words not in trainer.output(process):
        assert time.monotonic() < end, trainer.output(process)
        time.sleep(0.01)


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_two_random_steps_the_run_ends_as_the_undisturbed_one(
    trainer: Trainer, method: str, tmp_path: Path
) -> None:
    draw = random.Random(method)
    moments = draw.randint(STEPS + 1, 2 * STEPS), draw.randint(STEPS + 1, 2 * STEPS)
    for step in moments:
        ended = trainer.run(
            tmp_path, *options(method), *EVERY_EPOCH, at=("step", step), what="kill"
        )
        assert ended.code == -signal.SIGKILL
        assert (only_run(tmp_path) / "checkpoint.pt").exists()
    assert trainer.run(tmp_path, *options(method)).code == 0
    run = only_run(tmp_path)
    assert read_record(run)["provenance"]["starts"] == 3
    assert_same_run(run, trainer.reference(*options(method)))
    assert_nothing_left_over(run)


# Meta-learning, weights that are deferred, and a count that goes on within an epoch; every method
# goes on from its state in test_engine.py, and two stages in test_decoupled.py.
@pytest.mark.parametrize(
    "method", ["l2rw", "meta-weight-net", "ldam-drw", "logit-adjustment", "cdb-w-fl"]
)
def test_on_cifar_killed_after_an_epoch_and_within_one_the_run_ends_as_the_undisturbed_one(
    trainer: Trainer, method: str, tmp_path: Path
) -> None:
    arguments = small_run("cifar100-lt", method)
    reference = trainer.reference(*arguments)
    assert len(set(read_record(reference)["history"]["loss"])) == 3
    at = ("step", small_cifar.STEPS + 1)
    ended = trainer.run(tmp_path, *arguments, *EVERY_EPOCH, at=at, what="kill")
    assert ended.code == -signal.SIGKILL
    ended = trainer.run(tmp_path, *arguments, at=("step", 3), what="terminate")
    assert ended.code == 128 + signal.SIGTERM
    run = run_folder(tmp_path, *arguments)
    state = load_tensors(run / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["step"]) == (1, 3)
    assert trainer.run(tmp_path, *arguments).code == 0
    assert read_record(run)["provenance"]["starts"] == 3
    assert_same_run(run, reference)
    assert_nothing_left_over(run)


def test_terminated_at_every_step_the_run_is_the_undisturbed_one(
    trainer: Trainer, tmp_path: Path
) -> None:
    starts = 0
    while trainer.run(tmp_path, *SHORT, at=("step", 1), what="terminate").code:
        starts += 1
        assert starts <= 10
    assert starts == 10
    assert_same_run(only_run(tmp_path), trainer.reference(*SHORT))


def test_killed_at_random_times_the_run_ends_as_the_undisturbed_one(
    trainer: Trainer, tmp_path: Path
) -> None:
    reference = trainer.reference(*options("cdb-s"), *EVERY_EPOCH)
    duration = 0.1 + read_record(reference)["provenance"]["seconds"]
    draw = random.Random(0)
    killed = 0
    for _ in range(8):
        process = trainer.start(tmp_path, *options("cdb-s"), *EVERY_EPOCH)
        time.sleep(draw.uniform(0, duration / 2))
        os.kill(process, signal.SIGKILL)
        killed += trainer.wait(process).code == -signal.SIGKILL
    assert killed > 0
    assert trainer.run(tmp_path, *options("cdb-s"), *EVERY_EPOCH).code == 0
    assert_same_run(only_run(tmp_path), reference)
    assert_nothing_left_over(only_run(tmp_path))


def test_the_command_itself_survives_kill_and_terminate(trainer: Trainer, tmp_path: Path) -> None:
    arguments = ("--method", "cdb-w-ce", "--epochs", "3", "--batch-size", "250")
    command = [
        sys.executable, "-m", "classification.train", "mnist-lt", "--out", str(tmp_path),
        *arguments, *EVERY_EPOCH,
    ]  # fmt: skip
    for number, code in (
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 128 + signal.SIGTERM),
    ):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith("epoch "))
            process.send_signal(number)
        assert process.returncode == code
    assert trainer.run(tmp_path, *arguments, whole=True).code == 0
    assert_same_run(only_run(tmp_path), trainer.reference(*arguments, whole=True))


def test_two_processes_asked_for_the_same_run_make_one_record(
    trainer: Trainer, tmp_path: Path
) -> None:
    processes = [trainer.start(tmp_path, *options("cdb-s")) for _ in range(2)]
    ended = [trainer.wait(process) for process in processes]
    assert [process.code for process in ended] == [0, 0]
    outputs = sorted(ended, key=lambda process: "finished already" in process.out)
    assert "finished already" not in outputs[0].out
    assert f"epoch {EPOCHS}/{EPOCHS}" in outputs[0].out
    assert f"epoch {EPOCHS}/{EPOCHS}" not in outputs[1].out
    assert "finished already" in outputs[1].out
    assert read_record(only_run(tmp_path))["provenance"]["starts"] == 1
    assert_same_run(only_run(tmp_path), trainer.reference(*options("cdb-s")))
    assert_nothing_left_over(only_run(tmp_path))


def test_a_waiting_process_takes_over_when_the_first_is_killed(
    trainer: Trainer, tmp_path: Path
) -> None:
    long = ("--method", "cdb-s", "--epochs", "1000")
    first = trainer.start(tmp_path, *long)
    wait_until("epoch 1/", first, trainer)
    second = trainer.start(tmp_path, *long)
    wait_until("is in use by another process; waiting for it", second, trainer)
    os.kill(first, signal.SIGKILL)
    trainer.wait(first)
    wait_until("epoch 1/", second, trainer)
    os.kill(second, signal.SIGTERM)
    assert trainer.wait(second).code == 128 + signal.SIGTERM


def test_the_process_that_takes_over_ends_as_the_undisturbed_one(
    trainer: Trainer, tmp_path: Path
) -> None:
    first = trainer.start(
        tmp_path, *options("cdb-s"), *EVERY_EPOCH, at=("step", 3 * STEPS), what="kill"
    )
    wait_until("epoch 0/", first, trainer)
    second = trainer.start(tmp_path, *options("cdb-s"), *EVERY_EPOCH)
    assert trainer.wait(first).code == -signal.SIGKILL
    ended = trainer.wait(second)
    assert ended.code == 0
    assert f"epoch 2/{EPOCHS}" in ended.out
    assert_same_run(only_run(tmp_path), trainer.reference(*options("cdb-s")))


def test_the_tensorboard_log_has_each_epoch_once_after_a_restart(
    trainer: Trainer, tmp_path: Path
) -> None:
    # The checkpoint is of the first epoch, the log goes to the third.
    trainer.run(tmp_path, *options("cdb-w-ce"), *EVERY_EPOCH, at=("fsync", 5), what="kill")
    trainer.run(tmp_path, *options("cdb-w-ce"))
    run = only_run(tmp_path)
    assert read_record(run)["provenance"]["starts"] == 2
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    history, course = read_record(run)["history"], courses(read_record(run))
    for tag, expected in (
        ("train/loss", history["loss"]),
        ("cdb/tau", course["tau"]),
        ("class_weights/9", [weights[1] for weights in course["class_weights"]]),
    ):
        points = log.Scalars(tag)
        assert [point.step for point in points] == history["epoch"]
        assert [point.value for point in points] == pytest.approx(expected)
