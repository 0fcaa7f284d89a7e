"""Confusion matrices on verbs: which class is taken for which, head classes first.

Shapes: C classes, R runs.
"""

from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.claims.cells import CDB_S, CDB_W_CE, CE, Run
from analysis.claims.egtea import SPLIT
from analysis.figures.experiment import Experiment
from analysis.figures.style import ORANGE, heading_above, panels
from analysis.records import Record
from analysis.words import method_name
from common.training.drawing import class_labels

METHODS: Final = (CE, CDB_S, CDB_W_CE)
# Shares from here on are written into their cell, in percent.
_WRITTEN: Final = 0.1
_COLOURS: Final = "Blues"
# From this share on the cell is dark: its number is white.
_DARK: Final = 0.68


def _records(experiment: Experiment, run: Run) -> list[Record]:
    records = experiment.cells.records(run, SPLIT)
    return [record for record in records if "confusion" in record["metrics"]["last"]]


def methods_run(experiment: Experiment) -> list[Run]:
    """Of :data:`METHODS` those that have a run with a confusion matrix."""
    return [run for run in METHODS if _records(experiment, run)]


def lacks(experiment: Experiment) -> str:
    """What the figure needs and the runs do not have; empty when it can be drawn."""
    if methods_run(experiment):
        return ""
    return f"no run of {', '.join(method_name(run[0]) for run in METHODS)} on {SPLIT}"


def class_order(split: dict[str, Any]) -> list[int]:
    """Indices of the C classes: the head, then the tail, each with the most frequent class first.

    Frequency is that of the training set; equal ones keep their order.
    """
    head = set(split["head"])
    return sorted(range(len(split["train"])), key=lambda c: (c not in head, -split["train"][c]))


def confusion_shares(records: list[Record]) -> np.ndarray:
    """Share of each true class's test samples that are predicted as each class, over R runs.

    Args:
        records: R runs on one split.

    Returns:
        Shape (C, C), rows true and columns predicted, at the last epoch; a row sums to 1, and is
        NaN where the class has no test sample.
    """
    counts: np.ndarray = np.sum(
        [r["metrics"]["last"]["confusion"] for r in records], axis=0, dtype=float
    )
    totals = counts.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.full_like(counts, np.nan)
    np.divide(counts, totals, out=shares, where=totals > 0)
    return shares


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(shares >= _WRITTEN), strict=True):
        share = shares[row, column]
        axes.text(
            column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.0,
            color="white" if share > _DARK else "black",
        )  # fmt: skip


def _panel(axes: Axes, records: list[Record], order: list[int]) -> Any:
    shares = confusion_shares(records)[np.ix_(order, order)]
    colours = mpl.colormaps[_COLOURS].with_extremes(bad="#dddddd")
    image = axes.imshow(shares, vmin=0.0, vmax=1.0, cmap=colours, aspect="auto")
    _write_shares(axes, shares)
    split = records[0]["split"]
    # Head | tail.
    border = len(split["head"]) - 0.5
    for line in (axes.axhline, axes.axvline):
        line(border, color=ORANGE, linewidth=1.2)
    labels = class_labels(split["class_names"])
    names = [labels[c] for c in order]
    axes.set_xticks(range(len(order)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(order)), names, fontsize=8, parse_math=False)
    axes.grid(visible=False)
    axes.set(title=method_name(records[0]["method"]), xlabel="predicted")
    return image


def draw(experiment: Experiment) -> Figure:
    """A panel per method: rows are the true class and sum to 1, mean over seeds."""
    runs = methods_run(experiment)
    figure, axes = panels(1, len(runs), 1.8 + 4.6 * len(runs), 7.4)
    order = class_order(_records(experiment, runs[0])[0]["split"])
    for panel, run in zip(axes, runs, strict=True):
        image = _panel(panel, _records(experiment, run), order)
        if panel is not axes[0]:
            panel.set_yticklabels([])
    axes[0].set_ylabel("true (head, then tail; most frequent first)")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7, pad=0.01)
    what = "Confusion on the test set at the last epoch; numbers: percent, from 10 on"
    heading_above(figure, experiment.heading(what, SPLIT, *runs))
    return figure
