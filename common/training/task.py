"""What a task tells the skeleton: its recipes, its data and networks, what it measures at the end.

A run's course, from its folder to its record, is :mod:`common.training.run`'s, once for all tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch

from common.training.arguments import RunArguments, parse_command_line
from common.training.loop import Training, Weights
from common.training.settings import RunConfig, as_today

Arguments = TypeVar("Arguments", bound=RunArguments)
Config = TypeVar("Config", bound=RunConfig)
Trained = TypeVar("Trained", bound=Training[Any])


@dataclass(frozen=True)
class Results:
    """What a finished run leaves besides its history."""

    weights: Mapping[str, Weights]
    """By epoch: 'last', and 'best' where a task keeps it."""
    metrics: Mapping[str, Any]
    """Likewise, as the task's schema has them."""
    split: Mapping[str, Any]
    """The record's."""
    condition: str
    """The record's."""
    summary: str
    """The result in a few words, for a person."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the record's provenance, besides what the environment tells."""


class Task(ABC, Generic[Arguments, Config, Trained]):
    """One kind of experiment; its package has a ``train.py`` whose ``TASK`` is one of these."""

    name: str
    """The package's, and the record's ``task``."""
    recipes: Mapping[str, RunConfig]
    """By the name that a command line begins with."""
    arguments: type[Arguments]
    """What a command line becomes."""
    schema: Mapping[str, Any]
    """Of its records."""

    def parse(self, words: Sequence[str]) -> Arguments:
        """Arguments from a command line, see :func:`parse_command_line`; not yet resolved."""
        return parse_command_line(words, f"{self.name}.train", self.recipes, self.arguments)

    def as_today(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings of a run's folder, perhaps of an older version, as they are written now."""
        return as_today(settings, self.recipes)

    def folder_of(self, words: Sequence[str]) -> Path:
        """The folder of a command line's run, there or not yet.

        Raises:
            UserError: when the settings contradict each other, or lists cannot be read.
        """
        return self.folder(self.resolve(self.parse(words)))

    def resolve(self, arguments: Arguments) -> Arguments:
        """Fill in every 'None: as ...'; refuse what has no effect.

        Raises:
            UserError: naming the option.
        """
        return arguments.resolved()

    def folder(self, arguments: Arguments) -> Path:
        """The folder of a resolved run."""
        group, name = self.group_and_run(cast(Config, arguments.config))
        return arguments.out / (arguments.group or group) / name

    @abstractmethod
    def group_and_run(self, config: Config) -> tuple[str, str]:
        """Of a resolved run the usual name of its experiment's folder, and its own name."""

    def first_stage(self, arguments: Arguments) -> Arguments | None:
        """Of a second stage the resolved run that it goes on from; None: it is no second stage."""
        return arguments.first_stage()

    @abstractmethod
    def begin(self, arguments: Arguments, device: torch.device, first: Weights | None) -> Trained:
        """The run at its first step; says what data it has.

        Args:
            arguments: resolved.
            device: where to train.
            first: the last weights of :meth:`first_stage`'s run.

        Raises:
            UserError: when data, weights or a setting does not allow it.
            ForeignWeightsError: ``first`` is another network's.
            ValueError: when the data cannot be trained on.
        """

    @abstractmethod
    def results(self, training: Trained, arguments: Arguments, folder: Path) -> Results:
        """Test a run after its last epoch; every rank takes part.

        Args:
            training: after its last epoch.
            arguments: resolved.
            folder: of the run, for what is no tensor and no number.
        """
