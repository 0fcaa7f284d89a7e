import numpy as np
import pytest

from analysis.hard_instances import hard_by_class, hard_by_shot
from common.training.record import courses


def reference(record):
    """Eq. 4, sample by sample: how many samples of each class are in a hard class."""
    course, rows = courses(record), []
    for difficulty, tau in zip(course["difficulty"], course["tau"], strict=True):
        row = []
        for d, count in zip(difficulty, record["split"]["train"], strict=True):
            row.append(sum(1 for _ in range(count) if d**tau > 0.8))
        rows.append(row)
    return rows


def test_all_samples_of_a_class_are_hard_when_its_weight_is_above_the_bound(make_record):
    record = make_record("cdb-w-ce", "tau=sigmoid", epochs=3, config={"tau": "2"})
    # Difficulty 0.5 and 0.95, then 0.8 and 1.0: 0.95^2 = 0.9025, 0.8^2 = 0.64.
    record["history"]["class_accuracy"] = [[0.5, 0.05], [0.2, 0.0], [0.9, 0.9]]
    assert hard_by_class(record).tolist() == [[4950, 50], [0, 50], [0, 50]]


def test_class_weights_agree_with_the_literal_count(make_cifar):
    record = make_cifar("cdb-w-ce", "tau=sigmoid", "200", epochs=6)
    assert hard_by_class(record).tolist() == reference(record)


def test_normalised_weights_are_not_what_is_counted(make_record):
    record = make_record("cdb-w-ce", "tau=sigmoid", epochs=2, config={"tau": "1"})
    record["history"]["class_accuracy"] = [[0.5, 0.4], [0.5, 0.4]]
    # Weights 0.5 and 0.6; scaled to sum to 2, 0.91 and 1.09.
    assert hard_by_class(record)[1].tolist() == [0, 0]


def test_focals_own_count_is_taken_as_recorded(make_record):
    record = make_record("focal")
    record["history"]["hard_instances"] = [[10, 2], [3, 1], [2, None], [1, 0]]
    counts = hard_by_class(record)
    assert counts[0].tolist() == [10, 2]
    assert np.isnan(counts[2, 1])


@pytest.mark.parametrize(("method", "variant"), [("ce", ""), ("cdb-s", "tau=sigmoid")])
def test_methods_without_a_weighted_loss_have_no_count(make_record, method, variant):
    assert hard_by_class(make_record(method, variant)) is None
    assert hard_by_shot(make_record(method, variant)) is None


def test_shot_groups_hold_the_mean_over_their_classes(make_record):
    record = make_record("focal", epochs=2)
    record["split"]["train"] = [400, 200, 50, 5]
    record["history"]["hard_instances"] = [[100, 50, 30, 4], [10, 20, 30, 2]]
    found = hard_by_shot(record)
    assert {name: list(values) for name, values in found.items()} == {
        "many": [75, 15], "medium": [30, 30], "few": [4, 2],
    }  # fmt: skip


def test_shot_group_without_a_class_is_absent(make_record):
    record = make_record("focal", epochs=1)
    record["history"]["hard_instances"] = [[9, 1]]
    assert set(hard_by_shot(record)) == {"many", "medium"}
