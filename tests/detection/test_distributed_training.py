"""Two processes, each with half of every batch.

Their run is not that of one process: proposals are sampled by each rank from draws of its own. What
holds: both ranks hold the same bits in every part of the state; the images of each step are those
of one process, each seen by one rank; and an evaluation gives what one process measures. How they
go on from checkpoints and stop is in tests/common/training/test_conformance.py.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.distributed import all_reduce_sum, rank
from common.errors import UserError
from common.training.folder import load_tensors
from common.training.signals import StopRequest
from detection.evaluate import measure_ap, metrics_of
from detection.heads import ClassificationHead
from detection.training import Training
from tests.classification.trainer import assert_nothing_left_over, read_record
from tests.detection.heads import HEAD_METHODS, make_head, mean_by_class
from tests.detection.runs import EPOCHS, STEPS, make_training, options, to_the_end
from tests.detection.trainer import DetectionTrainer
from tests.ranks import on_ranks
from tests.torchrun import ended_at_last, torchrun

RANKS = 2
RUNS: dict[str, dict[str, Any]] = {
    "ce mask": {"method": "ce", "task": "mask"},
    "cdb-w-ce by ap": {"method": "cdb-w-ce"},
    "cdb-s by proposals": {"method": "cdb-s", "difficulty": "proposals"},
    "bags-clc": {"method": "bags", "second": True},
    "simcal": {"method": "simcal", "second": True},
}


def end_of(run: Training) -> dict[str, Any]:
    return {
        "weights": run.model.state_dict(),
        "rows": run.history.rows,
        "metrics": metrics_of(measure_ap(run.model, run.sets.val, masks=False)),
    }


def images_seen(folder: Path) -> list[list[list[float]]]:
    """The boxes of this rank's images in each step of an epoch."""
    run, seen = make_training(folder, batch_size=4), []
    step = run.step

    def watched(batch: Any) -> Tensor:
        seen.append([target["boxes"].flatten().tolist() for target in batch[1]])
        return step(batch)

    run.step = watched
    assert run.run_epoch(StopRequest())
    return seen


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as refusal:
        make_training(folder, batch_size=3)
    return str(refusal.value)


def head_losses() -> dict[str, float]:
    """The loss of each method's head, and last a sum; the second rank has no proposals."""
    labels = LABELS if rank() == 0 else LABELS[:0]
    losses = {}
    for method in HEAD_METHODS:
        head = head_of(method)
        logits = torch.ones(len(labels), head.num_logits).cumsum(dim=1)
        losses[method] = float(head.loss(logits, labels))
    return losses | {"ranks": float(all_reduce_sum(torch.ones(())))}


def head_of(method: str) -> ClassificationHead:
    return make_head(
        method,
        3,
        reduce=partial(mean_by_class, torch.tensor([0.5, 1.0, 1.5, 1.0]), "batch-size"),
        instance_counts=torch.tensor([5, 50, 500]),
        image_share=torch.tensor([0.0001, 0.01, 0.1]),
        generator=torch.Generator().manual_seed(0),
        bags_beta=100.0,
    )


LABELS = torch.tensor([0, 1, 2, 3, 3, 0])


def measure_on_this_rank(folder: Path) -> dict[str, Any]:
    return {
        "heads": head_losses(),
        "runs": {n: end_of(to_the_end(make_training(folder, **run))) for n, run in RUNS.items()},
        "first": metrics_of(measure_first(folder)),
        "seen": images_seen(folder),
        "refused": refused(folder),
    }


def measure_first(folder: Path) -> Any:
    run = make_training(folder, task="mask")
    return measure_ap(run.model, run.sets.train, masks=True)


Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return on_ranks(RANKS, tmp_path_factory.mktemp("ranks"), measure_on_this_rank, shapes)


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_hold_the_same_bits(both: Results, shapes: Path, name: str) -> None:
    first, second = (result["runs"][name] for result in both)
    assert first["rows"] == second["rows"]
    assert len(first["rows"]["epoch"]) == EPOCHS
    assert first["metrics"] == second["metrics"]
    assert_same_weights(first["weights"], second["weights"])
    begun = make_training(shapes, **RUNS[name]).model.state_dict()
    assert any(not torch.equal(w, begun[n]) for n, w in first["weights"].items() if n in begun)


def test_the_images_of_a_step_are_those_of_one_process_each_seen_by_one_rank(
    both: Results, shapes: Path
) -> None:
    alone = images_seen(shapes)
    assert len(alone) == STEPS // 2
    for step, whole in enumerate(alone):
        shares = [result["seen"][step] for result in both]
        assert [len(share) for share in shares] == [2, 2]
        assert [whole[0::2], whole[1::2]] == shares


def test_an_evaluation_by_two_processes_is_that_of_one(both: Results, shapes: Path) -> None:
    alone = metrics_of(measure_first(shapes))
    assert alone.keys() == {"bbox", "segm"}
    for result in both:
        assert result["first"] == alone


def test_a_batch_that_the_processes_cannot_share_alike_is_refused(both: Results) -> None:
    for result in both:
        assert result["refused"] == (
            "--batch-size 3 cannot be shared by 2 processes; make it a multiple of their number."
        )


def test_a_rank_without_proposals_adds_nothing_to_the_loss_of_the_others(both: Results) -> None:
    """DistributedDataParallel takes the mean of the ranks' gradients; eql divides by its own R."""
    alone = head_losses()
    first, second = (result["heads"] for result in both)
    assert first.pop("ranks") == second.pop("ranks") == RANKS
    assert second == dict.fromkeys(HEAD_METHODS, 0.0)
    for method, loss in first.items():
        ranks = 1 if method == "eql" else RANKS
        assert loss / ranks == pytest.approx(alone[method]), method


# torchrun itself.


def test_a_command_under_torchrun_trains_both_stages_to_their_records(
    trainer: DetectionTrainer, shapes: Path, tmp_path: Path
) -> None:
    run = options("cdb-w-ce", second=True, task="mask", epochs=1, stage1_epochs=1)
    places = ("--data", str(shapes), "--images", str(shapes), "--out", str(tmp_path))
    with ended_at_last(torchrun("detection.train", RANKS, *run, *places)) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)
    # One process writes and speaks.
    assert out.count("8 training, 3 difficulty and 3 val images") == 2
    assert out.count("difficulty by ap: ") == 1
    path = trainer.run_folder(tmp_path, *run)
    record = read_record(path)
    assert record["provenance"]["hardware"]["processes"] == RANKS
    assert record["metrics"]["last"].keys() == {"epoch", "bbox", "segm"}
    assert load_tensors(path / "weights.pt").keys() == {"last"}
    assert_nothing_left_over(path)
    ended = trainer.run(tmp_path, *run)
    assert ended.out == f"finished already: {path / 'record.json'}\n"
