"""LVIS v0.5: the official annotation files, the COCO 2017 images, and the difficulty split.

Nothing of it is in the repository; the user downloads both.

    python -m data_prep.lvis check --annotations data/lvis --images data/coco
    python -m data_prep.lvis split --annotations data/lvis --images-per-category 10 --seed 0

Shapes: C categories, I images, P pairs (image, category in it).
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
import tyro
from numpy.typing import NDArray

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path, write_atomically
from common.streams import stream_seed
from common.training.progress import Count
from data_prep.lvis_format import (
    FREQUENCIES,
    Annotations,
    Ints,
    find_images,
    read_lvis,
    write_lvis,
)

LVIS_VARIABLE: Final = "CDB_LVIS"
COCO_VARIABLE: Final = "CDB_COCO"
DEFAULT_LVIS: Final = Path("data/lvis")
DEFAULT_COCO: Final = Path("data/coco")
TRAIN_FILE: Final = "lvis_v0.5_train.json"
VAL_FILE: Final = "lvis_v0.5_val.json"
REST_FILE: Final = "lvis_v0.5_train_rest.json"
DIFFICULTY_FILE: Final = "lvis_v0.5_difficulty.json"
SHOWN: Final = 20
REMEDY: Final = (
    f"download LVIS v0.5 (lvisdataset.org) and name the folder of {TRAIN_FILE} and {VAL_FILE} with "
    f"--annotations, or set {LVIS_VARIABLE}, or put it in {DEFAULT_LVIS}"
)


Folder: TypeAlias = Annotated[Path | None, tyro.conf.arg(aliases=["--folder"])]
"""Of the annotation files; the experiments' scripts call it --folder."""


@dataclass(frozen=True)
class Official:
    """What an official file holds.

    Attributes:
        letters: rare, common and frequent categories, by training images.
        instances: annotations.
        annotated_images: images with at least one.
        present: categories with at least one.
    """

    letters: tuple[int, int, int]
    instances: int
    annotated_images: int
    present: int


OFFICIAL: Final = {
    TRAIN_FILE: Official((454, 461, 315), 693_958, 56_740, 1230),
    VAL_FILE: Official((454, 461, 315), 50_763, 4_752, 830),
}


def annotation_folder(folder: Path | None = None) -> Path:
    """The folder that was named, else $CDB_LVIS, else data/lvis."""
    return chosen_path(folder, LVIS_VARIABLE, DEFAULT_LVIS)


def image_folder(folder: Path | None = None) -> Path:
    """The folder that was named, else $CDB_COCO, else data/coco."""
    return chosen_path(folder, COCO_VARIABLE, DEFAULT_COCO)


def read_official(folder: Path, name: str) -> Annotations:
    """Read an official file and compare its numbers with LVIS v0.5's.

    Args:
        folder: holds it.
        name: ``TRAIN_FILE`` or ``VAL_FILE``.

    Raises:
        UserError: it is missing, damaged, or another version.
    """
    if not (folder / name).is_file():
        raise UserError(f"{folder / name} is missing; {REMEDY}.")
    annotations = read_lvis(folder / name, training=name == TRAIN_FILE)
    found = summary(annotations)
    if found != OFFICIAL[name]:
        raise UserError(
            f"{folder / name} is not LVIS v0.5's: it has {found}, expected {OFFICIAL[name]}; "
            "get the file of version 0.5 again."
        )
    return annotations


def summary(annotations: Annotations) -> Official:
    """The numbers by which a file is known."""
    rare, common, frequent = (annotations.frequency.count(letter) for letter in FREQUENCIES)
    return Official(
        (rare, common, frequent),
        annotations.num_instances,
        len(np.unique(annotations.image)),
        int((annotations.image_count > 0).sum()),
    )


# The difficulty split.


def hold_out_difficulty(
    annotations: Annotations, images_per_category: int, seed: int, kept_share: float = 0.5
) -> tuple[Ints, Ints]:
    """Divide the training images; each goes with all its annotations.

    See :func:`hold_out_images`. An image without annotations stays in training.

    Args:
        annotations: the training set.
        images_per_category: k >= 1, at most so many images of each category are held out.
        seed: of the split, >= 0.
        kept_share: in (0, 1]: at least this share of each category's images, and at least one,
            stays in training.

    Returns:
        Ids of the images left for training, and of the difficulty images, in the file's order.

    Raises:
        UserError: an argument is out of range.
    """
    held = hold_out_images(
        annotations.image_categories,
        annotations.num_images,
        annotations.num_categories,
        images_per_category,
        seed,
        kept_share,
    )
    return annotations.image_ids[~held], annotations.image_ids[held]


def hold_out_images(
    pairs: tuple[Ints, Ints],
    num_images: int,
    num_categories: int,
    images_per_category: int,
    seed: int,
    kept_share: float = 0.5,
) -> NDArray[np.bool_]:
    """Choose difficulty images greedily, the rarest category first.

    A category with n images gives at most min(k, n - max(1, ceil(share * n))) of them, counted over
    all held-out images, whichever category they were chosen for: no category is ever measured on
    more than k images or loses more than its share. Each category in turn, the rarest first, takes
    in random order those of its images that do not break another's bound. LVIS says nothing of such
    a split, nor does the paper: the rule is ours.

    Args:
        pairs: image index (P,) and category index (P,), each pair once.
        num_images: I.
        num_categories: C.
        images_per_category: k >= 1.
        seed: of the split, >= 0.
        kept_share: in (0, 1].

    Returns:
        (I,) whether an image is held out.

    Raises:
        UserError: an argument is out of range.
    """
    _check_split(images_per_category, seed, kept_share)
    image, category = pairs
    counts = np.bincount(category, minlength=num_categories)
    # The small subtraction: 0.1 * 30 is a little more than 3 in floating point.
    kept = np.maximum(1, np.ceil(kept_share * counts - 1e-9))
    room = np.clip(np.minimum(images_per_category, counts - kept), 0, None).astype(int).tolist()
    # Raw draws: numpy promises that a bit generator's stream stays the same in later versions.
    draws = np.random.PCG64(stream_seed(seed, "difficulty split")).random_raw(num_images)
    categories_of = _grouped(image, category, num_images)
    by_draw = np.lexsort((image, draws[image]))
    images_of = _grouped(category[by_draw], image[by_draw], num_categories)
    held = np.zeros(num_images, bool)
    for rarest in np.argsort(counts, kind="stable").tolist():
        _take_images(images_of[rarest], rarest, categories_of, room, held)
    return held


def _grouped(keys: Ints, values: Ints, size: int) -> list[list[int]]:
    """The values of each key 0..size-1, in the order given."""
    order = np.argsort(keys, kind="stable")
    ends = np.cumsum(np.bincount(keys, minlength=size))[:-1]
    return [part.tolist() for part in np.split(values[order], ends)]


def _take_images(
    images: list[int],
    category: int,
    categories_of: list[list[int]],
    room: list[int],
    held: NDArray[np.bool_],
) -> None:
    """Hold out images of a category while it has room; changes ``room`` and ``held``."""
    for image in images:
        if not room[category]:
            return
        if not held[image] and all(room[other] for other in categories_of[image]):
            held[image] = True
            for other in categories_of[image]:
                room[other] -= 1


def _check_split(images_per_category: int, seed: int, kept_share: float) -> None:
    if images_per_category < 1:
        raise UserError(f"--images-per-category {images_per_category} is too few; give at least 1.")
    if seed < 0:
        raise UserError(f"--seed {seed} is negative; give a whole number of at least 0.")
    if not 0 < kept_share <= 1:
        raise UserError(
            f"--kept-share {kept_share:g} is out of range; give more than 0, at most 1."
        )


def describe_split(whole: Annotations, rest: Annotations, difficulty: Annotations) -> str:
    """Sizes of a split, and how many categories it can measure, in a few lines."""
    measured = difficulty.image_count > 0
    letters = np.array(whole.frequency)
    groups = ", ".join(
        f"{int(measured[letters == letter].sum())} of {int((letters == letter).sum())} {word}"
        for letter, word in zip(FREQUENCIES, ("rare", "common", "frequent"), strict=True)
    )
    few = difficulty.image_count[measured]
    each = (
        f"{few.min()} to {few.max()} images each, {few.mean():.1f} on average" if len(few) else ""
    )
    return "\n".join([
        f"training: {rest.num_images} images, {rest.num_instances} instances, "
        f"{int((rest.image_count > 0).sum())} categories",
        f"difficulty: {difficulty.num_images} images, {difficulty.num_instances} instances",
        f"it can measure {int(measured.sum())} of {whole.num_categories} categories ({groups}; "
        f"{each or 'none'}); the others keep their difficulty",
    ])  # fmt: skip


def write_split(
    annotations: Annotations,
    out: Path,
    images_per_category: int,
    seed: int,
    kept_share: float = 0.5,
) -> tuple[Annotations, Annotations]:
    """Write the rest of the training set and the difficulty set, both or none.

    Args:
        annotations: the training set.
        out: folder of the two files, made if it is not there.
        images_per_category: see :func:`hold_out_difficulty`, as the next two.
        seed: of the split.
        kept_share: of each category's images.

    Returns:
        The two sets.

    Raises:
        UserError: an argument is out of range; the set has no category with two images; no room or
            no permission: then ``out`` is as before.
    """
    ids = hold_out_difficulty(annotations, images_per_category, seed, kept_share)
    if not len(ids[1]):
        raise UserError(
            f"No image of {annotations.source} can be held out: each has a category that would "
            f"keep too few; choose a smaller --kept-share than {kept_share:g} or add images."
        )
    rule = {"images_per_category": images_per_category, "seed": seed, "kept_share": kept_share}
    parts = tuple(annotations.select(part) for part in ids)
    extra = dict(annotations.extra)
    extra["difficulty_split"] = rule
    rest, difficulty = (replace(part, extra=extra) for part in parts)
    _write_both({REST_FILE: rest, DIFFICULTY_FILE: difficulty}, out)
    return rest, difficulty


def _write_both(files: dict[str, Annotations], out: Path) -> None:
    """Write two files whole, then put them into place together."""
    staging = out / f".difficulty-split.{os.getpid()}.partial"
    try:
        staging.mkdir(parents=True)
        for name, annotations in files.items():
            write_lvis(annotations, staging / name)
        # Old files of another split go first: stopped between the two renames, one file is
        # missing, which is seen, and never are there two that do not belong together.
        for name in files:
            (out / name).unlink(missing_ok=True)
        for name in files:
            (staging / name).replace(out / name)
    except OSError as error:
        raise describe_os_error(error, out) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# Command line.


def check(
    annotations: Folder = None, images: Path | None = None, report: Path | None = None
) -> None:
    """Check the official LVIS v0.5 files, and that every image is there.

    Args:
        annotations: folder of the two files; else CDB_LVIS, else data/lvis.
        images: COCO 2017's images, in train2017 and val2017 or all in one folder; else CDB_COCO,
            else data/coco.
        report: a file to write the name of every missing image into.
    """
    if report is not None and not report.parent.is_dir():
        raise UserError(f"--report {report}: there is no folder {report.parent}; make it first.")
    folder, pictures = annotation_folder(annotations), image_folder(images)
    missing: list[str] = []
    total = 0
    for name in (TRAIN_FILE, VAL_FILE):
        read = read_official(folder, name)
        print_annotations(read)
        missing += missing_images(read, pictures)
        total += read.num_images
    if report is not None:
        write_atomically(report, "".join(f"{name}\n" for name in missing).encode())
    _refuse_missing(missing, total, pictures)
    print(f"all {total} images are in {pictures} and can be opened")


def print_annotations(annotations: Annotations) -> None:
    """Print sizes, letters and notes."""
    found = summary(annotations)
    letters = "/".join(map(str, found.letters))
    print(
        f"{annotations.source}: {annotations.num_images} images ({found.annotated_images} with "
        f"annotations), {found.instances} instances of {found.present} of "
        f"{annotations.num_categories} categories; rare/common/frequent {letters}"
    )
    for note in annotations.notes:
        print(note)


def missing_images(annotations: Annotations, folder: Path) -> list[str]:
    """Names of the images that are not there or are empty files, with a progress bar.

    Raises:
        UserError: there is no such folder.
    """
    paths = find_images(annotations, folder)
    missing = []
    with Count("images", len(paths)) as count:
        for image, path in enumerate(paths):
            count.advance()
            if path is None or not _has_content(path):
                missing.append(_image_name(annotations, image))
    return missing


def _has_content(path: Path) -> bool:
    """Whether a file can be opened and is not empty."""
    try:
        with path.open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _image_name(annotations: Annotations, image: int) -> str:
    """As COCO 2017 has it: ``train2017/000000000009.jpg``."""
    url = "/".join(annotations.coco_urls[image].split("/")[-2:])
    return url or annotations.file_names[image]


def _refuse_missing(missing: Sequence[str], total: int, folder: Path) -> None:
    if not missing:
        return
    for name in missing[:SHOWN]:
        print(f"{name} is missing or unreadable.")
    if len(missing) > SHOWN:
        print(f"... and {len(missing) - SHOWN} more.")
    raise UserError(
        f"{len(missing)} of the {total} images are not in {folder}; download COCO's train2017 and "
        f"val2017 and name the folder they are in with --images, or set {COCO_VARIABLE}."
    )


def split(
    images_per_category: int,
    annotations: Path | None = None,
    seed: int = 0,
    kept_share: float = 0.5,
    out: Path | None = None,
) -> None:
    """Hold a difficulty set out from the training set (never from LVIS val, the test set).

    Args:
        images_per_category: at most so many images of each category.
        annotations: folder of lvis_v0.5_train.json; else CDB_LVIS, else data/lvis.
        seed: of the split.
        kept_share: at least this share of a category's images, and at least one, is left.
        out: folder of lvis_v0.5_train_rest.json and lvis_v0.5_difficulty.json; else that of the
            annotations.
    """
    _check_split(images_per_category, seed, kept_share)
    folder = annotation_folder(annotations)
    whole = read_official(folder, TRAIN_FILE)
    target = out or folder
    parts = write_split(whole, target, images_per_category, seed, kept_share)
    print(describe_split(whole, *parts))
    print(f"wrote {REST_FILE} and {DIFFICULTY_FILE} in {target}")


def main() -> None:
    """Run the ``check`` or the ``split`` command."""
    commands: dict[str, Any] = {"check": check, "split": split}
    tyro.extras.subcommand_cli_from_dict(commands, prog="data_prep.lvis")


if __name__ == "__main__":
    run_main(main)
