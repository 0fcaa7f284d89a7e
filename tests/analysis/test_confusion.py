from pathlib import Path

import numpy as np
import pytest

from analysis.figures import confusion, run_course
from analysis.figures.__main__ import Options, main, shot_figures
from analysis.figures.experiment import Experiment
from analysis.figures.style import styled
from analysis.records import group_runs, to_frame

GROUP = "egtea-verbs"


def experiment(records, group=GROUP):
    return Experiment(group, group, group_runs(to_frame(records), group, group), "ours")


@pytest.fixture
def records(make_verbs):
    def make(group=GROUP, methods=("ce", "cdb-s", "cdb-w-ce"), seeds=2):
        return [make_verbs(m, seed=s, group=group) for m in methods for s in range(seeds)]

    return make


def test_head_classes_come_first_then_the_tail_each_by_frequency():
    split = {"train": [5, 100, 30, 80, 30], "head": [0, 3]}
    assert confusion.class_order(split) == [3, 0, 1, 2, 4]


def small(*matrices):
    return [{"metrics": {"last": {"confusion": matrix}}} for matrix in matrices]


def test_rows_are_shares_of_the_true_class_over_all_seeds():
    shares = confusion.confusion_shares(small([[3, 1], [0, 4]], [[1, 3], [2, 2]]))
    assert shares.tolist() == [[0.5, 0.5], [0.25, 0.75]]


def test_class_without_a_test_sample_is_blank_rather_than_0():
    shares = confusion.confusion_shares(small([[2, 0], [0, 0]]))
    assert shares[0].tolist() == [1.0, 0.0]
    assert np.isnan(shares[1]).all()


def test_figure_has_a_panel_per_method_with_names_and_a_line_between_head_and_tail(records):
    made = records()
    split = made[0]["split"]
    figure = styled(lambda: confusion.draw(experiment(made)))
    axes = figure.axes[:3]
    assert [panel.get_title() for panel in axes] == ["CE", "CDB-S", "CDB-W-CE"]
    order = confusion.class_order(split)
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == [split["class_names"][c] for c in order]
    assert names[:5] == ["Open", "Close", "Put", "Cut", "Compress"]
    for panel, method in zip(axes, ("ce", "cdb-s", "cdb-w-ce"), strict=True):
        assert [label.get_text() for label in panel.get_xticklabels()] == names
        shown = panel.images[0].get_array().filled(np.nan)
        runs = [r["metrics"]["last"]["confusion"] for r in made if r["method"] == method]
        first = np.sum(runs, axis=0)[order[0]]
        assert shown[0, 0] == pytest.approx(first[order[0]] / first.sum())
        assert shown.sum(axis=1) == pytest.approx(np.ones(19))
        assert [line.get_ydata()[0] for line in panel.lines[:1]] == [4.5]
    assert "n = 2" in figure.get_suptitle()


def test_only_the_methods_that_were_run_have_a_panel(records):
    figure = styled(lambda: confusion.draw(experiment(records(methods=("cdb-w-ce", "focal")))))
    assert figure.axes[0].get_title() == "CDB-W-CE"
    # The other axes are the colour bar's.
    assert len(figure.axes) == 2


def test_demos_figure_says_that_it_is_not_comparable(records):
    group = "motion-digits"
    figure = styled(lambda: confusion.draw(experiment(records(group), group)))
    title = figure.get_suptitle()
    assert "rendered demo, 6 epochs: not comparable with the paper" in title
    assert "motion digits, split 1" in title


def test_figure_without_its_methods_is_left_out_and_said_so(records):
    frame = to_frame(records(methods=("cb",)))
    makers, sentences = shot_figures(frame, to_frame([]))
    assert not makers
    assert sentences == [
        "confusion_egtea-verbs is left out: group egtea-verbs has no run of CE, CDB-S, CDB-W-CE "
        "on split1."
    ]


def test_confusion_and_course_of_video_runs_are_written(tmp_path, records, publish, finish, capsys):
    made = records(seeds=1)
    main(Options(out=tmp_path / "figures", results=publish(*made), runs=finish(made[2])))
    stems = {Path(line).stem for line in capsys.readouterr().out.splitlines()}
    course = "course_egtea-verbs_cdb-w-ce_tau-sigmoid_split1_seed-0"
    assert {"confusion_egtea-verbs", course} <= stems
    assert not {stem for stem in stems if stem.startswith(("error_bars", "tau_sweep"))}
    assert (tmp_path / "figures" / "confusion_egtea-verbs.png").stat().st_size > 10_000


def test_course_of_a_video_run_shows_head_and_tail_and_its_split(make_verbs):
    figure = styled(lambda: run_course.draw(make_verbs("cdb-w-ce")))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == [
        "head, 5 classes (median, quartiles)", "tail, 14 classes (median, quartiles)",
    ]  # fmt: skip
    assert "EGTEA verbs, split 1; seed 0" in figure.get_suptitle()
