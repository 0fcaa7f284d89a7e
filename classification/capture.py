"""Training steps as CUDA graphs: one launch a step in place of hundreds.

A graph reads its inputs from fixed buffers and repeats the very kernels that were recorded, so
whatever changes from step to step (samples, learning rate, class weights) must be in tensors that
are changed in place, and nothing in a step may wait for the device.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
Step = Callable[[Inputs], Tensor]
Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""A function without arguments -> one that repeats its work into the same result tensor."""

_WARM_UP_STEPS = 3


def tensors_of(state: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists and tuples."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors_of(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors_of(value)


@torch.no_grad()
def run_and_undo(work: Callable[[], object], state: Callable[[], Any]) -> None:
    """Run ``work``, then put every tensor of ``state()`` back as it was.

    Warming up changes weights, momentum and the running statistics of batch normalisation. A
    tensor that ``work`` has made (momentum, in the first step) is set to 0, its value before.
    """
    # The tensors themselves are kept, so that no new one can come to lie at their address.
    before = {tensor.data_ptr(): (tensor, tensor.clone()) for tensor in tensors_of(state())}
    with torch.enable_grad():
        work()
    for tensor in tensors_of(state()):
        if tensor.data_ptr() in before:
            tensor.copy_(before[tensor.data_ptr()][1])
        else:
            tensor.zero_()


def record_cuda_graph(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record ``work`` on the current CUDA device; nothing is executed yet."""
    graph = torch.cuda.CUDAGraph()
    # Of this thread alone: another may be pinning the images that it reads ahead.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()

    def repeat() -> Tensor:
        graph.replay()
        return result

    return repeat


def on_side_stream(work: Callable[[], object]) -> None:
    """Run ``work`` on another stream than the usual one, as recording needs its warm-up to be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


@dataclass
class _Recorded:
    inputs: Inputs
    repeat: Callable[[], Tensor]


class CapturedStep:
    """A step that is recorded once for each batch size and repeated from then on.

    The last, smaller batch of an epoch has a recording of its own: filling it up would change the
    statistics of batch normalisation.
    """

    def __init__(
        self,
        step: Step,
        state: Callable[[], Any],
        device: torch.device,
        *,
        record: Record = record_cuda_graph,
        warm_up: Callable[[Callable[[], object]], None] = on_side_stream,
    ) -> None:
        """Remember what to record.

        Args:
            step: one update; changes nothing but tensors of ``state()``.
            state: gives the live tensors (not copies) that a step changes.
            device: of the step's inputs.
            record: makes the recording.
            warm_up: runs the steps before it.
        """
        self._step, self._state, self._device = step, state, device
        self._record, self._warm_up = record, warm_up
        self._recorded: dict[tuple[tuple[str, torch.Size], ...], _Recorded] = {}

    def __call__(self, inputs: Inputs) -> Tensor:
        """Carry out one step; its result is overwritten by the next one of the same size."""
        shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
        if shapes not in self._recorded:
            self._recorded[shapes] = self._make(inputs)
        recorded = self._recorded[shapes]
        for name, tensor in inputs.items():
            recorded.inputs[name].copy_(tensor, non_blocking=True)
        return recorded.repeat()

    def forget(self) -> None:
        """Drop the recordings: the tensors of ``state()`` have been replaced by others."""
        self._recorded.clear()

    def _make(self, inputs: Inputs) -> _Recorded:
        fixed = {name: tensor.to(self._device, copy=True) for name, tensor in inputs.items()}

        def some_steps() -> None:
            for _ in range(_WARM_UP_STEPS):
                self._step(fixed)

        run_and_undo(lambda: self._warm_up(some_steps), self._state)
        return _Recorded(fixed, self._record(lambda: self._step(fixed)))
