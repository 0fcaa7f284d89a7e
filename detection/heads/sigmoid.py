"""One sigmoid a category, no logit for background: focal loss and the equalization loss.

Shapes: R proposals, C categories; background is label C, a target of zeros.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import all_reduce_sum, world_size
from detection.heads.base import ClassificationHead, check_category_values, full_precision

FocalDivisor = Literal["foreground", "proposals", "elements"]
FOCAL_DIVISORS: tuple[FocalDivisor, ...] = get_args(FocalDivisor)


def _bias_of(score: float) -> float:
    """The logit of a score in (0, 1)."""
    return math.log(score / (1.0 - score))


class SigmoidHead(ClassificationHead):
    """A score for each category by itself; what its two losses share.

    A new layer begins with scores of :attr:`prior`: at 0.5 a thousand categories' negatives would
    swamp the first steps.
    """

    prior: float = 0.01
    """Lin et al. 2017, Sec. 4.1."""

    def __init__(self, num_classes: int) -> None:
        """One logit for each of the ``num_classes`` categories."""
        super().__init__(num_classes, num_classes)
        self.first_bias = _bias_of(self.prior)

    def targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """y: 1 at a proposal's category, else 0; (R, C), background all 0."""
        targets = logits.new_zeros(len(logits), self.num_classes + 1)
        return targets.scatter_(1, labels[:, None], 1.0)[:, : self.num_classes]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid of the logits, (R, C)."""
        return full_precision(logits).sigmoid()


class FocalHead(SigmoidHead):
    """Sigmoid focal loss (Lin et al. 2017): -alpha_t (1 - p_t)^gamma log p_t, summed.

    p_t = p and alpha_t = alpha at a proposal's own category, 1 - p and 1 - alpha at the others.

    What the sum is divided by is a choice that scales the learning rate. ``foreground``, the
    default, is Lin et al.'s: the proposals that are not background, at least 1; under
    ``torch.distributed`` their mean over the ranks, so that the mean of the gradients is the
    gradient of the whole batch, and each rank must call the loss in every step. ``proposals``: R of
    this rank. ``elements``: R (C + 1) of this rank, the mean over proposals and classes that the
    code of Li et al. 2020 takes for the 'Focal-clc' of Table 5, a loss thousands of times smaller.
    That code has also a sigmoid for background, which is left out here: its divisor is theirs, the
    term is not.

    >>> head = FocalHead(2, gamma=0.0, alpha=0.5)
    >>> head.loss(torch.zeros(2, 2), torch.tensor([0, 2]))  # 4 terms of log(2) / 2
    tensor(1.3863)
    """

    def __init__(
        self,
        num_classes: int,
        gamma: float = 2.0,
        alpha: float = 0.25,
        *,
        divide_by: FocalDivisor = "foreground",
    ) -> None:
        """See :class:`ClassificationHead`.

        Args:
            num_classes: C.
            gamma: focusing parameter, >= 0.
            alpha: weight of the own category against the others, in [0, 1].
            divide_by: see above.

        Raises:
            ValueError: for gamma or alpha out of range, or an unknown divisor.
        """
        super().__init__(num_classes)
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0, not {gamma}")
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        if divide_by not in FOCAL_DIVISORS:
            raise ValueError(
                f"divide_by must be one of {', '.join(FOCAL_DIVISORS)}, not {divide_by!r}"
            )
        self.gamma, self.alpha = gamma, alpha
        self.divide_by: FocalDivisor = divide_by

    def _divisor(self, logits: Tensor, labels: Tensor) -> Tensor | int:
        if self.divide_by == "foreground":
            foreground = (labels < self.num_classes).sum().to(logits.dtype)
            return all_reduce_sum(foreground).clamp_min(1.0) / world_size()
        each = 1 if self.divide_by == "proposals" else self.num_classes + 1
        return max(len(logits), 1) * each

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Focal loss over its divisor; logits (R, C), labels (R,) -> 0-d."""
        logits = full_precision(logits)
        targets = self.targets(logits, labels)
        # p_t is the sigmoid of z at the own category, of -z at the others.
        signed = torch.where(targets > 0, logits, -logits)
        # (1 - p_t)^gamma from log(1 - p_t): finite gradient for any gamma where p_t rounds to 1.
        modulator = torch.exp(self.gamma * F.logsigmoid(-signed))
        alpha_t = self.alpha * targets + (1.0 - self.alpha) * (1.0 - targets)
        total = -(alpha_t * modulator * F.logsigmoid(signed)).sum()
        return total / self._divisor(logits, labels)


class EqlHead(SigmoidHead):
    """Equalization loss, sigmoid form (Tan et al. 2020): rare categories get fewer negatives.

    sum_j w_j BCE_j / R with w_j = 1 - E(r) T(f_j) (1 - y_j): E = 1 on foreground proposals, T = 1
    where the share of images f_j < lambda. A rare category is pushed down by background only.

    Under ``torch.distributed`` a rank divides by its own R: the mean of all where every rank has as
    many proposals (the usual case: each image gives a fixed number).
    """

    prior = 0.001
    """Of the authors' code."""
    rare: Tensor

    def __init__(self, num_classes: int, image_share: Tensor, threshold: float = 1.76e-3) -> None:
        """See :class:`ClassificationHead`.

        Args:
            num_classes: C.
            image_share: f_j, share of the training images that contain category j, shape (C,).
            threshold: lambda; 1.76e-3 on LVIS v0.5 (about 100 of its images).

        Raises:
            ValueError: for another number of shares or a negative one, or when no category falls
                under the threshold: the loss would be plain sigmoid cross-entropy.
        """
        super().__init__(num_classes)
        check_category_values(image_share, num_classes, "image shares")
        rare = image_share < threshold
        if not bool(rare.any()):
            raise ValueError(
                f"no category is in less than a share of {threshold} of the images, so EQL would "
                "change nothing; choose a larger threshold"
            )
        self.register_buffer("rare", rare, persistent=False)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Equalization loss over R; logits (R, C), labels (R,) -> 0-d."""
        logits = full_precision(logits)
        targets = self.targets(logits, labels)
        foreground = labels < self.num_classes
        # w_j = 1 - E(r) T(f_j) (1 - y_j)
        ignored = foreground[:, None] & self.rare & (targets == 0)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return losses.masked_fill(ignored, 0.0).sum() / max(len(logits), 1)
