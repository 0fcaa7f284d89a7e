"""The three sets of a run, what the record tells of them, and the ground truth of an evaluation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from common.errors import UserError
from data_prep.digit_scenes import FILES as SCENE_FILES
from data_prep.digit_scenes import SETTINGS_FILE
from data_prep.lvis import DIFFICULTY_FILE, REST_FILE, VAL_FILE
from data_prep.lvis_format import read_lvis
from detection.recipes import DIGIT_SCENES, LVIS
from detection.sets import ground_truth, load_sets
from tests.detection.runs import DIFFICULTY, TRAIN, VAL, C, write_lvis

BOX = LVIS
MASK = replace(LVIS, task="mask")


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """A set that may be spoiled."""
    return write_lvis(tmp_path / "own set")


def spoil(path: Path, change: Any) -> None:
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


def test_the_sets_hold_the_images_of_their_files(shapes: Path) -> None:
    sets = load_sets(BOX, shapes, shapes)
    assert (len(sets.train), len(sets.difficulty), len(sets.val)) == (TRAIN, DIFFICULTY, VAL)
    assert sets.num_classes == C
    ids = [set(part.annotations.image_ids) for part in (sets.train, sets.difficulty, sets.val)]
    assert not ids[0] & ids[1]
    assert not (ids[0] | ids[1]) & ids[2]
    plain: Any = sets.train[1]
    outlined: Any = load_sets(MASK, shapes, shapes).train[1]
    assert "masks" not in plain[1]
    assert "masks" in outlined[1]


def test_the_description_counts_the_images_of_each_category(shapes: Path) -> None:
    said = load_sets(BOX, shapes, shapes).description
    assert said["class_names"] == ["ball", "box", "kite", "wedge", "absent"]
    # One to four shapes an image, the first categories most.
    assert said["train"] == [7, 5, 3, 1, 0]
    assert said["difficulty"] == [3, 2, 1, 1, 0]
    assert said["test"] == [3, 3, 2, 1, 0]
    assert said["imbalance"] == 7.0
    assert said["frequency"] == "crrrr"
    assert "measures 4 of 5 categories; the others keep difficulty 1" in said["notes"][0]


def test_the_description_does_not_tell_where_the_files_lie(shapes: Path, own_set: Path) -> None:
    here, there = (load_sets(BOX, place, place).description for place in (shapes, own_set))
    assert here == there
    assert any(
        note.startswith(f"{REST_FILE}: 1 images have no annotation") for note in here["notes"]
    )
    assert str(shapes) not in json.dumps(here)


def test_the_digest_changes_with_the_images(own_set: Path) -> None:
    before = load_sets(BOX, own_set, own_set).description["digest"]
    spoil(own_set / DIFFICULTY_FILE, lambda said: said["images"][0].update(id=999) or [
        entry.update(image_id=999) for entry in said["annotations"] if entry["image_id"] == 108
    ])  # fmt: skip
    after = load_sets(BOX, own_set, own_set).description["digest"]
    assert len(before) == 64
    assert before != after


# What is refused.


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (DIFFICULTY_FILE, "hold out images to measure the difficulty on with .*lvis split"),
        (REST_FILE, REST_FILE),
        (VAL_FILE, VAL_FILE),
    ],
)
def test_a_missing_file_is_named(own_set: Path, file: str, words: str) -> None:
    (own_set / file).unlink()
    with pytest.raises(UserError, match=words):
        load_sets(BOX, own_set, own_set)


@pytest.mark.parametrize("file", [DIFFICULTY_FILE, VAL_FILE])
def test_files_of_different_categories_are_refused(own_set: Path, file: str) -> None:
    spoil(own_set / file, lambda said: said["categories"].append(
        {"id": 99, "name": "more", "frequency": "r", "image_count": 0, "instance_count": 0}
    ))  # fmt: skip
    with pytest.raises(UserError, match=f"{file} has other categories than .*{REST_FILE}; name"):
        load_sets(BOX, own_set, own_set)


def test_a_missing_image_is_named(own_set: Path) -> None:
    (own_set / "train" / "010.png").unlink()
    with pytest.raises(
        UserError, match=f"1 of the {DIFFICULTY} images of .*train/010.png.*--images"
    ):
        load_sets(BOX, own_set, own_set)


@pytest.mark.parametrize("file", [REST_FILE, VAL_FILE])
def test_boxes_without_masks_are_enough_for_boxes_alone(own_set: Path, file: str) -> None:
    spoil(own_set / file, lambda said: said["annotations"][0].pop("segmentation"))
    assert load_sets(BOX, own_set, own_set).num_classes == C
    with pytest.raises(UserError, match=f"{file}: annotation 1 has no segmentation; train boxes"):
        load_sets(MASK, own_set, own_set)


def test_a_folder_that_holds_no_scenes_is_refused(shapes: Path) -> None:
    with pytest.raises(UserError, match="holds no digit scenes; render"):
        load_sets(DIGIT_SCENES, shapes)
    with pytest.raises(UserError, match="--images has no effect on digit-scenes"):
        load_sets(DIGIT_SCENES, shapes, shapes)


def test_the_scenes_are_found_in_the_folder_they_were_rendered_to(own_set: Path) -> None:
    """Under their own names; how scenes are drawn is tested in tests/data_prep."""
    (own_set / SETTINGS_FILE).write_text("{}")
    parts = {"train": REST_FILE, "difficulty": DIFFICULTY_FILE, "val": VAL_FILE}
    for part, name in SCENE_FILES.items():
        (own_set / parts[part]).rename(own_set / name)
    sets = load_sets(DIGIT_SCENES, own_set)
    assert (len(sets.train), len(sets.difficulty), len(sets.val)) == (TRAIN, DIFFICULTY, VAL)


# Ground truth.


@pytest.mark.parametrize("masks", [False, True])
def test_the_ground_truth_is_that_of_the_file(shapes: Path, masks: bool) -> None:
    said = json.loads((shapes / VAL_FILE).read_text())
    truth = ground_truth(read_lvis(shapes / VAL_FILE), masks=masks)
    ids = sorted(category["id"] for category in said["categories"])
    assert truth.image_ids.tolist() == sorted(image["id"] for image in said["images"])
    found = [
        (truth.image_ids[i], ids[c], *box, area)
        for i, c, box, area in zip(
            truth.image, truth.category, truth.xywh.tolist(), truth.area, strict=True
        )
    ]
    expected = [
        (a["image_id"], a["category_id"], *a["bbox"], a["area"]) for a in said["annotations"]
    ]
    assert sorted(found) == sorted(expected)
    negative = {(truth.image_ids[i], ids[c]) for i, c in truth.negative}
    assert negative == {(i["id"], c) for i in said["images"] for c in i["neg_category_ids"]}
    assert not truth.ignore.any()
    if masks:
        assert truth.masks is not None
        assert [int(coco_mask.area(dict(m))) > 0 for m in truth.masks] == [True] * len(found)
    else:
        assert truth.masks is None


def test_images_in_any_order_give_the_same_ground_truth(own_set: Path) -> None:
    usual = ground_truth(read_lvis(own_set / VAL_FILE), masks=True)
    spoil(own_set / VAL_FILE, lambda said: said["images"].reverse())
    other = ground_truth(read_lvis(own_set / VAL_FILE), masks=True)
    assert np.array_equal(other.image_ids, usual.image_ids)
    for truth in (usual, other):
        assert (np.diff(truth.image_ids) > 0).all()

    def rows(truth: Any) -> list[Any]:
        return sorted(zip(truth.image, truth.category, truth.xywh.tolist(), strict=True))

    assert rows(other) == rows(usual)
    assert sorted(map(tuple, other.negative.tolist())) == sorted(
        map(tuple, usual.negative.tolist())
    )


def test_the_letters_of_the_categories_are_those_of_the_file(own_set: Path) -> None:
    spoil(own_set / VAL_FILE, lambda said: [c.update(frequency="f") for c in said["categories"]])
    truth = ground_truth(read_lvis(own_set / VAL_FILE), masks=False)
    assert truth.frequency.tolist() == ["f"] * C
