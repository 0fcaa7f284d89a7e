import math

import pytest
import torch
from torch import Tensor, nn

from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from common.training.history import History, check_finite, plain_numbers

NAMES = ("a", "b", "c")
COUNTS = torch.tensor([200, 50, 5])
ACCURACY = torch.tensor([0.75, math.nan, 0.25], dtype=torch.float64)


def history() -> History:
    return History(NAMES, COUNTS)


def model_of(value: float) -> nn.Module:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def test_a_class_that_is_not_measured_is_none() -> None:
    assert plain_numbers(torch.tensor([0.5, math.nan])) == [0.5, None]


def test_a_row_has_the_numbers_the_balancer_trained_with() -> None:
    balancer = ClassDifficultyBalancer(3)
    rows = history()
    for epoch in (1, 2):
        scalars = rows.add(epoch, 0.5, 0.1, ACCURACY, balancer)
        balancer.update(ACCURACY)
    assert rows.rows["epoch"] == [1, 2]
    assert rows.rows["class_accuracy"] == [[0.75, None, 0.25]] * 2
    assert rows.rows["class_weights"][0] == [1.0, 1.0, 1.0]
    assert rows.rows["difficulty"] == [[1.0, 1.0, 1.0], [0.25, 1.0, 0.75]]
    assert rows.rows["tau"][0] == 0.0
    # bias = 0.75 / (0.25 + 0.01) - 1, tau = 2 * 5 * sigmoid(bias) - 5
    bias = 0.75 / 0.26 - 1
    assert rows.rows["bias"][1] == pytest.approx(bias)
    assert rows.rows["tau"][1] == pytest.approx(10 / (1 + math.exp(-bias)) - 5)
    assert scalars["difficulty_set/balanced_accuracy"] == 0.5
    assert scalars["cdb/bias"] == rows.rows["bias"][1]


def test_without_a_balancer_there_is_nothing_of_it() -> None:
    rows = history()
    scalars = rows.add(1, 0.5, 0.1, ACCURACY, None, {"hard_instances": [3, 0, 1]})
    assert rows.rows == {
        "epoch": [1], "loss": [0.5], "learning_rate": [0.1], "hard_instances": [[3, 0, 1]],
        "class_accuracy": [[0.75, None, 0.25]],
    }  # fmt: skip
    assert scalars == {
        "train/loss": 0.5, "difficulty_set/balanced_accuracy": 0.5, "class_accuracy/a": 0.75,
        "class_accuracy/c": 0.25,
    }  # fmt: skip


def test_many_classes_are_logged_by_shots() -> None:
    names = [str(c) for c in range(11)]
    counts = torch.tensor([200] * 2 + [50] * 4 + [5] * 5)
    accuracy = torch.tensor([1.0, 0.5] + [0.25] * 4 + [0.0] * 5)
    scalars = History(names, counts).add(1, 0.5, 0.1, accuracy, None)
    assert scalars["difficulty_set/many_shot"] == 0.75
    assert scalars["difficulty_set/medium_shot"] == 0.25
    assert scalars["difficulty_set/few_shot"] == 0.0
    assert not any(name.startswith("class_accuracy") for name in scalars)


def test_the_first_of_equally_good_epochs_is_the_best() -> None:
    rows = history()
    for epoch, accuracy in enumerate((0.25, 0.5, 0.5, 0.25), start=1):
        values = torch.full((3,), accuracy)
        rows.add(epoch, 0.0, 0.1, values, None)
        rows.keep_best(epoch, values, model_of(float(epoch)))
    assert rows.measured() == {
        "best": {"epoch": 2, "difficulty_set_accuracy": 0.5},
        "last": {"epoch": 4, "difficulty_set_accuracy": 0.25},
    }
    weights = rows.evaluated_weights(model_of(4.0))
    assert float(weights["best"]["bias"]) == 2.0
    assert float(weights["last"]["bias"]) == 4.0


def test_without_any_measurement_there_is_a_last_epoch_and_no_best() -> None:
    rows = history()
    rows.add(1, 0.5, 0.1, None, None)
    assert rows.measured() == {"last": {"epoch": 1}}
    assert rows.evaluated_weights(model_of(4.0)).keys() == {"last"}
    assert rows.rows["class_accuracy"] == [[None] * 3]


def test_an_epoch_without_any_right_answer_can_be_the_best() -> None:
    rows = history()
    rows.keep_best(1, torch.zeros(3), model_of(1.0))
    assert rows.best["epoch"] == 1


def test_kept_weights_do_not_follow_the_model() -> None:
    rows, model = history(), model_of(1.0)
    rows.keep_best(1, torch.ones(3), model)
    last = rows.evaluated_weights(model)["last"]
    with torch.no_grad():
        model.get_parameter("bias").fill_(9.0)
    assert (float(rows.best["weights"]["bias"]), float(last["bias"])) == (1.0, 1.0)


def test_a_history_goes_on_from_its_state() -> None:
    rows, other = history(), history()
    rows.add(1, 0.5, 0.1, ACCURACY, None)
    rows.keep_best(1, ACCURACY, model_of(1.0))
    other.load_state_dict(rows.state_dict())
    assert other.measured() == rows.measured()
    assert other.rows == rows.rows


@pytest.mark.parametrize(
    ("losses", "weight", "words"),
    [
        ([0.5, math.nan, math.inf], 1.0, "The loss is nan at epoch 3, step 2"),
        ([math.inf], 1.0, "The loss is inf at epoch 3, step 1"),
        ([0.5, 0.5], math.nan, "The weights are no longer finite at epoch 3, step 2"),
        ([0.5, 0.5], math.inf, "The weights are no longer finite at epoch 3, step 2"),
    ],
)
def test_a_number_that_is_not_finite_is_named_with_its_epoch_and_step(
    losses: list[float], weight: float, words: str
) -> None:
    with pytest.raises(UserError, match=f"^{words}; lower --learning-rate .now 0.1.") as refusal:
        check_finite(torch.tensor(losses), model_of(weight), 2, 0.1)
    assert "last good checkpoint" in str(refusal.value)


@pytest.mark.parametrize("losses", [torch.tensor([0.5]), torch.empty(0)])
def test_finite_numbers_pass(losses: Tensor) -> None:
    check_finite(losses, model_of(1.0), 0, 0.1)
