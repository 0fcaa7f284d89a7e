import math

import pandas as pd
import pytest
from scipy import stats

from analysis.summary import Summary, difference_of, paired_difference, summarize
from analysis.words import is_short, number, run_name, signed


def test_std_is_the_sample_standard_deviation():
    # mean 4, squared deviations 4 + 0 + 4, over n - 1 = 2: std 2
    assert summarize([2.0, 4.0, 6.0]) == Summary(4.0, 2.0, 3)


def test_one_seed_shows_no_spread():
    summary = summarize([4.0])
    assert math.isnan(summary.std)
    assert summary.with_n() == "4.00 (1)"


def test_no_value_is_a_dash_and_never_zero():
    assert summarize([]).with_n() == "–"
    assert summarize([math.nan]).with_n() == "–"
    assert str(Summary()) == "–"


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [(1.0, "1.00", "+1.00"), (-1.0, "−1.00", "−1.00"), (-0.001, "0.00", "0.00"),
     (math.nan, "–", "–")],
)  # fmt: skip
def test_numbers_are_written_with_a_true_minus(value, plain, with_sign):
    assert number(value) == plain
    assert signed(value) == with_sign


def test_t_interval_of_three_pairs():
    # s = 1, t_{0.975, 2} = 4.302653, half width = 4.302653 / sqrt(3) = 2.484138
    difference = difference_of("a − b", [-1.0, -2.0, -3.0])
    assert (difference.mean, difference.n) == (-2.0, 3)
    assert difference.low == pytest.approx(-4.484138, abs=1e-6)
    assert difference.high == pytest.approx(0.484138, abs=1e-6)
    assert str(difference) == "a − b = −2.00 [−4.48, 0.48], n = 3"


def test_interval_equals_scipys_own_paired_interval():
    a, b = [1.0, 2.5, 3.0, 2.0], [0.5, 1.0, 3.5, 1.0]
    expected = stats.ttest_rel(a, b).confidence_interval()
    ours = difference_of("", [x - y for x, y in zip(a, b, strict=True)])
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high))


def test_single_pair_has_no_interval():
    difference = difference_of("a − b", [1.5])
    assert math.isnan(difference.low)
    assert str(difference) == "a − b = +1.50, n = 1"


def test_pairs_are_the_seeds_that_both_have():
    first = pd.Series({0: 5.0, 1: 6.0, 7: 100.0})
    second = pd.Series({1: 4.0, 0: 4.0, 8: 0.0})
    difference = paired_difference("", first, second)
    assert difference is not None
    assert (difference.mean, difference.n) == (1.5, 2)
    assert paired_difference("", first, pd.Series({9: 1.0})) is None


def test_run_names_use_the_papers_words():
    assert run_name("cdb-w-ce", "tau=0.5") == "CDB-W-CE (τ 0.5)"
    assert run_name("ce", "") == "CE"
    assert run_name("ldam-drw", "") == "LDAM-DRW"
    assert run_name("crt+class-aware", "stage1=cdb-w-ce") == "cRT + Class-aware (after CDB-W-CE)"
    assert run_name("lws+cdb-s", "stage1=ce") == "LWS + CDB-S (after CE)"
    steadied = "average=0.9 prior=1 from-epoch=160"
    words = "average 0.9, prior 1, weights from epoch 160"
    assert run_name("cdb-w-ce", f"tau=1.0 {steadied}") == f"CDB-W-CE (τ 1.0, {words})"
    assert run_name("lws+cdb-s", f"stage1=ce {steadied}") == f"LWS + CDB-S (after CE, {words})"
    from_ce = "pretrained=lvis-ce average=0.9"
    assert run_name("cdb-w-ce-clc", from_ce) == "CDB-W-CE-clc (from CE on LVIS, average 0.9)"
    assert run_name("cdb-s", "tau=2.0 unit=image average=0.5") == (
        "CDB-S (τ 2.0, by image, average 0.5)"
    )


def test_interval_of_a_mean_equals_scipys():
    values = [1.0, 2.5, 3.0, 2.0]
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval()
    half = summarize(values).half_width()
    assert (2.125 - half, 2.125 + half) == pytest.approx((low, high))
    assert summarize(values).with_interval() == f"2.12 [{low:.2f}, {high:.2f}]"


def test_interval_of_a_single_seed_is_absent():
    assert math.isnan(summarize([4.0]).half_width())
    assert summarize([4.0]).with_interval() == "4.00"


@pytest.mark.parametrize(
    ("group", "short"),
    [("cifar100-lt", False), ("cifar100-lt-short", True), ("cifar100-lt-short-readings", True),
     ("mnist-lt-readings", False)],
)  # fmt: skip
def test_a_groups_name_says_whether_its_schedule_is_short(group, short):
    assert is_short(group) is short
