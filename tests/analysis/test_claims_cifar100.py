import numpy as np
import pytest

from analysis.claims import judge, short_claims_grid
from analysis.claims.cells import Cells
from analysis.claims.cifar100 import FIRST_STAGE_PAIRS, QUESTIONS, SECOND_STAGE_PAIRS
from analysis.claims.shot_tests import crossing_epoch, figures_condition, share_of_most
from analysis.claims.verdict import Verdict, is_above
from analysis.comparison import cells_of, error_table
from analysis.records import group_runs, paper_runs, to_frame
from analysis.summary import difference_of

JITTER = (-0.1, 0.0, 0.1)
GROUP = "cifar100-lt-short"
CONDITIONS = ("10", "20", "50", "100", "200")


@pytest.fixture
def cell(make_record):
    """Runs of a cell around a mean error on one split; ``flip`` mirrors the seeds' deviations.

    Two classes are enough where only errors count, and much faster than a hundred.
    """

    def make(method, variant, condition, mean, *, flip=False, seeds=3, group="cifar100-lt"):
        sign = -1 if flip else 1
        records = [
            make_record(
                method, variant, condition, seed, error=mean + sign * JITTER[seed], group=group,
                dataset="cifar100-lt", config={"split_seed": 0}, epochs=2,
            )
            for seed in range(seeds)
        ]  # fmt: skip
        for record in records:
            record["split"]["digest"] = "the split of seed 0"
        return records

    return make


def decide(claim, records, epoch="last"):
    return judge(claim, paper_runs(to_frame(records), "cifar100-lt"), epoch)


def test_above_is_the_mirror_of_below():
    assert is_above(difference_of("", [0.9, 1.0, 1.1])) is Verdict.HOLDS
    assert is_above(difference_of("", [-0.9, -1.0, -1.1])) is Verdict.FAILS
    assert is_above(difference_of("", [-1.0, 0.0, 1.0])) is Verdict.UNDECIDED
    assert is_above(difference_of("", [5.0, 5.0])) is Verdict.UNDECIDED
    assert is_above(None) is Verdict.NOT_RUN


def table_1(cell, errors):
    return [
        record
        for method, variant, condition in cells_of(error_table(1, "cifar100-lt"))
        for record in cell(method, variant, condition, errors.get(method, 60.0),
                           flip=method == "cdb-w-ce")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({"cdb-w-ce": 55.0}, Verdict.HOLDS),
        ({"cdb-w-ce": 55.0, "ldam-drw": 55.1}, Verdict.UNDECIDED),
        ({"cdb-w-ce": 55.0, "ldam-drw": 50.0}, Verdict.FAILS),
    ],
)
def test_c1_asks_for_the_lowest_error_at_both_imbalances(cell, errors, expected):
    judgement = decide("C1", table_1(cell, errors))
    assert judgement.verdict is expected
    assert [text.split(" ")[0] for text in judgement.evidence] == ["10", "100"]


@pytest.mark.parametrize(
    ("claim", "rival", "claimed"), [("C2", "cfs", "−3.04"), ("C3", "eql", "−1.43")]
)
def test_c2_and_c3_judge_the_sign_and_show_the_claimed_size(cell, claim, rival, claimed):
    rivals = cell(rival, "", "100", 60.0, flip=True)
    lower = rivals + cell("cdb-s", "tau=sigmoid", "100", 60.0 + float(claimed.replace("−", "-")))
    judgement = decide(claim, lower)
    assert judgement.verdict is Verdict.HOLDS
    assert f"the paper's {claimed} is inside the interval" in judgement.evidence[0]
    judgement = decide(claim, rivals + cell("cdb-s", "tau=sigmoid", "100", 61.0))
    assert judgement.verdict is Verdict.FAILS
    assert f"the paper's {claimed} is outside the interval" in judgement.evidence[0]


def test_a_single_pair_is_shown_beside_the_claimed_size_without_an_interval(cell):
    records = cell("cfs", "", "100", 60.0, seeds=1) + cell("cdb-s", "tau=sigmoid", "100", 58.0)
    judgement = decide("C2", records)
    assert judgement.verdict is Verdict.UNDECIDED
    assert judgement.evidence[0].endswith("= −2.00, n = 1; the paper's −3.04")


def fixed_taus(cell, best):
    """A sweep whose lowest error is at ``best[imbalance]``."""
    return [
        record
        for condition, lowest in best.items()
        for tau in ("0.5", "1.0", "1.5", "2.0", "5.0")
        for record in cell(
            "cdb-w-ce", f"tau={tau}", condition, 50.0 + abs(float(tau) - float(lowest))
        )
    ]


@pytest.mark.parametrize(
    ("taus", "expected"),
    [
        (("0.5", "1.0", "1.0", "1.5", "2.0"), Verdict.HOLDS),
        (("5.0", "2.0", "1.5", "1.0", "0.5"), Verdict.FAILS),
        (("1.0",) * 5, Verdict.UNDECIDED),
    ],
)
def test_c4_follows_the_best_fixed_tau_over_the_imbalance(cell, taus, expected):
    judgement = decide("C4", fixed_taus(cell, dict(zip(CONDITIONS, taus, strict=True))))
    assert judgement.verdict is expected
    assert judgement.evidence[0].startswith(f"lowest mean error at 10: τ {taus[0]}; 20: τ")
    assert "rank correlation of imbalance and best τ" in judgement.evidence[1]


def test_c4_is_undecided_while_an_imbalance_or_a_tau_is_missing(cell):
    records = fixed_taus(cell, {"10": "0.5", "20": "1.0", "50": "1.5"})
    assert decide("C4", records).verdict is Verdict.UNDECIDED
    some = [r for r in records if (r["variant"], r["condition"]) != ("tau=2.0", "20")]
    judgement = decide("C4", some)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "20: τ 1.0 (no runs of τ 2.0)" in judgement.evidence[0]


def dynamic_taus(cell, won, columns=10, seeds=3):
    """``columns`` columns of Tables 2 and 3, in the first ``won`` of which sigmoid is lowest."""
    pairs = [(method, c) for method in ("cdb-w-ce", "cdb-s") for c in CONDITIONS][:columns]
    records = []
    for index, (method, condition) in enumerate(pairs):
        records += cell(method, "tau=sigmoid", condition, 50.0 if index < won else 52.0,
                        seeds=seeds)  # fmt: skip
        for tau in ("linear", "polynomial", "logarithmic"):
            records += cell(method, f"tau={tau}", condition, 51.0, flip=True, seeds=seeds)
    return records


@pytest.mark.parametrize(
    ("won", "columns", "expected"),
    [
        (6, 10, Verdict.HOLDS),
        (5, 10, Verdict.FAILS),
        (6, 6, Verdict.HOLDS),
        (5, 5, Verdict.UNDECIDED),
        (1, 5, Verdict.UNDECIDED),
        (0, 5, Verdict.FAILS),
    ],
)
def test_c5_counts_the_columns_that_sigmoid_wins(cell, won, columns, expected):
    judgement = decide("C5", dynamic_taus(cell, won, columns))
    assert judgement.verdict is expected
    assert judgement.evidence[0] == f"lowest in {won} of the {columns} columns run (10 in all)"


def test_c5_shows_the_columns_that_sigmoid_loses_with_their_differences(cell):
    judgement = decide("C5", dynamic_taus(cell, 9))
    (lost,) = judgement.evidence[1:]
    assert lost.startswith("CDB-S at 200: CDB-S, τ sigmoid − τ linear = +1.00 [0.50, 1.50], n = 3")


def test_c5_needs_three_seeds_in_a_column(cell):
    judgement = decide("C5", dynamic_taus(cell, 10, seeds=2))
    assert judgement.verdict is Verdict.UNDECIDED
    assert judgement.evidence[0].startswith("lowest in 10 of the 10")


def table_4(cell, error):
    """Every cell of Table 4; ``error(second stage's method, first stage)``."""
    return [
        record
        for method, variant, condition in cells_of(error_table(4, "cifar100-lt"))
        for record in cell(
            method, variant, condition, error(method.split("+")[1], variant.split("=")[1]),
            flip=variant == "stage1=ce" or method.endswith("class-aware"),
        )
    ]  # fmt: skip


def test_pairs_of_table_4_are_cells_of_table_4():
    known = {cell[:2] for cell in cells_of(error_table(4, "cifar100-lt"))}
    assert len(FIRST_STAGE_PAIRS) == len(SECOND_STAGE_PAIRS) == 12
    assert {run for pair in FIRST_STAGE_PAIRS for run in pair} == known
    assert {run for pair in SECOND_STAGE_PAIRS for run in pair} == known


def test_c6_compares_the_columns_of_table_4_with_ce(cell):
    better = decide("C6", table_4(cell, lambda _, first: 50.0 + 2.0 * (first == "ce")))
    assert better.verdict is Verdict.HOLDS
    assert "12 differences: holds 12; their mean is −2.00" in better.evidence[0]
    worse = decide("C6", table_4(cell, lambda _, first: 50.0 + 2.0 * (first == "cdb-s")))
    assert worse.verdict is Verdict.FAILS
    assert "does not hold 6" in worse.evidence[0]
    assert "after CDB-S − after CE = +2.00" in worse.evidence[0]


ORDER = {"cdb-s": 50.0, "class-aware": 52.0, "cdb-w-ce": 54.0}


def test_c7_asks_for_the_order_of_the_second_stages(cell):
    judgement = decide("C7", table_4(cell, lambda second, _: ORDER[second]))
    assert judgement.verdict is Verdict.HOLDS
    reverse = decide("C7", table_4(cell, lambda second, _: -ORDER[second] + 104.0))
    assert reverse.verdict is Verdict.FAILS


def test_c7_with_part_of_table_4_is_undecided_and_counts_what_is_missing(cell):
    records = table_4(cell, lambda second, _: ORDER[second])
    judgement = decide("C7", [r for r in records if r["method"].startswith("crt")])
    assert judgement.verdict is Verdict.UNDECIDED
    assert "12 differences: holds 6, not run 6" in judgement.evidence[0]


def test_share_counts_epochs_in_which_many_shot_leads_both():
    many, medium, few = map(np.array, ([9, 9, 3, 5], [1, 9, 5, 4], [2, 1, 1, 1]))
    assert share_of_most(many, medium, few) == 0.5


def course(pattern):
    """Counts of many, medium and few: many is below both where the pattern has a 1."""
    below = np.array([int(c) for c in pattern])
    return np.where(below, 1, 100), np.full(len(below), 50), np.full(len(below), 10)


@pytest.mark.parametrize(
    ("pattern", "epoch"),
    [
        ("0000011111", 6),
        ("1111111111", 1),
        ("0000000000", None),
        # A short dip is no crossing, and one epoch back in twenty does not undo one.
        ("0100000000", None),
        ("00000111111111101111", 6),
        # Half of the epochs from the first 1 on is not nearly all.
        ("0001010101", None),
        # The last tenth alone is too late.
        ("0000000001", None),
    ],
)
def test_crossing_is_where_the_many_shot_count_stays_below(pattern, epoch):
    assert crossing_epoch(*course(pattern)) == epoch


def test_equal_counts_are_no_crossing():
    nothing = np.zeros(10)
    assert crossing_epoch(nothing, nothing, nothing) is None


@pytest.fixture
def focal(make_cifar):
    """Focal runs at 200 whose hard instances per class of each group are given by epoch."""

    def make(many, medium=20, few=5, seeds=3):
        records = []
        for seed in range(seeds):
            record = make_cifar("focal", "", "200", seed, epochs=len(many))
            groups = {"medium": medium, "few": few}
            shot = record["split"]["shot"]
            of = {c: name for name, members in shot.items() for c in members}
            record["history"]["hard_instances"] = [
                [count if of[c] == "many" else groups[of[c]] for c in range(100)] for count in many
            ]
            records.append(record)
        return records

    return make


@pytest.mark.parametrize(
    ("many", "expected"),
    [([50] * 20, Verdict.HOLDS), ([50] * 5 + [1] * 15, Verdict.FAILS)],
)
def test_c8_asks_for_nearly_all_epochs(focal, many, expected):
    assert decide("C8", focal(many)).verdict is expected


def test_c8_states_the_share_and_needs_three_seeds(focal):
    judgement = decide("C8", focal([50] * 3 + [1], seeds=2))
    assert judgement.verdict is Verdict.UNDECIDED
    assert "in 75.00 [75.00, 75.00] % of the epochs, n = 2" in judgement.evidence[0]


def test_c8_without_counted_instances_is_not_run(focal):
    records = focal([50] * 4)
    for record in records:
        del record["history"]["hard_instances"]
    assert decide("C8", records).verdict is Verdict.NOT_RUN


@pytest.fixture
def weighted(make_cifar):
    """CDB-W-CE at 200 in which many-shot classes are hard up to an epoch, the others always."""

    def make(until, seeds=3, epochs=10):
        records = []
        for seed in range(seeds):
            fixed = {"tau": "2.0"}
            record = make_cifar("cdb-w-ce", "tau=sigmoid", "200", seed, epochs=epochs, config=fixed)
            many = set(record["split"]["shot"]["many"])
            # What is measured after an epoch is the next one's difficulty.
            record["history"]["class_accuracy"] = [
                [0.9 if c in many and e >= until else 0.0 for c in range(100)]
                for e in range(1, epochs + 1)
            ]
            records.append(record)
        return records

    return make


def test_c9_states_the_epoch_of_the_crossing(weighted):
    judgement = decide("C9", weighted(4))
    assert judgement.verdict is Verdict.HOLDS
    assert "crossing in 3 of 3 runs of 10 epochs, at epoch 5, 5, 5" in judgement.evidence[0]
    assert "below both in 60.00 [60.00, 60.00] % of the epochs, n = 3" in judgement.evidence[0]


def test_c9_fails_when_no_run_crosses_and_is_undecided_between(weighted):
    assert decide("C9", weighted(10)).verdict is Verdict.FAILS
    assert decide("C9", weighted(4, seeds=2)).verdict is Verdict.UNDECIDED
    mixed = [weighted(4)[0], *weighted(10)[1:]]
    assert decide("C9", mixed).verdict is Verdict.UNDECIDED


def shots(records, many, medium, few):
    for record, offset in zip(records, (-0.001, 0.0, 0.001), strict=True):
        values = {"many": many + offset, "medium": medium - offset, "few": few}
        record["metrics"]["last"]["shot_accuracy"] = values
    return records


def fig_5(cell, few=0.15):
    return [
        *shots(cell("focal", "", "200", 64.0), 0.70, 0.30, 0.08),
        *shots(cell("cdb-w-ce", "tau=sigmoid", "200", 62.26, flip=True), 0.68, 0.3511, few),
    ]


def test_c10_judges_the_gap_and_the_sign_of_the_gains(cell):
    judgement = decide("C10", fig_5(cell))
    assert judgement.verdict is Verdict.HOLDS
    lines = judgement.evidence[0].splitlines()
    assert lines[1].startswith("Focal, many − few = +62.00 [")
    assert "medium-shot accuracy = +5.11" in lines[2]
    assert "the paper's +5.11 is inside the interval" in lines[2]
    assert "few-shot accuracy = +7.00 [7.00, 7.00], n = 3; the paper's +7.26 is outside" in lines[3]
    assert "accuracy over all classes = +1.74" in lines[4]
    assert decide("C10", fig_5(cell, few=0.05)).verdict is Verdict.FAILS


def test_c10_fails_by_a_small_gap(cell):
    records = shots(cell("focal", "", "200", 64.0), 0.50, 0.30, 0.08)
    assert decide("C10", records).verdict is Verdict.FAILS


def test_figure_claims_use_the_papers_imbalance_on_the_papers_schedule(cell):
    records = cell("focal", "", "100", 64.0) + cell("cdb-w-ce", "tau=sigmoid", "100", 60.0)
    for claim in ("C8", "C9", "C10"):
        assert decide(claim, records).verdict is Verdict.NOT_RUN


def short_cells(records):
    runs = group_runs(to_frame(records), "cifar100-lt", GROUP)
    return Cells(runs, "last", beside_paper=False)


def test_short_schedule_without_the_papers_imbalance_takes_the_largest_both_ran(cell):
    records = cell("focal", "", "100", 64.0, group=GROUP)
    assert figures_condition(short_cells(records)) == "200"
    records += cell("cdb-w-ce", "tau=sigmoid", "100", 60.0, group=GROUP)
    assert figures_condition(short_cells(records)) == "100"
    for method, variant in (("focal", ""), ("cdb-w-ce", "tau=sigmoid")):
        records += cell(method, variant, "200", 60.0, group=GROUP)
    assert figures_condition(short_cells(records)) == "200"


def test_short_claims_ask_each_test_once_and_decide_nothing_by_two_seeds(cell):
    records = [
        record
        for method, variant, level in (
            ("ce", "", 0.8), ("focal", "", 0.8), ("cdb-w-ce", "tau=sigmoid", 0.7),
            ("cdb-s", "tau=sigmoid", 0.8), ("cfs", "", 0.8),
        )
        for record in cell(method, variant, "100", 100 * level, seeds=2, group=GROUP)
    ]  # fmt: skip
    grid = short_claims_grid("b", "cifar100-lt", GROUP, to_frame(records))
    assert [row[0] for row in grid.rows] == list(QUESTIONS)
    verdicts = {row[0]: row[2] for row in grid.rows}
    assert {verdicts[f"C{i}"] for i in range(1, 11)} <= {"undecided", "not run"}
    assert "CDB-S − CFS = 0.00" in {row[0]: row[3] for row in grid.rows}["C2"]
    assert "not the paper's setting" in grid.title
    assert "n = 2" in grid.rows[0][3]


def imagenet(make_cifar, slope, level=0.9):
    records = [
        make_cifar(condition="256", seed=s, level=level, slope=slope, group="imagenet-lt")
        for s in (0, 1)
    ]
    for record in records:
        record["dataset"] = "imagenet-lt"
    return paper_runs(to_frame(records), "imagenet-lt")


def test_c11_holds_when_frequency_explains_little(make_cifar):
    judgement = judge("C11", imagenet(make_cifar, slope=0.0, level=0.5), "last")
    assert judgement.verdict is Verdict.HOLDS
    assert "% of the few-shot classes are above the many-shot median" in judgement.evidence[0]


def test_c11_fails_when_accuracy_follows_frequency(make_cifar):
    judgement = judge("C11", imagenet(make_cifar, slope=0.4), "last")
    assert judgement.verdict is Verdict.FAILS
    assert "0.0 % of the few-shot classes" in judgement.evidence[0]
