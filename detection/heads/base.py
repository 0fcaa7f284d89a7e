"""What every classification head offers an engine, and what the heads share.

Shapes: R proposals, C categories, L logits a proposal. A label is the index 0..C-1 of a category,
or C for background.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from common.distributed import rank
from common.streams import stream_seed


class ClassificationHead(nn.Module, ABC):
    """Turns the logits of proposals into a loss and into scores; holds no layer of its own.

    An engine makes a layer of ``num_logits`` outputs and asks nothing else of a head, so that each
    head is the same in every engine. Nothing here waits for the device.

    Attributes:
        num_classes: C.
        num_logits: L.
        first_bias: what each bias of a new layer begins with.
        keeps_class_layer: as a second stage ('-clc') it goes on from the first stage's class layer,
            in place of a new one.
    """

    first_bias: float = 0.0
    keeps_class_layer: bool = False

    def __init__(self, num_classes: int, num_logits: int) -> None:
        """Name the sizes.

        Args:
            num_classes: C, at least 1.
            num_logits: L.

        Raises:
            ValueError: for no category.
        """
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a head needs at least 1 category, not {num_classes}")
        self.num_classes = num_classes
        self.num_logits = num_logits

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """0-d loss from logits (R, L) and labels (R,), 0..C; without proposals 0."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores of the categories, (R, C), in [0, 1], from logits (R, L)."""


def full_precision(logits: Tensor) -> Tensor:
    """Logits as at least float32: sums over a thousand categories need more than 16 bits."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check_category_values(values: Tensor, num_classes: int, what: str) -> None:
    """Refuse anything but one value >= 0 a category.

    Raises:
        ValueError: for another shape than (C,), or a negative value or NaN.
    """
    if values.shape != (num_classes,):
        raise ValueError(
            f"expected {what} of {num_classes} categories, got a tensor of shape "
            f"{tuple(values.shape)}"
        )
    if not bool((values >= 0).all()):
        raise ValueError(f"{what} must be at least 0 for every category")


def check_cpu(generator: torch.Generator) -> None:
    """Refuse a generator that is not on the CPU.

    Raises:
        ValueError: for a generator of another device.
    """
    if generator.device.type != "cpu":
        raise ValueError(f"the generator must be on the CPU, not on {generator.device}")


def step_draws(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform numbers of one step, of any shape, in [0, 1), on the CPU; other ones on each rank.

    One number of ``generator`` is used up whatever the shape. The number of proposals differs from
    rank to rank, but so the generators of the ranks stay equal, and the state that the first rank
    saves resumes them all.

    Args:
        generator: a CPU generator of the caller's own.
        *shape: the shape.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    of_rank = torch.Generator().manual_seed(stream_seed(seed, f"rank {rank()}"))
    return torch.rand(shape, generator=of_rank)


def keep_at_most(candidates: Tensor, limit: Tensor, draws: Tensor) -> Tensor:
    """Keep a random ``limit`` of the candidates, all where there are fewer; a column at a time.

    Args:
        candidates: shape (R, G), bool.
        limit: shape (G,).
        draws: shape (R, G): the candidates with the smallest are kept.

    Returns:
        Shape (R, G), bool.
    """
    order = draws.masked_fill(~candidates, torch.inf).argsort(dim=0, stable=True)
    places = torch.arange(len(draws), device=draws.device)[:, None].expand_as(order)
    place = torch.empty_like(order).scatter_(0, order, places)
    return candidates & (place < limit)
