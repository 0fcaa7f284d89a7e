"""Verb classification: the paper's Tables 7 and 8 beside our runs, and the rendered demo's.

Shapes: C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pandas as pd

from analysis import metric_tables
from analysis.comparison import Cell, cells_of
from analysis.grid import Grid
from analysis.metric_tables import SPREAD, MetricTable, OurCell, PaperRow
from analysis.records import CELL, EPOCHS, VERB_METRICS, Record, paper_table
from analysis.summary import Summary
from analysis.words import MISSING, NOT_APPLICABLE, method_name, number, run_name

EGTEA: Final = "egtea-verbs"
DEMO: Final = "motion-digits"
ONE_FRAME: Final = "motion-digits-one-frame"
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
_MEASURES: Final = {
    7: "top-1 and top-5 accuracy over all test clips, macro-averaged precision and recall",
    8: "precision and recall, macro-averaged over the head (the five most frequent verbs of the "
    "training and difficulty sets) and over the tail (all others)",
}
_NUMBERS: Final = (
    f"In percent of the test set: {{measures}}; {SPREAD}. "
    "The best epoch is chosen on the difficulty set, never on the test set."
)
_CHANCE_NOTE: Final = {
    7: "Chance: top-1 is the share of the most frequent class in the test set, top-5 that of the "
    "five most frequent; precision and recall are a random guess's, 1/C.",
    8: "Chance: a guess that takes each class equally often has recall 1/C and as precision the "
    "mean share of the classes in the test set.",
}


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


def _paper_values(table: int, cell: Cell) -> dict[str, float]:
    """The paper's numbers of one cell in percent, by metric; it gives no spread."""
    rows = verb_rows(table)
    rows = rows[(rows[CELL] == list(cell)).all(axis=1)]
    return dict(zip(rows["metric"], map(float, rows["value"]), strict=True))


def paper_value(table: int, cell: Cell, metric: str) -> Summary:
    """The paper's number in percent, empty where it has none; it gives no spread."""
    values = _paper_values(table, cell)
    return Summary(values[metric]) if metric in values else Summary()


def _name(cell: Cell) -> str:
    """The method; its τ where it is not the paper's of Tables 7 and 8."""
    known = cell in cells_of(verb_rows(7))
    return method_name(cell[0]) if known else run_name(cell[0], cell[1])


def _paper_rows(table: int, frames: Sequence[pd.DataFrame]) -> list[PaperRow]:
    return [
        PaperRow(_name(cell), _paper_values(table, cell), (OurCell(_name(cell), cell),))
        for cell in verb_cells(*frames)
    ]


def _demo_cells(runs: pd.DataFrame) -> list[OurCell]:
    return [OurCell(_name(cell), cell) for cell in verb_cells(runs)]


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
    return (CHANCE, "no model", *texts, MISSING)


def _splits(runs: pd.DataFrame) -> list[Mapping[str, Any]]:
    """The split of the runs; several when they do not share one."""
    records: dict[str, Record] = {}
    for record in runs["record"]:
        records.setdefault(record["split"]["digest"], record)
    return [record["split"] for record in records.values()]


def _chance_rows(table: int, runs: pd.DataFrame) -> list[tuple[str, ...]]:
    return [_chance_row(split, table) for split in _splits(runs)]


def _table(table: int) -> MetricTable:
    return MetricTable(
        table=table,
        title=TITLES[table],
        dataset=EGTEA,
        demo=DEMO,
        stands_for="EGTEA",
        metrics={metric: _NAMES[metric] for metric in METRICS[table]},
        epochs=EPOCHS,
        note=_NUMBERS.format(measures=_MEASURES[table]),
        rows=partial(_paper_rows, table),
        demo_cells=_demo_cells,
        demo_head=partial(_chance_rows, table),
        demo_note=_CHANCE_NOTE[table],
    )


TABLES: Final = {table: _table(table) for table in TITLES}
"""Tables 7 and 8."""


def one_frame_sentence(frame: pd.DataFrame) -> str:
    """What the network makes of one frame of each clip of the rendered demo."""
    runs = frame[frame["group"] == ONE_FRAME]
    if runs.empty:
        return "No run on one frame is recorded yet."
    top1, recall = (number(runs[f"{name}_last"].mean()) for name in ("top1", "macro_recall"))
    return (
        f"On one frame of each clip CE has {top1} % of the test clips right, and a macro recall of "
        f"{recall} % (last epoch, seeds: {len(runs)})."
    )


def verb_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes Tables 7 and 8 on EGTEA, by block."""
    return metric_tables.beside_paper_makers("egtea", TABLES.values(), frame)


def demo_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes the rendered demo's tables, by block."""
    return metric_tables.demo_makers(TABLES.values(), frame)
