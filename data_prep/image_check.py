"""Checking and printing a split of image files: what every such data set's ``check`` does."""

import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from common.errors import UserError
from common.files import write_atomically
from common.training.image_file import as_rgb, open_picture, orientation
from common.training.progress import Count
from data_prep.image_list import (
    ImageSplit,
    explain_missing,
    look_for_images,
    refuse_shared,
)
from data_prep.split import shot_group_names

SHOWN: Final = 20
_LARGEST_TABLE: Final = 100
"""With more classes, only the sums of a split are printed."""
_AT_A_TIME: Final = 32
"""Images of one piece of work: a future for each image would cost more memory than the lists."""


TURNED: Final = "turned as EXIF says"
SEE_THROUGH: Final = "see-through in places, which is dropped"
SEVERAL: Final = "with several pictures, of which the first is read"


def find_unreadable(paths: Iterable[Path], threads: int | None = None) -> list[str]:
    """A sentence for each image that cannot be decoded; see :func:`decode_images`."""
    return decode_images(paths, threads)[0]


def decode_images(
    paths: Iterable[Path], threads: int | None = None
) -> tuple[list[str], Counter[str]]:
    """Decode every image, with a progress bar.

    Args:
        paths: files of images.
        threads: how many at a time, >= 1 (decoding leaves the interpreter free); None: one for each
            core.

    Returns:
        A sentence for each file that cannot be decoded to its end, in the order of ``paths``; and
        of how many others something is to be said (``TURNED`` and so on).

    Raises:
        UserError: ``threads`` < 1.
    """
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads} is too few; give at least 1.")
    paths = list(paths)
    blocks = [paths[start : start + _AT_A_TIME] for start in range(0, len(paths), _AT_A_TIME)]
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    sentences: list[str] = []
    notes: Counter[str] = Counter()
    try:
        # Pillow warns of odd metadata, of which ImageNet has some; the pixels are whole.
        with warnings.catch_warnings(action="ignore"), Count("images", len(paths)) as count:
            for of_block in pool.map(_problems, blocks):
                for sentence, noted in of_block:
                    count.advance()
                    sentences.append(sentence)
                    notes.update(noted)
    finally:
        # Interrupted: thousands of images may be waiting, and none of them is of use any more.
        pool.shutdown(cancel_futures=True)
    return [sentence for sentence in sentences if sentence], notes


_Finding = tuple[str, list[str]]


def _problems(paths: list[Path]) -> list[_Finding]:
    return [_problem(path) for path in paths]


def _problem(path: Path) -> _Finding:
    """What is wrong with an image, in a sentence, else what is to be said. As training reads it."""
    try:
        with open_picture(path) as picture:
            see_through = picture.has_transparency_data
            several = getattr(picture, "n_frames", 1) > 1
            as_rgb(picture)
            noted = {
                TURNED: orientation(picture) != 1,
                SEE_THROUGH: see_through,
                SEVERAL: several,
            }
    except UserError as error:
        return str(error), []
    except Exception as error:  # One odd file must not end the search for others.
        return f"{path} cannot be read as an image ({error!r}); get it again.", []
    return "", [note for note, applies in noted.items() if applies]


def check_images(
    split: ImageSplit,
    decode: bool,
    remedy: str,
    threads: int | None = None,
    report: Path | None = None,
    *,
    own: bool = False,
) -> None:
    """Check that every image of a split is there, and print what is wrong.

    The first 20 sentences are printed, and how many more there are.

    Args:
        split: whose images are wanted.
        decode: also decode every image.
        remedy: what to do, for the message.
        threads: how many images are decoded at a time; None: one for each core.
        report: a file to write all the sentences into, one a line, also when there is none.
        own: images of the user's own: EXIF turns them, and none may be in two parts.

    Raises:
        UserError: an image is missing or unreadable, after printing; no place for the report; one
            file is in two parts.
    """
    if threads is not None and not decode:
        raise UserError("--threads is for decoding; give --decode, too, or leave it out.")
    # Before the work, not after it.
    if report is not None and not report.parent.is_dir():
        raise UserError(f"--report {report}: there is no folder {report.parent}; make it first.")
    total = sum(map(len, split.parts.values()))
    found = look_for_images(split)
    missing = found.missing
    if own:
        refuse_shared(split.folder, split.parts, found.links)
    unreadable, notes = _decode(split, set(missing), threads) if decode else ([], Counter[str]())
    for note in (TURNED, SEE_THROUGH, SEVERAL) if own else (SEE_THROUGH, SEVERAL):
        if notes[note]:
            print(f"{split.folder}: {notes[note]} of {total} images {note}")
    sentences = [*(f"{split.folder / path} is missing." for path in missing), *unreadable]
    if report is not None:
        write_atomically(report, "".join(f"{sentence}\n" for sentence in sentences).encode())
    if not sentences:
        read = "are there and can be read" if decode else "are there (--decode also reads them)"
        print(f"{split.folder}: all {total} images {read}")
        return
    _print_first(sentences, report)
    read = f" and {len(unreadable)} unreadable" if decode else ""
    why = explain_missing(split, missing) if missing else ""
    raise UserError(
        f"{split.folder}: of {total} images {len(missing)} missing{read}; {why or remedy}."
    )


def _decode(
    split: ImageSplit, missing: set[str], threads: int | None
) -> tuple[list[str], Counter[str]]:
    paths = itertools.chain.from_iterable(part.paths for part in split.parts.values())
    return decode_images((split.folder / path for path in paths if path not in missing), threads)


def _print_first(sentences: list[str], report: Path | None) -> None:
    print("\n".join(sentences[:SHOWN]))
    more = len(sentences) - SHOWN
    if more > 0:
        where = f"see {report}" if report is not None else "name a file with --report for all"
        print(f"... and {more} more; {where}")


def print_split(split: ImageSplit) -> None:
    """Print the images of each part and class (if there are few classes), imbalance and groups."""
    counts = (split.train_counts, split.difficulty_counts, split.test_counts)
    groups = shot_group_names(split.train_counts)
    if split.num_classes <= _LARGEST_TABLE:
        _print_table(split.class_names, counts, groups)
    for name, of_part in zip(split.parts, counts, strict=True):
        print(f"{name}: {sum(of_part)} images, {_range(of_part)} a class")
    print(f"{split.num_classes} classes, imbalance {split.imbalance:g} (largest over smallest)")
    sizes = ", ".join(f"{name} {groups.count(name)}" for name in ("many", "medium", "few"))
    print(f"classes by shots (more than 100, 21 to 100, at most 20 training images): {sizes}")
    print(f"digest {split.digest}")


def _range(counts: tuple[int, ...]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def _print_table(
    names: tuple[str, ...], counts: tuple[tuple[int, ...], ...], groups: list[str]
) -> None:
    width = max(map(len, (*names, "class"))) + 1
    print(f"{'class':<{width}}{'train':>7}{'difficulty':>12}{'test':>7}  shot group")
    for name, row, group in zip(names, zip(*counts, strict=True), groups, strict=True):
        train, difficulty, test = row
        print(f"{name:<{width}}{train:>7}{difficulty:>12}{test:>7}  {group}")
