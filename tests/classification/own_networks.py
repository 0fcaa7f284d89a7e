"""Networks as a user would write them, for ``--network tests.classification.own_networks:NAME``."""

from pathlib import Path

from torch import Tensor, nn


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
