"""An average, a prior and deferred weights in whole runs: what they change, and what they leave."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from classification.recipes import CIFAR100_LT, MNIST_LT, RECIPES, DecoupledConfig, run_name
from classification.training import Training
from common.errors import UserError
from common.training.record import COURSES, courses
from common.training.signals import StopRequest
from tests.classification.synthetic import config, same_weights, to_the_end, trained, training
from tests.states import assert_same_state
from tests.stopping import StopAfter

EPOCHS = 4
ALL: dict[str, Any] = {
    "difficulty_average": 0.5, "difficulty_prior": 1.0, "weights_from_epoch": 2, "epochs": EPOCHS,
}  # fmt: skip
CDB = replace(CIFAR100_LT, method="cdb-w-ce")
CRT = RECIPES["cifar100-lt-crt"]
assert isinstance(CRT, DecoupledConfig)


def first_epochs(run: Training, number: int) -> Training:
    for _ in range(number):
        assert run.run_epoch(StopRequest())
        run.end_epoch()
    return run


@pytest.mark.parametrize(
    ("method", "unit", "plain"),
    [
        ("cdb-w-ce", "class", "ce"),
        ("cdb-w-fl", "class", "focal"),
        ("cdb-s", "class", "ce"),
        ("cdb-s", "image", "ce"),
    ],
)
def test_until_its_weights_come_into_force_a_run_is_the_plain_loss_to_the_bit(
    method: str, unit: str, plain: str
) -> None:
    # A rate at which some class is still difficult after two epochs.
    usual = {"epochs": 3, "learning_rate": 0.01}
    run = training(method=method, sampler_unit=unit, weights_from_epoch=2, **usual)
    other = training(method=plain, **usual)
    first_epochs(run, 2)
    first_epochs(other, 2)
    assert same_weights(run, other)
    assert run.history.rows["difficulty"][0] != run.history.rows["difficulty"][1]
    assert not same_weights(to_the_end(run), to_the_end(other))


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-w-fl", "cdb-s"])
@pytest.mark.parametrize(
    "change", [{"difficulty_average": 0.5}, {"difficulty_prior": 1.0}, {"weights_from_epoch": 2}]
)
def test_each_changes_what_every_cdb_method_trains(method: str, change: dict[str, Any]) -> None:
    usual, steadied = ({"method": method, "epochs": EPOCHS} | more for more in ({}, change))
    assert not same_weights(trained(**usual), trained(**steadied))


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-s"])
@pytest.mark.parametrize("settings", [{}, ALL, {"difficulty_prior": 0.3, "epochs": EPOCHS}])
def test_courses_of_the_record_are_to_the_bit_those_of_the_training(
    method: str, settings: dict[str, Any]
) -> None:
    run = trained(method=method, **settings)
    rows = dict(run.history.rows)
    trained_with = {name: rows.pop(name) for name in COURSES}
    record = {
        "config": vars(run.config), "split": run.data.description, "history": rows,
    }  # fmt: skip
    assert courses(record) == trained_with
    assert len({tuple(row) for row in trained_with["difficulty"]}) > 2
    # Ten images a class: what is recorded was measured, not smoothed.
    tenths = {accuracy * 10 for row in rows["class_accuracy"] for accuracy in row}
    assert tenths == {round(tenth) for tenth in tenths}


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-s"])
@pytest.mark.parametrize("complete", [1, 2])
def test_a_resumed_run_equals_the_whole_one_to_the_bit(method: str, complete: int) -> None:
    """Stopped within the epochs before and after which the weights come into force."""
    whole = trained(method=method, **ALL)
    stopped = first_epochs(training(method=method, **ALL), complete)
    assert not stopped.run_epoch(StopAfter(2))
    resumed = training(method=method, **ALL)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert resumed.method.balancer is not None
    assert float(resumed.method.balancer.updates) == complete
    assert_same_state(to_the_end(resumed).state_dict(), whole.state_dict())


def test_a_steadied_run_has_a_name_and_a_variant_of_its_own() -> None:
    steadied = replace(
        CDB, tau="1", difficulty_average=0.9, difficulty_prior=1.0, weights_from_epoch=160
    )
    assert run_name(steadied) == (
        "cdb-w-ce_tau-1.0_imbalance-100_difficulty-average-0.9_difficulty-prior-1.0_"
        "weights-from-epoch-160_seed-0"
    )
    assert steadied.variant == "tau=1 average=0.9 prior=1 from-epoch=160"
    assert replace(CDB, tau="1").variant == "tau=1"
    second = replace(CRT, method="cdb-s", difficulty_average=0.9)
    assert second.variant == "stage1=ce average=0.9"
    assert run_name(second) == (
        "crt+cdb-s_tau-sigmoid_stage1-ce_imbalance-100_difficulty-average-0.9_seed-0"
    )


def test_a_first_stage_has_the_average_and_the_prior_and_weights_from_its_start() -> None:
    both = replace(
        CRT, stage1="cdb-w-ce", method="cdb-w-ce", difficulty_average=0.9, difficulty_prior=2.0,
        weights_from_epoch=10,
    )  # fmt: skip
    first = both.stage1_config()
    assert (first.difficulty_average, first.difficulty_prior) == (0.9, 2.0)
    assert first.weights_from_epoch == 0


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        (CDB, {"weights_from_epoch": 200}, "200 has no effect on the run's 200 epochs; lower it"),
        (CDB, {"weights_from_epoch": 1}, "1 has no effect on --method cdb-w-ce, whose classes"),
        (
            replace(CRT, stage1="cdb-w-ce"),
            {"weights_from_epoch": 10},
            "10 has no effect on --method class-aware, the stage that it is for; leave it out",
        ),
        (CRT, {"weights_from_epoch": 10}, "has no effect on --method class-aware; .* cdb-w-ce"),
        (MNIST_LT, {"difficulty_prior": 1.0}, "prior 1.0 has no effect on --method ce"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused_by_its_name(
    base: Any, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        replace(base, **change)


def test_cdb_s_may_draw_every_image_once_in_its_first_epoch_alone() -> None:
    assert config(method="cdb-s", weights_from_epoch=1).weights_from_epoch == 1
