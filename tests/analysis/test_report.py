import ast
import copy
import re
from pathlib import Path

import pytest

from analysis.report import CAPTIONS, Material, Options, main, render, write_report
from analysis.reproduction import outcome, reproduction_grid
from common.errors import UserError

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "analysis" / "figures"


@pytest.fixture(scope="module")
def no_figures():
    """Most tests look at the text; drawing is tested with the figures."""
    patch = pytest.MonkeyPatch()
    patch.setattr("analysis.report.as_data_url", lambda figure: "data:image/svg+xml;base64,")
    patch.setattr("analysis.report.styled", lambda draw: None)
    yield
    patch.undo()


def test_every_figure_has_a_caption():
    drawn = {p.stem for p in FIGURES.glob("*.py") if "\ndef draw(" in p.read_text()}
    # A run's course stands under the run's name.
    assert drawn - {"run_course"} == set(CAPTIONS)


def test_report_is_one_page_with_numbers_and_figures_and_no_address(
    tmp_path, make_record, publish, finish, capsys
):
    published = [make_record(seed=s, error=8.0 + s) for s in range(3)]
    local = make_record(seed=0, error=8.0)
    options = Options(runs=finish(local), results=publish(*published), out=tmp_path / "report")
    main(options)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
    assert "8.59 ± 0.41" in page
    assert "9.00 ± 1.00 (3)" in page
    # Figs. 2, 3 and 6, error bars, tau sweep and one course, all inside the page.
    assert page.count('src="data:image/svg+xml;base64,') == 6
    assert not re.search(r"https?://|url\(|<script|<link|@import", page)
    out = capsys.readouterr().out
    assert "8.59 ± 0.41" in out
    assert "index.html" in out


@pytest.mark.parametrize(
    ("cell", "tables"),
    [
        (("ce", ""), [1]),
        (("cdb-w-ce", "tau=sigmoid"), [1]),
        (("cdb-w-ce", "tau=0.5"), [2]),
        (("cdb-s", "tau=linear"), [3]),
        # Not in the paper: below the sweep of its method.
        (("cdb-s", "tau=sigmoid-code"), [3]),
    ],
)
def test_terminal_shows_the_tables_this_machine_has_runs_for(
    no_figures, tmp_path, make_record, publish, finish, capsys, cell, tables
):
    runs = finish(make_record(*cell))
    main(Options(runs=runs, results=publish(make_record("eql")), out=tmp_path / "report"))
    out = capsys.readouterr().out
    assert [table for table in (1, 2, 3) if f"Table {table}, MNIST-LT" in out] == tables


def test_terminal_shows_table_1_without_runs_of_this_machine(
    no_figures, tmp_path, make_record, publish, finish, capsys
):
    results = publish(make_record("cdb-s", "tau=linear"))
    main(Options(runs=finish(), results=results, out=tmp_path / "report"))
    out = capsys.readouterr().out
    assert [table for table in (1, 2, 3) if f"Table {table}, MNIST-LT" in out] == [1]


def test_terminal_names_runs_that_are_left_out(
    no_figures, tmp_path, make_record, publish, finish, capsys
):
    runs = finish(make_record(seed=0), make_record(seed=1), make_record(seed=2, epochs=2))
    main(Options(runs=runs, results=publish(), out=tmp_path / "report"))
    out = capsys.readouterr().out
    assert "Note: This machine: ce_imbalance-99_seed-2 has 2 epochs, where most runs have 4" in out


def test_report_without_any_run_holds_the_papers_numbers(no_figures):
    page = render(Material([], []))
    assert "No run is recorded yet" in page
    assert "This machine has no finished run yet" in page
    assert "8.59 ± 0.41" in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)


def test_report_of_published_runs_only(no_figures, make_record):
    page = render(Material([make_record()], []))
    assert "This machine, last epoch" not in page
    assert "Decided from the published records" in page


def test_report_of_local_runs_only(no_figures, make_record):
    page = render(Material([], [make_record(error=8.25)]))
    assert "This machine, last epoch" in page
    assert "8.25 (1)" in page
    assert "not published" in page
    assert "Decided from this machine&#39;s runs" in page


def test_report_shows_readings_machines_and_warnings(no_figures, make_record):
    records = [
        make_record(seed=0),
        make_record(seed=1, config={"learning_rate": 0.5}),
        make_record(group="mnist-lt-readings"),
    ]
    page = render(Material(records, []))
    assert "Readings of the open points, MNIST-LT" in page
    assert "cores 2, cpu test CPU" in page
    assert "differ in learning_rate" in page


def test_report_holds_the_cifar_parts_when_there_are_records(no_figures, make_cifar):
    short = [make_cifar(m, group="cifar100-lt-short", epochs=3) for m in ("ce", "focal")]
    page = render(Material([make_cifar(error=61.0), make_cifar(seed=1, error=63.0)], short))
    assert "Table 1, CIFAR100-LT: all methods, shot-wise (published)" in page
    assert "62.00 [49.29, 74.71]" in page
    assert "CIFAR100-LT, short schedule: all methods (this machine)" in page
    assert "the claims&#39; tests, not the paper&#39;s setting (this machine)" in page
    assert "Fig. 1: class frequency and class accuracy of the CE model." in page
    assert "CE model. Short schedule: not comparable with the paper." in page
    assert "fig5_cifar100-lt is left out" in page


def test_report_without_cifar_records_has_no_short_section(no_figures, make_record):
    page = render(Material([make_record()], []))
    assert "Short schedule" not in page
    assert "shot-wise" not in page


def test_report_holds_the_video_parts_when_there_are_records(no_figures, make_verbs):
    demo = [make_verbs(m, group="motion-digits") for m in ("ce", "cdb-w-ce")]
    page = render(Material([make_verbs(values={"error": 31.25})], demo))
    assert "Table 7, EGTEA verbs: all methods" in page
    assert "68.75 (1)" in page
    assert "67.41" in page
    assert "Rendered demo: not comparable with the paper" in page
    assert "Rendered demo, motion digits: head and tail verbs (this machine)" in page
    assert (
        "motion digits: the claims&#39; tests, not the paper&#39;s setting (this machine)" in page
    )
    assert "head, then tail." in page
    assert "head, then tail. Rendered demo: not comparable with the paper." in page
    assert "Course of motion-digits/ce_split1_seed-0" in page
    assert "Table 1, MNIST-LT" not in page


def test_report_of_the_demo_alone_holds_no_number_of_tables_7_and_8(no_figures, make_verbs):
    page = render(Material([make_verbs(group="motion-digits")], []))
    assert "Rendered demo, motion digits: all methods (published)" in page
    assert "67.41" not in page
    assert "Table 7, EGTEA verbs" not in page


def test_report_holds_the_detection_parts_and_the_pictures_that_runs_left(
    no_figures, tmp_path, make_detection, publish, finish, capsys
):
    local = [make_detection("cdb-w-ce", task="mask", seed=seed) for seed in (1, 0)]
    runs = finish(*local)
    for record in local:
        picture = runs / record["group"] / record["run"] / "pictures.png"
        picture.write_bytes(b"\x89PNG\r\n\x1a\n" + str(record["seed"]).encode())
    results = publish(make_detection(group="lvis-v0.5", bbox={"AP": 17.25}))
    main(Options(runs=runs, results=results, out=tmp_path / "report"))
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Table 5, LVIS v0.5: object detection" in page
    assert "17.25 (1)" in page
    assert "paper, copied; probably mask AP" in page
    assert "Rendered demo, digit scenes: instance segmentation (this machine)" in page
    assert "Table 7" not in page
    # Of each configuration the lowest seed.
    assert page.count("data:image/png;base64,") == 1
    assert "Predictions of digit-scenes/cdb-w-ce_pretrained-random_bbox+segm_seed-0" in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)
    out = capsys.readouterr().out
    assert "Rendered demo, digit scenes: instance segmentation (this machine)" in out
    assert "Table 5, LVIS v0.5" not in out


def test_report_of_rendered_scenes_alone_holds_no_number_of_tables_5_and_6(
    no_figures, make_detection
):
    page = render(Material([make_detection(), make_detection("cdb-w-ce")], []))
    assert "Rendered demo, digit scenes: object detection (published)" in page
    assert "21.19" not in page
    assert "Table 5, LVIS" not in page


def test_report_without_video_records_has_no_demo_section(no_figures, make_record):
    page = render(Material([make_record()], []))
    assert "Rendered demo" not in page
    assert "Table 7" not in page


@pytest.mark.parametrize(
    ("group", "title"),
    [
        ("egtea-verbs", "Table 8, EGTEA verbs: head and tail verbs"),
        ("motion-digits", "Rendered demo, motion digits: head and tail verbs (this machine)"),
    ],
)
def test_terminal_shows_the_video_tables_of_this_machine(
    no_figures, tmp_path, make_record, make_verbs, publish, finish, capsys, group, title
):
    runs = finish(make_verbs(group=group))
    main(Options(runs=runs, results=publish(make_record()), out=tmp_path / "report"))
    out = capsys.readouterr().out
    assert title in out
    assert "Table 1, MNIST-LT" not in out


def test_terminal_shows_the_short_schedule_of_this_machine(
    no_figures, tmp_path, make_record, make_cifar, publish, finish, capsys
):
    runs = finish(make_cifar(group="cifar100-lt-short", epochs=3))
    main(Options(runs=runs, results=publish(make_record()), out=tmp_path / "report"))
    out = capsys.readouterr().out
    assert "CIFAR100-LT, short schedule: all methods (this machine)" in out


def test_names_in_records_cannot_inject_markup(no_figures, make_record):
    page = render(Material([], [make_record(run="<b>bold</b>")]))
    assert "<b>bold</b>" not in page


def test_the_same_records_give_the_same_page(no_figures, make_record):
    material = Material([make_record()], [make_record()])
    assert render(material) == render(material)


def test_run_with_equal_metrics_and_course_is_identical(make_record):
    assert outcome(make_record(), make_record()) == "identical"


def test_slower_run_is_still_identical(make_record):
    slower = make_record()
    slower["provenance"]["seconds"] = 500.0
    assert outcome(slower, make_record()) == "identical"


def test_reproduction_names_what_differs(make_record):
    published = make_record(error=8.0)
    assert outcome(make_record(error=8.0625), published) == "differs by +0.062 points"
    assert outcome(make_record(error=8.0, epochs=2), published) == "other settings: epochs"
    assert outcome(make_record(), None) == "not published"
    course = copy.deepcopy(published)
    course["history"]["loss"][0] += 0.5
    assert outcome(course, published) == "same metrics, other course"
    data = copy.deepcopy(published)
    data["split"]["digest"] = "else"
    assert outcome(data, published) == "other data split"


def test_reproduction_pairs_runs_by_group_and_name(make_record):
    local = [make_record(seed=0), make_record(seed=5)]
    grid = reproduction_grid(local, [make_record(seed=0), make_record(seed=1)])
    assert [row[5] for row in grid.rows] == ["identical", "not published"]
    assert grid.rows[1][2] == "–"


def test_reproduction_shows_versions_that_differ(make_record):
    local = make_record()
    local["provenance"]["versions"] = {"python": "3.11.9", "torch": "2.12.0"}
    grid = reproduction_grid([local], [make_record()])
    assert grid.rows[0][6] == "torch 2.12.0 / 2.11.0"


def test_missing_folder_is_a_user_error(tmp_path, publish):
    with pytest.raises(UserError, match="--runs"):
        main(Options(runs=tmp_path / "absent", results=publish(), out=tmp_path / "report"))


def test_report_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "report").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="report"):
        write_report("page", tmp_path / "report")


def test_analysis_knows_no_task_and_never_trains():
    for path in (ROOT / "analysis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules.append(node.module)
            # What the records of a task hold stands in its package, alone.
            roots = {name.split(".")[0] for name in modules if not name.endswith(".record")}
            # Fig. 6 shows the splits that the repository carries, not records.
            allowed = {"data_prep"} if path.name == "fig6.py" else set()
            assert not roots & {"classification", "detection", "video", "data_prep"} - allowed, path
