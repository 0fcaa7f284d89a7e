"""What stands for CUDA where a step is captured on the CPU: a tape of torch's operations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from classification.capture import CapturedStep, tensors_of
from classification.training import Training

CPU = torch.device("cpu")


def tensors_among(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def memory(tensor: Tensor) -> int | None:
    """Where it lies; None: nowhere, as autograd's zeros that are never looked at."""
    return None if tensor._is_zerotensor() else tensor.untyped_storage().data_ptr()


class NothingWaits(TorchDispatchMode):
    """Fails where a GPU would have to be waited for: where a tensor's value or size is needed."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_to_cpu", "equal")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masked = name.startswith("index") and any(
            index.dtype in (torch.bool, torch.uint8) for index in tensors_among(args[1:2])
        )
        waits = masked or name.startswith(self.WAITING)
        assert not waits, f"{name} waits for the device"
        assert "generator" not in (kwargs or {}), f"{name} draws random numbers"
        return func(*args, **(kwargs or {}))


class Tape(NothingWaits):
    """Notes every operation with its tensors; :meth:`replay` repeats them on the same memory.

    As in a CUDA graph, whatever Python computed or decided while recording stays as it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.operations.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            known = {memory(tensor) for tensor in tensors_among((args, kwargs))} | {None}
            again = func(*args, **kwargs)
            for old, new in zip(tensors_among(result), tensors_among(again), strict=True):
                # A result within an argument (a view, or in place) is there already.
                if memory(old) not in known:
                    old.copy_(new)


def record_on_tape(state: Callable[[], Any]) -> Callable[[Any], Callable[[], Tensor]]:
    """In place of ``record_cuda_graph``: recording changes nothing that lasts, and has no result.

    The work itself has to be run to be noted; ``state()`` is put back afterwards.
    """

    def record(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        before = [(tensor, tensor.clone()) for tensor in tensors_of(state())]
        tape = Tape()
        with tape:
            result = work()
        with torch.no_grad():
            for tensor, value in [*before, (result, torch.tensor(torch.nan))]:
                tensor.copy_(value)

        def repeat() -> Tensor:
            tape.replay()
            return result

        return repeat

    return record


def at_once(work: Callable[[], object]) -> None:
    """In place of ``on_side_stream``."""
    work()


def captured(run: Training) -> Training:
    """The run with its step on tape, as it is in a graph on a GPU."""
    state = run._changed_by_a_step
    run.step = run.captured = CapturedStep(
        run.train_step, state, CPU, record=record_on_tape(state), warm_up=at_once
    )
    return run
