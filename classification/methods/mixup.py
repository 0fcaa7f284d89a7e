"""Input mixup (Zhang et al. 2018), which is not in the paper. Shapes: B samples a step, C classes.

Each image is mixed with another of the batch: x = s x_i + (1 - s) x_j, s drawn from
Beta(alpha, alpha); its loss is s CE(f(x), y_i) + (1 - s) CE(f(x), y_j), the cross-entropy with
equally mixed one-hot labels. As in their code there is one s a batch, whose permutation the
partners are.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from common.distributed import of_rank
from common.training.methods.base import LogitMethod
from common.training.settings import MethodSettings, Setting


@dataclass(frozen=True)
class MixupSettings(MethodSettings):
    """Of mixup."""

    mixup_alpha: Annotated[
        float,
        Setting(
            "mixup: alpha of Beta(alpha, alpha), which an image's share is drawn from; 1: any "
            "share is as likely.",
            above=0,
        ),
    ] = 1.0


def mixed(own: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Of each sample s own + (1 - s) partner: (B, ...), (B, ...), shares (B,) -> (B, ...).

    Of bytes the pixels are mixed, float32: scaling them afterwards is as scaling them before.
    """
    kind = torch.promote_types(own.dtype, torch.float32)
    shares = shares.to(kind).view(-1, *[1] * (own.dim() - 1))
    return shares * own.to(kind) + (1 - shares) * partners.to(kind)


class Mixup(LogitMethod):
    """Cross-entropy of images mixed in pairs, with the labels of both."""

    Settings = MixupSettings
    whole_batch = True  # A partner may be any rank's.

    def draw(self, batch_size: int) -> Tensor:
        """Of each sample its partner's place in the batch, and its own share: (B, 2), float64."""
        generator = self.streams["mixup"]
        partners = torch.randperm(batch_size, generator=generator)
        # torch draws Beta from its global generator alone. numpy promises for RandomState, and for
        # no newer distribution, that later versions draw the same.
        seed = int(torch.randint(2**32, (1,), generator=generator))
        alpha = self.config.mixup_alpha
        share = np.random.RandomState(seed).beta(alpha, alpha)
        return torch.stack(
            [partners.double(), torch.full((batch_size,), share, dtype=torch.float64)], dim=1
        )

    def batch_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        draws: Tensor | None = None,
        alone: nn.Module | None = None,
    ) -> Tensor:
        """Of this rank's share of the samples, mixed; see the module."""
        assert draws is not None
        partners, shares = of_rank(draws).unbind(1)
        partners = partners.long()
        own, others = of_rank(labels), labels.index_select(0, partners)
        logits = model(mixed(of_rank(images), images.index_select(0, partners), shares))
        losses = mixed(self.losses(logits, own), self.losses(logits, others), shares)
        return self.reduce(losses, own)
