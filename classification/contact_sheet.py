"""New pictures on one sheet, each with its most likely class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from classification.image_files import read_square
from common.training.drawing import FONT, default_style, drawn, write_figure
from common.training.predicting import Row

MOST: Final = 48
"""Pictures on a sheet."""
_COLUMNS: Final = 8
_INCHES: Final = 1.1
_SIDE: Final = 112
"""Pixels of a picture, of which the longer side is shown whole."""
_LETTERS: Final = 18


def evenly(number: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``number``, evenly spaced, the first among them.

    >>> evenly(7, 3), evenly(2, 3)
    ([0, 2, 4], [0, 1])
    """
    taken = min(number, most)
    return [place * number // taken for place in range(taken)]


def _shortened(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def draw_sheet(rows: Sequence[Row]) -> Figure:
    """Pictures in rows of eight; above each its most likely class with its probability.

    Args:
        rows: of :func:`common.training.predicting.rank_classes`; those of rank 1 are drawn, of more
            than :data:`MOST` pictures so many, evenly chosen.
    """
    first = [(path, name, float(value)) for path, rank, name, value in rows if rank == 1]
    shown = [first[place] for place in evenly(len(first), MOST)]
    lines = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _INCHES, lines * (_INCHES + 0.3)), layout="constrained")
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (path, name, value) in zip(panels, shown, strict=False):
        pixels, (width, height) = read_square(path, _SIDE, turn=True)
        axes.imshow(pixels.numpy(), aspect=height / width)
        words = f"{drawn(_shortened(name))}\n{value:.2f}"
        axes.set_title(words, fontsize=7, fontfamily=FONT, parse_math=False)
    return figure


def write_sheet(rows: Sequence[Row], path: Path) -> None:
    """Write :func:`draw_sheet` as a PNG.

    Raises:
        UserError: there is no room or no permission, or a picture has gone meanwhile.
    """
    with default_style():
        write_figure(draw_sheet(rows), path)
