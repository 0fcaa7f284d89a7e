import errno
import hashlib
import io
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError, run_main
from common.shots import shot_groups
from common.streams import stream_seed
from data_prep import cifar100
from data_prep.cifar100 import (
    CLASS_NAMES,
    Cifar100,
    Content,
    load_cifar100,
    split_cifar100_lt,
    training_sizes,
)

ROOT = Path(cifar100.__file__).parents[1]
TRAIN_PER_CLASS = 3
TEST_PER_CLASS = 2


# A small data set of the same form: 100 classes, 3 training and 2 test images of each.


def small_part(per_class: int, seed: int) -> tuple[cifar100.Bytes, cifar100.Array]:
    """Images (N, 32, 32, 3) and labels (N,) in random order; two images are equal, as in CIFAR."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(100), per_class))
    images = generator.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    first, second = np.flatnonzero(labels == 7)[:2]
    images[second] = images[first]
    return images, labels


SMALL_TRAIN = small_part(TRAIN_PER_CLASS, seed=0)
SMALL_TEST = small_part(TEST_PER_CLASS, seed=1)


def literal_sorted(part: tuple[cifar100.Bytes, cifar100.Array]) -> list[tuple[int, bytes, bytes]]:
    """(label, sha256, pixels) of each image, sorted, by plain Python; pixels as (3, 32, 32)."""
    images, labels = part
    pixels = [image.transpose(2, 0, 1).tobytes() for image in images]
    return sorted(
        (int(label), hashlib.sha256(image).digest(), image)
        for label, image in zip(labels, pixels, strict=True)
    )


def literal_digest(part: tuple[cifar100.Bytes, cifar100.Array]) -> str:
    text = b"".join(bytes([label]) + digest for label, digest, _ in literal_sorted(part))
    return hashlib.sha256(text).hexdigest()


SMALL = Content(
    train_per_class=TRAIN_PER_CLASS,
    test_per_class=TEST_PER_CLASS,
    train_sha256=literal_digest(SMALL_TRAIN),
    test_sha256=literal_digest(SMALL_TEST),
)


def write_npz(path: Path, images: cifar100.Array, labels: cifar100.Array, **others: Any) -> None:
    names = {"class_names": np.array(CLASS_NAMES), **others}
    np.savez(path, images=images, labels=labels.astype(np.uint8), **names)


def npz_files(base: Path) -> Path:
    base.mkdir(exist_ok=True)
    parts = zip(np.array_split(SMALL_TRAIN[0], 5), np.array_split(SMALL_TRAIN[1], 5), strict=True)
    for part, (images, labels) in enumerate(parts):
        write_npz(base / f"cifar100_train_{part}.npz", images, labels)
    write_npz(base / "cifar100_test.npz", *SMALL_TEST)
    return base


def python2_pickle(value: Any) -> bytes:
    """``value`` as Python 2 and its numpy pickled it (protocol 2), like the official files."""
    return b"\x80\x02" + pickled(value) + b"."


def pickled(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(pickled, value)) + b"t"
        case list():
            return b"](" + b"".join(map(pickled, value)) + b"e"
        case dict():
            return b"}(" + b"".join(pickled(k) + pickled(v) for k, v in value.items()) + b"u"
        case np.dtype():
            made = b"cnumpy\ndtype\n" + pickled((value.str[1:].encode(), 0, 1)) + b"R"
            return made + pickled((3, b"|", None, None, None, -1, -1, 0)) + b"b"
        case np.ndarray():
            made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            made += pickled((0,)) + pickled(b"b") + b"tR"
            fortran = not value.flags.c_contiguous
            state = (1, value.shape, value.dtype, fortran, value.tobytes("F" if fortran else "C"))
            return made + pickled(state) + b"b"
    raise TypeError(type(value))


def part_content(part: tuple[cifar100.Bytes, cifar100.Array]) -> dict[bytes, Any]:
    images, labels = part
    return {
        b"filenames": [b"a.png"] * len(labels),
        b"batch_label": b"training batch 1 of 1",
        b"fine_labels": [int(label) for label in labels],
        b"coarse_labels": [0] * len(labels),
        b"data": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(labels), 3072),
    }


META = {b"fine_label_names": [name.encode() for name in CLASS_NAMES], b"coarse_label_names": []}
OFFICIAL = {
    "train": python2_pickle(part_content(SMALL_TRAIN)),
    "test": python2_pickle(part_content(SMALL_TEST)),
    "meta": python2_pickle(META),
}


def official(base: Path) -> Path:
    base.mkdir(exist_ok=True)
    for name, content in OFFICIAL.items():
        (base / name).write_bytes(content)
    return base


def parent(base: Path) -> Path:
    base.mkdir(exist_ok=True)
    official(base / "cifar-100-python")
    return base


def archive(base: Path) -> Path:
    path = parent(base) / "cifar-100-python.tar.gz"
    with tarfile.open(path, "w:gz") as opened:
        opened.add(base / "cifar-100-python", arcname="cifar-100-python")
    shutil.rmtree(base / "cifar-100-python")
    return path


def only_archive(base: Path) -> Path:
    return archive(base).parent


def torchvision_root(base: Path) -> Path:
    return parent(only_archive(base))


LAYOUTS = [npz_files, official, parent, archive, only_archive, torchvision_root]


@pytest.fixture(scope="module")
def labelled() -> Cifar100:
    """As many images as CIFAR-100 has, all black: the split looks at labels only."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    return Cifar100(
        train_images=image.expand(50000, 3, 32, 32),
        train_labels=torch.arange(100).repeat_interleave(500),
        test_images=image.expand(10000, 3, 32, 32),
        test_labels=torch.arange(100).repeat_interleave(100),
    )


# The layouts.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_arrays_in_the_same_order(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    data = load_cifar100(layout(tmp_path / "source"), SMALL)
    for images, labels, part in (
        (data.train_images, data.train_labels, SMALL_TRAIN),
        (data.test_images, data.test_labels, SMALL_TEST),
    ):
        expected = literal_sorted(part)
        assert labels.tolist() == [label for label, _, _ in expected]
        assert images.shape == (len(expected), 3, 32, 32)
        assert images.numpy().tobytes() == b"".join(pixels for _, _, pixels in expected)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.is_contiguous()
    assert data.class_names == CLASS_NAMES


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_writes_nothing(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    source = layout(tmp_path / "source")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load_cifar100(source, SMALL)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_the_stand_ins_are_what_pythons_own_reader_takes_for_official_files(name: str) -> None:
    """Read as torchvision and the data set's home page read the official files."""
    expected = {"train": part_content(SMALL_TRAIN), "test": part_content(SMALL_TEST), "meta": META}
    found = pickle.loads(OFFICIAL[name], encoding="bytes")
    assert list(found) == list(expected[name])
    for key, value in expected[name].items():
        assert np.array_equal(found[key], value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_official_files_repickled_by_python_3_and_this_numpy_are_read(
    tmp_path: Path, protocol: int
) -> None:
    folder = official(tmp_path / "source")
    for name, content in OFFICIAL.items():
        content = pickle.loads(content, encoding="bytes")
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    assert len(load_cifar100(folder, SMALL).train_labels) == 300


def test_images_stored_column_by_column_are_read(tmp_path: Path) -> None:
    folder = official(tmp_path / "source")
    content = part_content(SMALL_TRAIN)
    content[b"data"] = np.asfortranarray(content[b"data"])
    (folder / "train").write_bytes(python2_pickle(content))
    load_cifar100(folder, SMALL)


def test_any_order_of_the_images_gives_the_same_order_and_digest() -> None:
    images, labels = small_part(2, seed=5)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    first, first_digest = cifar100.canonical_order(images, labels)
    second, second_digest = cifar100.canonical_order(images[shuffled], labels[shuffled])
    assert first_digest == second_digest
    assert np.array_equal(images[first], images[shuffled][second])
    assert np.array_equal(labels[first], labels[shuffled][second])


def test_exchanging_the_labels_of_two_images_changes_the_digest() -> None:
    images, labels = small_part(2, seed=5)
    exchanged = labels.copy()
    exchanged[[0, 1]] = labels[[1, 0]]
    assert labels[0] != labels[1]
    assert (
        cifar100.canonical_order(images, labels)[1]
        != (cifar100.canonical_order(images, exchanged)[1])
    )


def test_the_class_names_are_the_hundred_official_ones_in_their_alphabetical_order() -> None:
    assert len(set(CLASS_NAMES)) == 100
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES)
    assert (CLASS_NAMES[0], CLASS_NAMES[53], CLASS_NAMES[99]) == ("apple", "orange", "worm")


# Where it is looked for.


def test_the_default_folder_is_data_cifar100_unless_the_variable_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDB_CIFAR100", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^data/cifar100 is missing"):
        load_cifar100(content=SMALL)
    (tmp_path / "data").mkdir()
    parent(tmp_path / "data" / "cifar100")
    assert len(load_cifar100(content=SMALL).train_labels) == 300
    monkeypatch.setenv("CDB_CIFAR100", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=rf"^{tmp_path}/elsewhere is missing"):
        load_cifar100(content=SMALL)
    npz_files(tmp_path / "elsewhere")
    assert len(load_cifar100(content=SMALL).train_labels) == 300


def test_a_missing_folder_is_refused_with_every_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_cifar100(tmp_path / "nowhere")
    for words in (
        f"{tmp_path}/nowhere is missing",
        "cifar-100-python.tar.gz",
        "CIFAR100(folder, download=True)",
        "cifar100_train_0.npz",
        "CDB_CIFAR100",
        "data/cifar100",
        "python -m data_prep.cifar100 download",
    ):
        assert words in str(refused.value)
    assert "\n" not in str(refused.value)


# Refusals: each names the file.


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ("cifar-10-batches-py/data_batch_1", "this is CIFAR-10"),
        ("data_batch_1", "this is CIFAR-10"),
        ("cifar-100-binary/train.bin", "this is its binary version; the 'python' version"),
        ("notes.txt", r"found: notes\.txt"),
        (None, "it is empty"),
    ],
)
def test_a_folder_with_something_else_is_refused_by_what_it_holds(
    tmp_path: Path, held: str | None, words: str
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    if held:
        (folder / held).parent.mkdir(exist_ok=True)
        (folder / held).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{folder} holds no CIFAR-100 \({words}"):
        load_cifar100(folder, SMALL)


@pytest.mark.parametrize("name", [*cifar100.NPZ_TRAIN, cifar100.NPZ_TEST])
def test_a_missing_numpy_file_is_named(tmp_path: Path, name: str) -> None:
    path = npz_files(tmp_path / "source") / name
    path.unlink()
    with pytest.raises(UserError, match=rf"{path} is missing; name the official"):
        load_cifar100(path.parent, SMALL)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_missing_official_file_is_named(tmp_path: Path, name: str) -> None:
    path = official(tmp_path / "source") / name
    path.unlink()
    with pytest.raises(UserError, match=rf"{path} is missing; name the official"):
        load_cifar100(path.parent, SMALL)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (npz_files, "cifar100_train_3.npz"),
        (npz_files, "cifar100_test.npz"),
        (official, "train"),
        (official, "meta"),
        (only_archive, "cifar-100-python.tar.gz"),
    ],
)
def test_a_truncated_file_is_named(
    tmp_path: Path, layout: Callable[[Path], Path], name: str, kept: float
) -> None:
    path = layout(tmp_path / "source") / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match=rf"{path} is truncated or damaged \(.+\); name the"):
        load_cifar100(path.parent, SMALL)


@pytest.mark.parametrize(
    ("layout", "name"), [(npz_files, "cifar100_train_0.npz"), (official, "train")]
)
def test_an_unreadable_file_is_named(
    tmp_path: Path, layout: Callable[[Path], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout(tmp_path / "source") / name

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(np, "load", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=rf"{path} cannot be .* read \(Permission denied\)"):
        load_cifar100(path.parent, SMALL)


def test_a_changed_byte_in_the_archive_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "source")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}\S* is "):
        load_cifar100(path, SMALL)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = npz_files(tmp_path / "source") / "cifar100_test.npz"
    with pytest.raises(UserError, match=rf"{path} is truncated or damaged \(not a gzip file\)"):
        load_cifar100(path, SMALL)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"), io.BytesIO())
    with pytest.raises(UserError, match=r"\(there is no cifar-100-python/meta in it\)"):
        load_cifar100(path, SMALL)


@pytest.mark.parametrize("layout", [npz_files, official])
@pytest.mark.parametrize("part", ["train", "test"])
def test_one_altered_pixel_is_refused_by_the_part_it_is_in(
    tmp_path: Path, layout: Callable[[Path], Path], part: str
) -> None:
    folder = layout(tmp_path / "source")
    images, labels = SMALL_TRAIN if part == "train" else SMALL_TEST
    images = images.copy()
    images[17, 5, 6, 1] ^= 1
    if layout is official:
        (folder / part).write_bytes(python2_pickle(part_content((images, labels))))
    elif part == "test":
        write_npz(folder / "cifar100_test.npz", images, labels)
    else:
        write_npz(folder / "cifar100_train_0.npz", images[:60], labels[:60])
    sentence = rf"{folder}/\S*{part}\S* is not the original CIFAR-100 \(content sha256 \w+..., exp"
    with pytest.raises(UserError, match=sentence):
        load_cifar100(folder, SMALL)


def test_the_stand_in_is_not_taken_for_the_original(tmp_path: Path) -> None:
    sentence = r"train is not the original .*\(3 images of class 0 where 500 belong\)"
    with pytest.raises(UserError, match=sentence):
        load_cifar100(official(tmp_path / "source"))


def test_a_class_with_an_image_too_many_is_named(tmp_path: Path) -> None:
    folder = official(tmp_path / "source")
    content = part_content(SMALL_TEST)
    content[b"fine_labels"][content[b"fine_labels"].index(99)] = 4
    (folder / "test").write_bytes(python2_pickle(content))
    with pytest.raises(UserError, match=r"test is not .*\(3 images of class 4 where 2 belong\)"):
        load_cifar100(folder, SMALL)


@pytest.mark.parametrize("label", [100, -1])
def test_a_label_out_of_range_is_named(tmp_path: Path, label: int) -> None:
    folder = official(tmp_path / "source")
    content = part_content(SMALL_TRAIN)
    content[b"fine_labels"][5] = label
    (folder / "train").write_bytes(python2_pickle(content))
    with pytest.raises(UserError, match=rf"{folder}/train .*holds the label {label}, and only 0"):
        load_cifar100(folder, SMALL)


def test_a_label_out_of_range_in_a_numpy_file_is_named(tmp_path: Path) -> None:
    folder = npz_files(tmp_path / "source")
    labels = SMALL_TEST[1].copy()
    labels[0] = 200
    write_npz(folder / "cifar100_test.npz", SMALL_TEST[0], labels)
    with pytest.raises(UserError, match=r"cifar100_test.npz .*holds the label 200, and only 0"):
        load_cifar100(folder, SMALL)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (SMALL_TEST[0].transpose(0, 3, 1, 2), r"its images are uint8 \(200, 3, 32, 32\)"),
        (SMALL_TEST[0].astype(np.float32), r"its images are float32 \(200, 32, 32, 3\)"),
        (SMALL_TEST[0][:199], r"its labels are uint8 \(200,\), not one whole number for each"),
        (np.uint8(3), r"its images are uint8 \(\)"),
    ],
)
def test_images_of_another_form_are_refused(
    tmp_path: Path, images: cifar100.Array, words: str
) -> None:
    folder = npz_files(tmp_path / "source")
    write_npz(folder / "cifar100_test.npz", images, SMALL_TEST[1])
    with pytest.raises(UserError, match=rf"{folder}/cifar100_test.npz is not .*{words}"):
        load_cifar100(folder, SMALL)


@pytest.mark.parametrize("layout", [npz_files, official])
def test_classes_in_another_order_are_refused(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    names = CLASS_NAMES[::-1]
    folder = layout(tmp_path / "source")
    if layout is official:
        content = {b"fine_label_names": [name.encode() for name in names]}
        (folder / "meta").write_bytes(python2_pickle(content))
    else:
        write_npz(folder / "cifar100_test.npz", *SMALL_TEST, class_names=np.array(names))
    with pytest.raises(UserError, match=rf"{folder} is not .*\(its class names differ\)"):
        load_cifar100(folder, SMALL)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train", {b"data": b"", b"labels": [3]}, r"it has no fine_labels \(is this CIFAR-10\?\)"),
        ("train", {b"fine_labels": []}, "it has no data"),
        ("train", {b"data": b"pixels", b"fine_labels": []}, "its data is no array: "),
        ("train", {b"data": np.zeros((2, 3072), np.int8), b"fine_labels": [0, 0]}, "are i1, not"),
        ("train", {b"data": np.zeros((2, 99), np.uint8), b"fine_labels": [0, 0]}, r"uint8 \(2, 99"),
        ("train", [1], "it holds a list"),
        ("test", {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0]}, r"int64 \(1,\)"),
        ("test", {b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [b"x"]}, r"\|S1 \(1,\)"),
        ("test", {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [[0], 1]}, "damaged"),
        ("meta", {b"label_names": [b"cat"]}, "it has no fine_label_names"),
    ],
)
def test_a_pickle_of_something_else_is_refused(
    tmp_path: Path, name: str, content: Any, words: str
) -> None:
    folder = official(tmp_path / "source")
    (folder / name).write_bytes(python2_pickle(content))
    with pytest.raises(UserError, match=rf"{folder}/{name} is .*{words}"):
        load_cifar100(folder, SMALL)


# Pickles that would run code.


class Harmful:
    """Unpickled by Python's own reader it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, name: str, protocol: int
) -> None:
    folder = official(tmp_path / "source")
    harmful = pickle.dumps({"data": Harmful(tmp_path / "harm")}, protocol)
    (folder / name).write_bytes(harmful)
    with pytest.raises(UserError, match=rf"{folder}/{name} asks for posix\.mkdir, .*not run"):
        load_cifar100(folder, SMALL)
    assert not (tmp_path / "harm").exists()
    pickle.loads(harmful)
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "named", [b"builtins\neval", b"numpy\nload", b"numpy\nndarray.tofile", b"os\nsystem"]
)
def test_nothing_else_can_be_reached_through_a_pickle(tmp_path: Path, named: bytes) -> None:
    folder = official(tmp_path / "source")
    (folder / "meta").write_bytes(b"\x80\x04c" + named + b"\n.")
    with pytest.raises(UserError, match=r"meta asks for .*which no file of CIFAR-100 needs"):
        load_cifar100(folder, SMALL)


def test_bytes_of_another_encoding_than_python_writes_are_refused(tmp_path: Path) -> None:
    folder = official(tmp_path / "source")
    asked = b"\x80\x02c_codecs\nencode\n(X\x01\0\0\0aX\x05\0\0\0rot13tR."
    (folder / "meta").write_bytes(asked)
    with pytest.raises(UserError, match=r"meta is truncated or damaged \(bytes as 'rot13'"):
        load_cifar100(folder, SMALL)


@pytest.mark.parametrize(
    "state", [(1, (10**9, 3072)), (1, (-5, 3072)), (1, b"x"), (1, (1, 2**70)), (2,)]
)
def test_an_array_that_lies_about_its_size_is_refused(
    tmp_path: Path, state: tuple[Any, ...]
) -> None:
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\ntR"
    kind = b"cnumpy\ndtype\n" + pickled((b"u1",)) + b"R"
    fields = [pickle.dumps(field, protocol=3)[2:-1] for field in state]
    lie = made + b"(" + b"".join(fields) + kind + pickled(False) + pickled(b"12") + b"tb"
    content = b"\x80\x02}(" + pickled(b"data") + lie + pickled(b"fine_labels") + pickled([0])
    folder = official(tmp_path / "source")
    (folder / "train").write_bytes(content + b"u.")
    with pytest.raises(UserError, match=rf"{folder}/train is not .*its data is no array"):
        load_cifar100(folder, SMALL)


# The sizes of the classes.


@pytest.mark.parametrize(
    ("imbalance", "total", "smallest", "groups"),
    [
        (10, 17614, 45, (65, 35, 0)),
        (20, 14315, 22, (50, 50, 0)),
        (50, 11349, 9, (38, 40, 22)),
        (100, 9754, 4, (33, 33, 34)),
        (200, 8548, 2, (28, 30, 42)),
    ],
)
def test_the_training_sizes_are_the_papers(
    imbalance: int, total: int, smallest: int, groups: tuple[int, int, int]
) -> None:
    sizes = training_sizes(imbalance)
    assert (sum(sizes), sizes[0], sizes[-1]) == (total, 450, smallest)
    found = shot_groups(torch.tensor(sizes))
    assert (int(found.many.sum()), int(found.medium.sum()), int(found.few.sum())) == groups


def test_imbalance_1_keeps_450_of_every_class() -> None:
    assert training_sizes(1) == (450,) * 100


def test_one_class_gets_the_head() -> None:
    assert training_sizes(10, num_classes=1) == (450,)


def test_the_smallest_class_is_450_over_the_imbalance_rounded_down_exactly() -> None:
    assert [training_sizes(n, 2)[-1] for n in range(1, 451)] == [450 // n for n in range(1, 451)]
    # 450 / 1.0000000000000002 is below 450, though floating point says otherwise.
    assert training_sizes(math.nextafter(1, 2), 2) == (450, 449)


def test_a_size_that_is_a_whole_number_is_not_rounded_down() -> None:
    assert training_sizes(2.0**4, num_classes=5, head=16) == (16, 8, 4, 2, 1)
    assert training_sizes(3.0**4, num_classes=5, head=81) == (81, 27, 9, 3, 1)


@settings(max_examples=100, deadline=None)
@given(imbalance=st.floats(1, 450))
def test_sizes_fall_from_450_and_follow_the_formula(imbalance: float) -> None:
    sizes = training_sizes(imbalance)
    assert sizes[0] == 450
    assert sizes[-1] >= 1
    assert list(sizes) == sorted(sizes, reverse=True)
    for c, size in enumerate(sizes, start=1):
        value = 450 * (1 / imbalance) ** ((c - 1) / 99)
        assert size - 1e-9 * value <= value < size + 1 + 1e-9 * value


# The split.


def test_the_split_has_the_papers_counts_and_tells_the_true_imbalance(labelled: Cifar100) -> None:
    split = split_cifar100_lt(labelled, 100, split_seed=0)
    labels = labelled.train_labels
    assert split.train_counts == training_sizes(100)
    assert tuple(torch.bincount(labels[split.train_index]).tolist()) == split.train_counts
    assert split.difficulty_counts == (50,) * 100
    assert torch.bincount(labels[split.difficulty_index]).tolist() == [50] * 100
    assert split.test_counts == (100,) * 100
    assert split.class_names == CLASS_NAMES
    assert split.imbalance == 112.5
    assert split_cifar100_lt(labelled, 200, split_seed=0).imbalance == 225


@settings(max_examples=15, deadline=None)
@given(imbalances=st.tuples(st.floats(1, 450), st.floats(1, 450)), split_seed=st.integers(0, 2**70))
def test_splits_of_one_seed_are_disjoint_nested_and_share_the_difficulty_part(
    labelled: Cifar100, imbalances: tuple[float, float], split_seed: int
) -> None:
    large, small = (split_cifar100_lt(labelled, r, split_seed) for r in sorted(imbalances))
    assert torch.equal(large.difficulty_index, small.difficulty_index)
    assert set(small.train_index.tolist()) <= set(large.train_index.tolist())
    drawn = torch.cat([large.train_index, large.difficulty_index])
    assert len(drawn.unique()) == len(drawn) == sum(large.train_counts) + 5000
    assert torch.equal(large.train_index, large.train_index.sort().values)


def test_another_seed_draws_other_images_in_both_parts(labelled: Cifar100) -> None:
    first, second = (split_cifar100_lt(labelled, 100, split_seed=seed) for seed in (0, 1))
    assert not torch.equal(first.train_index, second.train_index)
    assert not torch.equal(first.difficulty_index, second.difficulty_index)
    assert first.digest != second.digest


def test_another_imbalance_has_another_digest(labelled: Cifar100) -> None:
    assert len({split_cifar100_lt(labelled, r, 0).digest for r in (10, 20, 50, 100, 200)}) == 5


def test_the_split_of_seed_0_never_changes(labelled: Cifar100) -> None:
    """It depends on the labels alone, so this is also the digest of the real data."""
    assert split_cifar100_lt(labelled, 100, split_seed=0).digest == (
        "6f60fa9f2caa73e84349a6a3ab049497c0e4d06930a9021617ddb4697164153a"
    )


def test_the_split_ignores_and_leaves_alone_the_global_generators(labelled: Cifar100) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    split = split_cifar100_lt(labelled, 100, split_seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert split_cifar100_lt(labelled, 100, split_seed=0).digest == split.digest


def test_the_split_equals_a_literal_draw_one_image_at_a_time(labelled: Cifar100) -> None:
    generator = np.random.PCG64(stream_seed(7, "split"))
    train, difficulty = [], []
    for label in range(100):
        members = range(500 * label, 500 * (label + 1))
        draws = [int(generator.random_raw()) for _ in members]
        order = [member for _, member in sorted(zip(draws, members, strict=True))]
        difficulty += order[:50]
        train += order[50 : 50 + math.floor(450 * 0.02 ** (label / 99) + 1e-9)]
    split = split_cifar100_lt(labelled, 50, split_seed=7)
    assert split.train_index.tolist() == sorted(train)
    assert split.difficulty_index.tolist() == sorted(difficulty)


@pytest.mark.parametrize("imbalance", [10, 50, 100, 200])
def test_with_a_head_size_the_split_is_that_of_other_papers(
    labelled: Cifar100, imbalance: int
) -> None:
    """Cui et al. 2019 and Cao et al. 2019: n_c = int(500 imbalance^(-c / 99)), c = 0..99."""
    split = split_cifar100_lt(labelled, imbalance, 0, head_size=500)
    assert split.train_counts == tuple(int(500 * (1 / imbalance) ** (c / 99)) for c in range(100))
    labels = labelled.train_labels[split.train_index]
    assert tuple(torch.bincount(labels).tolist()) == split.train_counts
    assert (split.difficulty_counts, len(split.difficulty_index)) == ((0,) * 100, 0)


def test_their_split_at_100_has_the_10847_images_that_are_known() -> None:
    sizes = training_sizes(100, head=500)
    assert (sum(sizes), sizes[0], sizes[-1]) == (10847, 500, 5)


def test_what_is_not_held_out_for_the_difficulty_is_the_heads(labelled: Cifar100) -> None:
    split = split_cifar100_lt(labelled, 100, 0, difficulty_per_class=25)
    assert (split.train_counts[0], split.train_counts[-1]) == (475, 4)
    assert split.difficulty_counts == (25,) * 100
    assert len(set(split.train_index.tolist()) & set(split.difficulty_index.tolist())) == 0
    usual = split_cifar100_lt(labelled, 100, 0)
    assert set(split.difficulty_index.tolist()) < set(usual.difficulty_index.tolist())


@pytest.mark.parametrize(
    ("imbalance", "split_seed", "sentence"),
    [
        (0.5, 0, "--imbalance 0.5 is not a ratio .* at least 1"),
        (float("nan"), 0, "--imbalance nan is not a ratio"),
        (float("inf"), 0, "--imbalance inf is not a ratio"),
        (451, 0, "--imbalance 451 leaves the smallest class with no training .* at most 450"),
        (100, -1, "--split-seed -1 is negative; give a whole number of at least 0"),
    ],
)
def test_an_impossible_split_is_refused_by_the_options_name(
    labelled: Cifar100, imbalance: float, split_seed: int, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        split_cifar100_lt(labelled, imbalance, split_seed)


def test_too_few_images_are_refused(labelled: Cifar100) -> None:
    short = replace(labelled, train_labels=labelled.train_labels[1:])
    with pytest.raises(
        UserError, match=r"Class apple has 499 training images .* needs 500; .*--im"
    ):
        split_cifar100_lt(short, 100, split_seed=0)


# The command line.


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["data_prep.cifar100", *arguments])
    run_main(cifar100.main)


@pytest.fixture
def expect_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_cifar100, "__defaults__", (None, SMALL))


def test_show_prints_counts_true_imbalance_shot_groups_and_digest(
    labelled: Cifar100, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cifar100, "load_cifar100", lambda folder: labelled)
    call(monkeypatch, "show", "--imbalance", "200", "--split-seed", "3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "class             train  difficulty   test  shot group",
        "apple               450          50    100  many",
    ]
    assert lines[100:] == [
        "worm                  2          50    100  few",
        "all                8548        5000  10000",
        "imbalance 225 (wanted 200), split seed 3",
        "shot groups many 28, medium 30, few 42",
        f"digest {split_cifar100_lt(labelled, 200, split_seed=3).digest}",
    ]


@pytest.mark.usefixtures("expect_small")
def test_check_says_that_a_copy_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = only_archive(tmp_path / "source")
    call(monkeypatch, "check", "--folder", str(folder))
    assert capsys.readouterr().out == (
        f"{folder}: the original CIFAR-100, 300 training and 200 test images of 100 classes\n"
    )


@pytest.mark.usefixtures("expect_small")
def test_download_lets_torchvision_write_the_folder_and_then_checks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(root: str, download: bool) -> None:
        assert download
        parent(Path(root))

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", fake)
    folder = tmp_path / "new" / "cifar100"
    call(monkeypatch, "download", "--folder", str(folder))
    assert f"{folder}: the original CIFAR-100" in capsys.readouterr().out


def test_a_failed_download_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(root: str, download: bool) -> None:
        raise RuntimeError("no connection\nat all")

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", fail)
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, "download", "--folder", str(tmp_path))
    assert capsys.readouterr().err == (
        f"error: CIFAR-100 could not be downloaded to {tmp_path} (no connection); check the "
        "connection and the folder, or put cifar-100-python.tar.gz there by hand.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["show", "--folder", "nowhere"], "nowhere is missing"),
        (["check", "--folder", "nowhere"], "nowhere is missing"),
        (["show", "--imbalanc", "99"], "--imbalance"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2_and_names_it(
    arguments: list[str],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *arguments)
    captured = capsys.readouterr()
    assert word in captured.err
    assert captured.out == ""


def test_reading_does_not_need_torchvision() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, data_prep.cifar100; print('torchvision' in sys.modules)",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
