"""A small long-tailed folder of images to try things on: digits in 10 looks, a folder for each.

Each image is cut out of a digit scene with a single digit (data_prep/digit_scenes.py), so sizes and
proportions vary; every second one is a JPEG file, the others are PNG files. No two images show the
same handwriting, so however the folder is split, no digit of the test part was seen in training.

The classes come in pairs that are easily confused, a frequent one and a rarer one; which is how
frequent was chosen by hand. Train without flips: a mirrored 9 is no 9.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from common.errors import UserError, describe_os_error
from common.files import write_atomically
from common.training.progress import Count
from data_prep.digit_plan import CATEGORIES, Instance, Scene, digit_orders, uniform_numbers
from data_prep.digit_scenes import encode, render_scene
from data_prep.digit_styles import Pixels
from data_prep.mnist import Digits, load_digits
from data_prep.rendered import RenderedSet, make_folders

EXTRA: Final = 40
"""Images of each class beside those of the profile: what ``split`` holds out by default."""
PROFILE: Final = {
    "red_four": 160,
    "fine_blue_four": 98,
    "outlined_nine": 60,
    "checked_four": 37,
    "shadow_below_nine": 23,
    "orange_four": 14,
    "bold_blue_four": 9,
    "outlined_four": 5,
    "dotted_four": 3,
    "shadow_above_nine": 2,
}
"""Training images that each class has after the default split: imbalance 80."""
EXAMPLE_WORDS: Final = (
    f"{len(PROFILE)} classes, {max(PROFILE.values()) + EXTRA} to {min(PROFILE.values()) + EXTRA} "
    "images a class"
)

_SEED: Final = 0
_MARGINS: Final = (2, 20)
"""Fewest and most pixels of ground on each side of the digit."""
_JPEG_QUALITY: Final = 90
_SETTINGS: Final = {"seed": _SEED}
_KIND: Final = RenderedSet(
    "an example", "data_prep.image_folder", "image_folder_example.json", 1, tuple(PROFILE)
)


@dataclass(frozen=True)
class ExampleImage:
    """An image to render.

    Attributes:
        file: where it lies below the folder.
        scene: what is rendered: a single digit.
    """

    file: Path
    scene: Scene


def make_example(folder: Path) -> int:
    """Write the example; what is missing or damaged is made anew, the rest stays as it is.

    Returns:
        The number of images.

    Raises:
        UserError: ``folder`` holds something else, or cannot be written.
    """
    _check_ours(folder)
    _KIND.claim(folder, _SETTINGS)
    make_folders(folder / name for name in PROFILE)
    digits = load_digits()
    images = plan_example(digits)
    with Count("images", len(images)) as count:
        for image in images:
            _write(folder / image.file, _content(image, digits))
            count.advance()
    return len(images)


def _check_ours(folder: Path) -> None:
    """Refuse a folder that holds files of another origin."""
    try:
        taken = folder.exists() and next(folder.iterdir(), None) is not None
    except OSError as error:
        raise describe_os_error(error, folder) from error
    if taken and not (folder / _KIND.settings_file).is_file():
        raise UserError(
            f"{folder} is not empty and was not made by this command; "
            "name a new or an empty folder."
        )


def plan_example(digits: Digits) -> list[ExampleImage]:
    """All images, class after class; the digits are those of MNIST's training part, each once."""
    numbers = {category.name: number for number, category in enumerate(CATEGORIES)}
    unused = [iter(order.tolist()) for order in digit_orders(_SEED, digits, "train")]
    images: list[ExampleImage] = []
    for name, size in PROFILE.items():
        category = numbers[name]
        for number in range(size + EXTRA):
            digit = next(unused[CATEGORIES[category].digit])
            suffix = "jpg" if number % 2 else "png"
            scene = Scene("train", len(images), (Instance(category, digit, annotated=True),))
            images.append(ExampleImage(Path(name, f"{number:03d}.{suffix}"), scene))
    return images


def render_example(image: ExampleImage, digits: Digits) -> Pixels:
    """The digit with some ground around it, (h, w, 3) uint8."""
    picture = render_scene(image.scene, _SEED, digits)
    draws = uniform_numbers(_SEED, f"image example, margins of {image.file.as_posix()}", 4)
    least, most = _MARGINS
    margins = (least + np.floor(draws * (most - least + 1))).astype(np.int64).tolist()
    shown = picture.top == 0
    y, x = np.flatnonzero(shown.any(1)).tolist(), np.flatnonzero(shown.any(0)).tolist()
    top, left = max(y[0] - margins[0], 0), max(x[0] - margins[1], 0)
    return picture.pixels[top : y[-1] + 1 + margins[2], left : x[-1] + 1 + margins[3]]


def _content(image: ExampleImage, digits: Digits) -> bytes:
    pixels = render_example(image, digits)
    if image.file.suffix == ".png":
        return encode(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file unless it is there with that content."""
    try:
        same = path.is_file() and path.read_bytes() == content
    except OSError as error:
        raise describe_os_error(error, path) from error
    if not same:
        write_atomically(path, content)
