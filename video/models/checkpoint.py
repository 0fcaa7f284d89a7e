"""Hara et al.'s published weights, ``resnext-101-kinetics.pth``, without their classifier.

The file is a dictionary with the key ``state_dict``; it was saved from a network within
``DataParallel``, so every name begins with ``module.``. Its classifier is for the 400 classes of
Kinetics; everything else is taken.
"""

from pathlib import Path
from typing import Final

from torch import nn

from common.errors import UserError
from common.training.published_weights import differences, read_state

CLASSIFIER: Final = "fc."
_REMEDY = (
    "name the file resnext-101-kinetics.pth of Hara et al. (3D-ResNets-PyTorch) with --kinetics, "
    "or begin without with --start random"
)


def load_kinetics(model: nn.Module, path: Path) -> None:
    """Take every weight but the classifier's (``fc.*``), which stays as it is, from a checkpoint.

    Args:
        model: a :class:`~video.models.resnext3d.ResNeXt3d`; unchanged when the file is refused.
        path: Hara et al.'s file, or one of a bare state dict.

    Raises:
        UserError: when the file is missing, no checkpoint, partial, or of another network; it
            names the first differing keys.
    """
    ours = {k: v for k, v in model.state_dict().items() if not k.startswith(CLASSIFIER)}
    theirs = {k: v for k, v in read_state(path, _REMEDY).items() if not k.startswith(CLASSIFIER)}
    if found := differences(ours, theirs):
        raise UserError(f"{path} does not fit: it {'; it '.join(found)}; {_REMEDY}.")
    model.load_state_dict(theirs, strict=False)
