"""What digit scenes show: 40 categories, how many images of each, and which digits are in which.

A category is a digit (4 or 9) in one of 20 styles. The number of training images of each was chosen
by hand: 13 categories are rare, 14 common and 13 frequent by LVIS's thresholds; of most pairs that
are easily confused (the same style with the other digit, the same digit in a like style) one is
more frequent than the other.

Shapes: K images of a part, C = 40 categories.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.streams import stream_seed
from data_prep.digit_styles import STYLES, Floats
from data_prep.mnist import CLASS_NAMES, Digits
from data_prep.split import permuted_class

PARTS: Final = ("train", "difficulty", "val")
RARE_AT_MOST, COMMON_AT_MOST = 10, 100
"""Training images of a rare and of a common category (LVIS, Gupta, Dollar, Girshick 2019)."""

# Training images of each style's 4 and 9.
_TRAIN_IMAGES: Final = {
    "red": (320, 10),
    "orange": (38, 205),
    "pink": (5, 58),
    "fine_blue": (270, 115),
    "bold_blue": (27, 9),
    "green": (180, 85),
    "turned_green": (6, 140),
    "row_striped": (235, 66),
    "column_striped": (14, 4),
    "dotted": (165, 22),
    "checked": (8, 102),
    "outlined": (95, 150),
    "turned_outlined": (11, 3),
    "shadow_below": (130, 50),
    "shadow_above": (18, 7),
    "light_boxed": (122, 1),
    "dark_boxed": (2, 1),
    "graded_down": (108, 32),
    "graded_up": (75, 5),
    "doubled": (44, 3),
}
# Of an image: the categories on average, and the fewest and the most.
_CATEGORIES_PER_IMAGE: Final = 4.2
_FEWEST, _MOST = 2, 6
# Share of the images that show one of their categories twice, and of these twins the share that is
# left without an annotation.
_TWINS: Final = 0.25
_UNANNOTATED: Final = 0.5


@dataclass(frozen=True)
class Settings:
    """What a rendered set depends on.

    Attributes:
        seed: of everything random, >= 0.
        divisor: each category's number of images is divided by it, >= 1; above 1 the letters are
            others.
    """

    seed: int = 0
    divisor: float = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered.

        Raises:
            UserError: a negative seed or a divisor below 1.
        """
        if self.seed < 0:
            raise UserError(f"--seed {self.seed} is negative; give a whole number of at least 0.")
        if not (math.isfinite(self.divisor) and self.divisor >= 1):
            raise UserError(f"--divisor {self.divisor} is too small; give a number of at least 1.")


@dataclass(frozen=True)
class Category:
    """A digit in a style.

    Attributes:
        name: style and digit.
        digit: 0 for a four, 1 for a nine.
        style: place in ``STYLES``.
    """

    name: str
    digit: int
    style: int


CATEGORIES: Final = tuple(
    Category(f"{style.name}_{word}", digit, place)
    for place, style in enumerate(STYLES)
    for digit, word in enumerate(("four", "nine"))
)
"""By index 0 to 39; the id in the files is one more."""


@dataclass(frozen=True)
class Instance:
    """A digit to draw.

    Attributes:
        category: 0 to 39.
        digit: place of its image in MNIST's training or test part.
        annotated: False for one that is left without an annotation on purpose.
    """

    category: int
    digit: int
    annotated: bool


@dataclass(frozen=True)
class Scene:
    """An image to render.

    Attributes:
        part: train, difficulty or val.
        number: its place in the part, 0 and up.
        instances: in the order in which they are drawn: later ones cover earlier ones.
    """

    part: str
    number: int
    instances: tuple[Instance, ...]

    @property
    def id(self) -> int:
        """Its id, which no image of another part has."""
        return 100_000 * PARTS.index(self.part) + self.number + 1

    @property
    def file(self) -> Path:
        """Where it lies below the folder of the set."""
        return Path(self.part, f"{self.id:06d}.png")


def frequency_letter(image_count: int) -> str:
    """'r', 'c' or 'f', by the number of training images.

    >>> [frequency_letter(n) for n in (0, 10, 11, 100, 101)]
    ['r', 'r', 'c', 'c', 'f']
    """
    return "r" if image_count <= RARE_AT_MOST else "c" if image_count <= COMMON_AT_MOST else "f"


def category_images(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Images of each part that show a category, (C,).

    Difficulty has a quarter of the training images' number, at least 4, but none of a category with
    1 or 2 training images: like LVIS it cannot measure all. Val has 0.4 of it, at least 16.
    """
    train = [count for style in STYLES for count in _TRAIN_IMAGES[style.name]]
    counts = {
        "train": train,
        "difficulty": [max(4, math.ceil(n / 4)) if n > 2 else 0 for n in train],
        "val": [max(16, math.ceil(0.4 * n)) for n in train],
    }
    return {
        part: tuple(math.ceil(n / settings.divisor) for n in of_part)
        for part, of_part in counts.items()
    }


def plan_scenes(settings: Settings, digits: Digits) -> dict[str, list[Scene]]:
    """All images of each part."""
    return {
        part: _with_digits(
            part,
            digit_orders(settings.seed, digits, part),
            _drawing_orders(settings.seed, part, place_categories(settings.seed, part, counts)),
        )
        for part, counts in category_images(settings).items()
    }


def place_categories(seed: int, part: str, counts: tuple[int, ...]) -> list[list[int]]:
    """The categories of each image; category c is in exactly ``counts[c]`` of them.

    From the most frequent on, each category draws its images, those first that have fewer
    categories than they want; then images with less than two get one of the fullest.
    """
    images = max(*counts, math.ceil(sum(counts) / _CATEGORIES_PER_IMAGE))
    draws = uniform_numbers(seed, f"digit scenes, categories of {part}", images * (1 + len(counts)))
    draws = draws.reshape(-1, images)
    wanted = _FEWEST + np.floor(draws[0] * (_MOST - _FEWEST + 1))
    shown: list[list[int]] = [[] for _ in range(images)]
    for category in sorted(range(len(counts)), key=lambda c: -counts[c]):
        load = np.array([len(of_image) for of_image in shown])
        # The k smallest of exponential numbers divided by weights are a draw by weight.
        key = -np.log1p(-draws[1 + category]) / np.maximum(wanted - load, 0.1)
        key[load >= _MOST] += 1e9
        for image in np.argsort(key, kind="stable")[: counts[category]].tolist():
            shown[image].append(category)
    _fill_up(shown)
    return shown


def _fill_up(shown: list[list[int]]) -> None:
    """Move categories from the fullest images to those with less than two, if there are enough."""
    for image in shown:
        while len(image) < _FEWEST:
            giver = max(shown, key=len)
            moved = next((c for c in giver if c not in image), None)
            if len(giver) <= _FEWEST or moved is None:
                return
            giver.remove(moved)
            image.append(moved)


def _drawing_orders(seed: int, part: str, shown: list[list[int]]) -> list[list[tuple[int, bool]]]:
    """The (category, annotated) of each image, twins added, in the order of drawing."""
    draws = uniform_numbers(seed, f"digit scenes, order of {part}", len(shown) * (4 + _MOST))
    result = []
    for categories, numbers in zip(shown, draws.reshape(len(shown), -1), strict=True):
        of_image = [(category, True) for category in sorted(categories)]
        if len(of_image) < _MOST and numbers[0] < _TWINS:
            twin = of_image[int(numbers[1] * len(of_image))][0]
            of_image.append((twin, bool(numbers[2] >= _UNANNOTATED)))
        order = np.argsort(numbers[3 : 3 + len(of_image)], kind="stable")
        result.append([of_image[place] for place in order.tolist()])
    return result


def _with_digits(
    part: str, orders: tuple[Tensor, Tensor], shown: list[list[tuple[int, bool]]]
) -> list[Scene]:
    """Give each instance the next image of its digit."""
    used = [0, 0]
    scenes = []
    for number, of_image in enumerate(shown):
        instances = []
        for category, annotated in of_image:
            digit = CATEGORIES[category].digit
            place = int(orders[digit][used[digit] % len(orders[digit])])
            used[digit] += 1
            instances.append(Instance(category, place, annotated))
        scenes.append(Scene(part, number, tuple(instances)))
    return scenes


def digit_orders(seed: int, digits: Digits, part: str) -> tuple[Tensor, Tensor]:
    """Places of the fours and of the nines in the order in which the part takes them, (N,) each.

    Val takes digits of MNIST's test part. Train takes the permuted digits of the training part from
    the front, difficulty from the back: none is in both.
    """
    source = "test" if part == "val" else "train"
    labels = digits.test_labels if source == "test" else digits.train_labels
    generator = np.random.PCG64(stream_seed(seed, f"digit scenes, digits of {source}"))
    orders = [permuted_class(labels, label, generator) for label in range(len(CLASS_NAMES))]
    fours, nines = (torch.flip(o, (0,)) if part == "difficulty" else o for o in orders)
    return fours, nines


def uniform_numbers(seed: int, name: str, count: int) -> Floats:
    """Numbers uniform in [0, 1), (count,).

    From raw 64-bit draws: numpy promises that the stream of a bit generator never changes.
    """
    raw = np.random.PCG64(stream_seed(seed, name)).random_raw(count)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53)
