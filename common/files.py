"""Files written whole: all or nothing, whenever the process or the machine stops. Needs no torch.

The content goes to another name, is flushed to the disk and then renamed, so that a process killed
at any moment leaves either the old file or the new one.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from .errors import describe_os_error

_PARTIAL: Final = ".partial"
_KEPT: Final = 200

IN_USE: Final = "is in use by another process"
"""What a run says before it waits for its folder; the launcher hears it."""


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write the pieces of ``content``, one after the other, to ``path``, all or nothing.

    Raises:
        UserError: when there is no room or no permission; ``path`` is then as before.
    """
    # The process in the name: two that write the same file do not write into each other's. Of a
    # long name not all: it would be too long with what is added.
    temporary = path.with_name(f".{path.name[:_KEPT]}.{os.getpid()}{_PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        remove(temporary)
        raise describe_os_error(error, path) from error


def chosen_path(named: Path | None, variable: str, default: Path) -> Path:
    """The path that was named, else the one in an environment variable, else the usual one."""
    return named or Path(os.environ.get(variable) or default)


def remove(path: Path) -> None:
    """Delete a file if it is there and can be deleted."""
    with contextlib.suppress(OSError):
        path.unlink()


def remove_partial_files(folder: Path) -> None:
    """Delete what processes killed while writing left in ``folder``; no other may be writing."""
    for path in folder.glob(f".*{_PARTIAL}"):
        remove(path)


def _flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
