import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from common.training.signals import StopRequest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request(number: int) -> None:
    with StopRequest() as stop:
        assert not stop.requested()
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.requested()
        assert stop.signal == number


def test_the_handlers_are_given_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for sent in (None, signal.SIGTERM):
        with StopRequest() as stop:
            assert signal.getsignal(signal.SIGTERM) == stop._remember
            if sent is not None:
                os.kill(os.getpid(), sent)
        assert {number: signal.getsignal(number) for number in before} == before


def twice(name: str) -> "subprocess.CompletedProcess[str]":
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from common.training.signals import StopRequest\n"
        "with StopRequest():\n"
        f"    os.kill(os.getpid(), signal.{name}); print('first', flush=True)\n"
        f"    os.kill(os.getpid(), signal.{name}); print('second', flush=True)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    ended = twice("SIGINT")
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "first\n")


def test_a_second_sigterm_such_as_torchruns_changes_nothing() -> None:
    ended = twice("SIGTERM")
    assert (ended.returncode, ended.stdout) == (0, "first\nsecond\n")


def test_a_signal_that_comes_while_the_ranks_agree_counts_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(values: Tensor) -> Tensor:
        if not agreed:
            os.kill(os.getpid(), signal.SIGTERM)
        agreed.append(values.tolist())
        return values

    agreed: list[list[int]] = []
    monkeypatch.setattr("common.training.signals.is_distributed", lambda: True)
    monkeypatch.setattr("common.training.signals.all_reduce_sum", interrupted)
    with StopRequest() as stop:
        assert not stop.requested()
        assert stop.signal is None  # Though this rank has had it: the others have not agreed.
        assert stop.requested()
        assert stop.signal == signal.SIGTERM
    assert agreed == [[0, 0], [1, signal.SIGTERM]]
