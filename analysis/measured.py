"""What benchmarks measured, as tables: each is a file in ``benchmarks/measured/``.

A file is a JSON object. ``how`` says how its numbers came about; ``command``, ``machine``,
``versions`` (by name) and ``date`` are there where they are known; ``rows`` are objects with
``what`` was measured, its ``value`` and ``unit``, and of several measurements, whose median the
value is, the ``smallest`` and the ``largest``. Numbers are shown with the digits that they have in
the file.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from analysis.grid import Grid
from common.errors import UserError

MEASURED: Final = Path(__file__).parents[1] / "benchmarks" / "measured"


@dataclass(frozen=True)
class Row:
    """One number, or the median of several with their ends."""

    what: str
    value: Decimal
    unit: str
    smallest: Decimal | None = None
    largest: Decimal | None = None

    def __str__(self) -> str:
        """``81 (77 .. 84) steps/s``."""
        ends = "" if self.smallest is None else f" ({self.smallest} .. {self.largest})"
        return f"{self.value}{ends} {self.unit}".rstrip().replace("-", "−")


@dataclass(frozen=True)
class Measured:
    """One benchmark's file; empty where something is not known."""

    how: str
    rows: tuple[Row, ...]
    command: str = ""
    machine: str = ""
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """How it was measured, where and when."""
        known = (
            self.machine or "a machine that is not recorded",
            ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            self.date,
        )
        return f"{self.how} Made on: {'; '.join(filter(None, known))}."


@cache
def read_measured(path: Path) -> Measured:
    """Read a file of measurements.

    Raises:
        UserError: it is none, or lacks something.
    """
    try:
        content: dict[str, Any] = json.loads(
            path.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal
        )
        rows = tuple(Row(**row) for row in content.pop("rows"))
        return Measured(rows=rows, **content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no file of measurements ({error}); restore it, or measure anew."
        ) from error


def measured_grid(name: str, path: Path) -> Grid:
    """The table of a file."""
    measured = read_measured(path)
    rows = tuple((row.what, str(row)) for row in measured.rows)
    return Grid(name, f"Measured: {path.stem}", ("Measured", "Value"), rows, measured.note)


def measured_makers(folder: Path = MEASURED) -> dict[str, Callable[[], Grid]]:
    """What makes the table of each file, by block: ``measured-mnist``."""
    paths = {f"measured-{path.stem}".replace("_", "-"): path for path in folder.glob("*.json")}
    return {name: partial(measured_grid, name, path) for name, path in sorted(paths.items())}


def measured_value(file: str, what: str) -> Decimal:
    """One number.

    Args:
        file: such as ``cifar100_h100``.
        what: begins the row's.
    """
    (value,) = (
        row.value
        for row in read_measured(MEASURED / f"{file}.json").rows
        if row.what.startswith(what)
    )
    return value
