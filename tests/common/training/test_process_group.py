import socket

import pytest
import torch

from common.errors import UserError
from common.training.process_group import choose_device, process_group


def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("cpu") == choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="--device cuda: no CUDA device"):
        choose_device("cuda")


def test_processes_without_a_gpu_are_told_to_train_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for name, rank, said in (("auto", "0", True), ("auto", "1", False), ("cpu", "0", False)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        choose_device(name)
        assert ("the 3 processes of this run train on the CPU" in capsys.readouterr().err) is said


def test_each_process_has_a_gpu_of_its_own_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for local, expected in (("0", "cuda"), ("1", "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert choose_device("auto") == choose_device("cuda") == torch.device(expected)
    assert set(chosen) == {1}
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="there are 2 GPUs; give it --nproc-per-node 2"):
        choose_device("auto")


def test_a_process_whose_torchrun_has_ended_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match="torchrun has ended before its processes had met"),
        process_group(torch.device("cpu")),
    ):
        pass
