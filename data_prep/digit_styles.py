"""The 20 looks of digit scenes: a handwritten digit becomes coloured pixels.

A style is two inks, a stroke (fine or bold, upright or turned) and a way of painting it. Styles of
one family differ in one thing only (the hue, the stroke, the direction of stripes, the side of a
shadow ...), so that their categories are easily confused; between families they are not.

Every pixel is drawn or not: edges are hard, so that a mask can be exact.

Shapes: S x S pixels of a patch with the digit in its middle, h x w pixels of a cropped one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

SMALLEST, LARGEST = 26.0, 46.0
"""Longer side of a digit's ink in pixels, before what a style adds."""
_PATCH: Final = 88
# MNIST draws the ink into 20 x 20 of 28 x 28 pixels.
_IMAGE_SIDE, _INK_SIDE = 28, 20
# Share of a pixel that ink must cover for the pixel to be drawn.
_COVERED: Final = 0.5


@dataclass(frozen=True, eq=False)
class Drawing:
    """A digit as it is drawn.

    Attributes:
        colours: (h, w, 3) uint8; means nothing where ``drawn`` is False.
        drawn: (h, w) bool, with a True in every outermost row and column.
    """

    colours: Pixels
    drawn: Mask


@dataclass(frozen=True, eq=False)
class Paint:
    """What a way of painting gets.

    Attributes:
        stroke: (S, S) bool.
        inks: (2, 3) uint8.
        size: longer side of the digit, pixels.
    """

    stroke: Mask
    inks: Pixels
    size: float


Painting = tuple[Pixels, Mask]
"""Colours (S, S, 3) and what is drawn (S, S)."""
Painter = Callable[[Paint], Painting]


# Ways of painting: the second ink is where ``second`` is True, the first in the rest.


def _two_inks(inks: Pixels, second: Mask, drawn: Mask) -> Painting:
    return inks[second.astype(np.int64)], drawn


def plain(paint: Paint) -> Painting:
    """One ink."""
    return _two_inks(paint.inks, np.zeros_like(paint.stroke), paint.stroke)


def rows(paint: Paint) -> Painting:
    """Stripes that run from left to right."""
    y, _ = _positions()
    return _two_inks(paint.inks, _odd(y, paint.size / 8), paint.stroke)


def columns(paint: Paint) -> Painting:
    """Stripes that run from top to bottom."""
    _, x = _positions()
    return _two_inks(paint.inks, _odd(x, paint.size / 8), paint.stroke)


def checked(paint: Paint) -> Painting:
    """A board of squares."""
    y, x = _positions()
    return _two_inks(paint.inks, _odd(x, paint.size / 8) ^ _odd(y, paint.size / 8), paint.stroke)


def dotted(paint: Paint) -> Painting:
    """Round dots of the second ink."""
    y, x = (position % (paint.size / 5) - paint.size / 10 for position in _positions())
    return _two_inks(paint.inks, x**2 + y**2 < (paint.size / 14) ** 2, paint.stroke)


def outlined(paint: Paint) -> Painting:
    """A rim of the first ink around the second."""
    return _two_inks(paint.inks, _eroded(paint.stroke), paint.stroke)


def shadow_below(paint: Paint) -> Painting:
    """A copy in the second ink behind the stroke, to the right and below."""
    return _with_copy(paint, paint.size / 11, paint.size / 11)


def shadow_above(paint: Paint) -> Painting:
    """A copy in the second ink behind the stroke, to the left and above."""
    return _with_copy(paint, -paint.size / 11, -paint.size / 11)


def doubled(paint: Paint) -> Painting:
    """A copy in the second ink far to the right."""
    return _with_copy(paint, 0, paint.size / 3.5)


def boxed(paint: Paint) -> Painting:
    """On a plate of the second ink, which belongs to the instance."""
    top, bottom, left, right = _extent(paint.stroke)
    margin = round(paint.size / 9)
    plate = np.zeros_like(paint.stroke)
    plate[top - margin : bottom + margin, left - margin : right + margin] = True
    return _two_inks(paint.inks, ~paint.stroke, plate)


def graded(paint: Paint) -> Painting:
    """From the first ink at the top to the second at the bottom."""
    top, bottom, _, _ = _extent(paint.stroke)
    share = np.clip((np.arange(_PATCH) - top) / max(bottom - 1 - top, 1), 0, 1)[:, None, None]
    first, second = paint.inks.astype(np.float64)
    colours = np.broadcast_to(first + share * (second - first), (_PATCH, _PATCH, 3))
    return colours.round().astype(np.uint8), paint.stroke


def _with_copy(paint: Paint, down: float, right: float) -> Painting:
    copy = np.roll(paint.stroke, (round(down), round(right)), (0, 1))
    return _two_inks(paint.inks, ~paint.stroke, paint.stroke | copy)


def _positions() -> tuple[Floats, Floats]:
    """Row and column of each pixel from the middle of the patch, (S, S) each."""
    y, x = np.indices((_PATCH, _PATCH)) - (_PATCH - 1) / 2
    return y, x


def _odd(position: Floats, width: float) -> Mask:
    """Whether a pixel is on an odd one of stripes that are ``width`` wide, (S, S)."""
    return np.asarray(np.floor(position / width) % 2 == 1)


def _eroded(mask: Mask) -> Mask:
    """Without the pixels that are next or next but one to an undrawn one, (S, S)."""
    undrawn = torch.from_numpy(~mask)[None, None].float()
    return np.asarray(F.max_pool2d(undrawn, 5, 1, 2)[0, 0].numpy() == 0)


def _extent(mask: Mask) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is True; bottom and right are one beyond it."""
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1


# The styles.


@dataclass(frozen=True)
class Style:
    """One look.

    Attributes:
        name: first word of its categories' names.
        paint: how the stroke is painted.
        inks: red, green, blue, each 0 to 255, of the first and of the second ink.
        bold: whether the stroke is made wider than MNIST's.
        turned: whether the digit lies on its side, turned a quarter clockwise.
    """

    name: str
    paint: Painter
    inks: tuple[tuple[int, int, int], tuple[int, int, int]]
    bold: bool = True
    turned: bool = False


_RED, _ORANGE, _PINK = (205, 50, 45), (225, 115, 45), (222, 80, 125)
_BLUE, _GREEN, _YELLOW = (45, 75, 215), (45, 165, 65), (228, 210, 60)
_VIOLET, _CYAN = (120, 50, 180), (50, 195, 205)
_WHITE, _BLACK = (228, 228, 228), (25, 25, 25)

STYLES: Final = (
    Style("red", plain, (_RED, _RED)),
    Style("orange", plain, (_ORANGE, _ORANGE)),
    Style("pink", plain, (_PINK, _PINK)),
    Style("fine_blue", plain, (_BLUE, _BLUE), bold=False),
    Style("bold_blue", plain, (_BLUE, _BLUE)),
    Style("green", plain, (_GREEN, _GREEN)),
    Style("turned_green", plain, (_GREEN, _GREEN), turned=True),
    Style("row_striped", rows, (_WHITE, _BLUE)),
    Style("column_striped", columns, (_WHITE, _BLUE)),
    Style("dotted", dotted, (_YELLOW, _BLACK)),
    Style("checked", checked, (_YELLOW, _BLACK)),
    Style("outlined", outlined, (_WHITE, _BLACK)),
    Style("turned_outlined", outlined, (_WHITE, _BLACK), turned=True),
    Style("shadow_below", shadow_below, (_WHITE, _BLACK), bold=False),
    Style("shadow_above", shadow_above, (_WHITE, _BLACK), bold=False),
    Style("light_boxed", boxed, (_RED, _WHITE), bold=False),
    Style("dark_boxed", boxed, (_YELLOW, _BLACK), bold=False),
    Style("graded_down", graded, (_YELLOW, _VIOLET)),
    Style("graded_up", graded, (_VIOLET, _YELLOW)),
    Style("doubled", doubled, (_CYAN, _PINK), bold=False),
)

NUM_DRAWS: Final = 8
"""Numbers a drawing is made of: size, angle, three colour channels of each ink."""
_LARGEST_TILT: Final = 8 / 360
_COLOUR_CHANGE: Final = 24


def draw_digit(image: Tensor, style: Style, numbers: Floats) -> Drawing:
    """A digit in a style, cropped to what is drawn.

    Args:
        image: (28, 28) uint8, 0 = paper, 255 = ink; not empty.
        style: how it looks.
        numbers: (NUM_DRAWS,) uniform in [0, 1). The size is log-uniform, the tilt within 8 degrees,
            each channel of an ink within 24 of the style's.
    """
    size = SMALLEST * (LARGEST / SMALLEST) ** float(numbers[0])
    tilt = _LARGEST_TILT * (2 * float(numbers[1]) - 1)
    change = _COLOUR_CHANGE * (2 * numbers[2:].reshape(2, 3) - 1)
    inks = np.clip(np.array(style.inks) + change, 0, 255).round().astype(np.uint8)
    stroke = draw_stroke(image, size, tilt + style.turned / 4, style.bold)
    return _cropped(*style.paint(Paint(stroke, inks, size)))


def draw_stroke(image: Tensor, size: float, angle: float, bold: bool) -> Mask:
    """The pixels that ink covers to the half, (S, S).

    Args:
        image: (28, 28) uint8.
        size: longer side of the ink, pixels.
        angle: how far it is turned clockwise, in turns.
        bold: make the stroke wider by a pixel of ``image`` on each side.
    """
    ink = image.float()[None, None] / 255
    ink = F.max_pool2d(ink, 3, 1, 1) if bold else ink
    position = torch.arange(_PATCH) - (_PATCH - 1) / 2
    dy, dx = position[:, None], position
    cos, sin = math.cos(math.tau * angle), math.sin(math.tau * angle)
    # grid_sample's unit is half the image.
    unit = size / _INK_SIDE * _IMAGE_SIDE / 2
    grid = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], dim=-1) / unit
    cover = F.grid_sample(ink, grid[None], mode="bilinear", align_corners=False)
    return np.asarray(cover[0, 0].numpy() >= _COVERED)


def _cropped(colours: Pixels, drawn: Mask) -> Drawing:
    top, bottom, left, right = _extent(drawn)
    return Drawing(colours[top:bottom, left:right], drawn[top:bottom, left:right])
