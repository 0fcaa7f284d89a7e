"""States of runs, written and compared, in tests."""

import io
from typing import Any

import torch
from torch import Tensor


def written_and_read(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint gives back: tensors and plain values alone."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    read: dict[str, Any] = torch.load(buffer, weights_only=True)
    return read


def assert_same_state(ours: Any, theirs: Any, where: str = "state") -> None:
    """Nested containers with equal values, tensors to the bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in ours.items():
            assert_same_state(value, theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for number, value in enumerate(ours):
            assert_same_state(value, theirs[number], f"{where}/{number}")
    else:
        assert ours == theirs, where
