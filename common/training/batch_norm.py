"""Batch normalisation over the samples of all ranks (Ioffe and Szegedy 2015).

W ranks with B / W samples each then equal one process with B samples. On CUDA that is torch's own
``nn.SyncBatchNorm``, which refuses tensors of the CPU; for these there is a small module here.
Shapes: N samples of a rank, C channels.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from common.distributed import all_reduce_sum, is_distributed, world_size


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Let every batch normalisation of ``model`` take its statistics from all ranks.

    Parameters, buffers and their names stay what they were, so checkpoints of one process and of
    several are the same. Without a process group of two or more ranks nothing changes.

    Args:
        model: on the device where it will be trained.

    Returns:
        ``model``, its layers replaced in place; another module if it is such a layer itself.
    """
    if not is_distributed():
        return model
    if _is_on_cuda(model):
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    return _convert(model)


def _is_on_cuda(model: nn.Module) -> bool:
    return any(tensor.is_cuda for tensor in (*model.parameters(), *model.buffers()))


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm) and not isinstance(module, CpuSyncBatchNorm):
        return CpuSyncBatchNorm.like(module)
    for name, child in module.named_children():
        module.add_module(name, _convert(child))
    return module


class CpuSyncBatchNorm(_BatchNorm):
    """``nn.BatchNorm1d`` to ``3d`` whose statistics in training are those of all ranks' samples.

    Every rank must run it, with as many samples as it has, even none. In evaluation, and without a
    process group, it is torch's batch normalisation.
    """

    @classmethod
    def like(cls, layer: _BatchNorm) -> "CpuSyncBatchNorm":
        """One with the very parameters, buffers and settings of ``layer``."""
        copy = cls(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
        # The same objects, not copies: an optimiser may hold them already.
        copy._parameters, copy._buffers = layer._parameters, layer._buffers
        return copy.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of two or more dimensions, not {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...), of the same dtype.

        Raises:
            ValueError: in training, when all ranks together have fewer than two values a channel.
        """
        if not self.training or not is_distributed():
            result: Tensor = super().forward(input)
            return result
        self._check_input_dim(input)
        mean, variance, count = _statistics(input.detach())
        if count < 2:
            raise ValueError(f"batch normalisation needs two or more values a channel, not {count}")
        self._track(mean, variance * (count / (count - 1)))
        inverse_std = (variance + self.eps).rsqrt()
        output: Tensor = _Normalise.apply(input, self.weight, self.bias, mean, inverse_std, count)
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics as torch does."""
        if self.num_batches_tracked is None or self.running_mean is None:
            return
        assert self.running_var is not None
        self.num_batches_tracked += 1
        # No momentum: the mean over all batches so far.
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def _sum_over_samples(values: Tensor) -> Tensor:
    """(N, C, ...) -> (C,): the sum over everything but the channel."""
    return values.sum([d for d in range(values.dim()) if d != 1])


def _over_channels(values: Tensor, like: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), to go with ``like``."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _statistics(input: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and (biased) variance (C,), float64, of all ranks' values, and their number a channel.

    Each rank gives its number, its mean and its sum of squared deviations from it: sums of squares
    alone would lose digits where the mean is large (Chan et al. 1983).
    """
    values = input if input.dtype == torch.float64 else input.float()
    channels = input.shape[1]
    count = input.numel() // channels
    mean = _sum_over_samples(values) / max(count, 1)
    deviations = _sum_over_samples((values - _over_channels(mean, values)).square_())
    ours = torch.cat([mean.double(), deviations.double(), mean.new_tensor([count]).double()])
    ranks = [torch.empty_like(ours) for _ in range(world_size())]
    dist.all_gather(ranks, ours)
    means, squares, counts = torch.stack(ranks).split([channels, channels, 1], dim=1)
    total = int(counts.sum())
    shares = counts / max(total, 1)
    common = (shares * means).sum(0)
    variance = squares.sum(0) / max(total, 1) + (shares * (means - common).square()).sum(0)
    return common, variance, total


class _Normalise(torch.autograd.Function):
    """(x - mean) / std * weight + bias, where mean and std depend on all ranks' x."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        count: int,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, inverse_std)
        ctx.count = count
        # One multiplication and one addition a value: x scale + shift.
        scale = inverse_std if weight is None else inverse_std * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        precision = torch.promote_types(input.dtype, torch.float32)
        scale, shift = (_over_channels(v.to(precision), input) for v in (scale, shift))
        return torch.addcmul(shift, input.to(precision), scale).to(input.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Ioffe and Szegedy's Sec. 3, the two sums being over all ranks.

        The gradients of weight and bias are this rank's share, as those of every other layer.
        """
        input, weight, mean, inverse_std = ctx.saved_tensors
        precision = torch.promote_types(input.dtype, torch.float32)
        mean, inverse_std = (_over_channels(v.to(precision), input) for v in (mean, inverse_std))
        normalised = (input - mean) * inverse_std
        by_bias = _sum_over_samples(gradient.to(precision))
        by_weight = _sum_over_samples(gradient * normalised)
        sums = all_reduce_sum(torch.stack([by_bias, by_weight]).double() / ctx.count)
        constant, slope = (_over_channels(v.to(precision), input) for v in sums)
        scale = inverse_std if weight is None else inverse_std * _over_channels(weight, input)
        by_input = scale * (gradient - constant - normalised * slope)
        needs = ctx.needs_input_grad
        return (
            by_input.to(input.dtype) if needs[0] else None,
            by_weight.to(weight.dtype) if needs[1] else None,
            by_bias.to(weight.dtype) if needs[2] else None,
            None, None, None,
        )  # fmt: skip
