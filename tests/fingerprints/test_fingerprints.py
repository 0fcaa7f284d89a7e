import json
from pathlib import Path

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


def test_a_case_is_there_for_every_recipe_and_method() -> None:
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)
    recipes = {
        f"{task}/{recipe}": methods
        for task, of_task in METHODS.items()
        for recipe, methods in of_task.items()
    }
    for recipe, methods in recipes.items():
        assert {f"{recipe}/{method}/named" for method in methods} <= {*names}
        assert any(f"{recipe}/{method}" in names for method in methods)
    methods_of = {name.rpartition("/")[2] for name in names if name.count("/") == 2}
    assert methods_of == {method for methods in recipes.values() for method in methods}


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
