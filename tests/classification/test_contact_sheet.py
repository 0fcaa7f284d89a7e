"""New pictures on one sheet."""

import sys
from pathlib import Path

import matplotlib.image
import pytest

from classification import predict
from classification.contact_sheet import MOST, draw_sheet, evenly, write_sheet
from common.errors import UserError, run_main
from common.training.predicting import Row
from tests.classification.image_trees import picture


def ranked(folder: Path, number: int) -> list[Row]:
    rows: list[Row] = []
    for n in range(number):
        path = folder / f"{n}.png"
        picture(20, 40, seed=n).save(path)
        rows += [(path, 1, f"class {n}", "0.75"), (path, 2, "another", "0.25")]
    return rows


def test_each_picture_stands_with_its_likeliest_class_and_its_own_shape(tmp_path: Path) -> None:
    rows = [*ranked(tmp_path, 2), (tmp_path / "0.png", 1, "$a_1$ and a name too long", "0.5")]
    figure = draw_sheet(rows)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [
        "class 0\n0.75", "class 1\n0.75", "$a_1$ and a name …\n0.50",
    ]  # fmt: skip
    assert {axes.get_aspect() for axes in shown} == {2.0}


def test_of_many_pictures_some_are_taken_from_all_over(tmp_path: Path) -> None:
    figure = draw_sheet(ranked(tmp_path, MOST + 12))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == MOST
    assert (titles[0], titles[-1]) == ("class 0\n0.75", f"class {MOST + 10}\n0.75")
    assert evenly(MOST, MOST) == [*range(MOST)]


def test_the_sheet_is_a_png_written_whole(tmp_path: Path) -> None:
    write_sheet(ranked(tmp_path, 3), tmp_path / "sheet.png")
    pixels = matplotlib.image.imread(tmp_path / "sheet.png")
    assert pixels.shape[1] == 968
    with pytest.raises(UserError, match="nowhere"):
        write_sheet(ranked(tmp_path, 1), tmp_path / "nowhere/sheet.png")


def test_a_sheet_without_pictures_or_without_a_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words, said in (
        (["--export", "x.pt2", "--sheet", "s.png"], "--sheet s.png has no effect without pictures"),
        (["new", "--sheet", str(tmp_path / "no/s.png")], "there is no folder"),
    ):
        monkeypatch.setattr(sys, "argv", ["predict", "run", *words])
        with pytest.raises(SystemExit):
            run_main(predict.main)
        assert said in capsys.readouterr().err
