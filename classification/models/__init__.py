"""Networks of the classification experiments.

Those for images in files, which need torchvision, are ``resnet_image.py``'s alone.
"""

from typing import Final, Literal

from classification.models.lenet import (
    LENET_ARCHITECTURES,
    Initialisation,
    LenetArchitecture,
    initialise,
    make_lenet,
)
from classification.models.oltr_network import OltrModel, make_oltr
from classification.models.resnet_cifar import CifarResNet, SecondStage, make_resnet

ImageNetwork = Literal["resnet10", "resnet18", "resnet50"]
"""Networks for images in files."""
STRIDE: Final = 32
"""Pixels of an image in a file for one of the last maps."""

__all__ = [
    "LENET_ARCHITECTURES",
    "STRIDE",
    "CifarResNet",
    "ImageNetwork",
    "Initialisation",
    "LenetArchitecture",
    "OltrModel",
    "SecondStage",
    "initialise",
    "make_lenet",
    "make_oltr",
    "make_resnet",
]
