"""Files in LVIS's layout: what is read, what is refused, what is written."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from common.errors import UserError
from data_prep.lvis_format import (
    Annotations,
    find_images,
    frequency_letters,
    read_lvis,
    rle_runs,
    write_lvis,
)
from tests.detection.synthetic import CATEGORIES, HEIGHT, IMAGES, WIDTH, entries, write_entries

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]


def read(said: Any, tmp_path: Path, *, training: bool = False) -> Annotations:
    return read_lvis(write_entries(said, tmp_path / "some.json"), training=training)


def small() -> dict[str, Any]:
    """Two images, two categories, three annotations, to be spoilt."""
    image = {"height": 20, "width": 30, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    box = {"bbox": [2.0, 3.0, 10.0, 10.0], "area": 100.0, "segmentation": [SQUARE]}
    return {
        "images": [
            {"id": 8, "file_name": "a.jpg", **image},
            {"id": 5, "file_name": "b.jpg", **image, "neg_category_ids": [9]},
        ],
        "annotations": [
            {"id": 31, "image_id": 5, "category_id": 4, **box},
            {"id": 32, "image_id": 8, "category_id": 9, **box},
            {"id": 30, "image_id": 5, "category_id": 4, **box},
        ],
        "categories": [
            {"id": 9, "name": "nine", "frequency": "r"},
            {"id": 4, "name": "four", "frequency": "r"},
        ],
    }


# What is read.


def test_categories_are_in_the_order_of_their_ids_and_instances_in_that_of_the_images(
    tmp_path: Path,
) -> None:
    found = read(small(), tmp_path)
    assert (found.category_ids.tolist(), found.names) == ([4, 9], ("four", "nine"))
    assert found.image_ids.tolist() == [8, 5]
    assert found.instance_ids.tolist() == [32, 31, 30]
    assert found.image.tolist() == [0, 1, 1]
    assert found.category.tolist() == [1, 0, 0]
    assert found.image_count.tolist() == [1, 1]
    assert found.instance_count.tolist() == [2, 1]
    assert found.negative.of(1).tolist() == [1]
    assert found.negative.of(0).tolist() == found.not_exhaustive.of(1).tolist() == []
    assert found.instances_of(1) == slice(1, 3)
    assert [pair.tolist() for pair in found.image_categories] == [[0, 1], [1, 0]]


def test_boxes_are_corners_in_float32_and_bboxes_as_in_the_file(tmp_path: Path) -> None:
    found = read(small(), tmp_path)
    assert found.bboxes[0].tolist() == [2, 3, 10, 10]
    assert found.boxes[0].tolist() == [2, 3, 12, 13]
    assert found.boxes.dtype == np.float32


def test_a_file_is_read_as_a_plain_reading_of_its_entries(tmp_path: Path) -> None:
    said = entries()
    found = read(said, tmp_path, training=True)
    numbers = {category: index for index, category in enumerate(sorted(CATEGORIES))}
    assert found.num_instances == len(said["annotations"]) > 20
    for instance, entry in enumerate(said["annotations"]):
        assert found.image_ids[found.image[instance]] == entry["image_id"]
        assert found.category[instance] == numbers[entry["category_id"]]
        assert found.bboxes[instance].tolist() == entry["bbox"]
        assert found.areas[instance] == entry["area"]
        outline = found.segmentations.of(instance)
        assert isinstance(outline, list)
        assert [polygon.tolist() for polygon in outline] == entry["segmentation"]


def test_images_without_annotations_and_categories_without_instances_are_kept_and_noted(
    tmp_path: Path,
) -> None:
    found = read(entries(), tmp_path)
    assert found.num_images == IMAGES["train"]
    assert found.instances_of(0) == slice(0, 0)
    assert found.image_count[-1] == 0
    assert [note.split(": ", 1)[1] for note in found.notes] == [
        "1 of 5 categories have no instance (absent).",
        "1 images have no annotation and are kept.",
    ]


def test_a_file_without_any_annotation_is_read(tmp_path: Path) -> None:
    said = small()
    said["annotations"] = []
    found = read(said, tmp_path)
    assert (found.num_images, found.num_instances) == (2, 0)
    assert found.boxes.shape == (0, 4)
    assert found.image_count.tolist() == [0, 0]


def test_several_polygons_and_run_length_codes_and_no_outline_are_told_apart(
    tmp_path: Path,
) -> None:
    said = small()
    square = np.zeros((20, 30), np.uint8, order="F")
    square[3:13, 2:12] = 1
    code = coco_masks.encode(square)
    said["annotations"][0]["segmentation"] = [SQUARE, [0.0, 0, 5, 0, 5, 5]]
    said["annotations"][1]["segmentation"] = {"size": [20, 30], "counts": code["counts"].decode()}
    del said["annotations"][2]["segmentation"]
    outlines = read(said, tmp_path).segmentations
    rle, polygons = outlines.of(0), outlines.of(1)
    assert isinstance(rle, dict)
    assert (coco_masks.decode(rle) == square).all()
    assert isinstance(polygons, list)
    assert [part.tolist() for part in polygons] == [SQUARE, [0, 0, 5, 0, 5, 5]]
    assert outlines.of(2) is None


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=9))
def test_runs_are_those_that_pycocotools_coded(rows: list[list[bool]]) -> None:
    pixels = np.asfortranarray(np.array(rows, np.uint8))
    runs = rle_runs(coco_masks.encode(pixels))
    values = np.arange(len(runs)) % 2
    assert np.repeat(values, runs).tolist() == pixels.ravel(order="F").tolist()


def test_long_runs_and_falling_ones_are_decoded() -> None:
    runs = [70_000, 3, 1, 900, 40_000, 2, 7]
    code = coco_masks.frPyObjects({"size": [sum(runs), 1], "counts": runs}, sum(runs), 1)
    assert rle_runs(code).tolist() == runs == rle_runs({"counts": runs}).tolist()


def test_letters_follow_lvis_thresholds() -> None:
    counts = np.array([0, 1, 10, 11, 100, 101, 9999])
    assert "".join(frequency_letters(counts)) == "rrrccff"


def test_letters_that_the_file_lacks_are_those_of_its_images(tmp_path: Path) -> None:
    said = small()
    for category in said["categories"]:
        del category["frequency"]
    assert read(said, tmp_path).frequency == ("r", "r")


def test_an_evaluation_file_may_have_letters_of_another_set_but_a_training_file_not(
    tmp_path: Path,
) -> None:
    said = small()
    said["categories"][0]["frequency"] = "f"
    assert read(said, tmp_path).frequency == ("r", "f")
    with pytest.raises(UserError, match=r"category 9 \(nine\) has frequency 'f'.* 'r'"):
        read(said, tmp_path, training=True)


@pytest.mark.parametrize("key", ["image_count", "instance_count"])
def test_a_training_file_whose_counts_are_not_those_of_its_annotations_is_refused(
    key: str, tmp_path: Path
) -> None:
    said = entries()
    assert read(said, tmp_path, training=True).num_categories == 5
    said["categories"][1][key] += 1
    with pytest.raises(UserError, match=rf"category 3 \(box\) has {key}"):
        read(said, tmp_path, training=True)


# Boxes that are mended.


def test_a_box_that_reaches_out_is_clipped_and_noted(tmp_path: Path) -> None:
    said = small()
    said["annotations"][0]["bbox"] = [-1.5, 3.0, 10.0, 30.0]
    found = read(said, tmp_path)
    assert found.bboxes[1].tolist() == [0, 3, 8.5, 17]
    assert found.bboxes[0].tolist() == [2, 3, 10, 10]
    assert "1 boxes reach out" in found.notes[0]
    assert "annotation 31, by 13 pixels" in found.notes[0]


def test_a_box_without_area_is_left_out_and_counted_with_its_mask(tmp_path: Path) -> None:
    said = small()
    said["annotations"][1]["bbox"] = [2.0, 3.0, 0.0, 10.0]
    said["annotations"][0]["segmentation"] = [[0.0, 0, 5, 0, 5, 5]]
    found = read(said, tmp_path)
    assert found.instance_ids.tolist() == [31, 30]
    assert found.instance_count.tolist() == [2, 0]
    outline = found.segmentations.of(0)
    assert isinstance(outline, list)
    assert outline[0].tolist() == [0, 0, 5, 0, 5, 5]
    assert "1 boxes have no area and were left out (annotation 32)." in found.notes[0]
    assert "1 images have no annotation" in found.notes[-1]


# As a file may have it, and what is left within an image of 30 x 20.
THIN = ([2.0, 3.0, 1e-6, 10.0], [2.0, 3.0, 10.0, 1e-20], [30 - 1e-6, 3.0, 5.0, 5.0])


@pytest.mark.parametrize("bbox", THIN)
def test_a_box_too_thin_for_32_bits_is_left_out_and_noted(
    bbox: list[float], tmp_path: Path
) -> None:
    said = small()
    said["annotations"][1]["bbox"] = bbox
    found = read(said, tmp_path)
    assert found.instance_ids.tolist() == [31, 30]
    assert "1 boxes are thinner than a millionth" in found.notes[0]
    assert "left out (annotation 32)." in found.notes[0]


@pytest.mark.parametrize("longer", [100, 640, 1024, 20_000])
def test_the_thinnest_box_that_is_kept_has_an_area_at_any_place_scale_and_side(
    longer: int, tmp_path: Path
) -> None:
    said = small()
    said["images"][0] |= {"width": longer, "height": longer}
    places = np.random.default_rng(0).uniform(0, 0.99 * longer, 500)
    box = said["annotations"].pop(1)
    for number, x in enumerate(places.tolist()):
        bbox = [x, x, 1.001e-6 * longer, 1.001e-6 * longer]
        said["annotations"].append(box | {"id": 100 + number, "bbox": bbox})
    found = read(said, tmp_path)
    boxes = found.boxes[found.instances_of(0)]
    assert len(boxes) == 500
    for side in (128, 800, 1333, longer):
        scaled = boxes * np.float32(side / longer)
        for turned in (scaled, np.float32(side) - scaled[:, [2, 3, 0, 1]]):
            assert (turned[:, 2:] > turned[:, :2]).all()


def test_a_crowd_is_left_out_of_training_and_noted(tmp_path: Path) -> None:
    said = small()
    said["annotations"][1]["iscrowd"] = 1
    said["annotations"][0]["iscrowd"] = 0
    found = read(said, tmp_path)
    assert found.instance_ids.tolist() == [31, 30]
    assert found.instance_count.tolist() == [2, 0]
    assert "1 annotations are crowds (iscrowd) and were left out of training" in found.notes[0]
    assert "(annotation 32)." in found.notes[0]


def test_what_was_mended_or_left_out_is_there_as_given(tmp_path: Path) -> None:
    said = small()
    assert read(said, tmp_path).as_given.bboxes.tolist() == [[2, 3, 10, 10]] * 3
    boxes = {31: [-1.5, 3.0, 10.0, 30.0], 32: [2.0, 3.0, 0.0, 10.0], 30: [2.0, 3.0, 10.0, 10.0]}
    for entry in said["annotations"]:
        entry["bbox"] = boxes[entry["id"]]
    said["annotations"][2] |= {"iscrowd": 1, "ignore": 1}
    found = read(said, tmp_path)
    assert found.instance_ids.tolist() == [31]
    for untouched in (found.as_given, found.select(np.array([8, 5])).as_given):
        ids = untouched.instance_ids.tolist()
        assert dict(zip(ids, untouched.bboxes.tolist(), strict=True)) == boxes
        assert [ids[n] for n in np.flatnonzero(untouched.crowd)] == [30]
        assert [ids[n] for n in np.flatnonzero(untouched.ignore)] == [30]
    assert found.select(np.array([8])).as_given.instance_ids.tolist() == [32]
    write_lvis(found, tmp_path / "again.json")
    again = read_lvis(tmp_path / "again.json", training=True)
    assert [note.split(": ")[1] for note in again.notes] == [
        note.split(": ")[1] for note in found.notes
    ]
    assert again.as_given.bboxes.tolist() == found.as_given.bboxes.tolist()
    assert again.as_given.ignore.tolist() == found.as_given.ignore.tolist()


def test_letters_are_the_files_only_if_it_has_them(tmp_path: Path) -> None:
    said = small()
    assert read(said, tmp_path).has_letters
    for category in said["categories"]:
        del category["frequency"]
    assert not read(said, tmp_path).has_letters


# What is refused.

Spoil = Callable[[dict[str, Any]], Any]
RLE = {"size": [20, 30], "counts": [600]}


def annotation(**changes: Any) -> Spoil:
    return lambda said: said["annotations"][1].update(changes)


def image(**changes: Any) -> Spoil:
    return lambda said: said["images"][1].update(changes)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "image twice": (image(id=8), "image 8 is there twice"),
    "annotation twice": (annotation(id=30), "annotation 30 is there twice"),
    "category twice": (lambda s: s["categories"][0].update(id=4), "category 4 is there twice"),
    "unknown image": (annotation(image_id=6), "annotation 32 is of image 6, which"),
    "unknown category": (annotation(category_id=5), "annotation 32 is of category 5, which"),
    "unknown negative": (image(neg_category_ids=[4, 1]), "image 5 is of category 1, which"),
    "box outside": (annotation(bbox=[30.0, 0, 5, 5]), "annotation 32 .*wholly outside its image"),
    "box above": (annotation(bbox=[3.0, -6, 5, 5]), "annotation 32 .*wholly outside its image"),
    "negative size": (annotation(bbox=[3.0, 3, -5, 5]), "annotation 32 .*negative size"),
    "three numbers": (annotation(bbox=[3.0, 3, 5]), "annotation 32: bbox .*not four numbers"),
    "words": (annotation(bbox=["3", 3, 5, 5]), "annotation 32: bbox .*not four numbers"),
    "area": (annotation(area=None), "annotation 32: bbox .* and area None"),
    "crowd": (annotation(iscrowd=2), "annotation 32: iscrowd 2 is neither 0 nor 1"),
    "ignore": (annotation(ignore="yes"), "annotation 32: ignore 'yes' is neither 0 nor 1"),
    "endless": (annotation(bbox=[3.0, 3, float("nan"), 5]), "annotation 32 .*no finite number"),
    "odd polygon": (annotation(segmentation=[SQUARE[:7]]), "annotation 32: .*does not parse"),
    "two points": (annotation(segmentation=[SQUARE[:4]]), "annotation 32: .*does not parse"),
    "no polygon": (annotation(segmentation=[]), "annotation 32: .*does not parse"),
    "flat polygon": (annotation(segmentation=SQUARE), "annotation 32: .*does not parse"),
    "text": (annotation(segmentation="mask"), "annotation 32: .*does not parse"),
    "words in it": (annotation(segmentation=[["a"] * 6]), "annotation 32: .*does not parse"),
    "endless mask": (
        annotation(segmentation=[SQUARE, [float("inf"), *SQUARE[1:]]]),
        "annotation 32: .*does not parse",
    ),
    "runs": (annotation(segmentation={**RLE, "counts": [599]}), "32: .*does not parse"),
    "negative run": (annotation(segmentation={**RLE, "counts": [601, -1]}), "32: .*not parse"),
    "no code": (annotation(segmentation={**RLE, "counts": "~~"}), "32: .*does not parse"),
    "open code": (annotation(segmentation={**RLE, "counts": "oo"}), "32: .*does not parse"),
    "no counts": (annotation(segmentation={"size": [20, 30]}), "32: .*does not parse"),
    "other size": (
        annotation(segmentation={"size": [30, 20], "counts": [600]}),
        "annotation 32: .*does not parse",
    ),
    "no size": (image(width=0), "image 5 is 0 x 20 pixels"),
    "half a pixel": (image(width=2.5), "image number 2: width 2.5 is not a whole number"),
    "no name": (image(file_name=""), "image 5 has neither"),
    "no negatives": (
        lambda s: s["images"][1].pop("neg_category_ids"),
        "image 5 has no 'neg_category_ids'",
    ),
    "list": (image(neg_category_ids=4), "image 5: 'neg_category_ids' is not a list"),
    "no bbox": (lambda s: s["annotations"][1].pop("bbox"), "annotation 32 has no 'bbox'"),
    "no id": (lambda s: s["annotations"][1].pop("id"), "annotation number 2 has no 'id'"),
    "letter": (lambda s: s["categories"][0].update(frequency="x"), "category 9 .*'x'"),
    "no category": (lambda s: s.update(categories=[]), "no list 'categories'"),
    "no images": (lambda s: s.pop("images"), "no list 'images'"),
    "no list": (lambda s: s.update(annotations={}), "no list 'annotations'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_entry_is_refused_by_file_and_name(case: str, tmp_path: Path) -> None:
    spoil, words = REFUSED[case]
    said = copy.deepcopy(small())
    spoil(said)
    with pytest.raises(UserError, match=words) as refusal:
        read(said, tmp_path)
    assert "some.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"images": [', '{"images" 3}', "{} {", "null", '{"a": 1 "b": 2}']
)
def test_what_is_no_whole_annotation_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"some\.json"):
        read_lvis(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    text = json.dumps(small())
    path = tmp_path / "some.json"
    for end in range(0, len(text) - 1, 7):
        path.write_text(text[:end])
        with pytest.raises(UserError, match=r"some\.json is no JSON object"):
            read_lvis(path)


def test_a_file_with_more_behind_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(small()) + "\n ")
    assert read_lvis(path).num_images == 2
    path.write_text(json.dumps(small()) * 2)
    with pytest.raises(UserError, match="Extra data"):
        read_lvis(path)


def test_a_missing_file_and_one_of_other_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json is missing"):
        read_lvis(tmp_path / "none.json")
    (tmp_path / "zip.json").write_bytes(b"\x80PK")
    with pytest.raises(UserError, match=r"zip\.json is not text"):
        read_lvis(tmp_path / "zip.json")


# Writing.


def test_a_written_file_is_read_back_the_same(tmp_path: Path) -> None:
    said = small()
    said["annotations"][1]["segmentation"] = RLE
    del said["annotations"][2]["segmentation"]
    said["images"][0]["coco_url"] = "http://images/train2017/8.jpg"
    first = read(said, tmp_path)
    write_lvis(first, tmp_path / "again.json")
    again = read_lvis(tmp_path / "again.json", training=True)
    for key in ("image_ids", "image", "category", "bboxes", "areas", "instance_ids", "heights"):
        assert getattr(again, key).tolist() == getattr(first, key).tolist()
    for key in ("file_names", "coco_urls", "frequency", "names"):
        assert getattr(again, key) == getattr(first, key)
    for instance in range(3):
        pair = (one.segmentations.of(instance) for one in (first, again))
        one, other = (np.array(x[0]).tolist() if isinstance(x, list) else x for x in pair)
        assert one == other
    assert again.negative.of(1).tolist() == first.negative.of(1).tolist() == [1]


def test_a_selection_has_its_images_with_all_their_instances_and_the_letters_of_the_whole(
    tmp_path: Path,
) -> None:
    said = entries()
    said["categories"][0]["frequency"] = "f"
    whole = read(said, tmp_path)
    ids = np.array([107, 103, 100])
    part = whole.select(ids)
    write_lvis(part, tmp_path / "part.json")
    written = json.loads((tmp_path / "part.json").read_text())
    assert [entry["id"] for entry in written["images"]] == [100, 103, 107]
    expected = [entry for entry in said["annotations"] if entry["image_id"] in ids]
    assert sorted(written["annotations"], key=lambda entry: int(entry["id"])) == [
        {key: entry[key] for key in ("id", "image_id", "category_id", "bbox", "area")}
        | {"segmentation": entry["segmentation"]}
        for entry in expected
    ]
    assert written["info"] == {"description": "shapes"}
    again = read_lvis(tmp_path / "part.json")
    assert again.frequency == whole.frequency
    assert again.frequency[0] == "f"
    counts = [entry["image_count"] for entry in written["categories"]]
    assert counts == part.image_count.tolist() == again.image_count.tolist()
    assert again.negative.of(2).tolist() == whole.negative.of(7).tolist()


def test_an_unknown_image_cannot_be_selected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image 6"):
        read(small(), tmp_path).select(np.array([8, 6]))


# Images on disk.


@pytest.mark.parametrize(
    ("place", "file_name", "coco_url"),
    [
        ("some/a.jpg", "some/a.jpg", ""),
        ("a.jpg", "some/a.jpg", ""),
        ("train2017/000000000009.jpg", "COCO_train2014_000000000009.jpg", ""),
        ("val2017/000000000009.jpg", "COCO_train2014_000000000009.jpg", ""),
        ("000000000009.jpg", "COCO_val2014_000000000009.jpg", ""),
        ("val2017/9.jpg", "", "http://images.cocodataset.org/val2017/9.jpg"),
        ("9.jpg", "", "http://images.cocodataset.org/val2017/9.jpg"),
        ("train2017/9.jpg", "", "http://images.cocodataset.org/val2017/9.jpg"),
        ("COCO_val2014_000000000009.jpg", "COCO_val2014_000000000009.jpg", "http://x/train/1.jpg"),
    ],
)
def test_an_image_is_found_where_coco_or_its_name_puts_it(
    place: str, file_name: str, coco_url: str, tmp_path: Path
) -> None:
    said = small()
    said["images"][1].update(file_name=file_name, coco_url=coco_url)
    folder = tmp_path / "images"
    (folder / place).parent.mkdir(parents=True)
    assert find_images(read(said, tmp_path), folder) == (None, None)
    (folder / place).touch()
    assert find_images(read(said, tmp_path), folder)[1] == folder / place


def test_a_missing_folder_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "no"))):
        find_images(read(small(), tmp_path), tmp_path / "no")


def test_the_shapes_lie_in_their_images(tmp_path: Path) -> None:
    boxes = read(entries("val"), tmp_path).boxes
    assert (boxes >= 0).all()
    assert (boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
