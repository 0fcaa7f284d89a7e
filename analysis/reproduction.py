"""Each run of this machine beside the published record of the same run."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from analysis.grid import Grid
from analysis.records import Record, main_measure
from analysis.words import MISSING, number, signed
from common.training.record import config_differences

IDENTICAL: Final = "identical"
_NOTE: Final = (
    "The same run is the same group, name and configuration. 'Identical' means: every metric and "
    "the whole course are the same numbers. Equal numbers can be expected on one kind of machine "
    "with the same versions; else the last digits of sums differ, and training enlarges that. "
    "Numbers are test errors in %, of a detector the AP of its boxes; it has no best epoch."
)


def outcome(local: Record, published: Record | None) -> str:
    """Say in a few words how a run compares with its published record.

    The difference is that of the test errors (of a detector the AP of boxes) at the last epoch, in
    points.
    """
    if published is None:
        return "not published"
    fields = config_differences(local["config"], published["config"])
    if fields:
        return f"other settings: {', '.join(fields)}"
    if local["split"]["digest"] != published["split"]["digest"]:
        return "other data split"
    if local["metrics"] != published["metrics"]:
        change = main_measure(local, "last") - main_measure(published, "last")
        return f"differs by {signed(change, 3)} points"
    return IDENTICAL if local["history"] == published["history"] else "same metrics, other course"


def _versions(local: Record, published: Record | None) -> str:
    """Versions that differ: here, then published."""
    if published is None:
        return MISSING
    here, there = local["provenance"]["versions"], published["provenance"]["versions"]
    return ", ".join(f"{n} {here.get(n)} / {there.get(n)}" for n in config_differences(here, there))


def _row(local: Record, published: Record | None) -> tuple[str, ...]:
    def measure(record: Record | None, epoch: str) -> str:
        return MISSING if record is None else number(main_measure(record, epoch), 3)

    measures = [measure(record, e) for e in ("last", "best") for record in (local, published)]
    seconds = number(local["provenance"]["seconds"], 0)
    name = f"{local['group']}/{local['run']}"
    return (name, *measures, outcome(local, published), _versions(local, published), seconds)


def reproduction_grid(local: Iterable[Record], published: Iterable[Record]) -> Grid:
    """One row per run of this machine."""
    known = {(record["group"], record["run"]): record for record in published}
    rows = [_row(record, known.get((record["group"], record["run"]))) for record in local]
    header = (
        "Run", "Last epoch: here", "published", "Best epoch: here", "published", "Comparison",
        "Versions: here / published", "Seconds here",
    )  # fmt: skip
    return Grid("reproduction", "Reproduced here", header, tuple(rows), _NOTE, words=(0, 5, 6))


def count_outcomes(grid: Grid) -> str:
    """For instance ``7 identical, 1 other settings``."""
    kinds = Counter(row[5].split(":")[0].split(" by ")[0] for row in grid.rows)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
