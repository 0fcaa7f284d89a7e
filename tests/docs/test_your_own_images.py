"""docs/your-own-images.md: its five commands, typed as they stand, on small pictures."""

import csv
import importlib
import shlex
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from classification.image_recipes import ImageConfig
from classification.train import TASK
from common.errors import run_main
from tests.classification.image_trees import picture
from tests.pages import module_calls, section

PAGE = "docs/your-own-images.md"
STEPS = section(PAGE, "Five commands")
MODULES = (
    "data_prep.image_folder", "classification.train", "analysis.by_class",
    "classification.predict",
)  # fmt: skip


def type_in(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shell does: a star becomes what is there."""
    typed = [str(found) for word in words for found in sorted(Path().glob(word)) or [word]]
    monkeypatch.setattr(sys, "argv", [module, *typed])
    run_main(importlib.import_module(module).main)


def test_the_five_commands_lead_from_pictures_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name, count in (("cat", 14), ("dog", 10)):
        Path("my-pictures", name).mkdir(parents=True)
        for number in range(count):
            picture(40, 30 + number, seed=100 * (name == "dog") + number).save(
                f"my-pictures/{name}/{number}.png"
            )
    Path("new-pictures").mkdir()
    picture(50, 40, seed=999).save("new-pictures/a.png")
    weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    state = torchvision.models.mobilenet_v3_small().state_dict()
    torch.save(state, cache / Path(weights.url).name)
    calls = [(module, words) for module in MODULES for words in module_calls(STEPS, module)]
    assert [module for module, _ in calls] == [MODULES[0], *[MODULES[1]] * 2, *MODULES[2:]]
    for module, words in calls:
        # Of twelve epochs one.
        quick = shlex.split(shlex.join(words).replace("--epochs 12", "--epochs 1"))
        type_in(module, quick, monkeypatch)
    shown = capsys.readouterr().out
    assert "CDB-W-CE" in shown
    assert "mean of the classes" in shown
    with Path("labels.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert {row["path"] for row in rows} == {"new-pictures/a.png"}
    assert {row["class"] for row in rows} <= {"cat", "dog"}


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


def test_options_that_the_page_names_are_options() -> None:
    for words in ("--trained head --start pretrained", "--patience 5", "--optimizer sgd"):
        assert TASK.parse(["image-folder", *shlex.split(words)])
