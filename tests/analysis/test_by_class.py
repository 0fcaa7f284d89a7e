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


def on_splits(make_record, digests, method="ce", variant=""):
    """A run on each split, with a seed and lists of its own."""
    runs = []
    for seed, digest in enumerate(digests):
        own = {"lists": digest, "learning_rate": 0.1}
        runs.append(make_record(method, variant, seed=seed, error=10.0 * (seed + 1), config=own))
        runs[-1]["split"]["digest"] = digest
    return runs


def test_splits_that_every_method_was_trained_on_are_one_table(make_record):
    runs = [*on_splits(make_record, "ab"), *on_splits(make_record, "ab", "cb")]
    grid = by_class.by_class(runs, "last")
    assert grid.rows[-1][2:] == ("85.0", "85.0")
    assert "2 of CE and 2 of CB, on 2 splits." in grid.note


def test_runs_that_do_not_belong_together_are_refused(make_record):
    runs = [*on_splits(make_record, "ab"), *on_splits(make_record, "ac", "cb")]
    with pytest.raises(UserError, match=r"^CE was not trained on the split of .*; train it"):
        by_class.by_class(runs, "last")
    larger = on_splits(make_record, "ab")
    larger[1]["split"]["train"] = [7, 8]
    with pytest.raises(UserError, match=r"several splits.*other classes or numbers of images"):
        by_class.by_class(larger, "last")
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
