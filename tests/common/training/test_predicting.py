"""What the predict commands share, by itself; the commands are tested in their packages."""

import csv
from pathlib import Path

import pytest

from common.errors import UserError
from common.training.predicting import find_files, finished_record, write_table


def test_files_are_found_at_any_depth_sorted_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.PNG", "a/b.jpg", ".a/d.png", "._e.png", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "g.png").mkdir()
    found = find_files(tmp_path, (".png", ".jpg"), "images")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/b.jpg", "a/c.PNG", "b.png"]


def test_a_hidden_folder_that_is_named_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.png").touch()
    assert len(find_files(tmp_path / ".hidden", (".png",), "images")) == 1


def test_a_file_that_is_named_may_end_in_any_way(tmp_path: Path) -> None:
    (tmp_path / "picture").touch()
    assert find_files(tmp_path / "picture", (".png",), "images") == [tmp_path / "picture"]


def test_a_table_is_read_again_as_it_was(tmp_path: Path) -> None:
    rows = [('a "quoted", name', "1"), ("two\nlines", "ü")]
    write_table(tmp_path / "t.csv", ("class", "value"), rows)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["class", "value"], *map(list, rows)]


@pytest.mark.parametrize("content", ["", "[]", "null", '{"task": ["classification"]}', "{"])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"record\.json"):
        finished_record(tmp_path, "classification")
