"""Class-wise, shot-wise, head/tail and top-k measures.

Shapes: C classes, B batch. NaN is 'not measured', never 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .difficulty import Labels, as_labels, check_labels


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


def confusion_matrix(predictions: Labels, labels: Labels, num_classes: int) -> Tensor:
    """Count the samples of each pair of true and predicted class.

    An ``index_add_``: it does not make a CUDA device wait, so labels and predictions are checked
    on the CPU only; on a device keep them in range. Matrices of batches, and of the ranks of a
    process group, add up.

    Args:
        predictions: predicted class of each sample, shape (B,), 0..C-1.
        labels: true class of each sample, shape (B,), 0..C-1.
        num_classes: C.

    Returns:
        Shape (C, C), int64, rows true and columns predicted.

    Raises:
        ValueError: for a class outside 0..C-1, on the CPU.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    labels, predictions = as_labels(labels), as_labels(predictions)
    if labels.device.type == "cpu":
        check_labels(labels, num_classes)
        check_labels(predictions, num_classes)
    pairs = labels * num_classes + predictions
    counts = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=labels.device)
    return counts.index_add_(0, pairs, torch.ones_like(pairs)).view(num_classes, num_classes)


def class_recall(confusion: Tensor) -> Tensor:
    """Share of each class's samples that are predicted as it: its accuracy A_c (Eq. 1).

    Args:
        confusion: shape (C, C), rows true and columns predicted.

    Returns:
        Shape (C,), float64, in [0, 1]; NaN where a class has no sample.
    """
    recall: Tensor = confusion.diagonal().double() / confusion.sum(dim=1)  # 0 / 0 is NaN
    return recall


def class_precision(confusion: Tensor) -> Tensor:
    """Share of the predictions of each class that are right.

    A class that has samples but is never predicted has precision 0, as scikit-learn's with
    ``zero_division=0``. A class without a sample is not measured, predicted or not: so the mean of
    precision is over the same classes as that of recall, and is scikit-learn's with ``labels`` the
    classes that have samples.

    Args:
        confusion: shape (C, C), rows true and columns predicted.

    Returns:
        Shape (C,), float64, in [0, 1]; NaN where a class has no sample.
    """
    predicted = confusion.sum(dim=0)
    # The diagonal is 0 where nothing is predicted: 0 / 1 = 0.
    precision = confusion.diagonal().double() / predicted.clamp(min=1)
    return precision.masked_fill(confusion.sum(dim=1) == 0, math.nan)


def macro_average(values: Tensor, classes: Sequence[int] | None = None) -> float:
    """Mean over the measured classes, each class counting alike; NaN when there is none.

    Args:
        values: precision or recall, shape (C,), NaN where not measured.
        classes: indices of the classes to average over, for instance the head; None: all.
    """
    if classes is None:
        return float(values.nanmean())
    return float(values[torch.as_tensor(classes, dtype=torch.int64)].nanmean())


def top_k_correct(logits: Tensor, labels: Labels, k: int) -> Tensor:
    """Whether the true class is among the k classes of the largest logits.

    With fewer than k classes it always is. Among equal logits at the k-th place the choice is
    ``torch.topk``'s.

    Args:
        logits: shape (B, C).
        labels: true class, shape (B,), 0..C-1.
        k: at least 1.

    Returns:
        Shape (B,), bool.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == as_labels(labels, logits.device).unsqueeze(1)).any(dim=1)
