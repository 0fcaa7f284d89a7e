"""Crops of annotated photographs, a folder for each category."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError, run_main
from data_prep import photo_crops
from data_prep.image_folder import load_image_folder
from data_prep.photo_crops import (
    FOLDER_VARIABLE,
    PHOTOGRAPHS_VARIABLE,
    Arguments,
    make_folder,
    prepare,
)
from tests.classification.image_trees import picture

NAMES = {1: "red", 2: "green/blue", 3: "rare"}
COLOURS = {1: (200, 0, 0), 2: (0, 100, 100), 3: (90, 90, 0)}


def annotated(folder: Path) -> Path:
    """Two grey photographs; in each three boxes of 20.5 x 24 pixels, one too small, one rare."""
    (folder / "val").mkdir(parents=True)
    images, boxes = [], []
    for number in (7, 9):
        pixels = np.full((100, 160, 3), 128, np.uint8)
        for place, category in enumerate((1, 2, 1, 3)[: 4 if number == 7 else 3]):
            x = 40 * place
            pixels[10:34, x : x + 21] = COLOURS[category]
            boxes.append((number, category, [x, 10, 20.5, 24]))
        boxes.append((number, 2, [100, 60, 30, 9]))
        Image.fromarray(pixels).save(folder / f"val/{number}.png")
        shape = {"height": 100, "width": 160, "neg_category_ids": []}
        file = {"id": number, "file_name": f"val/{number}.png", "not_exhaustive_category_ids": []}
        images.append(file | shape)
    entries: list[dict[str, Any]] = []
    for number, (image, category, (x, y, w, h)) in enumerate(boxes, start=1):
        outline = [x, y, x + w, y, x + w, y + h, x, y + h]
        own = {"id": number, "image_id": image, "category_id": category, "area": w * h}
        entries.append(own | {"bbox": [x, y, w, h], "segmentation": [outline]})
    categories = [
        {"id": key, "name": name, "synset": "", "synonyms": [], "def": "", "frequency": "r"}
        | {"image_count": 1, "instance_count": 1}
        for key, name in NAMES.items()
    ]
    said = {"info": {}, "licenses": [], "images": images, "annotations": entries}
    (folder / "boxes.json").write_text(json.dumps(said | {"categories": categories}))
    return folder


def arguments(folder: Path, out: Path, **changes: Any) -> Arguments:
    usual = {"annotations": (folder / "boxes.json",), "images": folder, "least": 2}
    return Arguments(out=out, **(usual | changes))


def test_each_box_becomes_a_file_of_its_category_and_rare_ones_none(tmp_path: Path) -> None:
    folder, out = annotated(tmp_path / "set"), tmp_path / "crops"
    assert make_folder(arguments(folder, out)) == {"red": 4, "green-blue": 2}
    found = {str(path.relative_to(out)) for path in out.rglob("*.jpg")}
    assert found == {
        "green-blue/000000000007_2.jpg", "green-blue/000000000009_7.jpg",
        "red/000000000007_1.jpg", "red/000000000007_3.jpg",
        "red/000000000009_6.jpg", "red/000000000009_8.jpg",
    }  # fmt: skip
    with Image.open(out / "red/000000000007_3.jpg") as crop:
        # From 80 to 100.5, so to 101: whole pixels.
        assert crop.size == (21, 24)
        assert np.abs(np.asarray(crop).mean((0, 1)) - COLOURS[1]).max() < 12


def test_what_cannot_be_cut_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PHOTOGRAPHS_VARIABLE, raising=False)
    folder, out = annotated(tmp_path / "set"), tmp_path / "crops"
    for wrong, words in (
        ({"least": 5}, "0 of 3 categories have 5 crops or more; lower --least"),
        ({"images": tmp_path / "none"}, "--images"),
        ({"images": None}, f"--annotations and --images, or set {PHOTOGRAPHS_VARIABLE}"),
    ):
        with pytest.raises(UserError, match=words):
            make_folder(arguments(folder, out, **wrong))
        assert not out.exists()
    (folder / "val/9.png").unlink()
    with pytest.raises(UserError, match=r"val/9.png of .* is not in"):
        make_folder(arguments(folder, out))
    assert not out.exists()
    with pytest.raises(UserError, match="is not empty"):
        make_folder(arguments(folder, folder))


def test_the_folder_of_photographs_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real photographs where they are, else those above."""
    named = os.environ.get(PHOTOGRAPHS_VARIABLE)
    if named is None:
        folder = annotated(tmp_path / "set")
        for part in ("train", "val"):
            (folder / f"{part}.json").write_text((folder / "boxes.json").read_text())
        monkeypatch.setenv(PHOTOGRAPHS_VARIABLE, str(folder))
    out = tmp_path / "crops"
    monkeypatch.setattr(sys, "argv", ["photo_crops", "cut", "--out", str(out), "--least", "3"])
    run_main(photo_crops.main)
    assert capsys.readouterr().out.startswith(f"{out}: ")
    assert len(list(out.iterdir())) >= 2


def test_a_folder_that_was_cut_in_part_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = annotated(tmp_path / "set"), tmp_path / "crops"
    whole = photo_crops.write_atomically

    def stops(path: Path, content: bytes) -> None:
        if path.name.startswith("000000000009"):
            raise KeyboardInterrupt
        whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(photo_crops, "write_atomically", stops)
        with pytest.raises(KeyboardInterrupt):
            make_folder(arguments(folder, out))
    assert not out.exists()
    make_folder(arguments(folder, out))
    assert len([*out.rglob("*.jpg")]) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"set", "crops"}


def test_prepare_lists_a_split_for_each_seed_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pictures of one's own in place of the crops.
    monkeypatch.delenv(PHOTOGRAPHS_VARIABLE, raising=False)
    for name, count in (("cat", 14), ("dog", 10)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(count):
            picture(20, 20, seed=number).save(tmp_path / f"pictures/{name}/{number}.png")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    prepare()
    splits = [load_image_folder(tmp_path / f"split-{seed}") for seed in range(10)]
    assert len({split.digest for split in splits}) == 10
    for split in splits:
        assert split.folder == tmp_path / "pictures"
        assert (split.train_counts, split.difficulty_counts) == ((6, 2), (4, 4))
        assert split.test_counts == (4, 4)
    prepare()
    again = load_image_folder(tmp_path / "split-3")
    assert again.digest == splits[3].digest


def test_prepare_cuts_the_photographs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    monkeypatch.delenv(PHOTOGRAPHS_VARIABLE, raising=False)
    with pytest.raises(UserError, match=f"pictures is missing; set {PHOTOGRAPHS_VARIABLE} to"):
        prepare(folder)
    made: list[Path] = []

    def fake(arguments: Arguments) -> None:
        made.append(arguments.out)
        for name in "ab":
            (arguments.out / name).mkdir(parents=True)
            for number in range(9):
                (arguments.out / name / f"{number}.jpg").touch()

    monkeypatch.setenv(PHOTOGRAPHS_VARIABLE, "photographs")
    monkeypatch.setattr(photo_crops, "cut", fake)
    prepare(folder)
    prepare(folder)
    assert made == [folder / "pictures"]
