"""Weights per class, from difficulty (Eq. 4) and from class frequency.

Shapes: C classes.
"""

import torch
from torch import Tensor


def difficulty_weights(difficulty: Tensor, tau: Tensor | float) -> Tensor:
    """w_c = d_c^tau (Eq. 4), as printed: not normalised.

    0^0 = 1 (tau = 0 means equal weights). When no class is difficult (the weights sum to 0) the
    equation says nothing, and all weights are 1.

    Args:
        difficulty: d_c, shape (C,), in [0, 1].
        tau: 0-d, >= 0.

    Returns:
        Shape (C,), in [0, 1].

    Raises:
        ValueError: for a difficulty outside [0, 1] or tau < 0.

    >>> difficulty_weights(torch.tensor([0.5, 1.0, 0.0]), tau=2.0)
    tensor([0.2500, 1.0000, 0.0000])
    >>> difficulty_weights(torch.zeros(3), tau=2.0)
    tensor([1., 1., 1.])
    """
    if not bool(((difficulty >= 0) & (difficulty <= 1)).all()):
        raise ValueError("difficulty must be in [0, 1] for every class")
    if not bool(torch.as_tensor(tau) >= 0):
        raise ValueError(f"tau must be at least 0, not {float(tau)}")
    # w_c = d_c^tau
    weights = difficulty**tau
    return weights if bool(weights.sum() > 0) else torch.ones_like(weights)


def normalize_weights(weights: Tensor) -> Tensor:
    """Scale so that the weights sum to C, as in the authors' code.

    Args:
        weights: shape (C,), >= 0, not all 0.

    >>> normalize_weights(torch.tensor([1.0, 3.0]))
    tensor([0.5000, 1.5000])
    """
    # In this order: C / sum overflows when all weights are tiny.
    return weights / weights.sum() * weights.numel()


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
