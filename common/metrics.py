"""Class-wise and shot-wise accuracy. Shapes: C classes. NaN is 'not measured', never 0."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ShotGroups:
    """Classes by their number of training samples (Sec. 4.1.6): masks of shape (C,), bool."""

    many: Tensor
    """More than 100 samples."""
    medium: Tensor
    """21 to 100 samples."""
    few: Tensor
    """At most 20 samples."""

    def items(self) -> list[tuple[str, Tensor]]:
        """Name and mask of each group."""
        return [("many", self.many), ("medium", self.medium), ("few", self.few)]


def shot_groups(class_counts: Tensor) -> ShotGroups:
    """Split classes into many- (> 100), medium- (21..100) and few-shot (<= 20).

    Args:
        class_counts: n_c in the training set, shape (C,).
    """
    return ShotGroups(
        many=class_counts > 100,
        medium=(class_counts > 20) & (class_counts <= 100),
        few=class_counts <= 20,
    )


def balanced_accuracy(class_accuracy: Tensor) -> float:
    """Mean accuracy over the measured classes, in [0, 1]; NaN when there is none.

    Args:
        class_accuracy: shape (C,), NaN where not measured.
    """
    return float(class_accuracy.nanmean())


def shot_accuracy(class_accuracy: Tensor, class_counts: Tensor) -> dict[str, float]:
    """Mean accuracy of each shot group; a group without a measured class is absent.

    Args:
        class_accuracy: shape (C,), in [0, 1], NaN where not measured.
        class_counts: training samples n_c, shape (C,).

    >>> shot_accuracy(torch.tensor([0.75, 0.25]), torch.tensor([4950, 50]))
    {'many': 0.75, 'medium': 0.25}
    """
    measured = ~class_accuracy.isnan()
    return {
        name: float(class_accuracy[mask & measured].mean())
        for name, mask in shot_groups(class_counts).items()
        if bool((mask & measured).any())
    }


def error_percent(class_accuracy: Tensor, class_counts: Tensor) -> float:
    """Classification error over all samples, in percent.

    Args:
        class_accuracy: shape (C,), in [0, 1], NaN where a class has no sample.
        class_counts: samples of each class in the evaluated set, shape (C,).
    """
    counts = class_counts.to(torch.float64)
    correct = torch.where(counts > 0, class_accuracy * counts, 0.0).sum()
    return float(100.0 * (1.0 - correct / counts.sum()))
