"""Error and shot-wise accuracy with intervals over seeds, and the tables of a short schedule.

Nothing here shows a number of the paper: a shortened schedule must never stand beside it.
"""

import math
from collections.abc import Sequence
from typing import Final

import pandas as pd

from analysis.comparison import (
    TITLES,
    Cell,
    by_condition,
    cells_of,
    error_table,
    runs_note,
    table_cells,
    tables_of,
)
from analysis.grid import Grid
from analysis.records import CELL, SHOTS, group_runs, paper_runs, stage_of
from analysis.summary import summarize
from analysis.words import NOT_APPLICABLE, dataset_name, number, run_name, schedule_name

# The name of the blocks of a shortened schedule, its data set and its group.
SHORT_GROUPS: Final = {"cifar100-short": ("cifar100-lt", "cifar100-lt-short")}
_COLUMNS: Final = {
    "error_last": "Error, last epoch",
    "error_best": "Error, best epoch",
    **{f"{shot}_last": f"{shot.capitalize()}-shot" for shot in SHOTS},
}
_NOTE: Final = (
    "Percent of the test set, mean with its 95 % t-interval over seeds; one seed has no interval. "
    "Many-, medium- and few-shot: accuracy at the last epoch of classes with over 100 training "
    f"samples, 21 to 100, at most 20; {NOT_APPLICABLE}: there is no such class. The best "
    "epoch is chosen on the difficulty set, never on the test set."
)


def runs_of(runs: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The runs of one cell."""
    return runs[(runs[CELL] == list(cell)).all(axis=1)]


def _with_interval(values: Sequence[float]) -> str:
    """Mean and interval of one cell's runs; absent in all of them is n/a."""
    summary = summarize(values)
    return summary.with_interval() if summary.n else NOT_APPLICABLE


def _row(runs: pd.DataFrame, cell: Cell) -> tuple[str, ...]:
    chosen = runs_of(runs, cell)
    values = [_with_interval(list(chosen[column])) for column in _COLUMNS]
    return (run_name(cell[0], cell[1]), cell[2], str(len(chosen)), *values)


def shots_grid(name: str, table: int, dataset: str, published: pd.DataFrame) -> Grid:
    """Error and shot-wise accuracy of our runs of one of the paper's tables.

    Args:
        name: the block's name.
        table: the paper's number, 1-4.
        dataset: such as ``cifar100-lt``.
        published: frame of the committed records.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    runs = paper_runs(published, dataset)
    run = set(cells_of(runs))
    cells = [cell for cell in table_cells(table, dataset, runs) if cell in run]
    return Grid(
        name,
        f"Table {table}, {dataset_name(dataset)}: {TITLES[table]}, shot-wise",
        ("Method", "Imbalance", "Seeds", *_COLUMNS.values()),
        tuple(_row(runs, cell) for cell in cells),
        f"{_NOTE} {runs_note(runs, dataset)}",
    )


def in_papers_order(cells: Sequence[Cell], dataset: str) -> list[Cell]:
    """Smallest imbalance first, then the methods as the paper's tables list them."""
    tables = [cells_of(error_table(table, dataset)) for table in tables_of(dataset)]
    known = list(dict.fromkeys(cell[:2] for cells in tables for cell in cells))

    def place(cell: Cell) -> tuple[float, Cell]:
        return (known.index(cell[:2]) if cell[:2] in known else math.inf, cell)

    return by_condition(sorted(cells, key=place))


def cost_of(runs: pd.DataFrame) -> tuple[str, ...]:
    """Epochs, mean seconds of a run and hardware."""
    epochs = " or ".join(map(str, sorted(set(runs["epochs"]))))
    hardware = "\n".join(sorted(set(runs["hardware"])))
    return epochs, number(float(runs["seconds"].mean()), 0), hardware


def run_of(runs: pd.DataFrame) -> str:
    """What a run is and costs: ``30 epochs, 682 s, AMD EPYC, 1 thread``."""
    epochs, seconds, hardware = cost_of(runs)
    return f"{epochs} epochs, {seconds} s, {hardware}"


def apart_grid(name: str, title: str, apart: str, runs: pd.DataFrame, dataset: str) -> Grid:
    """Every cell of runs that are not the paper's experiment, with its cost.

    Args:
        name: the block's name.
        title: one line.
        apart: a sentence that says what the runs are, and that they are not the paper's.
        runs: of one group (:func:`analysis.records.group_runs`).
        dataset: of the paper, whose tables' order the methods have.
    """
    cells = in_papers_order(cells_of(runs), dataset)
    counted = runs_note(runs, runs["dataset"].iloc[0] if len(runs) else dataset)
    header = ("Method", "Imbalance", "Seeds", *_COLUMNS.values())
    return Grid(
        name,
        title,
        (*header, "A run"),
        tuple((*_row(runs, cell), run_of(runs_of(runs, cell))) for cell in cells),
        " ".join([apart, *([_NOTE] if cells else []), counted]),
        words=(0, len(header)),
    )


def short_grid(
    name: str, dataset: str, group: str, frame: pd.DataFrame, *, second_stage: bool = False
) -> Grid:
    """Every cell of a short schedule's group, with its cost; never with the paper's numbers.

    Args:
        name: the block's name.
        dataset: such as ``cifar100-lt``.
        group: such as ``cifar100-lt-short``.
        frame: runs.
        second_stage: the runs of decoupled learning, else those of one stage.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    runs = group_runs(frame, dataset, group)
    runs = runs[(runs["method"].map(stage_of) != "") == second_stage]
    kind = "decoupled learning" if second_stage else "all methods"
    title = f"{schedule_name(group, dataset)}: {kind}"
    return apart_grid(name, title, "Short schedule, not the paper's setting.", runs, dataset)
