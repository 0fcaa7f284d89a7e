"""Logit adjustment post hoc (Menon et al. 2021, Sec. 4.1), not in the paper. Shapes: C classes."""

from typing import Any

import torch
from torch import Tensor, nn

from common.streams import Streams
from common.training.methods.base import PostHocMethod
from common.training.methods.logit_adjustment import LogitAdjustmentSettings


class LogitAdjustmentPostHoc(PostHocMethod):
    """Cross-entropy; what is tested takes the argmax of z_c - tau log pi_c (Eq. 9).

    pi_c = n_c / sum(n) is the share of the training samples that class c has.
    """

    Settings = LogitAdjustmentSettings
    needs_bias = True
    adjustment: Tensor
    """tau log pi_c, (C,), float64."""

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """See :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        counts = data.train_counts.double()
        # xlogy: 0 for tau = 0, also of a class without a sample.
        adjustment = torch.xlogy(config.la_tau, counts / counts.sum())
        self.register_buffer("adjustment", adjustment, persistent=False)

    def change(self, classifier: nn.Linear) -> None:
        """The bias takes the adjustment."""
        classifier.bias.sub_(self.adjustment)
