"""Batches read ahead by worker processes that outlive a request to stop."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from common.errors import UserError

Item = TypeVar("Item")
Batch = TypeVar("Batch")


@contextmanager
def _signals_held() -> Iterator[None]:
    """What comes inside is delivered afterwards; processes started inside never see it.

    torchrun, Slurm and a terminal send SIGTERM or SIGINT to every process of a run. A worker that
    died of it would take along the step that the main process finishes before its checkpoint.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Workers:
    """Ends at the exit of this process the workers that are left, which hear no other request."""

    def __init__(self) -> None:
        self._of: dict[int, list[BaseProcess]] = {}
        atexit.register(self._end)

    def start(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The loader's batches; its workers are deaf to requests to stop."""
        before = multiprocessing.active_children()
        with _signals_held():
            batches = iter(loader)
        new = [process for process in multiprocessing.active_children() if process not in before]
        left = [process for process in self._of.get(os.getpid(), []) if process.is_alive()]
        self._of = {os.getpid(): left + new}
        return batches

    def _end(self) -> None:
        # By its process: after a fork they are not the child's.
        if left := self._of.get(os.getpid()):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises when a worker is killed
            for process in left:
                process.kill()


_workers = _Workers()


class _Together:
    """Makes a batch of items; the first error among them if there is one."""

    def __init__(self, together: Callable[[list[Any]], Any]) -> None:
        self._together = together

    def __call__(self, items: list[Any]) -> Any:
        errors = [item for item in items if isinstance(item, UserError)]
        return errors[0] if errors else self._together(items)


def read_batches(
    dataset: Dataset[Item | UserError],
    batches: Sequence[Sequence[Any]],
    workers: int,
    together: Callable[[list[Item]], Batch],
) -> Iterator[Batch]:
    """The items of each batch in turn, made into one.

    Args:
        dataset: gives an item for each entry of ``batches``, or the error that it met.
        batches: what to ask of the data set, batch by batch.
        workers: processes that read ahead; 0: this one reads. They end after the last batch or
            with this process; SIGTERM and SIGINT do not reach them.
        together: makes a batch of items, in the worker.

    Raises:
        UserError: an item cannot be read.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=cast(Any, batches),
        num_workers=workers,
        collate_fn=_Together(together),
        pin_memory=torch.cuda.is_available(),
        # Of the workers' seeds, which nothing uses; without it the global one would be drawn from.
        generator=torch.Generator(),
    )
    # Not in a variable, which an error's traceback would keep, and the workers with it.
    for batch in _workers.start(loader):
        if isinstance(batch, UserError):
            raise batch
        yield batch
