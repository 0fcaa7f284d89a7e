"""The one object a training loop holds: performance -> difficulty -> tau -> class weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.difficulty import difficulty_from_performance
from common.distributed import broadcast_from_first
from common.losses import REDUCTIONS, PerSampleLoss, Reduction, weighted_mean
from common.tau import (
    TauLaw,
    check_law_options,
    parse_tau,
    performance_bias,
    tau_from_performance,
)
from common.weights import difficulty_weights, normalize_weights


class ClassDifficultyBalancer(nn.Module):
    """Class-difficulty balancing of a loss (CDB-W) or a sampler (CDB-S); C classes.

    Call :meth:`update` with the performance per class after every t-th epoch (paper: t = 1). For
    CDB-W reduce per-sample losses with :meth:`weighted_mean`; for CDB-S give
    :attr:`probabilities` to ``ClassProbabilitySampler.set_class_probabilities``. Before the first
    update all classes weigh the same.

    The state is in buffers, updated in place: it moves with ``.to(device)``, is saved with
    ``state_dict()``, and captured CUDA graphs and compiled steps see new weights. All ranks of a
    process group hold the same numbers.

    Attributes:
        difficulty: d_c, shape (C,), float64, in [0, 1]; 1 until a class is measured.
        measured: shape (C,), bool: classes measured at least once.
        bias: Eq. 5, 0-d, float64, in [0, 1/eps - 1].
        tau: the exponent in force, 0-d, float64, >= 0.
        class_weights: w_c, shape (C,), float32, >= 0; summing to C if ``normalize``.

    >>> balancer = ClassDifficultyBalancer(num_classes=2, tau=1.0)
    >>> balancer.update(torch.tensor([0.9, 0.7]))
    >>> balancer.class_weights
    tensor([0.5000, 1.5000])
    >>> balancer.probabilities
    tensor([0.2500, 0.7500], dtype=torch.float64)
    >>> balancer.weighted_mean(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0, 0, 1]))
    tensor(1.3333)
    """

    difficulty: Tensor
    measured: Tensor
    bias: Tensor
    tau: Tensor
    class_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        tau: TauLaw | float | str = "sigmoid",
        *,
        tau_max: float = 5.0,
        eps: float = 0.01,
        power: float = 2.0,
        normalize: bool = True,
        reduction: Reduction = "batch-size",
    ) -> None:
        """Choose the exponent and the reduction.

        Args:
            num_classes: C, at least 2.
            tau: a fixed exponent >= 0, or the law it follows (:data:`common.tau.TAU_LAWS`).
            tau_max: T_M of Eqs. 7-10.
            eps: of Eq. 5, in (0, 1).
            power: p of Eq. 8; the paper does not give it.
            normalize: scale the weights to sum to C (the authors' code); off: Eq. 4 as printed.
            reduction: see :func:`common.losses.weighted_mean`.

        Raises:
            ValueError: for a single class, a negative tau, eps outside (0, 1), tau_max < 0,
                power < 1, or an unknown law or reduction.
        """
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"balancing needs at least 2 classes, not {num_classes}; with one class there is "
                "nothing to balance"
            )
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        check_law_options(tau_max, power)
        self.num_classes = num_classes
        self._tau = parse_tau(tau)
        self._tau_max, self._eps, self._power = tau_max, eps, power
        self._normalize = normalize
        self._reduction: Reduction = reduction
        self.register_buffer("difficulty", torch.ones(num_classes, dtype=torch.float64))
        self.register_buffer("measured", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))
        self.register_buffer("tau", torch.zeros((), dtype=torch.float64))
        self.register_buffer("class_weights", torch.ones(num_classes))
        self._refresh()

    def _refresh(self) -> None:
        """Difficulty -> bias -> tau -> weights, in place."""
        performance = (1.0 - self.difficulty).where(self.measured, torch.nan)
        self.bias.copy_(performance_bias(performance, self._eps))
        if isinstance(self._tau, float):
            self.tau.fill_(self._tau)
        else:
            self.tau.copy_(
                tau_from_performance(
                    self._tau,
                    performance,
                    tau_max=self._tau_max,
                    eps=self._eps,
                    power=self._power,
                )
            )
        weights = difficulty_weights(self.difficulty, self.tau)
        self.class_weights.copy_(normalize_weights(weights) if self._normalize else weights)

    @torch.no_grad()
    def update(self, performance: Tensor) -> None:
        """Take the performance measured after an epoch; weights, tau and probabilities follow.

        Under ``torch.distributed`` every rank calls it and rank 0's numbers count, so that no
        rounding can drive the ranks apart: reduce counts over the ranks before
        (:class:`common.difficulty.ClassAccuracy` does).

        Args:
            performance: shape (C,), in [0, 1], higher is better (accuracy, AP, ...); NaN for a
                class that was not measured: it keeps its difficulty.

        Raises:
            ValueError: for another shape or a value outside [0, 1]; the state is then unchanged.
        """
        if performance.shape != (self.num_classes,):
            raise ValueError(
                f"expected the performance of {self.num_classes} classes, got a tensor of shape "
                f"{tuple(performance.shape)}"
            )
        performance = broadcast_from_first(performance.to(self.difficulty))
        self.difficulty.copy_(difficulty_from_performance(performance, self.difficulty))
        self.measured.logical_or_(~performance.isnan())
        self._refresh()

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities of CDB-S (Eq. 15), shape (C,), float64, summing to 1."""
        weights = difficulty_weights(self.difficulty, self.tau)
        return weights / weights.sum()

    def sample_weights(self, labels: Tensor) -> Tensor:
        """w_{y_i} of each sample (Eq. 12). Labels (B,) -> (B,).

        Raises:
            IndexError: for a label outside 0..C-1.
        """
        # Not class_weights[labels]: that takes -1 for the last class, and uint8 labels for a mask.
        return self.class_weights.index_select(0, labels)

    def weighted_mean(self, losses: Tensor, labels: Tensor) -> Tensor:
        """CDB-W of any per-sample loss (Eqs. 12 and 14), reduced to a 0-d loss.

        Args:
            losses: shape (B,).
            labels: shape (B,), 0..C-1.

        Raises:
            ValueError: for losses of another shape, for instance a loss that is a mean already.
            IndexError: for a label outside 0..C-1.
        """
        return weighted_mean(losses, self.sample_weights(labels), self._reduction)

    def weighted(self, loss: PerSampleLoss) -> Callable[[Tensor, Tensor], Tensor]:
        """The CDB-W version of a per-sample loss: logits (B, C), labels (B,) -> 0-d loss.

        >>> from common.losses import focal_loss
        >>> cdb_w_fl = ClassDifficultyBalancer(num_classes=3).weighted(focal_loss)
        >>> cdb_w_fl(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(0.7324)
        """
        return lambda logits, labels: self.weighted_mean(loss(logits, labels), labels)
