"""The few torch.distributed calls the core needs; without a process group they do nothing."""

from typing import TypeVar, cast

import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


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
