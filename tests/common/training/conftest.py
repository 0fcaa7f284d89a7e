from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.classification.trainer import Trainer, fork_server


@dataclass(kw_only=True)
class AnyTrainer(Trainer):
    """Starts the runs of any task in processes that can be killed."""

    def command_line(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """The words themselves."""
        return arguments


@pytest.fixture(scope="session")
def trainer_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Any], AnyTrainer]]:
    """By a task its trainer; a server for each task is started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def trainer(task: Any) -> AnyTrainer:
            server = stack.enter_context(fork_server(task.name))
            return AnyTrainer(server=server, folder=tmp_path_factory.mktemp("trainer"), task=task)

        yield trainer


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """By a writer of tiny data where it has written."""

    @cache
    def data(write: Callable[[Path], Path] | None) -> Path:
        folder = tmp_path_factory.mktemp("data") / "set"
        return folder if write is None else write(folder)

    return data
