"""Learning to reweight (Ren et al. 2018): sample weights from the gradient of a balanced batch.

Shapes: B training samples, V samples of the balanced (difficulty) set.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from classification.data import LabelledImages
from common.losses import cross_entropy


def reweight(
    model: nn.Module, images: Tensor, labels: Tensor, balanced: tuple[Tensor, Tensor]
) -> Tensor:
    """Weights that most reduce the loss on the balanced batch, to first order.

    Ren et al.: theta'(eps) = theta - lr grad(sum_i eps_i l_i) at eps = 0, then
    u_i = max(-dL_balanced(theta') / d eps_i, 0) and w_i = u_i / sum u. At eps = 0 theta' is theta,
    so  -dL/d eps_i = lr <grad L_balanced(theta), grad l_i(theta)>  exactly: the derivative of l_i
    along the balanced gradient, one forward-mode pass for the whole batch. lr cancels.

    Args:
        model: without state that a forward pass changes; parameters are not touched.
        images: shape (B, ...).
        labels: shape (B,).
        balanced: images (V, ...) and labels (V,).

    Returns:
        w, shape (B,), >= 0, sum 1; all 0 when no sample helps. No gradient flows through it.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def losses(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, weights, (x,)), y)

    direction = grad(lambda weights: losses(weights, *balanced).mean())(parameters)
    with warnings.catch_warnings():
        # torch's first forward-mode derivative compiles some with its deprecated torch.jit.
        warnings.simplefilter("ignore", FutureWarning)
        slope: Tensor = jvp(
            lambda weights: losses(weights, images, labels), (parameters,), (direction,)
        )[1]
    useful = slope.detach().clamp_min(0.0)
    return useful / torch.where(useful.any(), useful.sum(), 1.0)


class BalancedBatches:
    """Draws the balanced batches of :func:`reweight` with replacement, from its own generator."""

    def __init__(self, data: LabelledImages, size: int, generator: torch.Generator) -> None:
        """Remember where to draw from: ``size`` images a batch."""
        self._data, self._size, self._generator = data, size, generator

    def draw(self) -> tuple[Tensor, Tensor]:
        """Images (V, ...) and labels (V,)."""
        number = self._data.labels.numel()
        index = torch.randint(number, (self._size,), generator=self._generator)
        index = index.to(self._data.labels.device)
        return self._data.images[index], self._data.labels[index]
