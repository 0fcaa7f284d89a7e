"""What each law of tau and steadier gains over cross-entropy, a panel a method and set."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import heading_above, panels
from analysis.records import imbalance_of
from analysis.steadiers import (
    GROUPS,
    LAWS,
    STEADIER_NAMES,
    gains,
    steadied_runs,
    steadier_of,
    tau_of,
)
from analysis.steadiers_choice import METHODS, SETS
from analysis.words import condition_name, method_name, signed

_COLOURS: Final = "PuOr_r"
_DEEPEST: Final = 15.0
"""Points from which on the colour is the same."""
_DARK: Final = 0.7
"""From this share of them on a cell is dark: its number is white."""


@dataclass(frozen=True)
class Setup:
    """A set and an imbalance, and its runs."""

    name: str
    condition: str
    runs: pd.DataFrame

    def mean_gains(self, method: str) -> np.ndarray:
        """The mean of :func:`analysis.steadiers.gains` over the seeds.

        Returns:
            Of each law and steadier, (5, 5); NaN where nothing was run.
        """
        found = np.full((len(LAWS), len(STEADIER_NAMES)), math.nan)
        for variant in set(self.runs.loc[self.runs["method"] == method, "variant"]):
            if (steadier := steadier_of(variant)) in STEADIER_NAMES:
                place = LAWS.index(tau_of(variant)), STEADIER_NAMES.index(steadier)
                found[place] = gains(self.runs, (method, variant), self.condition).mean()
        return found


def setups(frame: pd.DataFrame) -> Iterator[Setup]:
    """The sets and imbalances with a run that is steadied, in the order of the page."""
    for name, (block, *_) in SETS.items():
        runs = steadied_runs(frame, GROUPS[block])
        cells = zip(runs["condition"], runs["variant"], strict=True)
        steadied = {condition for condition, variant in cells if steadier_of(variant) != "none"}
        for condition in sorted(steadied, key=imbalance_of):
            yield Setup(name, condition, runs)


def lacks(frame: pd.DataFrame) -> bool:
    """Whether no run is steadied."""
    return not list(setups(frame))


def _panel(axes: Axes, setup: Setup, method: str) -> None:
    means = setup.mean_gains(method)
    colours = mpl.colormaps[_COLOURS].with_extremes(bad="#eeeeee")
    axes.imshow(means, cmap=colours, vmin=-_DEEPEST, vmax=_DEEPEST, aspect="auto")
    for (row, column), gain in np.ndenumerate(means):
        if not math.isnan(gain):
            dark = abs(gain) > _DARK * _DEEPEST
            axes.text(
                column, row, signed(gain, 1), ha="center", va="center", fontsize=8.5,
                color="white" if dark else "black",
            )  # fmt: skip
    axes.set_xticks(range(len(STEADIER_NAMES)), STEADIER_NAMES)
    axes.set_yticks(range(len(LAWS)), [f"τ {law}" for law in LAWS])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{method_name(method)}, {setup.name}, {condition_name(setup.condition)}")


def draw(frame: pd.DataFrame) -> Figure:
    """A column a method, a row a set and imbalance, a cell a law of tau and a steadier.

    Args:
        frame: runs, of which some are steadied.
    """
    found = list(setups(frame))
    figure, axes = panels(len(found), len(METHODS), 10.0, 2.3 * len(found) + 0.4)
    wanted = [(setup, method) for setup in found for method in METHODS]
    for panel, (setup, method) in zip(axes, wanted, strict=True):
        _panel(panel, setup, method)
    heading_above(
        figure,
        "Error on the difficulty set minus cross-entropy's, last epoch, in points: less is better",
    )
    return figure
