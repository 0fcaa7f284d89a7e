"""Table 1 as a figure: every method's error, the paper's and ours side by side."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from analysis.comparison import error_table
from analysis.figures.points import legend, plot_series, series_of, start_at_zero
from analysis.figures.style import heading_above, panels
from analysis.words import dataset_name, method_name


def draw(dataset: str, ours: Mapping[str, pd.DataFrame]) -> Figure:
    """Error of each method of Table 1 at the last epoch, a panel per imbalance.

    Args:
        dataset: such as ``mnist-lt``.
        ours: frames by the name of their series (see ``points.SERIES``).
    """
    rows = error_table(1, dataset)
    conditions = list(dict.fromkeys(rows["condition"]))
    figure, axes = panels(1, len(conditions), 1.2 + 3.9 * len(conditions), 4.9)
    drawn = []
    for panel, condition in zip(axes, conditions, strict=True):
        chosen = rows[rows["condition"] == condition]
        cells = [
            (m, v, condition) for m, v in zip(chosen["method"], chosen["variant"], strict=True)
        ]
        drawn.append(series_of(1, dataset, cells, ours))
        plot_series(panel, drawn[-1], across=True)
        panel.set_yticks(range(len(cells)), [method_name(cell[0]) for cell in cells])
        panel.set_ylim(len(cells) - 0.4, -0.6)
        start_at_zero(panel, across=True)
        panel.set(xlabel="test error at the last epoch (%)", title=f"imbalance {condition}")
        panel.grid(axis="y", visible=False)
    heading_above(figure, f"{dataset_name(dataset)}, mean ± standard deviation")
    legend(figure, drawn)
    return figure
