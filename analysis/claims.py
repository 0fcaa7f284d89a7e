"""The paper's claims, decided from the records.

One function per type of test; :data:`TESTS` says which claim is decided by which. Every difference
is paired by seed and data split and comes with its 95 % t-interval. A claim over several conditions
holds when it holds under each, and does not hold as soon as it fails under one. Fewer than
:data:`MIN_SEEDS` pairs decide nothing. The intervals are not corrected for the number of
comparisons.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import pandas as pd

from analysis.comparison import error_table
from analysis.grid import Grid
from analysis.records import paper_claims, paper_runs
from analysis.summary import Difference, errors_by_seed, paired_difference
from analysis.words import MISSING, dataset_name, method_name, run_name, variant_name

MIN_SEEDS: Final = 3
CLOSE: Final = 1.0
"""Points of error up to which one method counts as 'close to' or 'tied with' another: a little less
than twice the largest spread over runs in the paper's Tables 2 and 3 at imbalance 99 (std 0.57)."""
# So many differences that leave a claim undecided are named.
_NAMED: Final = 3
DEFAULT_TAU: Final = "tau=sigmoid"
FIXED_TAUS: Final = ("tau=0.5", "tau=1.0", "tau=1.5", "tau=2.0", "tau=5.0")
_MIDDLE_TAUS: Final = ("tau=1.0", "tau=1.5", "tau=2.0")


class Verdict(StrEnum):
    """What the records say about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on: differences, and remarks on what is missing."""

    verdict: Verdict
    evidence: tuple[str, ...] = ()
    condition: str = ""

    def __str__(self) -> str:
        """``99 holds: CDB-S − CFS = −1.20 [−1.90, −0.50], n = 5``."""
        heading = f"{self.condition} {self.verdict}".strip()
        return ":\n".join(filter(None, [heading, "\n".join(self.evidence)]))


NOT_RUN: Final = Judgement(Verdict.NOT_RUN)


@dataclass(frozen=True)
class Cells:
    """The runs of one dataset, and which of their errors is looked at."""

    rows: pd.DataFrame
    column: str

    def errors(self, method: str, variant: str, condition: str) -> pd.Series:
        """One cell's errors in percent, indexed by seed and split."""
        return errors_by_seed(self.rows, method, variant, condition, self.column)

    def difference(
        self, first: tuple[str, str], second: tuple[str, str], condition: str
    ) -> Difference | None:
        """First minus second, each a (method, variant); None without a common run."""
        label = _label(first, second)
        return paired_difference(
            label, self.errors(*first, condition), self.errors(*second, condition)
        )


def _label(first: tuple[str, str], second: tuple[str, str]) -> str:
    """Name the two sides: by τ alone within one method, without τ where it is the default."""
    if first[0] == second[0]:
        return f"{method_name(first[0])}, {variant_name(first[1])} − {variant_name(second[1])}"
    names = [run_name(m, "" if v == DEFAULT_TAU else v) for m, v in (first, second)]
    return " − ".join(names)


def is_below(difference: Difference | None, bound: float = 0.0) -> Verdict:
    """Decide 'the difference is below ``bound``': the whole interval must lie on one side of it."""
    if difference is None:
        return Verdict.NOT_RUN
    if difference.n < MIN_SEEDS:
        return Verdict.UNDECIDED
    if difference.high < bound:
        return Verdict.HOLDS
    return Verdict.FAILS if difference.low > bound else Verdict.UNDECIDED


def is_close_or_below(difference: Difference | None) -> Verdict:
    """Decide 'the difference is below :data:`CLOSE`', a test of non-inferiority.

    An interval that merely includes 0 shows nothing: noise widens it. It has to be narrow enough
    to exclude a difference of :data:`CLOSE`.
    """
    return is_below(difference, CLOSE)


def all_hold(verdicts: Iterable[Verdict]) -> Verdict:
    """Join the parts of one claim; a part that was not run leaves the others' claim undecided."""
    parts = set(verdicts)
    if Verdict.FAILS in parts:
        return Verdict.FAILS
    if len(parts) == 1:
        return parts.pop()
    return Verdict.UNDECIDED if parts else Verdict.NOT_RUN


def join(judgements: Sequence[Judgement]) -> Judgement:
    """One judgement over several conditions."""
    verdict = all_hold(judgement.verdict for judgement in judgements)
    if verdict is Verdict.NOT_RUN:
        return NOT_RUN
    return Judgement(verdict, tuple(map(str, judgements)))


def _missing(names: Iterable[str]) -> tuple[str, ...]:
    text = ", ".join(names)
    return (f"no runs of {text}",) if text else ()


# --- one function per type of test -----------------------------------------------------------


def lower_than(
    first: tuple[str, str], second: tuple[str, str], condition: str, cells: Cells
) -> Judgement:
    """Error of ``first`` < error of ``second`` (M2, M3)."""
    difference = cells.difference(first, second, condition)
    if difference is None:
        return Judgement(Verdict.NOT_RUN, (), condition)
    return Judgement(is_below(difference), (str(difference),), condition)


def lowest_of_table(
    method: tuple[str, str], dataset: str, condition: str, tied: str, cells: Cells
) -> Judgement:
    """Error of ``method`` is the lowest of Table 1, with or without one method it ties (M1).

    Holds when it is surely below every other method, and close to or below the tied one. Shown are
    the differences to the lowest other method, to the tied one and to those that decide otherwise.
    """
    rows = error_table(1, dataset)
    rows = rows[(rows["condition"] == condition) & (rows["method"] != method[0])]
    others = list(rows[["method", "variant"]].itertuples(index=False, name=None))
    found = {other: cells.difference(method, other, condition) for other in others}
    verdicts = {
        other: (is_close_or_below if other[0] == tied else is_below)(difference)
        for other, difference in found.items()
    }
    verdict = all_hold(verdicts.values())
    if verdict is Verdict.NOT_RUN:
        return Judgement(verdict, (), condition)
    # Lowest error first: first minus second is largest there.
    run = sorted(((d.mean, o, str(d)) for o, d in found.items() if d is not None), reverse=True)
    deciding = [text for _, other, text in run if verdicts[other] is verdict is not Verdict.HOLDS]
    shown = [run[0][2], *(text for _, other, text in run if other[0] == tied), *deciding[:_NAMED]]
    more = len(set(deciding) - set(shown))
    shown += [f"and {more} more: {verdict}"] if more else []
    missing = [method_name(other[0]) for other in others if found[other] is None]
    return Judgement(verdict, (*dict.fromkeys(shown), *_missing(missing)), condition)


def _lowest_tau(
    method: str, taus: Sequence[str], condition: str, cells: Cells
) -> tuple[str | None, list[str]]:
    """Of the fixed taus, the one with the lowest mean error; and those that were not run."""
    errors = {tau: cells.errors(method, tau, condition) for tau in taus}
    run = {tau: float(values.mean()) for tau, values in errors.items() if len(values)}
    missing = [variant_name(tau) for tau in taus if tau not in run]
    return min(run, key=lambda tau: run[tau], default=None), missing


def falls_then_rises(method: str, condition: str, cells: Cells) -> Judgement:
    """Error at tau 0.5 > the lowest over tau 1.0-2.0 < error at tau 5.0 (M4).

    The middle tau is the best of three by the very test errors that are then compared: this
    favours the claim.
    """
    middle, missing = _lowest_tau(method, _MIDDLE_TAUS, condition, cells)
    ends = ("tau=0.5", "tau=5.0")
    found = {
        end: None if middle is None
        else cells.difference((method, middle), (method, end), condition)
        for end in ends
    }  # fmt: skip
    run = [difference for difference in found.values() if difference is not None]
    if not run:
        return Judgement(Verdict.NOT_RUN, (), condition)
    missing += [variant_name(end) for end in ends if found[end] is None]
    parts = [is_below(difference) for difference in run]
    parts += [Verdict.NOT_RUN] if missing else []
    verdict = all_hold(parts)
    if missing and verdict is Verdict.FAILS:
        # A tau that was not run may yet be the low point.
        verdict = Verdict.UNDECIDED
    return Judgement(verdict, (*map(str, run), *_missing(missing)), condition)


def not_worse_than_best_tau(method: str, variant: str, condition: str, cells: Cells) -> Judgement:
    """Dynamic tau is close to or better than the best fixed tau (M5).

    Holds when the whole interval of the difference lies below :data:`CLOSE`, fails when it lies
    above. The best fixed tau is chosen by the very test errors that are then compared: this favours
    the fixed tau.
    """
    best, missing = _lowest_tau(method, FIXED_TAUS, condition, cells)
    difference = (
        None if best is None else cells.difference((method, variant), (method, best), condition)
    )
    if difference is None:
        return Judgement(Verdict.NOT_RUN, (), condition)
    verdict = all_hold([is_close_or_below(difference), *([Verdict.NOT_RUN] if missing else [])])
    return Judgement(verdict, (str(difference), *_missing(missing)), condition)


# --- which claim is decided by which test ----------------------------------------------------

_CDB_W_CE: Final = ("cdb-w-ce", DEFAULT_TAU)
_CDB_S: Final = ("cdb-s", DEFAULT_TAU)
_CDB_W_FL: Final = ("cdb-w-fl", DEFAULT_TAU)

TESTS: Final[dict[str, tuple[Callable[[Cells], Judgement], ...]]] = {
    "M1": (
        partial(lowest_of_table, _CDB_W_CE, "mnist-lt", "99", ""),
        partial(lowest_of_table, _CDB_W_CE, "mnist-lt", "199", "eql"),
    ),
    "M2": tuple(partial(lower_than, _CDB_S, ("cfs", ""), i) for i in ("99", "199")),
    "M3": tuple(partial(lower_than, _CDB_W_FL, ("focal", ""), i) for i in ("99", "199")),
    "M4": tuple(partial(falls_then_rises, "cdb-w-ce", i) for i in ("99", "199")),
    "M5": (partial(not_worse_than_best_tau, "cdb-w-ce", DEFAULT_TAU, "99"),),
}


def judge(claim: str, dataset: str, frame: pd.DataFrame, column: str) -> Judgement:
    """Decide one claim.

    Args:
        claim: its id in the paper's claims, such as ``M1``; one without a test is 'not run'.
        dataset: whose runs decide it.
        frame: all runs.
        column: ``error_last`` or ``error_best``.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    if claim not in TESTS:
        return NOT_RUN
    cells = Cells(paper_runs(frame, dataset), column)
    return join([test(cells) for test in TESTS[claim]])


def claims_grid(frame: pd.DataFrame) -> Grid:
    """Every claim of the paper with its verdict at the last and at the best epoch."""
    rows = []
    for claim in paper_claims().itertuples(index=False):
        judgements = [
            judge(claim.id, claim.dataset, frame, column) for column in ("error_last", "error_best")
        ]
        cells = [cell for j in judgements for cell in (j.verdict, "\n".join(j.evidence) or MISSING)]
        where = f"{claim.table_or_figure}, {dataset_name(claim.dataset)}"
        rows.append((claim.id, where, claim.claim, *map(str, cells)))
    header = (
        "Claim", "Where", "The paper says", "Last epoch", "Differences in points",
        "Best epoch", "Differences in points",
    )  # fmt: skip
    note = (
        "Differences of test errors are paired by seed and data split, with their 95 % t-interval; "
        f"n is the number of such pairs, and fewer than {MIN_SEEDS} decide nothing. 'Lower' holds "
        "when the whole interval lies below 0, does not hold when it lies above 0, else is "
        f"undecided; 'close to' (M5) and 'ties' (M1 at 199) likewise with {CLOSE:.1f} in place of "
        "0, so that a wide interval supports nothing. "
        "'Not run': no records, or no test for this claim yet."
    )
    return Grid("claims", "The paper's claims", header, tuple(rows), note,
                words=tuple(range(len(header))))  # fmt: skip


def count_verdicts(grid: Grid) -> dict[str, int]:
    """How many claims of :func:`claims_grid` hold, fail, are undecided or not run (last epoch)."""
    verdicts = [row[3] for row in grid.rows]
    return {str(verdict): verdicts.count(str(verdict)) for verdict in Verdict}
