import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classification import evaluate as evaluate_module
from classification.evaluate import evaluate, measure, read_config
from common.errors import UserError, run_main
from common.training.folder import RunFolder, load_tensors
from data_prep.cifar100 import training_sizes
from tests.classification.small_cifar import CLASSES, IMBALANCE, STAND_INS, small_run
from tests.classification.synthetic import small_data
from tests.classification.trainer import Trainer, read_record

RUN = ("--method", "cdb-s", "--epochs", "3", "--seed", "1", "--imbalance", "5")


class Answers(nn.Module):
    """Predicts class 0 for every image but the first ``right``, whose label it knows."""

    def __init__(self, labels: Tensor, right: int) -> None:
        super().__init__()
        self.labels = labels.clone()
        self.labels[right:] = 0
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        labels = self.labels[self.seen : self.seen + len(images)]
        self.seen += len(images)
        return nn.functional.one_hot(labels, 3).float()


def test_the_error_and_the_accuracy_of_classes_and_groups() -> None:
    data = small_data((200, 50, 4))
    labels = data.test.labels
    result = evaluate(Answers(labels, right=10), data)
    predicted = labels.clone()
    predicted[10:] = 0
    right = [int(((predicted == c) & (labels == c)).sum()) for c in range(3)]
    assert right[0] == 7  # Every image of class 0.
    assert 0 < right[1] < 7
    assert result["class_accuracy"] == [number / 7 for number in right]
    assert result["error"] == pytest.approx(100 * (1 - sum(right) / 21))
    assert result["shot_accuracy"] == {
        "many": 1.0, "medium": right[1] / 7, "few": right[2] / 7,
    }  # fmt: skip


def test_a_set_larger_than_a_batch_is_measured_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_data().difficulty
    whole = measure(Answers(data.labels, right=30), data, 3)
    monkeypatch.setattr("classification.data.EVALUATION_BATCH", 7)
    assert torch.equal(measure(Answers(data.labels, right=30), data, 3), whole)
    assert whole.tolist() == [1.0, 1.0, 1.0]


def test_the_mode_of_the_network_stays() -> None:
    data = small_data().difficulty
    model = Answers(data.labels, right=0).train()
    measure(model, data, 3)
    assert model.training


def test_the_weights_of_a_finished_run_give_its_recorded_metrics(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer.reference(*RUN, whole=True)
    metrics = read_record(run)["metrics"]
    monkeypatch.setattr(sys, "argv", ["evaluate", str(run)])
    run_main(evaluate_module.main)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["last", "best"]
    for line in lines:
        recorded = metrics[line.split()[0]]
        numbers = re.fullmatch(r".*: error (.*) %; .* class 4: (.*), 9: (.*)", line)
        assert numbers is not None
        error, *accuracy = map(float, numbers.groups())
        assert error == pytest.approx(recorded["error"], abs=0.005)
        assert accuracy == pytest.approx(recorded["class_accuracy"], abs=0.00005)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [("cifar100-lt", ()), ("cifar100-lt-crt", ("--stage1-epochs", "2"))],
)
def test_the_weights_of_a_finished_cifar_run_give_its_recorded_metrics(
    recipe: str,
    options: tuple[str, ...],
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of either stage; by shot group, for a hundred classes are too many for a line."""
    run = trainer.reference(*small_run(recipe, "cdb-s", *options))
    for module, name, value in STAND_INS:
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["evaluate", str(run)])
    run_main(evaluate_module.main)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["last", "best"]
    for line in lines:
        recorded = read_record(run)["metrics"][line.split()[0]]
        numbers = re.fullmatch(r".*: error (.*) %; .* shot group medium: (.*), few: (.*)", line)
        assert numbers is not None
        error, *accuracy = map(float, numbers.groups())
        assert error == pytest.approx(recorded["error"], abs=0.005)
        groups = recorded["shot_accuracy"]
        assert accuracy == pytest.approx([groups["medium"], groups["few"]], abs=0.00005)


def test_last_and_best_are_recorded_apart(trainer: Trainer) -> None:
    record = read_record(trainer.reference(*RUN, whole=True))
    balanced = [sum(row) / 2 for row in record["history"]["class_accuracy"]]
    best, last = record["metrics"]["best"], record["metrics"]["last"]
    assert last["epoch"] == 3
    assert best["epoch"] == 1 + balanced.index(max(balanced))
    for metrics in (best, last):
        assert metrics["difficulty_set_accuracy"] == balanced[metrics["epoch"] - 1]
        # 800 test images of each class.
        mean = math.fsum(metrics["class_accuracy"]) / 2
        assert metrics["error"] == pytest.approx(100 * (1 - mean))


@pytest.mark.parametrize("content", [None, "{", '{"colour": "red"}', "[]"])
def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=f"{tmp_path} is not the folder of a classification run"):
        read_config(tmp_path)


def test_the_configuration_is_read_as_it_was_written(trainer: Trainer) -> None:
    run = trainer.reference(*RUN, whole=True)
    config = read_config(run)
    assert (config.method, config.tau, config.split_seed) == ("cdb-s", "sigmoid", 1)
    assert json.loads((run / "config.json").read_text())["imbalance"] == config.imbalance == 5.0


def test_a_run_without_weights_is_refused_with_their_name(
    trainer: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = trainer.reference(*RUN, whole=True)
    with RunFolder(tmp_path, json.loads((run / "config.json").read_text())):
        pass
    monkeypatch.setattr(sys, "argv", ["evaluate", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        run_main(evaluate_module.main)
    assert str(tmp_path / "weights.pt") in capsys.readouterr().err


# Nothing held out.


@pytest.mark.parametrize(
    "words",
    [
        ("cifar100-lt", "ce"), ("cifar100-lt", "tau-normalisation"), ("cifar100-lt", "focal"),
        ("cifar100-lt-crt", "class-aware"),
    ],
)  # fmt: skip
def test_with_a_head_size_a_run_has_its_last_epoch_alone(
    trainer: Trainer,
    words: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # All images of a class of the small set.
    run = trainer.reference(*small_run(*words, "--head-size", "28"))
    record = read_record(run)
    assert record["split"]["train"] == list(training_sizes(IMBALANCE, CLASSES, 28))
    assert record["split"]["difficulty"] == [0] * CLASSES
    assert record["history"]["class_accuracy"] == [[None] * CLASSES] * 3
    assert record["metrics"].keys() == {"last"}
    assert record["metrics"]["last"].keys() == {
        "epoch", "error", "class_accuracy", "shot_accuracy",
    }  # fmt: skip
    assert load_tensors(run / "weights.pt").keys() == {"last"}
    assert run.name.endswith("_head-size-28_seed-0")
    # The weights on the test set once more.
    for module, name, value in STAND_INS:
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["evaluate", str(run)])
    run_main(evaluate_module.main)
    said = capsys.readouterr().out
    assert said.startswith(f"last epoch: error {record['metrics']['last']['error']:.2f} %")
    assert len(said.splitlines()) == 1
