"""Requests to stop that come after some steps, in tests."""

import signal

from common.distributed import rank
from common.training.signals import StopRequest


class StopAfter(StopRequest):
    """Requested after some steps: the training loop asks before each."""

    def __init__(self, steps: int) -> None:
        """``steps`` that are still taken."""
        super().__init__()
        self.steps = steps

    def requested(self) -> bool:
        """Whether they are taken."""
        self.steps -= 1
        return self.steps < 0


class SignalOnSecondRank(StopRequest):
    """As if SIGTERM came to rank 1 alone, before its third step."""

    def __init__(self) -> None:
        """Not asked yet."""
        super().__init__()
        self.asked = 0

    def requested(self) -> bool:
        """What the ranks agree upon."""
        self.asked += 1
        if self.asked == 3 and rank() == 1:
            self.came = signal.SIGTERM
        return super().requested()
