"""docs/your-own-images.md: its five commands, typed as they stand, on small pictures."""

import csv
import importlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from analysis.class_accuracy import class_accuracy
from analysis.photo_crops import RUNS, differences, example_runs
from analysis.records import RESULTS, published_records, to_frame
from classification.image_recipes import ImageConfig
from classification.train import TASK
from common.errors import run_main
from tests.pages import ROOT, module_calls, section

PAGE = "docs/your-own-images.md"
STEPS = section(PAGE, "Five commands")
MODULES = (
    "data_prep.image_folder", "classification.train", "analysis.by_class",
    "classification.predict",
)  # fmt: skip
PHOTOGRAPHS = {"flower": "flower.jpg", "temple": "china.jpg"}
"""Those that come with scikit-learn, by what they show."""


def type_in(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shell does: a star becomes what is there."""
    typed = [str(found) for word in words for found in sorted(Path().glob(word)) or [word]]
    monkeypatch.setattr(sys, "argv", [module, *typed])
    run_main(importlib.import_module(module).main)


def cut(photograph: str, folder: Path, count: int, seed: int) -> None:
    """Squares of a photograph, some of 80 pixels and some larger."""
    whole, generator = Image.fromarray(load_sample_image(photograph)), np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        side = int(generator.integers(80, 160))
        left, top = (int(generator.integers(length - side)) for length in whole.size)
        whole.crop((left, top, left + side, top + side)).save(folder / f"{number}.jpg")


def test_the_five_commands_lead_from_photographs_to_right_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real ImageNet weights of EfficientNet-Lite0."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, photograph) in enumerate(PHOTOGRAPHS.items()):
        cut(photograph, Path("my-pictures", name), 14 - 2 * seed, seed)
        cut(photograph, Path("new-pictures", name), 2, 10 + seed)
    calls = [(module, words) for module in MODULES for words in module_calls(STEPS, module)]
    assert [module for module, _ in calls] == [MODULES[0], *[MODULES[1]] * 2, *MODULES[2:]]
    for module, words in calls:
        # Of twelve epochs four, of batches of 32 some of 4.
        quick = shlex.join(words).replace("--epochs 12", "--epochs 4")
        type_in(module, shlex.split(quick.replace("size 32", "size 4")), monkeypatch)
    shown = capsys.readouterr().out
    assert "CDB-W-CE" in shown
    assert "mean of the classes" in shown
    with Path("labels.csv").open(newline="") as file:
        first = {row["path"]: row["class"] for row in csv.DictReader(file) if row["rank"] == "1"}
    assert len(first) == 4
    assert all(Path(path).parent.name == name for path, name in first.items())
    assert Path("sheet.png").stat().st_size > 10_000


def test_training_commands_differ_in_the_method_alone() -> None:
    ce, cdb = (TASK.parse(words).config for words in module_calls(STEPS, "classification.train"))
    assert isinstance(ce, ImageConfig)
    assert isinstance(cdb, ImageConfig)
    assert (ce.method, cdb.method, cdb.tau) == ("ce", "cdb-w-ce", "sigmoid-code")
    for config in (ce, cdb):
        assert (config.start, config.optimizer, config.learning_rate) == (
            "pretrained", "adamw", 0.001,
        )  # fmt: skip
        assert config.crop < config.stored_side


def test_a_second_seed_has_lists_and_squares_of_its_own_and_the_same_options() -> None:
    more = STEPS + section(PAGE, "Several seeds")
    first, second = (module_calls(text, "classification.train")[-2:] for text in (STEPS, more))
    lists = module_calls(more, "data_prep.image_folder")[-1]
    for before, words in zip(first, second, strict=True):
        old, new = TASK.parse(before), TASK.parse(words)
        assert replace(new.config, seed=old.config.seed) == old.config
        assert (new.config.seed, old.config.seed) == (1, 0)
        assert new.group == old.group
        assert new.cache != old.cache
        assert lists[-2:] == ["--out", str(new.data)]


def test_options_that_the_page_names_are_options() -> None:
    for words in ("--trained head --start pretrained", "--patience 5", "--optimizer sgd"):
        assert TASK.parse(["image-folder", *shlex.split(words)])


# What the page says of the published runs.


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str], pd.DataFrame]:
    return example_runs(to_frame(published_records(ROOT / RESULTS)))


def test_four_methods_were_run_with_three_seeds_each_on_a_split_of_its_own(
    runs: dict[tuple[str, str], pd.DataFrame],
) -> None:
    assert set(runs) == set(RUNS)
    for own in runs.values():
        assert list(own["seed"]) == [0, 1, 2]
        assert own["split"].nunique() == 3
    split = runs[RUNS[0]]["record"].iloc[0]["split"]
    counts = dict(zip(split["class_names"], split["train"], strict=True))
    assert (len(counts), sum(counts.values()), 3 * sum(split["test"])) == (14, 428, 168)
    # With the 4 + 4 that are held out.
    others = [count + 8 for name, count in counts.items() if name != "person"]
    assert (counts["person"], min(others), max(others)) == (303, 12, 26)
    assert counts["handbag"] == 4


def test_all_methods_are_ahead_of_ce_on_both_sets_and_nothing_is_decided(
    runs: dict[tuple[str, str], pd.DataFrame],
) -> None:
    ce, *_ = RUNS
    for values in (
        {run: own["test"].mean() for run, own in runs.items()},
        {run: -own["difficulty_error_last"].mean() for run, own in runs.items()},
    ):
        assert min(values, key=lambda run: values[run]) == ce
        assert max(values, key=lambda run: values[run])[0] == "cdb-s"
    assert not any(d.low > 0 or d.high < 0 for d in differences(runs).values())


def test_the_head_pays_with_each_method_and_handbags_are_not_found(
    runs: dict[tuple[str, str], pd.DataFrame],
) -> None:
    records = {run: list(own["record"]) for run, own in runs.items()}
    names = records[RUNS[0]][0]["split"]["class_names"]
    each = {
        run: dict(zip(names, class_accuracy(own, "last").accuracy, strict=True))  # type: ignore[union-attr]
        for run, own in records.items()
    }
    assert all(each[run]["person"] < each[RUNS[0]]["person"] for run in RUNS[1:])
    assert {accuracy["handbag"] for accuracy in each.values()} == {0.0}
