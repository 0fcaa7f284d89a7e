"""A run's folder: who writes in it, its configuration, checkpoint, weights and result record.

Every file is written with ``common.files``, so a process killed at any moment leaves either the old
file or the new one.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch

from common.distributed import barrier, is_first_rank
from common.errors import UserError, describe_os_error
from common.files import IN_USE, remove, remove_partial_files, write_atomically
from common.terminal import printable
from common.training.process_group import is_of_another_process
from common.training.record import check_record, config_differences, read_record

CHECKPOINT_FORMAT = 3
# What a file system without locks says, as some clusters' are set up.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_START_ANEW = (
    "move it elsewhere and start the same command again: the run then starts at its first epoch"
)
# Device and inode of the locks that this process holds: waiting for one would never end.
_held: set[tuple[int, int]] = set()


class ForeignWeightsError(UserError):
    """Weights are another network's; who knows their file says so with its name."""


def to_json(value: Any) -> bytes:
    """``value`` as JSON bytes on one line, without blanks, with sorted keys; NaN is refused."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values with ``torch.save``, all or nothing.

    A sha256 of the file stands at its end; ``torch.load`` reads over it.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.write(_checksum(buffer.getbuffer()))
    write_atomically(path, buffer.getvalue())


def _checksum(content: bytes | memoryview) -> bytes:
    """What :func:`save_tensors` appends to a file: 72 bytes."""
    return b"\nsha256 " + hashlib.sha256(content).hexdigest().encode()


def _checked_bytes(path: Path, remedy: str) -> memoryview:
    """The content of :func:`save_tensors`'s file without its checksum.

    torch.load itself does not notice a changed bit in a tensor.
    """
    try:
        whole = memoryview(path.read_bytes())
    except OSError as error:
        raise describe_os_error(error, path) from error
    length = len(_checksum(b""))
    content, checksum = whole[:-length], whole[-length:]
    if checksum != _checksum(content):
        raise UserError(f"{path} is truncated or damaged (its checksum does not fit); {remedy}.")
    return content


def load_tensors(path: Path, remedy: str = _START_ANEW) -> dict[str, Any]:
    """Read :func:`save_tensors`'s file: tensors and plain values only, never code.

    Args:
        path: the file.
        remedy: what a user can do when it is damaged.

    Raises:
        UserError: when the file cannot be read, is truncated, damaged, or holds anything else.
    """
    content = _checked_bytes(path, remedy)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, so loading it could run foreign "
            f"code; {remedy}."
        ) from error
    except Exception as error:  # Whole, but of something else: the unpickler raises anything.
        raise UserError(f"{path} was not written by this program; {remedy}.") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} was not written by this program; {remedy}.")
    return state


def _first_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The first three settings that differ; empty where none does."""

    def told(value: Any) -> str:
        return "none" if value is None else repr(value)

    return ", ".join(
        f"{name} {told(theirs.get(name))} there, {told(ours.get(name))} asked for"
        for name in config_differences(ours, theirs)[:3]
    )


def _damaged_config(path: Path, reason: object) -> str:
    """What to do; the checkpoint and the record know their configuration themselves."""
    return (
        f"{path} is damaged ({reason}); delete this file and start the same command again: it "
        "continues."
    )


def _identity(file: IO[str]) -> tuple[int, int]:
    """The same for each handle of a file, by whatever path."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


class RunFolder:
    """One run's folder, locked while in use (``with RunFolder(...) as folder:``).

    A second process that asks for the same run waits until the first has ended or died, and then
    finds the record or goes on from the checkpoint. Under torchrun the first rank alone locks and
    writes; the others read.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        read: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Name the folder.

        Args:
            path: the folder, made if absent.
            config: the run's configuration, plain JSON values.
            read: a configuration that is found there, perhaps an older version's -> as it would be
                written today.
        """
        self.path = path
        self.config = config
        self._read = read
        self.record_path = path / "record.json"
        self.checkpoint_path = path / "checkpoint.pt"
        self.weights_path = path / "weights.pt"
        self.failure_path = path / "failure.json"
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Make and lock the folder, and check that it belongs to this configuration.

        Raises:
            UserError: when the folder cannot be written or belongs to another configuration.
        """
        if is_first_rank():
            self._acquire()
        barrier()
        return self

    def _acquire(self) -> None:
        """What ``__enter__`` does, on the first rank."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a")
        except OSError as error:
            raise describe_os_error(error, self.path) from error
        try:
            try:
                self._wait_for_lock(self._lock)
            except OSError as error:
                raise describe_os_error(error, self.path / "lock") from error
            # The lock says that whoever left one is dead.
            remove_partial_files(self.path)
            self._check_config()
            remove(self.failure_path)
        except BaseException:
            self._lock.close()
            raise
        _held.add(_identity(self._lock))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the folder; of an error, though not of a request to stop, a note is left."""
        # Of whichever rank had it: rank 0 may only see that another is gone, or be ended.
        if isinstance(error, Exception) and not is_of_another_process(error):
            self._note_failure(error)
        if self._lock is not None:
            _held.discard(_identity(self._lock))
            self._lock.close()

    def _note_failure(self, error: Exception) -> None:
        """Write failure.json, which is there until the run's next start: ``time``, ``error``."""
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        note = {"time": now, "error": " ".join(said.split())}
        with contextlib.suppress(UserError):  # The disk may be full.
            write_atomically(self.failure_path, to_json(note))

    def _wait_for_lock(self, lock: IO[str]) -> None:
        """Wait until no other process has the lock, where the file system has locks.

        Raises:
            UserError: this very process has it.
            OSError: for another reason.
        """
        if _identity(lock) in _held:
            raise UserError(
                f"{self.path} is in use by another run of this process; let that one end first."
            )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(printable(f"{self.path} {IN_USE}; waiting for it"), flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            words = (
                f"the file system of {self.path} has no locks ({error.strerror}): nothing keeps "
                "two processes from one run, so start none twice"
            )
            print(printable(words), file=sys.stderr)

    def _check_config(self) -> None:
        """Write config.json, or compare with the one there."""
        path = self.path / "config.json"
        if not path.exists():
            write_atomically(path, to_json(self.config))
            return
        try:
            theirs = json.loads(path.read_bytes())
        except OSError as error:
            raise describe_os_error(error, path) from error
        except ValueError as error:
            raise UserError(_damaged_config(path, error)) from error
        if not isinstance(theirs, dict):
            raise UserError(_damaged_config(path, "no settings in it"))
        self._refuse_other(theirs, path)

    def _refuse_other(self, theirs: dict[str, Any], path: Path) -> None:
        difference = _first_differences(self.config, self._read(theirs))
        if difference:
            raise UserError(
                f"{path} belongs to another configuration ({difference}); choose another folder "
                "with --out, or move that one elsewhere."
            )

    def finished_record(self) -> dict[str, Any] | None:
        """The record, if the run has finished.

        Raises:
            UserError: when the record is damaged or belongs to another configuration.
        """
        if not self.record_path.exists():
            return None
        record = read_record(self.record_path)
        self._refuse_other(record["config"], self.record_path)
        # Still there if the process was killed between its last two steps.
        remove(self.checkpoint_path)
        return record

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write ``state`` (tensors and plain values) so that :meth:`load_checkpoint` gives it."""
        config = json.dumps(self.config, sort_keys=True)
        content = {"format": CHECKPOINT_FORMAT, "config": config, "state": state}
        if is_first_rank():
            save_tensors(self.checkpoint_path, content)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint's state, or None.

        Raises:
            UserError: when it is damaged, holds code, or belongs to another configuration.
        """
        if not self.checkpoint_path.exists():
            return None
        content = load_tensors(self.checkpoint_path)
        if content.get("format") != CHECKPOINT_FORMAT:
            raise UserError(
                f"{self.checkpoint_path} is not a checkpoint of this version; {_START_ANEW}."
            )
        self._refuse_other(json.loads(content["config"]), self.checkpoint_path)
        state: dict[str, Any] = content["state"]
        return state

    def finish(self, weights: dict[str, Any], record: dict[str, Any]) -> None:
        """Write weights, then the record, then drop the checkpoint: the run has finished."""
        if not is_first_rank():
            return
        save_tensors(self.weights_path, weights)
        check_record(record, self.record_path)
        write_atomically(self.record_path, to_json(record))
        remove(self.checkpoint_path)
