"""Every published record is whole, in its place, and named as its configuration says."""

from pathlib import Path
from typing import Any

import pytest

from classification.evaluate import config_from
from classification.recipes import run_name
from common.record import read_record

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted((ROOT / "results").rglob("*.json"))


@pytest.fixture(
    scope="module", params=PUBLISHED, ids=lambda path: str(path.relative_to(ROOT / "results"))
)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture(scope="module")
def record(path: Path) -> dict[str, Any]:
    """Reading checks the schema."""
    return read_record(path)


def test_there_are_published_records() -> None:
    assert PUBLISHED


def test_record_lies_in_its_group_under_its_run_name(path: Path, record: dict[str, Any]) -> None:
    assert path.relative_to(ROOT / "results").parts == (record["group"], f"{record['run']}.json")


def test_run_name_is_the_one_its_configuration_gives(record: dict[str, Any]) -> None:
    if record["task"] == "classification":
        assert record["run"] == run_name(config_from(record["config"]))
