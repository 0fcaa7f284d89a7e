"""The paper's claims on CIFAR100-LT (C1-C10), and their wording without the paper's numbers."""

from functools import partial
from typing import Final

from analysis.claims.cells import CDB_S, CDB_W_CE, Run
from analysis.claims.errors import Test, lower_by, lower_in_all, lowest_of_table
from analysis.claims.shot_tests import (
    focal_gap_and_gains,
    many_falls_below,
    most_hard_in_many,
    not_monotone,
)
from analysis.claims.taus import best_tau_grows, sigmoid_is_best_dynamic

_IMBALANCES: Final = ("10", "20", "50", "100", "200")
_TABLE_4: Final = ("10", "100")
_SECOND_STAGES: Final = ("crt", "lws")
_STAGE_1: Final = ("ce", "cdb-w-ce", "cdb-s")
_STAGE_2: Final = ("class-aware", "cdb-w-ce", "cdb-s")


def _run(second_stage: str, method: str, stage_1: str) -> Run:
    return f"{second_stage}+{method}", f"stage1={stage_1}"


FIRST_STAGE_PAIRS: Final = [
    (_run(k, method, stage_1), _run(k, method, "ce"))
    for k in _SECOND_STAGES
    for method in _STAGE_2
    for stage_1 in ("cdb-w-ce", "cdb-s")
]
"""Per row of Table 4: each CDB column and the CE column."""
SECOND_STAGE_PAIRS: Final = [
    (_run(k, better, stage_1), _run(k, worse, stage_1))
    for k in _SECOND_STAGES
    for stage_1 in _STAGE_1
    for better, worse in (("cdb-s", "class-aware"), ("class-aware", "cdb-w-ce"))
]
"""Per column of Table 4: CDB-S < class-aware < CDB-W-CE."""

TESTS: Final[dict[str, tuple[Test, ...]]] = {
    "C1": tuple(partial(lowest_of_table, CDB_W_CE, "cifar100-lt", i, "") for i in _TABLE_4),
    "C2": (partial(lower_by, CDB_S, ("cfs", ""), -3.04, "100"),),
    "C3": (partial(lower_by, CDB_S, ("eql", ""), -1.43, "100"),),
    "C4": (partial(best_tau_grows, "cdb-w-ce", _IMBALANCES),),
    "C5": (partial(sigmoid_is_best_dynamic, ("cdb-w-ce", "cdb-s"), _IMBALANCES),),
    "C6": tuple(partial(lower_in_all, FIRST_STAGE_PAIRS, i) for i in _TABLE_4),
    "C7": tuple(partial(lower_in_all, SECOND_STAGE_PAIRS, i) for i in _TABLE_4),
    "C8": (most_hard_in_many,),
    "C9": (many_falls_below,),
    "C10": (focal_gap_and_gains,),
}
QUESTIONS: Final = {
    "C1": "CDB-W-CE has the lowest error of Table 1's methods (imbalance 10, 100)",
    "C2": "CDB-S has a lower error than class-frequency sampling (imbalance 100)",
    "C3": "CDB-S has a lower error than EQL (imbalance 100)",
    "C4": "the best fixed τ of CDB-W-CE grows with the imbalance",
    "C5": "sigmoid is the best dynamic τ in most columns of Tables 2 and 3",
    "C6": "stage 1 with CDB-W-CE or CDB-S gives a lower final error than with CE",
    "C7": "in stage 2 CDB-S is better than class-aware sampling, and that better than CDB-W-CE",
    "C8": "under focal loss the many-shot classes hold the most hard instances nearly always",
    "C9": "under CDB-W-CE the many-shot count of hard instances falls below medium and few",
    "C10": "CDB-W-CE is more accurate than focal on medium-shot, few-shot and all classes",
    "C11": "class accuracy of CE is not monotone in class frequency",
}
"""What is asked where the paper's numbers may not stand."""
OFF_PAPER_TESTS: Final[dict[str, tuple[Test, ...]]] = TESTS | {
    "C11": (partial(not_monotone, "100"),)
}
"""With the statistic of Fig. 1, which the paper claims on ImageNet-LT."""
