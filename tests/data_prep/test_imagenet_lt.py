"""ImageNet-LT: the lists, the tree of ILSVRC 2012 in its layouts, the command.

The official lists may not be passed on; a small source of the same form stands for them.
"""

import gzip
import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError, run_main
from data_prep import imagenet_lt
from data_prep.image_list import find_missing, lists_digest
from data_prep.imagenet_lt import ListFile, Source, load_imagenet_lt, official, read_class_counts

IDS = ("n01440764", "n01443537", "n15075141")
TRAIN_COUNTS = (2, 4, 1)
NAMES = {
    "train": "ImageNet_LT_train.txt",
    "difficulty": "ImageNet_LT_val.txt",
    "test": "ImageNet_LT_test.txt",
}


def small_lists() -> dict[str, bytes]:
    """Train and val from ILSVRC's training part, test from its validation part."""
    lines: dict[str, list[str]] = {"train": [], "difficulty": [], "test": []}
    for label, (name, count) in enumerate(zip(IDS, TRAIN_COUNTS, strict=True)):
        lines["train"] += [f"train/{name}/{name}_{n}.JPEG {label}" for n in range(count)]
        lines["difficulty"] += [f"train/{name}/{name}_{n}.JPEG {label}" for n in (90, 91)]
        lines["test"].append(f"val/{name}/ILSVRC2012_val_{label + 1:08d}.JPEG {label}")
    return {
        part: "".join(f"{line}\n" for line in of_part).encode() for part, of_part in lines.items()
    }


LISTS = small_lists()
COUNTS = {"train": TRAIN_COUNTS, "difficulty": (2, 2, 2), "test": (1, 1, 1)}


def source_of(lists: dict[str, bytes]) -> Source:
    return Source(
        lists={
            part: ListFile(
                NAMES[part], len(content), hashlib.sha256(content).hexdigest(), COUNTS[part]
            )
            for part, content in lists.items()
        },
        class_names=IDS,
    )


SMALL = source_of(LISTS)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for part, content in LISTS.items():
        (folder / NAMES[part]).write_bytes(content)
    return folder


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"image")


def paths(part: str) -> list[str]:
    return [line.split()[0] for line in LISTS[part].decode().splitlines()]


def sorted_tree(root: Path) -> Path:
    """The validation images in a folder for each class, as the lists name them."""
    for part in LISTS:
        for path in paths(part):
            touch(root / path)
    return root


def flat_tree(root: Path) -> Path:
    """The validation images side by side, as their archive unpacks."""
    for path in (*paths("train"), *paths("difficulty")):
        touch(root / path)
    for path in paths("test"):
        touch(root / "val" / Path(path).name)
    return root


def kaggle_tree(root: Path) -> Path:
    flat_tree(root / "ILSVRC" / "Data" / "CLS-LOC")
    return root


def inside_kaggle_tree(root: Path) -> Path:
    return kaggle_tree(root) / "ILSVRC"


TREES = [sorted_tree, flat_tree, kaggle_tree, inside_kaggle_tree]


# The table of counts and the official lists' facts.


def test_the_shipped_counts_are_those_published_for_imagenet_lt() -> None:
    names, counts = read_class_counts()
    assert len(names) == len(set(names)) == len(counts) == 1000
    assert list(names) == sorted(names)
    assert (sum(counts), max(counts), min(counts)) == (115_846, 1280, 5)
    assert max(counts) / min(counts) == 256


def test_the_shot_groups_of_the_shipped_counts_by_the_rules_of_the_paper_kang_and_liu() -> None:
    counts = read_class_counts()[1]
    over, at_least = sum(n > 100 for n in counts), sum(n >= 100 for n in counts)
    under, at_most = sum(n < 20 for n in counts), sum(n <= 20 for n in counts)
    assert (over, 1000 - over - at_most, at_most) == (385, 469, 146)
    assert (over, 1000 - over - under, under) == (385, 479, 136)
    assert (at_least, 1000 - at_least - at_most, at_most) == (391, 463, 146)


def test_the_official_difficulty_and_test_lists_have_20_and_50_images_a_class() -> None:
    found = official().lists
    assert {part: file.name for part, file in found.items()} == NAMES
    assert set(found["difficulty"].class_counts) == {20}
    assert set(found["test"].class_counts) == {50}
    assert all(len(file.class_counts) == 1000 for file in found.values())


def test_a_changed_table_of_counts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "imagenet_lt_counts.txt"
    monkeypatch.setattr(imagenet_lt, "COUNTS_FILE", changed)
    with pytest.raises(UserError, match=r"is missing; restore it with: git checkout"):
        read_class_counts()
    changed.write_text("n01440764 50\n")
    with pytest.raises(UserError, match=r"is not the original table; restore it"):
        read_class_counts()


# The tree.


@pytest.mark.parametrize("tree", TREES)
def test_every_layout_of_the_tree_has_all_images_and_the_same_digest(
    tmp_path: Path, lists: Path, tree: Callable[[Path], Path]
) -> None:
    split = load_imagenet_lt(tree(tmp_path / "images"), lists, SMALL)
    assert find_missing(split) == []
    assert all((split.folder / p).is_file() for part in split.parts.values() for p in part.paths)
    assert split.class_names == IDS
    assert split.train_counts == TRAIN_COUNTS
    assert split.difficulty_counts == (2, 2, 2)
    assert split.test_counts == (1, 1, 1)
    assert split.imbalance == 4
    assert split.digest == load_imagenet_lt(sorted_tree(tmp_path / "other"), lists, SMALL).digest


def test_the_digest_is_that_of_the_lists_as_they_are_written(tmp_path: Path, lists: Path) -> None:
    split = load_imagenet_lt(sorted_tree(tmp_path / "images"), lists, SMALL)
    assert split.digest == lists_digest(split.parts)
    assert split.test.paths[0] == "val/n01440764/ILSVRC2012_val_00000001.JPEG"
    flat = load_imagenet_lt(flat_tree(tmp_path / "flat"), lists, SMALL)
    assert flat.test.paths[0] == "val/ILSVRC2012_val_00000001.JPEG"
    assert flat.difficulty.paths == split.difficulty.paths


def test_images_that_are_not_there_are_found_missing_in_every_part(
    tmp_path: Path, lists: Path
) -> None:
    folder = flat_tree(tmp_path / "images")
    for path in ("train/n01443537/n01443537_2.JPEG", "val/ILSVRC2012_val_00000002.JPEG"):
        (folder / path).unlink()
    assert find_missing(load_imagenet_lt(folder, lists, SMALL)) == [
        "train/n01443537/n01443537_2.JPEG",
        "val/ILSVRC2012_val_00000002.JPEG",
    ]


def only_train(root: Path) -> Path:
    touch(root / "train" / IDS[0] / "a.JPEG")
    return root


def still_packed(root: Path) -> Path:
    touch(root / "train" / f"{IDS[0]}.tar")
    touch(root / "val" / "a.JPEG")
    return root


def other_images(root: Path) -> Path:
    touch(root / "train" / "cats" / "a.JPEG")
    touch(root / "val" / "a.JPEG")
    return root


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (lambda root: root, "images is missing; name the folder of ILSVRC 2012"),
        (lambda root: sorted_tree(root) / "train", "has no folder train: this is train itself"),
        (lambda root: sorted_tree(root).parent, "has no folder train; name the folder"),
        (only_train, "images has no folder val; name the folder"),
        (still_packed, "train has no folder such as n01440764; unpack each nXXXXXXXX.tar"),
        (other_images, "train has no folder such as n01440764; name the folder"),
    ],
)
def test_a_folder_that_is_no_tree_is_refused_with_the_remedy(
    tmp_path: Path, lists: Path, tree: Callable[[Path], Path], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        load_imagenet_lt(tree(tmp_path / "images"), lists, SMALL)
    assert words in str(refused.value)


# The lists.


def test_packed_lists_read_as_plain_ones(tmp_path: Path, lists: Path) -> None:
    folder = sorted_tree(tmp_path / "images")
    plain = load_imagenet_lt(folder, lists, SMALL)
    for name in NAMES.values():
        (lists / f"{name}.gz").write_bytes(gzip.compress((lists / name).read_bytes()))
        (lists / name).unlink()
    packed = load_imagenet_lt(folder, lists, SMALL)
    assert packed.digest == plain.digest
    assert packed.train.paths == plain.train.paths


@pytest.mark.parametrize("part", NAMES)
def test_a_missing_list_is_refused_by_name(tmp_path: Path, lists: Path, part: str) -> None:
    (lists / NAMES[part]).unlink()
    with pytest.raises(UserError, match=rf"{NAMES[part]} is missing \(plain or \.gz\); get"):
        load_imagenet_lt(sorted_tree(tmp_path / "images"), lists, SMALL)


@pytest.mark.parametrize("part", NAMES)
def test_one_changed_byte_or_one_line_less_is_refused(
    tmp_path: Path, lists: Path, part: str
) -> None:
    folder, content = sorted_tree(tmp_path / "images"), LISTS[part]
    (lists / NAMES[part]).write_bytes(content.replace(b".JPEG 0", b".JPEG 1", 1))
    with pytest.raises(UserError, match=rf"{NAMES[part]} is not the official list \(sha256 "):
        load_imagenet_lt(folder, lists, SMALL)
    (lists / NAMES[part]).write_bytes(content[:-10])
    sizes = rf"\({len(content) - 10} bytes, expected {len(content)}\)"
    with pytest.raises(UserError, match=sizes):
        load_imagenet_lt(folder, lists, SMALL)


def test_the_pointer_of_git_lfs_is_not_taken_for_the_list(tmp_path: Path, lists: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4658674\n"
    (lists / NAMES["train"]).write_text(pointer)
    with pytest.raises(UserError, match="it is the pointer of Git LFS"):
        load_imagenet_lt(sorted_tree(tmp_path / "images"), lists, SMALL)


def test_a_list_of_the_right_sha256_with_other_counts_is_refused(
    tmp_path: Path, lists: Path
) -> None:
    train = replace(SMALL.lists["train"], class_counts=(2, 3, 2))
    source = replace(SMALL, lists={**SMALL.lists, "train": train})
    with pytest.raises(UserError, match=r"has 4 images of class n01443537 where 3 belong"):
        load_imagenet_lt(sorted_tree(tmp_path / "images"), lists, source)


def test_the_stand_ins_are_not_taken_for_the_official_lists(tmp_path: Path, lists: Path) -> None:
    with pytest.raises(UserError, match=r"ImageNet_LT_train\.txt is not the official list"):
        load_imagenet_lt(sorted_tree(tmp_path / "images"), lists)


# Where they are looked for.


def test_folders_are_the_named_ones_else_the_variables_else_the_usual_places(
    tmp_path: Path, lists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDB_IMAGENET", raising=False)
    monkeypatch.delenv("CDB_IMAGENET_LT", raising=False)
    with pytest.raises(UserError, match=r"^data/imagenet-lt/ImageNet_LT_train.txt is missing"):
        load_imagenet_lt(source=SMALL)
    with pytest.raises(UserError, match=r"^data/imagenet is missing"):
        load_imagenet_lt(lists=lists, source=SMALL)
    flat_tree(tmp_path / "data" / "imagenet")
    assert load_imagenet_lt(None, lists, SMALL).folder == Path("data/imagenet")
    monkeypatch.setenv("CDB_IMAGENET", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=rf"^{tmp_path}/elsewhere is missing"):
        load_imagenet_lt(None, lists, SMALL)
    flat_tree(tmp_path / "elsewhere")
    monkeypatch.setenv("CDB_IMAGENET_LT", str(lists))
    assert load_imagenet_lt(source=SMALL).folder == tmp_path / "elsewhere"


def test_lists_beside_the_images_are_found(
    tmp_path: Path, lists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDB_IMAGENET_LT", raising=False)
    folder = flat_tree(tmp_path / "images")
    for name in NAMES.values():
        (folder / name).write_bytes((lists / name).read_bytes())
    assert load_imagenet_lt(folder, source=SMALL).train_counts == TRAIN_COUNTS


# The command.


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(imagenet_lt, "official", lambda: SMALL)
    monkeypatch.setattr(sys, "argv", ["imagenet_lt", *words])
    try:
        run_main(imagenet_lt.main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_check_prints_counts_imbalance_groups_and_the_tree(
    tmp_path: Path,
    lists: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(flat_tree(tmp_path / "images"))
    assert run(monkeypatch, "check", "--folder", folder, "--lists", str(lists)) == 0
    out = capsys.readouterr().out
    for words in (
        "train: 7 images, 1 to 4 a class",
        "difficulty: 6 images, 2 a class",
        "test: 3 images, 1 a class",
        "3 classes, imbalance 4",
        "many 0, medium 0, few 3",
        "0 images of the difficulty list are in the train list, too",
        "images: all 16 images are there",
    ):
        assert words in out


def test_check_ends_with_2_and_names_what_is_missing_after_the_counts(
    tmp_path: Path,
    lists: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = flat_tree(tmp_path / "images")
    (folder / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    words = ("check", "--folder", str(folder), "--lists", str(lists))
    assert run(monkeypatch, *words) == 2
    shown = capsys.readouterr()
    assert f"{folder}/val/ILSVRC2012_val_00000002.JPEG is missing." in shown.out
    assert "of 16 images 1 missing; name the folder of ILSVRC 2012" in shown.err
    # These images are no images.
    assert run(monkeypatch, *words, "--decode") == 2
    assert "1 missing and 15 unreadable" in capsys.readouterr().err


def test_check_counts_images_that_two_lists_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {**LISTS, "difficulty": LISTS["difficulty"].replace(b"_90", b"_0")}
    monkeypatch.setattr(imagenet_lt, "official", lambda: source_of(shared))
    for part, content in shared.items():
        (tmp_path / NAMES[part]).write_bytes(content)
    imagenet_lt.check(flat_tree(tmp_path))
    assert "3 images of the difficulty list are in the train list" in capsys.readouterr().out
