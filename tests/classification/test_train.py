import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from classification.recipes import CIFAR100_LT_SHORT, MNIST_LT, RECIPES
from classification.train import TASK, Arguments
from common.training.folder import load_tensors
from common.training.record import read_record
from tests.classification.small_cifar import small_run
from tests.classification.trainer import Trainer, assert_nothing_left_over, assert_same_run

RUN = ("--method", "cdb-w-ce", "--tau", "2", "--epochs", "4", "--imbalance", "3", "--seed", "5")


@pytest.fixture
def run(trainer: Trainer) -> Path:
    return trainer.reference(*RUN)


def test_the_command_line_departs_from_the_recipe() -> None:
    assert TASK.parse(["mnist-lt"]) == Arguments(config=MNIST_LT)
    arguments = TASK.parse(
        ["mnist-lt", "--method", "cdb-s", "--tau", "linear", "--learning-rate", "0.5",
         "--no-normalize-weights", "--out", "there", "--group", "g", "--threads", "2"]
    )  # fmt: skip
    assert (arguments.config.method, arguments.config.tau) == ("cdb-s", "linear")
    assert arguments.config.learning_rate == 0.5
    assert arguments.config.normalize_weights is False
    assert arguments.config.batch_size == MNIST_LT.batch_size
    assert (arguments.out, arguments.group, arguments.threads) == (Path("there"), "g", 2)


def test_help_names_the_recipes_and_then_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--help"], ["mnist-lt"]),
        (["mnist-lt", "--help"], ["--tau", "--checkpoint-seconds", "--eql-threshold", "--out"]),
    ):
        with pytest.raises(SystemExit, match="0"):
            TASK.parse(words)
        text = capsys.readouterr().out
        assert all(word in text for word in expected)


def test_the_command_line_departs_from_a_recipe_of_cifar() -> None:
    arguments = TASK.parse(
        ["cifar100-lt-short", "--method", "ldam-drw", "--milestones", "3", "4", "--drw-epoch", "2",
         "--imbalance", "200", "--precision", "float32", "--data", "there"]
    )  # fmt: skip
    changed = replace(
        CIFAR100_LT_SHORT, method="ldam-drw", milestones=(3, 4), drw_epoch=2, imbalance=200,
        precision="float32",
    )  # fmt: skip
    assert arguments == Arguments(config=changed, data=Path("there"))
    second = TASK.parse(["cifar100-lt-lws", "--stage1", "cdb-s", "--stage1-epochs", "7"])
    assert second.config == replace(  # type: ignore[call-arg]
        RECIPES["cifar100-lt-lws"], stage1="cdb-s", stage1_epochs=7
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipes_name_alone_is_its_run(recipe: str) -> None:
    assert TASK.parse([recipe]) == Arguments(config=RECIPES[recipe])


@pytest.mark.parametrize(
    ("recipe", "known", "unknown"),
    [
        ("mnist-lt", ["--architecture", "--input-scaling"], ["--milestones", "--stage1"]),
        ("cifar100-lt", ["--milestones", "--ldam-scale"], ["--architecture", "--stage1"]),
        ("cifar100-lt-crt", ["--stage1", "--stage1-epochs"], ["--architecture"]),
    ],
)
def test_help_tells_the_options_of_its_data_set_and_no_others(
    recipe: str, known: list[str], unknown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        TASK.parse([recipe, "--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in known)
    assert not any(word in text for word in unknown)
    assert "--recipe" not in text or "fixed" in text  # Chosen by the first argument.


def test_a_run_prints_its_epochs_and_its_error(trainer: Trainer, tmp_path: Path) -> None:
    ended = trainer.run(tmp_path, *RUN)
    lines = ended.out.splitlines()
    name = "cdb-w-ce_tau-2.0_imbalance-3_epochs-4_seed-5"
    assert lines[0] == (
        "mnist-lt: 5000 training, 1000 difficulty and 1600 test images; imbalance 3 (3 asked for); "
        "classes by shots: 2 many, 0 medium, 0 few"
    )
    assert lines[1] == f"{name}: epoch 0/4"
    assert any(line.startswith("epoch 4/4  loss ") for line in lines)
    record = read_record(tmp_path / "mnist-lt" / name / "record.json")
    errors = {epoch: record["metrics"][epoch]["error"] for epoch in ("last", "best")}
    start = f"error {errors['last']:.2f} % (best epoch {errors['best']:.2f} %)"
    assert lines[-1] == f"{start}  {tmp_path / 'mnist-lt' / name / 'record.json'}"
    assert (ended.code, ended.err) == (0, "")


def test_the_record_says_what_was_run(run: Path) -> None:
    record = read_record(run / "record.json")  # Which checks it against the schema.
    assert record["run"] == run.name
    assert (record["group"], record["dataset"]) == ("mnist-lt", "mnist-lt")
    assert (record["method"], record["variant"]) == ("cdb-w-ce", "tau=2.0")
    assert (record["condition"], record["seed"]) == ("3", 5)
    assert record["config"] == json.loads((run / "config.json").read_text())
    assert record["split"]["train"] == [3750, 1250]
    assert record["provenance"]["starts"] == 1
    assert {len(values) for values in record["history"].values()} == {4}


def test_methods_without_difficulty_have_no_variant_and_no_tau(trainer: Trainer) -> None:
    record = read_record(trainer.reference("--epochs", "1") / "record.json")
    assert record["variant"] == ""
    assert record["history"].keys() == {"epoch", "loss", "learning_rate", "class_accuracy"}


def test_the_record_of_cifar_says_what_was_run(trainer: Trainer) -> None:
    run = trainer.reference(*small_run("cifar100-lt", "cdb-w-fl"))
    record = read_record(run / "record.json")
    assert record["run"] == run.name
    assert (record["group"], record["dataset"]) == ("cifar100-lt", "cifar100-lt")
    assert (record["method"], record["variant"]) == ("cdb-w-fl", "tau=sigmoid")
    assert (record["condition"], record["seed"]) == ("4", 0)
    assert record["config"] == json.loads((run / "config.json").read_text())
    assert record["config"]["milestones"] == [2]
    split = record["split"]
    assert (split["train"][0], split["train"][-1], split["imbalance"]) == (24, 6, 4.0)
    # From 24 images down to 6: none above 100, some above 20.
    shot = split["shot"]
    assert shot["many"] == []
    assert shot["medium"] == [c for c, n in enumerate(split["train"]) if n > 20]
    assert shot["medium"] + shot["few"] == list(range(12))
    for metrics in record["metrics"].values():
        assert metrics["shot_accuracy"].keys() == {"medium", "few"}
        assert len(metrics["class_accuracy"]) == 12
    for counts in record["history"]["hard_instances"]:
        assert all(0 <= hard <= n for hard, n in zip(counts, split["train"], strict=True))
    assert {len(values) for values in record["history"].values()} == {3}


@pytest.mark.parametrize(
    ("recipe", "group"),
    [
        ("cifar100-lt-short", "cifar100-lt-short"),
        ("cifar100-lt-short-crt", "cifar100-lt-short"),
        ("cifar100-lt-short-lws", "cifar100-lt-short"),
    ],
)
def test_the_short_recipes_run_and_stand_in_their_own_group(
    trainer: Trainer, recipe: str, group: str
) -> None:
    """The full ones run in test_resume.py and test_decoupled.py."""
    options = ("--stage1-epochs", "1") if recipe != group else ()
    run = trainer.reference(*small_run(recipe, "cdb-s", *options))
    record = read_record(run / "record.json")
    assert record["group"] == run.parent.name == group
    assert record["dataset"] == "cifar100-lt"
    assert record["config"]["recipe"] == recipe
    method = f"{recipe[-3:]}+cdb-s" if options else "cdb-s"
    assert record["method"] == method


def test_the_best_weights_are_those_of_the_best_epoch(trainer: Trainer, run: Path) -> None:
    best = read_record(run / "record.json")["metrics"]["best"]["epoch"]
    weights = load_tensors(run / "weights.pt")
    shorter = tuple(str(best) if word == "4" else word for word in RUN)
    expected = load_tensors(trainer.reference(*shorter) / "weights.pt")["last"]
    for name, weight in expected.items():
        assert torch.equal(weights["best"][name], weight)


def test_runs_of_a_group_have_their_own_folder(trainer: Trainer, run: Path, tmp_path: Path) -> None:
    assert trainer.run(tmp_path, *RUN, "--group", "mine").code == 0
    (other,) = (tmp_path / "mine").iterdir()
    assert other.name == run.name
    assert read_record(other / "record.json")["group"] == "mine"
    assert_nothing_left_over(other)


def test_threads_and_checkpoints_change_no_bit(trainer: Trainer, run: Path, tmp_path: Path) -> None:
    assert trainer.run(tmp_path, *RUN, "--checkpoint-seconds", "0").code == 0
    assert_same_run(tmp_path / "mnist-lt" / run.name, run)


def test_a_checkpoint_is_written_when_its_time_has_come(
    trainer: Trainer, tmp_path: Path, run: Path
) -> None:
    for seconds, expected in (("0", True), ("1000", False)):
        out = tmp_path / seconds
        # Killed at the first step of the second epoch: five hundred images by a hundred.
        trainer.run(out, *RUN, "--checkpoint-seconds", seconds, at=("step", 6), what="kill")
        assert (out / "mnist-lt" / run.name / "checkpoint.pt").exists() is expected
