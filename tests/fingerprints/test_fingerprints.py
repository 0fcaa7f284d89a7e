import importlib
import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tests.fingerprints.__main__ import main
from tests.fingerprints.cases import METHODS, all_cases
from tests.fingerprints.comparison import differences

TRAINED = ("--only", "^classification/mnist-lt/ce$", "--jobs", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fingerprints of one run."""
    place = tmp_path_factory.mktemp("fingerprints") / "kept"
    assert main(["make", str(place), *TRAINED]) == 0
    return place


def test_a_run_made_again_is_equal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder), *TRAINED]) == 0
    assert "1 of 1 cases are equal" in capsys.readouterr().out


def test_one_tampered_value_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((folder / "fingerprints.json").read_text())
    (case,) = content["cases"].values()
    right = case["record/metrics/last/error"]
    case["record/metrics/last/error"] = -1.0
    (tmp_path / "fingerprints.json").write_text(json.dumps(content))
    assert main(["compare", str(tmp_path), *TRAINED]) == 1
    said = capsys.readouterr().out.splitlines()
    line = f"classification/mnist-lt/ce: record/metrics/last/error: was -1.0, is {right}"
    assert [words for words in said if "mnist-lt" in words] == [line]


def test_every_kind_is_kept_and_the_resumed_run_ends_as_the_whole_one(folder: Path) -> None:
    (case,) = json.loads((folder / "fingerprints.json").read_text())["cases"].values()
    assert case["name"].startswith("mnist-lt/ce_imbalance-2_epochs-2")
    assert case["config/batch_size"] == 32
    assert "config/tau_max" not in case
    assert case["checkpoint"]
    kinds = {key.partition("/")[0] for key in case}
    assert kinds == {"name", "config", "weights", "record", "checkpoint", "resumed"}
    again = {k.removeprefix("resumed/"): v for k, v in case.items() if k.startswith("resumed/")}
    assert again == {key: case[key] for key in again}


def methods_of(config: object) -> set[str]:
    """Those that the recipe of a configuration knows."""
    return {*get_args(get_type_hints(type(config))["method"])}


@pytest.mark.parametrize("task", METHODS)
def test_no_recipe_and_no_method_is_forgotten(task: str) -> None:
    known = importlib.import_module(f"{task}.recipes").RECIPES
    cases = {case.name for case in all_cases()}
    assert known.keys() == METHODS[task].keys()
    for recipe, config in known.items():
        methods = methods_of(config) - (set() if recipe.endswith("-oltr") else {"oltr"})
        assert methods == {*METHODS[task][recipe]}
        assert {f"{task}/{recipe}/{method}/named" for method in methods} <= cases
        assert any(f"{task}/{recipe}/{method}" in cases for method in methods)
        trained = {
            method for other in known for method in methods if f"{task}/{other}/{method}" in cases
        }
        assert trained == methods


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in all_cases()]
    assert len({*names}) == len(names)


def test_a_setting_that_is_a_list_is_named_as_a_setting() -> None:
    before, now = {"config/min_size": [640, 800]}, {"config/min_size": [800]}
    assert differences(before, now, []) == ["config/min_size: was [640, 800], is [800]"]


def test_differences_are_named_by_their_kind() -> None:
    before = {
        "weights/last/a": "1", "weights/last/b": "1", "resumed/weights/last/a": "1",
        "checkpoint": ["x", "x", "y"], "record/history/tau": "1", "name": "run",
    }  # fmt: skip
    now = before | {"weights/last/b": "2", "checkpoint": ["x", "y", "z"], "name": "other"}
    del now["record/history/tau"]
    assert differences(before, before) == []
    assert differences(before, now) == [
        "checkpoint: 1 tensors no longer there: x",
        "checkpoint: 1 tensors new: z",
        "record/history/tau: was 1, is absent",
        "name: was run, is other",
        "weights: 1 of 2 tensors: last/b",
    ]
    assert differences(before, now, ["history/tau", "name", "checkpoint", "last/*"]) == []
