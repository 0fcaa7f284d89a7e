"""Networks of the classification experiments."""

from classification.models.lenet import (
    LENET_ARCHITECTURES,
    Initialisation,
    LenetArchitecture,
    initialise,
    make_lenet,
)

__all__ = [
    "LENET_ARCHITECTURES",
    "Initialisation",
    "LenetArchitecture",
    "initialise",
    "make_lenet",
]
