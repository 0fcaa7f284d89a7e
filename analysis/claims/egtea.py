"""The paper's claims on EGTEA verbs (E1, E2), and their wording without the paper's numbers."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import pandas as pd

from analysis.claims.cells import CDB_S, CDB_W_CE, CE, Cells, Run, label_of
from analysis.claims.errors import Test, beside_claimed, highest_of, runs_of_table
from analysis.claims.verdict import Judgement, Verdict, all_hold, is_above
from analysis.summary import paired_difference
from analysis.verbs import paper_value, verb_rows

SPLIT: Final = "split1"


def highest_of_table(method: Run, metric: str, cells: Cells) -> Judgement:
    """``metric`` of ``method`` is the highest of Table 7 (E1).

    Holds when it is surely above every other method.
    """
    return highest_of(method, runs_of_table(verb_rows(7), SPLIT, method), metric, SPLIT, cells)


def _gain(cells: Cells, metric: str) -> pd.Series:
    """CDB-W-CE minus CE in points, by seed and split of both."""
    return (cells.values(CDB_W_CE, SPLIT, metric) - cells.values(CE, SPLIT, metric)).dropna()


def _claimed_gain(metric: str) -> float:
    ours, ce = (paper_value(8, (*run, SPLIT), metric).mean for run in (CDB_W_CE, CE))
    return ours - ce


def gain_is_in_the_tail(kind: str, cells: Cells) -> Judgement:
    """CDB-W-CE gains over CE in the tail, and more there than in the head (E2).

    A gain is the mean over the classes of the part, as Table 8's numbers are. Both the tail's gain
    and its lead over the head's have to lie above 0; the head's is reported.

    Args:
        kind: ``precision`` or ``recall``.
        cells: of our runs.
    """
    head, tail = f"head_{kind}", f"tail_{kind}"
    gains = {metric: cells.difference(CDB_W_CE, CE, SPLIT, metric) for metric in (head, tail)}
    label = f"{label_of(CDB_W_CE, CE)}, tail minus head {kind}"
    lead = paired_difference(label, _gain(cells, tail), _gain(cells, head))
    verdict = all_hold([is_above(gains[tail]), is_above(lead)])
    if verdict is Verdict.NOT_RUN:
        return Judgement(verdict, (), kind)
    shown = [beside_claimed(g, _claimed_gain(m), cells) for m, g in gains.items() if g is not None]
    shown += [] if lead is None else [str(lead)]
    return Judgement(verdict, tuple(shown), kind)


def _all_highest(method: Run, metrics: Sequence[str]) -> tuple[Test, ...]:
    return tuple(partial(highest_of_table, method, metric) for metric in metrics)


TESTS: Final[dict[str, tuple[Test, ...]]] = {
    "E1": (
        *_all_highest(CDB_W_CE, ("top1", "top5", "macro_precision")),
        *_all_highest(CDB_S, ("macro_recall",)),
    ),
    "E2": tuple(partial(gain_is_in_the_tail, kind) for kind in ("precision", "recall")),
}
QUESTIONS: Final = {
    "E1": "CDB-W-CE has the best top-1, top-5 and macro precision; CDB-S the best macro recall",
    "E2": "CDB-W-CE gains over CE in the tail classes, and more there than in the head",
}
"""What is asked where the paper's numbers may not stand."""
