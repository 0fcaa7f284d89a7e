import errno
import gzip
import hashlib
import io
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError, run_main
from common.streams import stream_seed
from data_prep import mnist
from data_prep.mnist import Digits, load_digits, split_mnist_lt

ROOT = Path(mnist.__file__).parents[1]
SHIPPED = mnist.SHIPPED_FILE.read_bytes()
# What the split of seed 0 is; a change here makes every recorded run incomparable.
SPLIT_0_DIGESTS = {
    99: "299c5601e6eb03167c366172c6a9bbbe6f3a48f4410d4f8df86e7756d4655b10",
    199: "b96e5c0e22ab314a6263621f9a8a8676c8c9c66ddb8089fa1364513de6e2d02c",
}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="module")
def arrays() -> dict[str, mnist.Array]:
    with np.load(mnist.SHIPPED_FILE, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


# The shipped file.


def test_the_shipped_file_holds_every_4_and_9_of_mnist(digits: Digits) -> None:
    assert torch.bincount(digits.train_labels).tolist() == [5842, 5949]
    assert torch.bincount(digits.test_labels).tolist() == [982, 1009]
    assert digits.train_images.shape == (11791, 28, 28)
    assert digits.test_images.shape == (1991, 28, 28)
    assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64


def test_the_shipped_digits_keep_their_original_order(arrays: dict[str, mnist.Array]) -> None:
    for part, size in (("train", 60000), ("test", 10000)):
        index = arrays[f"{part}_index"]
        assert (np.diff(index) > 0).all()
        assert 0 <= index[0] < index[-1] < size
    # Known of MNIST: training labels start 5 0 4 1 9, test labels start 7 2 1 0 4.
    assert arrays["train_index"][:2].tolist() == [2, 4]
    assert arrays["train_labels"][:2].tolist() == [4, 9]
    assert arrays["test_index"][0] == 4
    assert arrays["test_labels"][0] == 4


def test_class_0_is_digit_4_and_class_1_is_digit_9(
    digits: Digits, arrays: dict[str, mnist.Array]
) -> None:
    names = np.array([int(name) for name in mnist.CLASS_NAMES])
    assert (names[digits.train_labels.numpy()] == arrays["train_labels"]).all()
    assert (names[digits.test_labels.numpy()] == arrays["test_labels"]).all()


def test_the_shipped_file_is_under_3_mb() -> None:
    assert len(SHIPPED) < 3_000_000


# The split.


@pytest.mark.parametrize(
    ("imbalance", "counts"), [(1, (2500, 2500)), (99, (4950, 50)), (199, (4975, 25))]
)
def test_the_split_has_the_papers_counts(
    digits: Digits, imbalance: float, counts: tuple[int, int]
) -> None:
    split = split_mnist_lt(digits, imbalance, seed=0)
    labels = digits.train_labels
    assert split.train_counts == counts
    assert tuple(torch.bincount(labels[split.train_index]).tolist()) == counts
    assert split.difficulty_counts == (500, 500)
    assert torch.bincount(labels[split.difficulty_index]).tolist() == [500, 500]
    assert split.test_counts == (800, 800)
    assert torch.bincount(digits.test_labels[split.test_index]).tolist() == [800, 800]
    assert split.imbalance == imbalance
    assert split.class_names == ("4", "9")


def test_imbalance_is_the_true_ratio_not_the_wanted_one(digits: Digits) -> None:
    split = split_mnist_lt(digits, imbalance=300, seed=0)
    assert split.train_counts == (4983, 17)
    assert split.imbalance == 4983 / 17


@settings(max_examples=25, deadline=None)
@given(imbalance=st.floats(1, 4999), seed=st.integers(0, 2**70))
def test_no_image_is_drawn_twice_and_none_is_shared_with_training(
    imbalance: float, seed: int
) -> None:
    split = split_mnist_lt(load_cached(), imbalance, seed)
    drawn = torch.cat([split.train_index, split.difficulty_index])
    assert len(drawn) == len(drawn.unique()) == 6000
    assert len(split.test_index) == len(split.test_index.unique()) == 1600
    assert sum(split.train_counts) == 5000
    assert min(split.train_counts) >= 1


_CACHE: list[Digits] = []


def load_cached() -> Digits:
    if not _CACHE:
        _CACHE.append(load_digits())
    return _CACHE[0]


def test_the_tail_at_199_is_part_of_the_tail_at_99(digits: Digits) -> None:
    small, large = split_mnist_lt(digits, 199, seed=3), split_mnist_lt(digits, 99, seed=3)
    assert tail(digits, small) < tail(digits, large)


def tail(digits: Digits, split: mnist.MnistSplit) -> set[int]:
    return {int(i) for i in split.train_index if digits.train_labels[i] == 1}


def test_difficulty_and_test_images_of_a_seed_are_the_same_at_every_imbalance(
    digits: Digits,
) -> None:
    first, second = split_mnist_lt(digits, 1.5, seed=3), split_mnist_lt(digits, 199, seed=3)
    assert torch.equal(first.difficulty_index, second.difficulty_index)
    assert torch.equal(first.test_index, second.test_index)
    assert not torch.equal(first.train_index, second.train_index)


def test_another_seed_draws_other_images_in_every_part(digits: Digits) -> None:
    first, second = split_mnist_lt(digits, 99, seed=0), split_mnist_lt(digits, 99, seed=1)
    assert not torch.equal(first.train_index, second.train_index)
    assert not torch.equal(first.difficulty_index, second.difficulty_index)
    assert not torch.equal(first.test_index, second.test_index)
    assert first.digest != second.digest
    assert len(tail(digits, first) & tail(digits, second)) < 10


def test_the_split_ignores_and_leaves_alone_the_global_generators(digits: Digits) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    split = split_mnist_lt(digits, 99, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert split_mnist_lt(digits, 99, seed=0).digest == split.digest


@pytest.mark.parametrize("imbalance", [99, 199])
def test_the_split_of_seed_0_never_changes(digits: Digits, imbalance: int) -> None:
    assert split_mnist_lt(digits, imbalance, seed=0).digest == SPLIT_0_DIGESTS[imbalance]


def test_the_split_equals_a_literal_draw_one_image_at_a_time(digits: Digits) -> None:
    generator = np.random.PCG64(stream_seed(7, "split"))

    def shuffled(labels: list[int], label: int) -> list[int]:
        members = [i for i, found in enumerate(labels) if found == label]
        draws = [int(generator.random_raw()) for _ in members]
        return [member for _, member in sorted(zip(draws, members, strict=True))]

    train, difficulty, test = [], [], []
    for label, size in ((0, 4950), (1, 50)):
        order = shuffled(digits.train_labels.tolist(), label)
        difficulty += order[:500]
        train += order[500 : 500 + size]
        test += shuffled(digits.test_labels.tolist(), label)[:800]

    split = split_mnist_lt(digits, 99, seed=7)
    assert split.train_index.tolist() == sorted(train)
    assert split.difficulty_index.tolist() == sorted(difficulty)
    assert split.test_index.tolist() == sorted(test)


def test_the_digest_is_the_sha256_of_the_index_lists(digits: Digits) -> None:
    split = split_mnist_lt(digits, 99, seed=0)
    text = b""
    for name in ("train_index", "difficulty_index", "test_index"):
        values = getattr(split, name).tolist()
        text += f"{name} {len(values)}\n".encode()
        text += b"".join(value.to_bytes(8, "little") for value in values)
    assert split.digest == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    ("imbalance", "seed", "sentence"),
    [
        (0.5, 0, "--imbalance 0.5 is not a ratio .* at least 1"),
        (float("nan"), 0, "--imbalance nan is not a ratio"),
        (float("inf"), 0, "--imbalance inf is not a ratio"),
        (1e6, 0, r"--imbalance 1e\+06 leaves class 9 with no training image .* at most 4999"),
        (99, -1, "--split-seed -1 is negative; give a whole number of at least 0"),
    ],
)
def test_an_impossible_split_is_refused_by_the_options_name(
    digits: Digits, imbalance: float, seed: int, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        split_mnist_lt(digits, imbalance, seed)


@pytest.mark.parametrize(
    ("part", "kept", "sentence"),
    [
        ("train", 5449, "Class 4 has 5449 training images where the split needs 5450; .*--imbal"),
        ("test", 799, "Class 4 has 799 test images where the split needs 800; .*--imbalance"),
    ],
)
def test_too_few_images_are_refused(digits: Digits, part: str, kept: int, sentence: str) -> None:
    fields = dict(vars(digits))
    heads = torch.nonzero(fields[f"{part}_labels"] == 0).flatten()[:kept]
    tails = torch.nonzero(fields[f"{part}_labels"] == 1).flatten()
    members = torch.cat([heads, tails])
    for name in (f"{part}_images", f"{part}_labels"):
        fields[name] = fields[name][members]
    with pytest.raises(UserError, match=sentence):
        split_mnist_lt(Digits(**fields), 99, seed=0)


# Missing and damaged files.


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "gone.npz"
    with pytest.raises(UserError, match=rf"{path} is missing; .*mnist build .*--out <a new"):
        load_digits(path)


@pytest.mark.parametrize("kind", ["text", "folder", "missing"])
def test_no_remedy_would_write_to_the_file_that_was_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine"
    if kind == "text":
        path.write_text("root:x:0:0")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UserError) as refused:
        load_digits(path)
    problem, remedy = str(refused.value).split("; ")
    assert str(path) not in remedy
    wanted = {
        "text": "is truncated or damaged (it is no .npz file)",
        "folder": "is a folder",
        "missing": "is missing",
    }
    assert problem.startswith(f"{path} {wanted[kind]}")


def test_a_missing_shipped_file_can_be_restored_by_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "SHIPPED_FILE", tmp_path / "mnist_4_9.npz")
    with pytest.raises(UserError, match=r"git checkout -- data_prep/mnist_4_9\.npz"):
        load_digits()


@pytest.mark.parametrize("kept", [0, 1, 100, len(SHIPPED) // 2, len(SHIPPED) - 1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "short.npz"
    path.write_bytes(SHIPPED[:kept])
    with pytest.raises(UserError, match=rf"{path} is truncated or damaged \(.+\); name a file"):
        load_digits(path)


def load_or_refuse(path: Path) -> Digits:
    """What ``path`` holds; where it is refused by name, the shipped digits.

    Dates and rights in the zip directory mean nothing to us, so a change there is accepted.
    """
    try:
        return load_digits(path)
    except UserError as error:
        if not str(error).startswith(f"{path} "):
            raise
        return load_cached()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    position=st.one_of(
        st.integers(0, len(SHIPPED) - 1), st.integers(len(SHIPPED) - 700, len(SHIPPED) - 1)
    ),
    flip=st.integers(1, 255),
)
def test_a_changed_byte_is_refused_or_changes_no_digit(
    tmp_path: Path, position: int, flip: int
) -> None:
    damaged = bytearray(SHIPPED)
    damaged[position] ^= flip
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    found = load_or_refuse(path)
    for name, expected in vars(load_cached()).items():
        assert torch.equal(getattr(found, name), expected)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "array.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="is truncated or damaged"):
        load_digits(path)


def test_a_label_out_of_range_is_named(tmp_path: Path, arrays: dict[str, mnist.Array]) -> None:
    labels = arrays["test_labels"].copy()
    labels[5] = 7
    path = tmp_path / "wrong.npz"
    mnist.write_arrays({**arrays, "test_labels": labels}, path)
    with pytest.raises(UserError, match=rf"{path} holds the label 7 in test_labels, .* 4 and 9"):
        load_digits(path)


@pytest.mark.parametrize("name", mnist.ARRAY_NAMES)
def test_one_changed_value_in_any_array_is_refused(
    tmp_path: Path, arrays: dict[str, mnist.Array], name: str
) -> None:
    changed = arrays[name].copy()
    changed.flat[0] = 9 if "labels" in name else changed.flat[0] + 1
    with pytest.raises(UserError, match="does not hold the 4s and 9s of MNIST"):
        mnist._check_content({**arrays, name: changed}, tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "locked.npz"
    path.write_bytes(SHIPPED)
    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(UserError, match=rf"{path} cannot be .* read \(Permission denied\)"):
        load_digits(path)


# Rebuilding the shipped file.


def members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_rebuilding_from_idx_files_gives_the_shipped_bytes(
    tmp_path: Path, arrays: dict[str, mnist.Array]
) -> None:
    """The shipped digits at their original places; the eight other digits are left blank."""
    md5 = {}
    for part, size in (("train", 60000), ("test", 10000)):
        images = np.zeros((size, 28, 28), np.uint8)
        labels = np.zeros(size, np.uint8)
        images[arrays[f"{part}_index"]] = arrays[f"{part}_images"]
        labels[arrays[f"{part}_index"]] = arrays[f"{part}_labels"]
        for name, array in ((f"{part}_images", images), (f"{part}_labels", labels)):
            content = mnist.format_idx(array)
            (tmp_path / mnist.IDX_FILES[name]).write_bytes(content)
            md5[name] = hashlib.md5(content).hexdigest()
    out = tmp_path / "rebuilt.npz"
    mnist.build_subset(tmp_path, out, md5)
    assert members(out.read_bytes()) == members(SHIPPED)
    if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng packs the same content differently.
        assert out.read_bytes() == SHIPPED
    load_digits(out)


def test_writing_at_another_time_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = small_subset()
    mnist.write_arrays(small, tmp_path / "a.npz")
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    mnist.write_arrays(dict(reversed(small.items())), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def small_mnist() -> dict[str, mnist.Bytes]:
    generator = np.random.default_rng(0)
    return {
        "train_images": generator.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train_labels": np.arange(30, dtype=np.uint8) % 10,
        "test_images": generator.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "test_labels": np.arange(20, dtype=np.uint8)[::-1] % 10,
    }


def small_subset() -> dict[str, mnist.Array]:
    return mnist.select_digits(small_mnist())


def small_md5() -> dict[str, str]:
    return {
        name: hashlib.md5(mnist.format_idx(array)).hexdigest()
        for name, array in small_mnist().items()
    }


def write_idx(folder: Path, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in small_mnist().items():
        content = mnist.format_idx(array)
        path = folder / mnist.IDX_FILES[name]
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


def plain(base: Path) -> Path:
    write_idx(base)
    return base


def packed(base: Path) -> Path:
    write_idx(base, packed=True)
    return base


def torchvision_raw(base: Path) -> Path:
    write_idx(base / "raw")
    return base


def torchvision_root(base: Path) -> Path:
    write_idx(base / "MNIST" / "raw", packed=True)
    return base


def npz(base: Path) -> Path:
    base.mkdir(exist_ok=True)
    np.savez_compressed(base / "mnist.npz", **small_mnist())  # type: ignore[arg-type]
    return base / "mnist.npz"


def keras_npz(base: Path) -> Path:
    base.mkdir(exist_ok=True)
    names = {"train_images": "x_train", "train_labels": "y_train"}
    names |= {"test_images": "x_test", "test_labels": "y_test"}
    values = {names[name]: array for name, array in small_mnist().items()}
    np.savez(base / "mnist.npz", **values)  # type: ignore[arg-type]
    return base / "mnist.npz"


@pytest.mark.parametrize(
    "source", [plain, packed, torchvision_raw, torchvision_root, npz, keras_npz]
)
def test_mnist_is_read_from_every_usual_layout(
    tmp_path: Path, source: Callable[[Path], Path]
) -> None:
    found = mnist.read_mnist(source(tmp_path / "source"), small_md5())
    for name, expected in small_mnist().items():
        assert np.array_equal(found[name], expected)
        assert found[name].dtype == np.uint8


def test_selecting_keeps_only_4s_and_9s_and_says_where_they_stood() -> None:
    subset = small_subset()
    assert subset["train_labels"].tolist() == [4, 9, 4, 9, 4, 9]
    assert subset["train_index"].tolist() == [4, 9, 14, 19, 24, 29]
    assert subset["test_labels"].tolist() == [9, 4, 9, 4]
    assert subset["test_index"].tolist() == [0, 5, 10, 15]
    assert np.array_equal(subset["train_images"][1], small_mnist()["train_images"][9])


def test_the_idx_header_is_the_one_of_the_original_files() -> None:
    images = np.zeros((60000, 28, 28), np.uint8)
    assert mnist.format_idx(images)[:16].hex(" ", 4) == "00000803 0000ea60 0000001c 0000001c"
    assert mnist.format_idx(np.arange(3))[:11].hex() == "0000080100000003000102"


@pytest.mark.parametrize("source", [plain, packed, npz])
def test_a_source_that_is_not_the_original_is_refused_by_name(
    tmp_path: Path, source: Callable[[Path], Path]
) -> None:
    sentence = r"train-images-idx3-ubyte is not the original MNIST file \(md5 \w{32}, expected 6bbc"
    with pytest.raises(UserError, match=sentence):
        mnist.build_subset(source(tmp_path / "source"), tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_one_wrong_label_file_is_refused_by_name(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / mnist.IDX_FILES["test_labels"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x08")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is not the original MNIST file"):
        mnist.read_mnist(tmp_path, small_md5())


def test_a_folder_without_mnist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"--source {tmp_path} holds no train-images-idx3-ubyte"):
        mnist.read_mnist(tmp_path)


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--source .*nowhere does not exist; name the folder"):
        mnist.read_mnist(tmp_path / "nowhere")


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.unlink()
    with pytest.raises(UserError, match=rf"{path} is missing \(plain or .gz\); put all four"):
        mnist.read_mnist(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"no gzip", lambda b: b""]
)
def test_a_damaged_gz_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_idx(tmp_path, packed=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte(\.gz)? is (truncated|not the or)"):
        mnist.read_mnist(tmp_path, small_md5())


def test_an_npz_with_other_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, images=np.zeros(3))
    with pytest.raises(UserError, match=rf"--source {path} is not an mnist.npz with train_images"):
        mnist.read_mnist(path)


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"No room left to write {out}"):
        mnist.write_arrays(small_subset(), out)
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.npz"]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "out.npz"
    with pytest.raises(UserError, match=rf"{out}: No such file or directory; check the path"):
        mnist.write_arrays(small_subset(), out)


# The command line.


def test_show_prints_counts_imbalance_shot_groups_and_digest_in_a_fresh_process() -> None:
    command = [sys.executable, "-m", "data_prep.mnist", "show", "--imbalance", "199"]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "class    train  difficulty   test  shot group",
        "4         4975         500    800  many",
        "9           25         500    800  medium",
        "all       5000        1000   1600",
        "imbalance 199 (wanted 199), split seed 0",
        f"digest {SPLIT_0_DIGESTS[199]}",
    ]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["data_prep.mnist", *arguments])
    run_main(mnist.main)


def test_show_changes_with_the_split_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "show", "--imbalance", "300", "--split-seed", "4")
    shown = capsys.readouterr().out
    assert "17         500    800  few" in shown
    assert "imbalance 293.118 (wanted 300), split seed 4" in shown
    assert split_mnist_lt(load_cached(), 300, seed=4).digest in shown


def test_build_writes_the_subset_and_show_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mnist.build_subset, "__defaults__", (small_md5(),))
    write_idx(tmp_path / "source")
    out = tmp_path / "out.npz"
    call(monkeypatch, "build", "--source", str(tmp_path / "source"), "--out", str(out))
    digest = mnist.content_digest(small_subset())
    expected = f"wrote {out}: 6 training and 4 test images, content sha256 {digest}\n"
    assert capsys.readouterr().out == expected
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, "show", "--file", str(out))
    assert "does not hold the 4s and 9s of MNIST" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["show", "--imbalance", "0.5"], "--imbalance 0.5"),
        (["show", "--split-seed", "-1"], "--split-seed -1"),
        (["show", "--imbalanc", "99"], "--imbalance"),
        (["build", "--source", "nowhere", "--out", "x.npz"], "--source nowhere does not exist"),
        (["build", "--source", "nowhere"], "--out"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2_and_names_the_option(
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
