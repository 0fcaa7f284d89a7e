"""ResNet for 32 x 32 images (He et al. 2016, Sec. 4.2), the cosine classifier and second stages.

Every network here takes pixels in [0, 255], as bytes or numbers, and scales them itself: training,
difficulty and test images cannot be normalised differently. It gives float32 logits whatever the
precision of its passes. Shapes: B batch, C classes, D features.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 64
"""D of the last stage."""
# Mean and standard deviation of CIFAR-100's 50,000 training images, of value / 255.
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)


class PixelScaling(nn.Module):
    """Pixels (B, 3, H, W) in [0, 255] -> mean 0 and standard deviation 1, float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Of value / 255, one number per channel."""
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            buffer = 255.0 * torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(x - mean) / std, channels last."""
        # A copy even of what is float32 already: the caller's images stay as they are.
        pixels = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return pixels.sub_(self.mean).div_(self.std)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    # skip_init: the constructor would draw from the global generator.
    layer: nn.Conv2d = nn.utils.skip_init(
        nn.Conv2d, inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False
    )
    return layer


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """``stride`` 2 halves height and width; new channels of the shortcut are zeros."""
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.new_channels = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.new_channels or self.stride > 1:
            before = self.new_channels // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return F.relu(y + x, inplace=True)


class CosineLinear(nn.Module):
    """Cosine between features and class vectors (Cao et al. 2019): (B, D) -> (B, C) in [-1, 1]."""

    def __init__(self, features: int, classes: int) -> None:
        """Class vectors; :func:`initialise_resnet` gives them random directions and length 1."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))

    def forward(self, features: Tensor) -> Tensor:
        """Cosines of the angles."""
        return F.linear(F.normalize(features), F.normalize(self.weight))


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels: 6 n + 2 layers, n blocks a stage."""

    def __init__(
        self, num_classes: int, *, blocks: int = 5, cosine: bool = False, mixed: bool = True
    ) -> None:
        """Lay out the network; its weights are drawn by :func:`make_resnet`.

        Args:
            num_classes: C.
            blocks: n; 5 gives ResNet-32.
            cosine: a cosine classifier in place of a linear one.
            mixed: pass in bfloat16 (autocast).
        """
        super().__init__()
        self.mixed = mixed
        self.scaling = PixelScaling(CIFAR100_MEAN, CIFAR100_STD)
        layers: list[nn.Module] = [_convolution(3, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        inputs = 16
        for outputs in (16, 32, FEATURES):
            for block in range(blocks):
                stride = 2 if block == 0 and outputs > 16 else 1
                layers.append(BasicBlock(inputs, outputs, stride))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.classifier: nn.Module = (
            CosineLinear(FEATURES, num_classes)
            if cosine
            else nn.utils.skip_init(nn.Linear, FEATURES, num_classes)
        )

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32), pixels in [0, 255] -> features (B, 64), float32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            maps: Tensor = self.layers(self.scaling(images))
        return maps.float().mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32), pixels in [0, 255] -> logits (B, C), float32."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class SecondStage(nn.Module):
    """Decoupled learning's second stage (Kang et al. 2020): trained features stay as they are.

    cRT trains a new linear classifier; LWS multiplies each class's logit of the first stage by a
    scale that it learns. The features' batch normalisation stays in evaluation mode; Kang et al.'s
    code leaves it in training mode.
    """

    def __init__(self, first: CifarResNet, num_classes: int, *, rescale: bool) -> None:
        """Freeze a network of the first stage.

        Args:
            first: its classifier is kept with ``rescale`` (LWS), else replaced (cRT).
            num_classes: C.
            rescale: LWS.
        """
        super().__init__()
        self.first = first
        self.scales: nn.Parameter | None = None
        if rescale:
            self.scales = nn.Parameter(torch.ones(num_classes))
        for name, parameter in first.named_parameters():
            parameter.requires_grad_(not rescale and name.startswith("classifier."))
        self.train()

    def load_first_stage(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a finished first stage; with cRT all but the classifier's."""
        if self.scales is None:
            ours = {f"classifier.{k}": v for k, v in self.first.classifier.state_dict().items()}
            weights = weights | ours
        self.first.load_state_dict(weights)

    def train(self, mode: bool = True) -> "SecondStage":
        """Train the classifier; the features' statistics stay those of the first stage."""
        super().train(mode)
        self.first.train(False)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32), pixels in [0, 255] -> features (B, 64), without gradient."""
        with torch.no_grad():
            return self.first.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32), or their features (B, 64), -> logits (B, C), float32."""
        features = images if images.dim() == 2 else self.features(images)
        logits: Tensor = self.first.classifier(features)
        return logits if self.scales is None else self.scales * logits


def initialise_resnet(
    module: nn.Module,
    generator: torch.Generator,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
) -> None:
    """Draw every weight anew: He et al. 2015 for convolutions, torch's default for classifiers."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(
                layer.weight, mode=mode, nonlinearity="relu", generator=generator
            )
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, CosineLinear):
            nn.init.normal_(layer.weight, generator=generator)
            # Length 1: a vector turns by its gradient over its squared length.
            layer.weight.data = F.normalize(layer.weight.data)


def make_resnet(
    num_classes: int,
    generator: torch.Generator,
    *,
    blocks: int = 5,
    cosine: bool = False,
    mixed: bool = True,
) -> CifarResNet:
    """A network with its initial weights; see :class:`CifarResNet` for the arguments."""
    network = CifarResNet(num_classes, blocks=blocks, cosine=cosine, mixed=mixed)
    initialise_resnet(network, generator)
    return network
