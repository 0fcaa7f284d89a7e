"""Training commands under torchrun, in tests."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def torchrun(module: str, ranks: int, *arguments: str) -> "subprocess.Popen[str]":
    """Start ``module`` in so many processes on the CPU, in a session of their own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    # "--": else torchrun's parser takes --start for its own --start-method.
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(ranks), "-m", "--", module, *arguments, "--device", "cpu",
    ]  # fmt: skip
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def ended_at_last(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """Whatever happens, no process of this one's session outlives the test."""
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
