"""Networks of the classification experiments."""

from classification.models.lenet import (
    LENET_ARCHITECTURES,
    Initialisation,
    LenetArchitecture,
    initialise,
    make_lenet,
)
from classification.models.oltr import OltrModel, make_oltr
from classification.models.resnet_cifar import CifarResNet, SecondStage, make_resnet
from classification.models.resnet_image import (
    STRIDE,
    ImageNetwork,
    ImageResNet,
    make_image_resnet,
)

__all__ = [
    "LENET_ARCHITECTURES",
    "STRIDE",
    "CifarResNet",
    "ImageNetwork",
    "ImageResNet",
    "Initialisation",
    "LenetArchitecture",
    "OltrModel",
    "SecondStage",
    "initialise",
    "make_image_resnet",
    "make_lenet",
    "make_oltr",
    "make_resnet",
]
