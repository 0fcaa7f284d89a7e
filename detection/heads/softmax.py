"""Softmax over the categories and background: CE, CDB-W-CE, LRW.

Shapes: R proposals, C categories; background is index C.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.losses import REDUCTIONS, Reduction, cross_entropy, weighted_mean
from common.weights import class_balanced_weights, sample_weights
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


Reduce = Callable[[Tensor, Tensor], Tensor]
"""Losses (R,) and labels (R,), 0..C -> the loss, 0-d."""


class SoftmaxHead(ClassificationHead):
    """Cross-entropy over C categories and background (Eq. 11), weighted by class (Eq. 12).

    Alone it is CE (and RFS and CDB-S, which sample images); with a balancer's ``weighted_mean`` as
    ``reduce`` it is CDB-W-CE; with :func:`lrw_class_weights` it is LRW. Background weighs 1.

    Under ``torch.distributed``: :func:`common.losses.weighted_mean`; the mean of the ranks'
    gradients is the gradient of all proposals, however many a rank has, even none, and each rank
    must call the loss in every step.

    >>> head = SoftmaxHead(2, class_weights=torch.tensor([0.5, 1.5]))
    >>> head.loss(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    tensor(1.0986)
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        class_weights: Tensor | None = None,
        *,
        reduction: Reduction = "batch-size",
        reduce: Reduce | None = None,
    ) -> None:
        """See :class:`ClassificationHead`.

        Args:
            num_classes: C.
            class_weights: fixed w_c of the categories, shape (C,); they move with the head and are
                not saved with it. None: all 1.
            reduction: what the weighted losses are divided by.
            reduce: in place of both, losses (R,) and labels (R,), 0..C, to the loss, 0-d: for
                CDB-W-CE ``partial(balancer.weighted_mean, background_weight=1.0)``, never the
                balancer itself, which would be saved with the model.

        Raises:
            ValueError: for another number of weights, a negative one, an unknown reduction, or
                class weights beside ``reduce``.
        """
        super().__init__(num_classes, num_classes + 1)
        if class_weights is not None:
            check_category_values(class_weights, num_classes, "class weights")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        if reduce is not None and class_weights is not None:
            raise ValueError("class weights have no effect beside reduce; leave one of them out")
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.reduction: Reduction = reduction
        self.reduce = reduce

    def _weighted_mean(self, losses: Tensor, labels: Tensor) -> Tensor:
        weights = torch.ones_like(losses)
        if self.class_weights is not None:
            weights = sample_weights(self.class_weights, labels, background_weight=1.0)
        return weighted_mean(losses, weights, self.reduction)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of -log p_y; logits (R, C + 1), labels (R,) -> 0-d; of no proposal 0."""
        losses = cross_entropy(full_precision(logits), labels)
        return (self.reduce or self._weighted_mean)(losses, labels)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over C + 1 logits without background's, (R, C)."""
        return full_precision(logits).softmax(dim=1)[:, : self.num_classes]
