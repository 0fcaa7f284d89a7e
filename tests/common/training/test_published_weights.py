"""Files of published weights: what ``torch.save`` writes, and safetensors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.training.published_weights import read_state
from tests.states import assert_same_state

STATE = {
    "half": torch.tensor([[1.5, -2.0, 0.25]], dtype=torch.bfloat16),
    "weight": torch.tensor([[0.1, -0.2], [float("inf"), 3.0]]),
    "count": torch.tensor(7),
    "none": torch.empty(0, 3),
    "flags": torch.tensor([True, False]),
}
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}


def safetensors(state: dict[str, Tensor], **changes: Any) -> bytes:
    """A file of the format; ``changes`` of what is told of the tensor ``weight``."""
    told: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, value in state.items():
        content = bytes(value.contiguous().flatten().view(torch.uint8).tolist())
        told[name] = {
            "dtype": NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    told["weight"] |= changes
    header = json.dumps(told).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_safetensors_are_read_to_the_bit_wherever_they_lie(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    # The three numbers of two bytes are before all others: these lie at odd places.
    file.write_bytes(safetensors(STATE))
    assert_same_state(read_state(file, "name another"), STATE)


def test_the_same_tensors_come_from_what_torch_saves(tmp_path: Path) -> None:
    for number, content in enumerate((STATE, {"state_dict": STATE, "epoch": 3})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert_same_state(read_state(tmp_path / f"{number}.pth", "name another"), STATE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no tensors at all",
        safetensors(STATE)[:-1],
        safetensors(STATE)[:40],
        safetensors(STATE, dtype="F8_E4M3"),
        safetensors(STATE, shape=[3, 3]),
        safetensors(STATE, data_offsets=[6, 21]),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_damaged_file_of_safetensors_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors is damaged or no .*; name another\.$"):
        read_state(file, "name another")
