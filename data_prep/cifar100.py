"""CIFAR100-LT: CIFAR-100 in any of its layouts, and the paper's long-tailed split (Sec. 4.1.1).

Shapes: N samples (50,000 training and 10,000 test images), C = 100 classes in the official order of
the fine labels; in the split class 0 has the most training images and class 99 the fewest.

    python -m data_prep.cifar100 check --folder data/cifar100
    python -m data_prep.cifar100 show --imbalance 100 --split-seed 0
    python -m data_prep.cifar100 download --folder data/cifar100
"""

import hashlib
import io
import math
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from torch import Tensor

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path
from data_prep.split import (
    index_digest,
    joined,
    permuted_class,
    shot_group_names,
    split_generator,
)

FOLDER_VARIABLE = "CDB_CIFAR100"
DEFAULT_FOLDER = Path("data/cifar100")
NUM_CLASSES = 100
HEAD_SIZE = 450
DIFFICULTY_PER_CLASS = 50
IMAGE_SHAPE = (3, 32, 32)

# The official order of the fine labels, which is alphabetical.
_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = tuple(_NAMES.split())

# Where each layout keeps its parts.
NPZ_TRAIN = tuple(f"cifar100_train_{part}.npz" for part in range(5))
NPZ_TEST = "cifar100_test.npz"
PYTHON_FOLDER = "cifar-100-python"
PYTHON_FILES = ("train", "test", "meta")
ARCHIVE = "cifar-100-python.tar.gz"

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Content:
    """What a whole copy holds, whatever its layout.

    Attributes:
        train_per_class: training images of each class.
        test_per_class: test images of each class.
        train_sha256: digest of the training part, see :func:`canonical_order`.
        test_sha256: digest of the test part.
        class_names: (C,) in label order.
    """

    train_per_class: int
    test_per_class: int
    train_sha256: str
    test_sha256: str
    class_names: tuple[str, ...] = CLASS_NAMES


ORIGINAL = Content(
    train_per_class=500,
    test_per_class=100,
    train_sha256="f85d1393a3fad671ecf221a3e4695758aefdf71f0d1536eeef7c70131d525bae",
    test_sha256="4ddcc047126c10da5b96d02a87f6a7fc5804118dab34fe26c49b7fca8f53b714",
)


@dataclass(frozen=True, eq=False)
class Cifar100:
    """All of CIFAR-100, sorted by class and, within a class, by the sha256 of the pixels.

    The order depends on the images alone, so a split seed draws the same images from every layout.

    Attributes:
        train_images: (50000, 3, 32, 32) uint8, red, green, blue.
        train_labels: (50000,) int64, 0 to 99.
        test_images: (10000, 3, 32, 32) uint8.
        test_labels: (10000,) int64.
        class_names: (100,) in label order.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...] = CLASS_NAMES


@dataclass(frozen=True, eq=False)
class CifarSplit:
    """One long-tailed split: positions in the training images of :class:`Cifar100`, ascending.

    Attributes:
        train_index: (N,) int64, positions in ``train_images``.
        difficulty_index: (5000,) int64, positions in ``train_images``, disjoint from
            ``train_index``: the images the class difficulty is measured on; (0,) with a head size.
        train_counts: images per class, (C,), largest first.
        difficulty_counts: the same for the difficulty part.
        test_counts: the same for the test part, which is the whole test part of CIFAR-100.
        class_names: (C,) in label order.
    """

    train_index: Tensor
    difficulty_index: Tensor
    train_counts: tuple[int, ...]
    difficulty_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    class_names: tuple[str, ...] = CLASS_NAMES

    @property
    def imbalance(self) -> float:
        """Largest over smallest number of training images per class, >= 1."""
        return max(self.train_counts) / min(self.train_counts)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the two index lists: equal for equal splits, on every machine."""
        names = ("train_index", "difficulty_index")
        return index_digest({name: getattr(self, name) for name in names})


# The split.


def training_sizes(
    imbalance: float, num_classes: int = NUM_CLASSES, head: int = HEAD_SIZE
) -> tuple[int, ...]:
    """Training images per class: n_c = floor(head * mu^((c-1)/(C-1))), mu = 1/imbalance, c = 1..C.

    Computed in whole numbers, since head * mu^1 in floating point may fall just short of the whole
    number it is (Sec. 4.1.1 gives the formula; the floor is the usual reading, Cui et al. 2019).

    Args:
        imbalance: wanted largest / smallest class, >= 1; the floor makes the true one larger.
        num_classes: C >= 1.
        head: images of the largest class.

    Raises:
        UserError: imbalance is not a ratio, or so large that a class is empty.

    >>> training_sizes(10, num_classes=3)
    (450, 142, 45)
    """
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise UserError(
            f"--imbalance {imbalance} is not a ratio of largest to smallest class; "
            "give a number of at least 1, for example 100."
        )
    if imbalance > head:
        raise UserError(
            f"--imbalance {imbalance:g} leaves the smallest class with no training image; "
            f"give at most {head}."
        )
    steps = max(num_classes - 1, 1)
    return tuple(_floor_of_power(head, imbalance, c, steps) for c in range(num_classes))


def split_cifar100_lt(
    data: Cifar100,
    imbalance: float,
    split_seed: int,
    difficulty_per_class: int | None = None,
    head_size: int | None = None,
) -> CifarSplit:
    """Draw the difficulty part (50 a class) and the long-tailed training part (Sec. 4.1.1).

    One permutation per class is drawn and cut into slices, so that runs at different imbalance are
    paired: a seed has the same difficulty images at every imbalance, and the smaller training part
    is a subset of the larger.

    Args:
        data: what :func:`load_cifar100` returns.
        imbalance: wanted largest / smallest class, >= 1.
        split_seed: >= 0; the split depends on nothing else, the training seed included.
        difficulty_per_class: images of the difficulty part, the most frequent class having the
            rest of its 500; None: 50.
        head_size: training images of the most frequent class where no difficulty part is drawn, as
            Cui et al. 2019 and Cao et al. 2019 have it (500); None: one is drawn.

    Raises:
        UserError: imbalance < 1 or so large that a class is empty, split_seed < 0, too few images.
    """
    held_out = difficulty_per_class or DIFFICULTY_PER_CLASS
    head = HEAD_SIZE + DIFFICULTY_PER_CLASS - held_out
    if head_size is not None:
        held_out, head = 0, head_size
    train_sizes = training_sizes(imbalance, len(data.class_names), head)
    generator = split_generator(split_seed)
    train, difficulty = [], []
    for label, train_size in enumerate(train_sizes):
        order = permuted_class(data.train_labels, label, generator)
        wanted = held_out + train_size
        if len(order) < wanted:
            raise UserError(
                f"Class {data.class_names[label]} has {len(order)} training images where the "
                f"split needs {wanted}; choose an --imbalance farther from 1 or a whole CIFAR-100."
            )
        difficulty.append(order[:held_out])
        train.append(order[held_out:wanted])
    return CifarSplit(
        train_index=joined(train),
        difficulty_index=joined(difficulty),
        train_counts=train_sizes,
        difficulty_counts=(held_out,) * len(train_sizes),
        test_counts=_counts(data.test_labels, len(train_sizes)),
        class_names=data.class_names,
    )


def _floor_of_power(head: int, imbalance: float, step: int, steps: int) -> int:
    """floor(head * imbalance^(-step/steps)), exact.

    n <= head * r^(-step/steps) holds exactly if n^steps * r^step <= head^steps: whole numbers for a
    ratio r of whole numbers, which every float is.
    """
    ratio = Fraction(imbalance)
    scale, limit = ratio.numerator**step, int(head**steps * ratio.denominator**step)
    size: int = round(head * imbalance ** (-step / steps))
    while (size + 1) ** steps * scale <= limit:
        size += 1
    while size**steps * scale > limit:
        size -= 1
    return size


def _counts(labels: Tensor, num_classes: int) -> tuple[int, ...]:
    return tuple(torch.bincount(labels, minlength=num_classes).tolist())


# Reading CIFAR-100.


@dataclass(frozen=True)
class _Part:
    """The training or the test part as one layout holds it.

    Attributes:
        name: the file (or files) it comes from, for messages.
        images: (N, 3, 32, 32) uint8, in the layout's order.
        labels: (N,) int64.
    """

    name: str
    images: Bytes
    labels: Array


def load_cifar100(folder: Path | None = None, content: Content = ORIGINAL) -> Cifar100:
    """Read and verify CIFAR-100; the arrays are the same, in the same order, from every layout.

    Args:
        folder: any of

            - a folder with ``cifar100_train_0.npz`` to ``_4.npz`` and ``cifar100_test.npz``;
            - the official ``cifar-100-python`` folder (``train``, ``test``, ``meta``);
            - a folder that holds it, or ``cifar-100-python.tar.gz``, as torchvision's
              ``CIFAR100(folder, download=True)`` leaves it; or that archive itself.

            None is the environment variable CDB_CIFAR100, else ``data/cifar100``.
        content: what it must hold.

    Raises:
        UserError: naming the file that is missing, damaged, or not the original.
    """
    folder = default_folder() if folder is None else folder
    try:
        train, test, class_names = _find_layout(folder)(folder)
    except OSError as error:
        raise describe_os_error(error, error.filename or folder) from error
    if class_names != content.class_names:
        raise UserError(_not_original(str(folder), "its class names differ"))
    train_images, train_labels = _verified(train, content.train_per_class, content.train_sha256)
    test_images, test_labels = _verified(test, content.test_per_class, content.test_sha256)
    return Cifar100(train_images, train_labels, test_images, test_labels, class_names)


def default_folder() -> Path:
    """The folder that is read when none is named: $CDB_CIFAR100, else ``data/cifar100``."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def canonical_order(images: Bytes, labels: Array) -> tuple[Array, str]:
    """The order by (label, sha256 of the pixels), and a digest that no other order changes.

    Args:
        images: (N, 3, 32, 32) uint8.
        labels: (N,), 0 to 255.

    Returns:
        Positions (N,) int64, and the sha256 (hex) over label and pixel sha256 of each image in
        that order. Equal images of one class tie, and it does not matter which comes first.
    """
    keys = [
        bytes([label]) + hashlib.sha256(pixels.tobytes()).digest()
        for label, pixels in zip(labels.tolist(), images.reshape(len(images), -1), strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    digest = hashlib.sha256(b"".join(keys[position] for position in order)).hexdigest()
    return np.array(order, dtype=np.int64), digest


def _verified(part: _Part, per_class: int, sha256: str) -> tuple[Tensor, Tensor]:
    """Images and labels of a part in canonical order, if they are the original ones."""
    counts = np.bincount(part.labels, minlength=NUM_CLASSES)
    if (counts != per_class).any():
        label = int(np.flatnonzero(counts != per_class)[0])
        what = f"{counts[label]} images of class {label} where {per_class} belong"
        raise UserError(_not_original(part.name, what))
    order, found = canonical_order(part.images, part.labels)
    if found != sha256:
        what = f"content sha256 {found[:12]}..., expected {sha256[:12]}..."
        raise UserError(_not_original(part.name, what))
    return torch.from_numpy(part.images[order]), torch.from_numpy(part.labels[order])


_Layout = tuple[_Part, _Part, tuple[str, ...]]


def _find_layout(source: Path) -> Callable[[Path], _Layout]:
    """The reader for what stands at ``source``."""
    if source.is_file():
        return _read_archive
    if not source.is_dir():
        raise UserError(f"{source} is missing; {_remedy()}.")
    if any((source / name).exists() for name in (*NPZ_TRAIN, NPZ_TEST)):
        return _read_npz_files
    if any((source / name).is_file() for name in PYTHON_FILES):
        return _read_pickles
    if (source / PYTHON_FOLDER).is_dir():
        return lambda root: _read_pickles(root / PYTHON_FOLDER)
    if (source / ARCHIVE).is_file():
        return lambda root: _read_archive(root / ARCHIVE)
    raise UserError(f"{source} holds no CIFAR-100 {_what_stands_there(source)}; {_remedy()}.")


def _what_stands_there(folder: Path) -> str:
    """What a wrong folder seems to be, in brackets."""
    if any((folder / name).exists() for name in ("cifar-10-batches-py", "data_batch_1")):
        return "(this is CIFAR-10)"
    if any((folder / name).exists() for name in ("cifar-100-binary", "train.bin")):
        return "(this is its binary version; the 'python' version is read)"
    found = sorted(path.name for path in folder.iterdir())[:3]
    return f"(found: {', '.join(found)})" if found else "(it is empty)"


def _read_npz_files(folder: Path) -> _Layout:
    """The six numpy files; read in threads, since unpacking leaves the interpreter free."""
    paths = [folder / name for name in (*NPZ_TRAIN, NPZ_TEST)]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is missing; {_remedy()}.")
    with ThreadPoolExecutor(max_workers=len(paths)) as pool:
        *train, (test, class_names) = pool.map(_read_npz, paths)
    joined_train = _Part(
        name=str(folder / "cifar100_train_*.npz"),
        images=np.concatenate([part.images for part, _ in train]),
        labels=np.concatenate([part.labels for part, _ in train]),
    )
    return joined_train, test, class_names


def _read_npz(path: Path) -> tuple[_Part, tuple[str, ...]]:
    """Keys: ``images`` (N, 32, 32, 3) uint8, ``labels`` (N,), ``class_names`` (100,)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
            class_names = tuple(str(name) for name in stored["class_names"])
    except PermissionError as error:
        raise describe_os_error(error, path) from error
    except Exception as error:  # A damaged zip raises almost anything, MemoryError included.
        raise UserError(_damaged(path, error)) from error
    channels_last = (*IMAGE_SHAPE[1:], IMAGE_SHAPE[0])
    _check_images(images, channels_last, path)
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return _Part(str(path), pixels, _checked_labels(labels, len(images), path)), class_names


def _read_pickles(folder: Path) -> _Layout:
    """The official folder: pickles ``train``, ``test`` and ``meta``."""

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{folder / name} is missing; {_remedy()}.") from error

    return _parse_pickles(read, folder)


def _read_archive(path: Path) -> _Layout:
    """The official archive, as downloaded; nothing is unpacked to the disk."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            files = {member.name: archive.extractfile(member) for member in archive}
            contents = {name: file.read() for name, file in files.items() if file is not None}
    except PermissionError as error:
        raise describe_os_error(error, path) from error
    except Exception as error:  # A damaged archive raises errors of tar, gzip and zlib.
        raise UserError(_damaged(path, error)) from error

    def read(name: str) -> bytes:
        try:
            return contents[f"{PYTHON_FOLDER}/{name}"]
        except KeyError as error:
            what = f"there is no {PYTHON_FOLDER}/{name} in it"
            raise UserError(_not_original(str(path), what)) from error

    return _parse_pickles(read, path / PYTHON_FOLDER)


def _parse_pickles(read: Callable[[str], bytes], folder: Path) -> _Layout:
    class_names = _parse_names(_unpickle(read("meta"), folder / "meta"), folder / "meta")
    train = _parse_part(_unpickle(read("train"), folder / "train"), folder / "train")
    test = _parse_part(_unpickle(read("test"), folder / "test"), folder / "test")
    return train, test, class_names


def _parse_part(content: dict[str, Any], path: Path) -> _Part:
    """Keys: ``data`` (N, 3072) uint8, all red, then all green, then all blue; ``fine_labels``."""
    missing = [key for key in ("data", "fine_labels") if key not in content]
    if missing:
        cifar10 = " (is this CIFAR-10?)" if "labels" in content else ""
        raise UserError(_not_original(str(path), f"it has no {missing[0]}{cifar10}"))
    images = _decoded(content["data"], path)
    _check_images(images, (math.prod(IMAGE_SHAPE),), path)
    pixels = np.ascontiguousarray(images).reshape(-1, *IMAGE_SHAPE)
    return _Part(str(path), pixels, _checked_labels(content["fine_labels"], len(images), path))


def _parse_names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = content.get("fine_label_names")
    if not isinstance(names, list):
        raise UserError(_not_original(str(path), "it has no fine_label_names"))
    return tuple(_text(name) for name in names)


def _check_images(images: Array, shape: tuple[int, ...], path: Path) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        what = f"its images are {images.dtype} {images.shape}, not uint8 (N, {wanted})"
        raise UserError(_not_original(str(path), what))


def _checked_labels(labels: object, size: int, path: Path) -> Array:
    """Labels as (size,) int64."""
    try:
        array = np.asarray(labels)
    except ValueError as error:  # A list of lists of different lengths.
        raise UserError(_damaged(path, error)) from error
    if array.shape != (size,) or array.dtype.kind not in "iu":
        what = f"its labels are {array.dtype} {array.shape}, not one whole number for each image"
        raise UserError(_not_original(str(path), what))
    wrong = array[(array < 0) | (array >= NUM_CLASSES)]
    if wrong.size:
        what = f"it holds the label {wrong[0]}, and only 0 to {NUM_CLASSES - 1} may stand there"
        raise UserError(_not_original(str(path), what))
    return array.astype(np.int64)


# Pickles: data that could run code, read so that it cannot.


class _PickledArray:
    """Stands for a numpy array, its type, and the functions that make them: it only keeps notes.

    Numpy itself would trust what the file says about memory; :func:`_decoded` checks it instead.
    """

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _BufferedArray(_PickledArray):
    """The same as protocol 5 writes it."""

    def __init__(self, raw: object, kind: object, shape: object, order: object) -> None:
        super().__init__()
        self.state = (1, shape, kind, order == "F", raw)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stands for ``_codecs.encode``: how Python 3 writes bytes with protocols 0 to 2.

    Raises:
        ValueError: it is asked for something else.
    """
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"bytes as {encoding!r}, which Python does not write")
    return text.encode("latin1")


# The same functions under the names of numpy 1 and numpy 2, the first's argument, the array type.
_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.numeric", "_frombuffer"): _BufferedArray,
    ("numpy._core.numeric", "_frombuffer"): _BufferedArray,
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledArray,
    ("_codecs", "encode"): _latin1_bytes,
}


class _DataUnpickler(pickle.Unpickler):
    """Rebuilds numbers, text, lists, dictionaries and notes of arrays, and runs nothing else."""

    def __init__(self, content: bytes, path: Path) -> None:
        # The official files were written by Python 2, whose text is bytes.
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """What arrays and bytes are made of; anything else is refused by name."""
        if (module, name) not in _STAND_INS:
            raise UserError(
                f"{self._path} asks for {module}.{name}, which no file of CIFAR-100 needs; it was "
                f"not run. Do not trust this copy, and {_remedy()}."
            )
        return _STAND_INS[module, name]


def _decoded(note: object, path: Path) -> Array:
    """The array of bytes that was noted; read-only."""
    try:
        _, shape, kind, fortran, raw = note.state  # type: ignore[attr-defined]
        if _text(kind.arguments[0]) != "u1":
            raise TypeError(f"its elements are {_text(kind.arguments[0])}, not u1")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
        raise UserError(_not_original(str(path), f"its data is no array: {error}")) from error


def _unpickle(content: bytes, path: Path) -> dict[str, Any]:
    try:
        loaded = _DataUnpickler(content, path).load()
    except UserError:
        raise
    except Exception as error:  # A damaged pickle raises almost anything, MemoryError included.
        raise UserError(_damaged(path, error)) from error
    if not isinstance(loaded, dict):
        raise UserError(_not_original(str(path), f"it holds a {type(loaded).__name__}"))
    return {_text(key): value for key, value in loaded.items()}


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


# Messages.


def _damaged(path: Path, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{path} is truncated or damaged ({reason}); {_remedy()}."


def _not_original(name: str, what: str) -> str:
    return f"{name} is not the original CIFAR-100 ({what}); {_remedy()}."


def _remedy() -> str:
    return (
        f"name the official {PYTHON_FOLDER} folder, {ARCHIVE}, the folder given to torchvision's "
        f"CIFAR100(folder, download=True), or the one with {NPZ_TRAIN[0]} to _4 and {NPZ_TEST} "
        f"(or set {FOLDER_VARIABLE}, or put it in {DEFAULT_FOLDER}), or get it with: "
        "python -m data_prep.cifar100 download"
    )


# Command line.


def show(imbalance: float = 100, split_seed: int = 0, folder: Path | None = None) -> None:
    """Print the class counts, the true imbalance and the shot groups of a split.

    Args:
        imbalance: wanted ratio of largest to smallest class, at least 1.
        split_seed: which split, 0 or more.
        folder: where CIFAR-100 is; else CDB_CIFAR100, else data/cifar100.
    """
    split = split_cifar100_lt(load_cifar100(folder), imbalance, split_seed)
    parts = (split.train_counts, split.difficulty_counts, split.test_counts)
    rows = [*zip(*parts, strict=True), tuple(sum(part) for part in parts)]
    groups = shot_group_names(split.train_counts)
    print(f"{'class':<16}{'train':>7}{'difficulty':>12}{'test':>7}  shot group")
    for name, row, group in zip([*split.class_names, "all"], rows, [*groups, ""], strict=True):
        train, difficulty, test = row
        print(f"{name:<16}{train:>7}{difficulty:>12}{test:>7}  {group}".rstrip())
    sizes = ", ".join(f"{name} {groups.count(name)}" for name in ("many", "medium", "few"))
    print(f"imbalance {split.imbalance:g} (wanted {imbalance:g}), split seed {split_seed}")
    print(f"shot groups {sizes}")
    print(f"digest {split.digest}")


def check(folder: Path | None = None) -> None:
    """Verify a copy of CIFAR-100: its counts and every pixel and label.

    Args:
        folder: where CIFAR-100 is; else CDB_CIFAR100, else data/cifar100.
    """
    data = load_cifar100(folder)
    print(
        f"{default_folder() if folder is None else folder}: the original CIFAR-100, "
        f"{len(data.train_labels)} training and {len(data.test_labels)} test images "
        f"of {len(data.class_names)} classes"
    )


def download(folder: Path | None = None) -> None:
    """Let torchvision download CIFAR-100 (161 MiB) into a folder, then verify it.

    Args:
        folder: where to put it; else CDB_CIFAR100, else data/cifar100.
    """
    from torchvision.datasets import CIFAR100

    target = default_folder() if folder is None else folder
    try:
        target.mkdir(parents=True, exist_ok=True)
        CIFAR100(str(target), download=True)
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"CIFAR-100 could not be downloaded to {target} ({reason}); check the connection and "
            f"the folder, or put {ARCHIVE} there by hand."
        ) from error
    check(target)


def main() -> None:
    """Run the ``show``, the ``check`` or the ``download`` command."""
    tyro.extras.subcommand_cli_from_dict(
        {"show": show, "check": check, "download": download}, prog="data_prep.cifar100"
    )


if __name__ == "__main__":
    run_main(main)
