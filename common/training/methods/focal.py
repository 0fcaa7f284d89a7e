"""Focal loss (Lin et al. 2017). Shapes: B samples a step, C classes."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from common.distributed import all_reduce_sum
from common.losses import focal_loss, focal_weights
from common.streams import Streams
from common.training.methods.base import LogitMethod
from common.training.settings import MethodSettings, Setting


@dataclass(frozen=True)
class FocalSettings(MethodSettings):
    """Of focal loss."""

    focal_gamma: Annotated[
        float, Setting("Focusing parameter of focal and cdb-w-fl.", at_least=0)
    ] = 1.0

    @property
    def hard_weight(self) -> float | None:
        """Samples of a larger focal weight are counted as hard (Figure 4); None: none is."""
        return None


@dataclass(frozen=True)
class HardInstanceSettings(FocalSettings):
    """Of the focal losses where they count hard instances."""

    hard_weight: Annotated[
        float,
        Setting(
            "focal, cdb-w-fl: samples of a larger focal weight are counted as hard (Figure 4).",
            at_least=0,
            at_most=1,
        ),
    ] = 0.8


class Focal(LogitMethod):
    """Focal loss (Lin et al. 2017): a sample counts the less, the surer the network is of it.

    Where asked, it counts for each class the samples of an epoch whose focal weight is above a
    bound, the hard instances of Figure 4.
    """

    Settings = FocalSettings
    hard_instances: Tensor | None

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Start with no hard instance; see :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        counted = config.hard_weight is not None
        counts = torch.zeros(data.num_classes) if counted else None
        self.register_buffer("hard_instances", counts)

    def before_epoch(self, epoch: int) -> None:
        """Count anew."""
        super().before_epoch(epoch)
        if self.hard_instances is not None:
            self.hard_instances.zero_()

    def losses(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """-(1 - p_y)^gamma log p_y, (B,)."""
        if self.hard_instances is not None:
            self._count(self.hard_instances, logits.detach(), labels)
        return focal_loss(logits, labels, self.config.focal_gamma)

    def _count(self, counts: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of this rank, for all ranks."""
        weights = focal_weights(logits, labels, self.config.focal_gamma)
        hard = (weights > self.config.hard_weight).to(counts.dtype)
        counts += all_reduce_sum(torch.zeros_like(counts).index_add_(0, labels, hard))

    def row(self) -> dict[str, Any]:
        """Of each class the number of hard instances, where they are counted."""
        if self.hard_instances is None:
            return {}
        return {"hard_instances": self.hard_instances.int().tolist()}
