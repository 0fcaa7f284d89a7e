"""Which reading of MNIST-LT gives the paper's baselines: the rule of docs/mnist-readings.md."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.comparison import paper_summary
from analysis.grid import Grid
from analysis.summary import Summary, summarize
from analysis.words import MISSING, method_name, number, value_text

DATASET: Final = "mnist-lt"
GROUP: Final = "mnist-lt-recipe"
PRINTED: Final = "mnist-lt-printed"
"""Group of the runs at the printed learning rate, 0.001."""
METHODS: Final = ("ce", "focal", "cfs", "cb")
CONDITIONS: Final = ("99", "199")
CELLS: Final = tuple((method, condition) for method in METHODS for condition in CONDITIONS)
_READING: Final = ("learning_rate", "input_scaling", "initialisation")
_DIVISORS: Final = {"batch-size": "batch size", "weight-sum": "sum of weights"}
_TITLE: Final = "MNIST-LT: readings by the baselines"
_WEIGHED: Final = "cb"
_FURTHER: Final = 2.0
"""A candidate whose score is at most so many times the lowest gets all its seeds."""
_ALL_SEEDS: Final = 5


@dataclass(frozen=True)
class Candidate:
    """A reading, and the errors of the baselines on the difficulty set under it."""

    reading: tuple[str, ...]
    """Learning rate, pixels and initial weights, as text."""
    divisor: str
    """What CB's weighted losses are divided by; the others weigh their samples alike."""
    errors: dict[tuple[str, str], Summary]
    """Of each method and imbalance that was run."""

    def distance(self, cell: tuple[str, str]) -> float:
        """From the paper's mean, in its standard deviations; NaN where nothing was run."""
        if cell not in self.errors:
            return math.nan
        paper = paper_summary(1, DATASET, (cell[0], "", cell[1]))
        return abs(self.errors[cell].mean - paper.mean) / paper.std

    @property
    def least(self) -> float:
        """The score, or what it is at least while cells are missing."""
        distances = [self.distance(cell) for cell in CELLS]
        return sum(d for d in distances if not math.isnan(d)) / len(CELLS)

    @property
    def complete(self) -> bool:
        """Whether every cell was run."""
        return all(cell in self.errors for cell in CELLS)

    @property
    def seeds(self) -> int:
        """The fewest of a cell."""
        return min((self.errors[c].n for c in CELLS if c in self.errors), default=0)

    @property
    def score(self) -> str:
        """``4.35``, or ``> 17.2`` where it was not run to the end."""
        text = number(self.least)
        return text if self.complete else f"> {text}"


def _reading(config: dict[str, Any]) -> tuple[str, ...]:
    return tuple(value_text(config[name]) for name in _READING)


def _is_candidate(config: dict[str, Any]) -> bool:
    of_methods = config.get("method") in METHODS and config.get("architecture") == "lenet5"
    return of_methods and config.get("loss_reduction") in _DIVISORS


def candidates(frame: pd.DataFrame) -> list[Candidate]:
    """The readings that were run, lowest score first.

    Runs of the baselines that other groups have count too: of the reading that was taken in the
    data set's own, of that of the printed learning rate in its own. Further seeds do not.

    Args:
        frame: runs.
    """
    runs = frame[frame["group"].isin((GROUP, DATASET, PRINTED)) & (frame["seed"] < _ALL_SEEDS)]
    # An array: of an empty list pandas would take no column, not no row.
    runs = runs[np.array([_is_candidate(config) for config in runs["config"]], dtype=bool)]
    # One run of a configuration and seed counts once, in whatever group it is.
    runs = runs.drop_duplicates(["run", "condition", "seed"])
    errors: dict[tuple[Any, ...], list[float]] = {}
    for config, condition, error in zip(
        runs["config"], runs["condition"], runs["difficulty_error_last"], strict=True
    ):
        divisors = [config["loss_reduction"]] if config["method"] == _WEIGHED else _DIVISORS
        for divisor in divisors:
            key = (_reading(config), divisor, (config["method"], condition))
            errors.setdefault(key, []).append(float(error))
    found: dict[tuple[tuple[str, ...], str], dict[tuple[str, str], Summary]] = {}
    for (reading, divisor, cell), values in errors.items():
        found.setdefault((reading, divisor), {})[cell] = summarize(values)
    made = [Candidate(*key, cells) for key, cells in found.items()]
    return sorted(made, key=lambda c: (not c.complete, c.least, c.reading, c.divisor))


def chosen(found: Iterable[Candidate]) -> Candidate | None:
    """The reading that the rule takes; None while a candidate that it asks for is not all there."""
    complete = [c for c in found if c.complete]
    lowest = min((c.least for c in complete), default=math.nan)
    asked = [c for c in found if c.least <= _FURTHER * lowest]
    if not asked or any(not c.complete or c.seeds < _ALL_SEEDS for c in asked):
        return None
    return min(asked, key=lambda c: c.least)


def recipe_grid(name: str, frame: pd.DataFrame) -> Grid:
    """Each candidate's errors and score.

    Args:
        name: the block's name.
        frame: runs.
    """
    found = candidates(frame)
    cells = [f"{method_name(method)}, {condition}" for method, condition in CELLS]
    header = ("Reading", "CB by", *cells, "Seeds", "Score")
    rows = [
        (", ".join(c.reading), _DIVISORS[c.divisor],
         *(number(c.errors[cell].mean, 1) if cell in c.errors else MISSING for cell in CELLS),
         str(c.seeds), c.score)
        for c in found
    ]  # fmt: skip
    paper = [paper_summary(1, DATASET, (method, "", condition)) for method, condition in CELLS]
    if not rows:
        return Grid(name, _TITLE, header, (), "No run of the readings is recorded yet.")
    rows.insert(0, ("the paper, test", "", *(number(p.mean, 1) for p in paper), "", ""))
    mean_of_two = fmean([p.std for p in paper])
    note = (
        "Reading: learning rate, pixels, initial weights; CB by: its divisor. Mean error in % on "
        "the difficulty set at the last epoch; score: mean distance from the paper's test errors "
        f"in their standard deviations ({number(mean_of_two)} points on average); seeds: of the "
        "cell that has fewest. A score with > is of a candidate whose cells are not all there."
    )
    return Grid(name, _TITLE, header, tuple(rows), note, words=(0, 1))


def recipe_sentence(frame: pd.DataFrame) -> str:
    """Which reading the rule takes, or how far its runs are."""
    found = candidates(frame)
    taken = chosen(found)
    if taken is not None:
        rate, pixels, weights = taken.reading
        return (
            f"The rule takes learning rate {rate}, {pixels} pixels, {weights} weights and, for CB, "
            f"the {_DIVISORS[taken.divisor]}: score {taken.score}."
        )
    complete = [c for c in found if c.complete]
    if not complete:
        return "The runs that the rule asks for are not all there: no candidate has every cell."
    first = complete[0]
    return (
        "The runs that the rule asks for are not all there. Candidates with every cell: "
        f"{len(complete)}. The lowest score so far is {first.score}: learning rate "
        f"{', '.join(first.reading)}, CB divided by the {_DIVISORS[first.divisor]} "
        f"({first.seeds} seed{'s' if first.seeds > 1 else ''})."
    )
