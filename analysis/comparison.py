"""Our results beside the paper's: its Tables 1-4.

Built from the rows of the paper's tables, so a dataset of a later experiment needs no code here.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import pandas as pd

from analysis.grid import Grid
from analysis.records import CELL, group_runs, paper_table, stage_of
from analysis.summary import Summary, errors_by_seed, summarize
from analysis.words import dataset_name, run_name, signed, stage_name

NOT_IN_PAPER: Final = "not in the paper"
SHORT_NAMES: Final = {
    "mnist": "mnist-lt",
    "cifar100": "cifar100-lt",
    "imagenet": "imagenet-lt",
    "lvis": "lvis-v0.5",
    "egtea": "egtea-verbs",
}
"""Data sets of the paper by the names of their blocks."""
TITLES: Final = {
    1: "all methods",
    2: "effect of τ on CDB-W-CE",
    3: "effect of τ on CDB-S",
    4: "decoupled learning",
}
Cell = tuple[str, str, str]


@cache
def error_table(table: int, dataset: str) -> pd.DataFrame:
    """The paper's error rows of one of its tables on one dataset, in the paper's order.

    Not to be changed in place.
    """
    rows = paper_table()
    chosen = (rows["table"] == table) & (rows["dataset"] == dataset) & (rows["metric"] == "error")
    return rows[chosen]


def tables_of(dataset: str) -> list[int]:
    """Numbers of the paper's tables that give errors on ``dataset``."""
    return [table for table in TITLES if not error_table(table, dataset).empty]


def _home_table(method: str, dataset: str) -> int:
    """The table that shows what the paper did not run: the last that has the method.

    Else the first that has its stage.
    """
    methods = {table: set(error_table(table, dataset)["method"]) for table in tables_of(dataset)}
    holding = [table for table, known in methods.items() if method in known]
    same = [table for table, known in methods.items() if stage_of(method) in map(stage_of, known)]
    return max(holding, default=min(same, default=1))


def cells_of(rows: pd.DataFrame) -> list[Cell]:
    """Method, variant and condition of each row, each cell once, in the rows' order."""
    return list(dict.fromkeys(rows[CELL].itertuples(index=False, name=None)))


def extra_cells(table: int, dataset: str, runs: pd.DataFrame) -> list[Cell]:
    """Method, variant and condition of runs that the paper has nowhere and ``table`` shows."""
    known: set[Cell] = set()
    for number in tables_of(dataset):
        known.update(cells_of(error_table(number, dataset)))
    extras = [cell for cell in cells_of(runs) if cell not in known]
    return sorted(cell for cell in extras if _home_table(cell[0], dataset) == table)


def table_cells(table: int, dataset: str, *frames: pd.DataFrame) -> list[Cell]:
    """The cells of one table, smallest imbalance first: the paper's, then what only we ran."""
    cells = cells_of(error_table(table, dataset))
    for runs in frames:
        cells += [cell for cell in extra_cells(table, dataset, runs) if cell not in cells]
    return by_condition(cells)


def tables_run(dataset: str, runs: pd.DataFrame) -> list[int]:
    """The paper's tables with a cell that ``runs`` hold and no earlier table shows."""
    left = set(cells_of(runs))
    tables = []
    for table in tables_of(dataset):
        shown = {*cells_of(error_table(table, dataset)), *extra_cells(table, dataset, runs)}
        if left & shown:
            tables.append(table)
        left -= shown
    return tables


def paper_summary(table: int, dataset: str, cell: Cell) -> Summary:
    """The paper's mean and spread of one cell, empty where it has none; its n is not given."""
    rows = error_table(table, dataset)
    rows = rows[(rows[CELL] == list(cell)).all(axis=1)]
    if rows.empty:
        return Summary()
    return Summary(float(rows["value"].iloc[0]), float(rows["std"].iloc[0]))


def our_summary(runs: pd.DataFrame, cell: Cell, column: str) -> Summary:
    """Mean and spread of one cell over our seeds."""
    return summarize(list(errors_by_seed(runs, *cell, column)))


def by_condition(cells: Sequence[Cell]) -> list[Cell]:
    """Group the cells of one condition, smallest imbalance first, else in the given order."""
    return sorted(cells, key=lambda cell: float(cell[2]) if cell[2].isdigit() else math.inf)


def _row(table: int, dataset: str, cell: Cell, frames: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    paper = paper_summary(table, dataset, cell)
    ours = [
        (our_summary(runs, cell, "error_last"), our_summary(runs, cell, "error_best"))
        for runs in frames
    ]
    texts = [run_name(cell[0], cell[1]), cell[2]]
    texts.append(NOT_IN_PAPER if math.isnan(paper.mean) else str(paper))
    for last, best in ours:
        texts += [last.with_n(), signed(last.mean - paper.mean), best.with_n()]
    return tuple(texts)


def _epochs_note(runs: pd.DataFrame) -> str:
    """``100 epochs each``, and how long the second stages are where there are any."""
    stages = runs["method"].map(stage_of)
    texts = []
    for stage, epochs in runs["epochs"].groupby(stages):
        count = int(epochs.max())
        unit = "epoch" if count == 1 else "epochs"
        where = f" in the second stage of {stage_name(stage)}" if stage else ""
        texts.append(f"{count} {unit} each{where}")
    return ", ".join(texts)


def runs_note(runs: pd.DataFrame, dataset: str) -> str:
    """How many runs of how many epochs a table is made from."""
    if runs.empty:
        return "No run of this experiment is recorded yet."
    return f"{len(runs)} recorded runs of {dataset_name(dataset)}, {_epochs_note(runs)}."


_NUMBERS: Final = (
    "Test error in %, mean ± sample standard deviation (number of seeds). Gap: ours at the last "
    "epoch minus the paper's, in points. The best epoch is chosen on the difficulty set, never on "
    "the test set."
)


def _conditions_run(
    cells: Sequence[Cell], frames: Sequence[pd.DataFrame]
) -> tuple[list[Cell], list[str]]:
    """The cells whose condition has any run, and the other conditions; without a run all cells."""
    run = {condition for runs in frames for condition in runs["condition"]}
    shown = [cell for cell in cells if cell[2] in run]
    if not shown:
        return list(cells), []
    return shown, list(dict.fromkeys(cell[2] for cell in cells if cell[2] not in run))


def comparison_grid(
    name: str,
    table: int,
    dataset: str,
    published: pd.DataFrame,
    local: pd.DataFrame | None = None,
    group: str = "",
) -> Grid:
    """One of the paper's error tables beside our runs.

    Args:
        name: the block's name.
        table: the paper's number, 1-4.
        dataset: such as ``mnist-lt``.
        published: frame of the committed records.
        local: frame of this machine's runs, shown in columns of their own when given.
        group: whose runs; without one the data set's own.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    given = [frame for frame in (published, local) if frame is not None]
    frames = [group_runs(frame, dataset, group or dataset) for frame in given]
    header = ["Method", "Imbalance", "Paper"]
    for owner in ("Ours", "This machine")[: len(frames)]:
        header += [f"{owner}, last epoch", "Gap", f"{owner}, best epoch"]
    notes = [_NUMBERS, runs_note(frames[0], dataset)]
    if local is not None:
        notes.append("This machine: " + runs_note(frames[1], dataset))
    cells, left_out = _conditions_run(table_cells(table, dataset, *frames), frames)
    if left_out:
        notes.append(f"Not run at imbalance {', '.join(left_out)}.")
    return Grid(
        name,
        f"Table {table}, {dataset_name(dataset)}: {TITLES[table]}",
        tuple(header),
        tuple(_row(table, dataset, cell, frames) for cell in cells),
        " ".join(notes),
    )
