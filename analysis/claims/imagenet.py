"""The paper's claims on ImageNet-LT (C11 of its Fig. 1, I1, I2), and their wording without numbers.

The same tests ask the rendered digit images.
"""

from functools import partial
from typing import Final

from analysis.claims.cells import CDB_W_CE, CDB_W_FL, FOCAL
from analysis.claims.errors import Test, lower_by, lowest_of, runs_of_table
from analysis.claims.shot_tests import not_monotone
from analysis.comparison import error_table

IMBALANCE: Final = "256"
DEMO_IMBALANCE: Final = "80"


def tests_of(condition: str) -> dict[str, tuple[Test, ...]]:
    """The tests by claim, of runs of Table 1's methods under ``condition``."""
    others = runs_of_table(error_table(1, "imagenet-lt"), IMBALANCE, CDB_W_CE)
    return {
        "C11": (partial(not_monotone, condition),),
        "I1": (partial(lowest_of, CDB_W_CE, others, condition, ""),),
        "I2": (partial(lower_by, CDB_W_FL, FOCAL, -3.20, condition),),
    }


TESTS: Final = tests_of(IMBALANCE)
DEMO_TESTS: Final = tests_of(DEMO_IMBALANCE)
QUESTIONS: Final = {
    "C11": "class accuracy of CE is not monotone in class frequency",
    "I1": "CDB-W-CE has the lowest error of Table 1's methods",
    "I2": "CDB-W-FL has a lower error than focal loss",
}
"""What is asked where the paper's numbers may not stand."""
