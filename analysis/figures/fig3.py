"""Fig. 3: the four growth laws of tau over the performance bias (Eqs. 7-10)."""

from matplotlib.figure import Figure

from analysis.core import tau_over_bias
from analysis.figures.style import CYCLE, legend_below, panels

TAU_MAX = 5.0
LAWS = {
    "sigmoid": "sigmoid (Eq. 10)",
    "logarithmic": "logarithmic (Eq. 9)",
    "linear": "linear (Eq. 7)",
    "polynomial": "polynomial, p = 2 (Eq. 8)",
}
_POINTS = 991
_STYLES = ("-", "--", "-.", ":")


def draw() -> Figure:
    """Tau over the whole range of the bias, and its first part, where training mostly is."""
    figure, (whole, start) = panels(1, 2, 9.2, 4.1)
    curves = [tau_over_bias(law, TAU_MAX, _POINTS) for law in LAWS]
    for axes in (whole, start):
        for law, (bias, taus), style, colour in zip(LAWS, curves, _STYLES, CYCLE, strict=False):
            axes.plot(bias, taus, style, color=colour, label=LAWS[law])
        axes.set(ylim=(0, TAU_MAX * 1.04), xlabel="performance bias (no unit)")
    whole.set(xlim=(0, curves[0][0][-1]), ylabel="τ (no unit)", title="whole range")
    start.set(xlim=(0, 10), title="bias 0 to 10")
    legend_below(figure, *whole.get_legend_handles_labels(), columns=4)
    return figure
