"""The worked example of docs/your-own-images.md: methods on crops of photographs, one split a seed.

Shapes: C classes.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from analysis.by_class import by_class
from analysis.grid import Grid
from analysis.images import FOLDER
from analysis.records import Record, group_runs
from analysis.shot_tables import run_of
from analysis.summary import Difference, paired_difference, summarize
from analysis.words import MISSING, run_name

GROUP: Final = "photo-crops"
RUNS: Final = (
    ("ce", ""), ("balanced-softmax", ""), ("cdb-s", "tau=sigmoid-code"),
    ("cdb-w-ce", "tau=sigmoid-code"),
)  # fmt: skip
"""Method and variant, what the others are compared with first."""
_METHODS_NOTE: Final = (
    "Mean of the classes' accuracies in % at the last epoch, mean ± sample standard deviation "
    "(number of seeds, each with a split of its own). Minus CE: on the test sets, paired by seed, "
    "with its 95 % t-interval."
)
_NO_RUNS: Final = "No run of this experiment is recorded yet."


def balanced_accuracy(record: Record) -> float:
    """Mean over the classes of the accuracy on the test set at the last epoch, in percent."""
    each = np.array(record["metrics"]["last"]["class_accuracy"], dtype=float)  # (C,)
    return float(100 * np.nanmean(each))


def example_runs(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The runs of each of :data:`RUNS` that has any, lowest seed first; ``test`` is added."""
    runs = group_runs(frame, FOLDER, GROUP).sort_values("seed")
    runs = runs.assign(test=[balanced_accuracy(record) for record in runs["record"]])
    chosen = {
        run: runs[(runs["method"] == run[0]) & (runs["variant"] == run[1])] for run in RUNS
    }  # fmt: skip
    return {run: own for run, own in chosen.items() if len(own)}


def _by_seed(runs: pd.DataFrame) -> pd.Series:
    return runs.set_index(["seed", "split"])["test"]


def differences(runs: dict[tuple[str, str], pd.DataFrame]) -> dict[tuple[str, str], Difference]:
    """Test accuracy minus CE's, paired by seed and split, of each other run that has such pairs."""
    if RUNS[0] not in runs:
        return {}
    first = _by_seed(runs[RUNS[0]])
    found = {
        run: paired_difference(run_name(*run), _by_seed(own), first)
        for run, own in runs.items()
        if run != RUNS[0]
    }
    return {run: difference for run, difference in found.items() if difference is not None}


def decided(found: dict[tuple[str, str], Difference]) -> str:
    """A sentence: which of the differences have an interval without 0, and which have not."""
    sides = {
        "above CE": [d.label for d in found.values() if d.low > 0],
        "below CE": [d.label for d in found.values() if d.high < 0],
    }
    open_ones = [d.label for d in found.values() if not (d.low > 0 or d.high < 0)]
    said = [f"{', '.join(names)}: {side}" for side, names in sides.items() if names]
    said += [f"{', '.join(open_ones)}: not decided, the interval holds 0"] if open_ones else []
    return f"{'; '.join(said)}." if said else ""


def methods_grid(name: str, frame: pd.DataFrame) -> Grid:
    """A row a method: its accuracy on both sets, its distance from CE, and what a run costs."""
    runs = example_runs(frame)
    found = differences(runs)
    rows = []
    for run, own in runs.items():
        difference = found.get(run)
        against = MISSING if difference is None else str(difference).partition(" = ")[2]
        rows.append(
            (
                run_name(*run),
                summarize(list(100 - own["difficulty_error_last"])).with_n(),
                summarize(list(own["test"])).with_n(),
                against.partition(", n")[0],
                run_of(own),
            )
        )
    note = " ".join(filter(None, (_METHODS_NOTE, decided(found)))) if rows else _NO_RUNS
    header = ("Method", "Difficulty set", "Test set", "Minus CE", "A run")
    return Grid(name, "Crops of photographs: methods", header, tuple(rows), note, words=(0, 4))


def classes_grid(name: str, frame: pd.DataFrame) -> Grid:
    """What ``python -m analysis.by_class`` shows of the runs on splits that every method has."""
    runs = example_runs(frame)
    splits = set.intersection(*(set(own["split"]) for own in runs.values())) if runs else set()
    records = [
        record for own in runs.values() for record in own.loc[own["split"].isin(splits), "record"]
    ]
    if not records:
        note = "No split is common to the runs of all methods." if runs else _NO_RUNS
        return Grid(name, "Crops of photographs: classes", (), (), note)
    return replace(by_class(records, "last"), name=name)


def photo_crops_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes these tables, by block."""
    grids = {"photo-crops-methods": methods_grid, "photo-crops-classes": classes_grid}
    return {name: partial(make, name, frame) for name, make in grids.items()}
