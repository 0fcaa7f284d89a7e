"""Learning-rate schedules as pure functions of the epoch."""

import math
from collections.abc import Sequence


def step_schedule(
    highest: float,
    epoch: int,
    progress: float,
    *,
    warmup_epochs: float,
    milestones: Sequence[int],
    decay: float,
) -> float:
    """Linear warm-up by the step, then times ``decay`` after each milestone (Cui et al. 2019).

    Args:
        highest: the learning rate between warm-up and first milestone, > 0.
        epoch: complete epochs, from 0.
        progress: share of the epoch under way that is done after this step, in (0, 1].
        warmup_epochs: length of the warm-up, >= 0.
        milestones: numbers of complete epochs.
        decay: factor, in (0, 1].

    Returns:
        The learning rate of the step, > 0.

    >>> [round(step_schedule(0.1, e, 1.0, warmup_epochs=5, milestones=(160, 180), decay=0.1), 6)
    ...  for e in (0, 4, 159, 160)]
    [0.02, 0.1, 0.1, 0.01]
    """
    passed = sum(epoch >= milestone for milestone in milestones)
    warm = min(1.0, (epoch + progress) / warmup_epochs) if warmup_epochs else 1.0
    return highest * warm * decay**passed


def cosine_schedule(highest: float, epoch: int, progress: float, *, epochs: int) -> float:
    """Half a cosine from ``highest`` to 0, step by step (Loshchilov and Hutter 2017, no restart).

    Args:
        highest: the learning rate at the very start, > 0.
        epoch: complete epochs, from 0.
        progress: share of the epoch under way that is done after this step, in (0, 1].
        epochs: of the whole run.

    Returns:
        The learning rate of the step, >= 0; 0 in the last one.

    >>> [round(cosine_schedule(0.2, e, 1.0, epochs=100), 6) for e in (0, 49, 99)]
    [0.199951, 0.1, 0.0]
    """
    return highest * (1 + math.cos(math.pi * (epoch + progress) / epochs)) / 2
