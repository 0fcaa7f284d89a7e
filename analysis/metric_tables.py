"""The paper's tables of several metrics (5 to 8) beside our runs, and their twins on a demo.

A demo is a data set that we render. Its tables hold no number of the paper: another data set must
never stand beside it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pandas as pd

from analysis.comparison import Cell, cells_of, our_summary, runs_note
from analysis.grid import Grid
from analysis.records import group_runs, paper_runs
from analysis.shot_tables import run_of, runs_of
from analysis.words import dataset_name, number

WHEN: Final = {"last": "last epoch", "best": "best epoch"}
SPREAD: Final = "mean ± sample standard deviation (number of seeds)"


@dataclass(frozen=True)
class OurCell:
    """One cell of ours, and its name in the first column."""

    name: str
    cell: Cell


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper, and the cells of ours that stand below it.

    Attributes:
        name: the method's, in the first column.
        values: the paper's numbers by metric, in percent; one that it does not give is absent.
        ours: our cells of the same method.
        remark: what the paper says of the row, such as ``copied``.
    """

    name: str
    values: Mapping[str, float]
    ours: tuple[OurCell, ...]
    remark: str = ""


@dataclass(frozen=True)
class MetricTable:
    """One of the paper's tables with a column for each of several metrics, and its demo's.

    Attributes:
        table: the paper's number.
        title: what it compares.
        dataset: the paper's, which is also its group.
        demo: the rendered data set in its place, which is also its group.
        stands_for: the paper's data set in a few words.
        metrics: the columns' headers, by a frame's columns without the epoch.
        epochs: of :data:`analysis.records.EPOCHS` those that are shown.
        note: what the numbers are.
        rows: the paper's rows, then what only we ran, of one or more frames of runs.
        demo_cells: the cells of the demo's runs, in the paper's order.
        paper_note: what is to be known of the paper's rows.
        condition: only runs under it; empty: under any.
        demo_head: rows above the demo's runs, as far as the epochs' costs, such as chance.
        demo_note: what ``demo_head`` is.
    """

    table: int
    title: str
    dataset: str
    demo: str
    stands_for: str
    metrics: Mapping[str, str]
    epochs: Sequence[str]
    note: str
    rows: Callable[[Sequence[pd.DataFrame]], list[PaperRow]]
    demo_cells: Callable[[pd.DataFrame], list[OurCell]]
    paper_note: str = ""
    condition: str = ""
    demo_head: Callable[[pd.DataFrame], list[tuple[str, ...]]] = lambda _: []
    demo_note: str = ""

    def under_condition(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Keep the runs that the table is about."""
        return runs[runs["condition"] == self.condition] if self.condition else runs

    def values(self, runs: pd.DataFrame, cell: Cell, epoch: str) -> list[str]:
        """One cell's numbers over the seeds."""
        return [our_summary(runs, cell, f"{m}_{epoch}").with_n() for m in self.metrics]


def _rows_beside_paper(
    table: MetricTable, frames: Mapping[str, pd.DataFrame]
) -> list[tuple[str, ...]]:
    """Each row of the paper, then ours of each owner at each epoch."""
    rows = []
    for row in table.rows(list(frames.values())):
        paper = (number(row.values.get(metric, math.nan)) for metric in table.metrics)
        rows.append((row.name, f"paper, {row.remark}" if row.remark else "paper", *paper))
        rows += [
            (ours.name, f"{owner}, {WHEN[epoch]}", *table.values(runs, ours.cell, epoch))
            for ours in row.ours
            for owner, runs in frames.items()
            for epoch in table.epochs
        ]
    return rows


def beside_paper_grid(
    name: str, table: MetricTable, published: pd.DataFrame, local: pd.DataFrame | None = None
) -> Grid:
    """The paper's table beside our runs: per method the paper's row, then ours.

    Args:
        name: the block's name.
        table: which one.
        published: frame of the committed records.
        local: frame of this machine's runs, shown in rows of their own when given.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    given = {"ours": published} | ({} if local is None else {"this machine": local})
    frames = {
        owner: table.under_condition(paper_runs(frame, table.dataset))
        for owner, frame in given.items()
    }
    notes = [table.note, table.paper_note, runs_note(frames["ours"], table.dataset)]
    if local is not None:
        notes.append("This machine: " + runs_note(frames["this machine"], table.dataset))
    return Grid(
        name,
        f"Table {table.table}, {dataset_name(table.dataset)}: {table.title}",
        ("Method", "Whose", *table.metrics.values()),
        tuple(_rows_beside_paper(table, frames)),
        " ".join(filter(None, notes)),
        words=(0, 1),
    )


def demo_grid(name: str, table: MetricTable, frame: pd.DataFrame) -> Grid:
    """The table's metrics on the rendered demo, with what a run costs.

    Args:
        name: the block's name.
        table: which one.
        frame: runs.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    runs = table.under_condition(group_runs(frame, table.demo, table.demo))
    run = set(cells_of(runs))
    rows = table.demo_head(runs)
    for ours in (ours for ours in table.demo_cells(runs) if ours.cell in run):
        cost = run_of(runs_of(runs, ours.cell))
        for epoch in table.epochs:
            rows.append((ours.name, WHEN[epoch], *table.values(runs, ours.cell, epoch), cost))
    header = ("Method", "Epoch", *table.metrics.values(), "A run")
    apart = f"Rendered demo, not {table.stands_for} and not the paper's setting. {table.note}"
    notes = [apart, table.demo_note] if rows else []
    return Grid(
        name,
        f"Rendered demo, {dataset_name(table.demo)}: {table.title}",
        header,
        tuple(rows),
        " ".join(filter(None, [*notes, runs_note(runs, table.demo)])),
        words=(0, 1, len(header) - 1),
    )


def beside_paper_makers(
    short: str, tables: Iterable[MetricTable], frame: pd.DataFrame
) -> dict[str, Callable[[], Grid]]:
    """What makes the tables beside the paper's, by block: ``<short>-table-<number>``."""
    names = {f"{short}-table-{table.table}": table for table in tables}
    return {name: partial(beside_paper_grid, name, t, frame) for name, t in names.items()}


def demo_makers(
    tables: Iterable[MetricTable], frame: pd.DataFrame
) -> dict[str, Callable[[], Grid]]:
    """What makes the rendered demo's tables, by block: ``<demo>-table-<number>``."""
    names = {f"{table.demo}-table-{table.table}": table for table in tables}
    return {name: partial(demo_grid, name, table, frame) for name, table in names.items()}
