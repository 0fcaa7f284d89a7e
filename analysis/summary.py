"""Mean, spread and the paired difference of two methods.

Shapes: n seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd
from scipy import stats

from analysis.words import MISSING, number, signed


@dataclass(frozen=True)
class Summary:
    """Mean over n seeds; ``std`` is the sample standard deviation, NaN for a single seed."""

    mean: float = math.nan
    std: float = math.nan
    n: int = 0

    def __str__(self) -> str:
        """``8.59 ± 0.41``, ``8.59`` without a spread, a dash without a value."""
        if math.isnan(self.mean):
            return MISSING
        return number(self.mean) + ("" if math.isnan(self.std) else f" ± {number(self.std)}")

    def with_n(self) -> str:
        """Add the number of seeds: ``8.59 ± 0.41 (5)``."""
        return f"{self} ({self.n})" if self.n else MISSING

    def half_width(self, confidence: float = 0.95) -> float:
        """Half of the mean's interval from Student's t with n - 1 degrees; NaN for a single seed.

        Args:
            confidence: the interval's level.
        """
        if self.n < 2:
            return math.nan
        # t_{(1 + confidence) / 2, n - 1} * s / sqrt(n)
        quantile = float(stats.t.ppf((1.0 + confidence) / 2.0, self.n - 1))
        return quantile * self.std / math.sqrt(self.n)

    def with_interval(self) -> str:
        """The 95 % t-interval of the mean: ``8.59 [8.08, 9.10]``; a single seed has none."""
        half = self.half_width()
        if math.isnan(half):
            return number(self.mean)
        return f"{number(self.mean)} [{number(self.mean - half)}, {number(self.mean + half)}]"


def summarize(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (divided by n - 1) of the values that are not NaN.

    >>> str(summarize([2.0, 4.0]))
    '3.00 ± 1.41'
    """
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return Summary()
    return Summary(fmean(known), stdev(known) if len(known) > 1 else math.nan, len(known))


@dataclass(frozen=True)
class Difference:
    """Mean difference a - b, paired by seed and split, with its 95 % t-interval.

    Attributes:
        label: what is subtracted from what.
        mean: in the unit of the values (points of error).
        low: lower end; NaN for a single pair.
        high: upper end; NaN for a single pair.
        n: pairs, that is seeds that both have on the same split.
    """

    label: str
    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """``CDB-S - CFS = −1.20 [−1.90, −0.50], n = 5``."""
        interval = "" if math.isnan(self.low) else f" [{number(self.low)}, {number(self.high)}]"
        return f"{self.label} = {signed(self.mean)}{interval}, n = {self.n}"


def difference_of(label: str, pairs: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of the paired differences and its interval from Student's t with n - 1 degrees.

    Args:
        label: what is subtracted from what.
        pairs: the differences, shape (n,), n >= 1.
        confidence: the interval's level.

    >>> str(difference_of("a − b", [1.0, 2.0, 3.0]))
    'a − b = +2.00 [−0.48, 4.48], n = 3'
    """
    summary = summarize(pairs)
    half = summary.half_width(confidence)
    return Difference(label, summary.mean, summary.mean - half, summary.mean + half, summary.n)


def errors_by_seed(
    rows: pd.DataFrame, method: str, variant: str, condition: str, column: str
) -> pd.Series:
    """One cell's values of ``column``, indexed by seed and split; empty when it was not run."""
    of_cell = (
        (rows["method"] == method) & (rows["variant"] == variant) & (rows["condition"] == condition)
    )
    # Of the many columns those alone: the others, whole records too, would be copied.
    chosen = rows.loc[of_cell, ["seed", "split", column]]
    return chosen.set_index(["seed", "split"])[column].dropna()


def paired_difference(label: str, first: pd.Series, second: pd.Series) -> Difference | None:
    """First minus second over what both have; None when they have nothing in common.

    Both are indexed by seed and split (:func:`errors_by_seed`): the same data in both runs, so the
    pairing removes the split's part of the spread.
    """
    pairs = (first - second).dropna()
    return difference_of(label, list(pairs)) if len(pairs) else None
