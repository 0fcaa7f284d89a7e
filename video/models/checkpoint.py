"""Hara et al.'s published weights, ``resnext-101-kinetics.pth``, without their classifier.

The file is a dictionary with the key ``state_dict``; it was saved from a network within
``DataParallel``, so every name begins with ``module.``. Its classifier is for the 400 classes of
Kinetics; everything else is taken.
"""

import pickle
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from common.errors import UserError, describe_os_error

CLASSIFIER: Final = "fc."
# PyTorch of 2017 counted no batches; the count serves nothing here.
COUNTER: Final = "num_batches_tracked"
_SHOWN = 3
_REMEDY = (
    "name the file resnext-101-kinetics.pth of Hara et al. (3D-ResNets-PyTorch) with --kinetics, "
    "or begin without with --start random"
)


def _read(path: Path) -> object:
    """What ``torch.save`` wrote: tensors and plain values only, never code.

    Raises:
        UserError: when the file cannot be read or holds anything else.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; {_REMEDY}.")
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.filename is None:  # Not from opening it: what torch makes of a broken file.
            raise UserError(f"{path} cannot be read ({error}); {_REMEDY}.") from error
        raise describe_os_error(error, path) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint, or holds more than tensors and plain values, so that "
            f"loading it could run foreign code; {_REMEDY}."
        ) from error
    except Exception as error:  # The unpickler raises anything.
        raise UserError(f"{path} is damaged or no checkpoint; {_REMEDY}.") from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Its tensors by name, ``module.`` taken off.

    Raises:
        UserError: when the file is no checkpoint of a network.
    """
    content = _read(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds no weights by name; {_REMEDY}.")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} holds more than weights by name; {_REMEDY}.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _some(names: list[str]) -> str:
    """The first few of ``names``, and how many there are."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """In words, what keeps ``theirs`` from being the weights of the network of ``ours``."""
    needed = {name for name in ours if not name.endswith(COUNTER)}
    missing = [name for name in ours if name in needed and name not in theirs]
    unexpected = [name for name in theirs if name not in ours]
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(ours[name].shape)}"
        for name, value in theirs.items()
        if name in ours and value.shape != ours[name].shape
    ]
    kinds = {"lacks": missing, "has unexpected": unexpected, "has other shapes:": shapes}
    return [f"{kind} {_some(names)}" for kind, names in kinds.items() if names]


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
    theirs = {k: v for k, v in _state_dict(path).items() if not k.startswith(CLASSIFIER)}
    if differences := _differences(ours, theirs):
        raise UserError(f"{path} does not fit: it {'; it '.join(differences)}; {_REMEDY}.")
    model.load_state_dict(theirs, strict=False)
