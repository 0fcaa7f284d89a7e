"""MNIST-LT: the 4s and 9s of MNIST, and the long-tailed split of the paper (Sec. 4.1.1).

Shapes: N samples (13,782 digits are shipped: 11,791 of MNIST's training part, 1,991 of its test
part), C = 2 classes: class 0 is digit 4 (head), class 1 is digit 9 (tail).

    python -m data_prep.mnist show --imbalance 99 --split-seed 0
    python -m data_prep.mnist build --source MNIST/raw --out mnist_4_9.npz
"""

import gzip
import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from torch import Tensor

from common.errors import UserError, describe_os_error, run_main
from common.files import write_atomically
from data_prep.split import (
    index_digest,
    joined,
    permuted_class,
    shot_group_names,
    split_generator,
)

SHIPPED_FILE = Path(__file__).with_name("mnist_4_9.npz")
CLASS_DIGITS = (4, 9)
CLASS_NAMES = ("4", "9")
TRAIN_SIZE = 5000
DIFFICULTY_PER_CLASS = 500
TEST_PER_CLASS = 800

ARRAY_NAMES = (
    "train_images", "train_labels", "train_index", "test_images", "test_labels", "test_index",
)  # fmt: skip
# sha256 over names, types, shapes and values of the six arrays, see content_digest.
CONTENT_SHA256 = "3ebc19de0dae2c4b1dcb002d695ae58f403483c0fc12267555514c4550da3638"

# The original distribution: file name, and md5 of the unpacked file (header and data).
IDX_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
IDX_MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}
# The names Keras gives the same four arrays in its mnist.npz.
_KERAS_NAMES = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
_IDX_UNSIGNED_BYTE = 0x08

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Digits:
    """All 4s and 9s of MNIST, in their original order.

    Attributes:
        train_images: (11791, 28, 28) uint8, 0 = paper, 255 = ink.
        train_labels: (11791,) int64, 0 = digit 4, 1 = digit 9.
        test_images: (1991, 28, 28) uint8.
        test_labels: (1991,) int64.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True, eq=False)
class MnistSplit:
    """One long-tailed split: positions in the arrays of :class:`Digits`, each part ascending.

    Attributes:
        train_index: (N,) int64, positions in ``train_images``.
        difficulty_index: (1000,) int64, positions in ``train_images``, disjoint from
            ``train_index``: the images the class difficulty is measured on.
        test_index: (1600,) int64, positions in ``test_images``.
        train_counts: images per class, head first.
        difficulty_counts: the same for the difficulty part.
        test_counts: the same for the test part.
        class_names: the digits, head first.
    """

    train_index: Tensor
    difficulty_index: Tensor
    test_index: Tensor
    train_counts: tuple[int, int]
    difficulty_counts: tuple[int, int]
    test_counts: tuple[int, int]
    class_names: tuple[str, str] = CLASS_NAMES

    @property
    def imbalance(self) -> float:
        """Largest over smallest number of training images per class, >= 1."""
        return max(self.train_counts) / min(self.train_counts)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the three index lists: equal for equal splits, on every machine."""
        names = ("train_index", "difficulty_index", "test_index")
        return index_digest({name: getattr(self, name) for name in names})


def load_digits(path: Path | None = None) -> Digits:
    """Read the shipped 4s and 9s, or another file with the same content.

    Args:
        path: a file made by the ``build`` command; None is the shipped file.

    Raises:
        UserError: the file is missing, truncated, damaged, or has a label that is not 4 or 9.
    """
    path = SHIPPED_FILE if path is None else path
    arrays = _read_arrays(path)
    _check_content(arrays, path)
    return Digits(
        train_images=torch.from_numpy(arrays["train_images"]),
        train_labels=_class_labels(arrays["train_labels"]),
        test_images=torch.from_numpy(arrays["test_images"]),
        test_labels=_class_labels(arrays["test_labels"]),
    )


def split_mnist_lt(digits: Digits, imbalance: float, seed: int) -> MnistSplit:
    """Draw the long-tailed training part, the difficulty part and the test part (Sec. 4.1.1).

    The head (digit 4) gets the share imbalance / (imbalance + 1) of 5000 training images: 4950/50
    at 99, 4975/25 at 199. One permutation per class is drawn and cut into slices, so that runs at
    different imbalance are paired: a seed has the same difficulty and test images at every
    imbalance, and the smaller tail is a subset of the larger.

    Args:
        digits: what :func:`load_digits` returns.
        imbalance: wanted head / tail ratio, >= 1.
        seed: >= 0; the split depends on nothing else.

    Raises:
        UserError: imbalance < 1 or so large that the tail is empty, seed < 0, too few images.
    """
    train_sizes = _training_sizes(imbalance)
    generator = split_generator(seed)
    train, difficulty, test = [], [], []
    for label, train_size in enumerate(train_sizes):
        order = permuted_class(digits.train_labels, label, generator)
        _check_enough(order, DIFFICULTY_PER_CLASS + train_size, label, "training")
        difficulty.append(order[:DIFFICULTY_PER_CLASS])
        train.append(order[DIFFICULTY_PER_CLASS : DIFFICULTY_PER_CLASS + train_size])
        order = permuted_class(digits.test_labels, label, generator)
        _check_enough(order, TEST_PER_CLASS, label, "test")
        test.append(order[:TEST_PER_CLASS])
    return MnistSplit(
        train_index=joined(train),
        difficulty_index=joined(difficulty),
        test_index=joined(test),
        train_counts=train_sizes,
        difficulty_counts=(DIFFICULTY_PER_CLASS, DIFFICULTY_PER_CLASS),
        test_counts=(TEST_PER_CLASS, TEST_PER_CLASS),
    )


def content_digest(arrays: Mapping[str, Array]) -> str:
    """sha256 (hex) over name, type, shape and values of the six arrays, in a fixed order.

    The values are hashed, not the file: another zlib may pack the same arrays into other bytes.
    """
    digest = hashlib.sha256()
    for name in ARRAY_NAMES:
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _training_sizes(imbalance: float) -> tuple[int, int]:
    """Training images of head and tail; they add up to 5000."""
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise UserError(
            f"--imbalance {imbalance} is not a ratio of largest to smallest class; "
            "give a number of at least 1, for example 99."
        )
    tail = round(TRAIN_SIZE / (imbalance + 1))
    if tail == 0:
        raise UserError(
            f"--imbalance {imbalance:g} leaves class {CLASS_NAMES[1]} with no training image "
            f"out of {TRAIN_SIZE}; give at most {TRAIN_SIZE - 1}."
        )
    return TRAIN_SIZE - tail, tail


def _check_enough(order: Tensor, wanted: int, label: int, part: str) -> None:
    if len(order) < wanted:
        raise UserError(
            f"Class {CLASS_NAMES[label]} has {len(order)} {part} images where the split needs "
            f"{wanted}; choose an --imbalance nearer to 1 or use the shipped {SHIPPED_FILE.name}."
        )


def _class_labels(digits: Array) -> Tensor:
    """Digit 4 -> class 0, digit 9 -> class 1; (N,) int64."""
    return torch.from_numpy((digits == CLASS_DIGITS[1]).astype(np.int64))


def _read_arrays(path: Path) -> dict[str, Array]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "is missing"
        raise UserError(f"{path} {what}; {_remedy(path)}.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in ARRAY_NAMES}
    except PermissionError as error:
        raise describe_os_error(error, path) from error
    except Exception as error:  # A damaged zip raises almost anything, MemoryError included.
        raise UserError(
            f"{path} is truncated or damaged ({_reason(error)}); {_remedy(path)}."
        ) from error


def _check_content(arrays: Mapping[str, Array], path: Path) -> None:
    for name in ("train_labels", "test_labels"):
        wrong = arrays[name][~np.isin(arrays[name], CLASS_DIGITS)]
        if wrong.size:
            raise UserError(
                f"{path} holds the label {wrong.flat[0]} in {name}, where only 4 and 9 may stand; "
                f"{_remedy(path)}."
            )
    found = content_digest(arrays)
    if found != CONTENT_SHA256:
        raise UserError(
            f"{path} does not hold the 4s and 9s of MNIST (sha256 {found[:12]}..., expected "
            f"{CONTENT_SHA256[:12]}...); {_remedy(path)}."
        )


def _remedy(path: Path) -> str:
    build = "python -m data_prep.mnist build --source <your MNIST> --out"
    if path == SHIPPED_FILE:
        restore = f"restore it with: git checkout -- data_prep/{SHIPPED_FILE.name}"
        return f"{restore}, or rebuild it with: {build} {path}"
    # Never the named file as the place to write to: it may be one of quite another kind.
    return f"name a file that was made with: {build} <a new file>.npz"


def _reason(error: Exception) -> str:
    """The first line of an exception, or its kind when it says nothing."""
    if "allow_pickle" in str(error):
        # Numpy's word for a file of any other kind, with advice that is dangerous here.
        return "it is no .npz file"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# Rebuilding the shipped file from the original MNIST.


def build_subset(source: Path, out: Path, md5: Mapping[str, str] = IDX_MD5) -> dict[str, Array]:
    """Take the 4s and 9s out of an original MNIST and write them to ``out``.

    Args:
        source: a folder with the four IDX files (plain or .gz, also torchvision's ``MNIST/raw``
            below it), or an ``mnist.npz``.
        out: the file to write; written beside, then renamed, so that it is never half-written.
        md5: expected md5 of the four unpacked IDX files.

    Returns:
        The six arrays written.

    Raises:
        UserError: the source is missing or not the original MNIST, or ``out`` cannot be written.
    """
    arrays = select_digits(read_mnist(source, md5))
    write_arrays(arrays, out)
    return arrays


def read_mnist(source: Path, md5: Mapping[str, str] = IDX_MD5) -> dict[str, Bytes]:
    """Read and verify the four arrays of MNIST: images (N, 28, 28), labels (N,), all uint8.

    Raises:
        UserError: naming the file that is missing, damaged, or not the original.
    """
    if source.is_dir():
        folder = _idx_folder(source)
        unpacked = {name: _read_idx_file(folder, file) for name, file in IDX_FILES.items()}
    else:
        unpacked = _read_npz_as_idx(source)
    for name, content in unpacked.items():
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5[name]:
            raise UserError(
                f"{source}: {IDX_FILES[name]} is not the original MNIST file (md5 {found}, "
                f"expected {md5[name]}); get the original file again and repeat the command."
            )
    return {name: parse_idx(content) for name, content in unpacked.items()}


def parse_idx(content: bytes) -> Bytes:
    """Decode an unpacked IDX file of unsigned bytes (two zeros, type, rank, sizes, data)."""
    rank = content[3]
    shape = struct.unpack_from(f">{rank}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def format_idx(array: Array) -> bytes:
    """Encode an array as an unpacked IDX file of unsigned bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _IDX_UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def select_digits(mnist: Mapping[str, Bytes]) -> dict[str, Array]:
    """Keep the 4s and 9s in their order; ``*_index`` says where each stood in the original part."""
    arrays: dict[str, Array] = {}
    for part in ("train", "test"):
        labels = mnist[f"{part}_labels"]
        index = np.flatnonzero(np.isin(labels, CLASS_DIGITS))
        arrays[f"{part}_images"] = mnist[f"{part}_images"][index]
        arrays[f"{part}_labels"] = labels[index]
        arrays[f"{part}_index"] = index.astype("<i4")
    return arrays


def write_arrays(arrays: Mapping[str, Array], out: Path) -> None:
    """Write the six arrays as a compressed npz: the same bytes whenever and wherever it is run.

    (The same zlib packs the same bytes; another zlib may pack the same content differently.)

    Raises:
        UserError: ``out`` cannot be written; what stood there before is untouched.
    """
    write_atomically(out, _pack(arrays))


def _pack(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ARRAY_NAMES:
            member = io.BytesIO()
            np.lib.format.write_array(member, arrays[name], version=(1, 0), allow_pickle=False)
            # Fixed time, system and rights: the bytes depend on the arrays alone.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return buffer.getvalue()


def _idx_folder(source: Path) -> Path:
    """``source`` itself, or the folder below it where torchvision keeps the IDX files."""
    candidates = (source, source / "raw", source / "MNIST" / "raw")
    first = IDX_FILES["train_images"]
    for folder in candidates:
        if (folder / first).is_file() or (folder / f"{first}.gz").is_file():
            return folder
    raise UserError(
        f"--source {source} holds no {first} (plain or .gz, also looked for in raw/ and "
        "MNIST/raw/); name the folder with the four IDX files of MNIST or an mnist.npz."
    )


def _read_idx_file(folder: Path, name: str) -> bytes:
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else packed
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path is packed else content
    except FileNotFoundError as error:
        raise UserError(
            f"{plain} is missing (plain or .gz); put all four IDX files of MNIST in one folder."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} is truncated or damaged ({_reason(error)}); get the original file again."
        ) from error
    except OSError as error:
        raise describe_os_error(error, path) from error


def _read_npz_as_idx(source: Path) -> dict[str, bytes]:
    """The four arrays of an mnist.npz, encoded as the IDX files they came from."""
    if not source.is_file():
        raise UserError(
            f"--source {source} does not exist; name the folder with the four IDX files of MNIST "
            "or an mnist.npz."
        )
    try:
        with np.load(source, allow_pickle=False) as stored:
            keras = "x_train" in stored.files
            names = _KERAS_NAMES if keras else {name: name for name in IDX_FILES}
            return {name: format_idx(stored[key]) for name, key in names.items()}
    except PermissionError as error:
        raise describe_os_error(error, source) from error
    except Exception as error:  # A damaged zip raises almost anything, MemoryError included.
        raise UserError(
            f"--source {source} is not an mnist.npz with {', '.join(IDX_FILES)} "
            f"({_reason(error)}); name a whole one or the folder with the four IDX files."
        ) from error


# Command line.


def show(imbalance: float = 99, split_seed: int = 0, file: Path | None = None) -> None:
    """Print the class counts, the true imbalance and the shot groups of a split.

    Args:
        imbalance: head over tail training images, at least 1.
        split_seed: which split, 0 or more.
        file: a rebuilt file to read instead of the shipped one.
    """
    split = split_mnist_lt(load_digits(file), imbalance, split_seed)
    parts = (split.train_counts, split.difficulty_counts, split.test_counts)
    rows = [*zip(*parts, strict=True), tuple(sum(part) for part in parts)]
    groups = [*shot_group_names(split.train_counts), ""]
    print(f"{'class':<7}{'train':>7}{'difficulty':>12}{'test':>7}  shot group")
    for name, row, group in zip([*split.class_names, "all"], rows, groups, strict=True):
        train, difficulty, test = row
        print(f"{name:<7}{train:>7}{difficulty:>12}{test:>7}  {group}".rstrip())
    print(f"imbalance {split.imbalance:g} (wanted {imbalance:g}), split seed {split_seed}")
    print(f"digest {split.digest}")


def build(source: Path, out: Path) -> None:
    """Rebuild the file of 4s and 9s from your own copy of MNIST; nothing is downloaded.

    Args:
        source: folder with the four IDX files (plain or .gz; also torchvision's), or an mnist.npz.
        out: the file to write.
    """
    arrays = build_subset(source, out)
    print(
        f"wrote {out}: {len(arrays['train_index'])} training and {len(arrays['test_index'])} test "
        f"images, content sha256 {content_digest(arrays)}"
    )


def main() -> None:
    """Run the ``show`` or the ``build`` command."""
    tyro.extras.subcommand_cli_from_dict({"show": show, "build": build}, prog="data_prep.mnist")


if __name__ == "__main__":
    run_main(main)
