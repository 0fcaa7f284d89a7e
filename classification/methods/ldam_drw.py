"""LDAM-DRW (Cao et al. 2019). Shapes: B samples a step, C classes."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from common import weights
from common.errors import UserError
from common.losses import LdamLoss, Reduction
from common.streams import Streams
from common.training.methods.base import LogitMethod
from common.training.methods.cb import CB_BETA, CbSettings
from common.training.settings import Setting


@dataclass(frozen=True)
class LdamSettings(CbSettings):
    """Of LDAM-DRW."""

    usual_reduction: ClassVar[Reduction] = "weight-sum"  # As Cao et al.
    ldam_margin: Annotated[float, Setting("ldam-drw: margin of the rarest class.", at_least=0)] = (
        0.5
    )
    ldam_scale: Annotated[
        float, Setting("ldam-drw: s, which the cosines are multiplied by.", above=0)
    ] = 30.0
    drw_epoch: Annotated[
        int | None,
        Setting(
            "ldam-drw: class weights from after this epoch on; None: the first milestone.",
            at_least=0,
        ),
    ] = None
    cb_beta: Annotated[
        float,
        replace(
            CB_BETA,
            documentation="cb, and the second phase of ldam-drw: beta of the effective number of "
            "samples.",
        ),
    ] = 0.9999

    @staticmethod
    def check(config: Any) -> None:
        """Refuse a run that does not tell when the weights come into force."""
        if config.drw_epoch is None and not config.milestones:
            raise UserError("--method ldam-drw without --milestones needs --drw-epoch.")


class LdamDrw(LogitMethod):
    """Margins for a cosine classifier; after ``drw_epoch`` class-balanced weights (DRW)."""

    Settings = LdamSettings
    cosine = True
    class_weights: Tensor
    """In force, (C,), changed in place."""
    later_weights: Tensor
    """Those of the second phase, (C,)."""

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Start with equal weights; see :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        self.loss = LdamLoss(
            data.train_counts, max_margin=config.ldam_margin, scale=config.ldam_scale
        )
        later = weights.class_balanced_weights(data.train_counts, config.cb_beta)
        self.register_buffer("later_weights", later.to(torch.float32), persistent=False)
        self.register_buffer("class_weights", torch.ones_like(self.later_weights))

    @property
    def drw_epoch(self) -> int:
        """Complete epochs from which on the weights are in force."""
        chosen: int | None = self.config.drw_epoch
        return self.config.milestones[0] if chosen is None else chosen

    def before_epoch(self, epoch: int) -> None:
        """Put the weights in force if it is time."""
        super().before_epoch(epoch)
        begun = epoch >= self.drw_epoch
        self.class_weights.copy_(
            self.later_weights if begun else torch.ones_like(self.class_weights)
        )

    def losses(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """See :class:`common.losses.LdamLoss`."""
        losses: Tensor = self.loss(logits, labels)
        return losses

    def reduce(
        self, losses: Tensor, labels: Tensor, sample_weights: Tensor | None = None
    ) -> Tensor:
        """Weighted by class."""
        return super().reduce(losses, labels, weights.sample_weights(self.class_weights, labels))
