"""Two processes, each with half of every batch, against one process with the whole of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from tests.classification.trainer import assert_nothing_left_over, only_run, read_record
from tests.ranks import on_ranks
from tests.stopping import StopAfter
from tests.torchrun import ended_at_last, torchrun
from tests.video.synthetic import (
    EPOCHS,
    Reweighing,
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
    "logit-adjustment": {"method": "logit-adjustment", "la_tau": 1.5},
    "by weights": {"method": "cdb-w-ce", "loss_reduction": "weight-sum"},
    "sum": {"method": "cb", "cb_beta": 0.9, "loss_reduction": "sum", "learning_rate": 0.01},
    "with workers": {"method": "cdb-s", "workers": 1},
    "weights by the whole batch": {"in_its_place": Reweighing},
}


def end_of(run: Training) -> dict[str, Any]:
    """Weights, history and test metrics."""
    run.model.eval()
    clips = run.data.test.of_rank()
    batches = evaluation_batches(clips, run.source, run.config, 0)
    metrics = evaluate({"last": run.model}, batches, run.data.num_classes, run.data.head)["last"]
    return {"weights": run.model.state_dict(), "rows": run.history.rows, "metrics": metrics}


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as refusal:
        make_training(folder, batch_size=5)
    return str(refusal.value)


def measure_on_this_rank(folder: Path) -> dict[str, Any]:
    real = make_training(folder, "cdb-w-ce", epochs=1, learning_rate=0.002)
    assert not real.run_epoch(StopAfter(2))
    return {
        "runs": {
            name: end_of(to_the_end(make_training(folder, **(LIVELY | run))))
            for name, run in RUNS.items()
        },
        "real": {"weights": real.model.state_dict(), "losses": real._losses[:2]},
        "refused": refused(folder),
    }


Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(verbs: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return on_ranks(RANKS, tmp_path_factory.mktemp("ranks"), measure_on_this_rank, verbs)


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


def test_a_batch_that_the_processes_cannot_share_alike_is_refused(both: Results) -> None:
    for result in both:
        assert result["refused"] == (
            "--batch-size 5 cannot be shared by 2 processes; make it a multiple of their number."
        )


# torchrun itself.


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
