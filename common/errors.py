"""Mistakes a user can make: one sentence, exit code 2, no traceback."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from .terminal import printable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# What the file system says when there is no room: device full, quota used up, file size limit.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UserError(Exception):
    """A mistake the user can mend; its message: what is wrong, where, the remedy."""


def describe_os_error(error: OSError, path: object) -> UserError:
    """Turn an operating-system error while writing or reading ``path`` into a sentence."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _NO_ROOM:
        return UserError(
            f"No room left to write {path} ({reason}); free some space or choose another "
            "folder with --out, then start the same command again: it continues."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            f"{path} cannot be written or read ({reason}); "
            "change its permissions or choose another folder with --out."
        )
    return UserError(f"{path}: {reason}; check the path or choose another folder with --out.")


def _describe_passed(error: OSError) -> UserError:
    """A sentence for an operating-system error that nobody caught.

    Raises:
        OSError: ``error`` itself, if it is neither of a file nor of writing standard output.
    """
    if error.filename is not None:
        return describe_os_error(error, error.filename)
    if error.errno in _NO_ROOM | {errno.EPIPE, errno.EIO, errno.EBADF}:
        return UserError(
            f"Standard output cannot be written ({error.strerror}); free some space or send it "
            "elsewhere, then start the same command again: it continues."
        )
    raise error


def _flush_or_drop(stream: TextIO) -> None:
    """Flush ``stream``; failing that let it lead nowhere: Python flushes at its end."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _end(words: str, code: int) -> NoReturn:
    """Say ``words`` on standard error, if it can be written, and exit."""
    with contextlib.suppress(OSError):
        print(printable(words), file=sys.stderr)
    _flush_or_drop(sys.stdout)
    _flush_or_drop(sys.stderr)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Let closed standard streams (``>&-``) lead nowhere, and none refuse a character."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Left free it would be the next file's that is opened, and be printed into. All below
            # it are taken, so that the system gives this one.
            os.open(os.devnull, os.O_RDWR)
    # Python has None where it found one closed.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # As standard error is.


def run_main(main: Callable[[], None]) -> None:
    """Run ``main``; a :class:`UserError` becomes one line on standard error and exit code 2.

    So does an error of the operating system that ``main`` let pass, such as a full disk under
    standard output. A closed standard output is as one that leads nowhere; what a terminal cannot
    show is written as its number.
    """
    _open_standard_streams()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _end(f"error: {error}", EXIT_USER_ERROR)
    except OSError as error:
        _end(f"error: {_describe_passed(error)}", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _end("interrupted; the same command continues from the last checkpoint", EXIT_INTERRUPTED)
