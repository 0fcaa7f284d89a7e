"""Logit adjustment as a loss (Menon et al. 2021), which is not in the paper. Shapes: C classes."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from common.losses import logit_adjusted_loss
from common.training.methods.balanced_softmax import BalancedSoftmax
from common.training.settings import MethodSettings, Setting


@dataclass(frozen=True)
class LogitAdjustmentSettings(MethodSettings):
    """Of logit adjustment."""

    la_tau: Annotated[
        float,
        Setting(
            "logit-adjustment, and post hoc: factor of the logarithm of each class's share; with "
            "1 the loss is that of balanced-softmax.",
            at_least=0,
            earlier=1.0,
        ),
    ] = 1.0


class LogitAdjustment(BalancedSoftmax):
    """Balanced Softmax with a factor before the logarithm of each class's share."""

    Settings = LogitAdjustmentSettings

    def losses(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """See :func:`common.losses.logit_adjusted_loss`."""
        return logit_adjusted_loss(logits, labels, self.class_counts, self.config.la_tau)
