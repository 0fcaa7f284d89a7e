"""Lists of images, one image a line: ``PATH LABEL``, the path relative to a folder.

The label is the last word of a line, so a path may hold blanks. A list may be packed (``.gz``).

Shapes: N images of a list, C classes; labels are 0 to C-1.
"""

import gzip
import hashlib
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import listdir
from pathlib import Path, PurePosixPath
from typing import Final

import torch
from torch import Tensor

from common.errors import UserError, describe_os_error
from common.progress import Count

PARTS: Final = ("train", "difficulty", "test")
PACKED: Final = ".gz"
NAMED: Final = 5
"""How many missing files a message names."""

_LABEL: Final = re.compile(r"[0-9]{1,9}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, eq=False)
class ImageList:
    """The images of one part, in the order of its list.

    Attributes:
        paths: (N,) relative to a folder, with '/'.
        labels: (N,) int64, 0 to C-1.
    """

    paths: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.paths)

    def class_counts(self, num_classes: int) -> tuple[int, ...]:
        """Images of each class, (C,)."""
        return tuple(torch.bincount(self.labels, minlength=num_classes).tolist())


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images to train on, to measure the class difficulty on, and to test on.

    Attributes:
        folder: the paths of the three lists are relative to it.
        train: at least one image of each class.
        difficulty: at least one image; a class may have none.
        test: the same.
        class_names: (C,) in label order.
        digest: sha256 (hex), see :func:`lists_digest`, of the lists as they are written, wherever
            the images lie: equal for equal splits.
    """

    folder: Path
    train: ImageList
    difficulty: ImageList
    test: ImageList
    class_names: tuple[str, ...]
    digest: str

    @property
    def parts(self) -> dict[str, ImageList]:
        """The three parts by name: train, difficulty, test."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @cached_property
    def train_counts(self) -> tuple[int, ...]:
        """Training images of each class, (C,)."""
        return self.train.class_counts(self.num_classes)

    @cached_property
    def difficulty_counts(self) -> tuple[int, ...]:
        """Images of each class that its difficulty is measured on, (C,)."""
        return self.difficulty.class_counts(self.num_classes)

    @cached_property
    def test_counts(self) -> tuple[int, ...]:
        """Test images of each class, (C,)."""
        return self.test.class_counts(self.num_classes)

    @property
    def imbalance(self) -> float:
        """Largest over smallest number of training images per class, >= 1."""
        return max(self.train_counts) / min(self.train_counts)


# Reading.


def read_image_list(file: Path, num_classes: int | None = None) -> ImageList:
    """Read and check a list.

    Args:
        file: text in UTF-8; unpacked if its name ends in ``.gz``.
        num_classes: labels must be less than it; None: any label will do.

    Raises:
        UserError: naming the file, and the line of what is wrong in it: it is missing, empty or not
            text; a line has no path or no label, or a path that leads out of the folder; a label is
            out of range; a path is there twice.
    """
    return parse_image_list(read_bytes(file), file, num_classes)


def read_bytes(file: Path) -> bytes:
    """What a file holds, unpacked if its name ends in ``.gz``.

    Raises:
        UserError: it is missing, damaged or cannot be read.
    """
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if file.suffix == PACKED else content
    except FileNotFoundError as error:
        raise UserError(
            f"{file} is missing; name the list of images that is to be read."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{file} is truncated or damaged ({error}); get the original file again."
        ) from error
    except OSError as error:
        raise describe_os_error(error, file) from error


def parse_image_list(content: bytes, file: Path, num_classes: int | None = None) -> ImageList:
    """The list that a file holds; see :func:`read_image_list`.

    Labels are checked once for each of the C different words, not once for each image.

    Args:
        content: of the file, unpacked.
        file: its name, for messages.
        num_classes: labels must be less than it; None: any label will do.
    """
    # Tuples: the garbage collector passes over lists again and again, the more there are.
    fields = [tuple(line.rsplit(None, 1)) for line in _lines(content, file)]
    if any(len(field) != 2 for field in fields):
        line = next(line for line, field in enumerate(fields) if len(field) != 2)
        raise UserError(
            f"{_place(file, line)}: {' '.join(fields[line])!r} is not 'PATH LABEL'; mend the line."
        )
    paths = tuple(path for path, _ in fields)
    words = [word for _, word in fields]
    values = {word: _label(word, words, file, num_classes) for word in dict.fromkeys(words)}
    _check_paths(paths, file)
    return ImageList(paths, torch.tensor([values[word] for word in words], dtype=torch.int64))


def read_lines(file: Path) -> list[str]:
    """The lines of a text, at least one.

    Raises:
        UserError: it is missing, empty or not text.
    """
    return _lines(read_bytes(file), file)


def _lines(content: bytes, file: Path) -> list[str]:
    try:
        # A byte order mark and the line ends of Windows are no mistake, nor are blank last lines.
        text = content.decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8 ({error.reason}); replace it.") from error
    if not text:
        raise UserError(f"{file} is empty; it needs at least one line.")
    return text.split("\n")


def _place(file: Path, line: int) -> str:
    return f"{file}, line {line + 1}"


def _label(word: str, words: list[str], file: Path, num_classes: int | None) -> int:
    """The label that a word stands for."""
    if not _LABEL.fullmatch(word):
        raise UserError(
            f"{_place(file, words.index(word))}: the label {word!r} is not a whole number of at "
            "least 0; write 'PATH LABEL'."
        )
    label = int(word)
    if num_classes is not None and label >= num_classes:
        raise UserError(
            f"{_place(file, words.index(word))}: the label {label} is out of range; there are "
            f"{num_classes} classes, 0 to {num_classes - 1}."
        )
    return label


def _check_paths(paths: tuple[str, ...], file: Path) -> None:
    """Refuse a path that is there twice or is not one below the folder."""
    # One look at all of them; only where it is not enough, one at each.
    together = " ".join(["", *paths])
    doubtful = " /" in together or ".." in together or not together.isprintable()
    bad = next((path for path in paths if not is_path_below(path)), None) if doubtful else None
    if bad is not None:
        raise UserError(
            f"{_place(file, paths.index(bad))}: {bad!r} is not a path below the folder of the "
            "images; write it relative to that folder."
        )
    if len(set(paths)) < len(paths):
        first, second = _first_repeated(paths)
        raise UserError(
            f"{_place(file, second)}: {paths[second]} stands in line {first + 1} too; an image may "
            "be in a list once."
        )


def is_path_below(path: str) -> bool:
    """Whether a path is relative, does not go up, and can stand in a line of a list.

    >>> [is_path_below(path) for path in ("cat/1.jpg", "a..b.jpg", "/cat/1.jpg", "../1.jpg")]
    [True, True, False, False]
    """
    goes_up = ".." in path and ".." in PurePosixPath(path).parts
    return path[0] != "/" and not goes_up and not _CONTROL.search(path)


def _first_repeated(paths: tuple[str, ...]) -> tuple[int, int]:
    """Places of the first path that was there before, and of where it was."""
    seen: dict[str, int] = {}
    for place, path in enumerate(paths):
        if path in seen:
            return seen[path], place
        seen[path] = place
    raise ValueError("no path is there twice")


def lists_digest(parts: Mapping[str, ImageList]) -> str:
    """sha256 (hex) over names, lengths, paths and labels of lists, in the order given."""
    digest = hashlib.sha256()
    for name, part in parts.items():
        digest.update(f"{name} {len(part)}\n".encode())
        labels = part.labels.tolist()
        lines = (f"{path} {label}\n" for path, label in zip(part.paths, labels, strict=True))
        digest.update("".join(lines).encode())
    return digest.hexdigest()


# The files.


def find_missing(split: ImageSplit) -> list[str]:
    """The paths of a split that are not there, in the order of its lists, with a progress bar.

    Each folder is listed once, which on a network's file system takes a small part of the time of
    asking for each file. A file that is there may still be unreadable.

    Args:
        split: whose images are looked for.

    Raises:
        UserError: a folder cannot be read.
    """
    wanted = _by_folder(split)
    missing: set[str] = set()
    with Count("folders of images", len(wanted)) as count:
        for folder, names in wanted.items():
            absent = names.difference(_names_in(split.folder / folder))
            missing.update(folder + name for name in absent)
            count.advance()
    return [path for path in _paths(split) if path in missing] if missing else []


def require_images(split: ImageSplit, remedy: str) -> None:
    """Refuse a split of which files are missing; to be called before any training.

    Args:
        split: whose images are looked for.
        remedy: what to do, for the message.

    Raises:
        UserError: it names the first few of them and tells their number.
    """
    missing = find_missing(split)
    if missing:
        total = sum(map(len, split.parts.values()))
        raise UserError(
            f"{split.folder}: {len(missing)} of {total} images are missing, such as "
            f"{', '.join(missing[:NAMED])}; {remedy}."
        )


def _paths(split: ImageSplit) -> Iterator[str]:
    return itertools.chain.from_iterable(part.paths for part in split.parts.values())


def _by_folder(split: ImageSplit) -> dict[str, set[str]]:
    """The names wanted in each folder; a folder's name ends in '/' or is empty."""
    wanted: dict[str, set[str]] = {}
    for path in _paths(split):
        folder, slash, name = path.rpartition("/")
        wanted.setdefault(folder + slash, set()).add(name)
    return wanted


def _names_in(folder: Path) -> list[str]:
    try:
        return listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise describe_os_error(error, folder) from error
