"""The user's own folder of images: split, lists, check, and the example."""

import errno
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError, describe_os_error, run_main
from data_prep import image_example, image_folder
from data_prep.digit_plan import CATEGORIES
from data_prep.image_check import find_unreadable
from data_prep.image_example import EXTRA, PROFILE, make_example, plan_example, render_example
from data_prep.image_folder import load_image_folder, split_tree, write_lists
from data_prep.image_list import ImageList, find_missing
from data_prep.image_tree import ImageTree, scan_tree
from data_prep.mnist import Digits, load_digits

LISTS = ("train.txt", "difficulty.txt", "test.txt", "classes.txt")


def make_tree(folder: Path, **sizes: int) -> Path:
    """Files that are no images: ``split`` looks at names only."""
    for name, size in sizes.items():
        (folder / name).mkdir(parents=True)
        for number in range(size):
            (folder / name / f"{number:03d}.jpg").touch()
    return folder


def tree_of(*sizes: int) -> ImageTree:
    names = tuple(f"class {label}" for label in range(len(sizes)))
    paths = tuple(
        f"{name}/{n}.png" for name, size in zip(names, sizes, strict=True) for n in range(size)
    )
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return ImageTree(names, ImageList(paths, labels), 0)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["image_folder", *map(str, words)])
    try:
        run_main(image_folder.main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# What is in a folder.


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    make_tree(tmp_path, cat=0, dog=1)
    touch(tmp_path / "cat", "a.JPG", "b.jpeg", "c.PnG", "d.webp", "e.bmp", "g.txt", ".h.jpg")
    touch(tmp_path, "cat/sub/deep/i.jpg", "cat/.hidden/j.jpg", ".cache/k.jpg", "l.jpg")
    tree = scan_tree(tmp_path)
    assert tree.class_names == ("cat", "dog")
    assert tree.images.paths == (
        *(f"cat/{name}" for name in ("a.JPG", "b.jpeg", "c.PnG", "d.webp", "e.bmp")),
        "cat/sub/deep/i.jpg",
        "dog/000.jpg",
    )
    assert tree.images.labels.tolist() == [0] * 6 + [1]
    assert tree.outside == 1


@pytest.mark.parametrize(
    "ending", ["tif", "TIFF", "gif", "jfif", "jpe", "ppm", "pgm", "tga", "jp2", "avif", "dib"]
)
def test_what_pillow_reads_is_found_and_read(tmp_path: Path, ending: str) -> None:
    make_tree(tmp_path, cat=0, dog=1)
    picture = Image.new("L" if ending == "pgm" else "RGB", (4, 3))
    picture.save(tmp_path / "cat" / f"a.{ending}")
    assert scan_tree(tmp_path).images.paths[0] == f"cat/a.{ending}"
    assert find_unreadable([tmp_path / "cat" / f"a.{ending}"]) == []


def test_what_is_left_out_is_told_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path, cat=3, dog=3)
    touch(tmp_path, "cat/a.txt", "dog/b.TXT", "cat/raw.cr2", "dog/README", "cat/.h.jpg", "top.png")
    (tmp_path / "cat" / "more").symlink_to(tmp_path / "dog")
    assert run(monkeypatch, "split", tmp_path, "--difficulty", 1, "--test", 1) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "left out: 1 x .cr2, 2 x .txt, 1 x hidden image, 1 x image in no class's folder, "
        "1 x link to a folder, 1 x no ending"
    )


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir", "#recycle", "@Recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information",
        "__MACOSX", "lost+found", "._thumbs",
    ],
)  # fmt: skip
def test_what_a_nas_or_an_archive_leaves_is_neither_class_nor_image(
    tmp_path: Path, name: str
) -> None:
    make_tree(tmp_path, cat=1, dog=1)
    touch(tmp_path, f"{name}/cat/000.jpg", f"cat/{name}/000.jpg", f"dog/deep/{name}/0/1.jpg")
    touch(tmp_path, "cat/._000.jpg")
    tree = scan_tree(tmp_path)
    assert tree.class_names == ("cat", "dog")
    assert tree.images.paths == ("cat/000.jpg", "dog/000.jpg")
    assert sum(tree.left_out.values()) == 4


def test_of_links_to_one_image_of_a_class_one_stays(tmp_path: Path) -> None:
    make_tree(tmp_path, cat=2, dog=1)
    (tmp_path / "cat" / "900.jpg").symlink_to("000.jpg")
    (tmp_path / "cat" / "000 again.jpg").symlink_to(tmp_path / "cat" / "001.jpg")
    tree = scan_tree(tmp_path)
    assert tree.images.paths == ("cat/000 again.jpg", "cat/000.jpg", "dog/000.jpg")
    assert tree.left_out == {"link to an image that is there": 2}


@pytest.mark.parametrize("link", ["kitten", "dog/0.jpg"])
def test_an_image_of_two_classes_by_a_link_is_refused(tmp_path: Path, link: str) -> None:
    make_tree(tmp_path, cat=1, dog=1)
    (tmp_path / link).symlink_to(tmp_path / "cat" / ("000.jpg" if "/" in link else ""))
    with pytest.raises(UserError, match=r"are one file .* cannot be of two classes"):
        scan_tree(tmp_path)


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    make_tree(tmp_path / "elsewhere", cat=2)
    make_tree(tmp_path / "images", dog=1)
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    assert scan_tree(tmp_path / "images").images.class_counts(2) == (2, 1)


def test_folders_without_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is missing; name the folder"):
        scan_tree(tmp_path / "nowhere")
    (tmp_path / "only.jpg").touch()
    with pytest.raises(UserError, match=r"only.jpg is a file"):
        scan_tree(tmp_path / "only.jpg")
    with pytest.raises(UserError, match=r"holds no class folders where at least 2 belong"):
        scan_tree(tmp_path)
    with pytest.raises(UserError, match=r"holds one class folder where at least 2 belong"):
        scan_tree(make_tree(tmp_path, cat=3))


def test_a_folder_that_is_already_divided_is_not_taken_for_one_of_classes(tmp_path: Path) -> None:
    make_tree(tmp_path, train=50, val=50)
    with pytest.raises(
        UserError, match=r"is already divided into train, val, which are no classes"
    ):
        scan_tree(tmp_path)
    make_tree(tmp_path, cat=50)
    assert scan_tree(tmp_path).class_names == ("cat", "train", "val")


@pytest.mark.parametrize("name", ["a\nb", " cat", b"\xff".decode(errors="surrogateescape")])
def test_names_that_cannot_stand_in_a_list_are_refused(tmp_path: Path, name: str) -> None:
    make_tree(tmp_path, dog=1, **{name: 1})
    with pytest.raises(UserError, match=r"class folder .* cannot be listed; rename it"):
        scan_tree(tmp_path)
    (tmp_path / name).rename(tmp_path / "cat")
    (tmp_path / "cat" / "000.jpg").rename(tmp_path / "cat" / f"{name.strip()}\t.jpg")
    with pytest.raises(UserError, match=r"cannot stand in a list; rename it"):
        scan_tree(tmp_path)


# Parts that are there.


def divided(folder: Path, **parts: dict[str, int]) -> Path:
    for part, sizes in parts.items():
        make_tree(folder / part, **sizes)
    return folder


SIZES = {"cat": 4, "dog": 3, "eel": 2}


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_folder_that_is_divided_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val: str
) -> None:
    parts = {"train": SIZES, val: {"cat": 2, "eel": 1}, "test": {"dog": 1, "eel": 2}}
    assert run(monkeypatch, "split", divided(tmp_path, **parts)) == 0
    split = load_image_folder(tmp_path)
    assert split.class_names == ("cat", "dog", "eel")
    assert split.train_counts == (4, 3, 2)
    # Labels are those of training, where a part lacks a class too.
    assert split.difficulty_counts == (2, 0, 1)
    assert split.test_counts == (0, 1, 2)
    assert split.test.paths == ("test/dog/000.jpg", "test/eel/000.jpg", "test/eel/001.jpg")
    assert find_missing(split) == []


def test_without_val_the_difficulty_set_is_held_out_of_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided(tmp_path, train=SIZES, test={"cat": 2, "dog": 2, "eel": 1})
    assert run(monkeypatch, "split", tmp_path, "--difficulty", 1) == 0
    split = load_image_folder(tmp_path)
    assert (split.train_counts, split.difficulty_counts) == ((3, 2, 1), (1, 1, 1))
    assert split.test_counts == (2, 2, 1)


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ({"train": SIZES, "val": SIZES}, (), "is already divided into train, val, but has no test"),
        ({"val": SIZES, "test": SIZES}, (), "divided into test, val, but has no train"),
        ({"train": SIZES, "val": SIZES, "valid": SIZES, "test": SIZES}, (), "has val and valid;"),
        ({"train": SIZES, "test": {"fox": 1}}, (), "test/fox: there is no class of this name in"),
        ({"train": SIZES, "test": {"cat": 0}}, (), "test holds no image;"),
        ({"train": {"cat": 9}, "test": SIZES}, (), "train holds one class folder where"),
        ({"train": {"cat": 9, "dog": 0}, "val": SIZES, "test": SIZES}, (), "no class of this name"),
        ({"train": SIZES | {"fox": 0}, "val": SIZES, "test": SIZES}, (), "1 of 4 classes: fox (0)"),
        ({"train": SIZES, "test": SIZES}, ("--difficulty", 2), "in 1 of 3 classes: eel (2); --dif"),
        ({"train": SIZES, "test": SIZES}, ("--difficulty", 0), "--difficulty 0 is too few"),
        ({"train": SIZES, "test": SIZES}, ("--test", 2), "--test 2 has no effect on"),
        ({"train": SIZES, "val": SIZES, "test": SIZES}, ("--difficulty", 2), "2 has no effect on"),
        ({"train": SIZES, "val": SIZES, "test": SIZES}, ("--split-seed", 2), "2 has no effect on"),
    ],
)
def test_parts_that_cannot_be_taken_as_they_are_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: dict[str, dict[str, int]],
    options: tuple[object, ...],
    words: str,
) -> None:
    assert run(monkeypatch, "split", divided(tmp_path, **parts), *options) == 2
    assert words in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in LISTS)


def test_a_link_from_one_part_to_another_is_refused_before_a_list_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    divided(tmp_path, train=SIZES, val=SIZES, test=SIZES)
    (tmp_path / "test/cat/9.jpg").symlink_to(tmp_path / "train/cat/000.jpg")
    assert run(monkeypatch, "split", tmp_path) == 2
    assert (
        "test/cat/9.jpg of the test part and train/cat/000.jpg of the tr" in capsys.readouterr().err
    )
    assert not any((tmp_path / name).exists() for name in LISTS)


# The split.


def test_each_class_gives_the_same_number_and_keeps_the_rest_for_training() -> None:
    parts = split_tree(tree_of(30, 9, 6), difficulty=2, test=3, split_seed=0)
    counts = {name: part.class_counts(3) for name, part in parts.items()}
    assert counts == {"train": (25, 4, 1), "difficulty": (2, 2, 2), "test": (3, 3, 3)}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_every_image_is_in_exactly_one_part_with_its_own_label(
    extra: list[int], difficulty: int, test: int, seed: int
) -> None:
    tree = tree_of(*(difficulty + test + 1 + more for more in extra))
    parts = split_tree(tree, difficulty, test, seed)
    found = [
        pair
        for part in parts.values()
        for pair in zip(part.paths, part.labels.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(zip(tree.images.paths, tree.images.labels.tolist(), strict=True))
    for part in parts.values():
        assert part.labels.tolist() == sorted(part.labels.tolist())


def test_another_seed_holds_out_others_and_the_same_seed_the_same() -> None:
    tree = tree_of(40, 40)
    first, again, other = (split_tree(tree, 10, 10, seed) for seed in (0, 0, 1))
    for name in first:
        assert first[name].paths == again[name].paths
        assert first[name].paths != other[name].paths


def test_a_seed_has_the_same_test_images_for_every_size_of_the_difficulty_set() -> None:
    tree = tree_of(40, 30)
    small, large = (split_tree(tree, difficulty, 5, 0) for difficulty in (3, 12))
    assert small["test"].paths == large["test"].paths
    assert set(small["difficulty"].paths) < set(large["difficulty"].paths)


def test_classes_that_would_have_nothing_to_train_on_are_named() -> None:
    with pytest.raises(UserError) as refused:
        split_tree(tree_of(30, 5, 6, 0, 5, 5), difficulty=2, test=3, split_seed=0)
    assert str(refused.value).startswith(
        "too few images in 4 of 6 classes: class 1 (5), class 3 (0), class 4 (5) and 1 more; "
        "--difficulty 2 and --test 3 must leave one to train on and so ask for at least 6 of each"
    )


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0, 1, 0), "--difficulty 0 is too few"),
        ((1, 0, 0), "--test 0 is too few"),
        ((1, 1, -1), "--split-seed -1 is negative"),
    ],
)
def test_numbers_that_are_too_small_are_refused(numbers: tuple[int, int, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        split_tree(tree_of(9, 9), *numbers)


# The lists.


def test_the_lists_that_split_writes_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path, **{"big cat": 40, "dog": 7})
    words = ("split", tmp_path, "--difficulty", 2, "--test", 3, "--split-seed", 5)
    assert run(monkeypatch, *words) == 0
    split = load_image_folder(tmp_path)
    expected = split_tree(scan_tree(tmp_path), 2, 3, 5)
    for name, part in split.parts.items():
        assert part.paths == expected[name].paths
        assert torch.equal(part.labels, expected[name].labels)
    assert split.class_names == ("big cat", "dog")
    assert split.train_counts == (35, 2)
    assert find_missing(split) == []
    out = capsys.readouterr().out
    assert "2 classes, imbalance 17.5" in out
    assert "many 0, medium 1, few 1" in out
    assert "wrote train.txt, difficulty.txt, test.txt and classes.txt" in out


def test_splitting_again_writes_the_same_bytes_and_other_lists_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path, cat=9, dog=9)
    words = ("split", tmp_path, "--difficulty", 2, "--test", 2)
    assert run(monkeypatch, *words) == 0
    before = contents(tmp_path)
    assert run(monkeypatch, *words) == 0
    assert contents(tmp_path) == before
    other = (*words, "--split-seed", 1)
    assert run(monkeypatch, *other) == 2
    assert "is there with other content; give --overwrite" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert run(monkeypatch, *other, "--overwrite") == 0
    assert contents(tmp_path) != before
    assert load_image_folder(tmp_path).train_counts == (5, 5)


def test_a_refused_split_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, cat=50, dog=40)
    assert run(monkeypatch, "split", tmp_path) == 2
    assert not any((tmp_path / name).exists() for name in LISTS)


def test_lists_may_lie_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, lists = make_tree(tmp_path / "images", cat=9, dog=9), tmp_path / "new" / "lists"
    before = contents(images)
    words = ("split", images, "--difficulty", 2, "--test", 2)
    assert run(monkeypatch, *words, "--out", lists) == 0
    assert contents(images) == before
    split = load_image_folder(lists)
    assert split.folder == images
    assert find_missing(split) == []
    assert run(monkeypatch, "check", lists) == 0
    assert run(monkeypatch, *words) == 0
    assert load_image_folder(images).digest == split.digest
    (lists / "test.txt").rename(lists / "gone")
    with pytest.raises(
        UserError, match=rf"test\.txt is missing; .*split {images} --out {lists}\.$"
    ):
        load_image_folder(lists)
    (lists / "gone").rename(lists / "test.txt")
    images.rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"image_folder\.txt names .*images, which is missing; write"
    ):
        load_image_folder(lists)
    (lists / "image_folder.txt").write_text("../../moved\n")
    assert find_missing(load_image_folder(lists)) == []
    capsys.readouterr()


def test_a_folder_that_cannot_be_written_is_named_with_an_option_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path, cat=9, dog=9)

    def refuse(path: Path, *content: bytes) -> None:
        raise describe_os_error(OSError(errno.EROFS, "Read-only file system"), path)

    monkeypatch.setattr(image_folder, "write_atomically", refuse)
    assert run(monkeypatch, "split", tmp_path, "--difficulty", 2, "--test", 2) == 2
    assert "choose another folder with --out" in capsys.readouterr().err
    assert run(monkeypatch, "split", "--help") == 0
    assert "--out" in capsys.readouterr().out


def test_replacing_lists_that_stops_halfway_leaves_none_to_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path, cat=9, dog=9)
    tree = scan_tree(tmp_path)
    write_lists(tmp_path, tree.class_names, split_tree(tree, 2, 2, 0), overwrite=False)
    whole, written = image_folder.write_atomically, []

    def write_two(path: Path, content: bytes) -> None:
        if len(written) == 2:
            raise UserError("No room left")
        written.append(path.name)
        whole(path, content)

    monkeypatch.setattr(image_folder, "write_atomically", write_two)
    with pytest.raises(UserError, match="No room left"):
        write_lists(tmp_path, tree.class_names, split_tree(tree, 2, 2, 1), overwrite=True)
    with pytest.raises(UserError, match=r"train\.txt is missing; make the lists with"):
        load_image_folder(tmp_path)


def write_all(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    usual = {"train": "a.jpg 0\nb.jpg 1\n", "difficulty": "c.jpg 0\n", "test": "d.jpg 1\n"}
    for name, text in {**usual, **texts}.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_without_names_of_classes_their_numbers_are_taken(tmp_path: Path) -> None:
    assert load_image_folder(write_all(tmp_path)).class_names == ("0", "1")
    assert load_image_folder(write_all(tmp_path, classes="cat\nwild dog\n")).class_names == (
        "cat",
        "wild dog",
    )


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"train": "a.jpg 1\nb.jpg 2\n"}, "train.txt has no image of class 0;"),
        ({"train": "a.jpg 0\nb.jpg 999999999\n"}, "train.txt has no image of class 1;"),
        ({"classes": "a\nb\nc\n"}, "train.txt has no image of class c (label 2);"),
        ({"train": "a.jpg 1\n", "classes": "a\nb\n"}, "no image of class a (label 0)"),
        ({"classes": "a\n"}, "train.txt, line 2: the label 1 is out of range"),
        ({"test": "d.jpg 2\n"}, "test.txt, line 1: the label 2 is out of range"),
        ({"difficulty": ""}, "difficulty.txt is empty"),
        ({"test": "b.jpg 1\n"}, "test.txt has b.jpg, which train.txt has, too"),
        ({"test": "./b.jpg 1\n"}, "test.txt has ./b.jpg, which train.txt has, too (as b.jpg); an"),
        ({"train": "a.jpg 1\nb.jpg 2\n"}, "class 0; the labels seem to count from 1: subtract 1"),
        ({"train": "a.jpg 1\nb.jpg 3\n"}, "class 0; a class without a training image"),
        ({"difficulty": "d.jpg 1\n"}, "test.txt has d.jpg, which difficulty.txt has, too"),
        ({"classes": "a\na\n"}, "classes.txt, line 2: 'a' is the name in line 1, too"),
        ({"classes": "a\n\nb\n"}, "classes.txt, line 2: it has no name"),
    ],
)
def test_lists_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, texts: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        load_image_folder(write_all(tmp_path, **texts))
    assert words in str(refused.value)


TRAIN = "cat/0.jpg 0\ndog/0.jpg 1\neel/0.jpg 2\n"
INSIDE = "train/cat/0.jpg 0\ntrain/dog/0.jpg 1\ntrain/eel/0.jpg 2\n"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        # Of a part without dogs, counted anew.
        (
            {"train": TRAIN, "test": "cat/1.jpg 0\neel/1.jpg 1\n"},
            "test.txt, line 2: eel/1.jpg has label 1, but in {0}/train.txt the label of the folder "
            "eel is 2; count the classes once, and write the same labels into all lists.",
        ),
        ({"train": TRAIN, "difficulty": "./dog//old/1.jpg 0\n"}, "difficulty.txt, line 1: dog/old"),
        ({"train": INSIDE, "test": "test/cat/1.jpg 0\ntest/eel/1.jpg 1\n"}, "test.txt, line 2: te"),
        (
            {"train": TRAIN, "classes": "cat\neel\ndog\n"},
            "classes.txt, line 2: eel is the name of label 1, but the label of the folder eel is 2",
        ),
        ({"train": INSIDE, "classes": "dog\ncat\neel\n"}, "classes.txt, line 1: dog is the name"),
    ],
)
def test_labels_and_names_that_contradict_the_folders_of_training_are_refused(
    tmp_path: Path, texts: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        load_image_folder(write_all(tmp_path, **texts))
    assert words.format(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "texts",
    [
        {"train": TRAIN, "test": "fox/1.jpg 1\ncat/1.jpg 0\n1.jpg 2\n"},
        # Folders that are no classes: one for all, days with several classes, two days of a class.
        {"train": "x/a.jpg 0\nx/b.jpg 1\n", "test": "x/c.jpg 1\ny/d.jpg 0\n"},
        {"train": "x/a.jpg 0\nx/b.jpg 1\ny/a.jpg 1\n", "test": "y/c.jpg 0\n"},
        {"train": "x/a.jpg 0\ny/b.jpg 1\nz/a.jpg 1\n", "test": "y/c.jpg 0\n"},
        {"train": "a.jpg 0\nx/b.jpg 1\n", "test": "x/c.jpg 0\n"},
        # Names that no folder has, and no names: numbers are no folders' then.
        {"train": TRAIN, "classes": "Katze\nHund\nAal\n"},
        {"train": "1/a.jpg 0\n0/b.jpg 1\n", "test": "1/c.jpg 0\n"},
    ],
)
def test_labels_that_no_folder_contradicts_are_accepted(
    tmp_path: Path, texts: dict[str, str]
) -> None:
    load_image_folder(write_all(tmp_path, **texts))


def test_the_default_folder_is_data_images_unless_the_variable_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDB_IMAGE_FOLDER", raising=False)
    with pytest.raises(UserError, match=r"^data/images is missing; name the folder"):
        load_image_folder()
    monkeypatch.setenv("CDB_IMAGE_FOLDER", str(write_all(tmp_path / "mine")))
    assert load_image_folder().train_counts == (1, 1)


def test_check_names_what_is_missing_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(tmp_path)
    assert run(monkeypatch, "check", tmp_path) == 2
    assert f"{tmp_path}/a.jpg is missing." in capsys.readouterr().out
    for name in "abcd":
        Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.jpg")
    assert run(monkeypatch, "check", tmp_path, "--decode") == 0
    assert "all 4 images are there and can be read" in capsys.readouterr().out


# The example.


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture
def small_profile(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Three images of two classes."""
    small = {"red_four": 2, "outlined_nine": 1}
    monkeypatch.setattr(image_example, "PROFILE", small)
    monkeypatch.setattr(image_example, "EXTRA", 0)
    return small


def test_the_example_has_10_classes_an_imbalance_of_80_and_all_three_shot_groups(
    digits: Digits,
) -> None:
    images = plan_example(digits)
    tree = tree_of(*(size + EXTRA for size in PROFILE.values()))
    assert len(images) == len({image.file for image in images}) == len(tree.images)
    counts = split_tree(tree, 20, 20, 0)["train"].class_counts(len(PROFILE))
    assert counts == tuple(PROFILE.values())
    assert len(counts) == 10
    assert max(counts) / min(counts) == 80
    groups = [
        sum(low < n <= high for n in counts) for low, high in ((100, 999), (20, 100), (0, 20))
    ]
    assert groups == [1, 4, 5]


def test_no_two_images_of_the_example_show_the_same_handwriting(digits: Digits) -> None:
    shown = [image.scene.instances[0] for image in plan_example(digits)]
    used = [instance.digit for instance in shown]
    assert len(set(used)) == len(used)
    for instance in shown:
        category = CATEGORIES[instance.category]
        assert int(digits.train_labels[instance.digit]) == category.digit


def test_images_of_the_example_vary_in_size_and_proportion(digits: Digits) -> None:
    shapes = [render_example(image, digits).shape for image in plan_example(digits)[::40]]
    assert all(24 <= side <= 128 for shape in shapes for side in shape[:2])
    ratios = [width / height for height, width, _ in shapes]
    assert max(ratios) / min(ratios) > 1.5
    assert len(set(shapes)) > len(shapes) / 2


def test_the_example_can_be_read_and_making_it_again_changes_nothing(
    tmp_path: Path, small_profile: dict[str, int]
) -> None:
    folder = tmp_path / "example"
    assert make_example(folder) == 3
    before = contents(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert sorted(before) == [
        "image_folder_example.json",
        "outlined_nine/000.png",
        "red_four/000.png",
        "red_four/001.jpg",
    ]
    images = [folder / name for name in before if not name.endswith(".json")]
    assert find_unreadable(images) == []
    assert scan_tree(folder).images.class_counts(2) == (1, 2)
    make_example(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == stamps


def test_a_damaged_or_missing_image_of_the_example_is_made_anew(
    tmp_path: Path, small_profile: dict[str, int]
) -> None:
    make_example(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "red_four" / "000.png").write_bytes(b"")
    (tmp_path / "red_four" / "001.jpg").unlink()
    make_example(tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, small_profile: dict[str, int]
) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="is not empty and was not made by this command"):
        make_example(tmp_path)
    assert contents(tmp_path) == {"mine.jpg": b"mine"}


def test_the_example_command_says_what_to_do_next(
    tmp_path: Path,
    small_profile: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "example"
    assert run(monkeypatch, "example", folder) == 0
    said = f"next: make the lists with: python -m data_prep.image_folder split {folder}\n"
    assert said in capsys.readouterr().out
    assert run(monkeypatch, "split", folder) == 2
