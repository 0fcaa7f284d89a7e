"""One look for all figures, and files that are the same bytes each time."""

import base64
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.rcsetup import cycler
from matplotlib.text import Text

from common.errors import describe_os_error
from common.training.drawing import FONT, default_style, drawn

# Okabe & Ito (2008), told apart with every common colour blindness; yellow is too pale for lines.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, BLACK, GREY = "#56B4E9", "#E69F00", "#000000", "#767676"
CYCLE: Final = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
PAPER_COLOUR, OUR_COLOUR, LOCAL_COLOUR = GREY, BLUE, ORANGE

# Of the figure's width; a legend has a frame of its own around it.
_FREE_WIDTH: Final = 0.97
# No text is folded into lines of fewer characters.
_NARROWEST: Final = 20

_STYLE: Final[Any] = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": FONT,
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=CYCLE),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "savefig.dpi": 150,
    # Fixed names inside the file, so that the same figure is the same file.
    "svg.hashsalt": "cdb",
}


@contextmanager
def _common_style() -> Iterator[None]:
    """The common style, whatever the user's own matplotlib settings are."""
    with default_style():
        mpl.rcParams.update(_STYLE)
        yield


def styled(draw: Callable[[], Figure]) -> Figure:
    """Draw under the common style."""
    with _common_style():
        return draw()


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``rows`` x ``columns`` axes, row by row; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _fits(figure: Figure, part: Legend | Text) -> bool:
    return part.get_window_extent().width <= _FREE_WIDTH * figure.bbox.width


def _grow(figure: Figure, height: float) -> None:
    """Make the figure higher, by a number of its dots; less than 0 changes nothing."""
    figure.set_figheight(figure.get_figheight() + max(0.0, height / figure.dpi))


def _put_legend(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int
) -> Legend:
    # A label that begins with '_' would be left out: each gets its text afterwards.
    places = [str(index) for index in range(len(labels))]
    legend = figure.legend(handles, places, loc="outside lower center", ncols=columns)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
    return legend


def legend_below(
    figure: Figure, handles: Sequence[Artist], names: Sequence[str], columns: int
) -> Legend:
    """One legend below the panels, no wider than the figure, with every name as it stands.

    It gets as many columns as fit, and where a single one is too wide its names several lines. The
    figure grows by what it is higher than with all ``columns``.

    Args:
        figure: its width stays.
        handles: a line, bar or the like for each name.
        names: any text; nothing in it is markup.
        columns: at most.
    """
    labels = list(map(drawn, names))
    legend = _put_legend(figure, handles, labels, columns)
    planned = legend.get_window_extent().height
    while not _fits(figure, legend) and columns > 1:
        legend.remove()
        columns -= 1
        legend = _put_legend(figure, handles, labels, columns)
    width = max(map(len, labels), default=0)
    while not _fits(figure, legend) and width > _NARROWEST:
        legend.remove()
        width = max(_NARROWEST, int(0.9 * width))
        folded = [textwrap.fill(label, width) for label in labels]
        legend = _put_legend(figure, handles, folded, columns)
    _grow(figure, legend.get_window_extent().height - planned)
    return legend


def heading_above(figure: Figure, text: str) -> None:
    """The figure's title, nothing in it markup; a line that is too wide becomes several.

    The figure grows by these.
    """
    lines = drawn(text).split("\n")
    width = max(map(len, lines))
    title = figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)
    planned = title.get_window_extent().height
    while not _fits(figure, title) and width > _NARROWEST:
        width = max(_NARROWEST, int(0.9 * width))
        title.set_text("\n".join(textwrap.fill(line, width) for line in lines))
    _grow(figure, title.get_window_extent().height - planned)


def _render(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # No date and no version in the file.
    metadata: dict[str, None] = (
        {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    )
    with _common_style():
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` below ``folder``, which is made when it is absent.

    Raises:
        UserError: when the folder cannot be written or is full.
    """
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_render(figure, path.suffix[1:]))
        except OSError as error:
            raise describe_os_error(error, path) from error
    return paths


def as_data_url(figure: Figure) -> str:
    """The figure as an SVG inside a ``data:`` address, for a page that stands alone."""
    code = base64.b64encode(_render(figure, "svg")).decode("ascii")
    return f"data:image/svg+xml;base64,{code}"
