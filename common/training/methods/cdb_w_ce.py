"""CDB-W-CE, the paper's weighted loss."""

from torch import Tensor

from common.training.methods.base import DifficultyMethod


class CdbWCe(DifficultyMethod):
    """CDB-W-CE (Eq. 12): cross-entropy, each sample weighted by the difficulty of its class."""

    def reduce(
        self, losses: Tensor, labels: Tensor, sample_weights: Tensor | None = None
    ) -> Tensor:
        """Weighted by class; divided as the balancer does."""
        return self.balancer.weighted_mean(losses, labels)
