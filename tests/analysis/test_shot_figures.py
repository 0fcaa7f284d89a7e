from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from analysis.figures import fig1, fig4, fig5
from analysis.figures.__main__ import Options, main, shot_figures
from analysis.figures.experiment import Experiment
from analysis.figures.style import styled
from analysis.hard_instances import hard_by_shot
from analysis.records import group_runs, to_frame

DATASET, SHORT = "cifar100-lt", "cifar100-lt-short"
NOTHING = to_frame([])


@pytest.fixture
def records(make_cifar):
    def make(group=DATASET, condition="200", seeds=3, epochs=10):
        return [
            record
            for seed in range(seeds)
            for record in (
                make_cifar("ce", "", "100", seed, group=group, epochs=epochs),
                make_cifar("focal", "", condition, seed, group=group, epochs=epochs, slope=0.5),
                make_cifar("cdb-w-ce", "tau=sigmoid", condition, seed, group=group, epochs=epochs),
            )
        ]

    return make


def experiment(records, group=DATASET):
    return Experiment(DATASET, group, group_runs(to_frame(records), DATASET, group), "ours")


def test_fig1_shows_count_and_accuracy_of_each_class_in_order_of_frequency(records):
    made = records(seeds=2)
    # The most frequent class last: the figure has to sort.
    for record in made:
        for values in (record["split"]["train"], record["metrics"]["last"]["class_accuracy"]):
            values.reverse()
    frequency, correct = styled(lambda: fig1.draw(experiment(made))).axes
    heights = [[bar.get_height() for bar in axes.patches] for axes in (frequency, correct)]
    assert heights[0] == made[0]["split"]["train"][::-1]
    assert heights[0] == sorted(heights[0], reverse=True)
    accuracy = [r["metrics"]["last"]["class_accuracy"] for r in made if r["method"] == "ce"]
    # Of classes of equal count, all in the tail, either may come first.
    wanted = np.mean(accuracy, axis=0)[::-1].tolist()
    assert heights[1][:60] == pytest.approx(wanted[:60])
    assert sorted(heights[1]) == pytest.approx(sorted(wanted))
    assert "rank correlation" in correct.texts[0].get_text()


def test_fig4_shows_the_mean_over_seeds_per_shot_group(records):
    made = records()
    figure = styled(lambda: fig4.draw(experiment(made)))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["Focal", "CDB-W-CE (τ sigmoid)"]
    for axes, method in zip(figure.axes, ("focal", "cdb-w-ce") * 2, strict=True):
        counted = [hard_by_shot(record) for record in made if record["method"] == method]
        for line in axes.lines:
            wanted = np.mean([course[line.get_label()] for course in counted], axis=0)
            assert line.get_ydata().tolist() == pytest.approx(wanted.tolist())
        assert len(axes.lines) == len(axes.collections) == 3


def test_fig4_of_one_seed_has_no_band(records):
    figure = styled(lambda: fig4.draw(experiment(records(seeds=1))))
    assert all(not axes.collections for axes in figure.axes)
    assert "band" not in figure.get_suptitle()


def test_fig5_shows_shot_wise_accuracy_with_t_intervals(records):
    made = records()
    focal = fig5.accuracies(experiment(made), ("focal", ""))
    last = [record["metrics"]["last"] for record in made if record["method"] == "focal"]
    shots = [
        100 * np.mean([e["shot_accuracy"][s] for e in last]) for s in ("many", "medium", "few")
    ]
    assert [s.mean for s in focal[:3]] == pytest.approx(shots)
    assert focal[3].mean == pytest.approx(100 - np.mean([e["error"] for e in last]))
    (axes,) = styled(lambda: fig5.draw(experiment(made))).axes
    assert [patch.get_height() for patch in axes.patches[:4]] == [s.mean for s in focal]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "many-shot", "medium-shot", "few-shot", "all",
    ]  # fmt: skip
    # An interval for each of the two methods.
    assert len(axes.collections) == 2


def test_fig5_of_one_seed_has_no_interval(records):
    figure = styled(lambda: fig5.draw(experiment(records(seeds=1))))
    assert len(figure.axes[0].collections) == 0
    assert "interval" not in figure.get_suptitle()


@pytest.mark.parametrize("module", [fig1, fig4, fig5])
def test_title_says_which_schedule_it_is(module, records):
    full = styled(lambda: module.draw(experiment(records(seeds=1))))
    assert "; 10 epochs; n = 1, ours" in full.get_suptitle()
    assert "short" not in full.get_suptitle()
    made = records(SHORT, seeds=2, epochs=3)
    short = styled(lambda: module.draw(experiment(made, SHORT))).get_suptitle()
    assert "short schedule, 3 epochs: not comparable with the paper" in short
    assert "n = 2" in short


def test_figures_are_made_for_each_schedule_that_was_run(records):
    makers, sentences = shot_figures(to_frame(records() + records(SHORT, epochs=3)), NOTHING)
    assert set(makers) == {f"fig{i}_{group}" for i in (1, 4, 5) for group in (DATASET, SHORT)}
    assert sentences == []


def test_short_schedule_without_imbalance_200_draws_the_largest_that_was_run(records):
    made = experiment(records(SHORT, condition="100"), SHORT)
    assert made.condition == "100"
    assert "imbalance 100" in styled(lambda: fig5.draw(made)).get_suptitle()


def test_figure_without_its_runs_is_left_out_with_a_sentence(records):
    made = [record for record in records() if record["method"] != "focal"]
    makers, sentences = shot_figures(to_frame(made), NOTHING)
    assert set(makers) == {"fig1_cifar100-lt"}
    assert sentences == [
        f"{name}_cifar100-lt is left out: group cifar100-lt has no run of Focal at 200."
        for name in ("fig4", "fig5")
    ]


def test_fig4_without_counted_instances_is_left_out(records):
    made = records()
    for record in made:
        record["history"].pop("hard_instances", None)
    makers, (sentence,) = shot_figures(to_frame(made), NOTHING)
    assert "fig4_cifar100-lt" not in makers
    assert "no run of Focal at 200 that counted its hard instances" in sentence


def test_this_machines_runs_are_drawn_where_nothing_is_published(records):
    made = to_frame(records(seeds=1))
    for published, local, owner in (
        (NOTHING, made, "runs of this machine"),
        (made, made, "published records"),
    ):
        makers, _ = shot_figures(published, local)
        assert owner in styled(makers["fig5_cifar100-lt"]).get_suptitle()


def test_without_cifar_runs_nothing_is_said():
    assert shot_figures(NOTHING, NOTHING) == ({}, [])


def test_figures_are_written_and_not_blank(tmp_path, records, publish, finish, capsys):
    made = records(seeds=1)
    main(Options(out=tmp_path / "figures", results=publish(*made), runs=finish()))
    out = capsys.readouterr().out.splitlines()
    for name in ("fig1", "fig4", "fig5"):
        path = tmp_path / "figures" / f"{name}_cifar100-lt.png"
        assert str(path) in out
        assert Path(path).with_suffix(".svg").is_file()
        assert float((imread(path)[..., :3].min(axis=-1) < 0.9).mean()) > 0.01
