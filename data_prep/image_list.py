"""Lists of images, one image a line: ``PATH LABEL``, the path relative to a folder.

The label is the last word of a line, so a path may hold blanks. A list may be packed (``.gz``).

Shapes: N images of a list, C classes; labels are 0 to C-1.
"""

import gzip
import hashlib
import itertools
import os
import posixpath
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

import torch
from torch import Tensor

from common.errors import UserError, describe_os_error
from common.training.progress import Count

PARTS: Final = ("train", "difficulty", "test")
PACKED: Final = ".gz"
NAMED: Final = 5
"""How many missing files a message names."""
FROM_ONE: Final = "the labels seem to count from 1: subtract 1 from each, in every list"
"""For messages."""

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
        found = " ".join(fields[line])
        what = f"{found!r} is not 'PATH LABEL'; mend" if found else "it is empty; take out"
        raise UserError(f"{place_in(file, line)}: {what} the line.")
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


def place_in(file: Path, line: int) -> str:
    """File and line in words; ``line`` is counted from 0."""
    return f"{file}, line {line + 1}"


def _label(word: str, words: list[str], file: Path, num_classes: int | None) -> int:
    """The label that a word stands for."""
    if not _is_label(word):
        raise UserError(
            f"{place_in(file, words.index(word))}: the label {word!r} is not a whole number of at "
            "least 0; write 'PATH LABEL'."
        )
    label = int(word)
    if num_classes is not None and label >= num_classes:
        from_one = label == num_classes and all(
            int(other) for other in {*words} if _is_label(other)
        )
        raise UserError(
            f"{place_in(file, words.index(word))}: the label {label} is out of range; there are "
            f"{num_classes} classes, 0 to {num_classes - 1}"
            f"{f'; {FROM_ONE}' if from_one else ''}."
        )
    return label


def _is_label(word: str) -> bool:
    return _LABEL.fullmatch(word) is not None


def _check_paths(paths: tuple[str, ...], file: Path) -> None:
    """Refuse a path that is there twice or is not one below the folder."""
    # One look at all of them; only where it is not enough, one at each.
    together = " ".join(["", *paths])
    doubtful = " /" in together or ".." in together or not together.isprintable()
    bad = next((path for path in paths if not is_path_below(path)), None) if doubtful else None
    if bad is not None:
        raise UserError(
            f"{place_in(file, paths.index(bad))}: {bad!r} is not a path below the folder of the "
            "images; write it relative to that folder."
        )
    plain = plain_paths(paths)
    if len(set(plain)) < len(plain):
        first, second = _first_repeated(plain)
        spelt = "" if paths[first] == paths[second] else f" (as {paths[first]})"
        raise UserError(
            f"{place_in(file, second)}: {paths[second]} stands in line {first + 1} too{spelt}; an "
            "image may be in a list once."
        )


def is_path_below(path: str) -> bool:
    """Whether a path is relative, does not go up, and can stand in a line of a list.

    >>> [is_path_below(path) for path in ("cat/1.jpg", "a..b.jpg", "/cat/1.jpg", "../1.jpg")]
    [True, True, False, False]
    """
    goes_up = ".." in path and ".." in PurePosixPath(path).parts
    return path[0] != "/" and not goes_up and not _CONTROL.search(path)


def plain_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The same in the simplest spelling.

    >>> plain_paths(("./a/0.png", "a//1.png", "a/./2.png", "a./3.png"))
    ('a/0.png', 'a/1.png', 'a/2.png', 'a./3.png')
    """
    # One look at all of them, as nearly all lists are plain.
    together = "/".join(paths)
    if "//" not in together and "./" not in together:
        return paths
    return tuple(map(posixpath.normpath, paths))


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


@dataclass(frozen=True)
class FoundImages:
    """What a look into the folders of a split showed.

    Attributes:
        missing: paths that are not there, in the order of the lists.
        links: paths that are symbolic links.
    """

    missing: tuple[str, ...]
    links: frozenset[str]


def look_for_images(split: ImageSplit) -> FoundImages:
    """Look for the images of a split, with a progress bar.

    Each folder is listed once, which on a network's file system takes a small part of the time of
    asking for each file. A file that is there may still be unreadable.

    Args:
        split: whose images are looked for.

    Raises:
        UserError: a folder cannot be read.
    """
    wanted = _by_folder(split)
    missing: set[str] = set()
    links: set[str] = set()
    with Count("folders of images", len(wanted)) as count:
        for folder, names in wanted.items():
            found = _names_in(split.folder / folder)
            missing.update(folder + name for name in names.difference(found))
            links.update(folder + name for name in names if found.get(name))
            count.advance()
    in_order = (path for path in _paths(split) if path in missing) if missing else ()
    return FoundImages(tuple(in_order), frozenset(links))


def find_missing(split: ImageSplit) -> list[str]:
    """The paths of a split that are not there; see :func:`look_for_images`."""
    return list(look_for_images(split).missing)


def require_images(split: ImageSplit, remedy: str, *, distinct: bool = False) -> None:
    """Refuse a split of which files are missing; to be called before any training.

    Args:
        split: whose images are looked for.
        remedy: what to do, for the message.
        distinct: also refuse one file in two parts, see :func:`refuse_shared`.

    Raises:
        UserError: it names the first few of them and tells their number.
    """
    found = look_for_images(split)
    if found.missing:
        total = sum(map(len, split.parts.values()))
        why = explain_missing(split, found.missing) or remedy
        raise UserError(
            f"{split.folder}: {len(found.missing)} of {total} images are missing, such as "
            f"{', '.join(found.missing[:NAMED])}; {why}."
        )
    if distinct:
        refuse_shared(split.folder, split.parts, found.links)


def explain_missing(split: ImageSplit, missing: tuple[str, ...]) -> str:
    """What is wrong with how the first of the missing paths is written, if its file is there.

    Args:
        split: whose paths they are.
        missing: at least one.

    Returns:
        Where the file is, and the remedy; empty if nothing was found.
    """
    path = missing[0]
    spellings = {
        "with '/' in place of '\\'": path.replace("\\", "/"),
        "without quotation marks": path.strip("\"'"),
        "without the blank before it": path.strip(),
        "in another form of Unicode (NFC)": unicodedata.normalize("NFC", path),
        "in another form of Unicode (NFD)": unicodedata.normalize("NFD", path),
    }
    for how, other in spellings.items():
        if other != path and os.path.isfile(split.folder / other):
            return f"{path!r} is there {how}: write the paths of the lists so"
    return ""


def refuse_shared(folder: Path, parts: Mapping[str, ImageList], links: Set[str]) -> None:
    """Refuse one file in two parts; links are followed.

    Args:
        folder: that the paths are relative to.
        parts: by name.
        links: paths that are symbolic links.

    Raises:
        UserError: naming both paths.
    """
    paths = itertools.chain.from_iterable(images.paths for images in parts.values())
    true = true_paths(folder, paths, links)
    seen: dict[str, tuple[str, str]] = {}
    for part, images in parts.items() if true else ():
        for path in images.paths:
            other, first = seen.setdefault(true[path], (part, path))
            if other != part:
                raise UserError(
                    f"{folder}: {path} of the {part} part and {first} of the {other} part are one "
                    "file (links are followed); an image may be in one part only."
                )


def true_paths(folder: Path, paths: Iterable[str], links: Set[str]) -> dict[str, str]:
    """Where paths lead when links are followed; empty where all lead to different files.

    Each folder is resolved once, and of the files the links only.

    Args:
        folder: that the paths are relative to.
        paths: in the simplest spelling.
        links: those that are symbolic links themselves.
    """
    paths = tuple(paths)
    folders = {head: os.path.realpath(folder / head) for head in {*map(posixpath.dirname, paths)}}
    if not links and len(set(folders.values())) == len(folders):
        return {}
    return {
        path: os.path.realpath(folder / path)
        if path in links
        else os.path.join(folders[posixpath.dirname(path)], posixpath.basename(path))
        for path in paths
    }


def _paths(split: ImageSplit) -> Iterator[str]:
    return itertools.chain.from_iterable(part.paths for part in split.parts.values())


def _by_folder(split: ImageSplit) -> dict[str, set[str]]:
    """The names wanted in each folder; a folder's name ends in '/' or is empty."""
    wanted: dict[str, set[str]] = {}
    for path in _paths(split):
        folder, slash, name = path.rpartition("/")
        wanted.setdefault(folder + slash, set()).add(name)
    return wanted


def _names_in(folder: Path) -> dict[str, bool]:
    """The names in a folder, and whether each is a symbolic link; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise describe_os_error(error, folder) from error
