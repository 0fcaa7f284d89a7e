"""Batches read ahead by worker processes that outlive a request to stop."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from common.errors import UserError
from common.training.signals import StopRequest, end_with_parent

Item = TypeVar("Item")
Batch = TypeVar("Batch")

POLL_SECONDS: Final = 1.0  # how often a wait for a batch looks up
STOP_SECONDS: Final = 30.0  # how long it goes on after a request to stop; torchrun waits no longer

_NO_ROOM: Final = (
    "Batches cannot be passed on by the --workers ({reason}): a batch goes through shared memory, "
    "of which there is too little, or through an open file for each of its parts. Give "
    "--workers 0, or a --cache where there is one, or make /dev/shm larger (a container's "
    "--shm-size) or 'ulimit -n' higher; then start the same command again: it continues."
)
_LOST: Final = (
    "A process that reads data has ended before its time ({reason}); the machine's memory may be "
    "too small. Give fewer --workers, or a smaller batch, then start the same command again: with "
    "fewer --workers it continues."
)


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


class _NotPassedError(UserError):
    """A batch does not come from its worker; the worker's end, if it has ended, says more."""


_LATE: Final = object()


class _Workers:
    """Ends at the exit of this process the workers that are left, which hear no other request."""

    def __init__(self) -> None:
        self._of: dict[int, list[BaseProcess]] = {}
        self._waiting = False
        self._raises: Callable[[int, FrameType | None], Any] | None = None
        atexit.register(self._end)

    def start(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The loader's batches; its workers are deaf to requests to stop.

        Of a :class:`UserError` in the place of a batch nothing follows.
        """
        before = multiprocessing.active_children()
        try:
            with _signals_held():
                batches = iter(loader)
        except OSError as error:  # No room for a semaphore, or no more processes.
            return iter([UserError(_NO_ROOM.format(reason=error.strerror or error))])
        new = [process for process in multiprocessing.active_children() if process not in before]
        left = [process for process in self._of.get(os.getpid(), []) if process.is_alive()]
        self._of = {os.getpid(): left + new}
        self._take_over()
        return self._awaited(batches, new)

    def _awaited(self, batches: Iterator[Any], workers: list[BaseProcess]) -> Iterator[Any]:
        """Each batch in turn; in the place of one that will never come, the reason."""
        began = time.monotonic()
        while True:
            self._waiting = True
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if str(error).startswith("DataLoader timed out"):
                    batch = _LATE
                elif str(error).startswith(("DataLoader worker", "Too many open files")):
                    batch = _NotPassedError(_LOST.format(reason=error))
                else:
                    raise
            finally:
                self._waiting = False
            if batch is _LATE:
                _end_if_asked(began)
                continue
            if isinstance(batch, _Packed):
                batch = batch.unpacked()
            yield _reason(workers) or batch if isinstance(batch, _NotPassedError) else batch
            began = time.monotonic()

    def _take_over(self) -> None:
        """Let the death of a worker raise only where a batch is waited for.

        torch's handler of SIGCHLD raises wherever the main process is: in a step or a checkpoint.
        """
        handler = signal.getsignal(signal.SIGCHLD)
        ours = threading.current_thread() is threading.main_thread()
        if ours and callable(handler) and handler != self._child_ended:
            self._raises = handler
            signal.signal(signal.SIGCHLD, self._child_ended)

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        if self._waiting and self._raises is not None:
            self._raises(number, frame)

    def _end(self) -> None:
        # By its process: after a fork they are not the child's.
        if left := self._of.get(os.getpid()):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises when a worker is killed
            for process in left:
                process.kill()


_workers = _Workers()


def _reason(workers: list[BaseProcess]) -> UserError | None:
    """What has ended a worker; None if none has ended by itself."""
    code = next((process.exitcode for process in workers if process.exitcode), 0)
    if code == 0:
        return None
    if code == -signal.SIGBUS:  # A file in memory had no room for what was written there.
        return UserError(_NO_ROOM.format(reason=signal.strsignal(-code)))
    return UserError(
        _LOST.format(reason=signal.strsignal(-code) if code < 0 else f"exit code {code}")
    )


def _end_if_asked(began: float) -> None:
    """End this process if it is asked to stop, but waits for a batch since ``began``."""
    stop = StopRequest.in_hand
    if stop is None or stop.came is None:
        return
    if time.monotonic() - max(began, stop.came_at) >= STOP_SECONDS:
        print(
            f"stopped, since no batch has come for {STOP_SECONDS:.0f} s; the same command goes on "
            "from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(128 + stop.came)


def _pinned(value: Any) -> Any:
    """``value`` with the tensors in its lists, tuples and dictionaries in page-locked memory."""
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {key: _pinned(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_pinned, value))
    return value


class _Packed:
    """A batch on its way from a worker: its tensors lie in shared memory already.

    Left to the worker's queue, a batch for which there is no room would be dropped by a thread of
    the queue, and waited for in vain.
    """

    def __init__(self, batch: Any) -> None:
        """Put the tensors into shared memory.

        Raises:
            RuntimeError: there is no room (torch).
            OSError: there is no file descriptor left.
        """
        self._bytes = bytes(ForkingPickler.dumps(batch))

    def unpacked(self) -> Any:
        """The batch, once; or why it cannot be had."""
        try:
            return ForkingPickler.loads(self._bytes)
        except (RuntimeError, OSError, EOFError) as error:
            return _NotPassedError(_NO_ROOM.format(reason=error))

    def pin_memory(self) -> Any:
        """The batch in page-locked memory; called by a thread of torch's loader."""
        return _pinned(self.unpacked())


class _Together:
    """Makes a batch of items; the first error among them if there is one."""

    def __init__(self, together: Callable[[list[Any]], Any]) -> None:
        self._together = together

    def __call__(self, items: list[Any]) -> Any:
        errors = [item for item in items if isinstance(item, UserError)]
        if errors:
            return errors[0]
        batch = self._together(items)
        if get_worker_info() is None:
            return batch
        try:
            return _Packed(batch)
        except (RuntimeError, OSError) as error:
            return UserError(_NO_ROOM.format(reason=error))


def _end_with(parent: int, worker: int) -> None:
    """A worker does not outlive the run, whose lock it would hold.

    torch's look for the parent now and then, but not where it has died before their first look.
    """
    end_with_parent(parent, signal.SIGKILL)


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
        UserError: an item cannot be read, a batch cannot be passed on, or a worker was killed.
        SystemExit: no batch has come for :data:`STOP_SECONDS` after a request to stop.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=cast(Any, batches),
        num_workers=workers,
        collate_fn=_Together(together),
        pin_memory=torch.cuda.is_available(),
        timeout=POLL_SECONDS if workers else 0,
        worker_init_fn=partial(_end_with, os.getpid()),
        # Of the workers' seeds, which nothing uses; without it the global one would be drawn from.
        generator=torch.Generator(),
    )
    # Not in a variable, which an error's traceback would keep, and the workers with it.
    for batch in _workers.start(loader):
        if isinstance(batch, UserError):
            raise batch
        yield batch
