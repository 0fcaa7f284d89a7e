"""The user's own long-tailed folder of images: from ``FOLDER/CLASS/...`` to three lists.

    python -m data_prep.image_folder split FOLDER --difficulty 20 --test 20 --split-seed 0
    python -m data_prep.image_folder check FOLDER --decode
    python -m data_prep.image_folder example FOLDER

``split`` writes into FOLDER what training reads:

    train.txt, difficulty.txt, test.txt    PATH LABEL, the path relative to FOLDER
    classes.txt                            the name of each class, in label order

Lists of one's own in the same form will do as well; then ``classes.txt`` may be left out.

Shapes: C classes, N images.
"""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import torch
import tyro

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path, remove, write_atomically
from data_prep.image_check import check_images, print_split
from data_prep.image_example import EXAMPLE_WORDS, make_example
from data_prep.image_list import (
    PARTS,
    ImageList,
    ImageSplit,
    is_path_below,
    lists_digest,
    read_image_list,
    read_lines,
)
from data_prep.split import joined, permuted_class, split_generator

FOLDER_VARIABLE: Final = "CDB_IMAGE_FOLDER"
DEFAULT_FOLDER: Final = Path("data/images")
LIST_FILES: Final = {part: f"{part}.txt" for part in PARTS}
CLASSES_FILE: Final = "classes.txt"
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
HELD_OUT: Final = 20
"""Images a class for the difficulty set: as many as ImageNet-LT has."""
_NAMED: Final = 3
_DIVIDED: Final = {"train", "val", "valid", "validation", "test"}

Folder = Annotated[Path, tyro.conf.Positional]


# Reading the lists.


def load_image_folder(folder: Path | None = None) -> ImageSplit:
    """Read and check the lists of a folder; see :func:`image_list.require_images` for its images.

    Args:
        folder: with train.txt, difficulty.txt, test.txt and, perhaps, classes.txt; None: the
            environment variable CDB_IMAGE_FOLDER, else data/images.

    Raises:
        UserError: naming the file that is missing, and the line of what is wrong in it: see
            :func:`read_image_list`; an image that is in two lists; a class without training image.
    """
    folder = default_folder() if folder is None else folder
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is missing"
        raise UserError(f"{folder} {what}; {_name_folder()}.")
    for name in LIST_FILES.values():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {_split_remedy(folder)}.")
    names = _read_class_names(folder / CLASSES_FILE)
    train = read_image_list(folder / LIST_FILES["train"], len(names) if names else None)
    _check_every_class(train, names, folder / LIST_FILES["train"])
    names = names or tuple(map(str, range(int(train.labels.max()) + 1)))
    others = {part: read_image_list(folder / LIST_FILES[part], len(names)) for part in PARTS[1:]}
    parts = {"train": train, **others}
    _check_disjoint(parts, folder)
    return ImageSplit(folder, **parts, class_names=names, digest=lists_digest(parts))


def default_folder() -> Path:
    """The folder that is read when none is named: $CDB_IMAGE_FOLDER, else data/images."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def _name_folder() -> str:
    return (
        f"name the folder of your images, or set {FOLDER_VARIABLE}, or put it in {DEFAULT_FOLDER}"
    )


def _split_remedy(folder: Path) -> str:
    command = f"python -m data_prep.image_folder split {shlex.quote(str(folder))}"
    return f"make the lists with: {command}"


def _read_class_names(file: Path) -> tuple[str, ...]:
    """The names in label order; none if there is no such file."""
    if not file.exists():
        return ()
    names = tuple(line.strip() for line in read_lines(file))
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name or name in seen:
            why = f"{name!r} is the name in line {seen[name]}, too" if name else "it has no name"
            raise UserError(f"{file}, line {number}: {why}; give each class a name of its own.")
        seen[name] = number
    return names


def _check_every_class(train: ImageList, names: tuple[str, ...], file: Path) -> None:
    """Refuse a class without a training image."""
    present = train.labels.unique().tolist()
    # The first place where a label is left out; without names labels may be as large as they like.
    missing = next((place for place, label in enumerate(present) if place != label), len(present))
    if missing < len(names) or missing < len(present):
        name = f"{names[missing]} (label {missing})" if names else str(missing)
        raise UserError(
            f"{file} has no image of class {name}; a class without a training image cannot be "
            "learnt: add one or leave the class out."
        )


def _check_disjoint(parts: dict[str, ImageList], folder: Path) -> None:
    """Refuse an image that is in two parts."""
    seen: dict[str, str] = {}
    for part, found in parts.items():
        both = next((path for path in found.paths if path in seen), None)
        if both is not None:
            raise UserError(
                f"{folder / LIST_FILES[part]} has {both}, which {LIST_FILES[seen[both]]} has, too; "
                "an image may be in one part only."
            )
        seen.update(dict.fromkeys(found.paths, part))


# The split.


@dataclass(frozen=True)
class ImageTree:
    """The images of a folder, sorted by class and path.

    Attributes:
        class_names: names of the folders, (C,), sorted.
        images: all of them, (N,).
        outside: images that are in no class's folder.
    """

    class_names: tuple[str, ...]
    images: ImageList
    outside: int


def scan_tree(folder: Path) -> ImageTree:
    """Find the images below each class's folder, at any depth.

    Names that begin with a dot are left out. Links to images and to the folder of a class are
    followed, links to folders in it are not.

    Raises:
        UserError: there are less than two class folders, or they are called train, test and so on;
            a name cannot stand in a list; a folder cannot be read.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is missing"
        raise UserError(f"{folder} {what}; name the folder that holds a folder for each class.")
    try:
        found = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise describe_os_error(error, folder) from error
    names = tuple(name for name in found if (folder / name).is_dir())
    if len(names) < 2:
        raise UserError(
            f"{folder} holds {len(names)} class folders where at least 2 belong; "
            "put the images of each class into a folder of its name."
        )
    if _DIVIDED.issuperset(names):
        raise UserError(
            f"{folder} is already divided into {', '.join(names)}, which are no classes; name the "
            "one that holds a folder for each class, or write the lists yourself."
        )
    for name in names:
        if not _can_be_listed(name) or name != name.strip():
            raise UserError(f"{folder}: the class folder {name!r} cannot be listed; rename it.")
    of_classes = [_images_below(folder, name) for name in names]
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([*map(len, of_classes)]))
    images = ImageList(tuple(path for paths in of_classes for path in paths), labels)
    return ImageTree(names, images, sum(_is_image(name) for name in found if name not in names))


def _images_below(folder: Path, name: str) -> list[str]:
    """Paths of a class's images, relative to ``folder``, sorted."""
    paths = sorted(_walk(folder, name))
    bad = next((path for path in paths if not _can_be_listed(path)), None)
    if bad is not None:
        raise UserError(f"{folder}: the name of {bad!r} cannot stand in a list; rename it.")
    return paths


def _walk(folder: Path, name: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise describe_os_error(error, error.filename or folder) from error

    for base, folders, files in os.walk(folder / name, onerror=refuse):
        folders[:] = [below for below in folders if not below.startswith(".")]
        below = Path(base).relative_to(folder).as_posix()
        yield from (f"{below}/{file}" for file in files if _is_image(file))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _can_be_listed(path: str) -> bool:
    """Whether a path can stand in a list: text, without control characters."""
    try:
        path.encode()
    except UnicodeEncodeError:  # The file system's bytes are not UTF-8.
        return False
    return is_path_below(path)


def split_tree(
    tree: ImageTree, difficulty: int, test: int, split_seed: int
) -> dict[str, ImageList]:
    """Hold out equally many images of each class; the others are to train on.

    One permutation per class is drawn and cut into slices, test first: a seed has the same test
    images however many are held out for difficulty.

    Args:
        tree: all images.
        difficulty: images of each class for the difficulty set, >= 1.
        test: images of each class for the test set, >= 1.
        split_seed: >= 0.

    Returns:
        train, difficulty and test, each in the order of ``tree``.

    Raises:
        UserError: a number is too small; a class would be left without a training image.
    """
    for option, number in (("difficulty", difficulty), ("test", test)):
        if number < 1:
            raise UserError(f"--{option} {number} is too few; give at least 1 image a class.")
    held_out = test + difficulty
    _check_sizes(tree, difficulty, test)
    generator = split_generator(split_seed)
    slices = {
        "train": slice(held_out, None),
        "difficulty": slice(test, held_out),
        "test": slice(test),
    }
    # The images are sorted by class, so each class is a run of positions.
    ends = tree.images.labels.bincount(minlength=len(tree.class_names)).cumsum(0).tolist()
    orders = [
        start + permuted_class(tree.images.labels[start:end], label, generator)
        for label, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    index = {part: joined([order[own] for order in orders]) for part, own in slices.items()}
    return {
        part: ImageList(
            tuple(tree.images.paths[place] for place in index[part].tolist()),
            tree.images.labels[index[part]],
        )
        for part in PARTS
    }


def _check_sizes(tree: ImageTree, difficulty: int, test: int) -> None:
    """Refuse classes that would be left without a training image."""
    counts = tree.images.class_counts(len(tree.class_names))
    named = zip(tree.class_names, counts, strict=True)
    small = [f"{name} ({count})" for name, count in named if count <= difficulty + test]
    if small:
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        raise UserError(
            f"{len(small)} classes have too few images: {', '.join(small[:_NAMED])}{more}; "
            f"--difficulty {difficulty} and --test {test} need at least {difficulty + test + 1} of "
            "each class to leave one to train on. Hold out fewer, add images, or take these "
            "folders away."
        )


def write_lists(
    folder: Path, names: tuple[str, ...], parts: dict[str, ImageList], overwrite: bool
) -> None:
    """Write classes.txt and the three lists, train.txt last.

    Raises:
        UserError: there are other lists and ``overwrite`` is False, or there is no room.
    """
    contents = {CLASSES_FILE: "".join(f"{name}\n" for name in names)}
    for part in reversed(PARTS):
        lines = zip(parts[part].paths, parts[part].labels.tolist(), strict=True)
        contents[LIST_FILES[part]] = "".join(f"{path} {label}\n" for path, label in lines)
    others = [name for name, text in contents.items() if _is_other(folder / name, text)]
    if others and not overwrite:
        raise UserError(
            f"{folder / others[0]} is there with other content; "
            "give --overwrite to replace the lists, or move it away."
        )
    if others:
        # Stopped from here on, the folder has no train.txt, and no mixture of lists is trained on.
        remove(folder / LIST_FILES["train"])
    for name, text in contents.items():
        write_atomically(folder / name, text.encode())


def _is_other(file: Path, text: str) -> bool:
    """Whether a file is there with other content."""
    try:
        return file.read_bytes() != text.encode()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise describe_os_error(error, file) from error


# Command line.


def split(
    folder: Folder,
    difficulty: int = HELD_OUT,
    test: int = HELD_OUT,
    split_seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write train.txt, difficulty.txt, test.txt and classes.txt into a folder of classes.

    Args:
        folder: holds a folder of images for each class.
        difficulty: images of each class to measure its difficulty on, at least 1.
        test: images of each class to test on, at least 1.
        split_seed: which split, 0 or more.
        overwrite: replace other lists that are there.
    """
    tree = scan_tree(folder)
    parts = split_tree(tree, difficulty, test, split_seed)
    write_lists(folder, tree.class_names, parts, overwrite)
    if tree.outside:
        print(f"{tree.outside} images in {folder} are in no class's folder and were left out")
    print_split(load_image_folder(folder))
    print(f"wrote {', '.join(LIST_FILES.values())} and {CLASSES_FILE} into {folder}")


def check(
    folder: Folder,
    decode: bool = False,
    threads: int | None = None,
    report: Path | None = None,
) -> None:
    """Check the lists of a folder, print the counts, and check that every image is there.

    Args:
        folder: holds train.txt, difficulty.txt and test.txt.
        decode: also decode every image.
        threads: how many images are decoded at a time; else one for each core.
        report: a file to write the name of every missing or unreadable image into.
    """
    found = load_image_folder(folder)
    print_split(found)
    check_images(found, decode, "bring them back, or split the folder again", threads, report)


def example(folder: Folder) -> None:
    """Write a small long-tailed example: handwritten digits in 10 looks, a folder for each.

    Args:
        folder: where to put it: a new or an empty folder, or one that this command has made.
    """
    # Images of this size are made faster by one thread.
    torch.set_num_threads(1)
    count = make_example(folder)
    print(f"{folder}: {count} images, {EXAMPLE_WORDS}")
    print(f"next: {_split_remedy(folder)}")


def main() -> None:
    """Run the ``split``, the ``check`` or the ``example`` command."""
    tyro.extras.subcommand_cli_from_dict(
        {"split": split, "check": check, "example": example}, prog="data_prep.image_folder"
    )


if __name__ == "__main__":
    run_main(main)
