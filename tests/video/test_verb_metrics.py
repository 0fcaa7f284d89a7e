"""The measures of Tables 7 and 8."""

import json

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.metrics import confusion_matrix
from video.evaluate import verb_metrics
from video.record import SCHEMA

thorough = settings(deadline=None, max_examples=60, derandomize=True)
PAIRS = st.integers(1, 7).flatmap(
    lambda c: st.tuples(
        st.just(c),
        st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=25),
    )
)


def matrix_of(num_classes: int, pairs: list[tuple[int, int]]) -> torch.Tensor:
    labels, predictions = torch.tensor(pairs).T
    return confusion_matrix(predictions, labels, num_classes)


def test_verb_metrics_of_a_hand_worked_matrix() -> None:
    # Class 0 is the head: precision 6 / 8, recall 6 / 10; class 1: 2 / 6 and 2 / 4; class 2: none.
    matrix = torch.tensor([[6, 4, 0], [2, 2, 0], [0, 0, 0]])
    result = verb_metrics(matrix, top5_hits=14, head=[0])
    assert result["error"] == pytest.approx(100 * 6 / 14)
    assert result["top5_accuracy"] == 1.0
    assert result["class_accuracy"] == [0.6, 0.5, None]
    assert result["class_precision"] == pytest.approx([6 / 8, 2 / 6, None])
    assert result["head"] == {"precision": 0.75, "recall": 0.6}
    assert result["tail"] == pytest.approx({"precision": 1 / 3, "recall": 0.5})
    assert result["macro_precision"] == pytest.approx((0.75 + 1 / 3) / 2)
    assert result["macro_recall"] == pytest.approx(0.55)
    assert result["confusion"] == [[6, 4, 0], [2, 2, 0], [0, 0, 0]]


@thorough
@given(PAIRS, st.data())
def test_verb_metrics_fit_the_records_schema_and_agree_with_each_other(
    drawn: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    num_classes, pairs = drawn
    head = data.draw(st.lists(st.integers(0, num_classes - 1), unique=True))
    result = verb_metrics(matrix_of(num_classes, pairs), len(pairs), head)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    evaluation = SCHEMA["properties"]["metrics"]["properties"]["last"]
    jsonschema.validate({"epoch": 1} | result, evaluation | {"additionalProperties": False})
    measured = [value for value in result["class_accuracy"] if value is not None]
    assert result["macro_recall"] == pytest.approx(sum(measured) / len(measured))
    right = sum(label == prediction for label, prediction in pairs)
    assert result["error"] == pytest.approx(100 * (1 - right / len(pairs)))
    if not head:
        assert result["head"] == {"precision": None, "recall": None}
        assert result["tail"]["recall"] == pytest.approx(result["macro_recall"])


def test_verb_metrics_of_no_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        verb_metrics(torch.zeros(3, 3, dtype=torch.int64), 0, head=[0])
