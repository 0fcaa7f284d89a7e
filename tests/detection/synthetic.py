"""A tiny detection and segmentation set in LVIS's layout: coloured shapes on noise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.lvis_format import frequency_letters

CATEGORIES = {2: "ball", 3: "box", 7: "kite", 11: "wedge", 12: "absent"}
"""Ids with gaps; the last has no instance."""
HEIGHT, WIDTH = 40, 56
IMAGES = {"train": 14, "val": 6}
Polygon = list[float]
OUTLINES: dict[int, Callable[[float, float, float], Polygon]] = {
    2: lambda x, y, s: [
        round(value, 2)
        for angle in np.arange(0, 2 * np.pi, np.pi / 6).tolist()
        for value in (x + s / 2 + s / 2 * np.cos(angle), y + s / 2 + s / 2 * np.sin(angle))
    ],
    3: lambda x, y, s: [x, y, x + s, y, x + s, y + s, x, y + s],
    7: lambda x, y, s: [x + s / 2, y, x + s, y + s / 2, x + s / 2, y + s, x, y + s / 2],
    11: lambda x, y, s: [x, y + s, x + s, y + s, x + s, y],
}


def area_of(polygon: Polygon) -> float:
    """By the shoelace formula."""
    x, y = np.array(polygon).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def box_of(polygon: Polygon) -> list[float]:
    """[x, y, width, height]."""
    points = np.array(polygon).reshape(-1, 2)
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def instances_of(image: int) -> list[tuple[int, Polygon]]:
    """Category id and outline of each shape; the first image has none, the first category most."""
    draw = np.random.default_rng(image)
    shapes = []
    for category in [2, 3, 7, 11][: (image + 3) % 4 + 1] if image else []:
        size = int(draw.integers(10, 22))
        x, y = int(draw.integers(0, WIDTH - size)), int(draw.integers(0, HEIGHT - size))
        shapes.append((category, OUTLINES[category](x, y, size)))
    return shapes


def picture_of(image: int) -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH, 3); a shape's box has its category's colour."""
    pixels = np.random.default_rng([image, 1]).integers(0, 90, (HEIGHT, WIDTH, 3))
    for category, outline in instances_of(image):
        x, y, width, height = (round(value) for value in box_of(outline))
        pixels[y : y + height, x : x + width] = [200, 20 * category, 255 - 20 * category]
    return pixels.astype(np.uint8)


def entries(part: str = "train") -> dict[str, Any]:
    """The annotation file of a part, as an object that may be spoilt."""
    first = 0 if part == "train" else IMAGES["train"]
    numbers = range(first, first + IMAGES[part])
    annotations = [
        {"image_id": 100 + image, "category_id": category, "segmentation": [outline],
         "bbox": box_of(outline), "area": area_of(outline)}
        for image in numbers for category, outline in instances_of(image)
    ]  # fmt: skip
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    pairs = {(entry["image_id"], entry["category_id"]) for entry in annotations}
    in_image = {image: {c for i, c in pairs if i == 100 + image} for image in numbers}
    counts = [sum(c == category for _, c in pairs) for category in CATEGORIES]
    letters = frequency_letters(np.array(counts))
    return {
        "info": {"description": "shapes"},
        "images": [
            {"id": 100 + image, "file_name": f"{part}/{image:03d}.png", "height": HEIGHT,
             "width": WIDTH, "neg_category_ids": sorted(set(CATEGORIES) - in_image[image]),
             "not_exhaustive_category_ids": []}
            for image in numbers
        ],
        "annotations": annotations,
        "categories": [
            {"id": category, "name": name, "frequency": letter, "image_count": count,
             "instance_count": sum(entry["category_id"] == category for entry in annotations)}
            for (category, name), letter, count in zip(
                CATEGORIES.items(), letters, counts, strict=True)
        ],
    }  # fmt: skip


def write_entries(said: Any, path: Path) -> Path:
    """Write an annotation file."""
    path.write_text(json.dumps(said))
    return path


def write_set(folder: Path) -> Path:
    """Write train.json, val.json and their images in train/ and val/."""
    for part in IMAGES:
        (folder / part).mkdir(parents=True)
        said = entries(part)
        write_entries(said, folder / f"{part}.json")
        for image in said["images"]:
            Image.fromarray(picture_of(image["id"] - 100)).save(folder / image["file_name"])
    return folder
