from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from analysis.figures import error_bars, fig2, fig3, run_course, tau_sweep
from analysis.figures.__main__ import Options, main
from analysis.figures.style import as_data_url, save, styled
from analysis.records import to_frame
from common.errors import UserError
from common.training.record import courses


def darkest_share(path: Path) -> float:
    """Share of pixels that are not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.9).mean())


@pytest.fixture
def many_classes(make_record):
    """A run over 30 classes, ten in each shot group."""
    record = make_record("cdb-w-ce", "tau=sigmoid", epochs=4)
    counts = [200] * 10 + [50] * 10 + [5] * 10
    record["split"] |= {"class_names": [str(c) for c in range(30)], "train": counts}
    for field in ("class_accuracy", "difficulty", "class_weights"):
        record["history"][field] = [[c / 30 for c in range(30)] for _ in range(4)]
    return record


def test_fig2_draws_the_weights_of_eq_4():
    accuracy, weights = fig2.weights_over_accuracy(2.0, points=5)
    assert accuracy.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert weights.tolist() == [1.0, 0.5625, 0.25, 0.0625, 0.0]
    (axes,) = styled(fig2.draw).axes
    assert len(axes.lines) == len(fig2.TAUS)


def test_fig3_laws_run_from_0_to_tau_max():
    for law in fig3.LAWS:
        bias, tau = fig3.tau_over_bias(law, fig3.TAU_MAX, points=100)
        assert (bias[0], bias[-1]) == (0.0, pytest.approx(99.0))
        assert tau[0] == 0.0
        assert tau[-1] == pytest.approx(5.0)
        assert (np.diff(tau) >= 0).all()


def test_fig3_laws_grow_in_the_papers_order():
    at_10 = [fig3.tau_over_bias(law, fig3.TAU_MAX, points=100)[1][10] for law in fig3.LAWS]
    assert at_10 == sorted(at_10, reverse=True)


def test_error_bars_show_paper_and_ours_with_the_papers_values(make_record):
    ours = {"ours, published": to_frame([make_record(error=5.0)])}
    figure = styled(lambda: error_bars.draw("mnist-lt", ours))
    assert [axes.get_title() for axes in figure.axes] == ["imbalance 99", "imbalance 199"]
    paper, published = figure.axes[0].containers
    assert paper.lines[0].get_xdata()[0] == 8.59
    assert list(published.lines[0].get_xdata()) == [5.0]
    # No run at 199: only the paper is drawn there, and nothing at 0.
    assert len(figure.axes[1].containers) == 1


def test_tau_sweep_has_a_panel_per_method_and_imbalance(make_record):
    ours = {"ours, published": to_frame([make_record("cdb-s", "tau=sigmoid-code", error=5.0)])}
    figure = styled(lambda: tau_sweep.draw("mnist-lt", ours))
    assert len(figure.axes) == 4
    assert figure.axes[1].get_title() == "CDB-S, imbalance 99"
    names = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert names[-1] == "sigmoid-code"
    assert "sigmoid-code" not in [t.get_text() for t in figure.axes[0].get_xticklabels()]


@pytest.mark.parametrize("draw", [error_bars.draw, tau_sweep.draw])
def test_the_marker_of_the_largest_error_is_drawn_whole(draw):
    # Without spread: nothing reaches beyond the marker.
    figure = styled(lambda: draw("cifar100-lt", {}))
    figure.canvas.draw()
    for axes in figure.axes:
        along = 0 if draw is error_bars.draw else 1
        drawn = [axes.transData.transform(line.get_xydata()) for line in axes.lines]
        largest = max(points[:, along].max() for points in drawn if len(points) > 2)
        half = 5.5 / 2 * figure.dpi / 72
        assert largest + half <= axes.bbox.get_points()[1, along]


@pytest.mark.parametrize("dataset", ["mnist-lt", "cifar100-lt"])
def test_tau_sweep_is_as_wide_as_a_page_for_any_number_of_imbalances(dataset):
    assert styled(lambda: tau_sweep.draw(dataset, {})).get_figwidth() == 9.6


def test_tau_sweep_has_runs_that_depart_in_tau_alone(make_record):
    steadied = make_record("cdb-s", "tau=sigmoid average=0.9", error=5.0)
    figure = styled(lambda: tau_sweep.draw("mnist-lt", {"ours, published": to_frame([steadied])}))
    names = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert not any("average" in name for name in names)


def test_course_of_a_plain_method_has_loss_and_accuracy_only(make_record):
    panels = run_course.available_panels(make_record("ce"))
    assert [panel[0] for panel in panels] == ["loss", "class_accuracy"]


def test_course_of_a_balanced_method_has_everything(make_record):
    record = make_record("cdb-w-ce", "tau=sigmoid")
    figure = styled(lambda: run_course.draw(record))
    assert len(figure.axes) == 6
    tau = figure.axes[3].lines[0]
    assert list(tau.get_ydata()) == courses(record)["tau"]
    # One line per class and the mark of the best epoch.
    assert len(figure.axes[1].lines) == 3


def test_course_of_a_run_with_nothing_held_out_has_no_best_epoch(make_record):
    record = make_record("ce")
    del record["metrics"]["best"]
    record["split"]["difficulty"] = [0, 0]
    record["history"]["class_accuracy"] = [[None, None] for _ in record["history"]["epoch"]]
    assert to_frame([record])[["error_best", "epoch_best"]].isna().all(axis=None)
    figure = styled(lambda: run_course.draw(record))
    said = figure._suptitle.get_text()
    assert said.endswith(f"test error {record['metrics']['last']['error']:.2f} % at the last epoch")


def test_course_of_a_detector_shows_ap_per_category_and_no_best_epoch(make_detection):
    record = make_detection("cdb-w-ce")
    figure = styled(lambda: run_course.draw(record))
    accuracy = figure.axes[1]
    assert accuracy.get_title() == "AP per category after the epoch"
    # One line per category, and no mark of a best epoch.
    assert len(accuracy.lines) == 6
    assert list(accuracy.lines[0].get_ydata()) == [
        r[0] for r in record["history"]["class_accuracy"]
    ]
    assert "box AP 20.00, box AP_r 5.00" in figure._suptitle.get_text()
    record["config"]["difficulty"] = "proposals"
    figure = styled(lambda: run_course.draw(record))
    assert figure.axes[1].get_ylabel() == "accuracy, training proposals"


def test_course_of_a_detector_whose_difficulty_was_not_measured_has_the_loss_only(make_detection):
    record = make_detection("rfs", task="mask")
    assert [panel[0] for panel in run_course.available_panels(record)] == ["loss"]
    figure = styled(lambda: run_course.draw(record))
    assert len(figure.axes) == 1
    assert not figure.legends
    assert "mask AP 20.00" in figure._suptitle.get_text()


@pytest.mark.filterwarnings("error")
def test_many_categories_are_drawn_as_bands_by_frequency_also_where_none_was_measured(
    make_detection,
):
    record = make_detection("cdb-w-ce", epochs=3)
    record["split"] |= {
        "class_names": [str(c) for c in range(12)], "frequency": "ffffccccrrrr",
        "train": [200] * 4 + [50] * 4 + [5] * 4,
    }  # fmt: skip
    # No rare category is measured, and after the second epoch none at all.
    row = [0.8, 0.6, 0.4, 0.2, 0.4, 0.2, 0.2, 0.0] + [None] * 4
    record["history"]["class_accuracy"] = [row, [None] * 12, row]
    for field in ("difficulty", "class_weights"):
        record["history"][field] = [[0.5] * 12] * 3
    accuracy = styled(lambda: run_course.draw(record)).axes[1]
    labels = [line.get_label() for line in accuracy.lines]
    assert [label.partition(",")[0] for label in labels] == ["rare", "common", "frequent"]
    frequent, rare = accuracy.lines[2].get_ydata(), accuracy.lines[0].get_ydata()
    assert frequent[0] == pytest.approx(0.5)
    assert np.isnan(frequent[1])
    assert np.isnan(rare).all()


def test_many_classes_are_drawn_as_bands_per_shot_group(many_classes):
    figure = styled(lambda: run_course.draw(many_classes))
    accuracy = figure.axes[1]
    assert len(accuracy.collections) == 3
    assert accuracy.lines[0].get_ydata()[0] == pytest.approx(4.5 / 30)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    names = [f"{name}-shot, 10 classes (median, quartiles)" for name in ("many", "medium", "few")]
    assert labels[:3] == names


def test_shot_group_without_a_class_has_no_band(many_classes):
    many_classes["split"]["train"] = [200] * 15 + [5] * 15
    figure = styled(lambda: run_course.draw(many_classes))
    assert len(figure.axes[1].collections) == 2


def test_unmeasured_classes_leave_gaps(make_record):
    record = make_record("ce")
    record["history"]["class_accuracy"][0][1] = None
    figure = styled(lambda: run_course.draw(record))
    assert np.isnan(figure.axes[1].lines[1].get_ydata()[0])


def test_first_seed_of_each_configuration_is_chosen(make_record):
    records = [make_record(seed=2), make_record(seed=0), make_record("eql", seed=1)]
    chosen = run_course.first_seeds(records)
    assert [(r["method"], r["seed"]) for r in chosen] == [("ce", 0), ("eql", 1)]


def test_all_figures_are_written_and_not_blank(tmp_path, make_record, publish, finish, capsys):
    results = publish(make_record(), make_record("cdb-s", "tau=0.5"))
    runs = finish(make_record("cdb-w-ce", "tau=sigmoid", seed=1))
    main(Options(out=tmp_path / "figures", results=results, runs=runs))
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    stems = {path.stem for path in written}
    course = "course_mnist-lt_cdb-w-ce_tau-sigmoid_imbalance-99_seed-1"
    assert stems == {"fig2", "fig3", "fig6", "error_bars_mnist-lt", "tau_sweep_mnist-lt", course}
    for path in written:
        assert path.is_file()
        if path.suffix == ".png":
            assert darkest_share(path) > 0.01, path


def test_figures_are_the_same_bytes_each_time(tmp_path):
    first = [path.read_bytes() for path in save(styled(fig3.draw), tmp_path / "a", "fig3")]
    again = [path.read_bytes() for path in save(styled(fig3.draw), tmp_path / "b", "fig3")]
    assert first == again


def test_data_url_is_an_svg():
    assert as_data_url(styled(fig2.draw)).startswith("data:image/svg+xml;base64,")


def test_figures_into_a_place_that_is_no_folder_are_a_user_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="file"):
        save(styled(fig2.draw), tmp_path / "file", "fig2")
