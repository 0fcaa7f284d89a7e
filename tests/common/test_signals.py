import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.signals import StopRequest

ROOT = Path(__file__).parents[2]


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


def test_the_second_signal_ends_the_process_at_once() -> None:
    script = (
        "import os, signal\n"
        "from common.signals import StopRequest\n"
        "with StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('second', flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "first\n")
