"""Each mistake: one sentence that names the option or file and the remedy, exit code 2, no loss."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import classification.train
import classification.training
from classification.data import LabelledImages, LongTailedData
from common.errors import run_main
from tests.classification.trainer import (
    ROOT,
    Ended,
    Trainer,
    assert_nothing_left_over,
    assert_same_run,
    assert_says,
    only_run,
)

RUN = ("--method", "cdb-w-ce", "--epochs", "3", "--batch-size", "100", "--imbalance", "2")
EVERY_EPOCH = ("--checkpoint-seconds", "0")
STEPS = 5  # 500 images of the fork server by 100.


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


# Configuration and record; for checkpoints see tests/common/training/test_conformance.py.


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
        (("cifar100-lt-crt", "--la-tau", "2"), ("--la-tau 2", "or choose logit-adjustment")),
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
