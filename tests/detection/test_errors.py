"""Each mistake: one sentence that names the option or file and the remedy, exit code 2, no loss."""

import json
from pathlib import Path

import pytest
import torch

from data_prep.lvis import DIFFICULTY_FILE, REST_FILE, VAL_FILE
from tests.classification.trainer import (
    assert_nothing_trained,
    assert_same_run,
    assert_says,
)
from tests.detection.runs import options, write_lvis
from tests.detection.trainer import DetectionTrainer, first_stage_folder

RUN = options("cdb-w-ce")
EVERY_EPOCH = ("--checkpoint-seconds", "0")


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """The tiny set, to be spoiled."""
    return write_lvis(tmp_path / "own set")


def of_set(folder: Path, *more: str) -> tuple[str, ...]:
    return (*more, "--data", str(folder), "--images", str(folder))


# The data.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lvis", "--start", "random", "--data", "NOWHERE"), "lvis split"),
        (("digit-scenes", "--data", "NOWHERE"), "data_prep.digit_scenes render"),
        ((*RUN, "--data", "SET", "--images", "NOWHERE"), "--images"),
    ],
)
def test_no_data_folder(
    trainer: DetectionTrainer, tmp_path: Path, shapes: Path, words: tuple[str, ...], said: str
) -> None:
    nowhere = str(tmp_path / "nowhere")
    given = [w.replace("NOWHERE", nowhere).replace("SET", str(shapes)) for w in words]
    assert_says(trainer.run(tmp_path / "out", *given), nowhere, said)
    assert_nothing_trained(tmp_path / "out")


def test_a_missing_image(trainer: DetectionTrainer, tmp_path: Path, own_set: Path) -> None:
    (own_set / "val" / "015.png").unlink()
    ended = trainer.run(tmp_path / "out", *of_set(own_set, *RUN))
    assert_says(ended, "1 of the 3 images", VAL_FILE, "val/015.png", "--images")
    assert_nothing_trained(tmp_path / "out")


@pytest.mark.parametrize(
    ("image", "content", "workers"),
    [
        ("train/005", b"no image", "0"),
        ("train/005", None, "2"),
        ("train/009", b"", "0"),
        ("val/015", None, "2"),
    ],
)
def test_an_unreadable_image_met_in_a_run(
    trainer: DetectionTrainer,
    tmp_path: Path,
    own_set: Path,
    image: str,
    content: bytes | None,
    workers: str,
) -> None:
    path = own_set / f"{image}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    run = of_set(own_set, *RUN, "--workers", workers)
    ended = trainer.run(tmp_path / "out", *run, *EVERY_EPOCH)
    assert_says(ended, f"{path} cannot be read as an image", "get it again")
    folder = trainer.run_folder(tmp_path / "out", *RUN)
    # A val image is met after the last epoch, whose checkpoint stays.
    assert (folder / "checkpoint.pt").exists() is (image == "val/015")
    path.write_bytes(whole)
    assert trainer.run(tmp_path / "out", *run).code == 0
    assert_same_run(folder, trainer.reference(*RUN))


def test_files_of_different_categories(
    trainer: DetectionTrainer, tmp_path: Path, own_set: Path
) -> None:
    path = own_set / DIFFICULTY_FILE
    said = json.loads(path.read_text())
    del said["categories"][-1]
    for image in said["images"]:
        image["neg_category_ids"] = []
    path.write_text(json.dumps(said))
    ended = trainer.run(tmp_path / "out", *of_set(own_set, *RUN))
    assert_says(ended, str(path), "has other categories than", REST_FILE)
    assert_nothing_trained(tmp_path / "out")


def test_boxes_without_masks_for_masks(
    trainer: DetectionTrainer, tmp_path: Path, own_set: Path
) -> None:
    path = own_set / REST_FILE
    said = json.loads(path.read_text())
    del said["annotations"][3]["segmentation"]
    path.write_text(json.dumps(said))
    run = options("ce", task="mask")
    ended = trainer.run(tmp_path / "out", *of_set(own_set, *run))
    assert_says(ended, str(path), "annotation 4 has no segmentation", "train boxes only")
    assert_nothing_trained(tmp_path / "out")


def test_a_set_whose_every_category_is_frequent_has_none_that_eql_could_spare(
    trainer: DetectionTrainer, tmp_path: Path, own_set: Path
) -> None:
    for name in (REST_FILE, DIFFICULTY_FILE, VAL_FILE):  # But for the category of no image.
        said = json.loads((own_set / name).read_text())
        del said["categories"][-1]
        for image in said["images"]:
            image["neg_category_ids"] = []
        (own_set / name).write_text(json.dumps(said))
    run = options("eql", eql_threshold=0.01)
    ended = trainer.run(tmp_path / "out", *of_set(own_set, *run))
    assert_says(ended, "lvis-v0.5 cannot be trained on as it is: no category is in less than")
    assert_nothing_trained(tmp_path / "out")


# First weights.


def test_coco_without_its_weights(trainer: DetectionTrainer, tmp_path: Path) -> None:
    run = options("ce", backbone="resnet50-fpn", start="coco")
    assert_says(trainer.run(tmp_path, *run), "--start coco needs --weights", "--start random")
    assert_nothing_trained(tmp_path)


def test_weights_without_a_use(trainer: DetectionTrainer, tmp_path: Path) -> None:
    ended = trainer.run(tmp_path, *RUN, "--weights", "resnet50.pth")
    assert_says(ended, "--weights has no effect on --start random")
    assert_nothing_trained(tmp_path)


@pytest.mark.parametrize("content", [None, "text", "other"])
def test_a_wrong_file_of_weights(
    trainer: DetectionTrainer, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("no weights")
    elif content == "other":
        torch.save({"classifier.weight": torch.zeros(2)}, path)
    run = options("ce", backbone="resnet50-fpn", start="coco")
    assert_says(trainer.run(tmp_path / "out", *run, "--weights", str(path)), str(path), "--weights")
    assert_nothing_trained(tmp_path / "out")


def test_a_finished_first_stage_without_its_weights(
    trainer: DetectionTrainer, tmp_path: Path
) -> None:
    run = options("lrw", second=True, epochs=1, stage1_epochs=1)
    assert trainer.run(tmp_path, *run).code == 0
    first = first_stage_folder(tmp_path, *run)
    (first / "weights.pt").unlink()
    other = options("focal", second=True, epochs=1, stage1_epochs=1)
    ended = trainer.run(tmp_path, *other)
    assert_says(ended, str(first / "weights.pt"), "is missing", "move that folder elsewhere")


# Options.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "-1"), "--workers must be at least 0, not -1"),
        (("--threads", "0"), "--threads must be at least 1, not 0"),
        (("--batch-size", "9"), "--batch-size 9 is more than the 8 training images; lower it"),
        (("--start", "coco"), "--start coco has no weights for --backbone small"),
        (("--learning-rate", "nan"), "--learning-rate must be above 0, not nan"),
        (("--rfs-threshold", "0.1"), "--rfs-threshold 0.1 has no effect on --method cdb-w-ce"),
        (("--milestones", "5", "3"), "--milestones must be epochs from 1 up in growing order"),
        (("--difficulty", "proposals", "--difficulty-period", "2"), "--difficulty-period 2 has no"),
    ],
)
def test_a_wrong_option(
    trainer: DetectionTrainer, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert_says(trainer.run(tmp_path, *RUN, *words), said)
    assert_nothing_trained(tmp_path)


def test_an_unknown_recipe(trainer: DetectionTrainer, tmp_path: Path) -> None:
    assert_says(trainer.run(tmp_path, "coco"), "first argument names the recipe", "digit-scenes")


# A loss that is no number; for the rest see tests/common/training/test_conformance.py.


@pytest.mark.parametrize(
    ("method", "second", "task"),
    [("ce", False, "mask"), ("eql", False, "box"), ("bags", True, "box"), ("simcal", True, "box")],
)
def test_a_learning_rate_that_diverges(
    trainer: DetectionTrainer, tmp_path: Path, method: str, second: bool, task: str
) -> None:
    run = options(method, second=second, task=task, learning_rate=1e30, gradient_clip=1e30)
    ended = trainer.run(tmp_path, *run, "--checkpoint-seconds", "1000")
    # An epoch of simcal has one step here, whose loss is that of the first weights.
    assert_says(
        ended,
        f" at epoch {2 if method == 'simcal' else 1}, step ",
        "lower --learning-rate (now 1e+30)",
    )
    names = {path.name for path in trainer.run_folder(tmp_path, *run).iterdir()}
    assert names == {"config.json", "failure.json", "lock", "tensorboard"}
