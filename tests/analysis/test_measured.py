"""The tables of what benchmarks measured."""

import json
import re
from pathlib import Path

import pytest

from analysis.measured import MEASURED, measured_grid, measured_makers, measured_value
from common.errors import UserError

PAGES = Path(__file__).parents[2] / "docs"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "some.json"
    path.write_text(
        """{"how": "Median of two.", "machine": "one core", "date": "2026-01-02", "rows": [
        {"what": "ours", "value": 81, "smallest": 7.0, "largest": 84, "unit": "steps/s"},
        {"what": "above", "value": -0.10, "unit": "%"}]}"""
    )
    return path


def test_numbers_have_the_digits_of_the_file(written: Path) -> None:
    rows = measured_grid("x", written).rows
    assert rows == (("ours", "81 (7.0 .. 84) steps/s"), ("above", "−0.10 %"))


def test_the_note_says_where_and_when(written: Path) -> None:
    assert measured_grid("x", written).note == "Median of two. Made on: one core; 2026-01-02."


def test_a_machine_that_is_not_known_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"how": "Once.", "rows": []}))
    assert measured_grid("x", path).note.endswith("a machine that is not recorded.")


@pytest.mark.parametrize("content", ["{", "[]", '{"how": ""}', '{"how": "", "rows": [{"a": 1}]}'])
def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"some\.json is no file of measurements"):
        measured_grid("x", path)


def test_one_number_is_found_by_what_it_is() -> None:
    assert str(measured_value("cifar100_h100", "a run of 200 epochs")) == "61.5"


def test_every_file_stands_on_a_page_once() -> None:
    text = "".join(page.read_text() for page in PAGES.glob("*.md"))
    shown = re.findall(r"<!-- generated: (measured-[a-z0-9-]+) -->", text)
    assert sorted(shown) == sorted(measured_makers())
    assert len(shown) == len(list(MEASURED.glob("*.json")))
