"""ImageNet-LT: the three official lists, verified, and a user's folder of ILSVRC 2012 (Sec. 4.1.1).

Lists and images are the user's to bring; nothing is downloaded.

    python -m data_prep.imagenet_lt check --folder data/imagenet --lists data/imagenet-lt

The lists are those of Z. Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR
2019. ``val`` (20 images a class, all from ILSVRC's training part) is the difficulty set, ``test``
(50 a class: ILSVRC's validation part) the test set. The images lie in a folder with ``train`` and
``val`` as the archives unpack, or as Kaggle packs it (``ILSVRC/Data/CLS-LOC``); those of ``val``
may lie flat or in a folder for each class.

Shapes: C = 1,000 classes in the order of their WordNet ids.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import tyro

from common.errors import UserError, run_main
from common.files import chosen_path
from data_prep.image_check import check_images, print_split
from data_prep.image_list import (
    PACKED,
    PARTS,
    ImageList,
    ImageSplit,
    lists_digest,
    parse_image_list,
    read_bytes,
)

FOLDER_VARIABLE: Final = "CDB_IMAGENET"
DEFAULT_FOLDER: Final = Path("data/imagenet")
LISTS_VARIABLE: Final = "CDB_IMAGENET_LT"
DEFAULT_LISTS: Final = Path("data/imagenet-lt")

COUNTS_FILE: Final = Path(__file__).with_name("imagenet_lt_counts.txt")
COUNTS_SHA256: Final = "c04af73df80ea364a471297a211cfc76f9cd11acd7ca3cd6130deabaa979573e"

# Where the folders train and val may lie below the folder that is named.
_ROOTS: Final = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_LFS_POINTER: Final = b"version https://git-lfs"


@dataclass(frozen=True)
class ListFile:
    """One official list.

    Attributes:
        name: of the file; with ``.gz`` behind it if it is packed.
        size: bytes, unpacked.
        sha256: of its content (hex), unpacked.
        class_counts: images of each class, (C,).
    """

    name: str
    size: int
    sha256: str
    class_counts: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """What the lists must be.

    Attributes:
        lists: train, difficulty and test.
        class_names: WordNet ids in label order, (C,); names of the folders of the images.
    """

    lists: Mapping[str, ListFile]
    class_names: tuple[str, ...]


@cache
def official() -> Source:
    """The lists as Liu et al. published them.

    Raises:
        UserError: the table of counts that the repository carries is missing or changed.
    """
    class_names, train_counts = read_class_counts()
    return Source(
        lists={
            "train": ListFile(
                "ImageNet_LT_train.txt",
                4_658_674,
                "efdbdad4f050237c310b2f354cf95a8b1d7c8d57a63c4ea4bb6bf2bcb012f37f",
                train_counts,
            ),
            "difficulty": ListFile(
                "ImageNet_LT_val.txt",
                804_172,
                "9af7ba688acf9532ff5845a8fb14a1e97fdc4c51ac48bc72c08ea9c3f7ff142e",
                (20,) * len(class_names),
            ),
            "test": ListFile(
                "ImageNet_LT_test.txt",
                2_344_500,
                "d1590191cf8a71fada7b1aaedaa2d139a2aea93ff2f1b755319d0bd8dbaa55d5",
                (50,) * len(class_names),
            ),
        },
        class_names=class_names,
    )


def read_class_counts() -> tuple[tuple[str, ...], tuple[int, ...]]:
    """WordNet id and number of ImageNet-LT training images of each class, (C,) each.

    From the table that the repository carries, so neither lists nor images are needed.

    Raises:
        UserError: it is missing or changed.
    """
    restore = f"restore it with: git checkout -- data_prep/{COUNTS_FILE.name}"
    if not COUNTS_FILE.is_file():
        raise UserError(f"{COUNTS_FILE} is missing; {restore}.")
    content = read_bytes(COUNTS_FILE)
    if hashlib.sha256(content).hexdigest() != COUNTS_SHA256:
        raise UserError(f"{COUNTS_FILE} is not the original table; {restore}.")
    rows = [line.split() for line in content.decode().splitlines()]
    return tuple(name for name, _ in rows), tuple(int(count) for _, count in rows)


def load_imagenet_lt(
    folder: Path | None = None, lists: Path | None = None, source: Source | None = None
) -> ImageSplit:
    """Verify the lists and find the tree of the images; see :func:`image_list.require_images`.

    Args:
        folder: of ILSVRC 2012; None: the environment variable CDB_IMAGENET, else data/imagenet.
        lists: folder of the three lists; None: the environment variable CDB_IMAGENET_LT, else
            ``folder`` if one of them lies there, else data/imagenet-lt.
        source: what the lists must be; None: :func:`official`.

    Raises:
        UserError: naming the list that is missing or not the official one, or the folder in which
            there is no tree of images. Single images are not looked for.
    """
    folder = default_folder() if folder is None else folder
    return in_tree(read_lists(folder, lists, source), folder)


def default_folder() -> Path:
    """The folder of images that is read when none is named: $CDB_IMAGENET, else data/imagenet."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


# The lists.


def read_lists(folder: Path, lists: Path | None = None, source: Source | None = None) -> ImageSplit:
    """The split with the paths as the lists have them; see :func:`load_imagenet_lt`."""
    source = official() if source is None else source
    where = list_folder(folder, lists, source)
    parts = {name: _read_list(where, source.lists[name], source) for name in PARTS}
    return ImageSplit(folder, **parts, class_names=source.class_names, digest=lists_digest(parts))


def list_folder(folder: Path, lists: Path | None, source: Source) -> Path:
    """The folder that the lists are read from; see :func:`load_imagenet_lt`."""
    beside = any(_list_path(folder, file.name).is_file() for file in source.lists.values())
    return chosen_path(lists, LISTS_VARIABLE, folder if beside else DEFAULT_LISTS)


def _list_path(folder: Path, name: str) -> Path:
    plain, packed = folder / name, folder / f"{name}{PACKED}"
    return packed if packed.is_file() and not plain.is_file() else plain


def _read_list(folder: Path, expected: ListFile, source: Source) -> ImageList:
    path = _list_path(folder, expected.name)
    if not path.is_file():
        raise UserError(f"{path} is missing (plain or {PACKED}); {_lists_remedy()}.")
    content = read_bytes(path)
    if difference := _difference(content, expected):
        raise UserError(f"{path} is not the official list ({difference}); {_lists_remedy()}.")
    found = parse_image_list(content, path, len(source.class_names))
    # The sha256 of the train list is known from a pointer only, so the counts are looked at, too.
    counts = found.class_counts(len(source.class_names))
    for name, count, wanted in zip(source.class_names, counts, expected.class_counts, strict=True):
        if count != wanted:
            raise UserError(
                f"{path} has {count} images of class {name} where {wanted} belong; "
                f"{_lists_remedy()}."
            )
    return found


def _difference(content: bytes, expected: ListFile) -> str:
    """How a file differs from the official one; empty if it does not."""
    if content.startswith(_LFS_POINTER):
        return "it is the pointer of Git LFS that stands for it"
    if len(content) != expected.size:
        return f"{len(content)} bytes, expected {expected.size}"
    found = hashlib.sha256(content).hexdigest()
    same = found == expected.sha256
    return "" if same else f"sha256 {found[:12]}..., expected {expected.sha256[:12]}..."


def _lists_remedy() -> str:
    return (
        "get ImageNet_LT_train.txt, ImageNet_LT_val.txt and ImageNet_LT_test.txt of Liu et al. "
        f"(OpenLongTailRecognition) and put them beside the images or in {DEFAULT_LISTS}, or set "
        f"{LISTS_VARIABLE} to their folder"
    )


# The tree of the images.


def in_tree(split: ImageSplit, folder: Path) -> ImageSplit:
    """The same split with the paths that its images have in a user's folder.

    Args:
        split: with paths ``train/CLASS/NAME`` and ``val/CLASS/NAME``.
        folder: with ``train`` and ``val``, or one above Kaggle's ``CLS-LOC``.

    Raises:
        UserError: it has no such folders, or what is in them is still packed.
    """
    root = _find_root(folder, split.class_names)
    if _in_class_folders(root / "val", split.class_names):
        return replace(split, folder=root)
    train, difficulty, test = map(_flattened, split.parts.values())
    return replace(split, folder=root, train=train, difficulty=difficulty, test=test)


def _find_root(folder: Path, class_names: tuple[str, ...]) -> Path:
    """The folder in which ``train`` and ``val`` are."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is missing"
        raise UserError(f"{folder} {what}; {remedy()}.")
    roots = [folder / below for below in _ROOTS]
    root = next((root for root in roots if (root / "train").is_dir()), None)
    if root is None:
        inside = f": this is {folder.name} itself" if _in_class_folders(folder, class_names) else ""
        raise UserError(f"{folder} has no folder train{inside}; {remedy()}.")
    if not (root / "val").is_dir():
        raise UserError(f"{root} has no folder val; {remedy()}.")
    if not _in_class_folders(root / "train", class_names):
        packed = any((root / "train" / f"{name}.tar").is_file() for name in class_names)
        why = "unpack each nXXXXXXXX.tar in it into a folder of that name" if packed else remedy()
        raise UserError(f"{root / 'train'} has no folder such as {class_names[0]}; {why}.")
    return root


def _in_class_folders(folder: Path, class_names: tuple[str, ...]) -> bool:
    """Whether there is a folder of a class."""
    return any((folder / name).is_dir() for name in class_names)


def _flattened(part: ImageList) -> ImageList:
    """``val/NAME`` for ``val/CLASS/NAME``; the other paths as they are."""
    paths = (
        f"val/{path.rpartition('/')[2]}" if path.startswith("val/") else path for path in part.paths
    )
    return replace(part, paths=tuple(paths))


def remedy() -> str:
    """How to name the folder of the images."""
    return (
        "name the folder of ILSVRC 2012 that holds train (nXXXXXXXX/*.JPEG) and val as the "
        f"archives unpack, or set {FOLDER_VARIABLE} to it, or put it in {DEFAULT_FOLDER}"
    )


# Command line.


def check(
    folder: Path | None = None,
    lists: Path | None = None,
    decode: bool = False,
    threads: int | None = None,
    report: Path | None = None,
) -> None:
    """Verify the lists, print the counts, and check that every image is there.

    Args:
        folder: of ILSVRC 2012, with train and val; else CDB_IMAGENET, else data/imagenet.
        lists: folder of the three lists (.txt or .txt.gz); else CDB_IMAGENET_LT, else the folder
            of the images if they lie there, else data/imagenet-lt.
        decode: also decode every image, which takes minutes.
        threads: how many images are decoded at a time; else one for each core.
        report: a file to write the name of every missing or unreadable image into.
    """
    folder = default_folder() if folder is None else folder
    split = read_lists(folder, lists)
    print_split(split)
    shared = len(set(split.train.paths) & set(split.difficulty.paths))
    print(f"{shared} images of the difficulty list are in the train list, too")
    check_images(in_tree(split, folder), decode, remedy(), threads, report)


def main() -> None:
    """Run the ``check`` command."""
    tyro.extras.subcommand_cli_from_dict({"check": check}, prog="data_prep.imagenet_lt")


if __name__ == "__main__":
    run_main(main)
