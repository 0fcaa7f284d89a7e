"""Tests over the sweep of tau in Tables 2 and 3 (C4, C5)."""

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from analysis.claims.cells import DEFAULT_TAU, DYNAMIC_TAUS, FIXED_TAUS, Cells, lowest_tau
from analysis.claims.verdict import MIN_SEEDS, NAMED, NOT_RUN, Judgement, Verdict, is_above
from analysis.summary import difference_of
from analysis.words import method_name, variant_name


def _value(tau: str) -> float:
    return float(tau.removeprefix("tau="))


def _growth_by_seed(method: str, conditions: Sequence[str], cells: Cells) -> list[float]:
    """For each seed of all cells the rank correlation of imbalance and best fixed tau.

    The same tau everywhere is no growth: 0.
    """
    best = []
    for condition in conditions:
        errors = {tau: cells.by_seed((method, tau), condition) for tau in FIXED_TAUS}
        best.append(pd.DataFrame(errors).dropna().idxmin(axis=1).map(_value))
    together = pd.concat(best, axis=1).dropna()
    imbalances = list(map(float, conditions))
    return [
        float(stats.spearmanr(imbalances, row).statistic) if len(set(row)) > 1 else 0.0
        for row in together.itertuples(index=False, name=None)
    ]


def best_tau_grows(method: str, conditions: Sequence[str], cells: Cells) -> Judgement:
    """The best fixed tau grows with the imbalance (C4).

    Decided by the rank correlation of imbalance and best fixed tau, one value per seed: its
    interval must lie above 0. Shown is the tau of the lowest mean error per imbalance.
    """
    best, complete = [], []
    for condition in conditions:
        tau, absent = lowest_tau(method, FIXED_TAUS, condition, cells)
        if tau is not None:
            some = f" (no runs of {', '.join(absent)})" if absent else ""
            best.append(f"{condition}: {variant_name(tau)}{some}")
            complete += [] if absent else [condition]
    if not best:
        return NOT_RUN
    evidence = (f"lowest mean error at {'; '.join(best)}",)
    growth = _growth_by_seed(method, complete, cells) if len(complete) > 1 else []
    if not growth:
        return Judgement(Verdict.UNDECIDED, evidence)
    correlation = difference_of("rank correlation of imbalance and best τ", growth)
    verdict = is_above(correlation)
    if len(complete) < len(conditions):
        # An imbalance that was not run may turn the order.
        verdict = Verdict.UNDECIDED
    return Judgement(verdict, (*evidence, str(correlation)))


def _column(method: str, condition: str, cells: Cells) -> tuple[bool, bool, str] | None:
    """One column of Table 2 or 3: sigmoid lowest, by at least MIN_SEEDS seeds, and by how much.

    None when one of the four dynamic taus was not run.
    """
    errors = {tau: cells.values((method, tau), condition) for tau in DYNAMIC_TAUS}
    seeds = min(map(len, errors.values()))
    if not seeds:
        return None
    rival = min(DYNAMIC_TAUS[1:], key=lambda tau: float(errors[tau].mean()))
    lowest = float(errors[DEFAULT_TAU].mean()) < float(errors[rival].mean())
    difference = cells.difference((method, DEFAULT_TAU), (method, rival), condition)
    label = f"{method_name(method)} at {condition}"
    return lowest, seeds >= MIN_SEEDS, f"{label}: {difference}"


def sigmoid_is_best_dynamic(
    methods: Sequence[str], conditions: Sequence[str], cells: Cells
) -> Judgement:
    """Sigmoid has the lowest mean of the four dynamic taus in most columns of Tables 2 and 3 (C5).

    'Most' is more than half of all columns. It counts columns by their means, as the claim does;
    the differences to the best of the other three, with their intervals, say how sure that is.
    """
    wanted = [(method, condition) for method in methods for condition in conditions]
    columns = [column for pair in wanted if (column := _column(*pair, cells)) is not None]
    if not columns:
        return NOT_RUN
    sure = [lowest for lowest, enough, _ in columns if enough]
    verdict = Verdict.UNDECIDED
    if sum(sure) * 2 > len(wanted):
        verdict = Verdict.HOLDS
    elif (len(sure) - sum(sure)) * 2 >= len(wanted):
        verdict = Verdict.FAILS
    count = sum(lowest for lowest, _, _ in columns)
    text = f"lowest in {count} of the {len(columns)} columns run ({len(wanted)} in all)"
    others = [shown for lowest, _, shown in columns if not lowest]
    shown = others[:NAMED] or [shown for _, _, shown in columns[:NAMED]]
    more = [f"and {len(others) - NAMED} more"] if len(others) > NAMED else []
    return Judgement(verdict, (text, *shown, *more))
