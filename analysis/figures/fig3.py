"""Fig. 3: the four growth laws of tau over the performance bias (Eqs. 7-10)."""

import numpy as np
import torch
from matplotlib.figure import Figure

from analysis.figures.style import CYCLE, legend_below, panels
from common.tau import TAU_LAWS, LawOptions, bias_bound

LAWS = {
    "sigmoid (Eq. 10)": TAU_LAWS["sigmoid"],
    "logarithmic (Eq. 9)": TAU_LAWS["logarithmic"],
    "linear (Eq. 7)": TAU_LAWS["linear"],
    "polynomial, p = 2 (Eq. 8)": TAU_LAWS["polynomial"],
}
_OPTIONS = LawOptions()
_STYLES = ("-", "--", "-.", ":")


def tau_over_bias(law: str, points: int = 991) -> tuple[np.ndarray, np.ndarray]:
    """Biases from 0 to 1/eps - 1 = 99 and the law's tau for T_M = 5, each of shape (points,)."""
    bias = torch.linspace(0.0, bias_bound(), points, dtype=torch.float64)
    return bias.numpy(), LAWS[law](bias + 1.0, _OPTIONS).numpy()


def draw() -> Figure:
    """Tau over the whole range of the bias, and its first part, where training mostly is."""
    figure, (whole, start) = panels(1, 2, 9.2, 4.1)
    for axes in (whole, start):
        for (law, style), colour in zip(zip(LAWS, _STYLES, strict=True), CYCLE, strict=False):
            axes.plot(*tau_over_bias(law), style, color=colour, label=law)
        axes.set(ylim=(0, _OPTIONS.tau_max * 1.04), xlabel="performance bias (no unit)")
    whole.set(xlim=(0, bias_bound()), ylabel="τ (no unit)", title="whole range")
    start.set(xlim=(0, 10), title="bias 0 to 10")
    legend_below(figure, *whole.get_legend_handles_labels(), columns=4)
    return figure
