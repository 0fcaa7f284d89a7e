"""A run from its command to its record."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.training.folder import load_tensors
from common.training.record import courses, read_record
from detection.sets import load_sets
from tests.classification.trainer import assert_nothing_left_over, assert_same_run
from tests.detection.runs import (
    EPOCHS,
    FIRST,
    C,
    config_of,
    make_training,
    options,
    to_the_end,
    training_of,
)
from tests.detection.trainer import DetectionTrainer, first_stage_folder

RUN = options("cdb-w-ce")
AVERAGES = ("AP", "AP50", "AP75", "APr", "APc", "APf")


def check_run(path: Path, method: str, variant: str, task: str) -> None:
    """The record of a finished run, which reading checks against the schema, and its folder."""
    record = read_record(path / "record.json")
    assert (record["run"], record["method"], record["variant"]) == (path.name, method, variant)
    assert (record["task"], record["dataset"], record["group"]) == (
        "detection", "lvis-v0.5", "lvis-v0.5",
    )  # fmt: skip
    kinds = {"bbox", "segm"} if task == "mask" else {"bbox"}
    assert record["condition"] == "+".join(sorted(kinds))
    last = record["metrics"]["last"]
    assert record["metrics"].keys() == {"last"}
    assert last.keys() == {"epoch"} | kinds
    assert last["epoch"] == EPOCHS
    for kind in kinds:
        assert len(last[kind]["category_ap"]) == C
        measured = [ap for ap in last[kind]["category_ap"] if ap is not None]
        assert len(measured) == C - 1
        assert last[kind]["AP"] == pytest.approx(sum(measured) / len(measured))
        assert set(AVERAGES) <= last[kind].keys()
    assert record["history"].keys() == {"epoch", "loss", "learning_rate", "class_accuracy"}
    assert {len(values) for values in record["history"].values()} == {EPOCHS}
    assert record["config"] == json.loads((path / "config.json").read_text())
    assert_nothing_left_over(path)


@pytest.mark.parametrize(("method", "task"), [
    *[(method, "box") for method in FIRST], ("ce", "mask"), ("cdb-w-ce", "mask"),
])  # fmt: skip
def test_every_method_runs_to_its_record(trainer: DetectionTrainer, method: str, task: str) -> None:
    path = trainer.reference(*options(method, task=task))
    check_run(path, method, "pretrained=random", task)


# Tables 5 and 6: a method for boxes, or for masks, from a detector of one loss or another.
STAGES = [
    ("focal", "ce", "box"), ("lrw", "cdb-w-ce", "box"), ("bags", "ce", "box"),
    ("cdb-w-ce", "ce", "box"), ("simcal", "ce", "mask"), ("calib", "ce", "mask"),
    ("bags", "ce", "mask"), ("cdb-w-ce", "cdb-w-ce", "mask"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "stage1", "task"), STAGES)
def test_every_second_stage_runs_to_its_record_and_changes_the_classifier_alone(
    trainer: DetectionTrainer, tmp_path: Path, method: str, stage1: str, task: str
) -> None:
    """Its first stage it trains itself, which is the run of that recipe to the bit."""
    run = options(method, second=True, stage1=stage1, task=task)
    if method == "focal":  # All the others find it finished.
        out = tmp_path
        assert trainer.run(out, *run).code == 0
        path, first = trainer.run_folder(out, *run), first_stage_folder(out, *run)
        check_run(first, stage1, "pretrained=random", task)
    else:
        path = trainer.reference(*run)
        first = first_stage_folder(path.parents[1], *run)
    name = method if method in ("simcal", "calib") else f"{method}-clc"
    check_run(path, name, f"pretrained=lvis-{stage1}", task)
    before, after = (load_tensors(folder / "weights.pt")["last"] for folder in (first, path))
    changed = {
        name for name, weight in after.items()
        if name not in before or not torch.equal(weight, before[name])
    }  # fmt: skip
    assert before.keys() <= after.keys()
    own = ("roi_heads.calibrated.", "roi_heads.head.")
    if method not in ("simcal", "calib"):
        own = ("roi_heads.box_predictor.cls_score.", "roi_heads.head.")
    assert changed
    assert all(name.startswith(own) for name in changed)


def test_a_first_stage_that_has_finished_is_taken_and_one_that_is_missing_is_trained(
    trainer: DetectionTrainer, tmp_path: Path
) -> None:
    run = options("lrw", second=True)
    first = first_stage_folder(tmp_path, *run)
    ended = trainer.run(tmp_path, *run)
    assert ended.code == 0
    assert f"{first.name}: epoch 0/{EPOCHS}" in ended.out
    before = (first / "weights.pt").stat().st_mtime_ns
    other = trainer.run(tmp_path, *options("focal", second=True))
    assert other.code == 0
    assert f"first stage: {first}" in other.out.splitlines()
    assert f"{first.name}: epoch" not in other.out
    # To common.launching.local these words mean that there was nothing to do.
    assert "finished already" not in other.out
    assert (first / "weights.pt").stat().st_mtime_ns == before


def test_a_run_prints_its_data_its_epochs_its_cost_and_its_results(
    trainer: DetectionTrainer, tmp_path: Path
) -> None:
    ended = trainer.run(tmp_path, *RUN)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("lvis-v0.5: 8 training, 3 difficulty and 3 val images of 5 categ")
    assert "The difficulty set measures 4 of 5 categories; the others keep" in lines[1]
    path = trainer.run_folder(tmp_path, *RUN)
    assert f"{path.name}: epoch 0/{EPOCHS}" in lines
    assert any(line.startswith(f"epoch {EPOCHS}/{EPOCHS}  loss ") for line in lines)
    assert lines[-2].startswith("difficulty by ap: ")
    last = read_record(path / "record.json")["metrics"]["last"]["bbox"]
    assert lines[-1].startswith(f"bbox AP {last['AP']:.2f}, APr ")
    assert lines[-1].endswith(f"  {path / 'record.json'}")


def test_the_record_tells_the_split(trainer: DetectionTrainer, shapes: Path) -> None:
    record = read_record(trainer.reference(*RUN) / "record.json")
    assert record["split"] == load_sets(config_of("ce"), shapes, shapes).description
    assert str(shapes) not in json.dumps(record)


def test_the_history_shows_what_drove_the_difficulty(trainer: DetectionTrainer) -> None:
    for difficulty in ("ap", "proposals"):
        run = options("cdb-w-ce", difficulty=difficulty)
        record = read_record(trainer.reference(*run) / "record.json")
        measured = record["history"]["class_accuracy"][0]
        assert measured[-1] is None
        expected = [1.0 if a is None else 1 - a for a in measured]
        assert courses(record)["difficulty"] == [[1.0] * C, pytest.approx(expected)]


def test_the_engine_without_a_command_gives_the_same_run(
    trainer: DetectionTrainer, shapes: Path
) -> None:
    run = trainer.reference(*RUN)
    training = to_the_end(make_training(shapes, "cdb-w-ce"))
    record = read_record(run / "record.json")
    assert record["history"] | courses(record) == training.history.rows
    weights = load_tensors(run / "weights.pt")["last"]
    for name, weight in training.model.state_dict().items():
        assert torch.equal(weights[name], weight)


def test_a_second_stage_begins_with_the_last_weights_of_the_first(
    trainer: DetectionTrainer, shapes: Path
) -> None:
    run = options("bags", second=True)
    path = trainer.reference(*run)
    first = load_tensors(first_stage_folder(path.parents[1], *run) / "weights.pt")["last"]
    config = config_of("bags", second=True)
    sets = load_sets(config, shapes, shapes)
    training = to_the_end(training_of(config, sets, first=first))
    weights = load_tensors(path / "weights.pt")["last"]
    for name, weight in training.model.state_dict().items():
        assert torch.equal(weights[name], weight)


def test_tensorboard_has_every_epoch(trainer: DetectionTrainer) -> None:
    run = trainer.reference(*RUN)
    record = read_record(run / "record.json")
    history, course = record["history"], courses(record)
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    for tag, expected in (
        ("train/loss", history["loss"]),
        ("cdb/tau", course["tau"]),
        ("class_weights/kite", [weights[2] for weights in course["class_weights"]]),
    ):
        points = log.Scalars(tag)
        assert [point.step for point in points] == history["epoch"]
        assert [point.value for point in points] == pytest.approx(expected)


@pytest.mark.parametrize("how", [("--workers", "2"), ("--checkpoint-seconds", "0")])
def test_how_a_run_is_carried_out_changes_no_bit(
    trainer: DetectionTrainer, tmp_path: Path, how: tuple[str, ...]
) -> None:
    ended = trainer.run(tmp_path, *RUN, *how)
    assert ended.code == 0, ended
    assert_same_run(trainer.run_folder(tmp_path, *RUN), trainer.reference(*RUN))


def test_a_run_of_a_group_has_its_own_folder(trainer: DetectionTrainer, tmp_path: Path) -> None:
    run = options("ce", epochs=1)
    assert trainer.run(tmp_path, *run, "--group", "mine").code == 0
    (path,) = (tmp_path / "mine").iterdir()
    assert read_record(path / "record.json")["group"] == "mine"
