import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.metrics import balanced_accuracy, error_percent, shot_accuracy, shot_groups

thorough = settings(deadline=None, max_examples=60, derandomize=True)


@pytest.mark.parametrize(
    ("count", "group"),
    [(1, "few"), (20, "few"), (21, "medium"), (100, "medium"), (101, "many"), (4950, "many")],
)
def test_class_falls_into_the_shot_group_of_section_4_1_6(count: int, group: str) -> None:
    groups = dict(shot_groups(torch.tensor([count])).items())
    assert {name: bool(mask[0]) for name, mask in groups.items()} == {
        name: name == group for name in ("many", "medium", "few")
    }


@thorough
@given(st.lists(st.integers(0, 300), min_size=1, max_size=9))
def test_every_class_is_in_exactly_one_shot_group(counts: list[int]) -> None:
    masks = torch.stack([mask for _, mask in shot_groups(torch.tensor(counts)).items()])
    assert masks.sum(0).tolist() == [1] * len(counts)


def test_shot_accuracy_is_the_mean_over_the_group_s_measured_classes() -> None:
    accuracy = torch.tensor([1.0, 0.5, math.nan, 0.25])
    counts = torch.tensor([500, 101, 300, 5])
    assert shot_accuracy(accuracy, counts) == {"many": 0.75, "few": 0.25}


def test_group_without_measured_class_is_absent_rather_than_0() -> None:
    accuracy, counts = torch.tensor([0.5, math.nan]), torch.tensor([500, 5])
    assert shot_accuracy(accuracy, counts) == {"many": 0.5}


def test_balanced_accuracy_leaves_out_classes_not_measured() -> None:
    assert balanced_accuracy(torch.tensor([1.0, math.nan, 0.5])) == 0.75


def test_balanced_accuracy_of_nothing_is_nan_rather_than_0() -> None:
    assert math.isnan(balanced_accuracy(torch.tensor([math.nan])))


@thorough
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6).filter(
        lambda pairs: any(right + wrong for right, wrong in pairs)
    )
)
def test_error_is_the_share_of_wrong_samples_in_percent(pairs: list[tuple[int, int]]) -> None:
    right = torch.tensor([r for r, _ in pairs])
    counts = torch.tensor([r + w for r, w in pairs])
    wrong = sum(w for _, w in pairs)
    expected = 100 * wrong / int(counts.sum())
    assert error_percent(right.double() / counts, counts) == pytest.approx(expected, abs=1e-9)


def test_error_weighs_classes_by_their_samples_not_alike() -> None:
    error = error_percent(torch.tensor([1.0, 0.0]), torch.tensor([90, 10]))
    assert error == pytest.approx(10.0)
