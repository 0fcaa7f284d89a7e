"""The few torch.distributed calls the core needs; without a process group they do nothing."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import UserError

Value = TypeVar("Value")

_PR_SET_PDEATHSIG = 1  # of Linux' prctl


def is_distributed() -> bool:
    """Whether a process group of two or more ranks is running."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Rank of this process, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def is_first_rank() -> bool:
    """Whether this process is the one that writes and shows."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process among those of torchrun on this machine, 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_of_another_process(error: BaseException) -> bool:
    """Whether an error only says that another rank has ended before its time."""
    return isinstance(error, RuntimeError) and "closed by peer" in str(error)


def _end_with_parent() -> None:
    """Get SIGTERM when torchrun dies: it cannot end its processes when it is killed itself.

    Else they would train on beside the run's next start, or wait for each other at the meeting
    point, which was torchrun's.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started with this one; alone it does nothing.

    Args:
        device: where this process trains.

    Raises:
        UserError: when another process has ended before its time.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    _end_with_parent()
    # Both: numbers of the model are reduced where they are, a stop request on the CPU. The first
    # rank may wait long, for another process's lock or for frames that others decode.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield
    except RuntimeError as error:
        if not is_of_another_process(error):
            raise
        raise UserError(
            "another process of this run has ended; what it said is the cause."
        ) from error
    finally:
        dist.destroy_process_group()


def of_rank(values: Tensor) -> Tensor:
    """This rank's share of ``values`` (N, ...): every W-th, from its own number on; W ranks."""
    return values[rank() :: world_size()]


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum of ``values`` over the ranks, in a new tensor of the same shape; the same on each."""
    total = values.detach().clone()
    if is_distributed():
        dist.all_reduce(total)
    return total


def broadcast_from_first(values: Tensor) -> Tensor:
    """Rank 0's ``values``, in a new tensor of the same shape."""
    result = values.detach().clone()
    if is_distributed():
        dist.broadcast(result, src=0)
    return result


def gather_objects(value: Value) -> list[Value]:
    """What every rank gives, in the order of the ranks; the same list on each."""
    if not is_distributed():
        return [value]
    gathered: list[Value | None] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return cast(list[Value], gathered)
