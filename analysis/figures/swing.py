"""How CIFAR100-LT's class weights and accuracies move from epoch to epoch, steadied and not.

Shapes: E epochs.
"""

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import CYCLE, GREY, heading_above, legend_below, panels
from analysis.records import Record
from analysis.steadiers import (
    GROUPS,
    Setting,
    changes,
    far_weights,
    law_of,
    steadied_runs,
    steadier_of,
)
from analysis.words import method_name

_GROUP: Final = GROUPS["steadiers-cifar100"]
_SMOOTHED: Final = 5
Measure = Callable[[Record], np.ndarray]
"""A number for each epoch but the first, (E - 1,)."""
_PANELS: Final[tuple[tuple[str, str, Measure], ...]] = (
    ("Weights that change by over 3 times", "classes (%)", far_weights),
    ("A class's accuracy, mean change", "points", changes),
)


def lacks(frame: pd.DataFrame) -> bool:
    """Whether no run is steadied."""
    return not len(steadied_runs(frame, _GROUP))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over five epochs, (E - 1,) -> (E - 5,); (0,) where there are fewer."""
    if len(values) < _SMOOTHED:
        return np.zeros(0)
    return np.convolve(values, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")


def _settings(runs: pd.DataFrame) -> dict[Setting, pd.DataFrame]:
    """Cross-entropy, then the best on the difficulty set, as many as there are colours.

    What is not steadied stands before what is.
    """
    found = {
        (str(method), str(variant)): same
        for (method, variant), same in runs.groupby(["method", "variant"], sort=True)
        if variant or method == "ce"
    }
    plain = {setting: same for setting, same in found.items() if setting[0] == "ce"}
    errors = {s: float(r["difficulty_error_last"].mean()) for s, r in found.items() if s[1]}
    best = sorted(errors, key=lambda setting: errors[setting])[: len(CYCLE)]
    order = sorted(best, key=lambda setting: (steadier_of(setting[1]) != "none", setting))
    return plain | {setting: found[setting] for setting in order}


def _name(setting: Setting, seeds: int) -> str:
    method, variant = setting
    parts = [method_name(method)]
    if variant:
        steadier = steadier_of(variant)
        parts += [law_of(variant), "no steadier" if steadier == "none" else steadier]
    return f"{', '.join(parts)} ({seeds} seed{'s' * (seeds != 1)})"


def _line(axes: Axes, records: Iterable[Record], measure: Measure, colour: str) -> None:
    """The mean over the seeds."""
    curves = [_smoothed(measure(record)) for record in records]
    if all(len(curve) for curve in curves):
        mean = np.mean(curves, axis=0)
        axes.plot(np.arange(len(mean)) + _SMOOTHED, mean, color=colour, linewidth=1.3)


def draw(frame: pd.DataFrame) -> Figure:
    """Two panels over the epochs, a line a setting.

    Args:
        frame: runs, of which some are steadied.
    """
    settings = _settings(steadied_runs(frame, _GROUP))
    colours = dict(zip(settings, [GREY, *CYCLE], strict=False))
    figure, axes = panels(1, 2, 9.2, 4.2)
    for panel, (title, unit, measure) in zip(axes, _PANELS, strict=True):
        for setting, runs in settings.items():
            _line(panel, runs["record"], measure, colours[setting])
        panel.set(title=title, xlabel="epoch", ylabel=unit)
        panel.set_ylim(bottom=0)
    handles = [axes[0].plot([], [], color=colour)[0] for colour in colours.values()]
    names = [_name(setting, len(runs)) for setting, runs in settings.items()]
    legend_below(figure, handles, names, 3)
    heading_above(
        figure, "CIFAR100-LT, imbalance 100, weight decay 5e-4: change from the epoch before"
    )
    return figure
