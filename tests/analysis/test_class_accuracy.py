import math

import numpy as np
import pytest
from scipy import stats

from analysis.class_accuracy import (
    ClassAccuracy,
    class_accuracy,
    rank_correlation,
    tail_above_head,
)


def classes(counts, accuracy):
    return ClassAccuracy(np.array(counts), np.array(accuracy), 1)


def test_accuracy_is_the_mean_over_runs_of_one_split(make_record):
    records = [make_record(seed=s, error=e) for s, e in ((0, 10.0), (1, 20.0))]
    found = class_accuracy(records, "last")
    assert found.n == 2
    assert found.counts.tolist() == [4950, 50]
    # 1 - 2 * error / 100: 0.8 and 0.6
    assert found.accuracy.tolist() == pytest.approx([1.0, 0.7])


def test_runs_with_other_class_counts_are_left_out(make_record):
    other = make_record(seed=1)
    other["split"]["train"] = [4950, 25]
    assert class_accuracy([make_record(), other], "last").n == 1
    assert class_accuracy([], "last") is None


def test_class_that_was_not_measured_is_left_out(make_record):
    record = make_record()
    record["metrics"]["last"]["class_accuracy"] = [0.5, None]
    assert class_accuracy([record], "last").counts.tolist() == [4950]


def test_rank_correlation_is_scipys_spearman_with_ties(make_cifar):
    found = class_accuracy([make_cifar(condition="200")], "last")
    correlation = rank_correlation(found)
    expected = stats.spearmanr(found.counts, found.accuracy).statistic
    assert correlation.value == pytest.approx(expected)
    assert correlation.low < correlation.value < correlation.high <= 1.0


def test_monotone_accuracy_has_rank_correlation_1():
    correlation = rank_correlation(classes(range(1, 30), np.linspace(0.1, 0.9, 29)))
    assert (correlation.value, correlation.low, correlation.high) == pytest.approx((1, 1, 1))
    assert str(correlation) == "1.00 [1.00, 1.00]"


def test_the_interval_is_the_same_each_time(make_cifar):
    found = class_accuracy([make_cifar()], "last")
    assert rank_correlation(found) == rank_correlation(found)


def test_equal_accuracies_have_no_rank_correlation():
    assert str(rank_correlation(classes([5, 50, 500], [0.5] * 3))) == "– [–, –]"


def test_share_of_the_tail_above_the_heads_median():
    counts = [400, 300, 200, 50, 9, 8, 7, 6]
    # the head's median is 0.6; 0.7 and 0.9 of four lie above, 0.6 does not
    found = classes(counts, [0.5, 0.6, 0.8, 1.0, 0.7, 0.6, 0.1, 0.9])
    assert tail_above_head(found) == 0.5


def test_share_without_a_tail_is_missing():
    assert math.isnan(tail_above_head(classes([400, 50], [0.5, 0.5])))
