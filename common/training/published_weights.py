"""Weights that others published: a file of tensors by name, read without running its code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from common.errors import UserError, describe_os_error

# PyTorch of 2017 counted no batches, frozen batch normalisation has no use for it.
COUNTER: Final = "num_batches_tracked"
_SHOWN = 3


def check_there(path: Path, remedy: str) -> None:
    """Refuse a file that is not there.

    Raises:
        UserError: with the remedy.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; {remedy}.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; {remedy}.")


def _read(path: Path, remedy: str) -> object:
    """What ``torch.save`` wrote, or safetensors: tensors and plain values only, never code.

    Raises:
        UserError: when the file cannot be read or holds anything else.
    """
    check_there(path, remedy)
    try:
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                from safetensors.torch import load

                return load(file.read())
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.filename is None:  # Not from opening it: what torch makes of a broken file.
            raise UserError(f"{path} cannot be read ({error}); {remedy}.") from error
        raise describe_os_error(error, path) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint, or holds more than tensors and plain values, so that "
            f"loading it could run foreign code; {remedy}."
        ) from error
    except Exception as error:  # The unpickler raises anything.
        raise UserError(f"{path} is damaged or no checkpoint; {remedy}.") from error


def read_state(path: Path, remedy: str, key: str = "state_dict") -> dict[str, Tensor]:
    """The tensors of a file by name; ``module.``, which DataParallel puts before them, taken off.

    Args:
        path: a file of a state dict, or of a dictionary that has one under ``key``, made by
            ``torch.save``; or a state dict as ``.safetensors``.
        remedy: what the user can do when it is another file.
        key: see ``path``.

    Raises:
        UserError: when the file is missing, cannot be read, or is no checkpoint of a network.
    """
    content = _read(path, remedy)
    state = content.get(key, content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds no weights by name; {remedy}.")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} holds more than weights by name; {remedy}.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _some(names: list[str]) -> str:
    """The first few of ``names``, and how many there are."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """In words, what keeps ``theirs`` from being the weights of the network of ``ours``.

    Counts of batches may be missing.

    >>> differences({"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(3)})
    ['lacks b', 'has other shapes: a (3,) instead of (2,)']
    """
    needed = [name for name in ours if not name.endswith(COUNTER)]
    missing = [name for name in needed if name not in theirs]
    unexpected = [name for name in theirs if name not in ours]
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(ours[name].shape)}"
        for name, value in theirs.items()
        if name in ours and value.shape != ours[name].shape
    ]
    kinds = {"lacks": missing, "has unexpected": unexpected, "has other shapes:": shapes}
    return [f"{kind} {_some(names)}" for kind, names in kinds.items() if names]
