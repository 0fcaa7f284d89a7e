"""Learning-rate schedules as pure functions of the epoch."""

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
