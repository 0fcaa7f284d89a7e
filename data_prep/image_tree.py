"""What a folder holds that has a folder for each class: images, and what is left out.

Shapes: C classes, N images.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from common.errors import UserError, describe_os_error
from data_prep.image_list import ImageList, is_path_below, true_paths

SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif",
    ".tiff", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".avif", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".pcx", ".qoi",
)  # fmt: skip
"""Of images that Pillow reads. Not what Pillow says: lists must not depend on its version."""
_LEFT_BEHIND: Final = {
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin",
    "recycler", "system volume information", "__macosx", "lost+found",
}  # fmt: skip
"""Folders, in lower case, that a NAS, an archive or an operating system puts among the user's."""
_FORKS: Final = "._"
"""Begins the names of what macOS puts beside each file."""
_PART_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train",),
    "difficulty": ("val", "valid", "validation"),
    "test": ("test",),
}


@dataclass(frozen=True)
class ImageTree:
    """The images of a folder, sorted by class and path.

    Attributes:
        class_names: names of the folders, (C,), sorted.
        images: all of them, (N,).
        outside: images that are in no class's folder.
        left_out: what else is there and is not read: how many of each kind.
        links: paths of images that are symbolic links.
    """

    class_names: tuple[str, ...]
    images: ImageList
    outside: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    links: frozenset[str] = frozenset()


def scan_tree(folder: Path) -> ImageTree:
    """Find the images below each class's folder, at any depth.

    Names that begin with a dot are left out, and the folders of a NAS or an archive. Links to
    images and to the folder of a class are followed, links to folders in it are not; of links to
    one image of a class one stays.

    Raises:
        UserError: there are less than two class folders, or they are called train, test and so on;
            a name cannot stand in a list; a folder cannot be read; a file is in two classes.
    """
    names = _Search(folder).class_folders("")
    _check_two_classes(names, folder)
    if _are_parts(names):
        raise UserError(
            f"{folder} is already divided into {', '.join(names)}, which are no classes; name the "
            "one that holds a folder for each class, or write the lists yourself."
        )
    return _scan(folder)


def find_parts(folder: Path) -> dict[str, str]:
    """The folders train, val and test, by part, if there are such and no others.

    ``val`` may be called ``valid`` or ``validation``, or be missing.

    Returns:
        ``{"train": "train", "difficulty": "val", "test": "test"}``, perhaps without the second;
        empty if the folders are classes.

    Raises:
        UserError: there is train without test or the other way round, or two of val, valid and
            validation; the folder cannot be read.
    """
    names = _Search(folder).class_folders("")
    if not _are_parts(names):
        return {}
    found = {part: [name for name in names if name in known] for part, known in _PART_NAMES.items()}
    doubled = next((of_part for of_part in found.values() if len(of_part) > 1), None)
    if doubled is not None:
        raise UserError(f"{folder} has {' and '.join(doubled)}; take all but one of them away.")
    missing = [part for part in ("train", "test") if not found[part]]
    if missing:
        raise UserError(
            f"{folder} is already divided into {', '.join(names)}, but has no {missing[0]}; add "
            "it, or name the one that holds a folder for each class to divide that."
        )
    return {part: of_part[0] for part, of_part in found.items() if of_part}


def scan_parts(folder: Path, names: Mapping[str, str]) -> dict[str, ImageTree]:
    """Find the images of each part, whose labels are those of the training part's classes.

    Args:
        folder: that the paths are relative to.
        names: of the folder of each part, see :func:`find_parts`.

    Raises:
        UserError: as :func:`scan_tree`; a part has no image, or a class that training lacks.
    """
    classes = _Search(folder).class_folders(names["train"])
    _check_two_classes(classes, folder / names["train"])
    trees = {part: _scan(folder, f"{name}/") for part, name in names.items()}
    for part, tree in trees.items():
        if not len(tree.images):
            raise UserError(f"{folder / names[part]} holds no image; put some there.")
        unknown = [name for name in tree.class_names if name not in classes]
        if unknown:
            raise UserError(
                f"{folder / names[part] / unknown[0]}: there is no class of this name in "
                f"{folder / names['train']}; add images of it there, or take it away."
            )
        numbers = torch.tensor([classes.index(name) for name in tree.class_names])
        tree.images.labels.copy_(numbers[tree.images.labels])
    return trees


def _are_parts(names: tuple[str, ...]) -> bool:
    known = {name for of_part in _PART_NAMES.values() for name in of_part}
    return len(names) > 1 and known.issuperset(names)


def _check_two_classes(names: tuple[str, ...], folder: Path) -> None:
    if len(names) < 2:
        held = "one class folder" if names else "no class folders"
        raise UserError(
            f"{folder} holds {held} where at least 2 belong; put the images of each class into a "
            "folder of its name."
        )


def _scan(folder: Path, below: str = "") -> ImageTree:
    """The tree of the class folders in ``folder / below``; ``below`` is empty or ends in '/'."""
    search = _Search(folder)
    names = search.class_folders(below)
    for name in names:
        if not can_be_listed(name) or name != name.strip():
            raise UserError(
                f"{folder / below}: the class folder {name!r} cannot be listed; rename it."
            )
    of_classes = search.without_twins([search.images_below(below + name) for name in names])
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([*map(len, of_classes)]).int())
    images = ImageList(tuple(path for paths in of_classes for path in paths), labels)
    return ImageTree(names, images, search.outside, search.left_out, frozenset(search.links))


class _Search:
    """A look through folders that notes what it passes over."""

    def __init__(self, folder: Path) -> None:
        """``folder``: that all paths are relative to.

        Raises:
            UserError: there is none.
        """
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "is missing"
            raise UserError(f"{folder} {what}; name the folder that holds a folder for each class.")
        self.folder = folder
        self.outside = 0
        self.left_out: Counter[str] = Counter()
        self.links: set[str] = set()

    def class_folders(self, below: str) -> tuple[str, ...]:
        """Names of the folders in ``below``, sorted; links are followed."""
        entries = list(self._entries(below))
        names = tuple(entry.name for entry in entries if entry.is_dir())
        self.outside = sum(_is_image(entry.name) for entry in entries if entry.name not in names)
        return names

    def images_below(self, below: str) -> list[str]:
        """Paths of the images at any depth, sorted."""
        paths = sorted(self._walk(below))
        bad = next((path for path in paths if not can_be_listed(path)), None)
        if bad is not None:
            raise UserError(
                f"{self.folder}: the name of {bad!r} cannot stand in a list; rename it."
            )
        return paths

    def without_twins(self, of_classes: list[list[str]]) -> list[list[str]]:
        """The paths of each class, one for each file.

        Raises:
            UserError: a file is in two classes.
        """
        every = [path for paths in of_classes for path in paths]
        true = true_paths(self.folder, every, self.links)
        if not true:
            return of_classes
        first: dict[str, tuple[int, str]] = {}
        for label, paths in enumerate(of_classes):
            for path in paths:
                other, twin = first.setdefault(true[path], (label, path))
                if other != label:
                    raise UserError(
                        f"{self.folder}: {twin} and {path} are one file (links are followed), and "
                        "it cannot be of two classes; take one of them away."
                    )
        kept = {path for _, path in first.values()}
        self.left_out["link to an image that is there"] += len(every) - len(kept)
        return [[path for path in paths if path in kept] for paths in of_classes]

    def _walk(self, below: str) -> Iterator[str]:
        for entry in self._entries(below):
            path = f"{below}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(path)
            elif entry.is_dir():
                self.left_out["link to a folder"] += 1
            elif _is_image(entry.name):
                if entry.is_symlink():
                    self.links.add(path)
                yield path
            else:
                self.left_out[Path(entry.name).suffix.lower() or "no ending"] += 1

    def _entries(self, below: str) -> Iterator["os.DirEntry[str]"]:
        """What is in a folder, sorted by name, without what is hidden or left behind."""
        try:
            with os.scandir(self.folder / below) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise describe_os_error(error, error.filename or self.folder) from error
        for entry in entries:
            if entry.name.casefold() in _LEFT_BEHIND:
                self.left_out[entry.name] += 1
            elif entry.name.startswith(_FORKS):
                self.left_out[f"{_FORKS}*"] += 1
            elif not entry.name.startswith("."):
                yield entry
            elif _is_image(entry.name):
                self.left_out["hidden image"] += 1


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def can_be_listed(path: str) -> bool:
    """Whether a path can stand in a list: text, without control characters."""
    try:
        path.encode()
    except UnicodeEncodeError:  # The file system's bytes are not UTF-8.
        return False
    return is_path_below(path)
