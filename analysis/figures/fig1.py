"""Fig. 1: class frequency, and class accuracy of the CE model in order of frequency."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.claims.cells import CE
from analysis.claims.imagenet import DEMO_IMBALANCE, IMBALANCE
from analysis.class_accuracy import (
    ClassAccuracy,
    class_accuracy,
    rank_correlation,
    tail_above_head,
)
from analysis.figures.experiment import SHOT_COLOURS, Experiment
from analysis.figures.style import BLACK, heading_above, legend_below, panels
from analysis.images import DEMO, IMAGENET
from analysis.words import number
from common.shots import shot_groups

CONDITIONS: Final = {"cifar100-lt": "100", IMAGENET: IMBALANCE, DEMO: DEMO_IMBALANCE}


def lacks(experiment: Experiment) -> str:
    """What the figure needs and the runs do not have; empty when it can be drawn."""
    return experiment.lacks(CE, condition=CONDITIONS[experiment.dataset])


def _bars(axes: Axes, heights: np.ndarray, counts: np.ndarray, *, means: bool) -> None:
    """One bar per class in the colour of its shot group, and each group's mean."""
    for name, mask in shot_groups(counts).items():
        where = np.flatnonzero(mask)
        if not len(where):
            continue
        label = f"{name}-shot, {len(where)} class{'es' * (len(where) != 1)}"
        axes.bar(where + 1, heights[where], width=1.0, color=SHOT_COLOURS[name], label=label)
        if means:
            mean = float(heights[where].mean())
            axes.hlines(mean, where[0] + 0.5, where[-1] + 1.5, color=BLACK, linewidth=1.4)
    axes.set(xlim=(0.5, len(heights) + 0.5), xlabel="class, most frequent first")
    axes.grid(axis="x", visible=False)


def _sentence(found: ClassAccuracy) -> str:
    share = tail_above_head(found)
    text = f"rank correlation with the count {rank_correlation(found)}"
    if np.isnan(share):
        return text
    return f"{text}\n{number(100 * share, 1)} % of the few-shot classes above the many-shot median"


def draw(experiment: Experiment) -> Figure:
    """Training samples of each class, and its test accuracy; lines are the groups' means."""
    condition = CONDITIONS[experiment.dataset]
    found = class_accuracy(experiment.cells.records(CE, condition), "last")
    assert found is not None, "lacks() was not asked"
    order = np.argsort(-found.counts, kind="stable")
    counts, accuracy = found.counts[order], found.accuracy[order]
    figure, (frequency, correct) = panels(1, 2, 11.0, 4.6)
    _bars(frequency, counts, counts, means=False)
    frequency.set(ylabel="training samples $N_c$", title="a  Long-tailed distribution")
    _bars(correct, accuracy, counts, means=True)
    # Room above the bars for the sentence.
    correct.set(ylabel="test accuracy $A_c$ (fraction)", title="b  Class accuracy, CE")
    correct.set(ylim=(0, 1.2), yticks=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    correct.text(
        0.985, 0.97, _sentence(found), transform=correct.transAxes, ha="right", va="top",
        fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    legend_below(figure, *frequency.get_legend_handles_labels(), columns=3)
    what = "Class frequency and accuracy at the last epoch (line: mean of the group)"
    heading_above(figure, experiment.heading(what, condition, CE))
    return figure
