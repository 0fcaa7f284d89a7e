"""The processes that torchrun starts for one run, and what becomes of the others when one ends."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from common.distributed import is_first_rank
from common.errors import UserError
from common.terminal import printable
from common.training.signals import end_with_parent


def local_rank() -> int:
    """Number of this process among those of torchrun on this machine, 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_of_another_process(error: BaseException) -> bool:
    """Whether an error only says that another rank has ended before its time."""
    return isinstance(error, RuntimeError) and "closed by peer" in str(error)


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu or cuda; under torchrun each rank has a GPU of its own.

    Raises:
        UserError: when there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu.")
    if name == "cpu" or not torch.cuda.is_available():
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if name == "auto" and processes > 1 and local_rank() == 0:
            print(
                f"no CUDA device is available: the {processes} processes of this run train on the "
                "CPU",
                file=sys.stderr,
            )
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"torchrun started {local_rank() + 1} or more processes here, but there are "
            f"{torch.cuda.device_count()} GPUs; give it --nproc-per-node "
            f"{torch.cuda.device_count()}, or use --device cpu."
        )
    if local_rank():
        torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank()) if local_rank() else torch.device("cuda")


_members = 0
"""Runs of this process that are within :func:`process_group`."""


def _find_meeting_point() -> None:
    """Refuse to wait for a torchrun that has died before this process could notice.

    Raises:
        UserError: what torchrun had opened before it started its processes is no longer there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # The first rank opens it.
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(place, timeout=60).close()
    except OSError as error:
        raise UserError(
            "torchrun has ended before its processes had met; start the same command again."
        ) from error


def _join(device: torch.device) -> None:
    # torchrun cannot end its processes when it is killed itself: they would train on beside the
    # run's next start, or wait for each other at the meeting point, which was torchrun's.
    end_with_parent(os.getppid(), signal.SIGTERM)
    _find_meeting_point()
    # Both: numbers of the model are reduced where they are, a stop request on the CPU. The first
    # rank may wait long, for another process's lock or for frames that others decode.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(days=1))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started with this one; alone it does nothing.

    Of several runs of this process the first joins, the last leaves.

    Args:
        device: where this process trains.

    Raises:
        UserError: when another process has ended before its time.
    """
    global _members
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or (dist.is_initialized() and not _members):
        yield
        return
    if not _members:
        _join(device)
    _members += 1
    try:
        yield
    except RuntimeError as error:
        if not is_of_another_process(error):
            raise
        raise UserError(
            "another process of this run has ended; what it said is the cause."
        ) from error
    finally:
        _members -= 1
        if not _members:
            dist.destroy_process_group()


def say(words: str) -> None:
    """Print one line, from one process of a run."""
    if is_first_rank():
        print(printable(words), flush=True)
