"""Every published record is whole, in its place, named by its configuration, and repeatable."""

from pathlib import Path
from typing import Any

import pytest
import torch

from classification.data import load_data
from classification.engine import Training
from classification.evaluate import config_from
from classification.recipes import group_name, resolved, run_name
from common.config import plain
from common.record import read_record
from common.signals import StopRequest

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


def test_configuration_is_whole_and_says_what_the_record_says(record: dict[str, Any]) -> None:
    """The same command today has this very configuration, and so repeats the run."""
    if record["task"] != "classification":
        return
    config = config_from(record["config"])
    assert plain(resolved(config)) == record["config"]
    said = (config.dataset, config.table_method, config.variant, config.seed)
    assert said == tuple(record[name] for name in ("dataset", "method", "variant", "seed"))
    assert record["condition"] == config.condition
    group = group_name(config)
    assert record["group"] in (group, f"{group}-readings", f"{group}-recipe")


@pytest.mark.parametrize("run", ["ce", "eql", "l2rw", "cdb-s_tau-sigmoid"])
def test_first_epoch_of_a_published_mnist_run_comes_out_again(run: str) -> None:
    """To the bit on the machine that made the record; another one may round otherwise."""
    path = ROOT / "results" / "mnist-lt" / f"{run}_imbalance-99_seed-0.json"
    record, cpu = read_record(path), torch.device("cpu")
    config = config_from(record["config"])
    data = load_data(config, cpu)
    assert data.description["digest"] == record["split"]["digest"]
    training = Training(config, data, cpu)
    training.run_epoch(StopRequest())
    training.end_epoch()
    (loss,) = training.history.rows["loss"]
    assert loss == pytest.approx(record["history"]["loss"][0], rel=0.02)
    (accuracy,) = training.history.rows["class_accuracy"]
    assert accuracy == pytest.approx(record["history"]["class_accuracy"][0], abs=0.02)
