"""CIFAR100-LT under several weight decays side by side: what the paper prints, and its code has.

The runs of the written recipe are the data set's own group; those that depart from it, in weight
decay and perhaps in more, are the group ``cifar100-lt-recipe``, and the authors' code as a whole is
``cifar100-lt-code``. Only what has a run in one of the latter two is shown.
"""

import math
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Final

import pandas as pd

from analysis.comparison import Cell
from analysis.grid import Grid
from analysis.measured import measured_value
from analysis.records import CELL, SHOTS, Record, imbalance_of, stage_of
from analysis.shot_tables import cost_of, in_papers_order
from analysis.summary import errors_by_seed, paired_difference, summarize
from analysis.words import MISSING, condition_name, number, run_name, scientific, signed
from common.training.record import STEADIERS

DATASET: Final = "cifar100-lt"
DEPARTING: Final = ("cifar100-lt-recipe", "cifar100-lt-code")
"""Groups of runs that depart from the written recipe."""
_BEFORE_THE_DROP: Final = 5
# What the variant or a column tells.
_TOLD: Final = tuple(name.replace("_", "-") for name in ("weight_decay", *STEADIERS))
_ERRORS: Final = {"error_last": "test", "difficulty_error_last": "difficulty set"}


def _other_settings(record: Record) -> str:
    """What a run's name says beyond method, variant, imbalance, weight decay and seed."""
    if record["group"] == "cifar100-lt-code":
        return "as the authors' code"
    changed = record["run"].partition("_imbalance-")[2].split("_")[1:-1]
    return ", ".join(p.replace("-", " ", 1) for p in changed if not p.startswith(_TOLD))


def _variant(record: Record) -> str:
    """The record's, and of a second stage the tau of its stages too."""
    tau = record["config"].get("tau")
    if tau is None or not stage_of(record["method"]):
        return str(record["variant"])
    return f"{record['variant']}, τ {tau}"


def loss_before_the_drop(record: Record) -> float:
    """Mean training loss of the epoch that is five before the learning rate first falls."""
    epoch = record["config"]["milestones"][0] - _BEFORE_THE_DROP
    losses = record["history"]["loss"]
    return float(losses[epoch - 1]) if 0 < epoch <= len(losses) else math.nan


def decay_runs(frame: pd.DataFrame, *, every: bool = False) -> pd.DataFrame:
    """Runs of all groups with what tells them apart: columns cell, weight_decay and other.

    Args:
        frame: runs.
        every: all of the written recipe, else those whose method, variant and imbalance were run
            otherwise too.
    """
    runs = frame[frame["group"].isin((DATASET, *DEPARTING))]
    named = pd.Series(list(runs[CELL].itertuples(index=False, name=None)), runs.index, dtype=object)
    asked = set(named[runs["group"].isin(DEPARTING)])
    runs = runs[named.isin(asked) | every]
    records = list(runs["record"])
    # The same method at another tau is another row.
    runs = runs.assign(
        variant=[_variant(record) for record in records],
        weight_decay=[float(record["config"]["weight_decay"]) for record in records],
        other=[_other_settings(record) for record in records],
        loss=[loss_before_the_drop(record) for record in records],
    )
    return runs.assign(cell=list(runs[CELL].itertuples(index=False, name=None)))


def cell_name(cell: Cell, other: str) -> str:
    """Of a row: method, tau and first stage, imbalance if not 100, and what else was changed."""
    method, variant, condition = cell
    stage, comma, tau = variant.partition(", τ ")
    name = run_name(method, stage).removesuffix(")" if comma else "") + (
        f", τ {tau})" if comma else ""
    )
    where = "" if condition == "100" else condition_name(condition)
    return "; ".join(part for part in (name, where, other) if part)


def _mean(runs: pd.DataFrame, column: str) -> str:
    return summarize(list(runs[column])).with_n()


def _difference(runs: pd.DataFrame, plain: pd.DataFrame, column: str) -> str:
    """This method's error minus that of cross-entropy under the same settings, paired by seed."""
    method, variant, condition = runs["cell"].iloc[0]
    ours = errors_by_seed(runs, method, variant, condition, column)
    theirs = errors_by_seed(plain, "ce", "", condition, column)
    found = paired_difference("", ours, theirs)
    if method == "ce" or found is None:
        return MISSING
    interval = "" if math.isnan(found.low) else f" [{number(found.low)}, {number(found.high)}]"
    return f"{signed(found.mean)}{interval} ({found.n})"


Row = Callable[[pd.DataFrame, pd.DataFrame], tuple[str, ...]]


def _errors(runs: pd.DataFrame, plain: pd.DataFrame) -> tuple[str, ...]:
    means = tuple(_mean(runs, column) for column in _ERRORS)
    return means + tuple(_difference(runs, plain, column) for column in _ERRORS)


def _accuracies(runs: pd.DataFrame, plain: pd.DataFrame) -> tuple[str, ...]:
    shots = tuple(number(fmean(runs[f"{shot}_last"]), 1) for shot in SHOTS)
    loss = MISSING if stage_of(runs["method"].iloc[0]) else number(fmean(runs["loss"]))
    _, seconds, hardware = cost_of(runs)
    return (*shots, loss, seconds, hardware)


def _rows(frame: pd.DataFrame, row: Row, *, second_stage: bool) -> tuple[tuple[str, ...], ...]:
    runs = decay_runs(frame)
    runs = runs[(runs["method"].map(stage_of) != "") == second_stage]
    rows: list[tuple[str, ...]] = []
    cells = in_papers_order(list(dict.fromkeys(runs["cell"])), DATASET)
    for cell in sorted(cells, key=lambda cell: imbalance_of(cell[2])):
        of_cell = runs[runs["cell"] == cell]
        for (decay, other), same in of_cell.groupby(["weight_decay", "other"], sort=True):
            plain = runs[(runs["weight_decay"] == decay) & (runs["other"] == other)]
            rows.append((cell_name(cell, other), scientific(decay), *row(same, plain)))
    return tuple(rows)


_NOTE: Final = (
    "Error in % at the last epoch, mean ± sample standard deviation (number of seeds); imbalance "
    "100 where no other is named. 1e-4 is the written recipe's weight decay. Read the difficulty "
    "set first: test errors decide nothing."
)
_CE_NOTE: Final = (
    "− CE: minus cross-entropy of the same seed and settings, in points, with its 95 % t-interval "
    "where there are two pairs or more (number of pairs)."
)
_SHOT_NOTE: Final = (
    "Accuracy in % of the test set at the last epoch; loss: mean training loss five epochs before "
    "the learning rate first falls, by which a memorised set is known; seconds of a run, which on "
    "an H100 shared it with eight others (alone: {alone})."
)


def errors_grid(name: str, frame: pd.DataFrame, *, second_stage: bool = False) -> Grid:
    """Errors of each method under each weight decay, and their difference from cross-entropy's.

    Args:
        name: the block's name.
        frame: runs.
        second_stage: the runs of decoupled learning, else those of one stage.
    """
    rows = _rows(frame, _errors, second_stage=second_stage)
    header = ("Method", "Decay", "Test", "Difficulty set", "− CE, test", "− CE, difficulty set")
    if second_stage:
        rows, title = tuple(row[:4] for row in rows), "Weight decay, errors of second stages"
        return Grid(name, title, header[:4], rows, _NOTE)
    return Grid(name, "Weight decay, errors", header, rows, f"{_NOTE} {_CE_NOTE}")


def shots_grid(name: str, frame: pd.DataFrame, *, second_stage: bool = False) -> Grid:
    """Accuracy by shot group, training loss and cost; arguments as :func:`errors_grid`."""
    header = ("Method", "Decay", "Many", "Medium", "Few", "Loss", "Seconds", "Hardware")
    rows = _rows(frame, _accuracies, second_stage=second_stage)
    title = "Weight decay, shot groups" + (" of second stages" if second_stage else "")
    note = _SHOT_NOTE.format(alone=measured_value("cifar100_h100", "a run of 200 epochs"))
    return Grid(name, title, header, rows, note, words=(0, 7))


def decay_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes each of these tables."""
    makers: dict[str, Callable[[], Grid]] = {}
    for stage, second in (("", False), ("-decoupled", True)):
        for kind, grid in (("", errors_grid), ("-shots", shots_grid)):
            name = f"cifar100-decay{stage}{kind}"
            makers[name] = partial(grid, name, frame, second_stage=second)
    return makers
