"""Fig. 4: hard instances per shot group over the training, focal and CDB-W-CE.

Shapes: E epochs.
"""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.claims.cells import CDB_W_CE, FOCAL, Run
from analysis.figures.experiment import SHOT_COLOURS, Experiment
from analysis.figures.style import heading_above, legend_below, panels
from analysis.hard_instances import counts_hard_instances, group_masks, hard_by_shot
from analysis.words import run_name

METHODS: Final = (FOCAL, CDB_W_CE)
_DASHES: Final = {"many": "-", "medium": "--", "few": "-."}


def lacks(experiment: Experiment) -> str:
    """What the figure needs and the runs do not have; empty when it can be drawn."""
    condition = experiment.condition
    absent = experiment.lacks(*METHODS, condition=condition)
    if absent:
        return absent
    for run in METHODS:
        if not any(map(counts_hard_instances, experiment.cells.records(run, condition))):
            return f"no run of {run_name(*run)} at {condition} that counted its hard instances"
    return ""


def _courses(experiment: Experiment, run: Run) -> list[dict[str, np.ndarray]]:
    records = experiment.cells.records(run, experiment.condition)
    counted = [hard_by_shot(record) for record in records]
    return [course for course in counted if course is not None]


def _lines(axes: Axes, courses: list[dict[str, np.ndarray]]) -> None:
    """Mean over seeds, and one standard deviation either side when there are several."""
    for name in courses[0]:
        values = np.stack([course[name] for course in courses])
        epochs = np.arange(1, values.shape[1] + 1)
        mean, colour = values.mean(axis=0), SHOT_COLOURS[name]
        axes.plot(epochs, mean, color=colour, linestyle=_DASHES[name], label=name)
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            low = np.maximum(mean - spread, 0.0)
            axes.fill_between(epochs, low, mean + spread, color=colour, alpha=0.2, linewidth=0)
        axes.set_xlim(1, max(2, len(epochs)))


def draw(experiment: Experiment) -> Figure:
    """Mean number per class of each group; below the same in powers of ten, where lines cross."""
    figure, axes = panels(2, 2, 10.0, 7.2)
    courses = [_courses(experiment, run) for run in METHODS]
    for index, panel in enumerate(axes):
        run = METHODS[index % 2]
        _lines(panel, courses[index % 2])
        scale = ""
        if index >= 2:
            scale = ", logarithmic"
            # Below 1 the scale is linear, down to 0.
            panel.set_yscale("symlog", linthresh=1.0)
        panel.set(title=run_name(*run), xlabel="epoch", ylabel=f"hard instances per class{scale}")
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    record = experiment.cells.records(FOCAL, experiment.condition)[0]
    sizes = {name: int(mask.sum()) for name, mask in group_masks(record).items()}
    handles, names = axes[0].get_legend_handles_labels()
    labels = [f"{name}-shot, {sizes[name]} classes" for name in names]
    legend_below(figure, handles, labels, columns=3)
    what = "Average number of hard instances (weight above 0.8) per class"
    # A single seed has no band.
    what += "; band: ± std over seeds" if axes[0].collections or axes[1].collections else ""
    heading_above(figure, experiment.heading(what, experiment.condition, *METHODS))
    return figure
