"""Tests that more than one data set's claims use: one method's error against others'."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from analysis.claims.cells import Cells, Run, name_of
from analysis.claims.verdict import (
    NAMED,
    Judgement,
    Verdict,
    all_hold,
    is_above,
    is_below,
    is_close_or_below,
    missing,
)
from analysis.comparison import error_table
from analysis.summary import Difference
from analysis.words import metric_name, number, signed

Test = Callable[[Cells], Judgement]


def lower_than(first: Run, second: Run, condition: str, cells: Cells) -> Judgement:
    """Error of ``first`` < error of ``second`` (M2, M3)."""
    difference = cells.difference(first, second, condition)
    if difference is None:
        return Judgement(Verdict.NOT_RUN, (), condition)
    return Judgement(is_below(difference), (str(difference),), condition)


def beside_claimed(difference: Difference, claimed: float, cells: Cells) -> str:
    """The difference, and whether its interval includes the paper's number where that may stand.

    Args:
        difference: ours.
        claimed: the paper's, in the same direction.
        cells: of our runs.
    """
    if not cells.beside_paper:
        return str(difference)
    text = f"{difference}; the paper's {signed(claimed)}"
    if difference.n < 2:
        return text
    inside = difference.low <= claimed <= difference.high
    return f"{text} is {'inside' if inside else 'outside'} the interval"


def lower_by(first: Run, second: Run, claimed: float, condition: str, cells: Cells) -> Judgement:
    """Error of ``first`` < error of ``second``, shown beside the claimed difference (C2, C3).

    The claim holds when the error is lower; the size is reported, not judged.
    """
    difference = cells.difference(first, second, condition)
    if difference is None:
        return Judgement(Verdict.NOT_RUN, (), condition)
    evidence = beside_claimed(difference, claimed, cells)
    return Judgement(is_below(difference), (evidence,), condition)


def runs_of_table(rows: pd.DataFrame, condition: str, method: Run) -> list[Run]:
    """Every other row of one of the paper's tables under ``condition``, in its order."""
    chosen = rows[rows["condition"] == condition][["method", "variant"]]
    runs = dict.fromkeys(chosen.itertuples(index=False, name=None))
    return [run for run in runs if run != method]


def against_all(
    found: Mapping[Run, Difference | None],
    verdicts: Mapping[Run, Verdict],
    condition: str,
    *,
    tied: str = "",
    lower: bool = True,
) -> Judgement:
    """One method against every other: every single verdict has to hold.

    Shown are the differences to the best other method, to the tied one and to those that decide
    otherwise.

    Args:
        found: the method minus each other one; None where there is no common run.
        verdicts: what each difference decides.
        condition: the judgement's.
        tied: the method that may tie.
        lower: whether the lower value is the better one.
    """
    verdict = all_hold(verdicts.values())
    if verdict is Verdict.NOT_RUN:
        return Judgement(verdict, (), condition)
    # Best other first: there, first minus second is largest where lower is better.
    run = sorted(((d.mean, o, str(d)) for o, d in found.items() if d is not None), reverse=lower)
    deciding = [text for _, other, text in run if verdicts[other] is verdict is not Verdict.HOLDS]
    shown = [run[0][2], *(text for _, other, text in run if other[0] == tied), *deciding[:NAMED]]
    more = len(set(deciding) - set(shown))
    shown += [f"and {more} more: {verdict}"] if more else []
    absent = [name_of(other) for other, difference in found.items() if difference is None]
    return Judgement(verdict, (*dict.fromkeys(shown), *missing(absent)), condition)


def lowest_of(
    method: Run, others: Sequence[Run], condition: str, tied: str, cells: Cells
) -> Judgement:
    """Error of ``method`` is the lowest, with or without one method that it ties.

    Holds when it is surely below every other method, and close to or below the tied one.
    """
    found = {other: cells.difference(method, other, condition) for other in others}
    verdicts = {
        other: (is_close_or_below if other[0] == tied else is_below)(difference)
        for other, difference in found.items()
    }
    return against_all(found, verdicts, condition, tied=tied)


def lowest_of_table(
    method: Run, dataset: str, condition: str, tied: str, cells: Cells
) -> Judgement:
    """Error of ``method`` is the lowest of Table 1 (M1, C1, I1); see :func:`lowest_of`."""
    others = runs_of_table(error_table(1, dataset), condition, method)
    return lowest_of(method, others, condition, tied, cells)


def highest_of(
    method: Run, others: Sequence[Run], metric: str, condition: str, cells: Cells
) -> Judgement:
    """``metric`` of ``method`` is higher than that of every other run (E1, L2)."""
    found = {other: cells.difference(method, other, condition, metric) for other in others}
    verdicts = {other: is_above(difference) for other, difference in found.items()}
    return against_all(found, verdicts, metric_name(metric), lower=False)


def lower_in_all(pairs: Sequence[tuple[Run, Run]], condition: str, cells: Cells) -> Judgement:
    """Error of the first of each pair < error of its second (C6, C7).

    Shown are the counts, the mean of the differences, and of those that decide against the claim
    the largest.
    """
    found = [cells.difference(*pair, condition) for pair in pairs]
    run = sorted((d for d in found if d is not None), key=lambda d: -d.mean)
    verdict = all_hold(is_below(difference) for difference in found)
    if not run:
        return Judgement(Verdict.NOT_RUN, (), condition)
    parts = [is_below(difference) for difference in run]
    everything = [*parts, *[Verdict.NOT_RUN] * (len(pairs) - len(run))]
    counts = [f"{v} {everything.count(v)}" for v in Verdict if v in everything]
    text = f"{len(pairs)} differences: {', '.join(counts)}"
    mean = sum(difference.mean for difference in run) / len(run)
    against = [str(d) for d, v in zip(run, parts, strict=True) if v is verdict is not Verdict.HOLDS]
    evidence = (f"{text}; their mean is {number(mean)}", *(against[:NAMED] or [str(run[0])]))
    return Judgement(verdict, evidence, condition)
