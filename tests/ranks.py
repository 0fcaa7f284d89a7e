"""Groups of processes on this machine that talk by gloo, in tests."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


@contextmanager
def group_of(number: int, ranks: int, meeting_point: Path) -> Iterator[None]:
    """This process is rank ``number``; ``meeting_point``: a file that is not there yet."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_point}",
        rank=number,
        world_size=ranks,
        timeout=timedelta(seconds=120),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def on_ranks(
    ranks: int,
    folder: Path,
    work: Callable[..., Any],
    *arguments: Any,
    before: Callable[[], object] | None = None,
) -> list[Any]:
    """What each rank's ``work(*arguments)`` gives: tensors and plain values.

    Args:
        ranks: processes.
        folder: an empty one, or one whose files have other names than ``0.pt`` and so on.
        work: a function of a module.
        arguments: of it.
        before: called by each process before it joins the others.
    """
    spawn(_be_rank, args=(ranks, folder, work, arguments, before), nprocs=ranks)
    return [torch.load(folder / f"{number}.pt") for number in range(ranks)]


def _be_rank(
    number: int,
    ranks: int,
    folder: Path,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    before: Callable[[], object] | None,
) -> None:
    torch.set_num_threads(1)
    # As under torchrun; a spawned process would start the workers of a loader by spawning too.
    multiprocessing.set_start_method("fork", force=True)
    if before is not None:
        before()
    with group_of(number, ranks, folder / "meeting-point"):
        torch.save(work(*arguments), folder / f"{number}.pt")
