"""ResNets for images of any size: torchvision's layers, laid out and initialised for this project.

Shapes: B batch, C classes, D features (512 in ResNet-10), h x w the last maps.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from classification.models import ImageNetwork
from classification.models.resnet_cifar import initialise_resnet
from classification.models.with_head import WithHead

_BLOCKS: Final[dict[ImageNetwork, tuple[type[BasicBlock | Bottleneck], Sequence[int]]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Blocks of the four stages; ResNet-10 as in Liu et al. 2019."""
_BODY: Final = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def _empty(network: ImageNetwork) -> ResNet:
    """Torchvision's network without weights: its constructor would draw from the global generator.

    (On a device without memory nothing is drawn.)
    """
    block, layers = _BLOCKS[network]
    with torch.device("meta"):
        empty = ResNet(block, list(layers))
    return empty.to_empty(device="cpu")


class ImageResNet(WithHead):
    """Normalised images -> logits; passes in bfloat16 if ``mixed``, the classifier in float32."""

    classifier: nn.Linear

    def __init__(
        self, num_classes: int, network: ImageNetwork = "resnet10", *, mixed: bool = True
    ) -> None:
        """Lay out the network; its weights are drawn by :func:`make_image_resnet`.

        Args:
            num_classes: C.
            network: how deep.
            mixed: pass in bfloat16 (autocast).
        """
        super().__init__()
        self.mixed = mixed
        whole = _empty(network)
        self.layers = nn.Sequential(OrderedDict((name, getattr(whole, name)) for name in _BODY))
        self.classifier = nn.utils.skip_init(nn.Linear, whole.fc.in_features, num_classes)

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The classifier."""
        return (self.classifier,)

    @property
    def as_published(self) -> tuple[nn.Module, tuple[str, ...]]:
        """The layers; torchvision's head is ``fc``, which is not among them."""
        return self.layers, ("fc.",)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), float32 -> maps (B, D, h, w), h = H / 32 rounded up."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            maps: Tensor = self.layers(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), float32 -> logits (B, C), float32."""
        logits: Tensor = self.classifier(self.features(images).float().mean(dim=(2, 3)))
        return logits


def make_image_resnet(
    num_classes: int,
    generator: torch.Generator,
    network: ImageNetwork = "resnet10",
    *,
    mixed: bool = True,
) -> ImageResNet:
    """A network with its initial weights; see :class:`ImageResNet` for the arguments.

    Convolutions as He et al. 2015 by fan-out, as torchvision and Liu et al.'s code.
    """
    model = ImageResNet(num_classes, network, mixed=mixed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    initialise_resnet(model, generator, mode="fan_out")
    return model
