"""The command that evaluates a finished run's weights again."""

import shutil
import sys
from pathlib import Path

import pytest

from common.errors import run_main
from common.training.record import read_record
from tests.video.synthetic import options
from tests.video.trainer import VideoTrainer
from video import evaluate


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["video.evaluate", *words])
    run_main(evaluate.main)


def test_it_gives_the_records_numbers_again(
    trainer: VideoTrainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer.reference(*options("cdb-w-ce"))
    call(monkeypatch, str(run), "--data", str(trainer.data))
    metrics = read_record(run / "record.json")["metrics"]
    assert capsys.readouterr().out.splitlines() == [
        f"{epoch} epoch: {evaluate.describe(metrics[epoch])}" for epoch in ("best", "last")
    ]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("weights.pt", None, "the run has not finished"),
        ("weights.pt", b"nothing", "is truncated or damaged"),
        ("config.json", None, "is not the folder of a video run"),
        ("config.json", b'{"dataset": "mnist-lt"}', "is not one of egtea-verbs, motion-digits"),
        ("config.json", b'{"depth": 3}', "is not the folder of a video run"),
    ],
)
def test_a_folder_it_cannot_use_is_refused_by_name(
    trainer: VideoTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes | None,
    words: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trainer.reference(*options("cdb-w-ce")), run)
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, str(run), "--data", str(trainer.data))
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


def test_weights_of_another_network_are_refused(
    trainer: VideoTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trainer.reference(*options("ce")), run)
    config = (run / "config.json").read_text()
    other = config.replace('"small-resnext"', '"resnext101"')
    assert other != config
    (run / "config.json").write_text(other)
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, str(run), "--data", str(trainer.data))
    assert "holds the weights of another network" in capsys.readouterr().err
