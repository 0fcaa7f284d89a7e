"""Two processes, each with half of every batch, against one process with the whole of it."""

import multiprocessing
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from common.errors import UserError
from common.training.folder import load_tensors
from common.training.signals import StopRequest
from tests.classification.trainer import assert_nothing_left_over, only_run, read_record
from tests.stopping import SignalOnSecondRank, StopAfter
from tests.torchrun import ended_at_last, torchrun
from tests.video.synthetic import (
    EPOCHS,
    make_training,
    options,
    to_the_end,
)
from tests.video.trainer import VideoTrainer
from video.data import evaluation_batches
from video.evaluate import evaluate
from video.training import Training

RANKS = 2
# In float64; each epoch's difficulty differs from the last.
LIVELY: dict[str, Any] = {"plain": True, "learning_rate": 0.05, "seed": 1}
RUNS: dict[str, dict[str, Any]] = {
    "ce": {"method": "ce"},
    "cdb-w-ce": {"method": "cdb-w-ce"},
    "cdb-s": {"method": "cdb-s"},
    "by weights": {"method": "cdb-w-ce", "loss_reduction": "weight-sum"},
    "sum": {"method": "cb", "cb_beta": 0.9, "loss_reduction": "sum", "learning_rate": 0.01},
    "with workers": {"method": "cdb-s", "workers": 1},
}


def end_of(run: Training) -> dict[str, Any]:
    """Weights, history and test metrics."""
    run.model.eval()
    clips = run.data.test.of_rank()
    batches = evaluation_batches(clips, run.source, run.config, 0)
    metrics = evaluate({"last": run.model}, batches, run.data.num_classes, run.data.head)["last"]
    return {"weights": run.model.state_dict(), "rows": run.history.rows, "metrics": metrics}


def middle_of(folder: Path) -> dict[str, Any]:
    """The state after an epoch and two steps."""
    run = make_training(folder, **LIVELY, method="cdb-w-ce")
    assert run.run_epoch(StopRequest())
    run.end_epoch()
    assert not run.run_epoch(StopAfter(2))
    return run.state_dict()


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as refusal:
        make_training(folder, batch_size=5)
    return str(refusal.value)


def stopped_by_one_rank(folder: Path) -> tuple[bool, int, int | None]:
    run, stop = make_training(folder, **LIVELY), SignalOnSecondRank()
    complete = run.run_epoch(stop)
    return complete, run._step, stop.signal


def measure_on_this_rank(folder: Path, started: Path) -> dict[str, Any]:
    resumed = make_training(folder, **LIVELY, method="cdb-w-ce")
    resumed.load_state_dict(torch.load(started))
    real = make_training(folder, "cdb-w-ce", epochs=1, learning_rate=0.002)
    assert not real.run_epoch(StopAfter(2))
    return {
        "runs": {
            name: end_of(to_the_end(make_training(folder, **(LIVELY | run))))
            for name, run in RUNS.items()
        },
        "middle": middle_of(folder),
        "resumed": end_of(to_the_end(resumed)),
        "real": {"weights": real.model.state_dict(), "losses": real._losses[:2]},
        "refused": refused(folder),
        "stopped": stopped_by_one_rank(folder),
    }


def run_rank(number: int, folder: str, verbs: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    # As under torchrun; a spawned process would start the workers of a loader by spawning too.
    multiprocessing.set_start_method("fork", force=True)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting-point",
        rank=number,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    found = measure_on_this_rank(Path(verbs), Path(folder) / "started.pt")
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(verbs: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(middle_of(verbs), folder / "started.pt")
    spawn(run_rank, args=(str(folder), str(verbs)), nprocs=RANKS)
    return [torch.load(folder / f"{number}.pt") for number in range(RANKS)]


def assert_close_weights(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float, atol: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=rtol, atol=atol)


def assert_same_end(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Weights to 1e-7, losses to float32's precision, everything counted exactly."""
    assert_close_weights(ours["weights"], theirs["weights"], rtol=1e-7, atol=1e-9)
    assert ours["metrics"] == theirs["metrics"]
    assert ours["rows"].keys() == theirs["rows"].keys()
    for name, values in theirs["rows"].items():
        if name == "loss":
            assert ours["rows"][name] == pytest.approx(values, rel=1e-6)
        else:
            assert ours["rows"][name] == values, name


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one(both: Results, verbs: Path, name: str) -> None:
    alone = end_of(to_the_end(make_training(verbs, **(LIVELY | RUNS[name]))))
    assert len(alone["rows"]["epoch"]) == EPOCHS
    for result in both:
        assert_same_end(result["runs"][name], alone)
    if name.startswith("cdb"):
        assert len({tuple(weights) for weights in alone["rows"]["class_weights"]}) == EPOCHS


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_hold_the_same_bits(both: Results, name: str) -> None:
    first, second = (result["runs"][name] for result in both)
    assert first["rows"] == second["rows"]
    assert first["metrics"] == second["metrics"]
    assert_close_weights(first["weights"], second["weights"], rtol=0, atol=0)


def test_the_3d_resnext_takes_the_same_steps_on_two_processes(both: Results, verbs: Path) -> None:
    """Float32: rounding grows from step to step, so two of them are compared."""
    alone = make_training(verbs, "cdb-w-ce", epochs=1, learning_rate=0.002)
    assert not alone.run_epoch(StopAfter(2))
    for result in both:
        assert_close_weights(result["real"]["weights"], alone.model.state_dict(), 1e-3, 2e-5)
        torch.testing.assert_close(result["real"]["losses"], alone._losses[:2])


def test_one_process_goes_on_from_a_state_of_two(both: Results, verbs: Path) -> None:
    alone = end_of(to_the_end(make_training(verbs, **LIVELY, method="cdb-w-ce")))
    for result in both:
        resumed = make_training(verbs, **LIVELY, method="cdb-w-ce")
        resumed.load_state_dict(result["middle"])
        assert (resumed.epoch, resumed._step) == (1, 2)
        assert_same_end(end_of(to_the_end(resumed)), alone)


def test_two_processes_go_on_from_a_state_of_one(both: Results, verbs: Path) -> None:
    alone = end_of(to_the_end(make_training(verbs, **LIVELY, method="cdb-w-ce")))
    for result in both:
        assert_same_end(result["resumed"], alone)


def test_a_batch_that_the_processes_cannot_share_alike_is_refused(both: Results) -> None:
    for result in both:
        assert result["refused"] == (
            "--batch-size 5 cannot be shared by 2 processes; make it a multiple of their number."
        )


def test_a_signal_to_one_rank_stops_both_after_the_same_step(both: Results) -> None:
    for result in both:
        assert result["stopped"] == (False, 2, signal.SIGTERM)


# torchrun itself.


def test_a_command_under_torchrun_stops_at_sigterm_and_one_process_goes_on(
    trainer: VideoTrainer, verbs: Path, tmp_path: Path
) -> None:
    epochs = 40
    run = options("cdb-w-ce", epochs=epochs, learning_rate=0.001)
    # With workers, which are started in every epoch, it is not done before the signal comes.
    slow = ("--checkpoint-seconds", "0", "--workers", "1")
    started = (*run, "--data", str(verbs), "--out", str(tmp_path), *slow)
    path = trainer.run_folder(tmp_path, *run)
    with ended_at_last(torchrun("video.train", RANKS, *started)) as process:
        end = time.monotonic() + 300
        while not (path / "checkpoint.pt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "stopped after a checkpoint; the same command goes on" in err
    # One process writes and speaks.
    assert out.count("28 training, 14 difficulty and 15 test clips") == 1
    state = load_tensors(path / "checkpoint.pt")["state"]["training"]
    assert 0 < state["epoch"] < epochs
    assert trainer.run(tmp_path, *run).code == 0
    record = read_record(path)
    assert record["provenance"]["starts"] == 2
    assert record["history"]["epoch"] == list(range(1, epochs + 1))
    assert_nothing_left_over(path)


def test_a_command_under_torchrun_writes_the_record_of_one_process(
    trainer: VideoTrainer, verbs: Path, tmp_path: Path
) -> None:
    run = options("ce", epochs=1, milestones=(1,), learning_rate=0.001)
    shared = ("--data", str(verbs), "--out", str(tmp_path), "--cache", str(tmp_path / "cache"))
    with ended_at_last(torchrun("video.train", RANKS, *run, *shared)) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out, err)
    path = only_run(tmp_path, "motion-digits")
    ours, theirs = read_record(path), read_record(trainer.reference(*run))
    assert ours["provenance"]["hardware"]["processes"] == RANKS
    for name in ("run", "group", "config", "split", "condition", "method"):
        assert ours[name] == theirs[name]
    assert ours["history"]["loss"] == pytest.approx(theirs["history"]["loss"], rel=1e-3)
    assert sum(map(sum, ours["metrics"]["last"]["confusion"])) == 15
    assert_nothing_left_over(path)
