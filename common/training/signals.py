"""Signals: a polite request to stop (SIGTERM, Ctrl-C), and one that comes with the parent's death.

A stopped run finishes its step, saves and exits; the same command goes on.
"""

import ctypes
import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, ClassVar, Self

import torch

from common.distributed import all_reduce_sum, is_distributed

_PR_SET_PDEATHSIG = 1  # of Linux' prctl


def end_with_parent(parent: int, number: int) -> None:
    """Get a signal when the process that started this one dies; on Linux.

    A process that was killed ends none of those that it has started.

    Args:
        parent: its process ID; if it is no longer this one's parent, it has died already.
        number: of the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


class StopRequest:
    """Within ``with StopRequest() as stop:`` the first signal is only remembered.

    Runs may share one, each within it for a time of its own, whoever comes or goes first.
    """

    in_hand: ClassVar["StopRequest | None"] = None
    """The one that this process is within."""

    def __init__(self) -> None:
        """No request yet."""
        self.signal: int | None = None
        """As of the last :meth:`requested`: the same on every rank."""
        # Apart from it: a signal that comes while the ranks agree counts the next time.
        self.came: int | None = None
        self.came_at = 0.0
        """When it came, by ``time.monotonic``."""
        self._within = 0
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether a signal has come, to any rank: under torchrun all ranks ask together."""
        self.signal = self.came
        if is_distributed():
            # The sum: as many ranks as had a signal, times its number.
            came = torch.tensor([int(self.signal is not None), self.signal or 0])
            number, total = all_reduce_sum(came).tolist()
            self.signal = total // number if number else None
        return self.signal is not None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.came is None:
            self.came_at = time.monotonic()
        self.came = number
        if number == signal.SIGINT:
            # A second Ctrl-C ends the process at once. Not a second SIGTERM: torchrun sends two.
            signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> Self:
        """Take over SIGTERM and SIGINT."""
        if not self._within:
            self._before = {
                number: signal.signal(number, self._remember)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
            StopRequest.in_hand = self
        self._within += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the signals back, when the last one leaves."""
        self._within -= 1
        if self._within:
            return
        StopRequest.in_hand = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
