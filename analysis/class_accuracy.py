"""Class accuracy beside class frequency (Fig. 1): is the rare class always the difficult one?

Shapes: C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from analysis.records import Record
from analysis.words import number
from common.shots import shot_groups

RESAMPLES: Final = 1000
_SEED: Final = 0


@dataclass(frozen=True)
class ClassAccuracy:
    """Training samples and mean test accuracy of each class, over n runs.

    Attributes:
        counts: shape (C,), training samples.
        accuracy: shape (C,), in [0, 1], the mean over the runs.
        n: runs.
    """

    counts: np.ndarray
    accuracy: np.ndarray
    n: int


def class_accuracy(records: Sequence[Record], epoch: str) -> ClassAccuracy | None:
    """Mean class accuracy of runs on one split; None without a run.

    Runs whose classes have other counts than the first run's are left out, and so is a class that
    was not measured.

    Args:
        records: runs of one cell.
        epoch: ``last`` or ``best``.
    """
    same = [r for r in records if r["split"]["train"] == records[0]["split"]["train"]]
    if not same:
        return None
    rows = [r["metrics"][epoch]["class_accuracy"] for r in same]
    values = np.array([[math.nan if x is None else x for x in row] for row in rows])
    accuracy = values.mean(axis=0)
    known = ~np.isnan(accuracy)
    counts = np.asarray(same[0]["split"]["train"])
    return ClassAccuracy(counts[known], accuracy[known], len(same))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation with a 95 % bootstrap interval over classes."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``0.81 [0.73, 0.87]``."""
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


def _spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row, shape (R,); NaN where a row is constant."""
    ranks = [stats.rankdata(values, axis=1) for values in (first, second)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore"):
        rho: np.ndarray = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return rho


def rank_correlation(classes: ClassAccuracy) -> RankCorrelation:
    """Rank correlation of accuracy and count; 1 would mean: the more frequent, the more accurate.

    The interval is the 2.5 and 97.5 % quantile over :data:`RESAMPLES` draws of C classes with
    replacement, always the same draws.
    """
    generator = np.random.default_rng(_SEED)
    size = len(classes.counts)
    chosen = generator.integers(size, size=(RESAMPLES, size))
    value = float(_spearman(classes.counts[None], classes.accuracy[None])[0])
    resampled = _spearman(classes.counts[chosen], classes.accuracy[chosen])
    low, high = np.nanquantile(resampled, (0.025, 0.975)) if not math.isnan(value) else (value,) * 2
    return RankCorrelation(value, float(low), float(high))


def tail_above_head(classes: ClassAccuracy) -> float:
    """Share of few-shot classes more accurate than the median many-shot class, in [0, 1].

    NaN when either group has no class.
    """
    groups = shot_groups(classes.counts)
    head, tail = (classes.accuracy[mask] for mask in (groups.many, groups.few))
    if not len(head) or not len(tail):
        return math.nan
    return float((tail > np.median(head)).mean())
