"""Networks as a user would write them, for ``--network tests.classification.own_networks:NAME``."""

from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import convnext, mobilenetv3, swin_transformer, vision_transformer


class Dropping(nn.Module):
    """One convolution, batch statistics, dropout, a linear layer."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 8, stride=8), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout)
        )
        self.classifier = nn.Linear(6, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.body(images).mean((2, 3)))
        return logits


def dropping(num_classes: int) -> nn.Module:
    return Dropping(num_classes, 0.5)


def steady(num_classes: int) -> nn.Module:
    return Dropping(num_classes, 0.0)


def steady_weights() -> Path:
    return Path("own.pth")


def without_classes() -> nn.Module:
    return nn.Flatten()


def number(num_classes: int) -> int:
    return num_classes


def features(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes + 1))


# The layers of larger networks.


def lively(network: nn.Module) -> nn.Module:
    """Weights by which logits depend on the image; torchvision's last ones are almost 0."""
    for weight in network.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=2 / weight[0].numel() ** 0.5)
    return network


def like_mobilenet(num_classes: int) -> nn.Module:
    block = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [block(8, 3, 16, 8, True, "RE", stride=2), block(8, 5, 24, 8, True, "HS", stride=1)]
    return lively(mobilenetv3.MobileNetV3(blocks, last_channel=16, num_classes=num_classes))


def like_convnext(num_classes: int) -> nn.Module:
    stages = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return lively(convnext.ConvNeXt(stages, stochastic_depth_prob=0.2, num_classes=num_classes))


def like_vit(num_classes: int) -> nn.Module:
    return lively(
        vision_transformer.VisionTransformer(
            32, 8, 1, 2, 16, 32, dropout=0.1, num_classes=num_classes
        )
    )


def like_swin(num_classes: int) -> nn.Module:
    return lively(
        swin_transformer.SwinTransformer(
            [4, 4], 8, [1, 1], [1, 2], [2, 2], stochastic_depth_prob=0.2, num_classes=num_classes
        )
    )


LIKE = tuple(
    f"{__name__}:{made.__name__}" for made in (like_mobilenet, like_convnext, like_vit, like_swin)
)
"""Each takes images of 32 x 32 pixels; all but the first draw random numbers in training."""


# What ends a network otherwise than one linear layer.


class Distilled(Dropping):
    """Two heads, whose logits are averaged, before a layer that may have as many outputs."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, 0.0)
        self.distilled = nn.Linear(6, num_classes)
        self.body.append(nn.Conv2d(6, 6, 1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images).mean((2, 3))
        logits: Tensor = (self.classifier(features) + self.distilled(features)) / 2
        return logits


class Cosine(nn.Linear):
    """A linear layer of its own kind."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(10 * nn.functional.normalize(input))


def distilled(num_classes: int) -> nn.Module:
    return Distilled(num_classes)


def cosine(num_classes: int) -> nn.Module:
    network = Dropping(num_classes, 0.0)
    network.classifier = Cosine(6, num_classes)
    return network


def convolution(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 8, stride=8), nn.Conv2d(6, num_classes, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def normalised_features(num_classes: int) -> nn.Module:
    """Its batch statistics are of one value an image, whatever the image's size."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, num_classes)
    )


# What goes wrong.


def headless(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, num_classes)), nn.Flatten(2), Last())


class Last(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1)


def failing(num_classes: int) -> nn.Module:
    raise KeyError("weights")


class Unpassable(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise IndexError


def unpassable(num_classes: int) -> nn.Module:
    return Unpassable()


class Auxiliary(Dropping):
    """Further logits in training."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits  # type: ignore[return-value]


def auxiliary(num_classes: int) -> nn.Module:
    return Auxiliary(num_classes, 0.0)
