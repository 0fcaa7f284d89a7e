"""The methods of classification: those of any network with logits, and those on images.

A method that needs images or a network has a file here, the others are in
:mod:`common.training.methods`.
"""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from classification.methods.l2rw import L2rw
from classification.methods.ldam_drw import LdamDrw
from classification.methods.meta_weight_net import MetaWeightNet
from classification.methods.mixup import Mixup
from classification.methods.oltr import Oltr
from common.streams import Streams
from common.training.methods import LOGIT_METHODS
from common.training.methods.base import LogitMethod

METHODS: Final[Mapping[str, type[LogitMethod]]] = {
    **LOGIT_METHODS,
    "l2rw": L2rw,
    "meta-weight-net": MetaWeightNet,
    "ldam-drw": LdamDrw,
    "mixup": Mixup,
    "oltr": Oltr,
}
"""By the names of the command line; a refusal names the methods in this order."""


def make_method(config: Any, data: Any, streams: Streams, rate: Tensor) -> LogitMethod:
    """The configured method, on the device of ``rate``; see :class:`LogitMethod`."""
    return METHODS[config.method](config, data, streams, rate).to(rate.device)
