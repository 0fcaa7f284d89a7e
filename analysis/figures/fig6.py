"""Fig. 6: data distribution of EGTEA verbs, head ('majority') and tail ('minority') apart."""

from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import BLACK, BLUE, ORANGE, heading_above, panels
from analysis.words import number
from common.training.drawing import class_labels
from data_prep.clips import VerbSplit
from data_prep.egtea import load_egtea_splits

_GROUPS: Final = {"head": ("majority", BLUE), "tail": ("minority", ORANGE)}


def _bars(axes: Axes, split: VerbSplit, places: list[int], name: str) -> None:
    """The bars of one group at their places, and a line at their mean with its value."""
    word, colour = _GROUPS[name]
    heights = [split.frequency[split.order[place]] for place in places]
    label = f"{name} ({word}) verbs, {len(places)}"
    bars = axes.bar(places, heights, width=0.8, color=colour, label=label)
    # On white, since the line of the average runs through some of them.
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    axes.bar_label(bars, fontsize=8, padding=3, bbox=background, zorder=4)
    average = split.average_frequency(split.order[place] for place in places)
    axes.hlines(average, places[0] - 0.45, places[-1] + 0.45, color=BLACK, linewidth=1.4)
    text = f"average of the {name}: {number(average, 1).removesuffix('.0')}"
    # Where no bar is: right of the head's line, above the end of the tail's.
    where: dict[str, Any] = {"xytext": (5, 0), "ha": "left", "va": "center"}
    if name == "tail":
        where = {"xytext": (0, 5), "ha": "right", "va": "bottom"}
    end = (places[-1] + 0.45, average)
    axes.annotate(text, end, textcoords="offset points", fontsize=9, bbox=background, **where)


def draw(split: VerbSplit | None = None) -> Figure:
    """Clips of each verb in train + difficulty, the most frequent verb first.

    Args:
        split: None: EGTEA's, which the repository carries.
    """
    split = load_egtea_splits() if split is None else split
    figure, (axes,) = panels(1, 1, 9.0, 4.8)
    places = list(range(len(split.order)))
    _bars(axes, split, places[: len(split.head)], "head")
    if split.tail:
        _bars(axes, split, places[len(split.head) :], "tail")
    labels = class_labels(split.class_names)
    names = [labels[label] for label in split.order]
    look: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(places, names, parse_math=False, **look)
    axes.set(ylabel="clips in train + difficulty", xlim=(-0.6, len(places) - 0.4))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper right")
    total = f"{sum(split.frequency):,} clips of {len(places)} verbs"
    what = "Data distribution of EGTEA verbs"
    heading_above(figure, f"{what}\nsplit 1, train + difficulty: {total}")
    return figure
