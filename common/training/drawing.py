"""Matplotlib as the commands use it: it draws to files, and a name is drawn as it is or not at all.

The packages that draw import this one first: it chooses the backend. What the environment names is
for another program's windows, as a notebook leaves it; matplotlib cannot even be imported where
that one is not installed.
"""

import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

os.environ["MPLBACKEND"] = "agg"

FONT: Final = "DejaVu Sans"
"""Comes with matplotlib: a figure is the same on every machine."""
DOTS: Final = 110
"""Of a written figure, an inch."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
# Controls, marks of direction and the like, and what stands for a byte that was no Unicode.
_UNSEEN: Final = ("Cc", "Cf", "Cs")
# Hebrew and Arabic run from right to left, which not every version of matplotlib does.
_RIGHT_TO_LEFT: Final = ("R", "AL", "AN")


@contextmanager
def default_style() -> Iterator[None]:
    """Matplotlib's own settings, whatever the user's are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        yield


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG.

    Raises:
        UserError: when there is no room or no permission.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS)
    write_atomically(path, content.getvalue())


@cache
def _characters() -> frozenset[int]:
    """Code points that :data:`FONT` has."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())


def _can_draw(character: str) -> bool:
    return (
        ord(character) in _characters()
        and unicodedata.category(character) not in _UNSEEN
        and unicodedata.bidirectional(character) not in _RIGHT_TO_LEFT
    )


def drawn(text: str) -> str:
    """``text`` with a replacement for each character, but a line's end, that cannot be drawn.

    A text that holds names is no markup: draw it with ``parse_math=False``.
    """
    whole = unicodedata.normalize("NFC", text)
    return "".join(c if c == "\n" or _can_draw(c) else _REPLACEMENT for c in whole)


def _is_drawable(name: str) -> bool:
    return all(map(_can_draw, unicodedata.normalize("NFC", name)))


def class_labels(names: Sequence[str]) -> list[str]:
    """What is drawn for each class: its name, or ``#3`` where the font lacks one of its characters.

    Args:
        names: of all classes, by label.
    """
    return [drawn(name) if _is_drawable(name) else f"#{i}" for i, name in enumerate(names)]


def _written(name: str) -> str:
    """The name with what shows nothing as Python writes it."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in _UNSEEN else c for c in name)


def numbered_classes(names: Sequence[str]) -> str:
    """Says which classes :func:`class_labels` numbers: ``#3 is ...``; empty without one."""
    pairs = [(f"#{i}", name) for i, name in enumerate(names) if not _is_drawable(name)]
    return ", ".join(f"{label} is {_written(name)}" for label, name in pairs)
