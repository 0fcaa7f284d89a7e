import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classification.recipes import CIFAR100_LT, CIFAR100_LT_SHORT, RECIPES, CifarConfig
from common.training.schedule import step_schedule

# Learning rate 0.1, 5 epochs of warm-up, x 0.01 after 160 and again after 180 epochs.
HAND_WORKED = [
    (0, 0.01, 0.0002),  # The first of 100 steps: a hundredth of the first of five epochs.
    (0, 0.02, 0.0004),
    (0, 1.0, 0.02),
    (2, 0.5, 0.05),
    (4, 0.99, 0.0998),
    (4, 1.0, 0.1),
    (5, 0.01, 0.1),
    (159, 1.0, 0.1),
    (160, 0.01, 0.001),
    (179, 1.0, 0.001),
    (180, 0.01, 0.00001),
    (199, 1.0, 0.00001),
]


@pytest.mark.parametrize(("epoch", "progress", "rate"), HAND_WORKED)
def test_the_papers_rates(epoch: int, progress: float, rate: float) -> None:
    arguments = {"warmup_epochs": 5, "milestones": (160, 180), "decay": 0.01}
    assert step_schedule(0.1, epoch, progress, **arguments) == pytest.approx(rate)  # type: ignore[arg-type]
    assert CIFAR100_LT.learning_rate_at(epoch, progress) == pytest.approx(rate)


def test_every_step_of_the_warm_up_adds_the_same() -> None:
    steps = 4
    rates = [
        step_schedule(0.3, e, (s + 1) / steps, warmup_epochs=1.5, milestones=(), decay=0.1)
        for e in range(2)
        for s in range(steps)
    ]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.3, 0.3])


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    rate = step_schedule(0.1, 0, 0.001, warmup_epochs=0, milestones=(10, 20), decay=0.1)
    assert rate == 0.1


def test_without_milestones_the_rate_stays() -> None:
    assert step_schedule(0.1, 10**6, 1.0, warmup_epochs=5, milestones=(), decay=0.1) == 0.1


def test_a_decay_of_one_changes_nothing() -> None:
    assert step_schedule(0.1, 9, 1.0, warmup_epochs=0, milestones=(1, 2, 3), decay=1.0) == 0.1


def test_a_milestone_inside_the_warm_up_counts_too() -> None:
    rate = step_schedule(0.1, 2, 0.5, warmup_epochs=5, milestones=(1,), decay=0.1)
    assert rate == pytest.approx(0.005)


@pytest.mark.parametrize("name", ["cifar100-lt-crt", "cifar100-lt-short-lws"])
@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.1), (9, 0.1), (10, 0.01), (19, 0.01), (20, 0.001), (29, 0.001)]
)
def test_a_second_stage_steps_down_twice_without_warm_up(
    name: str, epoch: int, rate: float
) -> None:
    for progress in (0.01, 1.0):
        assert RECIPES[name].learning_rate_at(epoch, progress) == pytest.approx(rate)


def test_every_number_of_the_configuration_reaches_the_schedule() -> None:
    config = replace(
        CifarConfig(), learning_rate=0.8, warmup_epochs=2, milestones=(3, 4, 6), lr_decay=0.5
    )
    rates = [config.learning_rate_at(epoch, 0.5) for epoch in range(7)]
    assert rates == pytest.approx([0.2, 0.6, 0.8, 0.4, 0.2, 0.2, 0.1])


def test_the_short_recipe_has_the_same_shape() -> None:
    """30 of 200 epochs: at every share of the training the rate of the paper's schedule."""
    assert (CIFAR100_LT.epochs, CIFAR100_LT_SHORT.epochs) == (200, 30)
    steps = 40
    for done in range(1, 30 * steps + 1):
        here, there = Fraction(done, steps), Fraction(done, steps) * Fraction(200, 30)
        short, full = (
            config.learning_rate_at(math.ceil(at) - 1, float(at - math.ceil(at) + 1))
            for config, at in ((CIFAR100_LT_SHORT, here), (CIFAR100_LT, there))
        )
        assert short == pytest.approx(full), done


@given(
    st.floats(1e-6, 10),
    st.lists(st.integers(1, 50), max_size=4, unique=True),
    st.floats(0, 10),
    st.floats(0.01, 1),
)
def test_the_rate_rises_in_the_warm_up_and_never_after(
    highest: float, milestones: list[int], warmup_epochs: float, decay: float
) -> None:
    places = [(epoch, progress) for epoch in range(51) for progress in (0.25, 0.5, 1.0)]
    rates = [
        step_schedule(
            highest, *place, warmup_epochs=warmup_epochs, milestones=milestones, decay=decay
        )
        for place in places
    ]
    assert all(0 < rate <= highest for rate in rates)
    for (epoch, progress), before, after in zip(places[1:], rates, rates[1:], strict=False):
        if epoch + progress <= warmup_epochs and epoch not in milestones:
            assert after > before
        if epoch + progress > warmup_epochs + 1:
            assert after <= before
