"""One look for all figures, and files that are the same bytes each time."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from common.errors import describe_os_error

# Okabe & Ito (2008), told apart with every common colour blindness; yellow is too pale for lines.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, BLACK, GREY = "#56B4E9", "#E69F00", "#000000", "#767676"
CYCLE: Final = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
PAPER_COLOUR, OUR_COLOUR, LOCAL_COLOUR = GREY, BLUE, ORANGE

_STYLE: Final[Any] = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
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
    with mpl.rc_context():
        mpl.rcdefaults()
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
