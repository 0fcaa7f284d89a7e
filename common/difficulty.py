"""Class-wise performance and difficulty (Sec. 3.1, Eqs. 1-3).

Shapes: C classes, N samples, B batch. A class that was not measured is NaN throughout: it is not 0.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .distributed import all_reduce_sum

Labels: TypeAlias = Tensor | NDArray[np.integer[Any]] | Sequence[Any]
"""Class indices: a tensor or array of any integer type, or a (nested) list."""
CHECK_LABELS: Final = "check the labels against the number of classes"
LEFT_OUT: Final = f"{CHECK_LABELS}, or give the label of what is left out as ignore_index"
_ROUNDING = 1e-6


def as_labels(labels: Labels, device: torch.device | str = "cpu") -> Tensor:
    """Labels as torch indexes with them: a tensor, int64.

    Args:
        labels: class indices, any shape.
        device: where a list or an array goes; a tensor stays where it is.

    Raises:
        TypeError: for anything but integers.

    >>> as_labels([0, 2])
    tensor([0, 2])
    >>> as_labels(torch.tensor([0, 2], dtype=torch.uint8))
    tensor([0, 2])
    """
    if isinstance(labels, Tensor):
        if not (labels.is_floating_point() or labels.is_complex()):
            return labels.to(torch.int64)
        found, shape = str(labels.dtype).removeprefix("torch."), tuple(labels.shape)
    else:
        array = np.asarray(labels)
        if array.dtype.kind in "iub" or not array.size:
            return torch.from_numpy(array.astype(np.int64)).to(device)
        found, shape = str(array.dtype), array.shape
    raise TypeError(
        f"labels must be class indices, integers, not {found} of shape {shape}; where labels are "
        "mixed (mixup, CutMix) weight the loss of each of the two"
    )


def check_labels(labels: Labels, num_classes: int, remedy: str = CHECK_LABELS) -> None:
    """Refuse labels outside ``0 .. num_classes - 1``.

    Raises:
        ValueError: naming the first such label, and the ``remedy``.
    """
    labels = as_labels(labels)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.numel():
        raise ValueError(f"label {int(wrong[0])} is outside 0..{num_classes - 1}; {remedy}")


def _add_at(counts: Tensor, labels: Tensor, values: Tensor, remedy: str) -> None:
    """``counts`` (C,) += the sum of ``values`` (N,) for each class of ``labels`` (N,).

    An ``index_add_``: unlike ``bincount`` it does not make a CUDA device wait. For the same reason
    labels are looked at only after it has failed, on a CPU.

    Raises:
        ValueError: for a label outside 0..C-1, on a CPU.
    """
    try:
        counts.index_add_(0, labels, values)
    except (IndexError, RuntimeError):
        if labels.device.type == "cpu":
            check_labels(labels, counts.numel(), remedy)
        raise


def count_per_class(labels: Labels, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Sum of ``weights`` (default: 1 a sample) for each class.

    Args:
        labels: integer class of each sample, shape (N,), 0..C-1.
        num_classes: C.
        weights: shape (N,), for instance 1 where the prediction is right.

    Returns:
        Shape (C,), float64.

    Raises:
        ValueError: for a label outside 0..C-1, on a CPU.

    >>> count_per_class(torch.tensor([0, 2, 2]), num_classes=3)
    tensor([1., 0., 2.], dtype=torch.float64)
    """
    labels = as_labels(labels)
    values = torch.ones_like(labels) if weights is None else weights
    counts = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
    _add_at(counts, labels, values.to(torch.float64), CHECK_LABELS)
    return counts


def check_prior(prior: float) -> None:
    """Refuse a prior that is no number of samples.

    Raises:
        ValueError: unless it is finite and at least 0.
    """
    if not 0.0 <= prior < math.inf:
        raise ValueError(f"prior must be a finite number of at least 0, not {prior}")


def _share_right(correct: Tensor, total: Tensor, prior: float) -> Tensor:
    """(m_c + a) / (M_c + 2 a), (C,), from counts of float64; NaN where M_c = 0: not measured."""
    share = (correct + prior) / (total + 2.0 * prior)
    return share.masked_fill(total == 0, torch.nan)


def smoothed_accuracy(accuracy: Tensor, counts: Tensor | Sequence[int], prior: float) -> Tensor:
    """Accuracy per class as if ``prior`` more samples had been right, and as many wrong (ours).

    Additive smoothing: the mean of the accuracy's posterior under the prior Beta(a, a). No class is
    at 0, where Eq. 5 saturates, nor at 1, where its weight is 0; the fewer samples, the nearer to
    1/2. What :func:`class_accuracy` gives with this prior, to the bit.

    Args:
        accuracy: A_c = m_c / M_c (Eq. 1), shape (C,), float64; NaN where not measured.
        counts: M_c, the samples it was measured on, shape (C,).
        prior: a >= 0; 0 gives ``accuracy`` back.

    Returns:
        Shape (C,), in [a / (M_c + 2 a), 1 - a / (M_c + 2 a)]; NaN where M_c is 0 or A_c is NaN.

    Raises:
        ValueError: for a prior below 0 or not finite.

    >>> smoothed_accuracy(torch.tensor([0.0, 1.0, 0.5]), [2, 2, 98], prior=1.0)
    tensor([0.2500, 0.7500, 0.5000])
    """
    check_prior(prior)
    if prior == 0:
        return accuracy
    total = torch.as_tensor(counts, dtype=accuracy.dtype, device=accuracy.device)
    # m_c is whole, but (m_c / M_c) M_c is rounded.
    return _share_right((accuracy * total).round(), total, prior)


class ClassAccuracy:
    """Accuracy per class over the batches of a data set, the same on every rank (Eq. 1).

    >>> accuracy = ClassAccuracy(num_classes=3)
    >>> accuracy.add(predictions=torch.tensor([0, 1, 1]), labels=torch.tensor([0, 0, 1]))
    >>> accuracy.compute()
    tensor([0.5000, 1.0000,    nan], dtype=torch.float64)
    """

    def __init__(
        self,
        num_classes: int,
        device: torch.device | str = "cpu",
        ignore_index: int | None = None,
        prior: float = 0.0,
    ) -> None:
        """Start with no sample counted.

        Args:
            num_classes: C.
            device: where predictions and labels live.
            ignore_index: the label of samples that are not counted (often 255 or -100).
            prior: a of :func:`smoothed_accuracy`; 0: Eq. 1 as printed.

        Raises:
            ValueError: for a prior below 0 or not finite.
        """
        check_prior(prior)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.prior = prior
        self._counts = torch.zeros(2, num_classes, dtype=torch.float64, device=device)

    def add(self, predictions: Tensor, labels: Labels) -> None:
        """Count a batch.

        Args:
            predictions: predicted class, shape (B,), or any other, as (B, H, W) of pixels.
            labels: true class, 0..C-1 or the ignored one, of the same shape.

        Raises:
            TypeError: for labels that are not integers.
            ValueError: for another shape, or a label outside 0..C-1, on a CPU.
        """
        labels = as_labels(labels, self._counts.device)
        if predictions.shape != labels.shape:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} do not fit predictions of shape "
                f"{tuple(predictions.shape)}"
            )
        predictions, labels = predictions.flatten(), labels.flatten()
        # In place: a batch costs its B samples, however many classes there are.
        right = (predictions == labels).to(torch.float64)
        counted = torch.ones_like(right)
        if self.ignore_index is not None:
            left_out = labels == self.ignore_index
            labels = labels.masked_fill(left_out, 0)
            right, counted = right.masked_fill(left_out, 0), counted.masked_fill(left_out, 0)
        _add_at(self._counts[0], labels, right, LEFT_OUT)
        _add_at(self._counts[1], labels, counted, LEFT_OUT)

    def compute(self) -> Tensor:
        """Accuracy per class over the samples of all ranks.

        Returns:
            A_c = m_c / M_c (Eq. 1), with a prior :func:`smoothed_accuracy`; shape (C,), float64,
            in [0, 1]; NaN where M_c = 0.
        """
        correct, total = all_reduce_sum(self._counts)
        return _share_right(correct, total, self.prior)


def _pair(batch: Any) -> tuple[Any, Labels]:
    """Images and labels of a batch.

    Raises:
        TypeError: for anything but a pair.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    what = type(batch).__name__
    if isinstance(batch, tuple | list):
        what += f" of {len(batch)}"
    raise TypeError(
        f"a batch must be a pair of images and labels, not a {what}; give pairs, for instance "
        "((images, labels) for images, labels, _ in loader)"
    )


def _check_logits(logits: Any, labels: Tensor, num_classes: int) -> Tensor:
    """Logits (B, C) for labels (B,), or (B, C, H, W) for (B, H, W); nothing waits for the device.

    Raises:
        TypeError: for anything but a tensor.
        ValueError: for other shapes.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model must give a tensor of logits (B, C), not a {type(logits).__name__}; wrap "
            "it in a module that gives the logits alone"
        )
    shape = tuple(logits.shape)
    if len(shape) < 2 or shape[1] != num_classes:
        # What is usual for two classes and a sigmoid.
        single = "; give the logits 0 and z in place of one logit z" if shape[1:] == (1,) else ""
        raise ValueError(f"expected logits of shape (B, {num_classes}), not {shape}{single}")
    if tuple(labels.shape) != (shape[0], *shape[2:]):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not fit logits of shape {shape}; give one "
            f"class index for each, of shape {(shape[0], *shape[2:])}"
        )
    return logits


def class_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Labels]],
    num_classes: int,
    ignore_index: int | None = None,
    *,
    prior: float = 0.0,
) -> Tensor:
    """Measure ``model``'s accuracy per class; its state is as before afterwards.

    The model is in evaluation mode meanwhile, so BatchNorm statistics do not move; every submodule
    then gets its own mode back. Under ``torch.distributed`` each rank passes its share of the
    samples, each sample on one rank, and all ranks get the accuracy over all of them.

    Args:
        model: maps images (B, ...) to logits (B, C), or (B, C, H, W) of pixels.
        batches: pairs of images (B, ...) and labels (B,) or (B, H, W), on the model's device.
        num_classes: C.
        ignore_index: the label of samples that are not counted (often 255 or -100).
        prior: a of :func:`smoothed_accuracy` (ours); 0: Eq. 1 as printed.

    Returns:
        Shape (C,), float64, in [0, 1], NaN where a class has no sample.

    Raises:
        TypeError: for a model that gives no tensor, a batch that is no pair, or labels that are
            not integers.
        ValueError: for another number of logits than C, labels of another shape or out of range,
            logits that are NaN, or a prior below 0 or not finite.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    accuracy = ClassAccuracy(num_classes, device, ignore_index, prior)
    undefined = torch.zeros((), dtype=torch.float64, device=device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                images, given = _pair(batch)
                labels = as_labels(given, device)
                logits = _check_logits(model(images), labels, num_classes)
                predictions = logits.argmax(dim=1)
                accuracy.add(predictions, labels)
                # argmax takes NaN for the largest.
                largest = logits.gather(1, predictions.unsqueeze(1))
                undefined += largest.isnan().sum()
    finally:
        for module, mode in modes:
            module.training = mode
    measured = accuracy.compute()
    # After both sums: a rank that left before would let the others wait.
    if number := int(all_reduce_sum(undefined)):
        raise ValueError(
            f"the model's logits are NaN for {number} of the samples; its accuracy cannot be "
            "measured"
        )
    return measured


def check_performance(performance: Tensor) -> None:
    """Refuse a performance outside [0, 1]; NaN (not measured) is allowed, and rounding up to 1e-6.

    Raises:
        ValueError: naming the first such class.
    """
    wrong = ((performance < -_ROUNDING) | (performance > 1 + _ROUNDING)).nonzero()
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


def averaged_performance(performance: Tensor, previous: Tensor, average: float) -> Tensor:
    """Exponential moving average of the performance over the measurements (ours).

    Args:
        performance: a_t of this measurement, shape (C,); NaN where not measured.
        previous: A_{t-1}, shape (C,); NaN where never measured: the first a_t is taken as it is,
            so that nothing draws the average to where it began.
        average: in [0, 1), the weight of what was before; 0 gives ``performance`` back.

    Returns:
        A_t = average A_{t-1} + (1 - average) a_t, shape (C,); NaN where ``performance`` is.

    >>> averaged_performance(torch.tensor([0.0, 0.5]), torch.tensor([1.0, float("nan")]), 0.75)
    tensor([0.7500, 0.5000])
    """
    # A_t = average A_{t-1} + (1 - average) a_t
    moved = average * previous + (1.0 - average) * performance
    return torch.where(previous.isnan(), performance, moved)


def difficulty_from_performance(performance: Tensor, previous: Tensor) -> Tensor:
    """Difficulty of each class (Eqs. 2 and 3).

    Args:
        performance: A_c, shape (C,), in [0, 1], higher is better; NaN where not measured. What
            rounding has put up to 1e-6 beyond is cut.
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
    return torch.where(performance.isnan(), previous, 1.0 - performance.clamp(0.0, 1.0))
