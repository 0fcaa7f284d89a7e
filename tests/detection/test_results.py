"""Detections in LVIS's result format: written, read, refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from common.errors import UserError
from data_prep.lvis_format import Annotations, read_lvis
from detection.ap import Detections
from detection.results import read_detections, write_detections
from tests.detection.synthetic import HEIGHT, WIDTH, entries, write_entries


@pytest.fixture
def truth(tmp_path: Path) -> Annotations:
    return read_lvis(write_entries(entries(), tmp_path / "truth.json"))


def some(boxes: bool = True, masks: bool = True) -> Detections:
    code = coco_masks.encode(np.asfortranarray(np.ones((HEIGHT, WIDTH), np.uint8)))
    return Detections(
        np.array([105, 101]),
        np.array([2, 0]),
        np.array([0.75, 0.123456789]),
        np.array([[1.0, 2.5, 3, 4], [0.1, 0, 30, 20]]) if boxes else None,
        [code, code] if masks else None,
    )


@pytest.mark.parametrize(("boxes", "masks"), [(True, True), (True, False), (False, True)])
def test_detections_are_read_back_as_written(
    boxes: bool, masks: bool, truth: Annotations, tmp_path: Path
) -> None:
    detections = some(boxes, masks)
    write_detections(detections, truth.category_ids, tmp_path / "found.json")
    again = read_detections(tmp_path / "found.json", truth)
    for key in ("image_ids", "categories", "scores"):
        assert np.array_equal(getattr(again, key), getattr(detections, key))
    if boxes:
        assert np.array_equal(np.asarray(again.xywh), np.asarray(detections.xywh))
    assert (again.xywh is not None, again.masks is not None) == (boxes, masks)
    if again.masks is not None:
        assert coco_masks.area(list(again.masks)).tolist() == [HEIGHT * WIDTH] * 2
    written = json.loads((tmp_path / "found.json").read_text())
    # The ids of categories 2 and 0: see CATEGORIES.
    assert [entry["category_id"] for entry in written] == [7, 2]


def test_no_detection_is_a_result_too(truth: Annotations, tmp_path: Path) -> None:
    none = Detections([], [], [], np.zeros((0, 4)), [])
    write_detections(none, truth.category_ids, tmp_path / "found.json")
    again = read_detections(tmp_path / "found.json", truth)
    assert np.asarray(again.scores).shape == (0,)
    assert np.asarray(again.xywh).shape == (0, 4)


SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 13.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_id": 6}, "number 2 has image_id 6, which"),
        ({"image_id": "101"}, "number 2: image_id '101' is not a whole number"),
        ({"category_id": 1}, "number 2 has category_id 1, which"),
        ({"bbox": [1, 2]}, "number 2: bbox"),
        ({"bbox": [1, 2, 3, float("inf")]}, "number 2 has a box without end"),
        ({"bbox": None}, "only 1 of 2 detections have a bbox"),
        ({"score": "high"}, "number 2: score 'high'"),
        ({"score": float("nan")}, "number 2: score nan"),
        ({"segmentation": {"size": [20, 30], "counts": [1]}}, "number 2: .*does not parse"),
        ({"segmentation": [SQUARE]}, "number 2: .*no run-length code"),
        ({"segmentation": None}, "only 1 of 2 detections have a segmentation"),
    ],
)
def test_wrong_detections_are_refused_by_file_and_number(
    changes: dict[str, Any], words: str, truth: Annotations, tmp_path: Path
) -> None:
    path = tmp_path / "found.json"
    write_detections(some(), truth.category_ids, path)
    said = json.loads(path.read_text())
    said[1].update(changes)
    path.write_text(json.dumps(said))
    with pytest.raises(UserError, match=rf"found\.json.*{words}"):
        read_detections(path, truth)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[{}]", "[" * 100_000])
def test_a_file_that_is_no_list_of_detections_is_refused(
    text: str, truth: Annotations, tmp_path: Path
) -> None:
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(UserError, match=r"found\.json"):
        read_detections(tmp_path / "found.json", truth)
