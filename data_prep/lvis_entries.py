"""The entries of a file in LVIS's layout, one by one: read, checked, put into columns."""

import json
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from common.errors import UserError, describe_os_error
from data_prep.lvis_annotations import Floats, Ints, Rle

_COORDINATES_OF_A_TRIANGLE: Final = 6


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        UserError: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; name an annotation file in LVIS's layout.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason}); replace it.") from error
    except OSError as error:
        raise describe_os_error(error, path) from error


class ObjectReader:
    """Reads an object, handing the entries of some lists to functions one by one.

    LVIS's training file has some 50 million numbers: as Python objects, all at once, they would
    need gigabytes.
    """

    def __init__(self, path: Path, streamed: Mapping[str, Callable[[str, Any], None]]) -> None:
        """``streamed``: each list's function, which takes a place for messages and an entry."""
        self._path, self._streamed = path, streamed
        self._text = read_text(path)
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def members(self) -> dict[str, Any]:
        """The members of the object but for the streamed ones."""
        try:
            found = self._members()
        except (json.JSONDecodeError, IndexError, RecursionError) as error:
            # IndexError: the text ends too soon.
            reason = error if isinstance(error, json.JSONDecodeError) else "it ends too soon"
            raise UserError(f"{self._path} is no JSON object ({reason}); replace it.") from error
        for key in self._streamed:
            if found.pop(key, None) is not _STREAMED:
                raise UserError(
                    f"{self._path} has no list {key!r}; name an annotation file in LVIS's layout."
                )
        return found

    def _members(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._expect("{")
        while self._next() != "}":
            if found:
                self._expect(",")
            key = self._value()
            self._expect(":")
            if key in self._streamed and self._next() == "[":
                self._elements(str(key)[:-1], self._streamed[key])
                found[key] = _STREAMED
            else:
                found[key] = self._value()
        self._expect("}")
        if self._text[self._at :].strip():
            raise json.JSONDecodeError("Extra data", self._text, self._at)
        return found

    def _elements(self, name: str, take: Callable[[str, Any], None]) -> None:
        self._expect("[")
        number = 0
        while self._next() != "]":
            if number:
                self._expect(",")
            take(f"{self._path}: {name} number {number + 1}", self._value())
            number += 1
        self._expect("]")

    def _next(self) -> str:
        """The next sign that is no white space."""
        while self._text[self._at] in " \n\r\t":
            self._at += 1
        return self._text[self._at]

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise json.JSONDecodeError(f"Expecting {sign!r}", self._text, self._at)
        self._at += 1

    def _value(self) -> Any:
        self._next()
        value, self._at = self._decode(self._text, self._at)
        return value


_STREAMED: Final = object()


def member(entry: Any, key: str, place: str) -> Any:
    """A member that must be there."""
    if not isinstance(entry, dict) or key not in entry:
        raise UserError(f"{place} has no {key!r}; mend the file.")
    return entry[key]


def whole_number(value: Any, key: str, place: str) -> int:
    """``value``, the member ``key`` of an entry, if it is a whole number; else a UserError."""
    if type(value) is not int or abs(value) >= _LARGEST:
        raise UserError(f"{place}: {key} {value!r} is not a whole number; mend the file.")
    return value


_LARGEST: Final = 2**62


class ImageColumns:
    """The columns of the images, as they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: dict[str, array[int]] = {key: array("q") for key in ("id", "height", "width")}
        self.file_names: list[str] = []
        self.coco_urls: list[str] = []
        self.listed: dict[str, tuple[array[int], array[int]]] = {
            key: (array("q"), array("q", [0])) for key in CATEGORY_LISTS
        }

    def add(self, place: str, entry: Any) -> None:
        """Take up an entry of ``images``."""
        for key, column in self.numbers.items():
            column.append(whole_number(member(entry, key, place), key, place))
        place = f"{self.path}: image {entry['id']}"
        if entry["height"] < 1 or entry["width"] < 1:
            size = f"{entry['width']} x {entry['height']}"
            raise UserError(f"{place} is {size} pixels; a side has at least 1: mend the file.")
        names = [entry.get(key) or "" for key in ("file_name", "coco_url")]
        if not any(names) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{place} has neither a 'file_name' nor a 'coco_url'; mend the file.")
        self.file_names.append(names[0])
        self.coco_urls.append(names[1])
        for key, (values, first) in self.listed.items():
            values.extend(_category_list(member(entry, key, place), key, place))
            first.append(len(values))


CATEGORY_LISTS: Final = ("neg_category_ids", "not_exhaustive_category_ids")


def _category_list(value: Any, key: str, place: str) -> list[int]:
    if not isinstance(value, list) or any(type(number) is not int for number in value):
        raise UserError(f"{place}: {key!r} is not a list of category ids; mend the file.")
    return value


class InstanceColumns:
    """The columns of the annotations, as they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: dict[str, array[int]] = {
            key: array("q") for key in ("id", "image_id", "category_id")
        }
        self.bboxes, self.areas = array("d"), array("d")
        self.marks: dict[str, array[int]] = {key: array("b") for key in MARKS}
        self.coordinates, self.lengths, self.first = array("d"), array("q"), array("q", [0])
        self.rles: dict[int, Rle] = {}

    def add(self, place: str, entry: Any) -> None:
        """Take up an entry of ``annotations``."""
        for key, column in self.numbers.items():
            column.append(whole_number(member(entry, key, place), key, place))
        place = f"{self.path}: annotation {entry['id']}"
        bbox, area = (member(entry, key, place) for key in ("bbox", "area"))
        try:
            self.bboxes.extend(four_numbers(bbox))
            self.areas.append(area)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{place}: bbox {bbox!r} and area {area!r} are not four numbers [x, y, width, "
                "height] and one; mend the file."
            ) from error
        for key, column in self.marks.items():
            column.append(_mark(entry.get(key, 0), key, place))
        self._add_outline(place, entry.get("segmentation"), len(self.first) - 1)

    def _add_outline(self, place: str, outline: Any, instance: int) -> None:
        if isinstance(outline, dict):
            self.rles[instance] = checked_rle(outline, place)
        elif outline is not None:
            self._add_polygons(place, outline)
        self.first.append(len(self.lengths))

    def _add_polygons(self, place: str, polygons: Any) -> None:
        if not isinstance(polygons, list) or not polygons:
            raise UserError(f"{place}: {NO_MASK}.")
        for polygon in polygons:
            if not isinstance(polygon, list) or not _is_closed_outline(len(polygon)):
                raise UserError(f"{place}: {NO_MASK}.")
            try:
                self.coordinates.extend(array("d", polygon))
            except (TypeError, OverflowError) as error:
                raise UserError(f"{place}: {NO_MASK}.") from error
            self.lengths.append(len(polygon))


MARKS: Final = ("iscrowd", "ignore")
"""Members of an annotation that it may have or not, 1 or 0."""


def _mark(value: Any, key: str, place: str) -> int:
    if not isinstance(value, int) or value not in (0, 1):
        raise UserError(f"{place}: {key} {value!r} is neither 0 nor 1; mend the file.")
    return int(value)


NO_MASK: Final = (
    "the segmentation does not parse; it is a list of polygons [x, y, x, y, ...] of at least three "
    "points, or a run-length code of the image's size: mend it or leave the annotation out"
)


def four_numbers(bbox: Any) -> list[float]:
    """A box [x, y, width, height]; else a TypeError or a ValueError."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError
    return list(array("d", bbox))


def _is_closed_outline(numbers: int) -> bool:
    return numbers >= _COORDINATES_OF_A_TRIANGLE and numbers % 2 == 0


def ints(values: Iterable[int]) -> Ints:
    """Whole numbers as an array; those of an ``array`` are shared."""
    if isinstance(values, array):
        return np.frombuffer(values, np.int64) if len(values) else np.zeros(0, np.int64)
    return np.array(list(values), np.int64)


def floats(values: "array[float]") -> Floats:
    """Numbers as an array, shared."""
    return np.frombuffer(values, np.float64) if len(values) else np.zeros(0, np.float64)


# Run-length codes.


def rle_runs(rle: Rle) -> Ints:
    """The lengths of the runs 0, 1, 0, 1 ... down the columns, of a code in either form.

    COCO's compressed form: each run, from the fourth on as difference to the one two before, in
    groups of five bits, the lowest first, as the signs '0' (48) to 'o' (111); the sixth bit says
    that more follow, the fifth of the last group is the sign.

    Raises:
        ValueError: it is none.
    """
    counts = rle["counts"]
    if isinstance(counts, list):
        runs = np.array(counts if all(type(run) is int for run in counts) else [-1], np.int64)
    else:
        runs = _decompressed(counts.encode("ascii") if isinstance(counts, str) else counts)
    if (runs < 0).any():
        raise ValueError("a run is negative or no number")
    return runs


def _decompressed(text: bytes) -> Ints:
    signs = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (signs & 32) == 0
    if not len(signs) or signs.min() < 0 or signs.max() > 63 or not last[-1]:
        raise ValueError("not in the compressed form")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    groups = ends - starts + 1
    if groups.max() > 8:
        raise ValueError("a run is too long")
    shift = 5 * (np.arange(len(signs)) - np.repeat(starts, groups))
    runs: Ints = np.add.reduceat((signs & 31) << shift, starts)
    runs -= np.where(signs[ends] & 16, np.int64(1) << (5 * groups), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def checked_rle(rle: Rle, place: str) -> Rle:
    """A run-length code that fills its size; else a UserError, with ``place``."""
    try:
        height, width = (int(side) for side in rle["size"])
        if int(rle_runs(rle).sum()) != height * width:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{place}: {NO_MASK}.") from error
    return {"size": [height, width], "counts": rle["counts"]}
