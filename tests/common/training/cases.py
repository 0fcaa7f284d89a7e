"""The tasks that the conformance suite runs, each on its tiny data."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from classification.train import TASK as CLASSIFICATION
from common.training.folder import load_tensors
from common.training.loop import Training, Weights
from common.training.task import Task
from detection.train import TASK as DETECTION
from tests.classification import fork_server, small_images
from tests.detection import runs as detection_runs
from tests.video import synthetic as video_set
from video.train import TASK as VIDEO

CPU = torch.device("cpu")
Words = tuple[str, ...]
MNIST: Words = (
    "mnist-lt", "--method", "cdb-w-ce", "--epochs", "4", "--batch-size", "50",
    "--learning-rate", "0.01", "--loss-reduction", "batch-size", "--imbalance", "1.5",
)  # fmt: skip
"""A learning rate at which each epoch's difficulty differs from the last."""


@dataclass(frozen=True)
class Case:
    """A task and a run of it."""

    name: str
    task: Task[Any, Any, Any]
    words: Words
    """Of the command line; {data} stands for the folder of the data."""
    epochs: int
    steps: int
    """Of an epoch."""
    write_data: Callable[[Path], Path] | None = None
    """Makes the data in a new folder; None: it is there."""
    before: int = 0
    """Steps of the first stage."""
    diverging: Words = ()
    """With --learning-rate 1e30, what else is needed to let it grow."""
    lose_a_class: Callable[[Path], None] = lambda data: None
    """Leave a class without training samples."""
    losing: Words = ()
    """What does so by the command line."""
    lost: Words | None = None
    """What a run says then; None: it goes on without."""
    written: Words = ("config.json", "checkpoint.pt", "weights.pt", "record.json")
    """Files that are flushed to the disk, each with its folder, in this order."""

    def line(self, data: Path) -> Words:
        """The words of the command line."""
        return tuple(word.format(data=data) for word in self.words)


def _lose_one_of_a_list(data: Path) -> None:
    path = data / "train.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.endswith(" 4\n")))


def _add_a_verb(data: Path) -> None:
    with (data / "splits" / "verb_idx.txt").open("a") as verbs:
        verbs.write("Fly 7\n")


CLIPS = video_set.options("cdb-w-ce", learning_rate=0.005)
SCENES = ("--data", "{data}", "--images", "{data}")
CASES = {
    case.name: case
    for case in (
        Case(
            "memory", CLASSIFICATION, MNIST, epochs=4, steps=10,
            losing=("--imbalance", "1e6"), lost=("--imbalance 1e+06", "no training image"),
        ),
        Case(
            "files", CLASSIFICATION, small_images.small_run("cdb-s", "--data", "{data}"),
            epochs=3, steps=4, write_data=small_images.write_images,
            lose_a_class=_lose_one_of_a_list, lost=("train.txt", "class"),
        ),
        Case(
            "oltr", CLASSIFICATION, small_images.small_run("oltr", "--data", "{data}"),
            epochs=3, steps=4, before=2 * 4, write_data=small_images.write_images,
            lose_a_class=_lose_one_of_a_list, lost=("train.txt", "class"),
        ),
        Case(
            "scenes", DETECTION,
            (*detection_runs.options("cdb-w-ce", difficulty="proposals", tau=2), *SCENES),
            epochs=2, steps=detection_runs.STEPS, write_data=detection_runs.write_lvis,
            diverging=("--gradient-clip", "1e30"),
            written=("config.json", "checkpoint.pt", "pictures.png", "weights.pt", "record.json"),
        ),
        Case(
            "clips", VIDEO, (*CLIPS, "--data", "{data}"),
            epochs=3, steps=video_set.STEPS, write_data=video_set.write_set,
            lose_a_class=_add_a_verb, lost=("no clip of the verb Fly", "without a training clip"),
        ),
    )
}  # fmt: skip


@contextmanager
def small_data() -> Iterator[None]:
    """What the fork server puts in place of large data and networks, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        fork_server.use_small_data(patch.setattr)
        yield


def begin(case: Case, data: Path, first: Weights | None, *more: str) -> Training[Any]:
    """The case's run at its first step, in this process."""
    arguments = case.task.resolve(case.task.parse([*case.line(data), *more]))
    training: Training[Any] = case.task.begin(arguments, CPU, first)
    return training


def first_weights(case: Case, data: Path, out: Path) -> Weights | None:
    """Those of the first stage of the case's run below ``out``, which has finished."""
    arguments = case.task.resolve(case.task.parse([*case.line(data), "--out", str(out)]))
    first = case.task.first_stage(arguments)
    if first is None:
        return None
    weights: Weights = load_tensors(case.task.folder(first) / "weights.pt")["last"]
    return weights


def copied(case: Case, data: Path, to: Path) -> Path:
    """The data of a case, to be spoiled."""
    return Path(shutil.copytree(data, to)) if case.write_data is not None else data
