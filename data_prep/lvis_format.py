"""Annotation files in LVIS's layout: read, checked, written.

A file is a JSON object with ``images`` (``id``, ``width``, ``height``, ``file_name`` or
``coco_url``, ``neg_category_ids``, ``not_exhaustive_category_ids``), ``categories`` (``id``,
``name``, ``frequency``) and ``annotations`` (``id``, ``image_id``, ``category_id``, ``bbox``
[x, y, width, height], ``area``, ``segmentation``: polygons or a run-length code; ``iscrowd`` and
``ignore`` if it likes). LVIS v0.5, LVIS v1 and the sets of this project have it.

Shapes: C categories, I images, N instances.
"""

import io
import json
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, describe_os_error
from common.files import write_atomically
from data_prep.lvis_annotations import (
    FREQUENCIES,
    Annotations,
    Bools,
    Floats,
    Ints,
    Lists,
    Rle,
    Segmentations,
    frequency_letters,
    indices_of,
)
from data_prep.lvis_entries import (
    CATEGORY_LISTS,
    MARKS,
    NO_MASK,
    ImageColumns,
    InstanceColumns,
    ObjectReader,
    floats,
    ints,
    member,
    rle_runs,
    whole_number,
)

__all__ = [
    "read_lvis",
    "write_lvis",
    "find_images",
    "Annotations",
    "Lists",
    "Segmentations",
    "FREQUENCIES",
    "frequency_letters",
    "rle_runs",
    "Ints",
    "Floats",
    "Rle",
]

SHOWN: Final = 3
"""Names and numbers in a note."""


# Reading.


def read_lvis(path: Path, *, training: bool = False) -> Annotations:
    """Read and check an annotation file; one pass over its text.

    A box that reaches out of its image is clipped; one without an area, or too thin for numbers of
    32 bits, and a crowd are left out; the notes tell how many, and ``as_given`` has them all.
    Images without annotations and categories without instances are kept.

    Args:
        path: the file.
        training: the whole training set: its counts and letters must agree with its annotations.
            (In an evaluation file the letters are those of the training set, whatever it counts.)

    Raises:
        UserError: naming the file and the entry, for a file that is missing or no JSON, an entry
            that lacks something, an id that is there twice, an annotation of an unknown image or
            category, a box wholly outside its image, a mask that does not parse, and with
            ``training`` a count or a letter that is wrong.
    """
    images, instances = ImageColumns(path), InstanceColumns(path)
    rest = ObjectReader(path, {"images": images.add, "annotations": instances.add}).members()
    raw = _assembled(path, _sorted_categories(rest.get("categories"), path), images, instances)
    if training:
        _check_counts(raw)
    extra: dict[str, Any] = {key: rest[key] for key in ("info", "licenses") if key in rest}
    return _with_notes(_cleaned(replace(raw, extra=extra)))


# Putting the columns together.


def _sorted_categories(entries: Any, path: Path) -> tuple[dict[str, Any], ...]:
    """The entries of ``categories``, by id."""
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} has no list 'categories'; name a file in LVIS's layout.")
    for number, entry in enumerate(entries, start=1):
        place = f"{path}: category number {number}"
        whole_number(member(entry, "id", place), "id", place)
        if not isinstance(member(entry, "name", place), str):
            raise UserError(f"{place}: name {entry['name']!r} is no text; mend the file.")
    _refuse_duplicates(ints([entry["id"] for entry in entries]), f"{path}: category")
    return tuple(sorted(entries, key=lambda entry: int(entry["id"])))


def _refuse_duplicates(ids: Ints, what: str) -> None:
    unique, count = np.unique(ids, return_counts=True)
    if (count > 1).any():
        raise UserError(f"{what} {unique[count > 1][0]} is there twice; ids are unique: mend it.")


def _named_indices(known: Ints, ids: Ints, entry_ids: Ints, place: str, what: str) -> Ints:
    """As :func:`indices_of`; the message names the entry (``entry_ids`` beside ``ids``)."""
    wrong = np.flatnonzero(~np.isin(ids, known))
    if len(wrong):
        raise UserError(
            f"{place} {entry_ids[wrong[0]]} is of {what} {ids[wrong[0]]}, which the file does not "
            "have; mend the file."
        )
    return indices_of(known, ids, place, "")


def _assembled(
    path: Path,
    entries: tuple[dict[str, Any], ...],
    images: ImageColumns,
    instances: InstanceColumns,
) -> Annotations:
    """All that the file says, references resolved, instances in the order of the images."""
    category_ids = ints(entry["id"] for entry in entries)
    image_ids, instance_ids = ints(images.numbers["id"]), ints(instances.numbers["id"])
    _refuse_duplicates(image_ids, f"{path}: image")
    _refuse_duplicates(instance_ids, f"{path}: annotation")
    place, of_image = f"{path}: annotation", ints(instances.numbers["image_id"])
    image = _named_indices(image_ids, of_image, instance_ids, place, "image")
    of_category = ints(instances.numbers["category_id"])
    category = _named_indices(category_ids, of_category, instance_ids, place, "category")
    _refuse_endless(instances, instance_ids, path)
    lists = [_category_lists(images, key, image_ids, category_ids) for key in CATEGORY_LISTS]
    annotations = Annotations(
        source=str(path),
        category_ids=category_ids,
        names=tuple(entry["name"] for entry in entries),
        frequency=(),
        category_entries=entries,
        image_ids=image_ids,
        file_names=tuple(images.file_names),
        coco_urls=tuple(images.coco_urls),
        heights=ints(images.numbers["height"]),
        widths=ints(images.numbers["width"]),
        negative=lists[0],
        not_exhaustive=lists[1],
        instance_ids=instance_ids,
        image=image,
        category=category,
        bboxes=floats(instances.bboxes).reshape(-1, 4),
        areas=floats(instances.areas),
        crowd=_bools(instances.marks["iscrowd"]),
        ignore=_bools(instances.marks["ignore"]),
        segmentations=_segmentations(instances),
    )
    order = np.argsort(image, kind="stable").astype(np.int64)
    annotations = replace(annotations, image=image[order], **annotations._instances(order))
    _refuse_rles_of_another_size(annotations)
    has_letters = any(entry.get("frequency") for entry in entries)
    return replace(annotations, frequency=_letters(annotations), has_letters=has_letters)


def _bools(values: "array[int]") -> Bools:
    return np.array(values, dtype=bool)


def _segmentations(instances: InstanceColumns) -> Segmentations:
    lengths = ints(instances.lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(np.int64)
    first = ints(instances.first)
    return Segmentations(floats(instances.coordinates), starts, lengths, first, instances.rles)


def _category_lists(images: ImageColumns, key: str, image_ids: Ints, category_ids: Ints) -> Lists:
    values, first = (ints(column) for column in images.listed[key])
    owners = np.repeat(image_ids, np.diff(first))
    place = f"{images.path}: {key} of image"
    return Lists(_named_indices(category_ids, values, owners, place, "category"), first)


def _refuse_endless(instances: InstanceColumns, ids: Ints, path: Path) -> None:
    """Python's JSON knows NaN and Infinity."""
    boxes = np.isfinite(floats(instances.bboxes)).reshape(-1, 4).all(1)
    wrong = np.flatnonzero(~(boxes & np.isfinite(floats(instances.areas))))
    if len(wrong):
        raise UserError(
            f"{path}: annotation {ids[wrong[0]]} has a box or an area that is no "
            "finite number; mend the file."
        )
    wrong = np.flatnonzero(~np.isfinite(floats(instances.coordinates)))
    if len(wrong):
        polygon = np.searchsorted(np.cumsum(ints(instances.lengths)), wrong[0], side="right")
        instance = np.searchsorted(ints(instances.first), polygon, side="right") - 1
        raise UserError(f"{path}: annotation {ids[instance]}: {NO_MASK}.")


def _refuse_rles_of_another_size(annotations: Annotations) -> None:
    for instance, rle in annotations.segmentations.rles.items():
        image = annotations.image[instance]
        if rle["size"] != [annotations.heights[image], annotations.widths[image]]:
            number = annotations.instance_ids[instance]
            raise UserError(f"{annotations.source}: annotation {number}: {NO_MASK}.")


def _letters(annotations: Annotations) -> tuple[str, ...]:
    """The letters of the file; if it has none at all, those of its own images."""
    letters: list[Any] = [entry.get("frequency") for entry in annotations.category_entries]
    if not any(letters):
        return frequency_letters(annotations.image_count)
    for entry, letter in zip(annotations.category_entries, letters, strict=True):
        if letter not in FREQUENCIES:
            raise UserError(
                f"{annotations.source}: category {entry['id']} ({entry['name']}) has the frequency "
                f"{letter!r} where r, c or f belongs; mend the file."
            )
    return tuple(letters)


def _check_counts(annotations: Annotations) -> None:
    """Refuse counts and letters that are not those of the annotations."""
    expected = {
        "image_count": annotations.image_count.tolist(),
        "instance_count": annotations.instance_count.tolist(),
        "frequency": list(frequency_letters(annotations.image_count)),
    }
    for index, entry in enumerate(annotations.category_entries):
        for key, values in expected.items():
            if key in entry and entry[key] != values[index]:
                raise UserError(
                    f"{annotations.source}: category {entry['id']} ({entry['name']}) has {key} "
                    f"{entry[key]!r}, but by its annotations it is {values[index]!r}; "
                    "get the whole file again."
                )


# Mending boxes.


def _cleaned(annotations: Annotations) -> Annotations:
    """Boxes clipped to their images; those without an area, too thin ones and crowds left out."""
    x1, y1, width, height = annotations.bboxes.T
    _refuse_negative(annotations, (width < 0) | (height < 0))
    flat = (width == 0) | (height == 0)
    x2, y2 = x1 + width, y1 + height
    right, bottom = annotations.widths[annotations.image], annotations.heights[annotations.image]
    outside = ~flat & ((x2 <= 0) | (y2 <= 0) | (x1 >= right) | (y1 >= bottom))
    _refuse_outside(annotations, outside)
    beyond = np.max([-x1, -y1, x2 - right, y2 - bottom], axis=0) if len(x1) else x1
    clipped = ~flat & (beyond > 0)
    bboxes = annotations.bboxes.copy()
    left, top = np.maximum(x1, 0), np.maximum(y1, 0)
    corners = [left, top, np.minimum(x2, right) - left, np.minimum(y2, bottom) - top]
    bboxes[clipped] = np.stack(corners, 1)[clipped]
    # Corners of 32 bits, scaled and mirrored, would be the same.
    thin = ~flat & (bboxes[:, 2:].min(1, initial=np.inf) < _LEAST_SHARE * np.maximum(right, bottom))
    crowd = annotations.crowd & ~flat & ~thin
    dropped = flat | thin | crowd
    if not (clipped | dropped).any():
        return annotations
    notes = _box_notes(annotations, beyond * (clipped & ~dropped), (flat, thin, crowd))
    whole = replace(annotations, bboxes=bboxes, notes=notes, given=annotations)
    kept = np.flatnonzero(~dropped)
    return replace(whole, image=whole.image[kept], **whole._instances(kept))


_LEAST_SHARE: Final = 1e-6
"""The least side of a box, in parts of the longer side of its image."""


def _refuse_negative(annotations: Annotations, negative: NDArray[np.bool_]) -> None:
    if negative.any():
        number = np.flatnonzero(negative)[0]
        raise UserError(
            f"{annotations.source}: annotation {annotations.instance_ids[number]} has a box of "
            f"negative size, {annotations.bboxes[number].tolist()} (x, y, width, height); mend it "
            "or leave the annotation out."
        )


def _refuse_outside(annotations: Annotations, outside: NDArray[np.bool_]) -> None:
    if outside.any():
        number = np.flatnonzero(outside)[0]
        image = annotations.image[number]
        raise UserError(
            f"{annotations.source}: annotation {annotations.instance_ids[number]} has the box "
            f"{annotations.bboxes[number].tolist()} (x, y, width, height) wholly outside its image "
            f"of {annotations.widths[image]} x {annotations.heights[image]} pixels; mend it or "
            "leave the annotation out."
        )


def _box_notes(
    annotations: Annotations, beyond: Floats, left_out: tuple[Bools, Bools, Bools]
) -> tuple[str, ...]:
    notes = []
    if (beyond > 0).any():
        worst = int(np.argmax(beyond))
        notes.append(
            f"{annotations.source}: {int((beyond > 0).sum())} boxes reach out of their images and "
            f"were clipped; the farthest, annotation {annotations.instance_ids[worst]}, by "
            f"{beyond[worst]:.4g} pixels."
        )
    words = (
        "boxes have no area and were left out",
        "boxes are thinner than a millionth of their image's longer side and were left out",
        "annotations are crowds (iscrowd) and were left out of training; an evaluation takes each "
        "for an instance, as the official package does",
    )
    for what, instances in zip(words, left_out, strict=True):
        if instances.any():
            shown = ", ".join(map(str, annotations.instance_ids[instances][:SHOWN]))
            more = ", ..." if instances.sum() > SHOWN else ""
            notes.append(
                f"{annotations.source}: {int(instances.sum())} {what} (annotation {shown}{more})."
            )
    return tuple(notes)


def _with_notes(annotations: Annotations) -> Annotations:
    """Say also which images and categories have no instance."""
    notes = list(annotations.notes)
    absent = np.flatnonzero(annotations.image_count == 0)
    if len(absent):
        shown = ", ".join(annotations.names[index] for index in absent[:SHOWN])
        more = ", ..." if len(absent) > SHOWN else ""
        notes.append(
            f"{annotations.source}: {len(absent)} of {annotations.num_categories} categories have "
            f"no instance ({shown}{more})."
        )
    empty = annotations.num_images - len(np.unique(annotations.image))
    if empty:
        notes.append(f"{annotations.source}: {empty} images have no annotation and are kept.")
    return replace(annotations, notes=tuple(notes))


# Writing.


def write_lvis(annotations: Annotations, path: Path) -> None:
    """Write a file that :func:`read_lvis` reads back, whole or not at all.

    Instances are written as they were given; ``image_count`` and ``instance_count`` are theirs, the
    letters those of the whole training set.

    Raises:
        UserError: when there is no room or no permission.
    """
    annotations = replace(annotations.as_given, extra=annotations.extra)
    file = io.BytesIO()
    head = {**annotations.extra, "categories": _category_entries(annotations)}
    file.write(json.dumps(head)[:-1].encode())
    lists = {"images": _image_entries, "annotations": _instance_entries}
    for key, entries in lists.items():
        file.write(f', "{key}": ['.encode())
        for number, entry in enumerate(entries(annotations)):
            file.write((",\n" if number else "\n").encode() + json.dumps(entry).encode())
        file.write(b"]")
    file.write(b"}\n")
    write_atomically(path, file.getvalue())


def _category_entries(annotations: Annotations) -> list[dict[str, Any]]:
    columns = zip(
        annotations.category_entries,
        annotations.frequency,
        annotations.image_count.tolist(),
        annotations.instance_count.tolist(),
        strict=True,
    )
    return [
        {**entry, "frequency": letter, "image_count": images, "instance_count": instances}
        for entry, letter, images, instances in columns
    ]


def _image_entries(annotations: Annotations) -> Iterable[dict[str, Any]]:
    for image, number in enumerate(annotations.image_ids.tolist()):
        names = {
            "file_name": annotations.file_names[image],
            "coco_url": annotations.coco_urls[image],
        }
        lists = (annotations.negative, annotations.not_exhaustive)
        yield {
            "id": number,
            "width": int(annotations.widths[image]),
            "height": int(annotations.heights[image]),
            **{key: name for key, name in names.items() if name},
            **{
                key: annotations.category_ids[values.of(image)].tolist()
                for key, values in zip(CATEGORY_LISTS, lists, strict=True)
            },
        }


def _instance_entries(annotations: Annotations) -> Iterable[dict[str, Any]]:
    columns = zip(
        annotations.instance_ids.tolist(),
        annotations.image_ids[annotations.image].tolist(),
        annotations.category_ids[annotations.category].tolist(),
        annotations.bboxes.tolist(),
        annotations.areas.tolist(),
        strict=True,
    )
    marks = dict(zip(MARKS, (annotations.crowd, annotations.ignore), strict=True))
    for instance, (number, image, category, bbox, area) in enumerate(columns):
        entry = {"id": number, "image_id": image, "category_id": category}
        entry |= {key: 1 for key, marked in marks.items() if marked[instance]}
        outline = annotations.segmentations.of(instance)
        if isinstance(outline, list):
            outline = [polygon.tolist() for polygon in outline]
        mask = {} if outline is None else {"segmentation": outline}
        yield {**entry, "bbox": bbox, "area": area, **mask}


# Images on disk.


def find_images(annotations: Annotations, folder: Path) -> tuple[Path | None, ...]:
    """The file of each image, (I,); None for one that is not there. None is opened.

    A file may lie under its ``file_name``; where its ``coco_url`` says (``val2017/X.jpg``); and
    under the last part of either in ``folder`` itself, in ``train2017`` or in ``val2017``. Of names
    such as ``COCO_val2014_000000000139.jpg``, as LVIS v0.5 has them, the number is enough: COCO
    2017's files are ``000000000139.jpg``.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is missing"
        raise UserError(f"{folder} {what}; name the folder of the images with --images.")
    seen: dict[str, set[str]] = {}
    pairs = zip(annotations.file_names, annotations.coco_urls, strict=True)
    return tuple(_found(folder, _candidates(*pair), seen) for pair in pairs)


def _candidates(file_name: str, coco_url: str) -> list[str]:
    """Where an image may lie in the folder, the likeliest first."""
    of_url = coco_url.split("/")[-2:]
    names = [name.rsplit("/", 1)[-1] for name in (file_name, coco_url) if name]
    names += [name.rsplit("_", 1)[1] for name in names if name.startswith("COCO_")]
    places = [file_name, "/".join(of_url), *names]
    places += [f"{part}/{name}" for part in IMAGE_FOLDERS for name in names]
    return [place for place in dict.fromkeys(places) if place]


IMAGE_FOLDERS: Final = ("train2017", "val2017")


def _found(folder: Path, places: Sequence[str], seen: dict[str, set[str]]) -> Path | None:
    """The first place that has a file; ``seen`` keeps what each folder holds."""
    for place in places:
        below, _, name = place.rpartition("/")
        if below not in seen:
            seen[below] = _listed(folder / below)
        if name in seen[below]:
            return folder / place
    return None


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise describe_os_error(error, folder) from error
