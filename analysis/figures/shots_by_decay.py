"""Accuracy by shot group on CIFAR100-LT, with the weight decay as printed and as in the code.

One figure for what a reader should take away: each seed a dot, the paper's totals as lines.
"""

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.comparison import Cell, paper_summary
from analysis.figures.style import BLUE, GREEN, GREY, ORANGE, panels
from analysis.records import SHOTS
from analysis.weight_decay import DATASET, decay_runs
from analysis.words import run_name

CONDITION: Final = "100"
DECAYS: Final = {0.0001: "1e-4, as printed", 0.0005: "5e-4, as in the authors' code"}
# Method, variant, colour and marker; the paper has one CDB-W-CE, and does not say which tau it is.
SERIES: Final = (
    ("ce", "", GREY, "o"),
    ("ldam-drw", "", GREEN, "D"),
    ("cdb-w-ce", "tau=sigmoid", BLUE, "o"),
    ("cdb-w-ce", "tau=sigmoid-accv", ORANGE, "s"),
)
_SHIFT: Final = 0.24
# A number stays readable on the paper's line.
_HALO: Final = (withStroke(linewidth=2.5, foreground="white"),)


def series_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that are shown: of the written recipe, but for the weight decay."""
    runs = decay_runs(frame, every=True)
    return runs[(runs["condition"] == CONDITION) & (runs["other"] == "")]


def lacks(frame: pd.DataFrame) -> bool:
    """Whether a weight decay has no run at all."""
    runs = series_runs(frame)
    return not all((runs["weight_decay"] == decay).any() for decay in DECAYS)


def _dots(axes: Axes, runs: pd.DataFrame, place: int) -> bool:
    method, variant, colour, marker = SERIES[place]
    chosen = runs[(runs["method"] == method) & (runs["variant"] == variant)]
    columns = [*(list(chosen[f"{shot}_last"]) for shot in SHOTS), list(100 - chosen["error_last"])]
    for group, values in enumerate(columns):
        x = group + (place - (len(SERIES) - 1) / 2) * _SHIFT
        axes.plot([x] * len(values), values, marker, color=colour, markersize=6, alpha=0.8)
        if values:
            mean = float(np.mean(values))
            axes.hlines(mean, x - 0.06, x + 0.06, color=colour, linewidth=2)
            axes.annotate(
                f"{mean:.1f}", (x, max(values)), (0, 6), textcoords="offset points",
                ha="center", fontsize=7.5, color=colour, path_effects=_HALO, zorder=4,
            )  # fmt: skip
    return len(chosen) > 0


def _paper_lines(axes: Axes) -> None:
    """The paper's accuracy over all classes, behind the last group."""
    for method, variant, colour, _ in SERIES[:3]:
        cell: Cell = (method, variant, CONDITION)
        accuracy = 100 - paper_summary(1, DATASET, cell).mean
        axes.hlines(accuracy, 2.52, 3.48, color=colour, linestyle=(0, (2, 2)), linewidth=1.2)


def draw(frame: pd.DataFrame) -> Figure:
    """Two panels, a weight decay each; many-, medium-, few-shot and all classes."""
    runs = series_runs(frame)
    figure, axes = panels(1, 2, 9.2, 4.6)
    for panel, (decay, name) in zip(axes, DECAYS.items(), strict=True):
        of_decay = runs[runs["weight_decay"] == decay]
        present = [_dots(panel, of_decay, place) for place in range(len(SERIES))]
        _paper_lines(panel)
        panel.set_xticks(range(4), [*(f"{shot}-shot" for shot in SHOTS), "all"])
        panel.set(title=f"weight decay {name}", ylabel="test accuracy (%)", ylim=(0, 80))
        panel.grid(axis="x", visible=False)
        absent = [run_name(*SERIES[i][:2]) for i, there in enumerate(present) if not there]
        if absent:
            panel.text(
                0.985, 0.97, "not run: " + ", ".join(absent), transform=panel.transAxes,
                ha="right", va="top", fontsize=8, color=GREY,
            )  # fmt: skip
    marks = [
        axes[0].plot([], [], marker, color=colour, label=run_name(method, variant))[0]
        for method, variant, colour, marker in SERIES
    ]
    paper = axes[0].plot(
        [],
        [],
        color=GREY,
        linestyle=(0, (2, 2)),
        label="paper, all classes, in the method's colour",
    )
    figure.legend(handles=[*marks, *paper], loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(
        "CIFAR100-LT, imbalance 100, ResNet-32, 200 epochs: one dot a seed, last epoch", fontsize=11
    )
    return figure
