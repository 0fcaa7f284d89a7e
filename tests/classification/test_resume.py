import os
import random
import signal
import subprocess
import sys
import time
from itertools import count
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

# Methods without random numbers of their own, with a balancer, with its probabilities in the
# sampler, with a random loss, and with batches of their own.
METHODS = ("ce", "cdb-w-ce", "cdb-s", "eql", "l2rw")
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
def test_the_course_of_the_runs_is_worth_comparing(trainer: Trainer, method: str) -> None:
    record = read_record(trainer.reference(*options(method)))
    history = record["history"]
    assert history["epoch"] == list(range(1, EPOCHS + 1))
    assert len(set(history["loss"])) == EPOCHS
    if method.startswith("cdb"):
        assert len({tuple(weights) for weights in courses(record)["class_weights"]}) > 2


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


@pytest.mark.parametrize("method", METHODS)
def test_terminated_within_an_epoch_the_run_continues_at_the_next_step(
    trainer: Trainer, method: str, tmp_path: Path
) -> None:
    step = random.Random(method).randint(STEPS + 2, 2 * STEPS - 2)
    ended = trainer.run(tmp_path, *options(method), at=("step", step), what="terminate")
    assert ended.code == 128 + signal.SIGTERM
    assert "the same command goes on" in ended.err
    assert "Traceback" not in ended.err
    run = only_run(tmp_path)
    state = load_tensors(run / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["step"]) == divmod(step, STEPS)
    assert trainer.run(tmp_path, *options(method)).code == 0
    assert_same_run(run, trainer.reference(*options(method)))
    assert_nothing_left_over(run)


# Meta-learning, weights that are deferred, and a count that goes on within an epoch; every method
# goes on from its state in test_engine.py, and two stages in test_decoupled.py.
@pytest.mark.parametrize("method", ["l2rw", "meta-weight-net", "ldam-drw", "cdb-w-fl"])
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


def test_killed_before_any_write_reaches_the_disk_the_run_ends_as_the_undisturbed_one(
    trainer: Trainer, tmp_path: Path
) -> None:
    """Each write flushes a temporary file, renames it, and flushes the folder."""
    seen = set()
    for number in count(1):
        out = tmp_path / str(number)
        ended = trainer.run(out, *SHORT, *EVERY_EPOCH, at=("fsync", number), what="kill")
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL
        run = only_run(out)
        names = {path.name for path in run.iterdir()}
        partial = next((name for name in names if name.endswith(".partial")), "")
        written = ".".join(partial.split(".")[1:3])
        seen.add((written, "weights.pt" in names, "record.json" in names))
        assert trainer.run(out, *SHORT).code == 0
        assert_same_run(run, trainer.reference(*SHORT))
        assert_nothing_left_over(run)
    assert seen == {
        ("config.json", False, False),
        ("checkpoint.pt", False, False),
        ("weights.pt", False, False),
        ("record.json", True, False),
        ("", False, False),
        ("", True, False),
        ("", True, True),
    }


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


def test_a_finished_run_is_not_trained_again(trainer: Trainer, tmp_path: Path) -> None:
    trainer.run(tmp_path, *SHORT)
    run = only_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    ended = trainer.run(tmp_path, *SHORT)
    assert (ended.code, ended.out) == (0, f"finished already: {run / 'record.json'}\n")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
