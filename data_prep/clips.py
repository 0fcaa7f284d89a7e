"""Video clips and their verbs: splits in EGTEA's text format, and the folder of the clips.

A split is a folder of four text files. Three list the clips of a part, one a line; the fourth names
the verbs:

    train_split.txt, val_split.txt, test_split.txt    CLIP ACTION_ID VERB_ID NOUN_ID [NOUN_ID ...]
    verb_idx.txt                                      NAME ID

``val`` is the difficulty set. Ids start at 1; an action has one to three nouns. A clip is the file
CLIP.mp4 (or another kind of video) anywhere below the folder of the clips.

Shapes: C verbs (classes), N clips. Labels are 0 to C-1: the verb's id less 1.
"""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from common.errors import UserError, describe_os_error
from common.files import write_atomically
from common.training.progress import Count

PART_FILES: Final = {
    "train": "train_split.txt",
    "difficulty": "val_split.txt",
    "test": "test_split.txt",
}
VERB_FILE: Final = "verb_idx.txt"
SUFFIXES: Final = (".mp4", ".avi", ".mkv", ".mov", ".webm")
HEAD_VERBS: Final = 5
SHOWN: Final = 20

_FIELDS: Final = (4, 6)
_ID: Final = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class ClipList:
    """The clips of one part, in the order of its file.

    Attributes:
        names: (N,) such as ``P19-R03-BaconAndEggs-806419-820160-F019321-F019717``.
        labels: (N,) 0 to C-1.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """Clips of each class, (C,)."""
        found = Counter(self.labels)
        return tuple(found[label] for label in range(num_classes))


@dataclass(frozen=True)
class VerbSplit:
    """Clips to train on, to measure the class difficulty on, and to test on; no clip in two parts.

    Attributes:
        class_names: (C,) verbs in label order.
        train: at least one clip of each verb.
        difficulty: at least one clip; a verb may have none.
        test: the same.
    """

    class_names: tuple[str, ...]
    train: ClipList
    difficulty: ClipList
    test: ClipList

    @property
    def parts(self) -> dict[str, ClipList]:
        """The three parts by name: train, difficulty, test."""
        return {name: getattr(self, name) for name in PART_FILES}

    @property
    def clips(self) -> tuple[str, ...]:
        """The names of all clips, part after part."""
        return tuple(name for part in self.parts.values() for name in part.names)

    @cached_property
    def train_counts(self) -> tuple[int, ...]:
        """Training clips of each verb, (C,)."""
        return self.train.counts(len(self.class_names))

    @cached_property
    def difficulty_counts(self) -> tuple[int, ...]:
        """Clips of each verb that its difficulty is measured on, (C,)."""
        return self.difficulty.counts(len(self.class_names))

    @cached_property
    def test_counts(self) -> tuple[int, ...]:
        """Test clips of each verb, (C,)."""
        return self.test.counts(len(self.class_names))

    @property
    def frequency(self) -> tuple[int, ...]:
        """Clips of each verb in train + difficulty, (C,): what head and tail go by (Sec. 4.3.1)."""
        pairs = zip(self.train_counts, self.difficulty_counts, strict=True)
        return tuple(train + difficulty for train, difficulty in pairs)

    @property
    def order(self) -> tuple[int, ...]:
        """Labels, (C,), the most frequent verb in train + difficulty first, else by label."""
        frequency = self.frequency
        return tuple(sorted(range(len(frequency)), key=lambda label: -frequency[label]))

    @cached_property
    def head(self) -> tuple[int, ...]:
        """Labels of the five most frequent verbs in train + difficulty, the most frequent first."""
        return self.order[:HEAD_VERBS]

    @property
    def tail(self) -> tuple[int, ...]:
        """Labels of the other verbs, the most frequent first; none if there are five or fewer."""
        return self.order[HEAD_VERBS:]

    @property
    def imbalance(self) -> float:
        """Largest over smallest number of training clips per verb, >= 1."""
        return max(self.train_counts) / min(self.train_counts)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over the clips and labels of the three parts: equal for equal splits."""
        digest = hashlib.sha256()
        for name, part in self.parts.items():
            digest.update(f"{name} {len(part.names)}\n".encode())
            for clip, label in zip(part.names, part.labels, strict=True):
                digest.update(f"{clip} {label}\n".encode())
        return digest.hexdigest()

    def average_frequency(self, labels: Iterable[int]) -> float:
        """Mean clips a verb in train + difficulty over some verbs; NaN for no verb."""
        chosen = [self.frequency[label] for label in labels]
        return sum(chosen) / len(chosen) if chosen else math.nan


# Reading a split.


def read_splits(folder: Path) -> VerbSplit:
    """Read and check the four files of a split.

    Args:
        folder: holds train_split.txt, val_split.txt, test_split.txt and verb_idx.txt.

    Raises:
        UserError: naming the file and the line, for a file that is missing, empty or not text, a
            line of another form, an id out of range, a clip that is there twice, a verb table with
            gaps or duplicates; naming the verb, for one without a training clip.
    """
    class_names = _read_verbs(folder / VERB_FILE)
    seen: dict[str, str] = {}
    paths = {name: folder / file for name, file in PART_FILES.items()}
    parts = {name: _read_part(path, len(class_names), seen) for name, path in paths.items()}
    split = VerbSplit(class_names, **parts)
    for label, count in enumerate(split.train_counts):
        if not count:
            raise UserError(
                f"{paths['train']} has no clip of the verb {class_names[label]} (id {label + 1}); "
                f"a class without a training clip cannot be learnt: add one or leave the verb out."
            )
    return split


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place for messages, content) of each line."""
    try:
        # A byte order mark and the line ends of Windows are no mistake.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        names = ", ".join((*PART_FILES.values(), VERB_FILE))
        raise UserError(f"{path} is missing; a split is a folder with {names}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason}); replace it.") from error
    except OSError as error:
        raise describe_os_error(error, path) from error
    if not text:
        raise UserError(f"{path} is empty; it needs at least one line.")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        yield f"{path}, line {number}", line


def _read_verbs(path: Path) -> tuple[str, ...]:
    """The verbs in the order of their ids, which must be 1 to C, (C,)."""
    names: dict[int, str] = {}
    for place, line in _read_lines(path):
        name, _, text = line.rpartition(" ")
        if not name.strip() or not name.isprintable():
            raise UserError(f"{place}: {line!r} is not 'NAME ID'; write a verb and its number.")
        number = _parse_id(text, place, "verb id")
        if number in names or name in names.values():
            raise UserError(f"{place}: {line!r} repeats a name or an id; each stands once.")
        names[number] = name
    for number in range(1, len(names) + 1):
        if number not in names:
            raise UserError(f"{path} has no verb with id {number}; ids go from 1 without a gap.")
    return tuple(names[number] for number in sorted(names))


def _read_part(path: Path, num_classes: int, seen: dict[str, str]) -> ClipList:
    """One part; ``seen`` holds where each clip stood so far, and takes up the new ones."""
    names, labels = [], []
    for place, line in _read_lines(path):
        name, label = _parse_clip(line, place, num_classes)
        if name in seen:
            raise UserError(
                f"{place}: clip {name} stands in {seen[name]} too; a clip may be in one part, once."
            )
        seen[name] = place
        names.append(name)
        labels.append(label)
    return ClipList(tuple(names), tuple(labels))


def _parse_clip(line: str, place: str, num_classes: int) -> tuple[str, int]:
    """Name and label of 'CLIP ACTION_ID VERB_ID NOUN_ID [NOUN_ID [NOUN_ID]]'."""
    fields = line.split(" ")
    least, most = _FIELDS
    if not least <= len(fields) <= most:
        raise UserError(
            f"{place}: {len(fields)} fields where {least} to {most} belong (CLIP ACTION_ID VERB_ID "
            "NOUN_ID [NOUN_ID [NOUN_ID]], single spaces between); mend the line."
        )
    name, action, verb, *nouns = fields
    # The name becomes part of a path.
    if not name.isprintable() or not name or {"/", "\\"} & set(name) or name.startswith("."):
        raise UserError(f"{place}: {name!r} is not the name of a clip; mend the line.")
    for text, what in ((action, "action id"), *((noun, "noun id") for noun in nouns)):
        _parse_id(text, place, what)
    number = _parse_id(verb, place, "verb id")
    if number > num_classes:
        raise UserError(
            f"{place}: verb id {number} is out of range; {VERB_FILE} names 1 to {num_classes}."
        )
    return name, number - 1


def _parse_id(text: str, place: str, what: str) -> int:
    if not _ID.fullmatch(text):
        raise UserError(f"{place}: {what} {text!r} is not a whole number of at least 1; mend it.")
    return int(text)


# What is to be said of a split.


def split_notes(split: VerbSplit) -> list[str]:
    """Sentences on what the sizes of a split do to what is measured on it; none if it is even."""
    notes = _unmeasured(
        split, split.difficulty_counts, "difficulty", "its difficulty is not measured and stays 1"
    )
    notes += _unevenness(split, split.difficulty_counts, "difficulty")
    notes += _unmeasured(split, split.test_counts, "test", "its test accuracy is not given")
    return notes + _unevenness(split, split.test_counts, "test")


def _unmeasured(
    split: VerbSplit, counts: tuple[int, ...], part: str, consequence: str
) -> list[str]:
    names = [name for name, count in zip(split.class_names, counts, strict=True) if not count]
    return [f"The {part} set has no clip of {name}: {consequence}." for name in names]


def _unevenness(split: VerbSplit, counts: tuple[int, ...], part: str) -> list[str]:
    """Smallest and largest class, and the step that one clip of the smallest makes; not if even."""
    least, most = min(count for count in counts if count), max(counts)
    if least == most:
        return []
    few, many = (_verbs_with(split, counts, count) for count in (least, most))
    clips = "1 clip" if least == 1 else f"{least} clips"
    return [
        f"The {part} set is not balanced: {least} ({few}) to {most} ({many}) clips a verb; "
        f"the accuracy of a verb with {clips} moves in steps of {1 / least:.2g}."
    ]


def _verbs_with(split: VerbSplit, counts: tuple[int, ...], wanted: int) -> str:
    """The verbs with so many clips: one by name, and how many others."""
    names = [name for name, n in zip(split.class_names, counts, strict=True) if n == wanted]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def print_split(split: VerbSplit) -> None:
    """Print clips per verb in each part, head or tail, the imbalance and the notes."""
    parts = (split.train_counts, split.difficulty_counts, split.test_counts)
    rows = [*zip(*parts, strict=True), tuple(map(sum, parts))]
    groups = ["head" if label in split.head else "tail" for label in range(len(rows) - 1)]
    names = [*split.class_names, "all"]
    width = max(map(len, [*names, "verb"]))
    print(f"{'verb':<{width}}{'train':>7}{'difficulty':>12}{'test':>7}  group")
    for name, (train, difficulty, test), group in zip(names, rows, [*groups, ""], strict=True):
        print(f"{name:<{width}}{train:>7}{difficulty:>12}{test:>7}  {group}".rstrip())
    print(f"imbalance {split.imbalance:g} (largest over smallest number of training clips)")
    for note in split_notes(split):
        print(note)
    print(f"digest {split.digest}")


# The folder of the clips.


@dataclass(frozen=True)
class ClipFiles:
    """Which clips a folder holds.

    Attributes:
        found: the file of each clip that is there, in the order asked for.
        missing: the others.
        doubled: clips with more than one file, and their files; the first is in ``found``.
        similar: files that a missing clip has but for upper and lower case.
    """

    found: dict[str, Path]
    missing: list[str]
    doubled: dict[str, list[Path]]
    similar: dict[str, Path]

    def problems(self) -> dict[str, str]:
        """A sentence about each clip that is not there, or is there twice."""
        sentences = {clip: f"{clip} is missing." for clip in self.missing}
        for clip, path in self.similar.items():
            sentences[clip] = f"{clip} is missing; {path} differs in upper and lower case."
        for clip, paths in self.doubled.items():
            sentences[clip] = f"{clip} has more than one file: {', '.join(map(str, paths))}."
        return sentences


def scan_clips(folder: Path, names: Iterable[str], remedy: str = "") -> ClipFiles:
    """Look for clips anywhere below a folder; one pass over it.

    Args:
        folder: flat, or with sub-folders (EGTEA: one per recording), which may be links.
        names: the clips; the file is the name and one of ``SUFFIXES``.
        remedy: how to name another folder, for messages.

    Raises:
        UserError: the folder is not there or cannot be read.
    """
    remedy = remedy or "name the folder of the clips"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is missing"
        raise UserError(f"{folder} {what}; {remedy}.")
    names = tuple(names)
    wanted = set(names)
    files: dict[str, list[Path]] = {}
    others: dict[str, Path] = {}
    for path in _videos(folder):
        if path.stem in wanted:
            files.setdefault(path.stem, []).append(path)
        else:
            others.setdefault(path.stem.casefold(), path)
    missing = [name for name in names if name not in files]
    return ClipFiles(
        found={name: files[name][0] for name in names if name in files},
        missing=missing,
        doubled={name: sorted(files[name]) for name in names if len(files.get(name, ())) > 1},
        similar={n: others[n.casefold()] for n in missing if n.casefold() in others},
    )


def find_clips(folder: Path, names: Iterable[str], remedy: str = "") -> dict[str, Path]:
    """The file of each clip, in the order of ``names``; see :func:`scan_clips`.

    Raises:
        UserError: the folder cannot be read, or a clip has no file in it or more than one; it
            names the first few and tells their number.
    """
    names = tuple(names)
    files = scan_clips(folder, names, remedy)
    problems = list(files.problems().values())
    if problems:
        first = " ".join(problems[:3])
        more = f" ({len(problems) - 3} more.)" if len(problems) > 3 else ""
        raise UserError(
            f"{len(problems)} of the {len(names)} clips are not in {folder}, or are there twice; "
            f"{remedy or 'name the folder of the clips'}. {first}{more}"
        )
    return files.found


def _videos(folder: Path) -> Iterator[Path]:
    """The files below ``folder`` that may be videos, following links, but into no folder twice."""

    def refuse(error: OSError) -> None:
        raise describe_os_error(error, error.filename or folder) from error

    entered: set[tuple[int, int]] = set()
    for base, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        # A link may lead back to a folder above it.
        identity = os.stat(base)
        if (identity.st_dev, identity.st_ino) in entered:
            folders.clear()
            continue
        entered.add((identity.st_dev, identity.st_ino))
        folders.sort()
        yield from (Path(base, file) for file in files if file.lower().endswith(SUFFIXES))


# Checking the clips.


def check_clips(paths: Iterable[Path], threads: int | None = None) -> list[str]:
    """Decode every picture of every clip, with a progress bar: training may want any of them.

    Args:
        paths: files of clips.
        threads: how many at a time, >= 1; None: one for each core.

    Returns:
        A sentence for each file that is missing or unreadable, naming it, in the order of
        ``paths``.

    Raises:
        UserError: PyAV is not installed, or ``threads`` < 1.
    """
    decode = _load_decoder()
    pool = ThreadPoolExecutor(_checked_threads(threads))

    def problem(path: Path) -> str:
        try:
            decode(path)
        except UserError as error:
            return str(error)
        return ""

    paths = tuple(paths)
    sentences = []
    try:
        with Count("clips", len(paths)) as count:
            for sentence in pool.map(problem, paths):
                count.advance()
                sentences.append(sentence)
    finally:
        # Interrupted: thousands of clips may be waiting, and none of them is of use any more.
        pool.shutdown(cancel_futures=True)
    return [sentence for sentence in sentences if sentence]


def _load_decoder() -> Callable[[Path], object]:
    """What decodes a clip; imported when it is needed, so that ``show`` needs no PyAV."""
    try:
        from data_prep.clip_file import decode_clip
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading clips needs the package {error.name}; install this project's extra 'video'."
        ) from error
    return decode_clip


def _checked_threads(threads: int | None) -> int:
    if threads is None:
        return os.cpu_count() or 1
    if threads < 1:
        raise UserError(f"--threads {threads} is too few; give at least 1.")
    return threads


def check_folder(
    split: VerbSplit,
    folder: Path,
    threads: int | None = None,
    report: Path | None = None,
    remedy: str = "",
) -> None:
    """Check that a folder holds every clip of a split, each readable, and print what is wrong.

    A clip is readable if PyAV decodes all of its pictures (but for those at its beginning and end
    that training leaves out as well, see :func:`data_prep.clip_file.decode_pictures`).

    The first 20 sentences are printed, and how many more there are.

    Args:
        split: whose clips are wanted.
        folder: see :func:`scan_clips`.
        threads: how many clips are read at a time; None: one for each core.
        report: a file to write all the sentences into, one a line, also when there is none.
        remedy: how to name another folder, for messages.

    Raises:
        UserError: a clip is missing, has two files, or is unreadable, after printing; there is no
            such folder, or no place for the report.
    """
    # Before the work, not after it.
    if report is not None and not report.parent.is_dir():
        raise UserError(f"--report {report}: there is no folder {report.parent}; make it first.")
    files = scan_clips(folder, split.clips, remedy)
    absent = files.problems()
    readable = [path for clip, path in files.found.items() if clip not in absent]
    unreadable = check_clips(readable, threads) if readable else []
    sentences = [*absent.values(), *unreadable]
    if report is not None:
        write_atomically(report, "".join(f"{sentence}\n" for sentence in sentences).encode())
    if not sentences:
        print(f"{folder}: all {len(split.clips)} clips are there and can be read")
        return
    _print_first(sentences, report)
    raise UserError(
        f"{folder}: of {len(split.clips)} clips {len(files.missing)} are missing, "
        f"{len(files.doubled)} have two files and {len(unreadable)} are unreadable; "
        f"{remedy or 'mend the folder of the clips'}."
    )


def _print_first(sentences: list[str], report: Path | None) -> None:
    print("\n".join(sentences[:SHOWN]))
    more = len(sentences) - SHOWN
    if more > 0:
        where = f"see {report}" if report is not None else "name a file with --report for all"
        print(f"... and {more} more; {where}")
