"""Names of classes, runs and groups are data: no character of theirs is markup anywhere."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from analysis import report
from analysis.figures import run_course
from analysis.figures.__main__ import Options, course_files, main
from analysis.figures.style import heading_above, legend_below, panels, save, styled
from analysis.grid import Grid
from analysis.report import Material, render
from common.errors import UserError
from common.training.drawing import class_labels, numbered_classes

ROOT = Path(__file__).parents[2]
MARKUP = [
    "Ba$$in",
    "$x^{$",
    r"\$q$",
    r"$\frac{1}{$",
    "a_b$_{",
    "_hidden",
    "__",
    "a b",
    "<i>",
    "&amp;",
]


def ten_classes(record, names):
    """``record`` with ten classes of these names."""
    record["split"] |= {"class_names": names, "train": list(range(20, 10, -1))}
    epochs = len(record["history"]["epoch"])
    record["history"]["class_accuracy"] = [[c / 10 for c in range(10)]] * epochs
    return record


def texts_of(legend):
    return [text.get_text() for text in legend.get_texts()]


def is_inside(figure, part):
    """Whether the whole of ``part`` is on the figure, once it is laid out."""
    figure.draw_without_rendering()
    box, page = part.get_window_extent(), figure.bbox
    wide = page.x0 <= box.x0 and box.x1 <= page.x1
    return wide and page.y0 <= box.y0 and box.y1 <= page.y1


def test_every_class_is_in_the_legend_by_its_very_name(make_record, tmp_path):
    record = ten_classes(make_record(variant="$x^{$"), MARKUP)
    figure = styled(lambda: run_course.draw(record))
    expected = [f"{name} ({20 - c} train)" for c, name in enumerate(MARKUP)]
    assert texts_of(figure.legends[0]) == expected
    colours = [line.get_color() for line in figure.axes[1].lines[:10]]
    assert [line.get_color() for line in figure.legends[0].get_lines()] == colours
    save(figure, tmp_path, "course")  # Which would fail on their mathematics.


def test_the_legend_of_a_published_run_is_not_cut():
    record = json.loads((ROOT / "results" / "digit-images" / "ce_seed-0.json").read_text())
    figure = styled(lambda: run_course.draw(record))
    (legend,) = figure.legends
    assert len(texts_of(legend)) == 10
    assert is_inside(figure, legend)


@pytest.mark.parametrize("name", ["many words " * 20, "W" * 250, "i" * 90])
def test_names_of_any_length_are_whole_and_on_the_figure(make_record, name):
    figure = styled(lambda: run_course.draw(ten_classes(make_record(variant=name), [name] * 10)))
    (legend,) = figure.legends
    assert is_inside(figure, legend)
    for text in texts_of(legend):
        assert text.replace("\n", "").replace(" ", "").startswith(name.replace(" ", ""))
    assert is_inside(figure, figure._suptitle)
    assert figure.axes[1].get_window_extent().height > 100


def test_a_legend_and_a_heading_that_fit_are_as_they_were():
    figure, (axes,) = panels(1, 1, 8.0, 3.0)
    lines = [axes.plot([0, 1], label=name)[0] for name in "abc"]
    legend = legend_below(figure, lines, ["a", "b", "c"], columns=3)
    heading_above(figure, "a heading\nof two lines")
    assert figure.get_figheight() == 3.0
    assert len({round(text.get_window_extent().y0) for text in legend.get_texts()}) == 1
    assert figure.get_suptitle() == "a heading\nof two lines"


@pytest.fixture
def courses_alone(monkeypatch):
    """The other figures hold no name of a class or a run."""
    for others in ("paper_figures", "result_figures"):
        monkeypatch.setattr(f"analysis.figures.__main__.{others}", lambda *frames: {})
    monkeypatch.setattr("analysis.figures.__main__.shot_figures", lambda *frames: ({}, []))


SCRIPTS = ["猫", "Ёлка", "αβγ", "naïve", "e\u0301te", "שלום", "नमस्ते", "a\nb", "\udcff", "\u202eabc"]


def test_class_names_in_any_script_are_drawn_or_numbered_with_a_list(
    courses_alone, make_record, finish, publish, tmp_path, capsys
):
    labels = ["#0", "Ёлка", "αβγ", "naïve", "éte", "#5", "#6", "#7", "#8", "#9"]
    assert class_labels(SCRIPTS) == labels
    assert numbered_classes(SCRIPTS[:8]) == "#0 is 猫, #5 is שלום, #6 is नमस्ते, #7 is a\\nb"
    assert numbered_classes(["a", "b"]) == ""
    runs = finish(ten_classes(make_record(variant="猫"), SCRIPTS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib's, of each glyph.
        main(Options(out=tmp_path / "figures", results=publish(), runs=runs))
    course = "course_mnist-lt_ce_%E7%8C%AB_imbalance-99_seed-0"
    assert f"Classes by number in {course}: #0 is 猫, " in capsys.readouterr().out


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("analysis.report.as_data_url", lambda figure: "data:image/svg+xml;base64,")
    monkeypatch.setattr("analysis.report.styled", lambda draw: None)


def test_names_are_no_markup_on_the_page_and_no_run_hides_another(no_figures, make_record):
    records = [
        ten_classes(make_record(group="course_a", run="b_<b>c"), SCRIPTS),
        make_record(group="course_a_b", run="<b>c"),
    ]
    page = render(Material([], records))
    assert "<b>c" not in page
    # The list of the classes that a figure numbers.
    assert page.count("#0 is 猫, #5 is שלום") == 1
    assert "<code>course_a/b_&lt;b&gt;c</code>" in page
    assert "<code>course_a_b/&lt;b&gt;c</code>" in page


def test_a_name_is_no_path_of_a_figure(courses_alone, make_record, tmp_path):
    record = make_record(group="../..", run="a/../b")
    runs = tmp_path / "runs" / "group" / "run"
    runs.mkdir(parents=True)
    (runs / "record.json").write_text(json.dumps(record))
    (tmp_path / "results").mkdir()
    out = tmp_path / "figures"
    main(Options(out=out, results=tmp_path / "results", runs=tmp_path / "runs"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "results", "runs"]
    pictures = sorted(path.name for path in out.iterdir())
    assert pictures == ["course_.._..%2Fa%2F..%2Fb.png", "course_.._..%2Fa%2F..%2Fb.svg"]


def test_no_runs_course_is_written_over_anothers(courses_alone, make_record, finish, tmp_path):
    pairs = [("a_b", "c"), ("a", "b_c"), ("a", "b%5Fc"), ("a", "d"), ("a_b_c", "d"), ("a_b", "c_d")]
    runs = finish(*(make_record(group=group, run=run) for group, run in pairs))
    (tmp_path / "empty").mkdir()
    out = tmp_path / "figures"
    main(Options(out=out, results=tmp_path / "empty", runs=runs, all_seeds=True))
    assert {path.stem for path in out.iterdir()} == {
        "course_a%5Fb_c", "course_a_b_c", "course_a_b%255Fc", "course_a_d",
        "course_a%5Fb%5Fc_d", "course_a%5Fb_c_d",
    }  # fmt: skip


def test_published_runs_keep_the_names_of_their_courses():
    names = [f"{path.parent.name}/{path.stem}" for path in (ROOT / "results").rglob("*.json")]
    assert course_files(names) == {name: f"course_{name.replace('/', '_')}" for name in names}


def test_a_table_shows_names_as_they_are_and_steers_no_terminal(capsys):
    name = "[red]x[/red] :cat: \x1b[31mred\x07"
    grid = Grid("g", name, (name, "n"), ((name, "[bold]1"),), name)
    Console(width=200, force_terminal=True, color_system=None).print(grid.to_terminal())
    out = capsys.readouterr().out
    assert out.count("[red]x[/red] :cat: \N{REPLACEMENT CHARACTER}[31mred") == 4
    assert "[bold]1" in out
    assert "\x07" not in out


def test_a_name_in_a_markdown_page_is_neither_html_nor_another_cell():
    grid = Grid("g", "", ("a", "b"), (("<b>&lt;|\\|\nx", "1"),))
    assert grid.to_markdown().splitlines()[2] == "| &lt;b>&amp;lt;\\|\\\\\\|<br>x | 1 |"


@pytest.mark.parametrize("package", ["analysis", "detection", "benchmarks"])
def test_the_project_draws_whatever_backend_a_notebook_has_left(package):
    environment = os.environ | {"MPLBACKEND": "module://no_such_module.backend_inline"}
    code = f"import {package}; import matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.stdout.strip().lower(), done.stderr) == ("agg", "")


def test_the_page_is_written_before_anything_is_shown(
    make_record, publish, finish, tmp_path, monkeypatch
):
    def broken() -> None:
        raise UserError("the terminal is gone")

    monkeypatch.setattr(report, "console", broken)
    monkeypatch.setattr(report, "render", lambda material: "the page")
    options = report.Options(finish(make_record()), publish(), tmp_path / "report")
    with pytest.raises(UserError, match="the terminal is gone"):
        report.main(options)
    assert (tmp_path / "report" / "index.html").read_text() == "the page"


def test_a_name_that_is_no_unicode_does_not_keep_the_page_from_being_written(tmp_path):
    path = report.write_report("caf\udce9", tmp_path / "report")
    assert path.read_text(encoding="utf-8") == "caf?"
