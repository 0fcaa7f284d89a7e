"""The course of one run: loss, accuracy, difficulty, tau and weights, epoch by epoch.

Shapes: E epochs, C classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.core import courses
from analysis.figures.style import CYCLE, GREY, heading_above, legend_below, panels
from analysis.records import AP_METRICS, Record, as_array
from analysis.words import condition_name, dataset_name, metric_name, number, run_name
from common.shots import shot_groups
from common.training.drawing import class_labels, numbered_classes

# Up to this many classes each has a line; above, a median and quartiles per group of classes.
MAX_LINES: Final = 10
# Up to this many epochs are marked by points.
SHORT_RUN: Final = 5
# Thin: the accuracy of a rare class swings from epoch to epoch.
_LINE_WIDTH: Final = 1.2
_DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def _marker(epochs: int) -> str:
    """Points as well as lines where a line alone would hardly show."""
    return "o" if epochs <= SHORT_RUN else ""


def _lines(axes: Axes, epochs: np.ndarray, values: np.ndarray) -> None:
    for index in range(values.shape[1]):
        axes.plot(
            epochs, values[:, index], color=CYCLE[index % len(CYCLE)],
            linestyle=_DASHES[index // len(CYCLE)],
            marker=_marker(len(epochs)), linewidth=_LINE_WIDTH,
        )  # fmt: skip


def _class_groups(split: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Masks of shape (C,), bool: the split's frequencies or head and tail, else the shot groups."""
    if "frequency" in split:
        letters = np.array(list(split["frequency"]))
        return {name: letters == name[0] for name in ("rare", "common", "frequent")}
    if "head" in split:
        head = np.isin(np.arange(len(split["train"])), split["head"])
        return {"head": head, "tail": ~head}
    groups = shot_groups(np.asarray(split["train"])).items()
    return {f"{name}-shot": mask for name, mask in groups}


def _quartiles(values: np.ndarray) -> np.ndarray:
    """Over the classes of (E, C), shape (3, E); NaN in an epoch without a measured class."""
    quartiles = np.full((3, len(values)), math.nan)
    known = ~np.isnan(values).all(axis=1)
    if known.any():
        quartiles[:, known] = np.nanquantile(values[known], (0.25, 0.5, 0.75), axis=1)
    return quartiles


def _bands(axes: Axes, epochs: np.ndarray, values: np.ndarray, split: Mapping[str, Any]) -> None:
    for index, (name, mask) in enumerate(_class_groups(split).items()):
        if not mask.any():
            continue
        low, middle, high = _quartiles(values[:, mask])
        colour, dashes = CYCLE[index], _DASHES[index]
        label = f"{name}, {int(mask.sum())} classes (median, quartiles)"
        axes.plot(epochs, middle, color=colour, linestyle=dashes, label=label)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _class_panel(axes: Axes, record: Record, field: str) -> None:
    epochs = np.asarray(record["history"]["epoch"])
    values = as_array(record["history"][field])
    split = record["split"]
    if values.shape[1] > MAX_LINES:
        _bands(axes, epochs, values, split)
        return
    _lines(axes, epochs, values)


def _scalar_panel(axes: Axes, record: Record, field: str) -> None:
    history = record["history"]
    values = [math.nan if value is None else value for value in history[field]]
    look: dict[str, Any] = {"color": CYCLE[-1], "linewidth": _LINE_WIDTH}
    axes.plot(history["epoch"], values, marker=_marker(len(values)), **look)


# Field of the history, title, label of the y axis, whether it has a value per class.
_PANELS: Final[tuple[tuple[str, str, str, bool], ...]] = (
    ("loss", "Training loss", "mean loss", False),
    ("class_accuracy", "Class accuracy after the epoch", "accuracy, difficulty set", True),
    ("difficulty", "Difficulty during the epoch", "difficulty $d_c$", True),
    ("tau", "τ during the epoch", "τ", False),
    ("bias", "Bias before the epoch", "bias", False),
    ("class_weights", "Weights during the epoch", "weight $w_c$", True),
)
_FRACTIONS: Final = ("class_accuracy", "difficulty")
# Of a detector, by how its difficulty was measured.
_DETECTION_PANELS: Final = {
    "ap": ("AP per category after the epoch", "AP, difficulty set"),
    "proposals": ("Proposal accuracy in the epoch", "accuracy, training proposals"),
}


def _is_measured(values: Any) -> bool:
    """Whether a course, of numbers or of numbers per class, holds any number."""
    rows = values or []
    return any(any(x is not None for x in (r if isinstance(r, list) else [r])) for r in rows)


def available_panels(record: Record) -> list[tuple[str, str, str, bool]]:
    """The panels that the record has data for; a method without a balancer has two or one."""
    chosen = [panel for panel in _PANELS if _is_measured(record["history"].get(panel[0]))]
    words = _DETECTION_PANELS.get(record["config"].get("difficulty", ""))
    if words is None:
        return chosen
    return [
        (f, *words, per) if f == "class_accuracy" else (f, t, y, per) for f, t, y, per in chosen
    ]


def _averages(measured: Mapping[str, Any]) -> str:
    """A detector's averages of AP in percent, a line for boxes and one for masks."""
    lines: dict[str, list[str]] = {}
    for metric in AP_METRICS:
        kind, average = metric.split("_")
        value = measured.get(kind, {}).get(average)
        if value is not None:
            lines.setdefault(kind, []).append(f"{metric_name(metric)} {number(value)}")
    return ",\n".join(map(", ".join, lines.values()))


def _results(record: Record) -> str:
    """What the run came to."""
    metrics = record["metrics"]
    last = metrics["last"]
    if "error" not in last:
        return f"{_averages(last)} at the last epoch"
    at_last = f"test error {last['error']:.2f} % at the last epoch"
    if (best := metrics.get("best")) is None:
        return at_last
    at_best = f"{best['error']:.2f} % at epoch {int(best['epoch'])}"
    return f"{at_last}, {at_best} (dotted: best on the difficulty set)"


def _describe(record: Record) -> str:
    name = run_name(record["method"], record["variant"])
    where = f"{dataset_name(record['dataset'])}, {condition_name(record['condition'])}"
    return f"{name}; {where}; seed {int(record['seed'])}\n{_results(record)}"


def _set_y_scale(axes: Axes, values: list[Any], field: str) -> None:
    """From 0 up; 0 to 1 for fractions; the loss, which falls by orders of magnitude, in powers."""
    if field == "loss" and all(value is None or value > 0 for value in values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(*((-0.03, 1.03) if field in _FRACTIONS else (0, None)))


def draw(record: Record) -> Figure:
    """Every course that the record holds or tells, each over the epochs."""
    record = record | {"history": record["history"] | courses(record)}
    chosen, best = available_panels(record), record["metrics"].get("best")
    columns = min(len(chosen), 3)
    rows = math.ceil(len(chosen) / columns)
    figure, axes = panels(rows, columns, max(7.8, 3.9 * columns), 0.9 + 2.75 * rows)
    for panel, (field, title, label, per_class) in zip(axes, chosen, strict=False):
        (_class_panel if per_class else _scalar_panel)(panel, record, field)
        if best is not None:
            panel.axvline(best["epoch"], color=GREY, linestyle=":", linewidth=1.2)
        panel.set(title=title, xlabel="epoch", ylabel=label)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        panel.margins(y=0.1)
        _set_y_scale(panel, record["history"][field], field)
    for unused in axes[len(chosen) :]:
        unused.set_visible(False)
    # All panels with a value per class have the same lines.
    with_lines = [panel for panel, (*_, many) in zip(axes, chosen, strict=False) if many]
    if with_lines:
        legend_below(figure, *_legend(with_lines[0], record["split"]), columns=5)
    heading_above(figure, _describe(record))
    return figure


def _legend(axes: Axes, split: Mapping[str, Any]) -> tuple[Sequence[Artist], Sequence[str]]:
    """What a panel with a value per class shows, and its names: the classes', or their groups'."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        return handles, names
    pairs = zip(class_labels(split["class_names"]), split["train"], strict=True)
    labels = [f"{name} ({count} train)" for name, count in pairs]
    return axes.get_lines()[: len(labels)], labels


def numbered(record: Record) -> str:
    """Says which classes :func:`draw` shows as a number; empty without one."""
    names = record["split"]["class_names"]
    return numbered_classes(names) if len(names) <= MAX_LINES else ""


def first_seeds(records: list[Record]) -> list[Record]:
    """Of each configuration (group, method, variant, condition) the run of the lowest seed."""
    first: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=lambda record: int(record["seed"])):
        key = tuple(record[name] for name in ("group", "method", "variant", "condition"))
        first.setdefault(key, record)
    return sorted(first.values(), key=lambda record: (record["group"], record["run"]))
