"""What steadies the method: law of tau x steadier of the difficulty, beside plain baselines.

Shapes: E epochs, C classes.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.core import courses
from analysis.grid import Grid
from analysis.records import CELL, Record, as_array, imbalance_of
from analysis.summary import errors_by_seed, summarize
from analysis.words import MISSING, condition_name, method_name, number, variant_name
from common.training.record import STEADIERS

GROUPS: Final = {
    "steadiers-mnist": "mnist-lt",
    "steadiers-images": "digit-images-steadiers",
    "steadiers-clips": "motion-digits-steadiers",
    "steadiers-cifar100": "cifar100-lt-recipe",
}
"""Of each table, the group of its runs."""
Setting = tuple[str, str]
"""A method and its variant, which names law of tau and steadier."""
_COMPARED: Final = ("ce", "balanced-softmax", "logit-adjustment", "cdb-w-ce", "cdb-s")
LAWS: Final = ("sigmoid", "sigmoid-accv", "sigmoid-code", "1.0", "2.0")
"""Of tau, as a variant names them."""
_DECAY: Final = 5e-4
_JUMP: Final = 0.2
_FACTOR: Final = 3.0
_STEADY_NAMES: Final = {
    (): "none", ("average",): "average", ("prior",): "prior", ("average", "prior"): "both",
    ("from-epoch",): "deferred",
}  # fmt: skip
STEADIER_NAMES: Final = tuple(_STEADY_NAMES.values())
"""Those of the experiment, in the order of its page."""


def jumps(record: Record) -> int:
    """Epochs in which the rarest class's accuracy on the difficulty set is over 0.2 from before.

    MNIST's two classes are told by it; with many classes see :func:`mean_change`.
    """
    rarest = int(np.argmin(record["split"]["train"]))
    accuracy = as_array(record["history"]["class_accuracy"])[:, rarest]
    return int((np.abs(np.diff(accuracy)) > _JUMP).sum())


def changes(record: Record) -> np.ndarray:
    """Mean distance in points of a class's accuracy from that of the epoch before, (E - 1,)."""
    change = 100.0 * np.abs(np.diff(as_array(record["history"]["class_accuracy"]), axis=0))
    measured = np.isfinite(change)
    count = measured.sum(axis=1)
    total = np.where(measured, change, 0.0).sum(axis=1)
    nothing = np.full(len(total), math.nan)
    return np.asarray(np.divide(total, count, out=nothing, where=count > 0))


def mean_change(record: Record) -> float:
    """The mean of :func:`changes` over the epochs; NaN where nothing was measured twice."""
    known = changes(record)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan


def far_weights(record: Record) -> np.ndarray:
    """Share in % of the classes whose weight is over three times that before, or under a third.

    From 0 to more, or back, counts as well.

    Returns:
        Of each epoch from the second on, (E - 1,); (0,) of a run without weights.
    """
    weights = courses(record).get("class_weights")
    if not weights or len(weights) < 2:
        return np.zeros(0)
    before, after = as_array(weights[:-1]), as_array(weights[1:])
    far = np.maximum(before, after) > _FACTOR * np.minimum(before, after)
    return np.asarray(100.0 * far.mean(axis=1))


def weight_jumps(record: Record) -> float:
    """The mean of :func:`far_weights` over the epochs; NaN for a run without weights."""
    shares = far_weights(record)
    return float(shares.mean()) if len(shares) else math.nan


def steadier_of(variant: str) -> str:
    """The steadier that a variant names: none, average, prior, both, deferred or the parts.

    >>> steadier_of("tau=sigmoid average=0.9 prior=1")
    'both'
    """
    parts = tuple(p.partition("=")[0] for p in variant.split(" ")[1:] if not p.startswith("unit"))
    return _STEADY_NAMES.get(parts, " ".join(parts))


def tau_of(variant: str) -> str:
    """``sigmoid``, as :data:`LAWS` has it; empty for a method without tau."""
    return variant.partition(" ")[0].removeprefix("tau=")


def law_of(variant: str) -> str:
    """``τ sigmoid``; empty for a method without tau."""
    return variant_name(variant.partition(" ")[0]) if variant else ""


def gains(runs: pd.DataFrame, setting: Setting, condition: str) -> pd.Series:
    """Error on the difficulty set at the last epoch minus cross-entropy's, in points.

    Returns:
        Of each seed that both have, indexed by seed and split.
    """
    own, plain = (
        errors_by_seed(runs, *run, condition, "difficulty_error_last")
        for run in (setting, ("ce", ""))
    )
    return (own - plain).dropna()


def _compared(method: str, variant: str) -> bool:
    """Whether the experiment has the method and the law."""
    tau = tau_of(variant)
    return method in _COMPARED and (not tau or tau in LAWS)


def _as_usual(config: dict[str, Any]) -> bool:
    """Whether a run departs from its recipe in nothing else."""
    usual = {"sampler_unit": "class", "augmentation": "crop-flip"}
    return all(config.get(name, value) == value for name, value in usual.items())


def steadied_runs(frame: pd.DataFrame, group: str) -> pd.DataFrame:
    """The runs of a group that are of this experiment; CIFAR100-LT's at its weight decay."""
    runs = frame[(frame["group"] == group) & (frame["variant"].str.find("stage1=") < 0)]
    cells = zip(runs["method"], runs["variant"], runs["config"], strict=True)
    chosen = [_compared(method, variant) and _as_usual(config) for method, variant, config in cells]
    if group == GROUPS["steadiers-cifar100"]:
        recipe = {"weight_decay": _DECAY, "epochs": 200}
        chosen = [
            ok and all(config.get(name) == value for name, value in recipe.items())
            for ok, config in zip(chosen, runs["config"], strict=True)
        ]
        # Its own tables have them; here stands what was steadied, and what it is compared with.
        if not any(config.get(name) for name in STEADIERS for config in runs["config"]):
            chosen = [False] * len(chosen)
    return runs[np.array(chosen, dtype=bool)]


def _mean(values: Sequence[float], digits: int) -> str:
    known = [value for value in values if not math.isnan(value)]
    return number(fmean(known), digits) if known else MISSING


def steadiers_grid(name: str, frame: pd.DataFrame) -> Grid:
    """Errors and swings of each setting.

    Args:
        name: one of :data:`GROUPS`.
        frame: runs.
    """
    runs = steadied_runs(frame, GROUPS[name])
    rows = []
    cells = sorted(
        dict.fromkeys(runs[CELL].itertuples(index=False, name=None)),
        key=lambda cell: (imbalance_of(cell[2]), cell[0], steadier_of(cell[1]), cell[1]),
    )
    for method, variant, condition in cells:
        same = runs[
            (runs["method"] == method)
            & (runs["variant"] == variant)
            & (runs["condition"] == condition)
        ]
        records = list(same["record"])
        rows.append(
            (
                condition_name(condition), method_name(method), law_of(variant),
                steadier_of(variant) if variant else "",
                summarize(list(same["difficulty_error_last"])).with_n(),
                summarize(list(same["error_last"])).with_n(),
                _mean(list(same["error_best"]), 2),
                _mean([float(jumps(record)) for record in records], 1),
                _mean([mean_change(record) for record in records], 1),
                _mean([weight_jumps(record) for record in records], 1),
            )
        )  # fmt: skip
    header = (
        "Condition", "Method", "Law", "Steadier", "Difficulty set", "Test", "Test, best epoch",
        "Jumps", "Change", "Weights",
    )  # fmt: skip
    note = (
        "Error in % at the last epoch, mean ± sample standard deviation (number of seeds). Jumps: "
        "epochs in which the rarest class's accuracy on the difficulty set is over 0.2 from the "
        "epoch before; change: mean distance in points of a class's accuracy from the epoch "
        "before; weights: share in % of classes and epochs whose weight changes by more than three "
        "times. Choose by the difficulty set."
        if rows
        else "No run of this experiment is recorded yet."
    )
    return Grid(name, "Steadiers of the difficulty", header, tuple(rows), note, words=(0, 1, 2, 3))


def steadiers_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes each of these tables."""
    return {name: partial(steadiers_grid, name, frame) for name in GROUPS}
