"""Runs of one split, class by class."""

import json
import sys
from pathlib import Path

import pytest

from analysis import by_class
from common.errors import UserError, run_main


def of_one_split(make_record, method="ce", variant="", **fields):
    """A record whose split does not follow the seed."""
    config = {"split_seed": 0} | fields.pop("config", {})
    record = make_record(method, variant, config=config, **fields)
    record["split"]["digest"] = "same"
    return record


def test_seeds_of_a_method_are_one_column_and_classes_stand_by_frequency(make_record):
    # The second class's accuracy is 1 - 2 error / 100.
    runs = [of_one_split(make_record, seed=seed, error=10.0 * (seed + 1)) for seed in (0, 1)]
    runs.append(of_one_split(make_record, "cdb-w-ce", "tau=sigmoid", error=5.0))
    for run in runs:
        run["split"]["class_names"], run["split"]["train"] = ["rare", "frequent"], [3, 40]
    grid = by_class.by_class(runs, "last")
    assert grid.header == ("Class", "Training images", "CE", "CDB-W-CE (τ sigmoid)")
    assert grid.rows == (
        ("frequent", "40", "70.0", "90.0"),
        ("rare", "3", "100.0", "100.0"),
        ("mean of the classes", "43", "85.0", "95.0"),
    )
    assert "means over 2 of CE and 1 of CDB-W-CE" in grid.note


def test_a_class_without_test_images_has_no_number(make_record):
    run = make_record(error=10.0)
    run["metrics"]["best"]["class_accuracy"] = [None, 0.5]
    assert [row[-1] for row in by_class.by_class([run], "best").rows] == ["–", "50.0", "50.0"]


def test_runs_that_do_not_belong_together_are_refused(make_record):
    other = make_record(seed=1)
    other["split"]["digest"] = "another"
    with pytest.raises(UserError, match="several splits"):
        by_class.by_class([make_record(), other], "last")
    changed = of_one_split(make_record, seed=1, config={"learning_rate": 0.5})
    with pytest.raises(UserError, match="differ in more than the seed"):
        by_class.by_class([of_one_split(make_record), changed], "last")


def test_the_command_prints_the_runs_below_a_folder(
    make_record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    (tmp_path / "mine/run").mkdir(parents=True)
    (tmp_path / "mine/run/record.json").write_text(json.dumps(make_record(error=10.0)))
    monkeypatch.setattr(sys, "argv", ["by_class", str(tmp_path / "mine")])
    run_main(by_class.main)
    assert "mean of the classes" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["by_class", str(tmp_path / "mine/run/none")])
    with pytest.raises(SystemExit):
        run_main(by_class.main)
    assert "There is no folder" in capsys.readouterr().err
