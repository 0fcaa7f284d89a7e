from statistics import fmean

import pytest

from analysis.readings import readings_grid
from analysis.records import to_frame
from common.training.record import courses


@pytest.fixture
def readings(make_record):
    def make(initialisation, condition, seed, accuracy, error):
        return make_record(
            condition=condition, seed=seed, error=error, group="mnist-lt-readings",
            difficulty_set_accuracy=accuracy, run=f"ce_{initialisation}_{condition}_{seed}",
            config={"initialisation": initialisation, "loss_reduction": "mean"},
        )  # fmt: skip

    return to_frame(
        [
            make("default", "99", 0, 0.90, 14.0),
            make("default", "99", 1, 0.88, 16.0),
            make("xavier", "99", 0, 0.95, 9.0),
            make("xavier", "199", 0, 0.90, 15.0),
        ]
    )


def test_readings_show_the_fields_that_vary_and_the_difficulty_sets_error(readings):
    grid = readings_grid("readings-mnist", "mnist-lt", readings)
    assert grid.header[:2] == ("Method", "initialisation")
    assert "loss reduction" not in grid.header
    default, xavier = grid.rows
    # difficulty set: 100 * (1 - 0.90) = 10 and 12: mean 11, sample std sqrt(2)
    assert default[:3] == ("CE", "default", "11.00 ± 1.41 / 11.00 ± 1.41 (2)")
    assert default[3] == "15.00 ± 1.41 / 15.00 ± 1.41 (2)"
    assert default[4:] == ("–", "–")
    assert xavier[1:3] == ("xavier", "5.00 / 5.00 (1)")
    assert xavier[4] == "10.00 / 10.00 (1)"


def test_mean_tau_of_a_short_schedules_readings_is_shown_beside_the_errors(make_cifar):
    records = [
        make_cifar(
            "cdb-w-ce", f"tau={tau}", group="cifar100-lt-short-readings", error=error,
            config={"tau": tau, "loss_reduction": reduction}, run=f"{tau}-{reduction}",
        )
        for tau, reduction, error in (
            ("sigmoid", "batch-size", 60.0), ("sigmoid-code", "batch-size", 61.0),
            ("sigmoid", "weight-sum", 62.0),
        )
    ]  # fmt: skip
    group = "cifar100-lt-short"
    grid = readings_grid("r", "cifar100-lt", to_frame(records), group, mean_tau=True)
    assert grid.title == "Readings of the open points, CIFAR100-LT, short schedule"
    assert grid.header[:5] == (
        "Method", "tau", "loss reduction", "100: mean τ", "100: difficulty set",
    )  # fmt: skip
    mean = fmean(courses(records[0])["tau"])
    assert grid.rows[0][1:4] == ("sigmoid", "batch-size", f"{mean:.2f} (1)")
    assert mean > 1
    tests = [row[-1] for row in grid.rows]
    assert tests == ["60.00 / 60.00 (1)", "61.00 / 61.00 (1)", "62.00 / 62.00 (1)"]
    assert "Runs of 10 epochs" in grid.note


def test_readings_of_the_full_and_the_short_schedule_are_apart(make_cifar):
    frame = to_frame([make_cifar(group="cifar100-lt-short-readings")])
    assert not readings_grid("r", "cifar100-lt", frame).rows
    assert readings_grid("r", "cifar100-lt", frame, "cifar100-lt-short").rows


def test_readings_without_runs_say_so():
    assert "No run" in readings_grid("readings-mnist", "mnist-lt", to_frame([])).note


def test_markdown_has_a_rule_row_and_escaped_bars(readings):
    lines = readings_grid("r", "mnist-lt", readings).to_markdown().splitlines()
    assert lines[0].startswith("| Method | initialisation |")
    assert lines[1].startswith("| :-- | :-- | --: |")
    assert lines[2].count("|") == lines[0].count("|")
