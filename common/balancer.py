"""The one object a training loop holds: performance -> difficulty -> tau -> class weights."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .difficulty import (
    Labels,
    as_labels,
    averaged_performance,
    check_performance,
    difficulty_from_performance,
)
from .distributed import broadcast_from_first
from .losses import REDUCTIONS, PerSampleLoss, Reduction, weighted_mean
from .tau import (
    LawOptions,
    TauLaw,
    law_of,
    parse_tau,
    performance_bias,
    tau_from_performance,
)
from .weights import difficulty_weights, normalize_weights, sample_weights


class ClassDifficultyBalancer(nn.Module):
    """Class-difficulty balancing of a loss (CDB-W) or a sampler (CDB-S); C classes.

    Call :meth:`update` with the performance per class after every t-th epoch (paper: t = 1). For
    CDB-W reduce per-sample losses with :meth:`weighted_mean`; for CDB-S give
    :attr:`probabilities` to ``ClassProbabilitySampler.set_class_probabilities``. Before the first
    update all classes weigh the same.

    Two options, off as printed, steady what follows a noisy measurement: ``average`` (ours) and
    ``start_epoch`` (deferred re-weighting; Cao et al. 2019, there of class-balanced weights). A
    third is :func:`~.difficulty.class_accuracy`'s ``prior``.

    The state is in buffers, updated in place: it moves with ``.to(device)``, is saved with
    ``state_dict()``, and captured CUDA graphs and compiled steps see new weights. Inside a model of
    low precision it keeps its own. All ranks of a process group hold the same numbers.

    Attributes:
        difficulty: d_c, shape (C,), float64, in [0, 1]; 1 until a class is measured. With
            ``average`` that of the averaged performance, which bias, tau and weights follow.
        measured: shape (C,), float64: 1 for a class measured at least once, else 0 (no bool, of
            which torch's averaged models can take no mean).
        bias: Eq. 5, 0-d, float64, in [0, 1/eps - 1].
        tau: the exponent in force, 0-d, float64, >= 0.
        class_weights: w_c in force, shape (C,), float32, >= 0; summing to C if ``normalize``. All 1
            while :attr:`deferred`.
        updates: 0-d, float64: the measurements taken.

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
    updates: Tensor

    def __init__(
        self,
        num_classes: int,
        tau: float | str | TauLaw = "sigmoid",
        *,
        tau_max: float = 5.0,
        eps: float = 0.01,
        power: float = 2.0,
        normalize: bool = True,
        reduction: Reduction = "batch-size",
        average: float = 0.0,
        start_epoch: int = 0,
    ) -> None:
        """Choose the exponent and the reduction.

        Args:
            num_classes: C, at least 2.
            tau: a fixed exponent >= 0, or the law it follows: a name of :data:`~.tau.TAU_LAWS`, or
                a function as they are.
            tau_max: T_M of Eqs. 7-10.
            eps: of Eq. 5, in (0, 1).
            power: p of Eq. 8; the paper does not give it.
            normalize: scale the weights to sum to C (the authors' code); off: Eq. 4 as printed.
            reduction: see :func:`~.losses.weighted_mean`.
            average: in [0, 1): the weight of the earlier updates in the performance,
                A_t = average A_{t-1} + (1 - average) a_t; 0: the last one alone.
            start_epoch: from this epoch on, counted from 0, the weights are in force. Epoch k
                begins after k updates; until then all classes weigh the same, while difficulty,
                bias and tau are measured.

        Raises:
            ValueError: for a single class, a negative tau, eps outside (0, 1), tau_max < 0,
                power < 1, average outside [0, 1), start_epoch < 0, or an unknown law or reduction.
        """
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"balancing needs at least 2 classes, not {num_classes}; with one class there is "
                "nothing to balance"
            )
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        if not 0.0 <= average < 1.0:
            raise ValueError(f"average must be at least 0 and below 1, not {average}")
        if start_epoch < 0:
            raise ValueError(f"start_epoch must be at least 0, not {start_epoch}")
        self.num_classes = num_classes
        chosen = tau if callable(tau) else parse_tau(tau)
        self._tau = chosen if isinstance(chosen, float) else law_of(chosen)
        self._options = LawOptions(tau_max, eps, power)
        self._normalize = normalize
        self._average, self._start_epoch = average, start_epoch
        self._reduction: Reduction = reduction
        self.register_buffer("difficulty", torch.ones(num_classes, dtype=torch.float64))
        self.register_buffer("measured", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))
        self.register_buffer("tau", torch.zeros((), dtype=torch.float64))
        self.register_buffer("class_weights", torch.ones(num_classes, dtype=torch.float32))
        # A float, as measured: torch's averaged models take means.
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))
        self._refresh()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move, but keep every number's type: an accuracy of 0.999 is 1 in bfloat16."""

        def same_type(value: Tensor) -> Tensor:
            changed = fn(value)
            # Not back from what has been rounded.
            return changed if changed.dtype == value.dtype else value.to(changed.device)

        super()._apply(same_type, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Load; a state from before updates were counted fits where nothing depends on them."""
        key = f"{prefix}updates"
        if key not in state_dict and self._average == 0 and self._start_epoch == 0:
            state_dict = {**state_dict, key: torch.zeros_like(self.updates)}
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @property
    def deferred(self) -> bool:
        """Whether the weights are not yet in force: fewer updates than ``start_epoch``."""
        return bool(self.updates < self._start_epoch)

    def _performance(self) -> Tensor:
        """A_c, on which the difficulty rests, shape (C,); NaN where never measured."""
        return (1.0 - self.difficulty).where(self.measured > 0, torch.nan)

    def _refresh(self) -> None:
        """Difficulty -> bias -> tau -> weights, in place."""
        performance = self._performance()
        self.bias.copy_(performance_bias(performance, self._options.eps))
        if isinstance(self._tau, float):
            self.tau.fill_(self._tau)
        else:
            self.tau.copy_(tau_from_performance(self._tau, performance, self._options))
        if self.deferred:
            weights = torch.ones_like(self.class_weights)
        elif self._normalize:
            weights = normalize_weights(difficulty_weights(self.difficulty, self.tau))
        else:
            kept = self.class_weights.dtype
            weights = difficulty_weights(self.difficulty, self.tau, kept)
        self.class_weights.copy_(weights)

    @torch.no_grad()
    def update(self, performance: Tensor | Sequence[float] | NDArray[np.floating[Any]]) -> None:
        """Take the performance measured after an epoch; weights, tau and probabilities follow.

        Under ``torch.distributed`` every rank calls it and rank 0's numbers count, so that no
        rounding can drive the ranks apart: reduce counts over the ranks before
        (:class:`~.difficulty.ClassAccuracy` does).

        Args:
            performance: shape (C,), in [0, 1], higher is better (accuracy, AP, ...); NaN for a
                class that was not measured: it keeps its difficulty.

        Raises:
            ValueError: for another shape, a value more than 1e-6 outside [0, 1], or where no class
                was measured; the state is then unchanged.
        """
        performance = torch.as_tensor(
            performance, dtype=self.difficulty.dtype, device=self.difficulty.device
        )
        if performance.shape != (self.num_classes,):
            raise ValueError(
                f"expected the performance of {self.num_classes} classes, got a tensor of shape "
                f"{tuple(performance.shape)}"
            )
        performance = broadcast_from_first(performance)
        if bool(performance.isnan().all()):
            raise ValueError(
                "no class was measured; look for a loader without a batch (drop_last), a generator "
                "that is spent after its first pass, or labels that are all ignored; after an "
                "epoch that measures nothing leave the update out"
            )
        # Before the average, which would hide it.
        check_performance(performance)
        averaged = averaged_performance(
            performance.clamp(0.0, 1.0), self._performance(), self._average
        )
        self.difficulty.copy_(difficulty_from_performance(averaged, self.difficulty))
        self.measured.masked_fill_(~performance.isnan(), 1.0)
        self.updates += 1
        self._refresh()

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities of CDB-S (Eq. 15), shape (C,), float64, summing to 1.

        Equal while :attr:`deferred`; the sampler should then draw each image alike
        (:meth:`~.sampler.ClassProbabilitySampler.set_instance_balanced`).
        """
        if self.deferred:
            return torch.full_like(self.difficulty, 1.0 / self.num_classes)
        weights = difficulty_weights(self.difficulty, self.tau)
        return weights / weights.sum()

    def sample_weights(
        self,
        labels: Labels,
        ignore_index: int | None = None,
        background_weight: float | None = None,
    ) -> Tensor:
        """w_{y_i} of each sample: :func:`~.weights.sample_weights`."""
        return sample_weights(self.class_weights, labels, ignore_index, background_weight)

    def weighted_mean(
        self,
        losses: Tensor,
        labels: Labels,
        ignore_index: int | None = None,
        background_weight: float | None = None,
    ) -> Tensor:
        """CDB-W of any per-sample loss (Eqs. 12 and 14), reduced to a 0-d loss.

        Args:
            losses: shape (B,), or any other, as (B, H, W) of pixels.
            labels: of the same shape, 0..C-1.
            ignore_index: the label of what is left out (often 255 or -100).
            background_weight: of label C, which is then background (a detector's proposals).

        Raises:
            TypeError: for labels that are not integers.
            ValueError: for losses of another shape, for instance a loss that is a mean already, or
                a label outside 0..C-1 (with background 0..C) on a CPU.
        """
        labels = as_labels(labels, self.class_weights.device)
        counted = None if ignore_index is None else labels != ignore_index
        weights = self.sample_weights(labels, ignore_index, background_weight)
        return weighted_mean(losses, weights, self._reduction, counted)

    def _weighted_loss(
        self, loss: PerSampleLoss, ignore_index: int | None, logits: Tensor, labels: Tensor
    ) -> Tensor:
        return self.weighted_mean(loss(logits, labels), labels, ignore_index)

    def weighted(
        self, loss: PerSampleLoss, ignore_index: int | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The CDB-W version of a per-sample loss: logits (B, C), labels (B,) -> 0-d loss.

        It can be pickled where ``loss`` can. A copy, as another process gets it, follows the copy
        of the balancer that is pickled with it.

        >>> from .losses import focal_loss
        >>> cdb_w_fl = ClassDifficultyBalancer(num_classes=3).weighted(focal_loss)
        >>> cdb_w_fl(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(0.7324)
        """
        return partial(self._weighted_loss, loss, ignore_index)
