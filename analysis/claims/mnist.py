"""The paper's claims on MNIST-LT (M1-M5)."""

from functools import partial
from typing import Final

from analysis.claims.cells import (
    CDB_S,
    CDB_W_CE,
    CDB_W_FL,
    DEFAULT_TAU,
    FIXED_TAUS,
    FOCAL,
    Cells,
    lowest_tau,
)
from analysis.claims.errors import Test, lower_than, lowest_of_table
from analysis.claims.verdict import (
    Judgement,
    Verdict,
    all_hold,
    is_below,
    is_close_or_below,
    missing,
)
from analysis.words import variant_name

_MIDDLE_TAUS: Final = ("tau=1.0", "tau=1.5", "tau=2.0")


def falls_then_rises(method: str, condition: str, cells: Cells) -> Judgement:
    """Error at tau 0.5 > the lowest over tau 1.0-2.0 < error at tau 5.0 (M4).

    The middle tau is the best of three by the very test errors that are then compared: this
    favours the claim.
    """
    middle, absent = lowest_tau(method, _MIDDLE_TAUS, condition, cells)
    ends = ("tau=0.5", "tau=5.0")
    found = {
        end: None if middle is None
        else cells.difference((method, middle), (method, end), condition)
        for end in ends
    }  # fmt: skip
    run = [difference for difference in found.values() if difference is not None]
    if not run:
        return Judgement(Verdict.NOT_RUN, (), condition)
    absent += [variant_name(end) for end in ends if found[end] is None]
    parts = [is_below(difference) for difference in run]
    parts += [Verdict.NOT_RUN] if absent else []
    verdict = all_hold(parts)
    if absent and verdict is Verdict.FAILS:
        # A tau that was not run may yet be the low point.
        verdict = Verdict.UNDECIDED
    return Judgement(verdict, (*map(str, run), *missing(absent)), condition)


def not_worse_than_best_tau(method: str, variant: str, condition: str, cells: Cells) -> Judgement:
    """Dynamic tau is close to or better than the best fixed tau (M5).

    Holds when the whole interval of the difference lies below
    :data:`~analysis.claims.verdict.CLOSE`, fails when it lies above. The best fixed tau is chosen
    by the very test errors that are then compared: this favours the fixed tau.
    """
    best, absent = lowest_tau(method, FIXED_TAUS, condition, cells)
    difference = (
        None if best is None else cells.difference((method, variant), (method, best), condition)
    )
    if difference is None:
        return Judgement(Verdict.NOT_RUN, (), condition)
    verdict = all_hold([is_close_or_below(difference), *([Verdict.NOT_RUN] if absent else [])])
    return Judgement(verdict, (str(difference), *missing(absent)), condition)


TESTS: Final[dict[str, tuple[Test, ...]]] = {
    "M1": (
        partial(lowest_of_table, CDB_W_CE, "mnist-lt", "99", ""),
        partial(lowest_of_table, CDB_W_CE, "mnist-lt", "199", "eql"),
    ),
    "M2": tuple(partial(lower_than, CDB_S, ("cfs", ""), i) for i in ("99", "199")),
    "M3": tuple(partial(lower_than, CDB_W_FL, FOCAL, i) for i in ("99", "199")),
    "M4": tuple(partial(falls_then_rises, "cdb-w-ce", i) for i in ("99", "199")),
    "M5": (partial(not_worse_than_best_tau, "cdb-w-ce", DEFAULT_TAU, "99"),),
}
