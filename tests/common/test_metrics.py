import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from common.metrics import (
    balanced_accuracy,
    class_precision,
    class_recall,
    confusion_matrix,
    error_percent,
    macro_average,
    shot_accuracy,
    shot_groups,
    top_k_correct,
)

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


# Class count, then pairs of true and predicted class; few samples, so that classes without a
# sample, without a prediction and without either are common.
PAIRS = st.integers(1, 7).flatmap(
    lambda c: st.tuples(
        st.just(c),
        st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=25),
    )
)


def matrix_of(num_classes: int, pairs: list[tuple[int, int]]) -> torch.Tensor:
    labels, predictions = torch.tensor(pairs).T
    return confusion_matrix(predictions, labels, num_classes)


@pytest.mark.filterwarnings("ignore:A single label was found")
@thorough
@given(PAIRS)
def test_confusion_matrix_is_scikit_learns(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    num_classes, pairs = drawn
    labels, predictions = np.array(pairs).T
    wanted = sklearn_metrics.confusion_matrix(labels, predictions, labels=range(num_classes))
    matrix = matrix_of(num_classes, pairs)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == wanted.tolist()


@thorough
@given(PAIRS)
def test_precision_and_recall_are_scikit_learns_on_the_classes_with_samples(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    num_classes, pairs = drawn
    labels, predictions = np.array(pairs).T
    present = sorted(set(labels.tolist()))
    precision, recall = (f(matrix_of(num_classes, pairs)) for f in (class_precision, class_recall))
    each = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=present, average=None, zero_division=0
    )
    assert precision[present].tolist() == pytest.approx(each[0].tolist())
    assert recall[present].tolist() == pytest.approx(each[1].tolist())
    absent = [c for c in range(num_classes) if c not in present]
    assert precision[absent].isnan().all()
    assert recall[absent].isnan().all()
    macro = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=present, average="macro", zero_division=0
    )
    assert macro_average(precision) == pytest.approx(macro[0])
    assert macro_average(recall) == pytest.approx(macro[1])


def test_rows_of_the_confusion_matrix_are_true_and_columns_predicted() -> None:
    labels, predictions = torch.tensor([0, 0, 0, 2]), torch.tensor([0, 1, 1, 2])
    assert confusion_matrix(predictions, labels, 3).tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_confusion_matrices_of_batches_add_up() -> None:
    pairs = [(0, 1), (1, 1), (2, 0), (2, 2)]
    assert torch.equal(matrix_of(3, pairs), matrix_of(3, pairs[:1]) + matrix_of(3, pairs[1:]))


def test_confusion_matrix_of_no_sample_is_zero() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert confusion_matrix(nothing, nothing, 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("label", "prediction"), [(3, 0), (-1, 0), (0, 3), (0, -1)])
def test_class_out_of_range_is_refused_rather_than_counted_elsewhere(
    label: int, prediction: int
) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.2"):
        confusion_matrix(torch.tensor([prediction]), torch.tensor([label]), 3)


def test_labels_and_predictions_may_be_lists_or_arrays() -> None:
    labels, predictions = [0, 0, 2], np.array([0, 1, 2], dtype=np.uint8)
    assert confusion_matrix(predictions, labels, 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert top_k_correct(torch.eye(3), labels, 1).tolist() == [True, False, True]


def test_class_never_predicted_has_precision_0_and_one_without_sample_is_not_measured() -> None:
    # Class 1 has samples but no prediction, class 2 a prediction but no sample, class 3 neither.
    matrix = torch.tensor([[1, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    precision, recall = class_precision(matrix), class_recall(matrix)
    assert precision[:2].tolist() == pytest.approx([1 / 3, 0.0])
    assert recall[:2].tolist() == [0.5, 0.0]
    assert precision[2:].isnan().all()
    assert recall[2:].isnan().all()


def test_macro_average_of_classes_counts_each_measured_one_alike() -> None:
    values = torch.tensor([1.0, 0.5, math.nan, 0.0])
    assert macro_average(values) == 0.5
    assert macro_average(values, [0, 1, 2]) == 0.75
    assert math.isnan(macro_average(values, [2]))
    assert math.isnan(macro_average(values, []))


@thorough
@given(st.integers(3, 8), st.integers(1, 7), st.integers(1, 12), st.integers(0, 2**31))
def test_top_k_is_scikit_learns(num_classes: int, k: int, samples: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Permutations: no two logits are equal, so no tie is broken.
    logits = generator.permuted(np.tile(np.arange(num_classes), (samples, 1)), axis=1)
    labels = generator.integers(num_classes, size=samples)
    k = min(k, num_classes - 1)
    wanted = sklearn_metrics.top_k_accuracy_score(
        labels, logits, k=k, labels=range(num_classes), normalize=False
    )
    hits = top_k_correct(torch.tensor(logits).float(), torch.tensor(labels), k)
    assert hits.shape == (samples,)
    assert int(hits.sum()) == wanted


def test_with_at_most_k_classes_every_sample_is_top_k_correct() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert top_k_correct(logits, labels, 3).all()
    assert top_k_correct(logits, labels, 5).all()


def test_top_1_is_the_largest_logit() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.4, 0.1]])
    assert top_k_correct(logits, torch.tensor([1, 1]), 1).tolist() == [True, False]
