"""Progress of one run: a bar on a terminal, 'epoch K/N' lines elsewhere (launch reads them)."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 1.0


class EpochProgress:
    """Shows finished epochs out of all, what is left of the time, and a few words."""

    def __init__(self, name: str, done: int, total: int) -> None:
        """Start showing.

        Args:
            name: the run.
            done: epochs finished by earlier starts.
            total: all epochs.
        """
        self._total = total
        self._next_line = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if sys.stdout.isatty():
            columns = ("{task.description}", BarColumn(), "{task.completed}/{task.total}")
            self._bar = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[words]}")
            )
            self._task = self._bar.add_task(name, completed=done, total=total, words="")
        else:
            print(f"{name}: epoch {done}/{total}", flush=True)

    def show(self, epoch: int, words: str) -> None:
        """Show that ``epoch`` epochs are finished."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, words=words)
        elif time.monotonic() >= self._next_line or epoch == self._total:
            print(f"epoch {epoch}/{self._total}  {words}", flush=True)
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
