"""The user's own folder of images: split, lists, check, and the example."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError, run_main
from data_prep import image_example, image_folder
from data_prep.digit_plan import CATEGORIES
from data_prep.image_check import find_unreadable
from data_prep.image_example import EXTRA, PROFILE, make_example, plan_example, render_example
from data_prep.image_folder import (
    ImageTree,
    load_image_folder,
    scan_tree,
    split_tree,
    write_lists,
)
from data_prep.image_list import ImageList, find_missing
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


def test_images_of_all_five_kinds_are_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    make_tree(tmp_path, cat=0, dog=1)
    for name in ("a.JPG", "b.jpeg", "c.PnG", "d.webp", "e.bmp", "f.gif", "g.txt", ".h.jpg"):
        (tmp_path / "cat" / name).touch()
    for name in ("cat/sub/deep/i.jpg", "cat/.hidden/j.jpg", ".cache/k.jpg", "l.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tree = scan_tree(tmp_path)
    assert tree.class_names == ("cat", "dog")
    assert tree.images.paths == (
        *(f"cat/{name}" for name in ("a.JPG", "b.jpeg", "c.PnG", "d.webp", "e.bmp")),
        "cat/sub/deep/i.jpg",
        "dog/000.jpg",
    )
    assert tree.images.labels.tolist() == [0] * 6 + [1]
    assert tree.outside == 1


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
    with pytest.raises(UserError, match=r"holds 0 class folders where at least 2 belong"):
        scan_tree(tmp_path)
    with pytest.raises(UserError, match=r"holds 1 class folders where at least 2 belong"):
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
        "4 classes have too few images: class 1 (5), class 3 (0), class 4 (5) and 1 more; "
        "--difficulty 2 and --test 3 need at least 6 of each class"
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
