import pytest

from analysis.claims import claims_grid, count_verdicts, judge
from analysis.claims.verdict import (
    Verdict,
    all_hold,
    is_below,
    is_close_or_below,
)
from analysis.records import paper_runs, to_frame
from analysis.summary import difference_of

# Mean 0, spread 0.1: differences of cells with these offsets have half widths of about 0.25.
JITTER = (-0.1, 0.0, 0.1)
TABLE_1 = (
    ("ce", ""), ("focal", ""), ("cfs", ""), ("cb", ""), ("eql", ""), ("l2rw", ""),
    ("cdb-s", "tau=sigmoid"), ("cdb-w-fl", "tau=sigmoid"), ("cdb-w-ce", "tau=sigmoid"),
)  # fmt: skip


@pytest.fixture
def cell(make_record):
    """Three runs of a cell around a mean error; ``flip`` mirrors the seeds' deviations."""

    def make(method, variant, condition, mean, *, flip=False, spread=1, seeds=3, best=None):
        sign = -spread if flip else spread
        return [
            make_record(
                method, variant, condition, seed, error=mean + sign * offset,
                best_error=None if best is None else best + sign * offset,
            )
            for seed, offset in enumerate(JITTER[:seeds])
        ]  # fmt: skip

    return make


def verdict(claim, records, epoch="last"):
    return judge(claim, paper_runs(to_frame(records), "mnist-lt"), epoch)


@pytest.mark.parametrize(
    ("pairs", "below", "close_or_below"),
    [
        # s = 0.1: interval mean -+ 0.2484
        ([-2.1, -2.0, -1.9], Verdict.HOLDS, Verdict.HOLDS),
        ([-0.1, 0.0, 0.1], Verdict.UNDECIDED, Verdict.HOLDS),
        ([0.4, 0.5, 0.6], Verdict.FAILS, Verdict.HOLDS),
        ([0.8, 0.9, 1.0], Verdict.FAILS, Verdict.UNDECIDED),
        ([1.9, 2.0, 2.1], Verdict.FAILS, Verdict.FAILS),
        # s = 1: -2 -+ 2.484 includes 0 but not 1, 0 -+ 2.484 includes both
        ([-1.0, -2.0, -3.0], Verdict.UNDECIDED, Verdict.HOLDS),
        ([-1.0, 0.0, 1.0], Verdict.UNDECIDED, Verdict.UNDECIDED),
        # two seeds decide nothing, however clear they look
        ([-2.0, -2.0], Verdict.UNDECIDED, Verdict.UNDECIDED),
    ],
)
def test_verdict_follows_the_interval(pairs, below, close_or_below):
    difference = difference_of("", pairs)
    assert is_below(difference) is below
    assert is_close_or_below(difference) is close_or_below


def test_claim_over_two_conditions_joins_their_verdicts():
    assert all_hold([Verdict.HOLDS, Verdict.HOLDS]) is Verdict.HOLDS
    assert all_hold([Verdict.HOLDS, Verdict.FAILS]) is Verdict.FAILS
    assert all_hold([Verdict.HOLDS, Verdict.UNDECIDED]) is Verdict.UNDECIDED
    assert all_hold([Verdict.HOLDS, Verdict.NOT_RUN]) is Verdict.UNDECIDED
    assert all_hold([Verdict.NOT_RUN, Verdict.NOT_RUN]) is Verdict.NOT_RUN


def m2(cell, at_99, at_199, **more):
    sampling = [r for i in ("99", "199") for r in cell("cfs", "", i, 6.0)]
    return [
        *sampling,
        *cell("cdb-s", "tau=sigmoid", "99", 6.0 + at_99, flip=True, **more),
        *cell("cdb-s", "tau=sigmoid", "199", 6.0 + at_199, flip=True),
    ]


@pytest.mark.parametrize(
    ("at_99", "at_199", "expected"),
    [
        (-2.0, -2.0, Verdict.HOLDS),
        (2.0, 2.0, Verdict.FAILS),
        (-2.0, 2.0, Verdict.FAILS),
        # flipped jitter: s = 0.2, half width 0.497 > 0.1
        (-2.0, -0.1, Verdict.UNDECIDED),
    ],
)
def test_m2_needs_both_imbalances(cell, at_99, at_199, expected):
    assert verdict("M2", m2(cell, at_99, at_199)).verdict is expected


def test_evidence_states_difference_interval_and_seeds(cell):
    judgement = verdict("M2", m2(cell, -2.0, -2.0))
    # 4.302653 * 0.2 / sqrt(3) = 0.4968
    assert judgement.evidence[0] == "99 holds:\nCDB-S − CFS = −2.00 [−2.50, −1.50], n = 3"


def test_two_common_seeds_leave_a_claim_undecided_with_its_n(cell):
    judgement = verdict("M2", m2(cell, -2.0, -2.0, seeds=2))
    assert judgement.verdict is Verdict.UNDECIDED
    assert "n = 2" in judgement.evidence[0]


def test_m3_compares_cdb_weighted_focal_with_focal(cell):
    records = [r for i in ("99", "199") for r in cell("focal", "", i, 7.0)]
    records += [r for i in ("99", "199") for r in cell("cdb-w-fl", "tau=sigmoid", i, 5.0)]
    assert verdict("M3", records).verdict is Verdict.HOLDS


def test_verdict_of_the_best_epoch_is_its_own(cell):
    records = [r for i in ("99", "199") for r in cell("focal", "", i, 7.0, best=3.0)]
    records += [r for i in ("99", "199") for r in cell("cdb-w-fl", "tau=sigmoid", i, 5.0, best=4.0)]
    assert verdict("M3", records).verdict is Verdict.HOLDS
    assert verdict("M3", records, "best").verdict is Verdict.FAILS


def m1(cell, errors_99, errors_199, **spread):
    records = []
    for condition, errors in (("99", errors_99), ("199", errors_199)):
        for method, variant in TABLE_1:
            mean = errors.get(method, 8.0)
            if mean is not None:
                # Every second method's seeds deviate the other way: no interval is a point.
                flip = method in ("cdb-w-ce", "cdb-s")
                wide = spread.get(method, 1)
                records += cell(method, variant, condition, mean, flip=flip, spread=wide)
    return records


BEST = {"cdb-w-ce": 2.0, "eql": 4.0}
TIE = {"cdb-w-ce": 2.0, "eql": 2.0}


def test_m1_holds_when_lowest_at_99_and_tied_with_eql_at_199(cell):
    judgement = verdict("M1", m1(cell, BEST, TIE))
    assert judgement.verdict is Verdict.HOLDS
    assert "CDB-W-CE − EQL = 0.00" in judgement.evidence[1]


def test_m1_is_undecided_when_eql_ties_at_99(cell):
    assert verdict("M1", m1(cell, TIE, TIE)).verdict is Verdict.UNDECIDED


def test_m1_fails_when_another_method_is_surely_lower(cell):
    judgement = verdict("M1", m1(cell, BEST, TIE | {"l2rw": 1.0}))
    assert judgement.verdict is Verdict.FAILS
    assert "CDB-W-CE − L2RW = +1.00" in judgement.evidence[1]


@pytest.mark.parametrize(
    ("eql", "expected"),
    # The interval's half width is 0.50.
    [(1.6, Verdict.HOLDS), (1.0, Verdict.UNDECIDED), (0.4, Verdict.FAILS)],
)
def test_m1_tie_is_lost_when_eql_is_lower_by_more_than_the_margin(cell, eql, expected):
    judgement = verdict("M1", m1(cell, BEST, TIE | {"eql": eql}))
    assert judgement.verdict is expected


def test_m1_noise_does_not_make_a_tie(cell):
    assert verdict("M1", m1(cell, BEST, TIE, eql=15)).verdict is Verdict.UNDECIDED


def test_m1_is_undecided_by_a_rival_of_larger_gap_and_more_spread(cell):
    judgement = verdict("M1", m1(cell, BEST, TIE, cb=40))
    assert judgement.verdict is Verdict.UNDECIDED
    runner_up, rival = judgement.evidence[0].splitlines()[1:]
    assert "CDB-W-CE − EQL = −2.00" in runner_up
    assert "CDB-W-CE − CB = −6.00" in rival


def test_m1_names_three_of_the_rivals_that_decide(cell):
    better = {"ce": 0.5, "cb": 0.6, "cfs": 0.7, "focal": 0.8, "l2rw": 0.9}
    lines = verdict("M1", m1(cell, better | {"cdb-w-ce": 2.0}, TIE)).evidence[0].splitlines()
    assert lines[0] == "99 does not hold:"
    assert [line.split(" = ")[0] for line in lines[1:4]] == [
        "CDB-W-CE − CE", "CDB-W-CE − CB", "CDB-W-CE − CFS",
    ]  # fmt: skip
    assert lines[4:] == ["and 2 more: does not hold"]


def test_m1_cannot_hold_while_a_method_was_not_run(cell):
    judgement = verdict("M1", m1(cell, BEST | {"l2rw": None}, TIE))
    assert judgement.verdict is Verdict.UNDECIDED
    assert "no runs of L2RW" in judgement.evidence[0]


def sweep(cell, errors, condition):
    return [
        record
        for tau, mean in errors.items()
        for record in cell("cdb-w-ce", f"tau={tau}", condition, mean, flip=tau in ("0.5", "5.0"))
    ]


VALLEY = {"0.5": 6.0, "1.0": 5.0, "1.5": 3.0, "2.0": 4.0, "5.0": 6.0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Verdict.HOLDS),
        ({"5.0": 1.0}, Verdict.FAILS),
        ({"0.5": 3.1}, Verdict.UNDECIDED),
    ],
)
def test_m4_looks_for_a_valley_over_tau(cell, change, expected):
    records = sweep(cell, VALLEY | change, "99") + sweep(cell, VALLEY, "199")
    assert verdict("M4", records).verdict is expected


def test_m4_names_the_tau_it_compares(cell):
    records = sweep(cell, VALLEY, "99") + sweep(cell, VALLEY, "199")
    assert "CDB-W-CE, τ 1.5 − τ 0.5 = −3.00" in verdict("M4", records).evidence[0]


def test_m4_with_a_missing_tau_is_undecided(cell):
    errors = {tau: error for tau, error in VALLEY.items() if tau != "2.0"}
    judgement = verdict("M4", sweep(cell, errors, "99") + sweep(cell, VALLEY, "199"))
    assert judgement.verdict is Verdict.UNDECIDED
    assert "no runs of τ 2.0" in judgement.evidence[0]


@pytest.mark.parametrize(
    ("sigmoid", "expected"),
    # The interval's half width is 0.50; the best fixed tau has 3.0.
    [(2.0, Verdict.HOLDS), (3.4, Verdict.HOLDS), (4.0, Verdict.UNDECIDED), (4.6, Verdict.FAILS)],
)
def test_m5_asks_whether_sigmoid_is_within_a_point_of_the_best_fixed_tau(cell, sigmoid, expected):
    records = sweep(cell, VALLEY, "99")
    records += cell("cdb-w-ce", "tau=sigmoid", "99", sigmoid, flip=True)
    assert verdict("M5", records).verdict is expected


def test_m5_is_not_supported_by_noise(cell):
    records = sweep(cell, VALLEY, "99")
    records += cell("cdb-w-ce", "tau=sigmoid", "99", 3.0, spread=20)
    assert verdict("M5", records).verdict is Verdict.UNDECIDED
    assert "1.0 in place of 0" in claims_grid(to_frame(records)).note


def test_runs_on_different_splits_are_no_pair(cell, make_record):
    records = m2(cell, -2.0, -2.0)
    records[0]["split"]["digest"] = "another split of the same seed"
    judgement = verdict("M2", records)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "n = 2" in judgement.evidence[0]
    assert "n = 3" in judgement.evidence[1]


def test_without_records_nothing_is_decided():
    for claim in ("M1", "M2", "M3", "M4", "M5", "C1"):
        assert verdict(claim, []).verdict is Verdict.NOT_RUN


def test_every_claim_of_the_paper_has_a_row(cell):
    grid = claims_grid(to_frame(m2(cell, -2.0, -2.0)))
    assert len(grid.rows) == 24
    rows = {row[0]: row for row in grid.rows}
    assert rows["M2"][3] == "holds"
    assert rows["C1"][3:] == ("not run", "–", "not run", "–")
    counts = {"holds": 1, "does not hold": 0, "undecided": 0, "not run": 23}
    assert count_verdicts(grid) == counts


def test_records_of_another_group_decide_nothing(make_record):
    records = [make_record("cfs", "", "99", s, group="mnist-lt-readings") for s in range(3)]
    assert verdict("M2", records).verdict is Verdict.NOT_RUN
