"""Verb classification: the paper's Tables 7 and 8 beside our runs, and the rendered demo's.

The demo's tables hold no number of the paper: another data set must never stand beside it.

Shapes: C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pandas as pd

from analysis.comparison import Cell, cells_of, our_summary, runs_note
from analysis.grid import Grid
from analysis.records import (
    CELL,
    VERB_METRICS,
    Record,
    group_runs,
    paper_runs,
    paper_table,
)
from analysis.shots import cost_of, runs_of
from analysis.summary import Summary
from analysis.words import MISSING, NOT_APPLICABLE, dataset_name, method_name, number, run_name

EGTEA: Final = "egtea-verbs"
DEMO: Final = "motion-digits"
CHANCE: Final = "Chance"
TITLES: Final = {7: "all methods", 8: "head and tail verbs"}
METRICS: Final = {7: VERB_METRICS[:4], 8: VERB_METRICS[4:]}
_NAMES: Final = {
    "top1": "Top-1",
    "top5": "Top-5",
    "macro_precision": "Precision",
    "macro_recall": "Recall",
    "head_precision": "Head: precision",
    "head_recall": "Head: recall",
    "tail_precision": "Tail: precision",
    "tail_recall": "Tail: recall",
}
_WHEN: Final = {"last": "last epoch", "best": "best epoch"}
_MEASURES: Final = {
    7: "top-1 and top-5 accuracy over all test clips, macro-averaged precision and recall",
    8: "precision and recall, macro-averaged over the head (the five most frequent verbs of the "
    "training and difficulty sets) and over the tail (all others)",
}
_NUMBERS: Final = (
    "In percent of the test set: {measures}; mean ± sample standard deviation (number of seeds). "
    "The best epoch is chosen on the difficulty set, never on the test set."
)


def verb_rows(table: int) -> pd.DataFrame:
    """The paper's rows of Table 7 or 8, in the paper's order."""
    rows = paper_table()
    return rows[(rows["table"] == table) & (rows["dataset"] == EGTEA)]


def verb_cells(*frames: pd.DataFrame) -> list[Cell]:
    """Method, variant and condition of Table 7's rows, then of what only we ran."""
    cells = cells_of(verb_rows(7))
    for runs in frames:
        cells += sorted(cell for cell in cells_of(runs) if cell not in cells)
    return cells


def paper_value(table: int, cell: Cell, metric: str) -> Summary:
    """The paper's number in percent, empty where it has none; it gives no spread."""
    rows = verb_rows(table)
    rows = rows[(rows[CELL] == list(cell)).all(axis=1) & (rows["metric"] == metric)]
    return Summary() if rows.empty else Summary(float(rows["value"].iloc[0]))


def _name(cell: Cell) -> str:
    """The method; its τ where it is not the paper's of Tables 7 and 8."""
    known = cell in cells_of(verb_rows(7))
    return method_name(cell[0]) if known else run_name(cell[0], cell[1])


def _values(runs: pd.DataFrame, cell: Cell, table: int, epoch: str) -> list[str]:
    return [our_summary(runs, cell, f"{m}_{epoch}").with_n() for m in METRICS[table]]


def _note(table: int) -> str:
    return _NUMBERS.format(measures=_MEASURES[table])


def verbs_grid(
    name: str, table: int, published: pd.DataFrame, local: pd.DataFrame | None = None
) -> Grid:
    """Table 7 or 8 beside our runs on EGTEA: per method the paper's row, then ours.

    Args:
        name: the block's name.
        table: the paper's number, 7 or 8.
        published: frame of the committed records.
        local: frame of this machine's runs, shown in rows of their own when given.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    frames = {"ours": paper_runs(published, EGTEA)}
    if local is not None:
        frames["this machine"] = paper_runs(local, EGTEA)
    rows = []
    for cell in verb_cells(*frames.values()):
        paper = [str(paper_value(table, cell, metric)) for metric in METRICS[table]]
        rows.append((_name(cell), "paper", *paper))
        for owner, runs in frames.items():
            for epoch, when in _WHEN.items():
                rows.append((_name(cell), f"{owner}, {when}", *_values(runs, cell, table, epoch)))
    notes = [_note(table), runs_note(frames["ours"], EGTEA)]
    if local is not None:
        notes.append("This machine: " + runs_note(frames["this machine"], EGTEA))
    header = ("Method", "Whose", *(_NAMES[metric] for metric in METRICS[table]))
    title = f"Table {table}, {dataset_name(EGTEA)}: {TITLES[table]}"
    return Grid(name, title, header, tuple(rows), " ".join(notes), words=(0, 1))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def chance(split: Mapping[str, Any]) -> dict[str, float | None]:
    """What needs no model, in percent, by metric of Tables 7 and 8.

    Top-1 is the share of the most frequent class in the test set, top-5 that of the five most
    frequent. Precision and recall are those of a guess that takes each class equally often: the
    mean share of the classes, and 1/C. A class without a test sample is left out; None where a
    part has no other.

    Args:
        split: a record's, with the test counts of the C classes and the head.
    """
    counts, head = split["test"], set(split["head"])
    measured = [c for c, count in enumerate(counts) if count]
    share = {c: 100.0 * counts[c] / sum(counts) for c in measured}
    largest = sorted(share.values(), reverse=True)
    values: dict[str, float | None] = {"top1": largest[0], "top5": sum(largest[:5])}
    parts = {"macro": measured, "head": [c for c in measured if c in head]}
    parts["tail"] = [c for c in measured if c not in head]
    for part, classes in parts.items():
        values[f"{part}_precision"] = _mean([share[c] for c in classes])
        values[f"{part}_recall"] = 100.0 / len(counts) if classes else None
    return values


def _chance_row(split: Mapping[str, Any], table: int) -> tuple[str, ...]:
    values = chance(split)
    cells = [values[metric] for metric in METRICS[table]]
    texts = [NOT_APPLICABLE if value is None else number(value) for value in cells]
    return (CHANCE, "no model", *texts, MISSING, MISSING, MISSING)


def _splits(runs: pd.DataFrame) -> list[Mapping[str, Any]]:
    """The split of the runs; several when they do not share one."""
    records: dict[str, Record] = {}
    for record in runs["record"]:
        records.setdefault(record["split"]["digest"], record)
    return [record["split"] for record in records.values()]


_CHANCE_NOTE: Final = {
    7: "Chance: top-1 is the share of the most frequent class in the test set, top-5 that of the "
    "five most frequent; precision and recall are a random guess's, 1/C.",
    8: "Chance: a guess that takes each class equally often has recall 1/C and as precision the "
    "mean share of the classes in the test set.",
}


def demo_grid(name: str, table: int, frame: pd.DataFrame) -> Grid:
    """The measures of Table 7 or 8 on the rendered demo, with chance and what a run costs.

    Args:
        name: the block's name.
        table: the paper's number, 7 or 8: only which measures are shown.
        frame: runs.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    runs = group_runs(frame, DEMO, DEMO)
    run = set(cells_of(runs))
    rows = [_chance_row(split, table) for split in _splits(runs)]
    for cell in (cell for cell in verb_cells(runs) if cell in run):
        for epoch, when in _WHEN.items():
            values = _values(runs, cell, table, epoch)
            rows.append((_name(cell), when, *values, *cost_of(runs_of(runs, cell))))
    metrics = (_NAMES[metric] for metric in METRICS[table])
    header = ("Method", "Epoch", *metrics, "Epochs", "Seconds a run", "Hardware")
    apart = f"Rendered demo, not EGTEA and not the paper's setting. {_note(table)}"
    note = f"{apart} {_CHANCE_NOTE[table]} " if rows else ""
    return Grid(
        name,
        f"Rendered demo, {dataset_name(DEMO)}: {TITLES[table]}",
        header,
        tuple(rows),
        note + runs_note(runs, DEMO),
        words=(0, 1, len(header) - 1),
    )


def verb_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes Tables 7 and 8 on EGTEA, by block."""
    return {f"egtea-table-{t}": partial(verbs_grid, f"egtea-table-{t}", t, frame) for t in TITLES}


def demo_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes the rendered demo's tables, by block."""
    names = {f"{DEMO}-table-{table}": table for table in TITLES}
    return {name: partial(demo_grid, name, table, frame) for name, table in names.items()}
