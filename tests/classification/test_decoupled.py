"""Two-stage runs from the command line: where the first stage comes from, and what spoils it."""

import json
import signal
from pathlib import Path

import pytest
import torch

from common.training.folder import load_tensors, save_tensors
from tests.classification.small_cifar import BATCH, IMBALANCE, STEPS, small_run
from tests.classification.trainer import (
    Ended,
    Trainer,
    assert_nothing_left_over,
    assert_same_run,
    first_stage_folder,
    read_record,
    run_folder,
)

STAGE1 = ("--stage1-epochs", "2")
STAGE1_STEPS = 2 * STEPS  # Of two epochs.
CRT = small_run("cifar100-lt-crt", "cdb-s", *STAGE1)
LWS = small_run("cifar100-lt-lws", "cdb-w-ce", *STAGE1)
EVERY_EPOCH = ("--checkpoint-seconds", "0")


def sentence(ended: Ended) -> str:
    """What the user reads: one sentence, exit code 2, no traceback."""
    assert ended.code == 2, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(".")
    return line


@pytest.fixture(scope="module")
def crt(trainer: Trainer) -> Path:
    """The second stage's folder, undisturbed; beside it is that of the first stage."""
    return trainer.reference(*CRT)


def first_of(second: Path) -> Path:
    return first_stage_folder(second.parents[1], *CRT)


def test_the_first_stage_is_trained_where_its_own_command_would_train_it(
    trainer: Trainer, crt: Path, tmp_path: Path
) -> None:
    first = first_of(crt)
    assert {path.name for path in crt.parent.iterdir()} == {crt.name, first.name}
    record = read_record(first)
    assert (record["method"], record["group"]) == ("ce", "cifar100-lt")
    # What a second stage has of its own is its schedule.
    words = (
        "cifar100-lt", "--epochs", "2", "--imbalance", str(IMBALANCE), "--precision", "float32",
        "--batch-size", str(BATCH), "--learning-rate", "0.05",
    )  # fmt: skip
    assert trainer.run(tmp_path, *words).code == 0
    assert_same_run(run_folder(tmp_path, *words), first)


def test_the_second_stage_keeps_the_last_epochs_features_and_learns_a_classifier(
    crt: Path,
) -> None:
    first = load_tensors(first_of(crt) / "weights.pt")["last"]
    second = load_tensors(crt / "weights.pt")["last"]
    assert second.keys() == {f"first.{name}" for name in first}
    for name, weight in first.items():
        same = torch.equal(second[f"first.{name}"], weight)
        assert same is not name.startswith("classifier."), name


def test_lws_keeps_the_whole_first_stage_and_learns_scales(trainer: Trainer) -> None:
    run = trainer.reference(*LWS)
    first = load_tensors(first_stage_folder(run.parents[1], *LWS) / "weights.pt")["last"]
    second = load_tensors(run / "weights.pt")["last"]
    assert second.keys() == {f"first.{name}" for name in first} | {"scales"}
    assert all(torch.equal(second[f"first.{name}"], weight) for name, weight in first.items())
    assert len(set(second["scales"].tolist())) > 2


def test_the_record_says_both_stages(crt: Path) -> None:
    record = read_record(crt)
    assert (record["method"], record["variant"]) == ("crt+cdb-s", "stage1=ce")
    assert (record["dataset"], record["group"]) == ("cifar100-lt", "cifar100-lt")
    assert record["config"]["recipe"] == "cifar100-lt-crt"
    assert record["split"] == read_record(first_of(crt))["split"]
    assert json.loads((crt / "config.json").read_text()) == record["config"]


@pytest.mark.parametrize("arguments", [CRT, LWS], ids=["crt", "lws"])
def test_killed_in_either_stage_the_run_ends_as_the_undisturbed_one(
    trainer: Trainer, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    reference = trainer.reference(*arguments)
    # In the second epoch of the first stage; then within the second stage, after its first epoch
    # and in the middle of its second.
    left = STAGE1_STEPS // 2
    for step, what, code in (
        (STAGE1_STEPS, "kill", -signal.SIGKILL),
        (left + STEPS + 1, "kill", -signal.SIGKILL),
        (3, "terminate", 128 + signal.SIGTERM),
    ):
        options = () if what == "terminate" else EVERY_EPOCH
        ended = trainer.run(tmp_path, *arguments, *options, at=("step", step), what=what)
        assert ended.code == code, ended
    run, first = run_folder(tmp_path, *arguments), first_stage_folder(tmp_path, *arguments)
    state = load_tensors(run / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["step"]) == (1, 3)
    assert trainer.run(tmp_path, *arguments).code == 0
    assert read_record(first)["provenance"]["starts"] == 2
    assert read_record(run)["provenance"]["starts"] == 3
    for ours, theirs in (
        (run, reference),
        (first, first_stage_folder(reference.parents[1], *arguments)),
    ):
        assert_same_run(ours, theirs)
        assert_nothing_left_over(ours)


def test_second_stages_of_one_first_stage_train_it_once(
    trainer: Trainer, crt: Path, tmp_path: Path
) -> None:
    """Started at once: whoever comes later waits for the first stage and finds it finished."""
    processes = [trainer.start(tmp_path, *arguments) for arguments in (CRT, LWS)]
    ended = [trainer.wait(process) for process in processes]
    assert [process.code for process in ended] == [0, 0], ended
    first = first_stage_folder(tmp_path, *CRT)
    assert first == first_stage_folder(tmp_path, *LWS)
    assert read_record(first)["provenance"]["starts"] == 1
    trained = [f"{first.name}: epoch 0/2" in process.out for process in ended]
    assert sorted(trained) == [False, True]
    assert_same_run(first, first_of(crt))
    assert_same_run(run_folder(tmp_path, *CRT), crt)
    assert_same_run(run_folder(tmp_path, *LWS), trainer.reference(*LWS))


def test_a_first_stage_of_another_seed_is_not_used(
    trainer: Trainer, crt: Path, tmp_path: Path
) -> None:
    assert trainer.run(tmp_path, *CRT).code == 0
    other = (*CRT, "--seed", "1")
    ended = trainer.run(tmp_path, *other)
    assert ended.code == 0, ended
    seeds = [read_record(first_stage_folder(tmp_path, *words))["seed"] for words in (CRT, other)]
    assert seeds == [0, 1]
    assert len(list((tmp_path / "cifar100-lt").iterdir())) == 4
    features = [
        load_tensors(run_folder(tmp_path, *words) / "weights.pt")["last"]["first.layers.0.weight"]
        for words in (CRT, other)
    ]
    assert not torch.equal(*features)


def test_a_finished_second_stage_needs_its_first_stage_no_more(
    trainer: Trainer, tmp_path: Path
) -> None:
    assert trainer.run(tmp_path, *CRT).code == 0
    first, run = first_stage_folder(tmp_path, *CRT), run_folder(tmp_path, *CRT)
    (first / "weights.pt").unlink()
    ended = trainer.run(tmp_path, *CRT)
    assert (ended.code, ended.out) == (0, f"finished already: {run / 'record.json'}\n")


@pytest.fixture
def first_done(trainer: Trainer, tmp_path: Path) -> Path:
    """The finished first stage of a second one that was killed at its first step."""
    at = ("step", STAGE1_STEPS + 1)
    ended = trainer.run(tmp_path, *CRT, at=at, what="kill")
    assert ended.code == -signal.SIGKILL
    return first_stage_folder(tmp_path, *CRT)


def test_missing_weights_of_a_finished_first_stage_are_named_with_the_remedy(
    trainer: Trainer, first_done: Path, crt: Path
) -> None:
    path = first_done / "weights.pt"
    path.unlink()
    said = sentence(trainer.run(first_done.parents[1], *CRT))
    assert f"{path} is missing, though its run has finished; delete that folder" in said
    for file in sorted(first_done.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert trainer.run(first_done.parents[1], *CRT).code == 0
    assert_same_run(run_folder(first_done.parents[1], *CRT), crt)


def test_damaged_weights_of_the_first_stage_are_named_with_the_remedy(
    trainer: Trainer, first_done: Path
) -> None:
    path = first_done / "weights.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    said = sentence(trainer.run(first_done.parents[1], *CRT))
    assert f"{path} is truncated or damaged" in said
    assert f"delete {first_done} and train the run again" in said


@pytest.mark.parametrize(
    "content", [{}, {"last": {}}, {"last": {"conv1.weight": torch.zeros(2)}}, {"last": 1}]
)
def test_weights_of_something_else_in_the_first_stages_place_are_refused(
    trainer: Trainer, first_done: Path, content: dict[str, object]
) -> None:
    save_tensors(first_done / "weights.pt", content)
    said = sentence(trainer.run(first_done.parents[1], *CRT))
    assert f"{first_done / 'weights.pt'} holds the weights of another network" in said
    assert f"delete {first_done} and train the run again" in said
