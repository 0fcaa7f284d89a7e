"""3D-ResNeXt (Hara, Kataoka and Satoh 2018; ResNeXt: Xie et al. 2017).

Every network here takes pixels in [0, 255] and scales them itself: training, difficulty and test
clips cannot be normalised differently. It gives float32 logits whatever the precision of its
passes. Shapes: B batch, C classes, D features, T frames a clip, H x W pixels.

Modules bear the names of Hara et al.'s published weights, so that these can be loaded
(:mod:`video.models.checkpoint`).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple: TypeAlias = tuple[int, int, int]
"""Of time, height and width."""
Colours: TypeAlias = tuple[float, float, float]
"""Of red, green and blue."""

EXPANSION: Final = 2
"""Channels that a bottleneck gives, over its ``planes``."""

# What Hara et al.'s published code subtracts from pixels in [0, 255]: the mean colour of
# ActivityNet. By default it divides by nothing.
ACTIVITYNET_MEAN: Final = (114.7748, 107.7354, 99.4750)
UNSCALED: Final = (1.0, 1.0, 1.0)
# About the standard deviation of natural images' pixels: a quarter of the range.
QUARTER_OF_RANGE: Final = (64.0, 64.0, 64.0)


class ClipScaling(nn.Module):
    """Pixels (B, 3, T, H, W) in [0, 255] -> (x - mean) / std, float32, channels last in memory."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Colours, std: Colours) -> None:
        """Both in the units of the pixels."""
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            # Not persistent: the published weights know no such numbers.
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Scaled clips; the caller's stay as they are."""
        pixels = clips.to(torch.float32, memory_format=torch.channels_last_3d, copy=True)
        return pixels.sub_(self.mean).div_(self.std)


def _convolution(
    inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), groups: int = 1
) -> nn.Conv3d:
    """Padded by half its (odd) kernel; without bias: a batch normalisation follows."""
    padding = tuple(side // 2 for side in kernel)
    # skip_init: the constructor would draw from the global generator.
    layer: nn.Conv3d = nn.utils.skip_init(
        nn.Conv3d, inputs, outputs, kernel, stride, padding, groups=groups, bias=False
    )
    return layer


class Bottleneck(nn.Module):
    """1 x 1 x 1, grouped 3 x 3 x 3 and 1 x 1 x 1 convolutions, and a shortcut (option B)."""

    def __init__(self, inputs: int, planes: int, cardinality: int, stride: int) -> None:
        """Lay out one block.

        Args:
            inputs: its input's channels; it gives 2 planes.
            planes: a multiple of 32; each group has planes / 32 channels.
            cardinality: number of groups.
            stride: 2 halves T, H and W.
        """
        super().__init__()
        middle, outputs = cardinality * planes // 32, EXPANSION * planes
        strides = (stride, stride, stride)
        self.conv1, self.bn1 = _convolution(inputs, middle, (1, 1, 1)), nn.BatchNorm3d(middle)
        self.conv2 = _convolution(middle, middle, (3, 3, 3), strides, groups=cardinality)
        self.bn2 = nn.BatchNorm3d(middle)
        self.conv3, self.bn3 = _convolution(middle, outputs, (1, 1, 1)), nn.BatchNorm3d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            projection = _convolution(inputs, outputs, (1, 1, 1), strides)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) -> (B, 2 planes, T / stride, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut, inplace=True)


class ResNeXt3d(nn.Module):
    """Stem, stages of bottlenecks, mean over time and space, linear classifier.

    The mean is over whatever the stages leave, so clips of any length and size fit.
    """

    def __init__(
        self,
        num_classes: int,
        layers: tuple[int, ...] = (3, 4, 23, 3),
        width: int = 64,
        cardinality: int = 32,
        *,
        stem_kernel: Triple = (7, 7, 7),
        stem_stride: Triple = (1, 2, 2),
        pool_stride: Triple = (2, 2, 2),
        mean: Colours = ACTIVITYNET_MEAN,
        std: Colours = UNSCALED,
        mixed: bool = False,
    ) -> None:
        """Lay out the network; :func:`initialise_resnext` draws its weights.

        The defaults are Hara et al.'s 3D-ResNeXt-101.

        Args:
            num_classes: C.
            layers: blocks of each stage. Stage i has 2 width 2**i planes; from the second on, a
                stage halves T, H and W.
            width: channels of the stem, a multiple of 16.
            cardinality: groups of the 3 x 3 x 3 convolutions.
            stem_kernel: odd sides of the first convolution.
            stem_stride: its strides.
            pool_stride: 2: the maximum of 3, each second one; 1: no pooling along this axis.
            mean: subtracted from pixels in [0, 255].
            std: divides them then.
            mixed: pass in bfloat16 (autocast).

        Raises:
            ValueError: for a width that gives groups of a fraction of a channel.
        """
        super().__init__()
        if width < 16 or width % 16:
            raise ValueError(f"width must be a multiple of 16, not {width}")
        self.mixed = mixed
        self.scaling = ClipScaling(mean, std)
        self.conv1 = _convolution(3, width, stem_kernel, stem_stride)
        self.bn1 = nn.BatchNorm3d(width)
        kernel = tuple(1 if stride == 1 else 3 for stride in pool_stride)
        padding = tuple(side // 2 for side in kernel)
        self.maxpool = nn.MaxPool3d(kernel, pool_stride, padding)
        inputs, self.stages = width, len(layers)
        for i, blocks in enumerate(layers):
            planes = 2 * width * 2**i
            stage = _stage(inputs, planes, cardinality, blocks, stride=1 if i == 0 else 2)
            self.add_module(f"layer{i + 1}", stage)
            inputs = EXPANSION * planes
        self.fc: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, num_classes)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """What the passes run under; meta tensors, which only count, know no autocast."""
        if device.type == "meta":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16, enabled=self.mixed)

    def features(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W), pixels in [0, 255] -> features (B, D), float32."""
        with self._precision(clips.device):
            x = self.conv1(self.scaling(clips))
            x = self.maxpool(F.relu(self.bn1(x), inplace=True))
            for i in range(self.stages):
                x = self.get_submodule(f"layer{i + 1}")(x)
        maps: Tensor = x.float()
        return maps.mean(dim=(2, 3, 4))

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W), pixels in [0, 255] -> logits (B, C), float32."""
        logits: Tensor = self.fc(self.features(clips))
        return logits


def _stage(inputs: int, planes: int, cardinality: int, blocks: int, stride: int) -> nn.Sequential:
    """``blocks`` bottlenecks; the first one changes the shape."""
    first = Bottleneck(inputs, planes, cardinality, stride)
    outputs = EXPANSION * planes
    others = (Bottleneck(outputs, planes, cardinality, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def initialise_resnext(network: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight anew: He et al. 2015 for convolutions, torch's default for the classifier.

    As Hara et al. the variance is that of a convolution's outputs (``fan_out``).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(
                layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def make_resnext101(
    num_classes: int, generator: torch.Generator, *, mixed: bool = False
) -> ResNeXt3d:
    """The paper's network, 3D-ResNeXt-101 of cardinality 32 and shortcut B, with new weights.

    Its pixels are scaled as for the weights trained on Kinetics: ActivityNet's mean colour is
    subtracted from pixels in [0, 255], and nothing divides them.
    """
    network = ResNeXt3d(num_classes, mixed=mixed)
    initialise_resnext(network, generator)
    return network


def make_small_resnext(
    num_classes: int, generator: torch.Generator, *, mixed: bool = False
) -> ResNeXt3d:
    """The same network made small, for tests and the demo: about 10 x 48 x 48 pixels a clip.

    Three stages of one block each, of cardinality 32 on a stem of 16 channels. Stem and pooling
    keep every frame: what tells a movement from its reverse is the order of neighbouring frames.
    Pixels are divided by 64, so that they have unit scale.
    """
    network = ResNeXt3d(
        num_classes, (1, 1, 1), width=16,
        stem_kernel=(3, 5, 5), pool_stride=(1, 2, 2), std=QUARTER_OF_RANGE, mixed=mixed,
    )  # fmt: skip
    initialise_resnext(network, generator)
    return network
