"""The runs that decide a claim, cell by cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis.records import AP_METRICS, CELL, SHOTS, VERB_METRICS, Record, imbalance_of
from analysis.summary import Difference, errors_by_seed, paired_difference
from analysis.words import method_name, metric_name, run_name, variant_name

Run = tuple[str, str]
"""A method and its variant."""

DEFAULT_TAU: Final = "tau=sigmoid"
FIXED_TAUS: Final = ("tau=0.5", "tau=1.0", "tau=1.5", "tau=2.0", "tau=5.0")
DYNAMIC_TAUS: Final = (DEFAULT_TAU, "tau=linear", "tau=polynomial", "tau=logarithmic")
CE: Final = ("ce", "")
FOCAL: Final = ("focal", "")
CDB_W_CE: Final = ("cdb-w-ce", DEFAULT_TAU)
CDB_S: Final = ("cdb-s", DEFAULT_TAU)
CDB_W_FL: Final = ("cdb-w-fl", DEFAULT_TAU)


_OF: Final = {
    "all": ", accuracy over all classes",
    **{shot: f", {shot}-shot accuracy" for shot in SHOTS},
    **{metric: f", {metric_name(metric)}" for metric in (*VERB_METRICS, *AP_METRICS)},
}


@dataclass(frozen=True)
class Cells:
    """The runs of one experiment, and at which of their epochs we look.

    Attributes:
        rows: of one group (:func:`analysis.records.group_runs`).
        epoch: ``last`` or ``best``.
        beside_paper: whether the paper's numbers may stand beside these runs.
    """

    rows: pd.DataFrame
    epoch: str
    beside_paper: bool = True

    def values(self, run: Run, condition: str, column: str = "error") -> pd.Series:
        """One cell's percentages at the epoch, indexed by seed and split.

        Args:
            run: method and variant.
            condition: such as ``100``.
            column: ``error``, or the accuracy of ``all`` or of a shot group: ``many``, ``medium``
                or ``few``, or one of :data:`analysis.records.VERB_METRICS` and ``AP_METRICS``.
        """
        if column == "all":
            return 100.0 - self.values(run, condition)
        return errors_by_seed(self.rows, *run, condition, f"{column}_{self.epoch}")

    def by_seed(self, run: Run, condition: str) -> pd.Series:
        """One cell's errors by seed alone, to compare cells of different imbalances."""
        return self.values(run, condition).droplevel("split")

    def difference(
        self, first: Run, second: Run, condition: str, column: str = "error"
    ) -> Difference | None:
        """First minus second; None without a common run."""
        label = label_of(first, second) + _OF.get(column, "")
        return paired_difference(
            label, self.values(first, condition, column), self.values(second, condition, column)
        )

    def records(self, run: Run, condition: str) -> list[Record]:
        """One cell's records, lowest seed first."""
        chosen = self.rows[(self.rows[CELL] == [*run, condition]).all(axis=1)]
        return list(chosen.sort_values("seed")["record"])

    def conditions(self, *runs: Run) -> list[str]:
        """Conditions under which each of the runs was run, largest imbalance first."""
        sets = [
            set(self.rows[(self.rows[["method", "variant"]] == list(run)).all(axis=1)]["condition"])
            for run in runs
        ]
        return sorted(set.intersection(*sets), key=imbalance_of, reverse=True)


def name_of(run: Run) -> str:
    """Method and variant, without τ where it is the default."""
    method, variant = run
    return run_name(method, "" if variant == DEFAULT_TAU else variant)


def label_of(first: Run, second: Run) -> str:
    """Name the two sides: within one method by the variant alone, else as :func:`name_of`."""
    if first[0] == second[0]:
        return f"{method_name(first[0])}, {variant_name(first[1])} − {variant_name(second[1])}"
    return f"{name_of(first)} − {name_of(second)}"


def lowest_tau(
    method: str, taus: Sequence[str], condition: str, cells: Cells
) -> tuple[str | None, list[str]]:
    """Of ``taus``, the one with the lowest mean error; and the names of those not run."""
    errors = {tau: cells.values((method, tau), condition) for tau in taus}
    run = {tau: float(values.mean()) for tau, values in errors.items() if len(values)}
    absent = [variant_name(tau) for tau in taus if tau not in run]
    return min(run, key=lambda tau: run[tau], default=None), absent
