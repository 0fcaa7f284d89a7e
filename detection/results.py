"""Detections in LVIS's result format: what the official package and the challenge server read.

A file is a JSON list of detections: ``image_id``, ``category_id``, ``score``, ``bbox`` [x, y,
width, height] in pixels of the image on disk, ``segmentation`` (a run-length code); of the last two
at least one, the same in all entries.

Shapes: C categories, N detections.
"""

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from common.errors import UserError
from common.files import write_atomically
from data_prep.lvis_entries import checked_rle, four_numbers, member, read_text, whole_number
from data_prep.lvis_format import Annotations, Floats, Ints, Rle
from detection.ap import Detections

_REMEDY: Final = "write the results again"


def write_detections(detections: Detections, category_ids: Ints, path: Path) -> None:
    """Write a result file, all or nothing.

    Args:
        detections: to write.
        category_ids: (C,) id of each category index.
        path: the file.

    Raises:
        UserError: when there is no room or no permission.
    """
    scores = np.asarray(detections.scores, np.float64).tolist()
    columns: dict[str, Sequence[Any]] = {
        "image_id": np.asarray(detections.image_ids, np.int64).tolist(),
        "category_id": category_ids[np.asarray(detections.categories, np.int64)].tolist(),
        "score": scores,
    }
    if detections.xywh is not None:
        columns["bbox"] = np.asarray(detections.xywh, np.float64).reshape(-1, 4).tolist()
    if detections.masks is not None:
        columns["segmentation"] = [_as_text(dict(mask)) for mask in detections.masks]
    rows = zip(*columns.values(), strict=True)
    entries = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    write_atomically(path, ("[" + ",\n".join(entries) + "]\n").encode())


def _as_text(rle: Rle) -> Rle:
    """A code whose counts JSON can hold."""
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def read_detections(path: Path, annotations: Annotations) -> Detections:
    """Read and check a result file.

    Args:
        path: the file.
        annotations: the images and categories that were looked for.

    Raises:
        UserError: naming file and entry, for a file that is missing or no list of detections, an
            unknown image or category, a number that is none, a mask that does not parse, or boxes
            or masks in some entries only.
    """
    entries = _entries(path)
    place = f"{path}: detection number"
    images = set(annotations.image_ids.tolist())
    indices = {number: index for index, number in enumerate(annotations.category_ids.tolist())}
    columns: dict[str, list[Any]] = {"image_id": [], "category_id": []}
    for key, known in (("image_id", images), ("category_id", set(indices))):
        for number, entry in enumerate(entries, 1):
            columns[key].append(_known(entry, key, known, f"{place} {number}"))
    scores = [_score(entry, f"{place} {number}") for number, entry in enumerate(entries, 1)]
    return Detections(
        image_ids=np.array(columns["image_id"], np.int64),
        categories=np.array([indices[number] for number in columns["category_id"]], np.int64),
        scores=np.array(scores, np.float64),
        xywh=_boxes(entries, path),
        masks=_masks(entries, path),
    )


def _entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); {_REMEDY}.") from error
    if not isinstance(entries, list):
        raise UserError(f"{path} is no list of detections; {_REMEDY}.")
    return entries


def _known(entry: Any, key: str, known: set[int], place: str) -> int:
    number = whole_number(member(entry, key, place), key, place)
    if number not in known:
        raise UserError(
            f"{place} has {key} {number}, which the annotation does not have; evaluate with the "
            "annotation that the detections were made for."
        )
    return number


def _score(entry: Any, place: str) -> float:
    score = member(entry, "score", place)
    if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
        raise UserError(f"{place}: score {score!r} is no finite number; {_REMEDY}.")
    return float(score)


def _all_or_none(entries: list[Any], key: str, path: Path) -> list[Any] | None:
    """A member that all entries have; None if none has it."""
    values = [entry[key] for entry in entries if entry.get(key) is not None]
    if values and len(values) != len(entries):
        raise UserError(
            f"{path}: only {len(values)} of {len(entries)} detections have a {key}; {_REMEDY}, "
            "with it or without."
        )
    return values or None


def _boxes(entries: list[Any], path: Path) -> Floats | None:
    values = _all_or_none(entries, "bbox", path)
    if values is None:
        return None if entries else np.zeros((0, 4))
    numbers = array("d")
    for number, bbox in enumerate(values, 1):
        try:
            numbers.extend(four_numbers(bbox))
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path}: detection number {number}: bbox {bbox!r} is not four numbers [x, y, "
                f"width, height]; {_REMEDY}."
            ) from error
    boxes = np.array(numbers).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        wrong = np.flatnonzero(~np.isfinite(boxes).all(1))[0] + 1
        raise UserError(f"{path}: detection number {wrong} has a box without end; {_REMEDY}.")
    return boxes


def _masks(entries: list[Any], path: Path) -> list[Rle] | None:
    values = _all_or_none(entries, "segmentation", path)
    if values is None:
        return None if entries else []
    place = f"{path}: detection number"
    for number, mask in enumerate(values, 1):
        if not isinstance(mask, dict):
            raise UserError(f"{place} {number}: the segmentation is no run-length code; {_REMEDY}.")
    return [checked_rle(mask, f"{place} {number}") for number, mask in enumerate(values, 1)]
