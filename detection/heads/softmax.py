"""Softmax over the categories and background: CE, CDB-W-CE, LRW.

Shapes: R proposals, C categories; background is index C.
"""

import torch
from torch import Tensor

from common.losses import REDUCTIONS, Reduction, cross_entropy, weighted_mean
from common.weights import class_balanced_weights
from detection.heads.base import ClassificationHead, check_category_values, full_precision

LRW_BETA = 0.999
LRW_RANGE = (0.1, 5.0)


def lrw_class_weights(instance_counts: Tensor) -> Tensor:
    """Class weights of LRW (Li et al. 2020): inverse effective number of instances, clipped.

    w_c = (1 - 0.999) / (1 - 0.999^n_c) over its mean, then clipped to [0.1, 5]. A category with no
    instance has no such weight: it is left out of the mean and gets 1, which no loss asks for.

    Args:
        instance_counts: n_c, instances in the training set, shape (C,), >= 0, at least one > 0.

    Returns:
        Shape (C,), float32, in [0.1, 5].

    Raises:
        ValueError: for a negative number, or when no category has an instance.

    >>> lrw_class_weights(torch.tensor([1, 1, 26000]))
    tensor([1.4993, 1.4993, 0.1000])
    """
    check_category_values(instance_counts, len(instance_counts), "instance counts")
    present = instance_counts > 0
    if not bool(present.any()):
        raise ValueError("no category has an instance; class weights need at least one")
    weights = torch.ones(len(instance_counts), device=instance_counts.device)
    # Scaled to sum C is over the mean.
    weights[present] = class_balanced_weights(instance_counts[present], LRW_BETA).float()
    return weights.clamp(*LRW_RANGE)


class SoftmaxHead(ClassificationHead):
    """Cross-entropy over C categories and background (Eq. 11), weighted by class (Eq. 12).

    Without class weights it is CE (and RFS and CDB-S, which sample images); with a balancer's
    ``class_weights`` it is CDB-W-CE; with :func:`lrw_class_weights` it is LRW. Background weighs 1.

    Under ``torch.distributed``: :func:`common.losses.weighted_mean`; the mean of the ranks'
    gradients is the gradient of all proposals, however many a rank has, even none, and each rank
    must call the loss in every step.

    >>> head = SoftmaxHead(2, class_weights=torch.tensor([0.5, 1.5]))
    >>> head.loss(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    tensor(1.0986)
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Tensor | None = None,
        *,
        reduction: Reduction = "batch-size",
    ) -> None:
        """See :class:`ClassificationHead`.

        Args:
            num_classes: C.
            class_weights: w_c of the categories, shape (C,), on the device of the logits; read in
                every step, so that a balancer's updates in place are seen; it is not copied, moved
                or saved with the head. None: all 1.
            reduction: what the weighted losses are divided by.

        Raises:
            ValueError: for another number of weights, a negative one, or an unknown reduction.
        """
        super().__init__(num_classes, num_classes + 1)
        if class_weights is not None:
            check_category_values(class_weights, num_classes, "class weights")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        # Not a buffer: moving the head would part it from the balancer's.
        self.class_weights = class_weights
        self.reduction: Reduction = reduction

    def _sample_weights(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Weight of each proposal's label, (R,); background 1."""
        if self.class_weights is None:
            return torch.ones_like(losses)
        weights = self.class_weights
        return torch.cat([weights, weights.new_ones(1)]).index_select(0, labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of -log p_y; logits (R, C + 1), labels (R,) -> 0-d."""
        losses = cross_entropy(full_precision(logits), labels)
        loss = weighted_mean(losses, self._sample_weights(losses, labels), self.reduction)
        # The mean of nothing is NaN; looked at only now, for the other ranks wait in the sum.
        return loss if len(losses) else losses.sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over C + 1 logits without background's, (R, C)."""
        return full_precision(logits).softmax(dim=1)[:, : self.num_classes]
