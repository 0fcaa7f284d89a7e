"""The three sets of a run, what the record tells of them, and the ground truth of an evaluation."""

import json
import math
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
from detection.ap import Detections, IouType, evaluate_ap, official_ap
from detection.ap.inputs import encode_segmentation
from detection.recipes import DIGIT_SCENES, LVIS
from detection.sets import ground_truth, load_sets
from tests.detection.runs import DIFFICULTY, TRAIN, VAL, C, write_lvis
from tests.detection.synthetic import HEIGHT, WIDTH

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


def spoiled_boxes(said: dict[str, Any]) -> None:
    """What :func:`read_lvis` mends or leaves out: reaches out, is flat, is thin, is a crowd."""
    boxes = [[WIDTH - 20, 10, 25, 25], [5, 5, 0, 9], [5, 5, 1e-6, 9], [2, 3, 15, 15], [30, 3, 9, 9]]
    assert len(said["annotations"]) > len(boxes)
    for entry, bbox in zip(said["annotations"], boxes, strict=False):
        x, y, width, height = bbox
        outline = [x, y, x + width, y, x + width, y + height, x, y + height]
        entry |= {"bbox": bbox, "area": 90.0, "segmentation": [outline]}
    said["annotations"][3]["iscrowd"] = 1
    said["annotations"][4]["ignore"] = 1


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ap_on_boxes_that_are_mended_for_training_is_the_official_packages(
    own_set: Path, kind: IouType
) -> None:
    spoil(own_set / VAL_FILE, spoiled_boxes)
    said = json.loads((own_set / VAL_FILE).read_text())
    read = read_lvis(own_set / VAL_FILE)
    assert read.num_instances == len(said["annotations"]) - 3
    truth = ground_truth(read, masks=True)
    found = every_instance(said)
    official = official_ap(said, found, kind)
    ours = evaluate_ap(truth, found, kind)
    np.testing.assert_allclose(ours.precision, official.precision, rtol=0, atol=1e-9)
    assert ours.averages() == pytest.approx(official.averages(), nan_ok=True)
    assert official.averages()["AP"] > 0.5


def every_instance(said: dict[str, Any]) -> Detections:
    """A detection of each annotation, its box and mask as given."""
    ids = sorted(category["id"] for category in said["categories"])
    rows = said["annotations"]
    return Detections(
        image_ids=[row["image_id"] for row in rows],
        categories=[ids.index(row["category_id"]) for row in rows],
        scores=[0.9] * len(rows),
        xywh=[row["bbox"] for row in rows],
        masks=[encode_segmentation(row["segmentation"], HEIGHT, WIDTH) for row in rows],
    )


def test_a_box_that_reaches_out_is_found_by_a_detection_as_the_file_has_it(own_set: Path) -> None:
    """The public report: [80, 10, 25, 25] in an image of width 100 had AP 0.7, officially 1."""
    spoil(own_set / VAL_FILE, lambda said: said["annotations"][0].update(bbox=[40, 10, 25, 25]))
    said = json.loads((own_set / VAL_FILE).read_text())
    truth = ground_truth(read_lvis(own_set / VAL_FILE), masks=False)
    assert evaluate_ap(truth, every_instance(said)).averages()["AP"] == pytest.approx(1.0)


def no_letters(said: dict[str, Any]) -> None:
    for category in said["categories"]:
        category.pop("frequency", None)


def test_a_val_file_without_letters_has_those_of_the_training_file(own_set: Path) -> None:
    spoil(own_set / REST_FILE, lambda said: [c.update(frequency="f") for c in said["categories"]])
    spoil(own_set / VAL_FILE, no_letters)
    spoil(own_set / DIFFICULTY_FILE, no_letters)
    sets = load_sets(BOX, own_set, own_set)
    for part in (sets.difficulty, sets.val):
        assert part.annotations.frequency == ("f",) * C
        truth = ground_truth(part.annotations, masks=False)
        assert truth.frequency.tolist() == ["f"] * C
    averages = evaluate_ap(truth, every_instance(json.loads((own_set / VAL_FILE).read_text())))
    assert averages.averages()["APf"] == pytest.approx(1.0)


def test_letters_that_nobody_gives_make_no_groups(own_set: Path) -> None:
    """As of a set that is evaluated without its training set: from val's images they are others."""
    spoil(own_set / VAL_FILE, no_letters)
    truth = ground_truth(read_lvis(own_set / VAL_FILE), masks=False)
    averages = evaluate_ap(truth, every_instance(json.loads((own_set / VAL_FILE).read_text())))
    assert averages.averages()["AP"] == pytest.approx(1.0)
    assert all(math.isnan(averages.averages()[f"AP{letter}"]) for letter in "rcf")


def test_a_mask_that_only_the_evaluation_needs_is_missed_before_training(own_set: Path) -> None:
    spoil(own_set / VAL_FILE, spoiled_boxes)
    spoil(own_set / VAL_FILE, lambda said: said["annotations"][1].pop("segmentation"))
    number = json.loads((own_set / VAL_FILE).read_text())["annotations"][1]["id"]
    with pytest.raises(UserError, match=f"annotation {number} has no segmentation"):
        load_sets(MASK, own_set, own_set)


def test_the_letters_of_the_categories_are_those_of_the_file(own_set: Path) -> None:
    spoil(own_set / VAL_FILE, lambda said: [c.update(frequency="f") for c in said["categories"]])
    truth = ground_truth(read_lvis(own_set / VAL_FILE), masks=False)
    assert truth.frequency.tolist() == ["f"] * C
