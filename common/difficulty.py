"""Class-wise performance and difficulty (Sec. 3.1, Eqs. 1-3).

Shapes: C classes, N samples, B batch. A class that was not measured is NaN throughout: it is not 0.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.distributed import all_reduce_sum


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside ``0 .. num_classes - 1``.

    Raises:
        ValueError: naming the first such label.
    """
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.numel():
        raise ValueError(
            f"label {int(wrong[0])} is outside 0..{num_classes - 1}; check the labels against the "
            "number of classes"
        )


def count_per_class(labels: Tensor, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Sum of ``weights`` (default: 1 a sample) for each class.

    An ``index_add_``: unlike ``bincount`` it does not make a CUDA device wait.

    Args:
        labels: integer class of each sample, shape (N,), 0..C-1.
        num_classes: C.
        weights: shape (N,), for instance 1 where the prediction is right.

    Returns:
        Shape (C,), float64.

    >>> count_per_class(torch.tensor([0, 2, 2]), num_classes=3)
    tensor([1., 0., 2.], dtype=torch.float64)
    """
    values = torch.ones_like(labels) if weights is None else weights
    counts = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
    return counts.index_add_(0, labels, values.to(torch.float64))


class ClassAccuracy:
    """Accuracy per class over the batches of a data set, the same on every rank (Eq. 1).

    >>> accuracy = ClassAccuracy(num_classes=3)
    >>> accuracy.add(predictions=torch.tensor([0, 1, 1]), labels=torch.tensor([0, 0, 1]))
    >>> accuracy.compute()
    tensor([0.5000, 1.0000,    nan], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        """Start with no sample counted.

        Args:
            num_classes: C.
            device: where predictions and labels live.
        """
        self.num_classes = num_classes
        self._counts = torch.zeros(2, num_classes, dtype=torch.float64, device=device)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: predicted class, shape (B,).
            labels: true class, shape (B,), 0..C-1.
        """
        # In place: a batch costs its B samples, however many classes there are.
        right = (predictions == labels).to(torch.float64)
        self._counts[0].index_add_(0, labels, right)
        self._counts[1].index_add_(0, labels, torch.ones_like(right))

    def compute(self) -> Tensor:
        """Accuracy per class over the samples of all ranks.

        Returns:
            A_c = m_c / M_c (Eq. 1), shape (C,), float64, in [0, 1]; NaN where M_c = 0.
        """
        correct, total = all_reduce_sum(self._counts)
        accuracy: Tensor = correct / total  # 0 / 0 is NaN: not measured
        return accuracy


def class_accuracy(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int
) -> Tensor:
    """Measure ``model``'s accuracy per class; its state is as before afterwards.

    The model is in evaluation mode meanwhile, so BatchNorm statistics do not move; every submodule
    then gets its own mode back. Under ``torch.distributed`` each rank passes its share of the
    samples, each sample on one rank, and all ranks get the accuracy over all of them.

    Args:
        model: maps images (B, ...) to logits (B, C).
        batches: pairs of images (B, ...) and labels (B,) on the model's device.
        num_classes: C.

    Returns:
        Shape (C,), float64, in [0, 1], NaN where a class has no sample.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    accuracy = ClassAccuracy(num_classes, device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            for images, labels in batches:
                accuracy.add(model(images).argmax(dim=1), labels)
    finally:
        for module, mode in modes:
            module.training = mode
    return accuracy.compute()


def check_performance(performance: Tensor) -> None:
    """Refuse a performance outside [0, 1]; NaN (not measured) is allowed.

    Raises:
        ValueError: naming the first such class.
    """
    wrong = ((performance < 0) | (performance > 1)).nonzero()
    if wrong.numel():
        c = int(wrong[0])
        raise ValueError(
            f"performance {float(performance[c])} of class {c} is outside [0, 1]; for a measure "
            "where lower is better use performance_from_error"
        )


def performance_from_error(error: Tensor, best: float, worst: float) -> Tensor:
    """Turn a measure where lower is better into a performance in [0, 1] (Sec. 3.1).

    performance = (worst - error) / (worst - best), cut to [0, 1].

    Args:
        error: per class, shape (C,), any unit; NaN where not measured.
        best: the error of a perfect model, performance 1.
        worst: the error from which on the performance is 0; worst > best, both finite.

    Returns:
        Shape (C,), in [0, 1], NaN where ``error`` is.

    Raises:
        ValueError: unless worst > best and both are finite.

    >>> performance_from_error(torch.tensor([0.0, 5.0, 30.0]), best=0.0, worst=20.0)
    tensor([1.0000, 0.7500, 0.0000])
    """
    if not 0 < worst - best < math.inf:
        raise ValueError(f"worst ({worst}) must be greater than best ({best}), both finite")
    return ((worst - error) / (worst - best)).clamp(0.0, 1.0)


def difficulty_from_performance(performance: Tensor, previous: Tensor) -> Tensor:
    """Difficulty of each class (Eqs. 2 and 3).

    Args:
        performance: A_c, shape (C,), in [0, 1], higher is better; NaN where not measured.
        previous: last difficulty, shape (C,): what a class that was not measured keeps.

    Returns:
        d_c = 1 - A_c, shape (C,), in [0, 1].

    Raises:
        ValueError: for a performance outside [0, 1].

    >>> difficulty_from_performance(torch.tensor([0.75, float("nan")]), torch.ones(2))
    tensor([0.2500, 1.0000])
    """
    check_performance(performance)
    # d_c = 1 - A_c
    return torch.where(performance.isnan(), previous, 1.0 - performance)
