"""CDB-W-CE, the paper's weighted loss, of proposals."""

from functools import partial

from detection.heads import ClassificationHead, SoftmaxHead
from detection.methods.base import DifficultyMethod


class CdbWCe(DifficultyMethod):
    """CDB-W-CE (Eq. 12): cross-entropy, each proposal weighted by the difficulty of its category.

    Background weighs 1.
    """

    def head(self) -> ClassificationHead:
        """The softmax, reduced by the balancer; it has the function, never the module."""
        head = super().head()
        assert isinstance(head, SoftmaxHead)
        head.reduce = partial(self.balancer.weighted_mean, background_weight=1.0)
        return head
