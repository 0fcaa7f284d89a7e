"""torchvision's random numbers, drawn from a run's own stream.

torchvision's layers draw their weights, and its proposal samplers their proposals
(``torch.randperm``), from torch's global generators. Here these start, for as long as a block
lasts, from one seed of a given generator, and are as before afterwards: nobody else's numbers
change, and a checkpoint holds all there is to know, the generator's state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.distributed import rank
from common.streams import stream_seed

_SEEDS = 2**63 - 1


def _cuda_indices(device: torch.device) -> list[int]:
    """The CUDA device whose generator can be drawn from; none when ``device`` is the CPU."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


@contextmanager
def global_draws_from(
    generator: torch.Generator, device: torch.device | str = "cpu", *, per_rank: bool = False
) -> Iterator[None]:
    """Let the global generators of the CPU and of ``device`` start from ``generator``'s next seed.

    A training step is drawn from the run's stream so::

        with global_draws_from(streams["proposals"], device, per_rank=True):
            losses = model(images, targets)

    Args:
        generator: a CPU generator; one number is taken from it, however many the block draws.
        device: where the model is.
        per_rank: other numbers on each rank, though their generators stay equal, so that the
            state that the first rank saves resumes them all. False: the same, as for weights.
    """
    seed = int(torch.randint(_SEEDS, (), generator=generator))
    if per_rank:
        seed = stream_seed(seed, f"rank {rank()}")
    indices = _cuda_indices(torch.device(device))
    with torch.random.fork_rng(devices=indices):
        # Not torch.manual_seed: it would seed every device, and only these are put back.
        torch.default_generator.manual_seed(seed)
        for index in indices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
