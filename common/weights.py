"""Weights per class, from difficulty (Eq. 4) and from class frequency; the weight of each sample.

Shapes: C classes.
"""

import torch
from torch import Tensor

from .difficulty import LEFT_OUT, Labels, as_labels, check_labels


def difficulty_weights(
    difficulty: Tensor, tau: Tensor | float, dtype: torch.dtype | None = None
) -> Tensor:
    """w_c = d_c^tau (Eq. 4), as printed: not normalised.

    0^0 = 1 (tau = 0 means equal weights). When no class is difficult (every d_c is 0) the equation
    says nothing, and all weights are 1. Where even the largest weight is too small a number, the
    weights are relative to it: only their proportions are left to tell.

    Args:
        difficulty: d_c, shape (C,), in [0, 1].
        tau: 0-d, >= 0.
        dtype: of the numbers that the weights will be kept in; None: that of ``difficulty``.

    Returns:
        Shape (C,), in [0, 1], of ``difficulty``'s dtype.

    Raises:
        ValueError: for a difficulty outside [0, 1] or tau < 0.

    >>> difficulty_weights(torch.tensor([0.5, 1.0, 0.0]), tau=2.0)
    tensor([0.2500, 1.0000, 0.0000])
    >>> difficulty_weights(torch.zeros(3), tau=2.0)
    tensor([1., 1., 1.])
    >>> difficulty_weights(torch.tensor([0.1, 0.2]), tau=500.0)
    tensor([0., 1.])
    """
    if not bool(((difficulty >= 0) & (difficulty <= 1)).all()):
        raise ValueError("difficulty must be in [0, 1] for every class")
    if not bool(torch.as_tensor(tau) >= 0):
        raise ValueError(f"tau must be at least 0, not {float(tau)}")
    # w_c = d_c^tau
    weights = difficulty**tau
    if bool(weights.max() >= torch.finfo(dtype or difficulty.dtype).tiny):
        return weights
    hardest = difficulty.max()
    if not bool(hardest > 0):
        return torch.ones_like(weights)
    # d_c^tau / max_k d_k^tau, where both would underflow.
    return (difficulty / hardest) ** tau


def normalize_weights(weights: Tensor) -> Tensor:
    """Scale so that the weights sum to C, as in the authors' code.

    Args:
        weights: shape (C,), >= 0, not all 0.

    >>> normalize_weights(torch.tensor([1.0, 3.0]))
    tensor([0.5000, 1.5000])
    """
    # In this order: C / sum overflows when all weights are tiny.
    return weights / weights.sum() * weights.numel()


def sample_weights(
    class_weights: Tensor,
    labels: Labels,
    ignore_index: int | None = None,
    background_weight: float | None = None,
) -> Tensor:
    """w_{y_i}, the weight of each sample's class (Eq. 12).

    Args:
        class_weights: shape (C,).
        labels: class of each sample, any shape, for instance (B,), or (B, H, W) of pixels; a tensor
            lies where ``class_weights`` does.
        ignore_index: the label of what is left out (often 255 or -100): it gets weight 0.
        background_weight: of label C, which is then background (a detector's proposals).

    Returns:
        Of the shape of ``labels``.

    Raises:
        TypeError: for labels that are not integers.
        ValueError: for a label outside 0..C-1 (with background 0..C), on a CPU; a GPU's own error
            says less.

    >>> sample_weights(torch.tensor([0.5, 1.5]), [[1, 255], [0, 1]], ignore_index=255)
    tensor([[1.5000, 0.0000],
            [0.5000, 1.5000]])
    >>> sample_weights(torch.tensor([0.5, 1.5]), [0, 2], background_weight=1.0)
    tensor([0.5000, 1.0000])
    """
    labels = as_labels(labels, class_weights.device)
    if background_weight is not None:
        background = class_weights.new_full((1,), background_weight)
        class_weights = torch.cat([class_weights, background])
    known = labels
    if ignore_index is not None:
        left_out = labels == ignore_index
        known = labels.masked_fill(left_out, 0)
    try:
        # Not class_weights[known]: that takes -1 for the last class.
        weights = class_weights.index_select(0, known.reshape(-1)).view(known.shape)
    except (IndexError, RuntimeError):
        # Looked for only now and on a CPU: a step must not wait for a GPU.
        if known.device.type == "cpu":
            check_labels(known, class_weights.numel(), LEFT_OUT)
        raise
    return weights if ignore_index is None else weights.masked_fill(left_out, 0.0)


def class_balanced_weights(class_counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Inverse effective number of samples (Cui et al. 2019), scaled to sum to C.

    A class with no training sample gets weight 0: no loss term ever asks for it.

    Args:
        class_counts: n_c, shape (C,), >= 0, at least one > 0.
        beta: in [0, 1).

    Returns:
        Shape (C,), float64.

    Raises:
        ValueError: for beta outside [0, 1).

    >>> class_balanced_weights(torch.tensor([3, 1]), beta=0.5)
    tensor([0.7273, 1.2727], dtype=torch.float64)
    """
    if not 0.0 <= beta < 1.0:
        raise ValueError(f"beta must be in [0, 1), not {beta}")
    counts = class_counts.to(torch.float64)
    # w_c = (1 - beta) / (1 - beta^n_c)
    inverse = (1.0 - beta) / (1.0 - beta ** counts.clamp_min(1.0))
    return normalize_weights(torch.where(counts > 0, inverse, 0.0))
