"""What the meta-learned sample weights share: losses as functions of the parameters, their slopes.

Shapes: B training samples, V samples of a balanced (difficulty) set. Nothing here waits for the
device, changes the model or draws a number inside a pass, so that a CUDA graph can capture it.
Under ``torch.autocast``, around the call or inside the model, the passes run in its precision.
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.overrides import TorchFunctionMode

from common.losses import cross_entropy

Parameters = dict[str, Tensor]
"""Every parameter of a model by name."""


def detached_parameters(model: nn.Module) -> Parameters:
    """The model's own parameters, not copied, cut off from its gradients."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def losses_at(model: nn.Module, parameters: Parameters, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample as the model would have it with other parameters.

    In training mode BatchNorm uses the batch's statistics; the running ones are left as they are.

    Args:
        model: only its structure, its mode and its buffers are used.
        parameters: in place of the model's.
        images: shape (B, ...), whatever the model takes.
        labels: shape (B,).

    Returns:
        Shape (B,), float32 or, of a float64 model, float64.
    """
    # Copied here, inside the differentiated function: a transform of torch.func refuses updates in
    # place of tensors from outside it, and the updates must not reach the model anyway.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    logits = functional_call(model, parameters | buffers, (images,))
    return cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)


def balanced_gradient(
    model: nn.Module, parameters: Parameters, balanced: tuple[Tensor, Tensor]
) -> Parameters:
    """Gradient of the mean loss of a balanced batch, images (V, ...) and labels (V,)."""
    gradient: Parameters = grad(lambda at: losses_at(model, at, *balanced).mean())(parameters)
    return gradient


class _FullBatchNorm(TorchFunctionMode):
    """Takes batch normalisation of bfloat16 maps in float32, and rounds what comes out.

    torch does the same inside, but its forward-mode derivative stays float32 beside a bfloat16
    value, and the next convolution refuses the two.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Batch normalisation in float32, everything else as it is."""
        if func is not F.batch_norm or args[0].dtype not in (torch.bfloat16, torch.float16):
            return func(*args, **(kwargs or {}))
        maps, *others = args
        return func(maps.float(), *others, **(kwargs or {})).to(maps.dtype)


def loss_slopes(
    model: nn.Module, parameters: Parameters, direction: Parameters, images: Tensor, labels: Tensor
) -> Tensor:
    """<direction, grad l_i> of every sample, shape (B,): one forward-mode pass for the batch.

    With BatchNorm l_i depends on the other images of the batch too; the slope is of exactly that.
    """
    with _FullBatchNorm(), warnings.catch_warnings():
        # torch's first forward-mode derivative compiles some with its deprecated torch.jit.
        warnings.simplefilter("ignore", FutureWarning)
        slopes: Tensor = jvp(
            lambda at: losses_at(model, at, images, labels), (parameters,), (direction,)
        )[1]
    return slopes.detach()


def sum_to_one(weights: Tensor) -> Tensor:
    """Weights >= 0 divided by their sum; all 0 where their sum is 0. (B,) -> (B,).

    >>> sum_to_one(torch.tensor([1.0, 3.0])), sum_to_one(torch.zeros(2))
    (tensor([0.2500, 0.7500]), tensor([0., 0.]))
    """
    return weights / torch.where(weights.any(), weights.sum(), 1.0)
