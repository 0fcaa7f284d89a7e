"""Performance bias and the exponent tau that follows it (Eqs. 5-10).

A law is one function of the fraction inside Eq. 5, which is bias + 1, registered by its name: the
balancer, records and Figure 3 all call it. Every function takes and gives tensors of any shape,
element by element, unless it says otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class LawOptions:
    """The constants of Eqs. 5 and 7-10.

    Raises:
        ValueError: where a law would be negative, endless or not increasing: unless
            0 <= tau_max <= 1e30, 1e-30 <= eps < 1 and power >= 1, finite.
    """

    tau_max: float = 5.0
    """T_M of Eqs. 7-10."""
    eps: float = 0.01
    """Of Eq. 5."""
    power: float = 2.0
    """p of Eq. 8; the paper does not give it: 2 is ours."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 <= self.tau_max <= LARGEST_TAU_MAX:
            raise ValueError(
                f"tau_max must be at least 0 and at most {LARGEST_TAU_MAX} (paper: 5), not "
                f"{self.tau_max}"
            )
        if not 1.0 <= self.power < math.inf:
            raise ValueError(
                "power must be at least 1 and finite (Eq. 8 takes integers above 1), not "
                f"{self.power}"
            )
        check_eps(self.eps)


TauLaw = Callable[[Tensor, LawOptions], Tensor]
"""The fraction inside Eq. 5, >= 0, and the constants -> tau, >= 0, of the same shape."""
TAU_LAWS: Final[dict[str, TauLaw]] = {}
"""The laws by their names, in the order of the equations."""


def tau_law(name: str) -> Callable[[TauLaw], TauLaw]:
    """Register a law under ``name``, by which the balancer and ``--tau`` then know it.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(law: TauLaw) -> TauLaw:
        if name in TAU_LAWS:
            raise ValueError(f"there is a tau law {name!r} already; choose another name")
        TAU_LAWS[name] = law
        return law

    return register


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
    return _bias(performance_ratio(performance, eps))


def _bias(ratio: Tensor) -> Tensor:
    return (ratio - 1.0).clamp_min(0.0)


def bias_bound(eps: float = 0.01) -> float:
    """B_M = 1/eps - 1, the largest bias of Eq. 5: 99 for the paper's eps."""
    check_eps(eps)
    return 1.0 / eps - 1.0


@tau_law("linear")
def linear_tau(ratio: Tensor, options: LawOptions) -> Tensor:
    """Eq. 7. In [0, tau_max], the same growth everywhere.

    >>> linear_tau(torch.tensor(100.0), LawOptions())
    tensor(5.)
    """
    # tau = bias / B_M * T_M
    return _bias(ratio) / bias_bound(options.eps) * options.tau_max


@tau_law("polynomial")
def polynomial_tau(ratio: Tensor, options: LawOptions) -> Tensor:
    """Eq. 8. In [0, tau_max], slow at small bias.

    >>> polynomial_tau(torch.tensor(50.5), LawOptions(power=2.0))
    tensor(1.2500)
    """
    # tau = (bias / B_M)^p * T_M
    return (_bias(ratio) / bias_bound(options.eps)) ** options.power * options.tau_max


@tau_law("logarithmic")
def logarithmic_tau(ratio: Tensor, options: LawOptions) -> Tensor:
    """Eq. 9 without its printed minus, which would make tau negative. In [0, tau_max].

    >>> logarithmic_tau(torch.tensor(10.0), LawOptions())
    tensor(2.5000)
    """
    # tau = T_M * log(bias + 1) / log(B_M + 1)
    bound = bias_bound(options.eps)
    return options.tau_max * torch.log1p(_bias(ratio)) / math.log(bound + 1.0)


@tau_law("sigmoid")
def sigmoid_tau(ratio: Tensor, options: LawOptions) -> Tensor:
    """Eq. 10, the paper's choice. In [0, tau_max], near tau_max from bias 5 on.

    >>> sigmoid_tau(torch.tensor(1.0), LawOptions())
    tensor(0.)
    """
    # tau = 2 T_M sigmoid(bias) - T_M
    return options.tau_max * (2.0 * torch.sigmoid(_bias(ratio)) - 1.0)


@tau_law("sigmoid-accv")
def sigmoid_accv_tau(ratio: Tensor, options: LawOptions) -> Tensor:
    """The authors' ImageNet-LT code (Sinha et al., ACCV 2020): 2 s(ratio - 1), in (0.5, 2].

    The bias is not cut at 0, and T_M plays no part.
    """
    return 2.0 * torch.sigmoid(ratio - 1.0)


@tau_law("sigmoid-code")
def sigmoid_code_tau(ratio: Tensor, options: LawOptions) -> Tensor:
    """The authors' CIFAR and EGTEA code: s(ratio), without the -1 of Eq. 5, in [0.5, 1].

    T_M plays no part.
    """
    return torch.sigmoid(ratio)


def tau_from_performance(
    law: str | TauLaw, performance: Tensor, options: LawOptions | None = None
) -> Tensor:
    """Exponent tau for the measured performance (Eq. 6): the law applied to the bias of Eq. 5.

    Args:
        law: a name of :data:`TAU_LAWS`, or a law.
        performance: A_c, shape (C,), in [0, 1]; NaN where not measured.
        options: the constants; None: the paper's.

    Returns:
        tau, 0-d, >= 0.

    Raises:
        ValueError: for an unknown law, or where one's own gives what is no exponent.

    >>> float(tau_from_performance("sigmoid", torch.tensor([0.8, 0.8])))
    0.0
    """
    options = options or LawOptions()
    tau = law_of(law)(performance_ratio(performance, options.eps), options)
    if tau.shape != () or not 0.0 <= float(tau) < math.inf:
        raise ValueError(f"a tau law must give one finite number >= 0, not {tau}")
    return tau


def law_of(law: str | TauLaw) -> TauLaw:
    """A law by its name, or the law itself.

    Raises:
        ValueError: for an unknown name.
    """
    if callable(law):
        return law
    if law not in TAU_LAWS:
        raise ValueError(f"tau law {law!r} is not one of {', '.join(TAU_LAWS)}")
    return TAU_LAWS[law]


def parse_tau(value: str | float) -> str | float:
    """A law's name, or a fixed tau >= 0 given as a number or its text.

    Raises:
        ValueError: for another name, or a tau that is negative or not finite.

    >>> parse_tau("1.5"), parse_tau("sigmoid")
    (1.5, 'sigmoid')
    """
    if isinstance(value, str) and value in TAU_LAWS:
        return value
    try:
        tau = float(value)
    except ValueError:
        raise ValueError(
            f"tau must be a number >= 0 or one of {', '.join(TAU_LAWS)}, not {value!r}"
        ) from None
    if not (math.isfinite(tau) and tau >= 0):
        raise ValueError(f"a fixed tau must be a finite number >= 0, not {value}")
    return tau
