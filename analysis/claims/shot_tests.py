"""Tests on shot groups and classes: Figs. 4, 5 and 1 (C8-C11).

Shapes: E epochs.
"""

import math
from typing import Final

import numpy as np

from analysis.claims.cells import CDB_W_CE, CE, FOCAL, Cells
from analysis.claims.errors import beside_claimed
from analysis.claims.verdict import (
    MIN_SEEDS,
    Judgement,
    Verdict,
    all_hold,
    is_above,
)
from analysis.class_accuracy import class_accuracy, rank_correlation, tail_above_head
from analysis.hard_instances import hard_by_shot
from analysis.records import SHOTS, Record
from analysis.summary import difference_of, paired_difference, summarize
from analysis.words import number

PAPERS_CONDITION: Final = "200"
NEARLY_ALL: Final = 0.9
"""Share of epochs that counts as 'nearly all the time'; the paper names none."""
MONOTONE: Final = 0.9
"""Rank correlation of accuracy and count from which on we call the one monotone in the other."""


def figures_condition(cells: Cells) -> str:
    """Imbalance of Figs. 4 and 5: the paper's 200.

    Off the paper's schedule, if 200 was not run, the largest that focal and CDB-W-CE both ran.
    """
    run = cells.conditions(FOCAL, CDB_W_CE)
    if cells.beside_paper or PAPERS_CONDITION in run or not run:
        return PAPERS_CONDITION
    return run[0]


def _courses(records: list[Record]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Hard instances of many, medium and few, each of shape (E,), of runs that have all three."""
    counted = [hard_by_shot(record) for record in records]
    return [
        (c["many"], c["medium"], c["few"])
        for c in counted
        if c is not None and set(c) >= set(SHOTS)
    ]


def share_of_most(many: np.ndarray, medium: np.ndarray, few: np.ndarray) -> float:
    """Share of epochs in which the many-shot classes hold the most hard instances, in [0, 1]."""
    return float(((many > medium) & (many > few)).mean())


def most_hard_in_many(cells: Cells) -> Judgement:
    """Under focal loss the many-shot classes hold the most hard instances nearly always (C8).

    Per class on average, as in Fig. 4. The interval of the share of epochs must lie above
    :data:`NEARLY_ALL`.
    """
    condition = figures_condition(cells)
    shares = [share_of_most(*course) for course in _courses(cells.records(FOCAL, condition))]
    if not shares:
        return Judgement(Verdict.NOT_RUN, (), condition)
    share = difference_of("", shares)
    text = summarize([100.0 * value for value in shares]).with_interval()
    evidence = f"in {text} % of the epochs, n = {share.n}"
    return Judgement(is_above(share, NEARLY_ALL), (evidence,), condition)


def _is_below(many: np.ndarray, medium: np.ndarray, few: np.ndarray) -> np.ndarray:
    below: np.ndarray = (many < medium) & (many < few)
    return below


def crossing_epoch(many: np.ndarray, medium: np.ndarray, few: np.ndarray) -> int | None:
    """First epoch from which on the many-shot count is below both others nearly all the time.

    Nearly all are :data:`NEARLY_ALL` of the epochs from there to the end. The last tenth of the
    training is too little to speak of a crossing. Equal counts, such as no hard class at all, are
    not below.

    Returns:
        The epoch, counted from 1; None when there is none.
    """
    below = _is_below(many, medium, few)
    for start in range(math.floor(NEARLY_ALL * len(below))):
        if below[start] and below[start:].mean() >= NEARLY_ALL:
            return start + 1
    return None


def many_falls_below(cells: Cells) -> Judgement:
    """Under CDB-W-CE the many-shot count falls below medium and few in the training (C9).

    Holds when it does in every run, does not hold when it does in none.
    """
    condition = figures_condition(cells)
    courses = _courses(cells.records(CDB_W_CE, condition))
    if not courses:
        return Judgement(Verdict.NOT_RUN, (), condition)
    found = [crossing_epoch(*course) for course in courses]
    crossed = [epoch for epoch in found if epoch is not None]
    where = f", at epoch {', '.join(map(str, crossed))}" if crossed else ""
    below = [100.0 * float(_is_below(*course).mean()) for course in courses]
    evidence = f"crossing in {len(crossed)} of {len(found)} runs of {len(courses[0][0])} epochs"
    share = f"below both in {summarize(below).with_interval()} % of the epochs, n = {len(below)}"
    verdict = Verdict.UNDECIDED
    if len(found) >= MIN_SEEDS and len(crossed) in (0, len(found)):
        verdict = Verdict.HOLDS if crossed else Verdict.FAILS
    return Judgement(verdict, (evidence + where, share), condition)


# Points that the paper states at imbalance 200: gap many - few of focal, and CDB-W-CE's gains.
_GAP: Final = 60.0
_GAINS: Final = {"medium": 5.11, "few": 7.26, "all": 1.74}


def focal_gap_and_gains(cells: Cells) -> Judgement:
    """Focal's gap many - few is over 60 points; CDB-W-CE gains on medium, few and all (C10).

    Each gain is judged by its sign, its size is reported. Where the paper's numbers may not stand
    the gap is reported only.
    """
    condition = figures_condition(cells)
    many, few = (cells.values(FOCAL, condition, shot) for shot in ("many", "few"))
    gap = paired_difference("Focal, many − few", many, few)
    gains = {shot: cells.difference(CDB_W_CE, FOCAL, condition, shot) for shot in _GAINS}
    parts = [is_above(gain) for gain in gains.values()]
    parts += [is_above(gap, _GAP)] if cells.beside_paper else []
    verdict = all_hold(parts)
    shown = [] if gap is None else [str(gap)]
    shown += [beside_claimed(g, _GAINS[s], cells) for s, g in gains.items() if g is not None]
    if not shown:
        return Judgement(Verdict.NOT_RUN, (), condition)
    # The gap alone, of focal without CDB-W-CE, leaves the gains open.
    verdict = Verdict.UNDECIDED if verdict is Verdict.NOT_RUN else verdict
    return Judgement(verdict, tuple(shown), condition)


def not_monotone(condition: str, cells: Cells) -> Judgement:
    """Class accuracy of CE is not monotone in class frequency (C11).

    Holds when the interval of the rank correlation lies below :data:`MONOTONE` and some tail class
    is above the head's median, fails when it lies above. The interval is over classes, so that one
    seed suffices.
    """
    found = class_accuracy(cells.records(CE, condition), cells.epoch)
    if found is None:
        return Judgement(Verdict.NOT_RUN, (), condition)
    correlation, share = rank_correlation(found), tail_above_head(found)
    verdict = Verdict.UNDECIDED
    if correlation.high < MONOTONE and share > 0:
        verdict = Verdict.HOLDS
    elif correlation.low > MONOTONE:
        verdict = Verdict.FAILS
    evidence = (
        f"rank correlation of accuracy and count {correlation}, n = {found.n}",
        f"{number(100 * share, 1)} % of the few-shot classes are above the many-shot median",
    )
    return Judgement(verdict, evidence, condition)
