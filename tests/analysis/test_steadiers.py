"""The tables of docs/choosing-tau.md."""

import math

import pytest

from analysis.records import to_frame
from analysis.steadiers import jumps, mean_change, steadier_of, steadiers_grid, weight_jumps

GROUP = "mnist-lt"


@pytest.fixture
def course(make_record):
    """A run of two classes, the second the rarer, with these accuracies epoch by epoch."""

    def make(rows, *args, **fields):
        record = make_record(*args, epochs=len(rows), group=GROUP, **fields)
        record["history"]["class_accuracy"] = [list(row) for row in rows]
        record["split"]["train"] = [20, 5]
        if record["method"] == "cdb-w-ce":
            record["config"] |= {"method": "cdb-w-ce", "tau": "1.0"}
        return record

    return make


def test_jumps_are_of_the_rarest_class_and_changes_of_all(course):
    # The rare class moves by 0.5, 0.1 and 0.3; the other by 0.1 once.
    record = course([(0.9, 0.0), (0.9, 0.5), (0.8, 0.6), (0.8, 0.9)])
    assert jumps(record) == 2
    assert mean_change(record) == pytest.approx(100 * (0.5 + 0.1 + 0.3 + 0.1) / 6)


def test_a_class_that_was_not_measured_is_left_out(course):
    record = course([(0.9, 0.0), (0.9, None), (0.9, 0.5)])
    assert jumps(record) == 0
    assert mean_change(record) == 0.0


def test_weights_that_change_by_more_than_three_times_are_counted(course):
    # tau 1: weights 1, 1; then 0.5, 1.5 of difficulties 0.1, 0.3; then 1.8, 0.2 of 0.9, 0.1.
    record = course([(0.9, 0.7), (0.1, 0.9), (0.5, 0.5)], "cdb-w-ce", "tau=1.0")
    # Of two steps and two classes: 0.5 to 1.8 and 1.5 to 0.2.
    assert weight_jumps(record) == 50.0
    assert math.isnan(weight_jumps(course([(0.9, 0.7), (0.1, 0.9)])))


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("tau=sigmoid", "none"),
        ("tau=1.0 average=0.9", "average"),
        ("tau=1.0 prior=1", "prior"),
        ("tau=1.0 average=0.9 prior=1", "both"),
        ("tau=1.0 from-epoch=50", "deferred"),
        ("tau=1.0 prior=1 from-epoch=50", "prior from-epoch"),
    ],
)
def test_the_variant_names_the_steadier(variant, name):
    assert steadier_of(variant) == name


def test_a_row_holds_a_setting_and_its_seeds_and_no_run_of_another_group(course, make_record):
    rows = [(0.9, 0.0), (0.9, 0.5)]
    records = [
        course(rows, "cdb-w-ce", "tau=1.0 average=0.9", "99", seed, error=4.0 + seed)
        for seed in (0, 1)
    ]
    records += [course(rows, "ce", "", "99", error=9.0), make_record("ce", "", "99", error=1.0)]
    text = steadiers_grid("steadiers-mnist", to_frame(records)).to_markdown()
    assert "| imbalance 99 | CDB-W-CE | τ 1.0 | average |" in text
    assert "4.50 ± 0.71 (2)" in text
    assert "| imbalance 99 | CE |  |  |" in text
    assert "1.00" not in text


def test_on_cifar_nothing_but_law_and_steadier_departs_from_the_recipe(make_cifar):
    def run(variant, method="cdb-w-ce", **config):
        settings = {"weight_decay": 5e-4, "epochs": 200, "tau": "1.0", **config}
        return make_cifar(
            method, variant, epochs=200, group="cifar100-lt-recipe", config=settings,
            run=f"{method}{variant}{config}",
        )  # fmt: skip

    steadied = run("tau=1.0 average=0.9", difficulty_average=0.9)
    others = [
        run("tau=1.0 unit=image", sampler_unit="image"),
        run("tau=1.0", augmentation="autoaugment-cutout"),
        run("tau=1.0", weight_decay=2e-4),
    ]
    grid = steadiers_grid("steadiers-cifar100", to_frame([steadied, *others]))
    assert [row[2:4] for row in grid.rows] == [("τ 1.0", "average")]
