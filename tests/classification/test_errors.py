"""Each mistake: one sentence that names the option or file and the remedy, exit code 2, no loss."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import classification.train
import classification.training
from classification.data import LabelledImages, LongTailedData
from common.errors import run_main
from common.training.folder import save_tensors
from tests.classification.trainer import (
    ROOT,
    Ended,
    Trainer,
    assert_nothing_left_over,
    assert_same_run,
    only_run,
)

RUN = ("--method", "cdb-w-ce", "--epochs", "3", "--batch-size", "100", "--imbalance", "2")
EVERY_EPOCH = ("--checkpoint-seconds", "0")
STEPS = 5  # 500 images of the fork server by 100.


def sentence(ended: Ended) -> str:
    """What the user reads; fails unless it is one sentence, alone, with exit code 2."""
    assert ended.code == 2, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(".")
    assert "Traceback" not in ended.out
    return lines[0]


def assert_says(ended: Ended, *words: str) -> None:
    said = sentence(ended)
    for word in words:
        assert word in said, said


@pytest.fixture
def begun(trainer: Trainer, tmp_path: Path) -> Path:
    """A run killed in its third epoch, with the checkpoint of the second."""
    ended = trainer.run(tmp_path, *RUN, *EVERY_EPOCH, at=("step", 2 * STEPS + 2), what="kill")
    assert ended.code == -signal.SIGKILL
    return only_run(tmp_path)


def assert_continues(trainer: Trainer, run: Path) -> None:
    """The same command, undisturbed, ends as if nothing had happened."""
    ended = trainer.run(run.parents[1], *RUN)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(run, trainer.reference(*RUN))
    assert_nothing_left_over(run)


# Checkpoint, configuration and record.


def test_a_truncated_checkpoint(trainer: Trainer, begun: Path) -> None:
    path = begun / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    assert_says(trainer.run(begun.parents[1], *RUN), str(path), "truncated or damaged", "delete it")
    path.unlink()
    assert_continues(trainer, begun)


def test_a_flipped_byte_in_the_middle_of_a_checkpoint(trainer: Trainer, begun: Path) -> None:
    path = begun / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert_says(trainer.run(begun.parents[1], *RUN), str(path), "truncated or damaged", "delete it")
    assert path.read_bytes() == content


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_holds_code(trainer: Trainer, begun: Path, tmp_path: Path) -> None:
    path = begun / "checkpoint.pt"
    save_tensors(path, {"format": 2, "state": Code(tmp_path / "ran")})
    assert_says(trainer.run(begun.parents[1], *RUN), str(path), "foreign code", "delete it")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_configuration(trainer: Trainer, begun: Path) -> None:
    other = begun.with_name(begun.name.replace("seed-0", "seed-1"))
    assert trainer.run(begun.parents[1], *RUN, "--seed", "1").code == 0
    (other / "record.json").unlink()
    content = (begun / "checkpoint.pt").read_bytes()
    (other / "checkpoint.pt").write_bytes(content)
    ended = trainer.run(begun.parents[1], *RUN, "--seed", "1")
    path = str(other / "checkpoint.pt")
    assert_says(ended, path, "seed 0 there, 1 asked for", "another folder with --out")
    assert (other / "checkpoint.pt").read_bytes() == content


def test_a_checkpoint_of_another_version(trainer: Trainer, begun: Path) -> None:
    path = begun / "checkpoint.pt"
    config = json.dumps(json.loads((begun / "config.json").read_text()), sort_keys=True)
    save_tensors(path, {"format": 2, "config": config, "state": {"training": {"model": {}}}})
    ended = trainer.run(begun.parents[1], *RUN)
    assert_says(ended, str(path), "does not fit this version", "delete it")


def test_the_configuration_of_another_run(trainer: Trainer, begun: Path) -> None:
    path = begun / "config.json"
    theirs = json.loads(path.read_text()) | {"momentum": 0.5}
    path.write_text(json.dumps(theirs))
    ended = trainer.run(begun.parents[1], *RUN)
    assert_says(ended, str(path), "momentum 0.5 there, 0.9 asked for", "--out")


def test_a_damaged_configuration(trainer: Trainer, begun: Path) -> None:
    path = begun / "config.json"
    path.write_text(path.read_text()[:40])
    assert_says(trainer.run(begun.parents[1], *RUN), str(path), "damaged", "delete this file")
    path.unlink()
    assert_continues(trainer, begun)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}'])
def test_a_damaged_record(trainer: Trainer, tmp_path: Path, content: str) -> None:
    assert trainer.run(tmp_path, *RUN).code == 0
    run = only_run(tmp_path)
    (run / "record.json").write_text(content)
    ended = trainer.run(tmp_path, *RUN)
    assert_says(ended, str(run / "record.json"), "move it elsewhere", "again")
    (run / "record.json").unlink()
    assert_continues(trainer, run)


# Data.


def test_a_missing_or_damaged_data_file(trainer: Trainer, tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    ended = trainer.run(tmp_path, *RUN, "--data", str(path))
    assert_says(ended, f"{path} is missing", "name a file that was made with")
    content = bytearray((ROOT / "data_prep" / "mnist_4_9.npz").read_bytes())
    path.write_bytes(content[:-1000])
    ended = trainer.run(tmp_path, *RUN, "--data", str(path))
    assert_says(ended, f"{path} is truncated or damaged", "name a file that was made with")
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    ended = trainer.run(tmp_path, *RUN, "--data", str(path))
    assert_says(ended, str(path), "name a file that was made with")


def synthetic(labels: list[int], counts: list[int]) -> LongTailedData:
    part = LabelledImages(torch.rand(len(labels), 1, 28, 28), torch.tensor(labels))
    description = {"class_names": [str(c) for c in range(len(counts))]}
    return LongTailedData(part, part, part, torch.tensor(counts), torch.tensor(counts), description)


@pytest.mark.parametrize(
    ("labels", "counts", "words"),
    [
        ([0, 0, 0, 1, 1], [3, 2, 0], "class 2 has no training sample"),
        ([0, 0, 0, 0, 0], [5], "classification needs at least 2"),
        ([0, 0, 0, 1, 2], [3, 2], "label 2 is outside 0..1"),
        ([0, 0, 0, 1, -1], [3, 2], "label -1 is outside 0..1"),
    ],
)
def test_labels_that_cannot_be_learnt(
    labels: list[int],
    counts: list[int],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        classification.training, "load_data", lambda *arguments: synthetic(labels, counts)
    )
    monkeypatch.setattr(sys, "argv", ["train", "mnist-lt", "--out", str(tmp_path), *RUN])
    with pytest.raises(SystemExit) as end:
        run_main(classification.train.main)
    assert isinstance(end.value.code, int)
    said = capsys.readouterr()
    assert_says(Ended(end.value.code, said.out, said.err), words)


# Where the results go.


def test_an_output_folder_that_cannot_be_made(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/below")):
        assert_says(trainer.run(out, *RUN), str(out), "--out")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("limit", "name"),
    # Bytes a file may have: too few for config.json (0.5 KB), TensorBoard's log, the checkpoint.
    [(300, "config.json"), (1000, "tensorboard"), (100_000, "checkpoint.pt")],
)
def test_no_room_for_a_file(trainer: Trainer, tmp_path: Path, limit: int, name: str) -> None:
    often = () if name == "tensorboard" else EVERY_EPOCH
    arguments = (*RUN, "--epochs", "12")
    ended = trainer.run(tmp_path, *arguments, *often, limit=limit)
    assert_says(ended, "No room left", name, "File too large", "free some space", "it continues")
    run = only_run(tmp_path)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    assert trainer.run(tmp_path, *arguments).code == 0
    assert_same_run(run, trainer.reference(*arguments))


def test_no_room_for_the_next_checkpoint_keeps_the_last(trainer: Trainer, begun: Path) -> None:
    path = begun / "checkpoint.pt"
    before = path.read_bytes()
    ended = trainer.run(begun.parents[1], *RUN, *EVERY_EPOCH, limit=len(before) // 2)
    assert_says(ended, "No room left", str(path))
    assert path.read_bytes() == before
    assert_continues(trainer, begun)


@pytest.mark.parametrize(("call", "name"), [(1, "weights.pt"), (3, "record.json")])
def test_a_full_disk_at_the_end(trainer: Trainer, begun: Path, call: int, name: str) -> None:
    before = (begun / "checkpoint.pt").read_bytes()
    ended = trainer.run(begun.parents[1], *RUN, at=("fsync", call), what="no room")
    assert_says(ended, "No room left", str(begun / name), "No space left on device")
    assert (begun / "checkpoint.pt").read_bytes() == before
    assert_continues(trainer, begun)


def test_a_full_disk_under_standard_output(trainer: Trainer, begun: Path) -> None:
    command = [sys.executable, "-m", "classification.train", "mnist-lt", *RUN]
    before = (begun / "checkpoint.pt").read_bytes()
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*command, "--out", str(begun.parents[1])],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    said = Ended(ended.returncode, "", ended.stderr)
    assert_says(said, "Standard output cannot be written (No space left on device)", "it continues")
    assert (begun / "checkpoint.pt").read_bytes() == before
    assert_continues(trainer, begun)


def test_a_full_disk_under_standard_output_and_error(tmp_path: Path) -> None:
    script = "import common.errors as e; e.run_main(lambda: print('x' * 10))"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=full, timeout=60
        )
    assert ended.returncode == 2


def test_the_file_size_limit_is_the_tests_own(trainer: Trainer) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# A loss that is no number.


def test_a_nan_loss_names_epoch_and_step_and_keeps_the_last_good_checkpoint(
    trainer: Trainer, begun: Path
) -> None:
    before = (begun / "checkpoint.pt").read_bytes()
    # The third step after the checkpoint of the second epoch.
    ended = trainer.run(begun.parents[1], *RUN, *EVERY_EPOCH, at=("step", 3), what="nan")
    assert_says(ended, "The loss is nan at epoch 3, step 3", "--learning-rate (now 0.001)")
    assert (begun / "checkpoint.pt").read_bytes() == before
    assert_continues(trainer, begun)


@pytest.mark.parametrize("method", ["ce", "l2rw", "cdb-s"])
def test_a_learning_rate_that_diverges(trainer: Trainer, tmp_path: Path, method: str) -> None:
    ended = trainer.run(tmp_path, "--method", method, "--learning-rate", "1e30", "--epochs", "2")
    assert_says(ended, "epoch 1, step ", "lower --learning-rate (now 1e+30)")
    names = {path.name for path in only_run(tmp_path).iterdir()}
    assert names == {"config.json", "failure.json", "lock", "tensorboard"}


# Options.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--imbalance", "1e6"), ("--imbalance 1e+06", "no training image", "at most 4999")),
        (("--imbalance", "0.5"), ("--imbalance must be at least 1, not 0.5",)),
        (("--imbalance", "nan"), ("--imbalance must be at least 1, not nan",)),
        (("--method", "cdb-s", "--tau", "-1"), ("--tau -1 is refused", ">= 0")),
        (("--method", "cdb-s", "--tau", "nan"), ("--tau nan is refused",)),
        (("--method", "cdb-s", "--tau", "sigmoidal"), ("--tau sigmoidal is refused", "sigmoid,")),
        (("--method", "cdb-w-ce", "--eps", "0"), ("--eps must be at least 1e-30, not 0",)),
        (("--method", "cdb-w-ce", "--eps", "1e-99"), ("--eps must be at least 1e-30, not 1e-99",)),
        (("--method", "cdb-w-ce", "--eps", "1"), ("--eps must be below 1, not 1",)),
        (("--method", "ce", "--tau", "1"), ("--tau 1 has no effect on --method ce", "cdb-s")),
        (("--method", "eql", "--eql-threshold", "0.001"), ("--eql-threshold 0.001 is refused",)),
        (("--seed", "-1"), ("--seed must be at least 0, not -1",)),
        (("--epochs", "0"), ("--epochs must be at least 1, not 0",)),
        (("--batch-size", "0"), ("--batch-size must be at least 1, not 0",)),
        (("--learning-rate", "inf"), ("--learning-rate must be above 0, not inf",)),
        (("--threads", "0"), ("--threads must be at least 1, not 0",)),
    ],
)
def test_a_value_out_of_range(
    trainer: Trainer, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_says(trainer.run(tmp_path, *options), *words)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("cifar100-lt", "--imbalance", "1000"), ("--imbalance 1000 leaves", "no training image")),
        (("cifar100-lt", "--imbalance", "0.5"), ("--imbalance must be at least 1, not 0.5",)),
        (("cifar100-lt", "--milestones", "5", "3"), ("--milestones must be", "growing order")),
        (("cifar100-lt", "--milestones", "0"), ("--milestones must be epochs from 1 up",)),
        (
            ("cifar100-lt", "--method", "ldam-drw", "--milestones"),
            ("--method ldam-drw without --milestones needs --drw-epoch",),
        ),
        (("cifar100-lt", "--ldam-scale", "9"), ("--ldam-scale 9", "ce", "choose ldam-drw")),
        (("cifar100-lt", "--drw-epoch", "9"), ("--drw-epoch 9 has no effect", "choose ldam-drw")),
        (("cifar100-lt", "--warmup-epochs", "-1"), ("--warmup-epochs must be at least 0",)),
        (("cifar100-lt", "--lr-decay", "0"), ("--lr-decay must be above 0, not 0",)),
        (
            ("cifar100-lt", "--method", "meta-weight-net", "--mwn-learning-rate", "0"),
            ("--mwn-learning-rate must be above 0, not 0",),
        ),
        (
            ("cifar100-lt", "--method", "eql", "--eql-threshold", "0.001", "--imbalance", "4"),
            ("--eql-threshold 0.001 is refused",),
        ),
        (("cifar100-lt-crt", "--stage1-epochs", "0"), ("--stage1-epochs must be at least 1",)),
        (("cifar100-lt-crt", "--focal-gamma", "2"), ("--focal-gamma 2", "; leave it out.")),
        (("cifar100-lt", "--data", "/nowhere/cifar"), ("/nowhere/cifar is missing",)),
        (("cifar100-lt-crt", "--data", "/nowhere/cifar"), ("/nowhere/cifar is missing",)),
    ],
)
def test_a_mistake_on_cifar(
    trainer: Trainer, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    # float32: on most processors bfloat16 would be answered with advice, a line more.
    assert_says(trainer.run(tmp_path, *options, "--precision", "float32"), *words)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_device_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["train", "mnist-lt", "--out", str(tmp_path), *RUN, "--device", "cuda"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        run_main(classification.train.main)
    assert isinstance(end.value.code, int)
    said = capsys.readouterr()
    assert_says(Ended(end.value.code, said.out, said.err), "--device cuda", "--device cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--learning-rte", "0.1"), "--learning-rate"),
        (("--method", "cdb"), "cdb-w-ce"),
        (("--epochs", "ten"), "--epochs"),
        (("--method", "ldam-drw"), "cdb-w-ce"),  # Not on MNIST-LT.
        (("--milestones", "5"), "--milestones"),  # MNIST-LT's learning rate is constant.
        (("cifar100-lt", "--mile-stones", "5"), "--milestones"),
        (("cifar100-lt", "--method", "ldam"), "ldam-drw"),
        (("cifar100-lt", "--precision", "float16"), "bfloat16"),
        (("cifar100-lt", "--recipe", "cifar100-lt-short"), "--recipe"),
        (("cifar100-lt-lws", "--stage1", "focal"), "cdb-w-ce"),
        (("cifar100-lt-lws", "--method", "ce"), "class-aware"),
    ],
)
def test_an_unknown_option_or_choice_is_answered_with_the_nearest(
    trainer: Trainer, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    ended = trainer.run(tmp_path, *options)
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["mnist"], ["--method", "ce"]):
        monkeypatch.setattr(sys, "argv", ["train", *words])
        with pytest.raises(SystemExit, match="2"):
            run_main(classification.train.main)
        said = Ended(2, "", capsys.readouterr().err)
        assert_says(said, "first argument", "mnist-lt, cifar100-lt, cifar100-lt-crt")
