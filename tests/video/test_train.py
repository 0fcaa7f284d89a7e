"""A run from its command to its record."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.training.folder import load_tensors
from common.training.record import courses, read_record
from tests.classification.trainer import assert_nothing_left_over, assert_same_run
from tests.video.synthetic import COUNTS, EPOCHS, NAMES, make_training, options, to_the_end
from tests.video.trainer import VideoTrainer
from video.recipes import VerbMethod

METHODS = get_args(VerbMethod)
RUN = options("cdb-w-ce")


@pytest.fixture
def run(trainer: VideoTrainer) -> Path:
    return trainer.reference(*RUN)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_to_its_record(trainer: VideoTrainer, method: str) -> None:
    path = trainer.reference(*options(method))
    record = read_record(path / "record.json")  # Which checks it against the schema.
    assert (record["run"], record["method"]) == (path.name, method)
    assert (record["task"], record["dataset"]) == ("video", "motion-digits")
    assert (record["group"], record["condition"]) == ("motion-digits", "split1")
    assert record["variant"] == ("tau=sigmoid" if method.startswith("cdb") else "")
    assert record["history"].keys() == {"epoch", "loss", "learning_rate", "class_accuracy"}
    assert {len(values) for values in record["history"].values()} == {EPOCHS}
    assert record["config"] == json.loads((path / "config.json").read_text())
    assert_nothing_left_over(path)


def test_a_run_prints_its_data_its_epochs_and_its_results(
    trainer: VideoTrainer, tmp_path: Path
) -> None:
    ended = trainer.run(tmp_path, *RUN)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("motion-digits: 28 training, 14 difficulty and 15 test clips of 6")
    assert lines[2].startswith("The difficulty set is not balanced: 2 ")
    path = trainer.run_folder(tmp_path, *RUN)
    assert f"{path.name}: epoch 0/{EPOCHS}" in lines
    assert any(line.startswith(f"epoch {EPOCHS}/{EPOCHS}  loss ") for line in lines)
    last = read_record(path / "record.json")["metrics"]["last"]
    assert lines[-1].startswith(f"top-1 {100 - last['error']:.2f}; top-5 ")
    assert lines[-1].endswith(f"  {path / 'record.json'}")


def test_the_record_tells_the_split(run: Path) -> None:
    split = read_record(run / "record.json")["split"]
    assert {part: tuple(split[part]) for part in COUNTS} == COUNTS
    assert tuple(split["class_names"]) == NAMES
    assert split["head"] == [0, 1, 2, 3, 4]
    assert len(split["digest"]) == 64
    assert any("The difficulty set is not balanced" in note for note in split["notes"])


def test_the_measures_of_the_record_follow_from_its_confusion_matrix(run: Path) -> None:
    record = read_record(run / "record.json")
    for metrics in record["metrics"].values():
        confusion = metrics["confusion"]
        counts = [sum(row) for row in confusion]
        assert tuple(counts) == COUNTS["test"]
        hits = [confusion[c][c] for c in range(6)]
        assert metrics["error"] == pytest.approx(100 * (1 - sum(hits) / sum(counts)))
        # A class without test clips is not measured.
        recall = [h / n if n else None for h, n in zip(hits, counts, strict=True)]
        assert recall[4] is None
        assert metrics["class_accuracy"] == recall
        assert metrics["class_precision"][4] is None
        measured = [r for r in recall if r is not None]
        assert metrics["macro_recall"] == pytest.approx(sum(measured) / 5)
        assert metrics["head"]["recall"] == pytest.approx(sum(measured[:4]) / 4)
        assert metrics["tail"]["recall"] == pytest.approx(measured[4])
        assert sum(hits) / sum(counts) <= metrics["top5_accuracy"] <= 1


def test_the_record_measures_the_best_and_the_last_epoch(
    trainer: VideoTrainer, verbs: Path
) -> None:
    """Which epoch is best the difficulty set decides."""
    arguments = options("ce", learning_rate=0.05, epochs=4, milestones=(3,))
    path = trainer.reference(*arguments)
    record = read_record(path / "record.json")
    accuracies = [
        sum(a for a in row if a is not None) / 5 for row in record["history"]["class_accuracy"]
    ]
    best = accuracies.index(max(accuracies)) + 1
    assert best < 4, "the last epoch is the best: nothing is tested here"
    for name, epoch in (("best", best), ("last", 4)):
        metrics = record["metrics"][name]
        assert metrics["epoch"] == epoch
        assert metrics["difficulty_set_accuracy"] == pytest.approx(accuracies[epoch - 1])
    # The same run, ended at its best epoch.
    shorter = make_training(verbs, learning_rate=0.05, epochs=best, milestones=(3,))
    expected = to_the_end(shorter).model.state_dict()
    weights = load_tensors(path / "weights.pt")["best"]
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())


def test_the_engine_without_a_command_gives_the_same_run(run: Path, verbs: Path) -> None:
    training = to_the_end(make_training(verbs, "cdb-w-ce"))
    record = read_record(run / "record.json")
    assert record["history"] | courses(record) == training.history.rows
    weights = load_tensors(run / "weights.pt")["last"]
    for name, weight in training.model.state_dict().items():
        assert torch.equal(weights[name], weight)


def test_tensorboard_has_every_epoch(run: Path) -> None:
    record = read_record(run / "record.json")
    history, course = record["history"], courses(record)
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    for tag, expected in (
        ("train/loss", history["loss"]),
        ("cdb/tau", course["tau"]),
        ("class_weights/Move Around", [weights[3] for weights in course["class_weights"]]),
    ):
        points = log.Scalars(tag)
        assert [point.step for point in points] == history["epoch"]
        assert [point.value for point in points] == pytest.approx(expected)


@pytest.mark.parametrize(
    "how",
    [
        ("--workers", "2"),
        ("--cache", "CACHE"),
        ("--cache", "CACHE", "--workers", "2"),
        ("--reader", "decord"),
        ("--reader", "decord", "--cache", "CACHE"),
        ("--checkpoint-seconds", "0"),
    ],
)
def test_how_a_run_is_carried_out_changes_no_bit(
    trainer: VideoTrainer, run: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    if "decord" in how:
        pytest.importorskip("decord")
    words = [word.replace("CACHE", str(tmp_path / "cache")) for word in how]
    ended = trainer.run(tmp_path, *RUN, *words)
    assert ended.code == 0, ended
    assert_same_run(trainer.run_folder(tmp_path, *RUN), run)


def test_a_second_run_finds_the_cache_filled(
    trainer: VideoTrainer, run: Path, tmp_path: Path
) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    first = trainer.run(tmp_path / "1", *RUN, *cache)
    assert "57 of 57 clips are to be decoded" in first.out
    second = trainer.run(tmp_path / "2", *RUN, *cache)
    assert (second.code, second.err) == (0, "")
    assert "to be decoded" not in second.out
    assert_same_run(trainer.run_folder(tmp_path / "2", *RUN), run)


def test_a_run_of_a_group_has_its_own_folder(trainer: VideoTrainer, tmp_path: Path) -> None:
    assert trainer.run(tmp_path, *RUN, "--group", "mine").code == 0
    (path,) = (tmp_path / "mine").iterdir()
    assert read_record(path / "record.json")["group"] == "mine"
