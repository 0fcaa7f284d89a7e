"""Performance bias and the exponent tau that follows it (Eqs. 5-10).

Every function takes and gives tensors of any shape, element by element, unless it says otherwise.
"""

import math
from typing import Final, Literal, get_args

import torch
from torch import Tensor

TauLaw = Literal["linear", "polynomial", "logarithmic", "sigmoid", "sigmoid-accv", "sigmoid-code"]
TAU_LAWS: Final[tuple[TauLaw, ...]] = get_args(TauLaw)
SMALLEST_EPS: Final = 1e-30
LARGEST_TAU_MAX: Final = 1e30
"""Beyond these two a bias or a tau could be infinite, in float32 too."""


def check_eps(eps: float) -> None:
    """Refuse an eps with which Eq. 5 has no upper bound.

    Raises:
        ValueError: unless 1e-30 <= eps < 1.
    """
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be between 0 and 1 (paper: 0.01), not {eps}")
    if eps < SMALLEST_EPS:
        raise ValueError(f"eps must be at least {SMALLEST_EPS} (paper: 0.01), not {eps}")


def check_law_options(tau_max: float, power: float) -> None:
    """Refuse constants with which a law of Eqs. 7-10 is negative, endless or not increasing.

    Raises:
        ValueError: unless 0 <= tau_max <= 1e30 and power >= 1, finite.
    """
    if not 0.0 <= tau_max <= LARGEST_TAU_MAX:
        raise ValueError(
            f"tau_max must be at least 0 and at most {LARGEST_TAU_MAX} (paper: 5), not {tau_max}"
        )
    if not 1.0 <= power < math.inf:
        raise ValueError(
            f"power must be at least 1 and finite (Eq. 8 takes integers above 1), not {power}"
        )


def performance_ratio(performance: Tensor, eps: float = 0.01) -> Tensor:
    """max_c A_c / (min_c A_c + eps), the fraction inside Eq. 5.

    Args:
        performance: A_c, shape (C,), in [0, 1]; NaN where not measured: left out.
        eps: keeps the fraction finite at A_c = 0.

    Returns:
        0-d; 1 when no class is measured (nothing says that the model is biased).
    """
    check_eps(eps)
    measured = performance[~performance.isnan()]
    if measured.numel() == 0:
        return performance.new_ones(())
    return measured.max() / (measured.min() + eps)


def performance_bias(performance: Tensor, eps: float = 0.01) -> Tensor:
    """How unequal the performance of the classes is (Eq. 5).

    Args:
        performance: A_c, shape (C,), in [0, 1]; NaN where not measured: left out.
        eps: paper 0.01.

    Returns:
        bias, 0-d, in [0, 1/eps - 1]; 0 when all classes perform alike.

    >>> performance_bias(torch.tensor([0.9, 0.29], dtype=torch.float64))
    tensor(2., dtype=torch.float64)
    """
    # bias = max(max_c A_c / (min_c A_c + eps) - 1, 0); the outer max is needed: with equal A_c
    # eps makes the fraction slightly less than 1.
    return (performance_ratio(performance, eps) - 1.0).clamp_min(0.0)


def bias_bound(eps: float = 0.01) -> float:
    """B_M = 1/eps - 1, the largest bias of Eq. 5: 99 for the paper's eps."""
    check_eps(eps)
    return 1.0 / eps - 1.0


def linear_tau(bias: Tensor, tau_max: float = 5.0, eps: float = 0.01) -> Tensor:
    """Eq. 7. In [0, tau_max], the same growth everywhere.

    >>> linear_tau(torch.tensor(99.0))
    tensor(5.)
    """
    # tau = bias / B_M * T_M
    return bias / bias_bound(eps) * tau_max


def polynomial_tau(
    bias: Tensor, tau_max: float = 5.0, eps: float = 0.01, power: float = 2.0
) -> Tensor:
    """Eq. 8. In [0, tau_max], slow at small bias. The paper never gives the power: 2 is ours.

    >>> polynomial_tau(torch.tensor(49.5))
    tensor(1.2500)
    """
    # tau = (bias / B_M)^p * T_M
    return (bias / bias_bound(eps)) ** power * tau_max


def logarithmic_tau(bias: Tensor, tau_max: float = 5.0, eps: float = 0.01) -> Tensor:
    """Eq. 9 without its printed minus, which would make tau negative. In [0, tau_max].

    >>> logarithmic_tau(torch.tensor(9.0))
    tensor(2.5000)
    """
    # tau = T_M * log(bias + 1) / log(B_M + 1)
    return tau_max * torch.log1p(bias) / math.log(bias_bound(eps) + 1.0)


def sigmoid_tau(bias: Tensor, tau_max: float = 5.0) -> Tensor:
    """Eq. 10, the paper's choice. In [0, tau_max], near tau_max from bias 5 on.

    >>> sigmoid_tau(torch.tensor(0.0))
    tensor(0.)
    """
    # tau = 2 T_M sigmoid(bias) - T_M
    return tau_max * (2.0 * torch.sigmoid(bias) - 1.0)


def sigmoid_accv_tau(ratio: Tensor) -> Tensor:
    """The authors' ImageNet-LT code (Sinha et al., ACCV 2020): 2 s(ratio - 1), in (0.5, 2].

    Args:
        ratio: :func:`performance_ratio`; here the bias is not cut at 0 and T_M plays no part.
    """
    return 2.0 * torch.sigmoid(ratio - 1.0)


def sigmoid_code_tau(ratio: Tensor) -> Tensor:
    """The authors' CIFAR and EGTEA code: s(ratio), without the -1 of Eq. 5, in [0.5, 1].

    Args:
        ratio: :func:`performance_ratio`.
    """
    return torch.sigmoid(ratio)


def tau_from_performance(
    law: TauLaw,
    performance: Tensor,
    *,
    tau_max: float = 5.0,
    eps: float = 0.01,
    power: float = 2.0,
) -> Tensor:
    """Exponent tau for the measured performance (Eq. 6): the law applied to the bias of Eq. 5.

    Args:
        law: one of :data:`TAU_LAWS`.
        performance: A_c, shape (C,), in [0, 1]; NaN where not measured.
        tau_max: T_M, paper 5.
        eps: paper 0.01.
        power: p of Eq. 8.

    Returns:
        tau, 0-d, >= 0.

    Raises:
        ValueError: for an unknown law, eps outside (0, 1), tau_max < 0 or power < 1.

    >>> float(tau_from_performance("sigmoid", torch.tensor([0.8, 0.8])))
    0.0
    """
    check_law_options(tau_max, power)
    bias = performance_bias(performance, eps)
    match law:
        case "linear":
            return linear_tau(bias, tau_max, eps)
        case "polynomial":
            return polynomial_tau(bias, tau_max, eps, power)
        case "logarithmic":
            return logarithmic_tau(bias, tau_max, eps)
        case "sigmoid":
            return sigmoid_tau(bias, tau_max)
        case "sigmoid-accv":
            return sigmoid_accv_tau(performance_ratio(performance, eps))
        case "sigmoid-code":
            return sigmoid_code_tau(performance_ratio(performance, eps))
    raise ValueError(f"tau law {law!r} is not one of {', '.join(TAU_LAWS)}")


def parse_tau(value: str | float) -> TauLaw | float:
    """A law's name, or a fixed tau >= 0 given as a number or its text.

    Raises:
        ValueError: for another name, or a tau that is negative or not finite.

    >>> parse_tau("1.5"), parse_tau("sigmoid")
    (1.5, 'sigmoid')
    """
    for law in TAU_LAWS:
        if value == law:
            return law
    try:
        tau = float(value)
    except ValueError:
        raise ValueError(
            f"tau must be a number >= 0 or one of {', '.join(TAU_LAWS)}, not {value!r}"
        ) from None
    if not (math.isfinite(tau) and tau >= 0):
        raise ValueError(f"a fixed tau must be a finite number >= 0, not {value}")
    return tau
