"""Per-sample losses, and class weighting of any of them (Eqs. 11-14, Sec. 3.2.1).

Shapes: B batch, C classes. Every loss maps logits (B, C) and labels (B,) to losses (B,): a
weighting, a mean or a meta-learner can then be put on top of any of them.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .difficulty import Labels, as_labels
from .distributed import all_reduce_sum, is_distributed, world_size
from .streams import check_generator

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
Reduction = Literal["batch-size", "weight-sum", "sum"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def weighted_mean(
    losses: Tensor,
    sample_weights: Tensor,
    reduction: Reduction = "batch-size",
    counted: Tensor | None = None,
) -> Tensor:
    """Mean of w_i * loss_i; the paper does not say what it is divided by.

    ``batch-size``: sum_i w_i l_i / B, as the authors' CIFAR and EGTEA code. ``weight-sum``:
    sum_i w_i l_i / sum_i w_i, as their ImageNet-LT code and torch's ``CrossEntropyLoss(weight)``.
    ``sum``: sum_i w_i l_i, not divided at all. If all weights of the batch are 0, or if it is
    empty, the loss is 0.

    Under ``torch.distributed`` the divisor is that of all ranks' batches over the number of ranks,
    so that the mean of the ranks' gradients is the gradient of the whole batch, however it is
    shared, even with nothing for some rank; each rank must call it in every step.

    Args:
        losses: shape (B,), or any other, as (B, H, W) of pixels: B is then the number of them.
        sample_weights: of the same shape, >= 0.
        reduction: what to divide by.
        counted: of the same shape, bool: False where a loss is left out, of B too; None: all count.

    Returns:
        0-d, of the losses' dtype; float32 for those of less precision, in which a sum of many ends.

    Raises:
        ValueError: for an unknown reduction, or when the two shapes differ.

    >>> losses, weights = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0])
    >>> weighted_mean(losses, weights), weighted_mean(losses, weights, "weight-sum")
    (tensor(1.7500), tensor(2.3333))
    """
    if losses.shape != sample_weights.shape:
        # Without this a loss that is already a mean would be broadcast, and weighted by nothing.
        raise ValueError(
            f"losses of shape {tuple(losses.shape)} cannot be weighted by weights of shape "
            f"{tuple(sample_weights.shape)}; give one loss per sample (reduction='none')"
        )
    losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
    weights = sample_weights.to(losses.dtype)
    weighted = weights * losses
    if counted is not None:
        # Not by a weight of 0: what is left out may be NaN.
        weights, weighted = weights.where(counted, 0.0), weighted.where(counted, 0.0)
    if reduction == "batch-size":
        if counted is None and not is_distributed():
            return weighted.mean() if weighted.numel() else weighted.sum()
        number = losses.new_tensor(losses.numel()) if counted is None else counted.sum()
        total = all_reduce_sum(number.to(losses.dtype)) / world_size()
        return weighted.sum() / torch.where(total > 0, total, 1.0)
    if reduction == "weight-sum":
        total = all_reduce_sum(weights.sum()) / world_size()
        return weighted.sum() / torch.where(total > 0, total, 1.0)
    if reduction == "sum":
        return weighted.sum() * world_size()
    raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")


def cross_entropy(logits: Tensor, labels: Labels) -> Tensor:
    """-log p_y (Eq. 11). Shapes (B, C), (B,) -> (B,).

    As torch's, it takes probabilities (B, C) for labels, too.

    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])
    """
    if not (isinstance(labels, Tensor) and labels.is_floating_point()):
        labels = as_labels(labels, logits.device)
    return F.cross_entropy(logits, labels, reduction="none")


def focal_loss(logits: Tensor, labels: Labels, gamma: float = 1.0) -> Tensor:
    """-(1 - p_y)^gamma log p_y (Eq. 13; Lin et al. 2017), softmax p, gradient through both factors.

    Shapes (B, C), (B,) -> (B,).

    Args:
        logits: shape (B, C).
        labels: shape (B,).
        gamma: focusing parameter, >= 0; 0 is cross-entropy.

    Raises:
        ValueError: for gamma < 0.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be at least 0, not {gamma}")
    log_p = -cross_entropy(logits, labels)
    return -_focal_modulator(log_p, gamma) * log_p


def _focal_modulator(log_p: Tensor, gamma: float) -> Tensor:
    # 1 - p from expm1: exact where p is near 1. The clamp keeps the gradient of 0^gamma, which is
    # infinite for gamma < 1, finite.
    return (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma


@torch.no_grad()
def focal_weights(logits: Tensor, labels: Labels, gamma: float = 1.0) -> Tensor:
    """(1 - p_y)^gamma, the weight that focal loss gives each sample, in [0, 1], without gradient.

    Shapes (B, C), (B,) -> (B,); see :func:`focal_loss`.
    """
    return _focal_modulator(-cross_entropy(logits, labels), gamma)


def squared_error(logits: Tensor, labels: Labels) -> Tensor:
    """Mean over classes of (p_c - [c = y])^2, softmax p, in [0, 1]. (B, C), (B,) -> (B,)."""
    target = F.one_hot(as_labels(labels, logits.device), logits.shape[1]).to(logits.dtype)
    target = target.movedim(-1, 1)  # Of pixels: (B, H, W, C).
    return F.mse_loss(logits.softmax(dim=1), target, reduction="none").mean(dim=1)


def hinge_loss(logits: Tensor, labels: Labels, margin: float = 1.0) -> Tensor:
    """Multi-class hinge (Crammer and Singer 2001): max(0, margin + max_{c != y} z_c - z_y).

    Shapes (B, C), (B,) -> (B,).

    >>> hinge_loss(torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0]))
    tensor([0.5000])
    """
    labels = as_labels(labels, logits.device)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return F.relu(margin + others.amax(dim=1) - own)


def balanced_softmax_loss(logits: Tensor, labels: Labels, class_counts: Tensor) -> Tensor:
    """Balanced Softmax (Ren et al. 2020, Eq. 3): -log of n_y e^{z_y} / sum_k n_k e^{z_k}.

    Shapes (B, C), (B,), (C,) -> (B,). Not in the paper. It is :func:`logit_adjusted_loss` with tau
    = 1, to the bit: n_k and pi_k = n_k / sum(n) differ by a factor that cancels.

    Args:
        logits: shape (B, C); the test takes their argmax as they are, without the counts.
        labels: shape (B,).
        class_counts: n_c of the training set, shape (C,), >= 0, on the device of the logits. A
            class without a sample is left out of the sum; a sample of it has an infinite loss.

    Returns:
        Of the logits' dtype; float32 for those of less precision.

    Raises:
        ValueError: for counts of another shape than (C,).

    >>> balanced_softmax_loss(torch.zeros(2, 2), [0, 1], torch.tensor([3, 1])).exp()
    tensor([1.3333, 4.0000])
    """
    # n_k e^{z_k} / sum(n) = e^{z_k + log pi_k}
    return logit_adjusted_loss(logits, labels, class_counts, tau=1.0)


def logit_adjusted_loss(
    logits: Tensor, labels: Labels, class_counts: Tensor, tau: float = 1.0
) -> Tensor:
    """Logit adjustment (Menon et al. 2021, Eq. 10): cross-entropy of z_k + tau log pi_k.

    pi_k = n_k / sum(n) is the share of the training samples that class k has. Shapes (B, C), (B,),
    (C,) -> (B,). Not in the paper. With tau = 1 it is :func:`balanced_softmax_loss`.

    Args:
        logits: shape (B, C); the test takes their argmax as they are, without the shares.
        labels: shape (B,).
        class_counts: n_c of the training set, shape (C,), >= 0, on the device of the logits. A
            class without a sample is left out of the softmax; a sample of it has an infinite loss.
        tau: how far the shares count, >= 0; 0 is cross-entropy.

    Returns:
        Of the logits' dtype; float32 for those of less precision.

    Raises:
        ValueError: for tau < 0 or not finite, or counts of another shape than (C,).

    >>> logit_adjusted_loss(torch.zeros(2, 2), [0, 1], torch.tensor([3, 1]), tau=2.0).exp()
    tensor([ 1.1111, 10.0000])
    """
    if not 0 <= tau < math.inf:
        raise ValueError(f"tau must be at least 0 and finite, not {tau}")
    if class_counts.shape != logits.shape[1:2]:
        # Without this one number would be broadcast, and adjust nothing.
        raise ValueError(
            f"class_counts of shape {tuple(class_counts.shape)} do not fit logits of shape "
            f"{tuple(logits.shape)}; give one count per class"
        )
    counts = class_counts.to(torch.promote_types(logits.dtype, torch.float32))
    # tau log pi_k; xlogy: 0 for tau = 0, also of a class without a sample.
    adjustment = torch.xlogy(tau, counts / counts.sum())
    return cross_entropy((logits.movedim(1, -1) + adjustment).movedim(-1, 1), labels)


class SoftmaxEqualizationLoss(nn.Module):
    """Softmax form of the equalization loss (Tan et al. 2020).

    p_y = e^{z_y} / sum_k w_k e^{z_k},  w_k = 1 - beta_k T(f_k) (1 - [k = y]): for a sample of
    another class, the logit of a rare class is left out of the softmax with probability gamma.
    """

    rare: Tensor

    def __init__(
        self,
        class_counts: Tensor,
        *,
        gamma: float = 0.9,
        threshold: float,
        generator: torch.Generator,
    ) -> None:
        """Mark the rare classes.

        Args:
            class_counts: n_c, shape (C,), on the device of the logits.
            gamma: probability of beta = 1, drawn for each sample and class, in [0, 1].
            threshold: lambda: T = 1 where n_c / sum(n) < lambda.
            generator: draws beta; the caller saves its state with the checkpoint.

        Raises:
            TypeError: without a generator.
            ValueError: for gamma outside [0, 1], or a threshold under which no or every class
                falls: the loss would be cross-entropy or undefined.
        """
        super().__init__()
        check_generator(generator)
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], not {gamma}")
        rare = class_counts / class_counts.sum() < threshold
        if not bool(rare.any()) or bool(rare.all()):
            raise ValueError(
                f"threshold {threshold} must lie between the smallest and the largest share of a "
                "class, so that some classes and not all are rare"
            )
        self.register_buffer("rare", rare, persistent=False)
        self.gamma = gamma
        self.generator = generator

    def draw(self, batch_size: int) -> Tensor:
        """Uniform numbers that decide beta for a batch: (B, C), in [0, 1)."""
        shape = (batch_size, self.rare.numel())
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def forward(self, logits: Tensor, labels: Labels, draws: Tensor | None = None) -> Tensor:
        """Losses (B,) from logits (B, C), labels (B,) and a :meth:`draw`; None: one is made."""
        if draws is None:
            draws = self.draw(len(logits))
        labels = as_labels(labels, logits.device)
        ignored = self.rare & (draws.to(logits.device) < self.gamma)
        # (1 - [k = y]): a sample's own class is never left out.
        ignored = ignored.scatter(1, labels[:, None], False)
        return cross_entropy(logits.masked_fill(ignored, float("-inf")), labels)


class LdamLoss(nn.Module):
    """Label-distribution-aware margin loss (Cao et al. 2019), for a cosine classifier.

    Cross-entropy of s (z - m_y e_y) with margins m_c = max_margin n_c^{-1/4} / max_k n_k^{-1/4}.
    """

    margins: Tensor

    def __init__(self, class_counts: Tensor, *, max_margin: float = 0.5, scale: float = 30.0):
        """Compute the margins.

        Args:
            class_counts: n_c, shape (C,), > 0, on the device of the logits.
            max_margin: the margin of the rarest class.
            scale: s.

        Raises:
            ValueError: when a class has no sample (its margin would be infinite).
        """
        super().__init__()
        if not bool((class_counts > 0).all()):
            raise ValueError("every class needs at least one training sample to have a margin")
        inverse_root = class_counts.to(torch.float64) ** -0.25
        margins = (max_margin * inverse_root / inverse_root.max()).to(torch.float32)
        self.register_buffer("margins", margins, persistent=False)
        self.scale = scale

    def forward(self, logits: Tensor, labels: Labels) -> Tensor:
        """Losses (B,) from cosines ``logits`` (B, C) in [-1, 1] and labels (B,)."""
        labels = as_labels(labels, logits.device)
        own = labels[:, None]
        shifted = logits.scatter_add(1, own, -self.margins.to(logits.dtype)[own])
        return cross_entropy(self.scale * shifted, labels)
