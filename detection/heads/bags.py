"""Balanced group softmax (BAGS; Li et al. 2020): categories of like frequency compete.

Shapes: R proposals, C categories, G bins of categories; background is label C.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from common.distributed import all_reduce_sum, world_size
from common.losses import cross_entropy
from detection.heads.base import (
    ClassificationHead,
    check_category_values,
    check_cpu,
    full_precision,
    keep_at_most,
    step_draws,
)

BIN_EDGES = (10, 100, 1000)


class BagsHead(ClassificationHead):
    """One softmax for each bin of categories, and one for background against foreground.

    Bins by instance count: under 10, [10, 100), [100, 1000), 1000 and more; a bin that has no
    category is left out. Each bin has one more logit, 'others', for every proposal that is of no
    category of the bin. The logits: C categories in their order, G 'others', background,
    foreground.

    Loss: in each bin the cross-entropy averaged over the bin's foreground proposals and at most
    ``beta`` random 'others' for each of them; a bin without foreground proposal gives 0. The bin of
    background and foreground is averaged over all proposals. Bins are summed.

    Scores: softmax in the bin, 'others' taking its part, times P(foreground).

    Under ``torch.distributed`` each rank chooses its own 'others', and a bin is averaged over the
    kept proposals of all ranks (``weight-sum`` of :func:`common.losses.weighted_mean`): the mean of
    the ranks' gradients is the gradient of the whole batch, and each rank must call the loss in
    every step.

    The only state is the generator's, which the caller saves; a loss uses up one number of it,
    however many proposals there are (:func:`detection.heads.base.step_draws`).
    """

    columns: Tensor
    targets: Tensor
    category_place: Tensor

    def __init__(
        self,
        num_classes: int,
        instance_counts: Tensor,
        beta: float = 8.0,
        *,
        generator: torch.Generator,
        edges: Sequence[int] = BIN_EDGES,
    ) -> None:
        """Put the categories into bins.

        Args:
            num_classes: C.
            instance_counts: instances of each category in the training set, shape (C,), >= 0.
            beta: at most so many 'others' for a foreground proposal of the bin, >= 0.
            generator: chooses them; a CPU generator of the head's own.
            edges: instance counts at which the second bin and each later one begin, ascending.

        Raises:
            ValueError: for another number of counts, a negative one, beta < 0, edges that do not
                ascend, or a generator that is not on the CPU.
        """
        check_category_values(instance_counts, num_classes, "instance counts")
        if beta < 0:
            raise ValueError(f"beta must be at least 0, not {beta}")
        if any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"edges must ascend, not {tuple(edges)}")
        check_cpu(generator)
        bins = torch.bucketize(instance_counts.cpu(), torch.tensor(tuple(edges)), right=True)
        numbers, bin_of_category = bins.unique(return_inverse=True)
        self._groups = numbers.numel()
        super().__init__(num_classes, num_classes + self._groups + 2)
        self.beta = beta
        self.generator = generator
        self._sizes = (bin_of_category.bincount() + 1).tolist()
        self._register_places(bin_of_category)

    def _register_places(self, bin_of_category: Tensor) -> None:
        """Where each bin's logits are, and each label's place in each bin."""
        c, groups = self.num_classes, self._groups
        members = [(bin_of_category == g).nonzero()[:, 0] for g in range(groups)]
        # 'others' is the last place of a bin, and the target unless a label is of the bin.
        targets = torch.tensor(self._sizes).sub(1).repeat(c + 1, 1)
        for g, of_bin in enumerate(members):
            targets[of_bin, g] = torch.arange(len(of_bin))
        columns = torch.cat([torch.cat([m, torch.tensor([c + g])]) for g, m in enumerate(members)])
        places = torch.empty(c + groups, dtype=torch.int64)
        places[columns] = torch.arange(c + groups)
        for name, value in [("columns", columns), ("targets", targets)]:
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("category_place", places[:c], persistent=False)

    def _split(self, logits: Tensor) -> list[Tensor]:
        """The logits of each bin, (R, n_g + 1), 'others' last."""
        return list(logits.index_select(1, self.columns).split(self._sizes, dim=1))

    def draw(self, proposals: int) -> Tensor:
        """Uniform numbers that choose the 'others' of one loss: (R, G), in [0, 1), on the CPU."""
        return step_draws(self.generator, proposals, self._groups)

    def kept(self, labels: Tensor, draws: Tensor) -> Tensor:
        """Which proposals count in which bin: labels (R,), draws (R, G) -> (R, G), bool."""
        targets = self.targets.index_select(0, labels)
        foreground = targets != self.targets[-1]  # background is 'others' in every bin
        limit = (self.beta * foreground.sum(dim=0)).floor()
        return foreground | keep_at_most(~foreground, limit, draws)

    def loss(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """Sum of the bins' means; logits (R, C + G + 2), labels (R,) -> 0-d.

        Args:
            logits: the logits.
            labels: 0..C.
            draws: of :meth:`draw`, on the device of the logits; None: they are made.
        """
        if draws is None:
            draws = self.draw(len(logits)).to(logits.device, non_blocking=True)
        logits = full_precision(logits)
        parts = [*self._split(logits), logits[:, -2:]]
        is_foreground = (labels < self.num_classes).long()
        targets = [*self.targets.index_select(0, labels).unbind(1), is_foreground]
        losses = torch.stack([cross_entropy(z, y) for z, y in zip(parts, targets, strict=True)], 1)
        everyone = torch.ones_like(labels, dtype=torch.bool)[:, None]
        weights = torch.cat([self.kept(labels, draws), everyone], dim=1).to(losses.dtype)
        total = all_reduce_sum(weights.sum(dim=0)) / world_size()
        return ((weights * losses).sum(dim=0) / torch.where(total > 0, total, 1.0)).sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax in the bin times P(foreground), (R, C)."""
        logits = full_precision(logits)
        in_bin = torch.cat([z.softmax(dim=1) for z in self._split(logits)], dim=1)
        foreground = logits[:, -2:].softmax(dim=1)[:, 1:]
        return in_bin.index_select(1, self.category_place) * foreground
