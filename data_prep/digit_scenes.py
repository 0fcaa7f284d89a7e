"""Digit scenes: a rendered long-tailed stand-in for LVIS, to prove detection and masks on.

Handwritten digits (the 4s and 9s of MNIST that the repository carries) in 20 styles
(data_prep/digit_styles.py) lie on textured ground: 40 categories, of which 13 are rare, 14 common
and 13 frequent by LVIS's own thresholds (data_prep/digit_plan.py). The files are in LVIS's layout:

    FOLDER/train.json, difficulty.json, val.json
    FOLDER/train/000001.png ..., difficulty/100001.png ..., val/200001.png ...   160 x 128 pixels

Digits of val are of MNIST's test part, so none of them was seen in training; train and difficulty
have different digits of MNIST's training part. Train without flips: a mirrored 9 is no 9.

As in LVIS, an image says of some categories only that they are absent (``neg_category_ids``), and
of some that not all of their instances are annotated (``not_exhaustive_category_ids``).

    python -m data_prep.digit_scenes render --folder data/digit-scenes
    python -m data_prep.digit_scenes check --folder data/digit-scenes
    python -m data_prep.digit_scenes show --folder data/digit-scenes

Shapes: H x W = 128 x 160 pixels, n digits of an image, C = 40 categories.
"""

import hashlib
import importlib.util
import io
import json
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import tyro
from PIL import Image

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path, write_atomically
from common.training.progress import Count
from data_prep.digit_plan import (
    CATEGORIES,
    PARTS,
    Scene,
    Settings,
    frequency_letter,
    plan_scenes,
    uniform_numbers,
)
from data_prep.digit_styles import NUM_DRAWS, STYLES, Drawing, Floats, Mask, Pixels, draw_digit
from data_prep.mnist import Digits, load_digits
from data_prep.rendered import RenderedSet, make_folders

FOLDER_VARIABLE: Final = "CDB_DIGIT_SCENES"
DEFAULT_FOLDER: Final = Path("data/digit-scenes")
SETTINGS_FILE: Final = "digit_scenes.json"
FILES: Final = {part: f"{part}.json" for part in PARTS}
"""The annotation file of each part."""
_KIND: Final = RenderedSet(
    "digit scenes", "data_prep.digit_scenes", SETTINGS_FILE, 1, (*PARTS, *FILES.values())
)
HEIGHT, WIDTH = 128, 160

GROUND: Final = -1
"""In a map of what is on top: no digit."""
# A place is taken only if it leaves so much of each earlier digit visible.
MIN_VISIBLE: Final = 0.7
_NUM_PLACES: Final = 24
_NUM_OF_DIGIT = NUM_DRAWS + 2 * _NUM_PLACES

# The ground: a colour, two grids of colours and grain, all smoothly enlarged, and a weave of waves.
_GROUND = (75.0, 155.0)
_GRIDS: Final = {(3, 4, 5): 50.0, (3, 16, 20): 26.0, (1, 64, 80): 18.0}
_WEAVE: Final = 14.0
_NUM_OF_GROUND = 3 + sum(map(math.prod, _GRIDS)) + 4

# Of the categories that are absent from an image, the share that it says so of.
_NEGATIVES: Final = 0.4

Array = npt.NDArray[np.int64]
Place = tuple[int, int]
"""Top and left of what is drawn of a digit, pixels."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered scene.

    Attributes:
        pixels: (H, W, 3) uint8.
        top: which of the scene's digits a pixel shows, -1 = ground, (H, W) int64.
    """

    pixels: Pixels
    top: Array


@dataclass(frozen=True)
class DigitScenes:
    """Where a rendered set is.

    Attributes:
        folder: below which the files of images, ``file_name``, lie.
        train: annotations to train on.
        difficulty: annotations to measure the difficulty of categories on.
        val: annotations to evaluate on.
    """

    folder: Path
    train: Path
    difficulty: Path
    val: Path


def default_folder() -> Path:
    """The folder that is read when none is named: $CDB_DIGIT_SCENES, else data/digit-scenes."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


# Rendering.


def render_scene(scene: Scene, seed: int, digits: Digits) -> Picture:
    """One image with what is visible of each of its digits."""
    count = _NUM_OF_GROUND + len(scene.instances) * _NUM_OF_DIGIT
    numbers = uniform_numbers(seed, f"digit scenes, {scene.part} image {scene.number}", count)
    ground = draw_ground(numbers[:_NUM_OF_GROUND])
    of_digits = numbers[_NUM_OF_GROUND:].reshape(-1, _NUM_OF_DIGIT)
    images = digits.test_images if scene.part == "val" else digits.train_images
    drawings = [
        draw_digit(images[instance.digit], STYLES[CATEGORIES[instance.category].style], own)
        for instance, own in zip(scene.instances, of_digits[:, :NUM_DRAWS], strict=True)
    ]
    tries = of_digits[:, NUM_DRAWS:].reshape(-1, _NUM_PLACES, 2)
    return paint(ground, drawings, choose_places([drawing.drawn for drawing in drawings], tries))


def draw_ground(numbers: Floats) -> Pixels:
    """A textured ground, (H, W, 3).

    Args:
        numbers: (_NUM_OF_GROUND,) uniform in [0, 1).
    """
    sizes = [3, *map(math.prod, _GRIDS), 4]
    colour, *grids, wave = np.split(numbers, np.cumsum(sizes)[:-1])
    ground = _GROUND[0] + (_GROUND[1] - _GROUND[0]) * colour[:, None, None]
    for (shape, strength), grid in zip(_GRIDS.items(), grids, strict=True):
        ground = ground + strength * (_enlarged(grid.reshape(shape)) - 0.5)
    y, x = np.indices((HEIGHT, WIDTH))
    angle, length = math.tau * wave[0], 4 + 10 * wave[1]
    phase = (x * math.cos(angle) + y * math.sin(angle)) / length + wave[2]
    ground = ground + _WEAVE * wave[3] * np.sin(math.tau * phase)
    pixels: Pixels = np.clip(ground, 0, 255).round().astype(np.uint8).transpose(1, 2, 0)
    return pixels


def _enlarged(grid: Floats) -> Floats:
    """(k, h, w) -> (k, H, W), smooth."""
    size = (HEIGHT, WIDTH)
    tensor = torch.from_numpy(grid)[None]
    large = F.interpolate(tensor, size, mode="bilinear", align_corners=False)[0]
    return np.asarray(large.numpy())


def choose_places(masks: list[Mask], tries: Floats) -> list[Place | None]:
    """Where to draw each digit: its first place that hides none of the earlier ones too much.

    Args:
        masks: what is drawn of n digits, in the order of drawing, (h, w) each.
        tries: for each digit, uniform in [0, 1): down and right, (n, P, 2).

    Returns:
        Of each digit top and left, or None if none of its P places will do: it is left out.
    """
    top = np.full((HEIGHT, WIDTH), GROUND, np.int64)
    places: list[Place | None] = []
    needed: list[float] = []
    for number, (mask, own) in enumerate(zip(masks, tries, strict=True)):
        place = _free_place(top, mask, np.array(needed), own)
        places.append(place)
        needed.append(0 if place is None else MIN_VISIBLE * int(mask.sum()))
        if place is not None:
            top[_window(place, mask)][mask] = number
    return places


def _free_place(top: Array, mask: Mask, needed: Floats, tries: Floats) -> Place | None:
    """The first place that leaves each earlier digit the pixels it needs, if there is one.

    Args:
        top: the earlier digits, (H, W).
        mask: of the next one, (h, w).
        needed: pixels of each earlier digit that must stay visible.
        tries: (P, 2).
    """
    free = np.array(top.shape) - mask.shape + 1
    seen = np.bincount(top[top != GROUND], minlength=len(needed))
    for y, x in (tries * free).astype(np.int64).tolist():
        under = top[_window((y, x), mask)][mask]
        hidden = np.bincount(under[under != GROUND], minlength=len(needed))
        if np.all(seen - hidden >= needed):
            return y, x
    return None


def _window(place: Place, mask: Mask) -> tuple[slice, slice]:
    return slice(place[0], place[0] + mask.shape[0]), slice(place[1], place[1] + mask.shape[1])


def paint(ground: Pixels, drawings: list[Drawing], places: list[Place | None]) -> Picture:
    """Draw digits over each other; those without a place are left out.

    Args:
        ground: (H, W, 3).
        drawings: of n digits, in the order of drawing.
        places: top and left of each.
    """
    pixels, top = ground.copy(), np.full(ground.shape[:2], GROUND, np.int64)
    for number, (drawing, place) in enumerate(zip(drawings, places, strict=True)):
        if place is not None:
            window = _window(place, drawing.drawn)
            pixels[window][drawing.drawn] = drawing.colours[drawing.drawn]
            top[window][drawing.drawn] = number
    return Picture(pixels, top)


# Annotations.


def annotate(scene: Scene, picture: Picture, seed: int) -> dict[str, Any]:
    """The image's entry of LVIS, and those of its digits under 'annotations' (still without id)."""
    drawn = [n for n in range(len(scene.instances)) if np.any(picture.top == n)]
    instances = [scene.instances[n] for n in drawn]
    present = {instance.category for instance in instances}
    draws = uniform_numbers(
        seed, f"digit scenes, negatives of {scene.part} image {scene.number}", len(CATEGORIES)
    )
    said_absent = set(np.flatnonzero(draws < _NEGATIVES).tolist()) - present
    unannotated = {instance.category for instance in instances if not instance.annotated}
    return {
        "id": scene.id,
        "file_name": scene.file.as_posix(),
        "height": HEIGHT,
        "width": WIDTH,
        "neg_category_ids": [category + 1 for category in sorted(said_absent)],
        "not_exhaustive_category_ids": [category + 1 for category in sorted(unannotated)],
        "annotations": [
            {"image_id": scene.id, "category_id": instance.category + 1, **_shape(picture.top == n)}
            for n, instance in zip(drawn, instances, strict=True)
            if instance.annotated
        ],
    }


def _shape(mask: Mask) -> dict[str, Any]:
    """Box (x, y, width, height), area and run lengths of a mask (H, W) with a pixel in it."""
    import pycocotools.mask

    code = pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (x[0], y[0], x[-1] + 1 - x[0], y[-1] + 1 - y[0])
    return {
        "bbox": [float(value) for value in box],
        "area": float(mask.sum()),
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode()},
    }


def _collected(images: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images without their annotations, and all annotations, with ids from 1 on."""
    entries = [{k: v for k, v in image.items() if k != "annotations"} for image in images]
    of_all = [annotation for image in images for annotation in image["annotations"]]
    return entries, [{"id": number, **entry} for number, entry in enumerate(of_all, start=1)]


def _category_entries(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The categories of LVIS with the counts of the training part."""
    instances = Counter(entry["category_id"] for entry in annotations)
    pairs = {(entry["category_id"], entry["image_id"]) for entry in annotations}
    images = Counter(category for category, _ in pairs)
    return [
        {
            "id": number,
            "name": category.name,
            "synset": f"{category.name}.n.01",
            "synonyms": [category.name],
            "def": f"a handwritten {'four' if category.digit == 0 else 'nine'}, "
            f"{STYLES[category.style].name.replace('_', ' ')}",
            "image_count": images[number],
            "instance_count": instances[number],
            "frequency": frequency_letter(images[number]),
        }
        for number, category in enumerate(CATEGORIES, start=1)
    ]


# The folder.


def load_digit_scenes(folder: Path | None = None) -> DigitScenes:
    """Where the files of a rendered set are.

    Args:
        folder: what ``render`` was given; None: see :func:`default_folder`.

    Raises:
        UserError: there is no set, or its rendering was not finished.
    """
    folder = default_folder() if folder is None else folder
    if not (folder / SETTINGS_FILE).is_file():
        raise UserError(f"{folder} holds no digit scenes; {_remedy(folder)}.")
    if not all((folder / name).is_file() for name in FILES.values()):
        raise UserError(f"{folder} is not rendered to its end; {_remedy(folder)}.")
    return DigitScenes(folder, **{part: folder / name for part, name in FILES.items()})


def _remedy(folder: Path) -> str:
    return _KIND.remedy(folder, asdict(Settings()))


def render_set(folder: Path, settings: Settings, workers: int) -> None:
    """Render the set, write the images that are missing or damaged, then the annotations.

    Raises:
        UserError: ``folder`` holds something else, or cannot be written; pycocotools is missing.
    """
    _check_pycocotools()
    digits = load_digits()
    _KIND.claim(folder, asdict(settings))
    make_folders(folder / part for part in PARTS)
    parts = plan_scenes(settings, digits)
    scenes = [scene for of_part in parts.values() for scene in of_part]
    work = partial(_render_file, folder=folder, seed=settings.seed, digits=digits)
    images: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    pool = ThreadPoolExecutor(workers)
    try:
        with Count("images", len(scenes)) as count:
            for scene, image in zip(scenes, pool.map(work, scenes), strict=True):
                images[scene.part].append(image)
                count.advance()
    finally:
        # Stopped by Ctrl-C or an error: the images begun are finished, no other is begun.
        pool.shutdown(wait=True, cancel_futures=True)
    _write_annotations(folder, images)


def _check_pycocotools() -> None:
    if importlib.util.find_spec("pycocotools") is None:
        raise UserError(
            "Encoding masks needs the package pycocotools; "
            "install this project's extra 'detection'."
        )


def _render_file(scene: Scene, folder: Path, seed: int, digits: Digits) -> dict[str, Any]:
    """Write the image unless an earlier start has; its entry with annotations."""
    picture = render_scene(scene, seed, digits)
    content = encode(picture.pixels)
    if not _holds(folder / scene.file, content):
        write_atomically(folder / scene.file, content)
    return annotate(scene, picture, seed)


def encode(pixels: Pixels) -> bytes:
    """A PNG file with the pixels (H, W, 3)."""
    file = io.BytesIO()
    # A level of more than 3 takes three times as long for a tenth less.
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError as error:
        raise describe_os_error(error, path) from error


def _write_annotations(folder: Path, images: dict[str, list[dict[str, Any]]]) -> None:
    """The three files; each has the counts and letters of the training part."""
    categories = _category_entries(_collected(images["train"])[1])
    for part, name in FILES.items():
        entries, annotations = _collected(images[part])
        content = {
            "info": {"description": f"digit scenes, {part} part", "version": "1"},
            "licenses": [],
            "categories": categories,
            "images": entries,
            "annotations": annotations,
        }
        text = json.dumps(content, separators=(",", ":")) + "\n"
        write_atomically(folder / name, text.encode())


# Command line.


def render(
    folder: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    divisor: float = Settings.divisor,
) -> None:
    """Render the set; stopped and started again, it goes on, and damaged images are made anew.

    Args:
        folder: where to put it; else CDB_DIGIT_SCENES, else data/digit-scenes.
        seed: of everything random, 0 or more.
        workers: images rendered at a time; else as many as there are cores.
        divisor: each category's number of images is divided by this, at least 1, for a smaller set.
    """
    settings = Settings(seed, divisor)
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers} is too few; give at least 1.")
    target = default_folder() if folder is None else folder
    # Each worker renders an image by itself.
    torch.set_num_threads(1)
    render_set(target, settings, workers or os.cpu_count() or 1)
    show(target)


def show(folder: Path | None = None) -> None:
    """Print how many images and digits each category has in each part, and its frequency.

    Args:
        folder: where the set is; else CDB_DIGIT_SCENES, else data/digit-scenes.
    """
    found = load_digit_scenes(folder)
    files = {part: _read_json(found.folder / name) for part, name in FILES.items()}
    print(f"{'':<24}" + "".join(f"{part:>18}" for part in PARTS))
    print(f"{'category':<24}" + f"{'images':>10}{'digits':>8}" * len(PARTS))
    for category in files["train"]["categories"]:
        counts = [_counts(file, category["id"]) for file in files.values()]
        print(f"{category['name']:<22} {category['frequency']}{_row(counts)}")
    sizes = [(len(file["images"]), len(file["annotations"])) for file in files.values()]
    print(f"{'all':<24}{_row(sizes)}")
    letters = Counter(category["frequency"] for category in files["train"]["categories"])
    print(f"rare {letters['r']}, common {letters['c']}, frequent {letters['f']} categories")
    print(f"digest {set_digest(found)}")


def _row(counts: list[tuple[int, int]]) -> str:
    return "".join(f"{images:>10}{digits:>8}" for images, digits in counts)


def _counts(file: dict[str, Any], category: int) -> tuple[int, int]:
    """Images and annotations of a category."""
    images = [e["image_id"] for e in file["annotations"] if e["category_id"] == category]
    return len(set(images)), len(images)


def set_digest(found: DigitScenes) -> str:
    """sha256 (hex) over the three annotation files."""
    digest = hashlib.sha256()
    for name in FILES.values():
        digest.update(_read_bytes(found.folder / name))
    return digest.hexdigest()


def check(folder: Path | None = None) -> None:
    """Check that every image is there and can be read.

    Args:
        folder: where the set is; else CDB_DIGIT_SCENES, else data/digit-scenes.
    """
    found = load_digit_scenes(folder)
    files = [_read_json(found.folder / name) for name in FILES.values()]
    names = [image["file_name"] for file in files for image in file["images"]]
    bad = []
    with Count("images", len(names)) as count:
        for name in names:
            bad += [] if _is_whole(found.folder / name) else [name]
            count.advance()
    for name in bad:
        print(f"missing or damaged: {name}")
    if bad:
        raise UserError(
            f"{found.folder}: {len(bad)} of {len(names)} images are missing or damaged; "
            f"{_remedy(found.folder)}."
        )
    print(f"all {len(names)} images are there")


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
            return image.size == (WIDTH, HEIGHT)
    except (OSError, SyntaxError, ValueError):  # Pillow raises any of them on damaged files.
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_read_bytes(path))
        return found
    except ValueError as error:
        raise UserError(f"{path} is damaged; {_remedy(path.parent)}.") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise describe_os_error(error, path) from error


def main() -> None:
    """Run the ``render``, the ``show`` or the ``check`` command."""
    tyro.extras.subcommand_cli_from_dict(
        {"render": render, "show": show, "check": check}, prog="data_prep.digit_scenes"
    )


if __name__ == "__main__":
    run_main(main)
