"""Networks of the classification experiments."""

from classification.models.lenet import (
    LENET_ARCHITECTURES,
    Initialisation,
    LenetArchitecture,
    initialise,
    make_lenet,
)
from classification.models.resnet_cifar import CifarResNet, SecondStage, make_resnet

__all__ = [
    "LENET_ARCHITECTURES",
    "CifarResNet",
    "Initialisation",
    "LenetArchitecture",
    "SecondStage",
    "initialise",
    "make_lenet",
    "make_resnet",
]
