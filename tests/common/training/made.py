"""A made-up task of points on a line: a run of it takes milliseconds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from common.streams import Streams
from common.training import loop
from common.training.arguments import RunArguments
from common.training.folder import ForeignWeightsError
from common.training.history import History
from common.training.loop import Weights
from common.training.methods import LOGIT_METHODS, LogitConfig, UsualSettings
from common.training.methods.base import LogitMethod
from common.training.record import last_and_best, register_schema, task_schema
from common.training.settings import (
    BATCH_SIZE,
    DATASET,
    EPOCHS,
    LEARNING_RATE,
    Setting,
    resolved,
)
from common.training.task import Results, Task

COUNTS = torch.tensor([6, 4, 2])
STEPS = 3


@dataclass(frozen=True)
class Labelled:
    """The labels of a set."""

    labels: Tensor


@dataclass(frozen=True)
class MadeData:
    """What a method of logits knows of data: training samples in the order of their classes."""

    train_counts: Tensor

    @property
    def train(self) -> Labelled:
        """The training set."""
        return Labelled(torch.arange(self.num_classes).repeat_interleave(self.train_counts))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.train_counts)

    @property
    def description(self) -> dict[str, Any]:
        """Difficulty is measured on as many samples."""
        return {"difficulty": self.train_counts.tolist()}


@dataclass(frozen=True, kw_only=True)
class MadeConfig(UsualSettings, LogitConfig):
    """Three epochs of three steps."""

    dataset: Annotated[str, DATASET] = "made"
    epochs: Annotated[int, EPOCHS] = 3
    batch_size: Annotated[int, BATCH_SIZE] = 4
    learning_rate: Annotated[float, LEARNING_RATE] = 0.1
    first: Annotated[int, Setting("Epochs of a first stage; 0: none.")] = 0


Batch = dict[str, Tensor]


class Training(loop.Training[Batch]):
    """A linear classifier of points."""

    method: LogitMethod

    def __init__(self, config: MadeConfig, first: Weights | None = None) -> None:
        """Start at epoch 0, with a first stage's weights if there are any."""
        streams = Streams(config.seed)
        data = MadeData(COUNTS)
        self.labels = data.train.labels
        self.points = torch.randn(12, 2, generator=streams["points"]) + self.labels[:, None]
        model = nn.utils.skip_init(nn.Linear, 2, 3)
        nn.init.normal_(model.weight, generator=streams["model"])
        nn.init.zeros_(model.bias)
        if first is not None:
            try:
                model.load_state_dict(first)
            except RuntimeError as error:
                raise ForeignWeightsError("another network's.") from error
        rate = torch.tensor(config.learning_rate)
        method = LOGIT_METHODS[config.method](config, data, streams, rate)
        super().__init__(config, model, method, streams, History(["a", "b", "c"], COUNTS))

    def draw_epoch(self) -> dict[str, Any]:
        """``order``: of the points."""
        return {"order": self.method.sampler.draw()}

    def count_steps(self, drawn: dict[str, Any]) -> int:
        """As many as the points fill."""
        return len(drawn["order"]) // self.config.batch_size

    def batches(self, drawn: dict[str, Any], first: int) -> Iterator[Batch]:
        """Points, labels and noise that each step draws."""
        for index in drawn["order"].split(self.config.batch_size)[first:]:
            noise = torch.randn(len(index), 2, generator=self.streams["noise"])
            yield {"points": self.points[index] + 0.1 * noise, "labels": self.labels[index]}

    def loss(self, batch: Batch) -> Tensor:
        """The loss of the method."""
        return self.method.batch_loss(self._trained, batch["points"], batch["labels"])

    def performance(self) -> Tensor:
        """Accuracy on the training points."""
        with torch.no_grad():
            right = self.model(self.points).argmax(dim=1) == self.labels
        return torch.stack([right[self.labels == c].double().mean() for c in range(3)])


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where it is carried out."""

    config: MadeConfig


class MadeTask(Task[Arguments, MadeConfig, Training]):
    """Keeps what it began, and calls ``look`` after each step."""

    name, recipes, arguments = "made", {"made": MadeConfig()}, Arguments
    schema = register_schema(task_schema("made", metrics=last_and_best({"type": "object"})))

    def __init__(self) -> None:
        """Nothing is watched."""
        self.begun: list[Training] = []
        self.look: Any = lambda run: None

    def resolve(self, arguments: Arguments) -> Arguments:
        """With its tau."""
        return replace(arguments, config=resolved(arguments.config))

    def group_and_run(self, config: MadeConfig) -> tuple[str, str]:
        """The run's name tells method and seed."""
        return "made", f"{config.method}_first-{config.first}_seed-{config.seed}"

    def first_stage(self, arguments: Arguments) -> Arguments | None:
        """Of ce."""
        config = arguments.config
        if not config.first:
            return None
        return replace(arguments, config=replace(config, epochs=config.first, first=0))

    def begin(self, arguments: Arguments, device: torch.device, first: Weights | None) -> Training:
        """The run at its first step."""
        if arguments.config.method == "focal":
            raise ValueError("no such loss")
        training = Training(arguments.config, first)
        step = training.step

        def watched(batch: Batch) -> Tensor:
            loss = step(batch)
            self.look(training)
            return loss

        training.step = watched
        self.begun.append(training)
        return training

    def results(self, training: Training, arguments: Arguments, folder: Path) -> Results:
        """Weights, and the epochs of the best and the last."""
        split = {"class_names": ["a", "b", "c"], "imbalance": 3.0, "digest": "0"}
        split |= dict.fromkeys(("train", "difficulty", "test"), COUNTS.tolist())
        return Results(
            training.history.evaluated_weights(training.model),
            training.history.measured(),
            split=split,
            condition="c",
            summary="tested",
            versions={"points": "12"},
        )
