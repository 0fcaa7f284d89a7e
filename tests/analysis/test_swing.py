"""The figure of what changes from epoch to epoch, steadied and not."""

import numpy as np
import pytest

from analysis.figures import swing
from analysis.figures.style import styled
from analysis.records import to_frame


@pytest.fixture
def run(make_cifar):
    def make(method="ce", variant="", seed=0, step=0.1, error=0.5):
        config = {"weight_decay": 5e-4, "epochs": 200, "tau": variant[4:7] or None}
        if "average" in variant:
            config["difficulty_average"] = 0.9
        record = make_cifar(
            method, variant, seed=seed, epochs=200, config=config, group="cifar100-lt-recipe",
            run=f"{method}_{variant}_{seed}",
        )  # fmt: skip
        # Half of the classes move by `step`, the others stay.
        row = np.where(np.arange(100) % 2, 0.3, 0.0)
        rows = [list(row + 0.5 + (row > 0) * step * (epoch % 2)) for epoch in range(200)]
        record["history"]["class_accuracy"] = rows
        record["metrics"]["last"]["difficulty_set_accuracy"] = 1 - error
        return record

    return make


def drawn(records):
    figure = styled(lambda: swing.draw(to_frame(records)))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    lines = [[line for line in axes.lines if len(line.get_ydata())] for axes in figure.axes]
    return names, lines


def test_a_line_is_the_mean_over_seeds_and_five_epochs(run):
    average = "tau=1.0 average=0.9"
    records = [run("cdb-w-ce", average, seed, step) for seed, step in ((0, 0.1), (1, 0.2))]
    names, (weights, changes) = drawn([*records, run(step=0.02)])
    assert names == ["CE (1 seed)", "CDB-W-CE, τ 1.0, average (2 seeds)"]
    # Cross-entropy has no weights.
    assert len(weights) == 1
    plain, steadied = (line.get_ydata() for line in changes)
    assert plain == pytest.approx(np.full(195, 1.0))
    assert steadied == pytest.approx(np.full(195, 100 * 0.15 / 2))
    assert list(changes[0].get_xdata()[[0, -1]]) == [5, 199]


def test_weights_that_change_by_more_than_three_times_are_counted_by_epoch(run):
    # Half of the classes go between accuracy 0.8 and 1.0: their weight is 0 every second epoch.
    records = [run("cdb-w-ce", "tau=1.0", step=0.2), run("cdb-w-ce", "tau=1.0 average=0.9")]
    _, (weights, _) = drawn(records)
    # The first weights are all 1, and the change to the second is small.
    assert weights[0].get_ydata()[1:] == pytest.approx(np.full(194, 50.0))
    assert weights[1].get_ydata() == pytest.approx(np.zeros(195))


def test_of_many_settings_the_best_on_the_difficulty_set_are_shown(run):
    taus = [f"tau=1.0 average=0.{n}" for n in range(9)]
    records = [run("cdb-w-ce", tau, error=0.5 + n / 100) for n, tau in enumerate(taus)]
    names, _ = drawn(records)
    assert len(names) == 7
    shown = [name for name in names if "average" in name]
    assert shown == names


def test_without_a_steadied_run_there_is_no_figure(run):
    assert swing.lacks(to_frame([run(), run("cdb-w-ce", "tau=1.0")]))
    assert not swing.lacks(to_frame([run("cdb-w-ce", "tau=1.0 average=0.9")]))
