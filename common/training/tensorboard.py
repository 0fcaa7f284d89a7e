"""TensorBoard log of a run: one point an epoch, also after a restart.

The events are tensorboard's own, in its own record format, but written at once: its writer works
in a thread, where a full disk ends in a traceback beside the run instead of a sentence from it.
"""

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from common.errors import describe_os_error


class EpochLog:
    """Writes scalars, by epoch, into a run's ``tensorboard`` folder."""

    def __init__(self, folder: Path, next_epoch: int) -> None:
        """Open a new file of the log; every start of a run has its own.

        Args:
            folder: made if absent.
            next_epoch: first epoch that will be written; what an interrupted start wrote from
                there on is dropped by TensorBoard.

        Raises:
            UserError: when the file cannot be written.
        """
        # tensorboard finds the files by 'tfevents' and reads them in the order of their names.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        except OSError as error:
            raise describe_os_error(error, self._path) from error
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=next_epoch, session_log=SessionLog(status=SessionLog.START))

    def _write(self, **content: Any) -> None:
        """Append one event and hand it to the operating system."""
        try:
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
            self._file.flush()
        except OSError as error:
            raise describe_os_error(error, self._path) from error

    def write(self, epoch: int, scalars: dict[str, float]) -> None:
        """Write named numbers for ``epoch``.

        Raises:
            UserError: when there is no room.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=epoch, summary=Summary(value=values))

    def __enter__(self) -> Self:
        """Nothing to do: the log is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as close_error:
            # A failed write was told already; closing tries it once more.
            if error is None:
                raise describe_os_error(close_error, self._path) from close_error
