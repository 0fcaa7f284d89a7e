"""What an evaluation reads: ground truth and detections as plain arrays, checked.

Shapes: C categories, I images, M ground-truth instances, N detections. Boxes are float64
``(x, y, width, height)`` in pixels, the files' own form and what the IoU is computed from: turned
into corners and back, a box could differ in its last bit and a match at a threshold with it.
"""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import UserError
from data_prep.lvis_annotations import FREQUENCIES
from data_prep.lvis_entries import member

IouType = Literal["bbox", "segm"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rle = Mapping[str, Any]
"""A run-length encoded mask of pycocotools: ``size`` [height, width] and ``counts``."""
Placed = tuple[Mapping[str, Any], str]
"""An entry of an annotation, and its name in a message."""


@dataclass(frozen=True)
class GroundTruth:
    """The annotated instances of the evaluated images; instances in the order of the file.

    Raises:
        ValueError: arrays that do not fit together.
    """

    image_ids: Ints
    """(I,), ascending."""
    frequency: NDArray[np.str_]
    """(C,): 'r', 'c' or 'f', '' if it is not known; category index = position among the category
    ids, sorted."""
    image: Ints
    """(M,), index into ``image_ids`` of each instance."""
    category: Ints
    """(M,), 0..C-1."""
    xywh: Floats
    """(M, 4)."""
    area: Floats
    """(M,), pixels of the mask; it decides the area range, for boxes too."""
    ignore: Bools
    """(M,): neither missed nor found. LVIS has none, the evaluation knows them."""
    negative: Ints
    """(., 2): image index and category that was looked for in the image and is not there."""
    not_exhaustive: Ints
    """(., 2): image index and category of which not all instances are annotated."""
    masks: Sequence[Rle] | None = None
    """M masks; needed for IoU type 'segm'."""
    image_sizes: Ints | None = None
    """(I, 2), height and width; needed with masks."""

    def __post_init__(self) -> None:
        if (np.diff(self.image_ids) <= 0).any():
            raise ValueError("image_ids must ascend")
        per_instance = [self.image, self.category, self.xywh, self.area, self.ignore]
        lengths = {len(a) for a in per_instance} | (
            set() if self.masks is None else {len(self.masks)}
        )
        if len(lengths) > 1:
            raise ValueError(f"instances of different number: {sorted(lengths)}")
        for pairs in (np.stack([self.image, self.category], 1), self.negative, self.not_exhaustive):
            if ((pairs < 0) | (pairs >= [self.num_images, self.num_categories])).any():
                raise ValueError("an image index or category lies outside the ground truth")

    @property
    def num_categories(self) -> int:
        """C."""
        return len(self.frequency)

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.image_ids)

    @classmethod
    def from_lvis(cls, annotation: Mapping[str, Any], with_masks: bool = False) -> "GroundTruth":
        """From the content of an LVIS annotation file.

        Args:
            annotation: with ``images``, ``categories`` and ``annotations``.
            with_masks: also encode the segmentations, which IoU type 'segm' needs.

        Raises:
            UserError: a field that is missing or has a wrong kind of value, an id that is there
                twice, an image or category that is not in the file, or a segmentation that does
                not parse.
        """
        records = {kind: _records(annotation, kind) for kind in _RECORDS}
        images = _by_id(records["images"], "image")
        categories = _by_id(records["categories"], "category")
        instances = records["annotations"]
        image_ids, category_ids = (_whole_numbers(of, "id") for of in (images, categories))
        for instance, place in instances:
            _check_instance(instance, place)
        numbered = [number for one, _ in instances if (number := one.get("id")) is not None]
        _refuse_twice(numbered, "annotation")

        def pairs(name: str) -> Ints:
            lists = [_category_list(*image, key=name) for image in images]
            owner = np.repeat(np.arange(len(lists)), _ids([len(one) for one in lists]))
            flat = _ids([category for one in lists for category in one])
            return np.stack([owner, find(flat, category_ids, f"category in {name}")], axis=1)

        image = find(_whole_numbers(instances, "image_id"), image_ids, "image_id")
        of_category = _whole_numbers(instances, "category_id")
        sizes = _sizes(images) if with_masks else None
        boxes = np.array([one["bbox"] for one, _ in instances], dtype=np.float64)
        return cls(
            image_ids=image_ids,
            frequency=np.array([_letter(*category) for category in categories], dtype=np.str_),
            image=image,
            category=find(of_category, category_ids, "category_id"),
            xywh=boxes.reshape(-1, 4),
            area=np.array([one["area"] for one, _ in instances], dtype=np.float64),
            ignore=np.array([bool(one.get("ignore", 0)) for one, _ in instances], dtype=bool),
            negative=pairs("neg_category_ids"),
            not_exhaustive=pairs("not_exhaustive_category_ids"),
            masks=None if sizes is None else _encode_all(instances, sizes[image]),
            image_sizes=sizes,
        )


@dataclass(frozen=True)
class Detections:
    """What a detector found, in any order; among equal scores the earlier stands first.

    At least one of ``xywh`` and ``masks``. Tensors are taken as well, wherever they are and whether
    or not they want a gradient.
    """

    image_ids: ArrayLike
    """(N,), as in the annotation file."""
    categories: ArrayLike
    """(N,), category index 0..C-1."""
    scores: ArrayLike
    """(N,)."""
    xywh: ArrayLike | None = None
    """(N, 4); needed for IoU type 'bbox'."""
    masks: Sequence[Rle] | None = None
    """N masks; needed for IoU type 'segm', whose areas are then those of the masks."""

    def __post_init__(self) -> None:
        """Take the numbers out of tensors."""
        for name in ("image_ids", "categories", "scores", "xywh"):
            object.__setattr__(self, name, _out_of_tensors(getattr(self, name)))

    @classmethod
    def from_corners(
        cls,
        image_ids: ArrayLike,
        categories: ArrayLike,
        scores: ArrayLike,
        boxes: ArrayLike,
        masks: Sequence[Rle] | None = None,
    ) -> "Detections":
        """From boxes (N, 4) as a detector gives them: ``(x1, y1, x2, y2)``.

        Raises:
            UserError: for boxes of another shape.
        """
        corners = _boxes(_out_of_tensors(boxes))
        sides = corners[:, 2:] - corners[:, :2]
        return cls(image_ids, categories, scores, np.concatenate([corners[:, :2], sides], 1), masks)

    def to_results(self, category_ids: Sequence[int], iou_type: IouType) -> list[dict[str, Any]]:
        """As a list of LVIS results, what the official package and the challenge server read.

        Args:
            category_ids: the id of each category index, length C.
            iou_type: 'bbox' writes boxes, 'segm' masks only: with both, the official package would
                take the area range from the box.
        """
        images = np.asarray(self.image_ids).tolist()
        categories = [category_ids[c] for c in np.asarray(self.categories).tolist()]
        scores = np.asarray(self.scores, dtype=np.float64).tolist()
        key = "bbox" if iou_type == "bbox" else "segmentation"
        regions: Sequence[Any]
        if iou_type == "bbox":
            regions = np.asarray(self.xywh, dtype=np.float64).tolist()
        else:
            regions = self.masks or []
        rows = zip(images, categories, scores, regions, strict=True)
        return [
            {"image_id": image, "category_id": category, "score": score, key: region}
            for image, category, score, region in rows
        ]


@dataclass(frozen=True)
class CheckedDetections:
    """Detections that fit the ground truth; arrays (N,), boxes (N, 4)."""

    image: Ints
    category: Ints
    scores: Floats
    area: Floats
    xywh: Floats | None
    masks: Sequence[Rle] | None


def check_detections(
    truth: GroundTruth, detections: Detections, iou_type: IouType
) -> CheckedDetections:
    """Turn detections into arrays and refuse what cannot be evaluated.

    Raises:
        UserError: unknown IoU type, image or category; arrays of different length; a score or box
            that is not finite; a negative side; boxes or masks that are missing or misshapen.
    """
    if iou_type not in ("bbox", "segm"):
        raise UserError(f"IoU type {iou_type!r} is not known; choose bbox or segm.")
    scores = _numbers(detections.scores, "scores").reshape(-1)
    number = len(scores)
    image_ids, category = (
        _whole(values, number, name)
        for values, name in (
            (detections.image_ids, "image ids"),
            (detections.categories, "categories"),
        )
    )
    image = find(image_ids, truth.image_ids, "detection's image")
    _refuse(~np.isfinite(scores), lambda i: f"score {scores[i]}, not a finite number", image_ids)
    num = truth.num_categories
    _refuse(
        (category < 0) | (category >= num),
        lambda i: f"category {category[i]}, outside 0..{num - 1}",
        image_ids,
    )
    if iou_type == "bbox":
        xywh = _check_boxes(detections.xywh, image_ids)
        return CheckedDetections(image, category, scores, xywh[:, 2] * xywh[:, 3], xywh, None)
    masks = _check_masks(detections.masks, truth, image, image_ids)
    return CheckedDetections(image, category, scores, mask_areas(masks), None, masks)


def mask_areas(masks: Sequence[Rle]) -> Floats:
    """Pixels of each mask, shape (N,)."""
    from pycocotools import mask as coco_mask

    # pycocotools 2.0.11 with numpy 2 raises OverflowError for more than 255 masks at once.
    parts = [list(masks[start : start + 255]) for start in range(0, len(masks), 255)]
    return np.concatenate([np.zeros(0)] + [coco_mask.area(part) for part in parts])


def find(ids: Ints, known: Ints, name: str) -> Ints:
    """Position of each of ``ids`` in ``known``, which ascends.

    Raises:
        UserError: one that is not there.
    """
    if len(ids) == 0:
        return np.zeros(0, dtype=np.int64)
    position = np.searchsorted(known, ids)
    inside = np.minimum(position, max(len(known) - 1, 0))
    missing = known[inside] != ids if len(known) else np.ones(len(ids), dtype=bool)
    if missing.any():
        raise UserError(
            f"The {name} {ids[missing.argmax()]} is not in the ground truth; "
            "evaluate with the annotation that the detections were made for."
        )
    return position.astype(np.int64)


def lvis_category_ids(annotation: Mapping[str, Any]) -> Ints:
    """Id of each category index, shape (C,): ascending."""
    categories = _by_id(_records(annotation, "categories"), "category")
    return _whole_numbers(categories, "id")


def encode_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """An annotation's segmentation as a run-length encoded mask.

    Args:
        segmentation: polygons, run lengths or a mask that is encoded already.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    from pycocotools import mask as coco_mask

    rle: Rle
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return rle


def _encode_all(instances: Sequence[Placed], sizes: Ints) -> list[Rle]:
    masks = []
    for (instance, _), (height, width) in zip(instances, sizes.tolist(), strict=True):
        try:
            masks.append(encode_segmentation(instance["segmentation"], height, width))
        except Exception as error:  # pycocotools raises bare Exceptions among others
            raise UserError(
                f"The segmentation of annotation {instance.get('id')} does not parse ({error}); "
                "mend it in the annotation file or take the annotation out."
            ) from error
    return masks


# The entries of an annotation.


def _records(annotation: Mapping[str, Any], key: str) -> list[Placed]:
    """The entries of a list, each with its name in a message."""
    entries = annotation.get(key)
    if not isinstance(entries, list | tuple):
        raise UserError(
            f"The annotation has no list {key!r}; is this the content of an LVIS annotation file?"
        )
    placed = []
    for number, entry in enumerate(entries, start=1):
        known = isinstance(entry, Mapping) and "id" in entry
        name = entry["id"] if known else f"number {number}"
        placed.append((entry, f"The {_RECORDS[key]} {name} of the annotation"))
    return placed


_RECORDS: Final = {"images": "image", "categories": "category", "annotations": "annotation"}


def _whole_numbers(records: Sequence[Placed], key: str) -> Ints:
    return _ids([_whole_number(member(one, key, place), key, place) for one, place in records])


def _whole_number(value: Any, key: str, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or abs(int(value)) >= 2**62:
        raise UserError(f"{place}: {key} {value!r} is not a whole number; mend the file.")
    return int(value)


def _by_id(records: Sequence[Placed], kind: str) -> list[Placed]:
    """By ascending id.

    Raises:
        UserError: for an id that is there twice.
    """
    ids = _whole_numbers(records, "id")
    _refuse_twice(ids.tolist(), kind)
    return [records[number] for number in np.argsort(ids)]


def _refuse_twice(ids: Sequence[Any], kind: str) -> None:
    twice = [number for number, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(
            f"The {kind} {twice[0]} of the annotation is there twice; ids are unique: mend the "
            "file."
        )


def _check_instance(instance: Mapping[str, Any], place: str) -> None:
    """Refuse a box that is not four numbers, or a box or an area that is not finite."""
    bbox, area = (member(instance, key, place) for key in ("bbox", "area"))
    try:
        numbers = array("d", [*bbox, area])
    except TypeError:
        numbers = array("d")
    if len(numbers) != 5 or not all(map(math.isfinite, numbers)) or min(numbers[2:4]) < 0:
        raise UserError(
            f"{place}: bbox {bbox!r} and area {area!r} are not four finite numbers [x, y, width, "
            "height] and one, without a negative side; mend the file."
        )


def _category_list(image: Mapping[str, Any], place: str, key: str) -> list[int]:
    listed = member(image, key, place)
    if not isinstance(listed, list | tuple):
        raise UserError(f"{place}: {key!r} is not a list of category ids; mend the file.")
    return [_whole_number(number, key, place) for number in listed]


def _letter(category: Mapping[str, Any], place: str) -> str:
    letter = member(category, "frequency", place)
    if letter not in FREQUENCIES:
        raise UserError(
            f"{place} has the frequency {letter!r} where r, c or f belongs; mend the file."
        )
    return str(letter)


def _sizes(images: Sequence[Placed]) -> Ints:
    """Height and width of each image, (I, 2)."""
    sides = [_whole_numbers(images, key) for key in ("height", "width")]
    return np.stack(sides, axis=1)


# Numbers.


def _out_of_tensors(values: Any) -> Any:
    """``values``; of a tensor, or a list of tensors, the numbers, as float64 where not whole."""
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(values, list | tuple) and any(hasattr(value, "detach") for value in values):
        return [_out_of_tensors(value) for value in values]
    return values


def _array(values: ArrayLike, name: str) -> NDArray[Any]:
    """As an array of numbers."""
    try:
        found = np.asarray(values)
    except ValueError:  # Rows of different lengths.
        found = np.array(None)
    if found.dtype.kind not in "iufb":
        raise UserError(f"The detections' {name} are not an array of numbers; mend what gave them.")
    return found


def _numbers(values: ArrayLike, name: str) -> Floats:
    return _array(values, name).astype(np.float64)


def _boxes(values: ArrayLike) -> Floats:
    """(N, 4)."""
    boxes = _numbers(values, "boxes")
    if boxes.size % 4 or (boxes.ndim > 1 and boxes.size and boxes.shape[-1] != 4):
        raise UserError(
            f"The detections' boxes have the shape {boxes.shape}; give four numbers for each."
        )
    return boxes.reshape(-1, 4)


def _ids(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _whole(values: ArrayLike, number: int, name: str) -> Ints:
    found = _array(values, name).reshape(-1)
    if len(found) != number:
        raise UserError(f"There are {number} scores but {len(found)} {name}; give one for each.")
    if len(found) and found.dtype.kind not in "iu":
        raise UserError(f"The detections' {name} are {found.dtype}; give whole numbers.")
    return found.astype(np.int64)


def _check_boxes(boxes: ArrayLike | None, image_ids: Ints) -> Floats:
    if boxes is None:
        raise UserError("The detections have no boxes; give them, or evaluate masks (segm).")
    xywh = _boxes(boxes)
    if len(xywh) != len(image_ids):
        raise UserError(f"There are {len(image_ids)} scores but {len(xywh)} boxes.")
    bad = ~np.isfinite(xywh).all(axis=1) | (xywh[:, 2:] < 0).any(axis=1)
    _refuse(bad, lambda i: f"box {xywh[i].tolist()} (x, y, width, height)", image_ids)
    return xywh


def _check_masks(
    masks: Sequence[Rle] | None, truth: GroundTruth, image: Ints, image_ids: Ints
) -> Sequence[Rle]:
    if masks is None:
        raise UserError("The detections have no masks; give them, or evaluate boxes (bbox).")
    if truth.masks is None or truth.image_sizes is None:
        raise UserError("The ground truth was read without masks; read it with them for segm.")
    if len(masks) != len(image_ids):
        raise UserError(f"There are {len(image_ids)} scores but {len(masks)} masks.")
    sizes = np.array([mask["size"] for mask in masks], dtype=np.int64).reshape(-1, 2)
    expected = truth.image_sizes[image]
    _refuse(
        (sizes != expected).any(axis=1),
        lambda i: f"mask of {sizes[i].tolist()} pixels in an image of {expected[i].tolist()}",
        image_ids,
    )
    return masks


def _refuse(bad: Any, describe: Callable[[int], str], image_ids: Ints) -> None:
    """Raise a ``UserError`` about the first bad detection; ``bad`` is bool, (N,)."""
    if bad.any():
        i = int(bad.argmax())
        raise UserError(
            f"Detection {i} (image {image_ids[i]}) has a {describe(i)}; "
            "mend what wrote the detections."
        )
