"""A finished detector's objects in new pictures: as evaluation has them, as a table and drawn."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import run_main
from detection import predict
from detection.data import read_new_image
from detection.evaluate import detect, read_config
from detection.predict import load_run
from detection.prediction_pictures import draw_image
from detection.sets import load_sets
from tests.detection.runs import C, options
from tests.detection.synthetic import HEIGHT, WIDTH
from tests.detection.trainer import DetectionTrainer
from tests.pages import module_calls, section

RUNS = {
    "box": options("ce"),
    "mask": options("simcal", second=True, task="mask"),
    "counted": options("bags", second=True),
}
"""BAGS' softmaxes and SimCal's classifier follow from counts of training instances."""


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["detection.predict", *map(str, words)])
    run_main(predict.main)


@pytest.fixture
def annotations(trainer: DetectionTrainer, tmp_path: Path) -> Path:
    """The annotation files alone, without an image."""
    folder = tmp_path / "annotations"
    folder.mkdir()
    for file in trainer.data.glob("*.json"):
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("kind", RUNS)
def test_boxes_and_scores_are_those_of_evaluation_to_the_bit(
    kind: str, trainer: DetectionTrainer, annotations: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = trainer.reference(*RUNS[kind])
    val = load_sets(read_config(run), trainer.data, trainer.data).val
    model = load_run(run, annotations)
    assert not model.training
    names = model.class_names
    expected = detect(model.network, val, masks=False)
    assert expected.xywh is not None
    pictures, table = tmp_path / "pictures", tmp_path / "table.csv"
    pictures.mkdir()
    for path, number in zip(val.paths, val.annotations.image_ids, strict=True):
        shutil.copy(path, pictures / f"{number}{path.suffix}")
    call(monkeypatch, run, pictures, "--csv", table, "--threshold", 0, "--data", annotations)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected.scores) > 0
    told = sorted(
        (int(Path(row["path"]).stem), row["class"], *(float(row[c]) for c in predict._TABLE[2:]))
        for row in rows
    )
    corners = np.concatenate([expected.xywh[:, :2], expected.xywh[:, :2] + expected.xywh[:, 2:]], 1)
    theirs = sorted(
        (int(number), names[label], *values)
        for number, label, values in zip(
            expected.image_ids, expected.categories,
            np.column_stack([expected.scores, corners]).tolist(), strict=True,
        )
    )  # fmt: skip
    for ours, other in zip(told, theirs, strict=True):
        assert ours[:2] == other[:2]
        # To the bit in float32; a corner is made again from a width.
        assert ours[2] == pytest.approx(other[2], rel=1e-8)
        assert ours[3:] == pytest.approx(other[3:], rel=1e-6, abs=1e-5)
    assert len(capsys.readouterr().out.splitlines()) == len(val)


def test_what_scores_too_little_is_in_no_row_and_on_no_drawing(
    trainer: DetectionTrainer, annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, drawn = trainer.reference(*RUNS["box"]), tmp_path / "drawn"
    model = load_run(run, annotations)
    path = tmp_path / "pictures" / "below" / "a.jpg"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
        path
    )
    scores = model([model.preprocess(path)])[0]["scores"]
    middle = (scores.max() + scores.min()).item() / 2
    words = ("--data", annotations, "--threshold", middle, "--csv", tmp_path / "t.csv")
    call(monkeypatch, run, tmp_path / "pictures", *words, "--out", drawn)
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert 0 < len(rows) - 1 == int((scores >= middle).sum()) < len(scores)
    line = capsys.readouterr().out
    assert line.startswith(f"{path}: ")
    assert line.count(",") == len(rows) - 2
    (written,) = [found for found in drawn.rglob("*") if found.is_file()]
    assert written == drawn / "below" / "a.jpg.png"
    with Image.open(written) as picture:
        assert max(picture.size) == 640
        assert picture.size[0] / picture.size[1] == pytest.approx(WIDTH / HEIGHT, abs=0.01)
    call(monkeypatch, run, path, "--data", annotations, "--threshold", 1)
    assert capsys.readouterr().out == f"{path}: nothing\n"


def test_a_drawing_has_the_pixels_of_its_picture_and_the_boxes_where_they_are() -> None:
    found = {
        "boxes": torch.tensor([[10.0, 80.0, 60.0, 150.0]]), "labels": torch.tensor([1]),
        "scores": torch.tensor([0.875]),
    }  # fmt: skip
    figure = draw_image(torch.zeros(3, 500, 700, dtype=torch.uint8), found, ["kite", "ball"])
    assert (figure.get_size_inches() * figure.dpi).tolist() == pytest.approx([700, 500])
    (axes,) = figure.axes
    (box,) = axes.patches
    assert box.get_bbox().extents.tolist() == [10, 80, 60, 150]  # type: ignore[attr-defined]
    (text,) = axes.texts
    assert (text.get_text(), text.get_verticalalignment()) == ("ball 0.88", "bottom")


def test_a_name_at_the_upper_edge_stands_below_it() -> None:
    found = {
        "boxes": torch.tensor([[10.0, 0.0, 60.0, 50.0]]), "labels": torch.tensor([1]),
        "scores": torch.tensor([0.875]),
    }  # fmt: skip
    figure = draw_image(torch.zeros(3, 500, 700, dtype=torch.uint8), found, ["kite", "ball"])
    assert figure.axes[0].texts[0].get_verticalalignment() == "top"


def test_a_picture_on_its_side_is_made_upright(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.png", exif=exif)
    image = read_new_image(tmp_path / "a.png")
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))


def test_an_unreadable_picture_is_named_and_passed_over(
    trainer: DetectionTrainer, annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"no picture")
    Image.new("RGB", (WIDTH, HEIGHT)).save(pictures / "b.png")
    with pytest.raises(SystemExit, match="3"):
        call(monkeypatch, trainer.reference(*RUNS["box"]), pictures, "--data", annotations)
    out, err = capsys.readouterr()
    assert out.startswith(f"{pictures / 'b.png'}: ")
    first, last = err.splitlines()
    assert first.startswith(f"passed over: {pictures / 'a.png'} cannot be read as an image")
    assert last == "1 of 2 files were passed over"


def other_annotations(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    record["split"]["train"] = [1] * C
    (run / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (lambda run: (run / "record.json").unlink(), (), "the run has not finished"),
        (lambda run: (run / "weights.pt").write_bytes(b"x"), (), "is truncated or damaged"),
        (lambda run: (run / "record.json").write_text('{"task": "video"}'), (),
         "is a run of video, not of detection; use python -m video.predict"),
        (other_annotations, (), "is not the file that"),
        (lambda run: None, ("--threshold", "1.5"), "--threshold 1.5 must be at least 0 and"),
        (lambda run: None, ("--threshold", "nan"), "--threshold nan must be"),
        (lambda run: None, ("--out", "{pictures}/drawn"), "whose pictures are read; name another"),
        (lambda run: None, (), "holds no images (names that end with .jpg, "),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(
    change: Callable[[Path], object], words: tuple[str, ...], said: str, annotations: Path,
    trainer: DetectionTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = shutil.copytree(trainer.reference(*RUNS["box"]), tmp_path / "run")
    change(run)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    if "holds no images" not in said:
        Image.new("RGB", (WIDTH, HEIGHT)).save(pictures / "a.png")
    options = [word.format(pictures=pictures) for word in words]
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, run, pictures, "--data", annotations, *options)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_the_command_of_the_page_does_what_it_says(
    trainer: DetectionTrainer, annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (words,) = module_calls(section("detection/README.md", "Predictions"), "detection.predict")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trainer.reference(*RUNS["mask"]), words[0])
    Path("my-pictures").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save("my-pictures/a.jpg")
    call(monkeypatch, *words, "--data", annotations)
    assert Path("boxes.csv").read_text().startswith("path,class,score,x1,y1,x2,y2\n")
    with Image.open("drawn/a.jpg.png") as drawn:
        drawn.verify()
