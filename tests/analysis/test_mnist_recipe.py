"""The rule that chooses MNIST's reading by the baselines."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.mnist_recipe import CELLS, candidates, chosen, recipe_grid, recipe_sentence
from analysis.records import published_records, to_frame
from classification.recipes import MNIST_LT, resolved

RESULTS = Path(__file__).parents[2] / "results"

# The paper's means and standard deviations of Table 1.
PAPER = {
    ("ce", "99"): (8.59, 0.41), ("ce", "199"): (14.35, 1.10),
    ("focal", "99"): (6.57, 0.61), ("focal", "199"): (11.45, 0.74),
    ("cfs", "99"): (6.10, 0.46), ("cfs", "199"): (10.59, 0.65),
    ("cb", "99"): (5.88, 1.20), ("cb", "199"): (8.61, 1.11),
}  # fmt: skip
PRINTED, OTHER = (0.001, "raw", "torch-default"), (0.01, "standardise", "torch-default")


@pytest.fixture
def reading(make_record):
    """Records of a reading: each error on the difficulty set is so many deviations too high."""

    def make(of, far, seeds=(0,), divisors=("batch-size", "weight-sum"), cells=CELLS):
        rate, pixels, weights = of
        records = []
        for method, condition in cells:
            for divisor in divisors if method == "cb" else ("batch-size",):
                for seed in seeds:
                    record = make_record(method, "", condition, seed, group="mnist-lt-recipe")
                    mean, std = PAPER[method, condition]
                    accuracy = 1 - (mean + far * std) / 100
                    record["metrics"]["last"]["difficulty_set_accuracy"] = accuracy
                    record["config"] |= {
                        "method": method, "architecture": "lenet5", "learning_rate": rate,
                        "input_scaling": pixels, "initialisation": weights,
                        "loss_reduction": divisor,
                    }  # fmt: skip
                    record["run"] = f"{method}_{condition}_{of}_{divisor}_{seed}"
                    records.append(record)
        return records

    return make


def test_the_score_is_the_mean_distance_in_the_papers_deviations(reading):
    far = candidates(to_frame(reading(PRINTED, 3.0)))
    assert [c.reading for c in far] == [("0.001", "raw", "torch-default")] * 2
    assert [c.least for c in far] == pytest.approx([3.0, 3.0])


def test_the_divisor_is_that_of_cb_alone(reading):
    only = reading(PRINTED, 1.0, divisors=["batch-size"])
    by_divisor = {c.divisor: c for c in candidates(to_frame(only))}
    assert by_divisor["batch-size"].complete
    assert not by_divisor["weight-sum"].complete
    assert math.isnan(by_divisor["weight-sum"].distance(("cb", "99")))


def test_a_reading_is_chosen_only_when_all_that_the_rule_asks_for_is_there(reading):
    first = reading(OTHER, 2.0, seeds=range(5))
    assert chosen(candidates(to_frame(first))).reading == ("0.01", "standardise", "torch-default")
    # Within twice the lowest, but of one seed.
    near = reading(PRINTED, 3.0)
    assert chosen(candidates(to_frame(first + near))) is None
    # Too far already with half of its cells.
    far = reading(PRINTED, 9.0, cells=CELLS[:4])
    assert chosen(candidates(to_frame(first + far))).least == pytest.approx(2.0)
    assert "> 4.50" in recipe_grid("x", to_frame(first + far)).to_markdown()


def test_the_sentence_names_the_reading_or_says_that_runs_are_missing(reading):
    assert "no candidate" in recipe_sentence(to_frame(reading(OTHER, 1.0, cells=CELLS[:3])))
    assert "lowest score so far is 1.00" in recipe_sentence(to_frame(reading(OTHER, 1.0)))
    whole = recipe_sentence(to_frame(reading(OTHER, 1.0, seeds=range(5))))
    assert whole.startswith("The rule takes learning rate 0.01, standardise pixels")


def test_the_recipe_is_the_reading_that_the_rule_takes_from_the_published_records():
    names = ("mnist-lt", "mnist-lt-printed", "mnist-lt-recipe")
    records = [record for name in names for record in published_records(RESULTS / name)]
    taken = chosen(candidates(to_frame(records)))
    cb = resolved(replace(MNIST_LT, method="cb"))
    settings = (cb.learning_rate, cb.input_scaling, cb.initialisation, cb.loss_reduction)
    assert (*taken.reading, taken.divisor) == tuple(map(str, settings))
    assert all(taken.errors[cell].n == 5 for cell in CELLS)
