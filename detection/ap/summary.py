"""From matched detections to precision at each recall, and to the averages that are reported.

Shapes: A area ranges, T IoU thresholds, R recalls, C categories, D detections, K true positives.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.ap.inputs import Floats, Ints
from detection.ap.matching import COUNTED, FOUND, IOU_THRESHOLDS, Status

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""(R,)."""
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""Ranges of area in square pixels, both ends included."""


@dataclass(frozen=True)
class ApResult:
    """What an evaluation measured; NaN where there is no instance to find."""

    precision: Floats
    """(A, T, R, C), in [0, 1]: the largest precision at this recall or a larger one."""
    recall: Floats
    """(A, T, C), in [0, 1]."""
    frequency: NDArray[np.str_]
    """(C,): 'r', 'c' or 'f'."""
    areas: tuple[str, ...]
    """A names of :data:`AREAS`, the first 'all'."""

    @property
    def category_ap(self) -> Floats:
        """AP of each category over all thresholds, shape (C,), in [0, 1], NaN: not measured."""
        ap: Floats = self.precision[0].mean(axis=(0, 1))
        return ap

    def averages(self) -> dict[str, float]:
        """AP, AP50, AP75, by size APs APm APl, by frequency APr APc APf: in [0, 1].

        Means over the categories that were measured; NaN where there is none. Sizes that were not
        evaluated are absent.
        """
        values = {"AP": _mean(self.category_ap)}
        for percent, index in (("50", 0), ("75", 5)):
            values[f"AP{percent}"] = _mean(self.precision[0, index].mean(axis=0))
        for a, name in enumerate(self.areas):
            if name != "all":
                values[f"AP{name[0]}"] = _mean(self.precision[a].mean(axis=(0, 1)))
        for letter in "rcf":
            values[f"AP{letter}"] = _mean(self.category_ap[self.frequency == letter])
        return values

    def record(self) -> dict[str, float | None]:
        """The averages as a result record holds them: in percent, None where not measured."""
        return {k: None if math.isnan(v) else 100.0 * v for k, v in self.averages().items()}


def _mean(values: Floats) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else math.nan


def precision_and_recall(
    status: Status, category: Ints, instance_counts: Ints
) -> tuple[Floats, Floats]:
    """Precision at each recall, and the recall that is reached, of every category.

    Between two true positives precision only falls, so those alone are looked at. With k true and
    f false positives so far, precision is k / (f + k + 2**-52).

    Args:
        status: (T, D), detections sorted by category, in each by falling score.
        category: (D,).
        instance_counts: instances to find of each category, (C,).

    Returns:
        (T, R, C) and (T, C); NaN where there is no instance to find.
    """
    num_categories = len(instance_counts)
    first = np.searchsorted(category, np.arange(num_categories))
    needed = _needed(instance_counts)
    precision = np.empty((len(IOU_THRESHOLDS), len(RECALLS), num_categories))
    recall = np.empty((len(IOU_THRESHOLDS), num_categories))
    counts = np.where(instance_counts > 0, instance_counts, np.nan)
    for t, row in enumerate(status):
        found = np.flatnonzero(row == FOUND)
        false = np.concatenate([[0], np.cumsum(row == COUNTED)])
        of = category[found]
        num_found = np.bincount(of, minlength=num_categories)
        start = np.cumsum(num_found) - num_found
        k = np.arange(1, len(found) + 1) - start[of]
        best = _largest_from_here((k / (false[found] - false[first[of]] + k + np.spacing(1))), of)
        reached = needed <= num_found
        value = np.append(best, 0.0)[np.where(reached, start + needed - 1, len(best))]
        precision[t] = np.where(instance_counts > 0, value, np.nan)
        recall[t] = num_found / counts
    return precision, recall


def _largest_from_here(values: Floats, group: Ints) -> Floats:
    """The largest of a value and those after it in its group, shape (K,); ``group`` ascends."""
    # Ranks in place of values: whole numbers can be shifted by group without rounding.
    ordered, rank = np.unique(values, return_inverse=True)
    shifted = rank - group * len(ordered)
    running = np.maximum.accumulate(shifted[::-1])[::-1]
    largest: Floats = ordered[running + group * len(ordered)]
    return largest


def _needed(instance_counts: Ints) -> Ints:
    """True positives that reach each recall: the least k >= 1 with k / n >= r, shape (R, C)."""
    n = np.maximum(instance_counts, 1)
    wanted = RECALLS[:, None]
    k = np.maximum(np.ceil(wanted * n).astype(np.int64), 1)
    # The product may be rounded across a whole number; the quotient decides.
    k = np.where((k > 1) & ((k - 1) / n >= wanted), k - 1, k)
    k = np.where(k / n < wanted, k + 1, k)
    return k.astype(np.int64)
