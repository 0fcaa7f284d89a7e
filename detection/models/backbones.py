"""Networks from images to feature maps: ResNet-50-FPN, and a small ResNet-FPN for small images.

Shapes: B images, H x W pixels. Every level of a pyramid has the same number of channels,
``out_channels``, as torchvision's detectors ask for.
"""

from collections import OrderedDict
from functools import partial
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

ALL_LAYERS: Final = 5
"""Trainable parts of a ResNet-50: its stem and its four stages."""
_GROUPS: Final = 8


def make_resnet50_fpn(trainable_layers: int) -> nn.Module:
    """Torchvision's ResNet-50-FPN: levels "0".."3" of strides 4..32 and "pool" of stride 64.

    Batch normalisation is frozen (statistics and affine part), with eps = 0: torchvision's COCO
    weights ask for that, and eps would not be in a checkpoint. :mod:`detection.models.pretrained`
    adds ImageNet weights' eps to their variances instead, which gives the same numbers.

    Args:
        trainable_layers: how many parts, from the last stage on, are trained, 0-5.
    """
    backbone: nn.Module = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=partial(FrozenBatchNorm2d, eps=0.0),
        trainable_layers=trainable_layers,
    )
    return backbone


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution padded by half its (odd) kernel, and group normalisation.

    Not batch normalisation: batches of few images are too noisy for it, and its statistics would
    have to be frozen in the second stage.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.GroupNorm(_GROUPS, outputs))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """``stride`` 2 halves H and W."""
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, 3, stride)
        self.conv2 = _convolution(outputs, outputs, 3)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        return F.relu(y + self.downsample(x), inplace=True)


class SmallResNetFpn(nn.Module):
    """A stem, three stages of one residual block each, and a feature pyramid of their outputs.

    Levels "0", "1" and "2" have strides 4, 8 and 16: for objects of about 8 to 100 pixels.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 48, 64), out_channels: int = 48) -> None:
        """Lay out the network; it draws from torch's global generator.

        Args:
            widths: channels of the stages, multiples of 8; the stem has as many as the first.
            out_channels: of every level.
        """
        super().__init__()
        self.stem = _convolution(3, widths[0], 5, stride=2)
        inputs = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            ResidualBlock(before, after, stride=2)
            for before, after in zip(inputs, widths, strict=True)
        )
        self.fpn = FeaturePyramidNetwork(list(widths), out_channels)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W), H and W multiples of 16 -> levels by name, finest first."""
        x = F.relu(self.stem(images), inplace=True)
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for i, stage in enumerate(self.stages):
            x = stage(x)
            levels[str(i)] = x
        pyramid: dict[str, Tensor] = self.fpn(levels)
        return pyramid
