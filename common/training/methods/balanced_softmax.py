"""Balanced Softmax (Ren et al. 2020), which is not in the paper. Shapes: C classes."""

from typing import Any

from torch import Tensor

from common.losses import balanced_softmax_loss
from common.streams import Streams
from common.training.methods.base import LogitMethod


class BalancedSoftmax(LogitMethod):
    """Cross-entropy of logits to which the logarithm of each class's samples is added."""

    class_counts: Tensor

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """See :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        self.register_buffer("class_counts", data.train_counts.clone(), persistent=False)

    def losses(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """See :func:`common.losses.balanced_softmax_loss`."""
        return balanced_softmax_loss(logits, labels, self.class_counts)
