"""Fig. 2: effect of tau on the weight that a class gets (Eq. 4)."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.core import weights_over_accuracy
from analysis.figures.style import BLACK, CYCLE, GREY, panels

TAUS = (0.0, 0.5, 1.0, 1.5, 2.0, 5.0)
# Where along the curve its name stands, as a class accuracy.
_LABEL_AT = (0.50, 0.62, 0.54, 0.44, 0.30, 0.17)
_POINTS = 401
_STYLES = ("--", "-", "-", "-", "-", "-")


def _curve(axes: Axes, index: int, tau: float) -> None:
    accuracy, weights = weights_over_accuracy(tau, _POINTS)
    colour = GREY if tau == 0 else (*CYCLE[:5], BLACK)[index - 1]
    axes.plot(accuracy, weights, _STYLES[index], color=colour)
    name = "τ = 0 (no weighting)" if tau == 0 else f"τ = {tau:g}"
    at = int(np.argmin(np.abs(accuracy - _LABEL_AT[index])))
    axes.annotate(
        name, (accuracy[at], weights[at]), ha="center", va="center", color=colour,
        fontsize=9.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip


def _one_minus(values: Any) -> Any:
    """Eq. 2, and its own inverse."""
    return 1.0 - values


def draw() -> Figure:
    """Weight over class accuracy, one curve per fixed tau of Tables 2 and 3."""
    figure, (axes,) = panels(1, 1, 6.4, 4.6)
    for index, tau in enumerate(TAUS):
        _curve(axes, index, tau)
    axes.set(xlim=(0, 1), ylim=(0, 1.04))
    axes.set_xlabel("class accuracy $A_c$ (fraction)")
    axes.set_ylabel(r"class weight $w_c = (1 - A_c)^\tau$")
    difficulty = axes.secondary_xaxis("top", functions=(_one_minus, _one_minus))
    difficulty.set_xlabel("class difficulty $d_c = 1 - A_c$")
    return figure
