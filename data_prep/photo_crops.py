"""A folder of real pictures to try things on: what is inside the boxes of annotated photographs.

    python -m data_prep.photo_crops cut --annotations A.json B.json --images FOLDER --out crops
    python -m data_prep.photo_crops prepare

Photographs and boxes (LVIS's format) are yours to bring: nothing is downloaded. Each box becomes a
JPEG file ``OUT/CATEGORY/IMAGE_ANNOTATION.jpg``; categories with few boxes are left out, so that
``data_prep.image_folder split`` can divide the rest. Two crops of one photograph can come to stand
in different parts of the split.

``prepare`` makes what classification/experiments/photo_crops.sh reads: the crops, and the lists of
:data:`SPLITS` splits, one for each seed. So few pictures are held out that one split decides
nothing.
"""

import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tyro

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path, write_atomically
from common.training.image_file import as_rgb, open_picture
from data_prep.image_folder import split_tree, write_lists
from data_prep.image_tree import scan_tree
from data_prep.lvis_annotations import Annotations
from data_prep.lvis_format import find_images, read_lvis

PHOTOGRAPHS_VARIABLE: Final = "CDB_COCO_MINI"
"""Folder of train.json, val.json and the photographs that they name."""
FOLDER_VARIABLE: Final = "CDB_PHOTO_CROPS"
DEFAULT_FOLDER: Final = Path("data/photo-crops")
PICTURES: Final = "pictures"
"""Of what ``prepare`` makes, the crops; beside them lie the lists, ``split-0`` and so on."""
SPLITS: Final = 10
_HELD_OUT: Final = 4
"""Crops a class, to measure difficulty on and to test on."""
_JPEG_QUALITY: Final = 95


@dataclass(frozen=True)
class Arguments:
    """Cut annotated photographs into a folder of pictures for each category."""

    out: Path
    """Folder to write; new or empty."""
    annotations: tuple[Path, ...] = ()
    """Files in LVIS's format; none: train.json and val.json of the folder CDB_COCO_MINI names."""
    images: Path | None = None
    """Folder of the photographs; None: that folder."""
    least: int = 12
    """Categories with fewer crops are left out."""
    least_side: int = 16
    """Boxes with a shorter side, in pixels, are left out."""

    def files(self) -> tuple[tuple[Path, ...], Path]:
        """The annotation files, and the folder of the photographs.

        Raises:
            UserError: they are not named.
        """
        named = os.environ.get(PHOTOGRAPHS_VARIABLE)
        if named is None and not (self.annotations and self.images):
            raise UserError(
                "photographs are yours to bring: name --annotations and --images, or set "
                f"{PHOTOGRAPHS_VARIABLE} to a folder with train.json, val.json and their images."
            )
        folder = Path(named or "")
        usual = (folder / "train.json", folder / "val.json")
        return self.annotations or usual, self.images or folder


@dataclass(frozen=True)
class Crop:
    """What becomes one file."""

    photograph: Path
    box: tuple[int, int, int, int]
    """Left, top, right, bottom, in whole pixels."""
    category: str
    name: str


def find_crops(found: Annotations, folder: Path, least_side: int) -> Iterator[Crop]:
    """The boxes of a file whose sides are long enough, widened to whole pixels.

    Raises:
        UserError: a photograph is not in ``folder``.
    """
    paths = find_images(found, folder)
    each = zip(
        found.image.tolist(), found.category.tolist(), found.instance_ids.tolist(),
        found.bboxes.tolist(), strict=True,
    )  # fmt: skip
    for image, category, instance, (x, y, width, height) in each:
        path = paths[image]
        if path is None:
            raise UserError(
                f"{found.file_names[image]} of {found.source} is not in {folder}; name the folder "
                "of the photographs with --images."
            )
        if min(width, height) >= least_side:
            box = (int(x), int(y), -int(-(x + width) // 1), -int(-(y + height) // 1))
            name = f"{found.image_ids[image]:012d}_{instance}.jpg"
            yield Crop(path, box, found.names[category].replace("/", "-"), name)


def write_crops(crops: Sequence[Crop], out: Path) -> None:
    """Write each crop; a photograph is opened once for all that are next to each other.

    Raises:
        UserError: a photograph cannot be read, or there is no room.
    """
    opened: tuple[Path, Any] | None = None
    for crop in crops:
        if opened is None or opened[0] != crop.photograph:
            with open_picture(crop.photograph) as picture:
                opened = (crop.photograph, as_rgb(picture))
        content = io.BytesIO()
        opened[1].crop(crop.box).save(content, "JPEG", quality=_JPEG_QUALITY)
        folder = out / crop.category
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise describe_os_error(error, folder) from error
        write_atomically(folder / crop.name, content.getvalue())


def make_folder(arguments: Arguments) -> Counter[str]:
    """Write the folder; the crops of each category.

    Raises:
        UserError: the photographs are not there or cannot be read, no category has enough crops, or
            the folder is not empty.
    """
    files, folder = arguments.files()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise UserError(f"{arguments.out} is not empty; name a new folder with --out.")
    crops = [
        crop for file in files for crop in find_crops(read_lvis(file), folder, arguments.least_side)
    ]
    counts = Counter(crop.category for crop in crops)
    kept = Counter({name: n for name, n in counts.items() if n >= arguments.least})
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} of {len(counts)} categories have {arguments.least} crops or more; lower "
            "--least or --least-side."
        )
    partial = arguments.out.absolute().with_name(f".{arguments.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_crops([crop for crop in crops if crop.category in kept], partial)
    partial.replace(arguments.out)
    return kept


def cut(arguments: tyro.conf.OmitArgPrefixes[Arguments]) -> None:
    """Cut annotated photographs into a folder of pictures for each category.

    Args:
        arguments: which, and where to.
    """
    counts = make_folder(arguments)
    most, least = max(counts.values()), min(counts.values())
    print(f"{arguments.out}: {counts.total()} crops, {len(counts)} classes, {most} to {least} each")


def default_folder() -> Path:
    """What is read when none is named: $CDB_PHOTO_CROPS, else data/photo-crops."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def prepare(folder: Path | None = None) -> None:
    """Cut the photographs of CDB_COCO_MINI, if that is not done yet, and list ten splits of them.

    Args:
        folder: where to; else CDB_PHOTO_CROPS, else data/photo-crops. Its sub-folder 'pictures' may
            be yours: a folder of pictures for each class.

    Raises:
        UserError: there are no photographs, other lists are there, or a class has too few pictures.
    """
    folder = default_folder() if folder is None else folder
    pictures = folder / PICTURES
    if not pictures.exists():
        if PHOTOGRAPHS_VARIABLE not in os.environ:
            raise UserError(
                f"{pictures} is missing; set {PHOTOGRAPHS_VARIABLE} to a folder with train.json, "
                "val.json and their photographs, or put a folder of pictures for each class there."
            )
        cut(Arguments(pictures))
    tree = scan_tree(pictures)
    for seed in range(SPLITS):
        parts = split_tree(tree, _HELD_OUT, _HELD_OUT, seed)
        write_lists(folder / f"split-{seed}", tree.class_names, parts, False, pictures)
    print(f"{folder}: {len(tree.images)} pictures, lists split-0 to split-{SPLITS - 1}")


def main() -> None:
    """Run the ``cut`` or the ``prepare`` command."""
    tyro.extras.subcommand_cli_from_dict(
        {"cut": cut, "prepare": prepare}, prog="data_prep.photo_crops"
    )


if __name__ == "__main__":
    run_main(main)
