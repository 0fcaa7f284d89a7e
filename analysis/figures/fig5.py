"""Fig. 5: shot-wise accuracy of focal loss v/s CDB-W-CE."""

import math
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.claims.cells import CDB_W_CE, FOCAL, Run
from analysis.figures.experiment import Experiment
from analysis.figures.style import BLACK, GREY, OUR_COLOUR, heading_above, legend_below, panels
from analysis.records import SHOTS
from analysis.summary import Summary, summarize
from analysis.words import number, run_name

METHODS: Final = (FOCAL, CDB_W_CE)
_COLOURS: Final = (GREY, OUR_COLOUR)
_GROUPS: Final = (*SHOTS, "all")
_WIDTH: Final = 0.38


def lacks(experiment: Experiment) -> str:
    """What the figure needs and the runs do not have; empty when it can be drawn."""
    return experiment.lacks(*METHODS, condition=experiment.condition)


def accuracies(experiment: Experiment, run: Run) -> list[Summary]:
    """Percent of many-, medium-, few-shot and all classes over the seeds; empty without a class."""
    values = [experiment.cells.values(run, experiment.condition, group) for group in _GROUPS]
    return [summarize(list(column)) for column in values]


def _bars(axes: Axes, shift: float, summaries: list[Summary], colour: str, name: str) -> None:
    known = [(i + shift, s) for i, s in enumerate(summaries) if s.n]
    where, heights = [x for x, _ in known], [s.mean for _, s in known]
    half = [0.0 if math.isnan(s.half_width()) else s.half_width() for _, s in known]
    axes.bar(where, heights, _WIDTH, color=colour, label=name)
    if any(half):
        # An accuracy ends at 0, however wide the interval of few seeds is.
        lower = [min(h, height) for h, height in zip(half, heights, strict=True)]
        axes.errorbar(where, heights, yerr=[lower, half], fmt="none", ecolor=BLACK, capsize=3)
    for x, height, reach in zip(where, heights, half, strict=True):
        axes.text(x, height + reach + 1.2, number(height, 1), ha="center", fontsize=9)


def draw(experiment: Experiment) -> Figure:
    """Grouped bars at the last epoch with 95 % t-intervals over seeds."""
    figure, (axes,) = panels(1, 1, 8.0, 4.8)
    for index, (run, colour) in enumerate(zip(METHODS, _COLOURS, strict=True)):
        shift = (index - 0.5) * (_WIDTH + 0.03)
        _bars(axes, shift, accuracies(experiment, run), colour, run_name(*run))
    axes.set_xticks(range(len(_GROUPS)), [f"{g}-shot" if g in SHOTS else g for g in _GROUPS])
    axes.set(ylabel="test accuracy (%)", ylim=(0, 100))
    axes.grid(axis="x", visible=False)
    legend_below(figure, *axes.get_legend_handles_labels(), columns=2)
    what = "Shot-wise accuracy at the last epoch"
    what += " (95 % t-interval over seeds)" if axes.collections else ""
    heading_above(figure, experiment.heading(what, experiment.condition, *METHODS))
    return figure
