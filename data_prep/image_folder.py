"""The user's own long-tailed folder of images: from ``FOLDER/CLASS/...`` to three lists.

    python -m data_prep.image_folder split FOLDER --difficulty 20 --test 20 --split-seed 0
    python -m data_prep.image_folder check FOLDER --decode
    python -m data_prep.image_folder example FOLDER

``split`` writes into FOLDER what training reads:

    train.txt, difficulty.txt, test.txt    PATH LABEL, the path relative to FOLDER
    classes.txt                            the name of each class, in label order

or into another folder (``--out``), with image_folder.txt that names FOLDER. A folder that is
divided into train, val and test is taken as it is. Lists of one's own in the same form will do as
well; then ``classes.txt`` may be left out.

Shapes: C classes, N images.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import torch
import tyro

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path, remove, write_atomically
from data_prep.image_check import check_images, print_split
from data_prep.image_example import EXAMPLE_WORDS, make_example
from data_prep.image_labels import check_labels_agree, check_names_agree
from data_prep.image_list import (
    FROM_ONE,
    PARTS,
    ImageList,
    ImageSplit,
    lists_digest,
    place_in,
    plain_paths,
    read_image_list,
    read_lines,
    refuse_shared,
)
from data_prep.image_tree import ImageTree, can_be_listed, find_parts, scan_parts, scan_tree
from data_prep.split import joined, permuted_class, split_generator

FOLDER_VARIABLE: Final = "CDB_IMAGE_FOLDER"
DEFAULT_FOLDER: Final = Path("data/images")
LIST_FILES: Final = {part: f"{part}.txt" for part in PARTS}
CLASSES_FILE: Final = "classes.txt"
IMAGES_FILE: Final = "image_folder.txt"
"""Beside lists that lie elsewhere: names the folder of the images, in one line."""
HELD_OUT: Final = 20
"""Images a class for the difficulty set: as many as ImageNet-LT has."""
_NAMED: Final = 3

Folder = Annotated[Path, tyro.conf.Positional]


# Reading the lists.


def load_image_folder(folder: Path | None = None) -> ImageSplit:
    """Read and check the lists of a folder; see :func:`image_list.require_images` for its images.

    Args:
        folder: with train.txt, difficulty.txt, test.txt and, perhaps, classes.txt and
            image_folder.txt; None: the environment variable CDB_IMAGE_FOLDER, else data/images.

    Raises:
        UserError: naming the file that is missing, and the line of what is wrong in it: see
            :func:`read_image_list`; an image that is in two lists; a class without training image;
            labels that contradict each other, see :mod:`data_prep.image_labels`.
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
    check_labels_agree(parts, {part: folder / name for part, name in LIST_FILES.items()})
    if (folder / CLASSES_FILE).exists():
        check_names_agree(train, names, folder / CLASSES_FILE)
    images = _folder_of_images(folder)
    return ImageSplit(images, **parts, class_names=names, digest=lists_digest(parts))


def default_folder() -> Path:
    """The folder that is read when none is named: $CDB_IMAGE_FOLDER, else data/images."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def _name_folder() -> str:
    return (
        f"name the folder of your images, or set {FOLDER_VARIABLE}, or put it in {DEFAULT_FOLDER}"
    )


def _split_remedy(folder: Path) -> str:
    images = _folder_of_images(folder)
    command = f"python -m data_prep.image_folder split {shlex.quote(str(images))}"
    elsewhere = f" --out {shlex.quote(str(folder))}" if images != folder else ""
    return f"make the lists with: {command}{elsewhere}"


def _folder_of_images(folder: Path) -> Path:
    """The folder itself, unless a file in it names another."""
    file = folder / IMAGES_FILE
    if not file.exists():
        return folder
    images = folder / read_lines(file)[0]
    if not images.is_dir():
        what = "is a file" if images.exists() else "is missing"
        raise UserError(
            f"{file} names {images}, which {what}; write the folder of the images into it."
        )
    return images


def _read_class_names(file: Path) -> tuple[str, ...]:
    """The names in label order; none if there is no such file."""
    if not file.exists():
        return ()
    names = tuple(line.strip() for line in read_lines(file))
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name or name in seen:
            why = f"{name!r} is the name in line {seen[name]}, too" if name else "it has no name"
            raise UserError(f"{place_in(file, number - 1)}: {why}; give each class its own name.")
        seen[name] = number
    return names


def _check_every_class(train: ImageList, names: tuple[str, ...], file: Path) -> None:
    """Refuse a class without a training image."""
    present = train.labels.unique().tolist()
    # The first place where a label is left out; without names labels may be as large as they like.
    missing = next((place for place, label in enumerate(present) if place != label), len(present))
    if missing < len(names) or missing < len(present):
        name = f"{names[missing]} (label {missing})" if names else str(missing)
        remedy = "a class without a training image cannot be learnt: add one or leave the class out"
        counted = present == list(range(1, len(present) + 1))
        raise UserError(f"{file} has no image of class {name}; {FROM_ONE if counted else remedy}.")


def _check_disjoint(parts: dict[str, ImageList], folder: Path) -> None:
    """Refuse an image that is in two parts."""
    seen: dict[str, tuple[str, str]] = {}
    for part, found in parts.items():
        for path, plain in zip(found.paths, plain_paths(found.paths), strict=True):
            other, first = seen.setdefault(plain, (part, path))
            if other != part:
                spelt = "" if path == first else f" (as {first})"
                raise UserError(
                    f"{folder / LIST_FILES[part]} has {path}, which {LIST_FILES[other]} has, "
                    f"too{spelt}; an image may be in one part only."
                )


# The split.


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
    return _hold_out(tree, difficulty, test, split_seed)


def _hold_out(tree: ImageTree, difficulty: int, test: int, split_seed: int) -> dict[str, ImageList]:
    """As :func:`split_tree`; ``test`` may be 0."""
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
        options = f"--difficulty {difficulty}" + (f" and --test {test}" if test else "")
        raise UserError(
            f"too few images in {len(small)} of {len(counts)} classes: {', '.join(small[:_NAMED])}"
            f"{more}; {options} must leave one to train on and so ask for at least "
            f"{difficulty + test + 1} of each class. Hold out fewer, add images, or take these "
            "folders away."
        )


def _take_parts(
    folder: Path,
    names: Mapping[str, str],
    difficulty: int | None,
    test: int | None,
    split_seed: int,
) -> tuple[dict[str, ImageTree], dict[str, ImageList]]:
    """The trees and parts of a folder that is divided; without val, difficulty is held out.

    Raises:
        UserError: an option has no effect; a class has no image to train on; see
            :func:`scan_parts`.
    """
    held_out = "difficulty" not in names
    without_effect = {
        f"--test {test}": test is not None,
        f"--difficulty {difficulty}": difficulty is not None and not held_out,
        f"--split-seed {split_seed}": split_seed != 0 and not held_out,
    }
    for option, given in without_effect.items():
        if given:
            raise UserError(
                f"{option} has no effect on {folder}, which is already divided into "
                f"{', '.join(names.values())}; leave it out."
            )
    trees = scan_parts(folder, names)
    parts = {part: tree.images for part, tree in trees.items()}
    if held_out:
        number = HELD_OUT if difficulty is None else difficulty
        if number < 1:
            raise UserError(f"--difficulty {number} is too few; give at least 1 image a class.")
        parts = _hold_out(trees["train"], number, 0, split_seed) | {"test": parts["test"]}
    else:
        _check_sizes(trees["train"], 0, 0)
    return trees, {part: parts[part] for part in PARTS}


def write_lists(
    folder: Path,
    names: tuple[str, ...],
    parts: dict[str, ImageList],
    overwrite: bool,
    images: Path | None = None,
) -> None:
    """Write classes.txt and the three lists, train.txt last.

    Args:
        folder: where to; made if it is not there.
        names: of the classes, in label order.
        parts: train, difficulty and test.
        overwrite: replace other lists that are there.
        images: the folder of the images, if it is another.

    Raises:
        UserError: there are other lists and ``overwrite`` is False, or there is no room.
    """
    # An empty text: no such file.
    contents = {IMAGES_FILE: _other_folder(images, folder)}
    contents[CLASSES_FILE] = "".join(f"{name}\n" for name in names)
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    for name, text in contents.items():
        if text:
            write_atomically(folder / name, text.encode())
        else:
            remove(folder / name)


def _other_folder(images: Path | None, folder: Path) -> str:
    """The line that names the folder of the images; empty if it is that of the lists."""
    if images is None or images.resolve() == folder.resolve():
        return ""
    if not can_be_listed(f".{images.resolve()}"):
        raise UserError(f"{images}: the name of this folder cannot stand in a file; rename it.")
    return f"{images.resolve()}\n"


def _is_other(file: Path, text: str) -> bool:
    """Whether a file is there with other content; where none belongs, ``text`` is empty."""
    try:
        return file.read_bytes() != text.encode() or not text
    except FileNotFoundError:
        return False
    except OSError as error:
        raise describe_os_error(error, file) from error


# Command line.


def split(
    folder: Folder,
    difficulty: int | None = None,
    test: int | None = None,
    split_seed: int = 0,
    overwrite: bool = False,
    out: Path | None = None,
) -> None:
    """Write train.txt, difficulty.txt, test.txt and classes.txt into a folder of classes.

    Args:
        folder: holds a folder of images for each class; or train, val and test, each with such.
        difficulty: images of each class to measure its difficulty on, at least 1; else 20.
        test: images of each class to test on, at least 1; else 20.
        split_seed: which split, 0 or more.
        overwrite: replace other lists that are there.
        out: where to write the lists instead of into the folder; training is then given this one.
    """
    names = find_parts(folder)
    if names:
        trees, parts = _take_parts(folder, names, difficulty, test, split_seed)
    else:
        trees = {"train": scan_tree(folder)}
        held_out = HELD_OUT if difficulty is None else difficulty
        tested = HELD_OUT if test is None else test
        parts = split_tree(trees["train"], held_out, tested, split_seed)
    links = frozenset[str]().union(*(tree.links for tree in trees.values()))
    refuse_shared(folder, parts, links)
    lists = out or folder
    write_lists(lists, trees["train"].class_names, parts, overwrite, folder)
    _print_left_out(trees)
    print_split(load_image_folder(lists))
    print(f"wrote {', '.join(LIST_FILES.values())} and {CLASSES_FILE} into {lists}")


def _print_left_out(trees: Mapping[str, ImageTree]) -> None:
    """What is in the folder and in no list, by kind."""
    left_out = Counter[str]()
    for tree in trees.values():
        left_out.update(tree.left_out)
        left_out["image in no class's folder"] += tree.outside
    said = ", ".join(f"{count} x {kind}" for kind, count in sorted(left_out.items()) if count)
    if said:
        print(f"left out: {said}")


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
    remedy = "bring them back, or take away what cannot be read and split the folder again"
    check_images(found, decode, remedy, threads, report, own=True)


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
