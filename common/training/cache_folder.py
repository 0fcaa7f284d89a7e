"""What caches on the disk share: whose folder it is, its room, and threads that fill it."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import torch

from common.distributed import all_reduce_sum, is_first_rank
from common.errors import UserError, describe_os_error
from common.files import remove, write_atomically
from common.training.progress import Count

Item = TypeVar("Item")
Result = TypeVar("Result")

_HOUR: Final = 3600.0
FILES: Final = "names"
"""The setting that is a digest of the names of the files that are kept."""
_OTHER_FILES: Final = "it holds other files than the lists name now"
_LETTERS: Final = 24
"""Of a setting in a message."""


def claim_folder(
    folder: Path, settings_file: str, settings: Mapping[str, object], words: str
) -> None:
    """Make ``folder`` a cache of these settings, or see that it is; several may do so at once.

    Args:
        folder: of the cache alone; made if it is not there.
        settings_file: name of the file that says with which settings it was made.
        settings: as JSON holds them.
        words: what the cache is called, e.g. 'frame cache'.

    Raises:
        UserError: it was made with other settings, holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_settings(folder, settings_file, settings, words)
    except OSError as error:
        raise describe_os_error(error, folder) from error


def _check_settings(
    folder: Path, settings_file: str, settings: Mapping[str, object], words: str
) -> None:
    file = folder / settings_file
    if not file.exists():
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            # Another process may have written its settings between the two looks.
            if not file.exists():
                raise UserError(
                    f"Folder {folder} is not empty and holds no {words}; "
                    "name an empty or a new folder."
                )
        else:
            write_atomically(file, json.dumps(settings).encode())
            return
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        found = None
    if found != settings:
        raise UserError(
            f"The {words} {folder} was made with other settings "
            f"({_difference(found, settings)}); name another folder or delete it."
        )


def _difference(found: object, wanted: Mapping[str, object]) -> str:
    """The settings that differ, in words."""
    if not isinstance(found, dict):
        return "what says which is damaged"
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return ", ".join(
        _OTHER_FILES if name == FILES else f"{name} {_word(found, name)}, not {_word(wanted, name)}"
        for name in names
    )


def _word(settings: Mapping[str, object], name: str) -> str:
    """A setting's value: short, as that of a digest is."""
    return str(settings.get(name, "absent"))[:_LETTERS]


def file_stamp(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: another pair, another file.

    Raises:
        OSError: there is no such file.
    """
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def remove_old_partial_files(folder: Path) -> None:
    """What processes killed while writing left; a younger file may still be written."""
    for path in folder.glob(".*.partial"):
        try:
            old = time.time() - path.stat().st_mtime > _HOUR
        except OSError:
            continue
        if old:
            remove(path)


@contextmanager
def filling_threads(number: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads, each with one of torch's own; when interrupted, only what is begun is ended.

    Args:
        number: at once, >= 1; None: one for each core.
    """
    usual = torch.get_num_threads()
    number = number or os.cpu_count() or 1
    pool = ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(usual)


def check_room(
    folder: Path, words: str, things: str, needed: int, missing: int, total: int
) -> None:
    """Say what all ranks will write, and refuse it if it is more than the disk has room for.

    Args:
        folder: of the cache.
        words: what the cache is called.
        things: what it keeps.
        needed: bytes that this rank will write.
        missing: how many things it will decode.
        total: how many it is to keep.

    Raises:
        UserError: on every rank.
    """
    needed, missing, total = all_reduce_sum(torch.tensor([needed, missing, total])).tolist()
    if not missing:
        return
    free = shutil.disk_usage(folder).free
    sizes = f"{_in_words(needed)}, and its disk has {_in_words(free)} free"
    if needed > free:
        raise UserError(
            f"The {words} {folder} needs {sizes}; "
            "free some space, choose another folder or train without a cache."
        )
    if is_first_rank():
        said = f"{missing} of {total} {things} are to be decoded"
        print(f"{said}; the {words} {folder} needs {sizes}.", flush=True)


def _in_words(size: int) -> str:
    """Bytes as MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def map_counted(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], words: str
) -> list[Result]:
    """What ``work`` returns for each item, in order, with a progress bar; the first error ends it.

    Args:
        pool: whose threads work.
        work: done for each item.
        items: what to do.
        words: what the bar counts.
    """
    futures = [pool.submit(work, item) for item in items]
    if not futures:
        return []
    with Count(words, len(futures)) as count:
        for future in as_completed(futures):
            future.result()
            count.advance()
    return [future.result() for future in futures]
