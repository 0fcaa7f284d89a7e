"""Detection on LVIS v0.5: the paper's Tables 5 and 6 beside our runs, and the rendered demo's.

One cell of ours is a method, what its weights began as (``pretrained=coco``, ``pretrained=lvis-ce``
for the classifier of a CE model trained anew) and the task: boxes (Table 5, Faster R-CNN) or boxes
and masks (Table 6, Mask R-CNN). In the demo's cells another data set and other first weights stand
in the same places.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pandas as pd

from analysis import metric_tables
from analysis.comparison import Cell, cells_of
from analysis.grid import Grid
from analysis.metric_tables import SPREAD, MetricTable, OurCell, PaperRow
from analysis.records import AP_METRICS, paper_table
from analysis.words import average_name, metric_name, run_name

LVIS: Final = "lvis-v0.5"
DEMO: Final = "digit-scenes"
BOXES, MASKS = "bbox", "bbox+segm"
TITLES: Final = {5: "object detection", 6: "instance segmentation"}
CONDITIONS: Final = {5: BOXES, 6: MASKS}
METRICS: Final = {5: AP_METRICS[:4], 6: AP_METRICS}
_NOTE: Final = (
    "AP in percent over the val set at the last epoch: the mean over IoU thresholds 0.5 to 0.95 "
    "and over the measured categories; AP_r, AP_c and AP_f over the rare (at most 10 training "
    f"images), common (at most 100) and frequent ones; {SPREAD}. There is no best epoch: not every "
    "method measures the difficulty set."
)
_COPIED: Final = (
    "Copied: the paper took the row from another publication. 'Probably mask AP': there these "
    "numbers are of masks."
)
_UNTOLD: Final = (
    "The paper does not say what the models of Table 6 were pretrained on, nor which CDB-W-CE is "
    "its own: below each row stand our runs that may be the same."
)
_PAPER_NOTES: Final = {5: _COPIED, 6: f"{_COPIED} {_UNTOLD}"}


@dataclass(frozen=True)
class Starts:
    """What the weights of a data set's detectors begin as.

    Attributes:
        first: of a whole detector, as in a record's ``variant``.
        dataset: of the models whose classifiers are trained anew, as in a record's ``variant``.
    """

    first: str
    dataset: str

    @property
    def detector(self) -> str:
        """Variant of a detector trained whole."""
        return f"pretrained={self.first}"

    def classifier(self, method: str) -> str:
        """Variant of a classifier trained anew in a model that was trained with ``method``."""
        return f"pretrained={self.dataset}-{method}"

    def translate(self, variant: str) -> str:
        """The variant here that stands in the place of LVIS's: ``pretrained=coco``."""
        name, _, start = variant.partition("=")
        first_stage = start.removeprefix(f"{LVIS_STARTS.dataset}-")
        return f"{name}={self.first}" if first_stage == start else self.classifier(first_stage)


LVIS_STARTS: Final = Starts("coco", "lvis")
DEMO_STARTS: Final = Starts("random", DEMO)

_DETECTOR: Final = LVIS_STARTS.detector
_FROM_CE: Final = LVIS_STARTS.classifier("ce")
_FROM_CDB: Final = LVIS_STARTS.classifier("cdb-w-ce")
_RUNS_OF_TABLE_6: Final = {
    "mask-rcnn": (("ce", _DETECTOR),),
    "rfs": (("rfs", _DETECTOR),),
    "calib": (("calib", _FROM_CE),),
    "simcal": (("simcal", _FROM_CE),),
    "eql": (("eql", _DETECTOR),),
    # Li et al. (2020) train the classifier of a CE model anew.
    "bags": (("bags-clc", _FROM_CE),),
    "cdb-w-ce": (("cdb-w-ce-clc", _FROM_CDB), ("cdb-w-ce", _DETECTOR)),
}
"""Methods and variants of ours that a row of Table 6 may be."""


def detection_rows(table: int) -> pd.DataFrame:
    """The paper's rows of Table 5 or 6, in the paper's order."""
    rows = paper_table()
    return rows[(rows["table"] == table) & (rows["dataset"] == LVIS)]


def paper_runs_of(table: int) -> list[tuple[str, str]]:
    """Method and variant of the paper's rows of Table 5 or 6, in the paper's order."""
    rows = detection_rows(table)[["method", "variant"]]
    return list(dict.fromkeys(rows.itertuples(index=False, name=None)))


def paper_values(table: int, method: str, variant: str) -> dict[str, float]:
    """The paper's numbers of one row in percent, by metric of a frame's columns."""
    rows = _rows_of(table, method, variant)
    names = rows["condition"] + "_" + rows["metric"]
    return dict(zip(names, map(float, rows["value"]), strict=True))


def _rows_of(table: int, method: str, variant: str) -> pd.DataFrame:
    rows = detection_rows(table)
    return rows[(rows["method"] == method) & (rows["variant"] == variant)]


def _remark(table: int, method: str, variant: str) -> str:
    """What is known of the row: ``copied``, ``copied; probably mask AP``."""
    remarks = dict.fromkeys(_rows_of(table, method, variant)["note"])
    texts = [re.sub(r" \(see .*?\)", "", text) for text in remarks]
    return "; ".join(filter(None, texts))


def our_runs_of(table: int, method: str, variant: str) -> tuple[tuple[str, str], ...]:
    """Methods and variants of ours that a row of the paper may be."""
    return _RUNS_OF_TABLE_6[method] if table == 6 else ((method, variant),)


def _our_cell(cell: Cell) -> OurCell:
    return OurCell(run_name(cell[0], cell[1]), cell)


def _paper_row(table: int, method: str, variant: str) -> PaperRow:
    ours = [(*run, CONDITIONS[table]) for run in our_runs_of(table, method, variant)]
    return PaperRow(
        run_name(method, variant),
        paper_values(table, method, variant),
        tuple(map(_our_cell, ours)),
        _remark(table, method, variant),
    )


def _paper_rows(table: int, frames: Sequence[pd.DataFrame]) -> list[PaperRow]:
    rows = [_paper_row(table, *run) for run in paper_runs_of(table)]
    known = {ours.cell for row in rows for ours in row.ours}
    for runs in frames:
        for cell in sorted(set(cells_of(runs)) - known):
            rows.append(PaperRow(_our_cell(cell).name, {}, (_our_cell(cell),)))
            known.add(cell)
    return rows


def _demo_cells(table: int, runs: pd.DataFrame) -> list[OurCell]:
    """In the order of the paper's rows, then the others."""
    places = [run for row in paper_runs_of(table) for run in our_runs_of(table, *row)]
    known = [(m, DEMO_STARTS.translate(v), CONDITIONS[table]) for m, v in places]
    others = sorted(cell for cell in cells_of(runs) if cell not in known)
    return [_our_cell(cell) for cell in (*known, *others)]


def _header(table: int) -> dict[str, str]:
    """Names of the columns: which of boxes and masks is said where there are both."""
    if table == 5:
        return {metric: average_name(metric.partition("_")[2]) for metric in METRICS[table]}
    names = {metric: metric_name(metric) for metric in METRICS[table]}
    return {metric: name[0].upper() + name[1:] for metric, name in names.items()}


def _table(table: int) -> MetricTable:
    return MetricTable(
        table=table,
        title=TITLES[table],
        dataset=LVIS,
        demo=DEMO,
        stands_for="LVIS",
        metrics=_header(table),
        epochs=("last",),
        note=_NOTE,
        paper_note=_PAPER_NOTES[table],
        rows=partial(_paper_rows, table),
        demo_cells=partial(_demo_cells, table),
        condition=CONDITIONS[table],
    )


TABLES: Final = {table: _table(table) for table in TITLES}
"""Tables 5 and 6."""


def lvis_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes Tables 5 and 6 on LVIS, by block."""
    return metric_tables.beside_paper_makers("lvis", TABLES.values(), frame)


def scenes_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes the rendered demo's tables, by block."""
    return metric_tables.demo_makers(TABLES.values(), frame)
