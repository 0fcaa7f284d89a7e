"""A finished run's predictions on clips: as evaluation has them."""

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import run_main
from tests.pages import module_calls, section
from tests.video.synthetic import options
from tests.video.trainer import VideoTrainer
from tests.video.videos import write_video
from video import predict
from video.augment import network_input
from video.data import FrameSource, evaluation_batches, load_data
from video.evaluate import read_config, trained_models
from video.predict import load_run


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["video.predict", *map(str, words)])
    run_main(predict.main)


@pytest.fixture(scope="module")
def run(trainer: VideoTrainer) -> Path:
    return trainer.reference(*options("ce"))


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_probabilities_are_those_of_evaluation_to_the_bit(
    epoch: str, run: Path, trainer: VideoTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = read_config(run)
    data = load_data(config, trainer.data)
    source = FrameSource(config.frame_height, config.frame_width, "pyav", cache=None)
    frames, _ = next(evaluation_batches(data.test, source, config, 0))
    with torch.inference_mode():
        network = trained_models(run, config, data.num_classes)[epoch]
        logits = network(network_input(frames))
        paths = data.test.paths[: len(frames)]
        model = load_run(run, epoch=epoch)  # type: ignore[arg-type]
        ours = torch.stack([model.preprocess(path) for path in paths])
        assert torch.equal(ours, frames)
        assert torch.equal(model(ours), logits)
    clips, table = tmp_path / "clips", tmp_path / "table.csv"
    clips.mkdir()
    for n, path in enumerate(paths):
        shutil.copy(path, clips / f"{n:02d}{path.suffix}")
    words = ("--top", len(model.class_names), "--batch-size", len(paths), "--epoch", epoch)
    call(monkeypatch, run, clips, "--csv", table, *words)
    assert len(capsys.readouterr().out.splitlines()) == len(paths)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {(row["path"], row["class"]): np.float32(row["probability"]) for row in rows}
    for n, expected in enumerate(logits.softmax(dim=1).tolist()):
        path = str(clips / f"{n:02d}{paths[n].suffix}")
        assert [told[path, name] for name in model.class_names] == expected


def test_an_unreadable_clip_is_named_and_passed_over(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "b.mp4")
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    with pytest.raises(SystemExit, match="3"):
        call(monkeypatch, run, tmp_path)
    out, err = capsys.readouterr()
    # Five of the six verbs.
    assert out.startswith(f"{tmp_path / 'b.mp4'}: ")
    assert out.count(",") == 4
    first, last = err.splitlines()
    assert first.startswith(f"passed over: Clip {tmp_path / 'a.mp4'} cannot be used")
    assert last == "1 of 2 files were passed over"


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (lambda run: (run / "record.json").unlink(), (), "the run has not finished"),
        (lambda run: (run / "weights.pt").write_bytes(b"x"), (), "is truncated or damaged"),
        (lambda run: (run / "record.json").write_text('{"task": "detection"}'), (),
         "is a run of detection, not of video; use python -m detection.predict"),
        (lambda run: None, ("--top", "0"), "--top 0 must be at least 1 and at most 6"),
        (lambda run: None, (), "holds no clips (names that end with .mp4, "),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(
    change: Callable[[Path], object], words: tuple[str, ...], said: str, run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(run, tmp_path / "run")
    change(tmp_path / "run")
    clips = tmp_path / "clips"
    clips.mkdir()
    if "holds no clips" not in said:
        write_video(clips / "a.mp4")
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, tmp_path / "run", clips, *words)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_the_command_of_the_page_does_what_it_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = module_calls(section("video/README.md", "Predictions"), "video.predict")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, words[0])
    Path("my-clips").mkdir()
    write_video(Path("my-clips/a.mp4"))
    call(monkeypatch, *words)
    assert Path("verbs.csv").read_text().count("\n") == 1 + 5
    assert capsys.readouterr().out.startswith("my-clips/a.mp4: ")
