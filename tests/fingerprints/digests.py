"""What is kept of a run's folder: what it is of, and a digest or a plain value."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.fingerprints.cases import COUNTS_FOR

Kept = dict[str, Any]
_APART = ("provenance", "config")
"""Of a record: what may differ, and what is kept by the settings that count."""


def of_weights(path: Path) -> Kept:
    """Each tensor of a file of weights, by its place: ``last/conv1.weight``."""
    return {name: digest(tensor) for name, tensor in _tensors(_read(path))}


def of_checkpoint(path: Path) -> list[str]:
    """The tensors of a checkpoint without their places, which may change; sorted."""
    return sorted(digest(tensor) for _, tensor in _tensors(_read(path)))


def of_record(record: Mapping[str, Any]) -> Kept:
    """Each value of a record, by its place: ``metrics/last/error``; lists by their digest."""
    return dict(_values({name: part for name, part in record.items() if name not in _APART}))


def of_config(config: Mapping[str, Any]) -> Kept:
    """The settings that count for the method."""
    method = config["method"]
    return {
        name: value for name, value in config.items() if method in COUNTS_FOR.get(name, (method,))
    }


def digest(tensor: Tensor) -> str:
    """Type, shape and sha256 of the values, whatever their order in memory."""
    plain = tensor.detach().contiguous().reshape(-1)
    content = hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest()
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape} {content[:16]}"


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _tensors(part, f"{place}/{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _tensors(part, f"{place}/{number}")


def _values(value: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        where = f"{place}{name}"
        if isinstance(part, Mapping):
            yield from _values(part, f"{where}/")
        elif isinstance(part, list):
            content = json.dumps(part).encode()
            yield where, f"{len(part)} values {hashlib.sha256(content).hexdigest()[:16]}"
        else:
            yield where, part
