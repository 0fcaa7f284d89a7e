"""Lists of one split whose labels contradict each other, or the names of the classes.

Where each class has a folder of its own, its folder tells which label an image must have. Lists
that were made apart, each with the classes counted anew, differ from there on where one of them
lacks a class: training would then be driven by the accuracy of other classes.

Shapes: N images of a list, C classes.
"""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from common.errors import UserError
from data_prep.image_list import ImageList, place_in, plain_paths

_ClassFolders = tuple[Callable[[str], str], dict[str, int]]
"""What is taken for an image's folder, and the label of each folder."""


def check_labels_agree(parts: Mapping[str, ImageList], files: Mapping[str, Path]) -> None:
    """Refuse an image whose label is another than its folder's in training.

    Asked only where each folder of the training list has one label and each label one folder.

    Args:
        parts: train and others, by name.
        files: the list of each part.

    Raises:
        UserError: naming file and line.
    """
    others = [part for part in parts if part != "train"]
    for folder_of, labels in _class_folders(parts["train"]):
        for part in others:
            paths = plain_paths(parts[part].paths)
            for line, label in enumerate(parts[part].labels.tolist()):
                folder = folder_of(paths[line])
                if labels.get(folder, label) != label:
                    raise UserError(
                        f"{place_in(files[part], line)}: {paths[line]} has label {label}, but in "
                        f"{files['train']} the label of the folder {folder} is {labels[folder]}; "
                        "count the classes once, and write the same labels into all lists."
                    )


def check_names_agree(train: ImageList, names: tuple[str, ...], file: Path) -> None:
    """Refuse the name of a class that is the folder of another.

    Args:
        train: the training list.
        names: in label order, (C,).
        file: that has the names.

    Raises:
        UserError: naming file and line.
    """
    for _, labels in _class_folders(train):
        for label, name in enumerate(names):
            if labels.get(name, label) != label:
                raise UserError(
                    f"{place_in(file, label)}: {name} is the name of label {label}, but the label "
                    f"of the folder {name} is {labels[name]}; write the names in label order."
                )


def _class_folders(train: ImageList) -> Iterator[_ClassFolders]:
    """The readings by which each class has one folder and each folder one class."""
    paths = plain_paths(train.paths)
    labels = train.labels.tolist()
    for folder_of in _FOLDERS:
        found = _one_to_one(map(folder_of, paths), labels)
        if found:
            yield folder_of, found


def _one_to_one(folders: Iterable[str], labels: list[int]) -> dict[str, int]:
    """The label of each folder; empty if folders are no classes."""
    found: dict[str, int] = {}
    for folder, label in zip(folders, labels, strict=True):
        if not folder or found.setdefault(folder, label) != label:
            return {}
    return found if len(set(found.values())) == len(found) else {}


def _first(path: str) -> str:
    """``cat`` of ``cat/old/1.jpg``."""
    return path.partition("/")[0] if "/" in path else ""


def _last(path: str) -> str:
    """``cat`` of ``train/cat/1.jpg``."""
    return posixpath.basename(posixpath.dirname(path))


_FOLDERS: Final = (_first, posixpath.dirname, _last)
