"""Training processes of detection runs: those of tests/classification with another program."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from common.training.folder import load_tensors
from detection.recipes import ClassifierConfig, group_name, resolved, run_name
from detection.train import TASK
from tests.classification.trainer import Trainer, read_record


@dataclass(kw_only=True)
class DetectionTrainer(Trainer):
    """Starts ``detection.train`` in processes that can be killed."""

    data: Path
    """The set that runs are of which name no other."""

    def command_line(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """``arguments``, which begin with a recipe, and the data."""
        if "--data" in arguments:
            return arguments
        return (*arguments, "--data", str(self.data), "--images", str(self.data))

    def run_folder(self, out: Path, *arguments: str) -> Path:
        """The folder of a run below ``out``."""
        config = TASK.parse([*arguments]).config
        return out / group_name(config) / run_name(config)


def first_stage_folder(out: Path, *arguments: str) -> Path:
    """The folder of the first stage of a second one, by the arguments of the second."""
    config = resolved(TASK.parse([*arguments]).config)
    assert isinstance(config, ClassifierConfig)
    first = config.stage1_config()
    return out / group_name(first) / run_name(first)


def assert_same_run(run: Path, reference: Path) -> None:
    """Weights, history, record and picture are equal to the bit; only ``provenance`` may differ."""
    ours, theirs = (load_tensors(path / "weights.pt") for path in (run, reference))
    assert ours.keys() == theirs.keys() == {"last"}
    assert ours["last"].keys() == theirs["last"].keys()
    for name, weight in theirs["last"].items():
        assert torch.equal(ours["last"][name], weight), name
    records = read_record(run), read_record(reference)
    for record in records:
        del record["provenance"]
    assert json.dumps(records[0], sort_keys=True) == json.dumps(records[1], sort_keys=True)
    pictures = [(path / "pictures.png").read_bytes() for path in (run, reference)]
    assert pictures[0] == pictures[1]


def assert_nothing_left_over(run: Path) -> None:
    """A finished run holds its results and no checkpoint or temporary file."""
    names = {path.name for path in run.iterdir()}
    files = {"config.json", "lock", "record.json", "weights.pt", "pictures.png", "tensorboard"}
    assert names == files
