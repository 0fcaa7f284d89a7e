"""Tables 2 and 3 as a figure: error over tau, the paper's and ours side by side."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.comparison import Cell, cells_of, error_table, extra_cells
from analysis.figures.points import legend, plot_series, series_of, start_at_zero
from analysis.figures.style import GREY, heading_above, panels
from analysis.records import paper_runs
from analysis.summary import Summary
from analysis.words import dataset_name, method_name
from common.training.drawing import drawn


def _cells(
    table: int, dataset: str, condition: str, ours: Mapping[str, pd.DataFrame]
) -> list[Cell]:
    rows = error_table(table, dataset)
    cells = cells_of(rows[rows["condition"] == condition])
    for frame in ours.values():
        extras = extra_cells(table, dataset, paper_runs(frame, dataset))
        cells += [cell for cell in extras if cell[2] == condition and cell not in cells]
    # A variant of more words departs from the paper in more than tau.
    return [cell for cell in cells if " " not in cell[1]]


def _is_fixed(cell: Cell) -> bool:
    return cell[1].removeprefix("tau=").replace(".", "").isdigit()


def _panel(
    axes: Axes, table: int, dataset: str, condition: str, ours: Mapping[str, pd.DataFrame]
) -> dict[str, list[Summary]]:
    cells = _cells(table, dataset, condition, ours)
    series = series_of(table, dataset, cells, ours)
    plot_series(axes, series, across=False)
    names = [drawn(cell[1].removeprefix("tau=")) for cell in cells]
    look: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(cells)), names, parse_math=False, **look)
    axes.axvline(sum(map(_is_fixed, cells)) - 0.5, color=GREY, linewidth=0.9, linestyle=":")
    axes.set(ylabel="test error (%)", title=f"{method_name(cells[0][0])}, imbalance {condition}")
    start_at_zero(axes, across=False)
    axes.grid(axis="x", visible=False)
    return series


def draw(dataset: str, ours: Mapping[str, pd.DataFrame]) -> Figure:
    """Error at the last epoch over fixed and dynamic tau, a row per imbalance, a column per method.

    Args:
        dataset: such as ``mnist-lt``.
        ours: frames by the name of their series (see ``points.SERIES``).
    """
    conditions = list(dict.fromkeys(error_table(2, dataset)["condition"]))
    figure, axes = panels(len(conditions), 2, 9.6, 3.8 * len(conditions))
    wanted = [(table, condition) for condition in conditions for table in (2, 3)]
    series = [
        _panel(panel, table, dataset, condition, ours)
        for panel, (table, condition) in zip(axes, wanted, strict=True)
    ]
    legend(figure, series)
    title = "error at the last epoch over τ (left of the dotted line: fixed; right: dynamic)"
    heading_above(figure, f"{dataset_name(dataset)}, {title}")
    return figure
