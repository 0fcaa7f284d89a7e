"""Means with standard deviations, the paper's and ours side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.comparison import Cell, our_summary, paper_summary
from analysis.figures.style import LOCAL_COLOUR, OUR_COLOUR, PAPER_COLOUR, legend_below
from analysis.records import paper_runs
from analysis.summary import Summary

PAPER: Final = "paper"
# Colour and marker of each series.
SERIES: Final = {
    PAPER: (PAPER_COLOUR, "D"),
    "ours, published": (OUR_COLOUR, "o"),
    "ours, this machine": (LOCAL_COLOUR, "s"),
}
_SPACING: Final = 0.24
# Half a marker is under 4 % of a panel.
_ROOM: Final = 1.06


def series_of(
    table: int, dataset: str, cells: Sequence[Cell], ours: Mapping[str, pd.DataFrame]
) -> dict[str, list[Summary]]:
    """The paper's and our last-epoch errors of ``cells``; a series without a value is left out.

    Args:
        table: the paper's table.
        dataset: such as ``mnist-lt``.
        cells: what stands along the axis.
        ours: for each name of :data:`SERIES` but the paper, a frame of runs.
    """
    series = {PAPER: [paper_summary(table, dataset, cell) for cell in cells]}
    for name, frame in ours.items():
        runs = paper_runs(frame, dataset)
        series[name] = [our_summary(runs, cell, "error_last") for cell in cells]
    return {name: s for name, s in series.items() if any(not math.isnan(x.mean) for x in s)}


def _label(name: str, counts: set[int]) -> str:
    if not counts:
        return name
    low, high = min(counts), max(counts)
    return f"{name} (n = {low})" if low == high else f"{name} (n = {low}–{high})"


def legend(figure: Figure, drawn: Sequence[Mapping[str, Sequence[Summary]]]) -> None:
    """One legend for all panels below the figure, with the numbers of seeds.

    Args:
        figure: whose panels :func:`plot_series` filled.
        drawn: the series of every panel.
    """
    handles: dict[Any, Any] = {}
    for axes in figure.axes:
        found, names = axes.get_legend_handles_labels()
        handles |= dict(zip(names, found, strict=True))
    names = [name for name in SERIES if name in handles]
    counts = [{s.n for series in drawn for s in series.get(name, ()) if s.n} for name in names]
    drawn_names = list(map(_label, names, counts))
    legend_below(figure, [handles[name] for name in names], drawn_names, columns=len(SERIES))


def start_at_zero(axes: Axes, *, across: bool) -> None:
    """Let the values' axis begin at 0 and end beyond the largest, whose marker is drawn whole.

    Args:
        axes: which :func:`plot_series` filled.
        across: the values run along x, else along y.
    """
    if across:
        axes.set_xlim(0, _ROOM * axes.dataLim.x1)
    else:
        axes.set_ylim(0, _ROOM * axes.dataLim.y1)


def plot_series(axes: Axes, series: Mapping[str, Sequence[Summary]], *, across: bool) -> None:
    """Draw every series beside the others at positions 0, 1, 2, ...

    Args:
        axes: where.
        series: summaries per name of :data:`SERIES`, all of one length.
        across: the values run along x and the positions down y, else the other way round.
    """
    for name, summaries in series.items():
        shift = (list(SERIES).index(name) - (len(SERIES) - 1) / 2) * _SPACING
        known = [(i + shift, s) for i, s in enumerate(summaries) if not math.isnan(s.mean)]
        where = [position for position, _ in known]
        values = [summary.mean for _, summary in known]
        spread = [0.0 if math.isnan(s.std) else s.std for _, s in known]
        colour, marker = SERIES[name]
        look: dict[str, Any] = {"fmt": marker, "color": colour, "label": name}
        look |= {"markersize": 5.5, "capsize": 2.5, "elinewidth": 1.3}
        if across:
            axes.errorbar(values, where, xerr=spread, **look)
        else:
            axes.errorbar(where, values, yerr=spread, **look)
