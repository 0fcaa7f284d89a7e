"""Learning to reweight (Ren et al. 2018): sample weights from the gradient of a balanced batch.

Shapes: B training samples, V samples of the balanced (difficulty) set.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from classification.methods.meta_gradients import (
    balanced_gradient,
    detached_parameters,
    loss_slopes,
    sum_to_one,
)
from common.training.methods.base import LogitMethod
from common.training.settings import MethodSettings, Setting


@dataclass(frozen=True)
class L2rwSettings(MethodSettings):
    """Of L2RW."""

    l2rw_batch_size: Annotated[
        int, Setting("l2rw: images of the difficulty set in each meta step.", at_least=1)
    ] = 100


def reweight(
    model: nn.Module, images: Tensor, labels: Tensor, balanced: tuple[Tensor, Tensor]
) -> Tensor:
    """Weights that most reduce the loss on the balanced batch, to first order.

    Ren et al.: theta'(eps) = theta - lr grad(sum_i eps_i l_i) at eps = 0, then
    u_i = max(-dL_balanced(theta') / d eps_i, 0) and w_i = u_i / sum u. At eps = 0 theta' is theta,
    so  -dL/d eps_i = lr <grad L_balanced(theta), grad l_i(theta)>  exactly: the derivative of l_i
    along the balanced gradient, one forward-mode pass for the whole batch. lr cancels.

    BatchNorm, in training mode, uses the statistics of the batch in both passes; the running ones
    are not touched. Under ``torch.autocast`` both passes run in its precision. Nothing waits for
    the device.

    Args:
        model: parameters, their gradients and buffers are left as they are.
        images: shape (B, ...).
        labels: shape (B,).
        balanced: images (V, ...) and labels (V,).

    Returns:
        w, shape (B,), >= 0, sum 1; all 0 when no sample helps. No gradient flows through it.
    """
    parameters = detached_parameters(model)
    direction = balanced_gradient(model, parameters, balanced)
    slopes = loss_slopes(model, parameters, direction, images, labels)
    return sum_to_one(slopes.clamp_min(0.0))


class L2rw(LogitMethod):
    """Cross-entropy, each sample weighted by how much it helps on a balanced batch."""

    Settings = L2rwSettings
    whole_batch = needs_difficulty = True

    def draw(self, batch_size: int) -> Tensor:
        """Images of the difficulty set, with replacement, (V,)."""
        number, size = len(self.data.difficulty.labels), self.config.l2rw_batch_size
        return torch.randint(number, (size,), generator=self.streams["l2rw"])

    def sample_weights(
        self, model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None
    ) -> Tensor:
        """See :func:`reweight`."""
        # Theirs sum to 1 over the batch; 1 on average keeps every reduction comparable.
        return len(labels) * reweight(model, images, labels, self.data.difficulty.take(draws))
