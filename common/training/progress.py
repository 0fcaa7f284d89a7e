"""Progress: a bar on a terminal, lines elsewhere (``launch`` reads those of a run)."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from common.terminal import printable

_SECONDS_BETWEEN_LINES = 1.0
_SECONDS_BETWEEN_COUNTS = 5.0


def _plain(form: str) -> TextColumn:
    """A column of a bar that shows names as they stand: nothing in them is markup."""
    return TextColumn(form, markup=False)


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
        if sys.stdout.isatty() and Console().is_interactive:  # Not in TERM=dumb: nothing is drawn.
            self._bar = Progress(
                _plain("{task.description}"), BarColumn(), _plain("{task.completed}/{task.total}"),
                TimeRemainingColumn(), _plain("{task.fields[words]}"),
            )  # fmt: skip
            name = printable(name)
            self._task = self._bar.add_task(name, completed=done, total=total, words="")
        else:
            print(printable(f"{name}: epoch {done}/{total}"), flush=True)

    def show(self, epoch: int, words: str) -> None:
        """Show that ``epoch`` epochs are finished."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, words=printable(words))
        elif time.monotonic() >= self._next_line or epoch == self._total:
            print(printable(f"epoch {epoch}/{self._total}  {words}"), flush=True)
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


class Count:
    """Shows how many of some things are done, on standard error (``with Count(...) as count:``)."""

    def __init__(self, words: str, total: int) -> None:
        """Nothing is done yet.

        Args:
            words: what is counted.
            total: how many there are.
        """
        self._words, self._total, self._done = printable(words), total, 0
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_COUNTS
        console = Console(file=sys.stderr)
        self._bar = Progress(
            _plain("{task.description}"), BarColumn(), _plain("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            console=console, disable=not (sys.stderr.isatty() and console.is_interactive),
        )  # fmt: skip
        self._task = self._bar.add_task(self._words, total=total)

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        self._bar.advance(self._task)
        late = time.monotonic() >= self._next_line or self._done == self._total
        if self._bar.disable and late:
            print(f"{self._words} {self._done}/{self._total}", file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_COUNTS

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        self._bar.stop()
