"""Lists of images: reading, the digest, files that are missing or unreadable."""

import errno
import gzip
import io
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from data_prep.image_check import check_images, find_unreadable, print_split
from data_prep.image_list import (
    ImageList,
    ImageSplit,
    find_missing,
    lists_digest,
    read_image_list,
    require_images,
)


def image_list(*lines: tuple[str, int]) -> ImageList:
    return ImageList(
        tuple(path for path, _ in lines), torch.tensor([label for _, label in lines]).long()
    )


def split_of(folder: Path) -> ImageSplit:
    """Three images to train on, one each to measure and to test on, of two classes."""
    parts = {
        "train": image_list(("cat/a.png", 0), ("cat/b.png", 0), ("dog/a b.png", 1)),
        "difficulty": image_list(("cat/c.png", 0)),
        "test": image_list(("top.png", 1)),
    }
    return ImageSplit(folder, **parts, class_names=("cat", "dog"), digest=lists_digest(parts))


def png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_images(split: ImageSplit) -> None:
    for part in split.parts.values():
        for path in part.paths:
            (split.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (split.folder / path).write_bytes(png())


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


# Reading.


def test_a_line_is_a_path_that_may_hold_blanks_and_a_label(tmp_path: Path) -> None:
    file = write(tmp_path / "list.txt", "cat/a.jpg 0\nmy dog/a  b 3.jpg 12\n猫/\u3000.png\t1\n")
    found = read_image_list(file)
    assert found.paths == ("cat/a.jpg", "my dog/a  b 3.jpg", "猫/\u3000.png")
    assert found.labels.tolist() == [0, 12, 1]
    assert found.labels.dtype == torch.int64
    assert len(found) == 3
    assert found.class_counts(14) == (1, 1, *[0] * 10, 1, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"a.jpg 0\nb.jpg 1",
        b"a.jpg 0\nb.jpg 1\n\n\n",
        b"\xef\xbb\xbfa.jpg 0\r\nb.jpg 1\r\n",
        b"a.jpg   0 \nb.jpg\t01\n",
    ],
)
def test_line_ends_a_byte_order_mark_and_wide_gaps_make_no_difference(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    found = read_image_list(tmp_path / "list.txt", 2)
    assert found.paths == ("a.jpg", "b.jpg")
    assert found.labels.tolist() == [0, 1]


def test_a_packed_list_reads_as_the_plain_one(tmp_path: Path) -> None:
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(b"a.jpg 1\n"))
    assert read_image_list(tmp_path / "list.txt.gz").paths == ("a.jpg",)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a.jpg 0\nb.jpg\nc.jpg 0\n", 2, "'b.jpg' is not 'PATH LABEL'"),
        ("a.jpg 0\n\nc.jpg 0\n", 2, "it is empty; take out the line"),
        ("a.jpg 0\nb.jpg one\n", 2, "the label 'one' is not a whole number"),
        ("a.jpg 0\nb.jpg -1\n", 2, "the label '-1' is not a whole number"),
        ("a.jpg 0\nb.jpg 1.0\n", 2, "the label '1.0' is not a whole number"),
        ("a.jpg 0\nb.jpg ٣\n", 2, "the label '٣' is not a whole number"),
        ("a.jpg 0\nb.jpg 9999999999\n", 2, "the label '9999999999' is not a whole number"),
        ("a.jpg 2\nb.jpg 3\nc.jpg 3\n", 2, "the label 3 is out of range; there are 3 classes"),
        ("a.jpg 1\nb.jpg 3\nc.jpg 2\n", 2, "0 to 2; the labels seem to count from 1: subtract 1"),
        ("a.jpg 0\nb.jpg 3\nc.jpg 2\n", 2, "classes, 0 to 2."),
        ("a/0.jpg 0\n./a/0.jpg 1\n", 2, "./a/0.jpg stands in line 1 too (as a/0.jpg)"),
        ("a//0.jpg 0\na/./0.jpg 0\n", 2, "a/./0.jpg stands in line 1 too (as a//0.jpg)"),
        ("a.jpg 0\nb.jpg 0\nc.jpg 0\nb.jpg 1\n", 4, "b.jpg stands in line 2 too"),
        ("/tmp/a.jpg 0\n", 1, "is not a path below the folder"),
        ("a/../../b.jpg 0\n", 1, "is not a path below the folder"),
        ("a.jpg 0\na\x00.jpg 0\n", 2, "is not a path below the folder"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_number(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    file = write(tmp_path / "list.txt", text)
    with pytest.raises(UserError) as refused:
        read_image_list(file, 3)
    assert str(refused.value).startswith(f"{file}, line {line}: ")
    assert words in str(refused.value)


def test_without_a_number_of_classes_any_label_is_taken(tmp_path: Path) -> None:
    assert read_image_list(write(tmp_path / "a.txt", "a.jpg 999999999\n")).labels.tolist() == [
        999_999_999
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a\xff.jpg 0\n", "is not text in UTF-8"),
    ],
)
def test_a_list_without_lines_or_of_other_bytes_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"list\.txt {words}"):
        read_image_list(tmp_path / "list.txt")


def test_missing_truncated_and_unpacked_files_are_refused_by_name(tmp_path: Path) -> None:
    packed = gzip.compress(b"a.jpg 0\n" * 100)
    (tmp_path / "cut.gz").write_bytes(packed[:-9])
    (tmp_path / "plain.gz").write_bytes(b"a.jpg 0\n")
    for name, words in (
        ("nowhere.txt", "is missing"),
        ("cut.gz", "is truncated or damaged"),
        ("plain.gz", "is truncated or damaged"),
    ):
        with pytest.raises(UserError, match=rf"{name} {words}"):
            read_image_list(tmp_path / name)
    with pytest.raises(UserError, match="Is a directory"):
        read_image_list(tmp_path)


_names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_names.map(lambda name: f"x/{name}.jpg"), st.integers(0, 5), min_size=1))
def test_what_is_written_is_read_and_counted(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, int]
) -> None:
    file = tmp_path_factory.mktemp("lists") / "list.txt"
    write(file, "".join(f"{path} {label}\n" for path, label in labels.items()))
    found = read_image_list(file, 6)
    assert dict(zip(found.paths, found.labels.tolist(), strict=True)) == labels
    counts = Counter(labels.values())
    assert found.class_counts(6) == tuple(counts[label] for label in range(6))


def test_a_list_as_long_as_imagenet_lts_is_read_in_seconds(tmp_path: Path) -> None:
    lines = (f"train/n{n % 1000:08d}/n{n % 1000:08d}_{n}.JPEG {n % 1000}\n" for n in range(115_846))
    file = write(tmp_path / "list.txt", "".join(lines))
    start = time.process_time()
    assert len(read_image_list(file, 1000)) == 115_846
    # A second search of the list for each of its lines would take an hour.
    assert time.process_time() - start < 5


def test_the_digest_changes_with_every_path_label_and_border_between_parts() -> None:
    first = image_list(("a", 0), ("b", 1))
    second = image_list(("c", 0))
    digests = {
        lists_digest(parts)
        for parts in (
            {"train": first, "test": second},
            {"train": image_list(("a", 0), ("b", 0)), "test": second},
            {"train": image_list(("a", 0), ("d", 1)), "test": second},
            {"train": image_list(("a", 0)), "test": image_list(("b", 1), ("c", 0))},
            {"train": first, "difficulty": second},
        )
    }
    assert len(digests) == 5
    assert lists_digest({"train": first}) == lists_digest({"train": image_list(("a", 0), ("b", 1))})


def test_a_split_counts_its_classes_and_takes_its_imbalance_from_training(tmp_path: Path) -> None:
    split = split_of(tmp_path)
    assert split.num_classes == 2
    assert (split.train_counts, split.difficulty_counts, split.test_counts) == (
        (2, 1),
        (1, 0),
        (0, 1),
    )
    assert split.imbalance == 2


# Files that are missing.


def test_missing_files_are_named_in_the_order_of_the_lists(tmp_path: Path) -> None:
    split = split_of(tmp_path)
    write_images(split)
    assert find_missing(split) == []
    for path in ("top.png", "cat/b.png", "dog/a b.png"):
        (tmp_path / path).unlink()
    (tmp_path / "dog").rmdir()
    assert find_missing(split) == ["cat/b.png", "dog/a b.png", "top.png"]


def test_find_missing_equals_asking_for_each_file(tmp_path: Path) -> None:
    split = split_of(tmp_path)
    write_images(split)
    everything = [path for part in split.parts.values() for path in part.paths]
    for removed in everything:
        (tmp_path / removed).unlink()
        literal = [path for path in everything if not (tmp_path / path).is_file()]
        assert find_missing(split) == literal


def test_required_images_are_refused_with_their_number_and_the_first_few(tmp_path: Path) -> None:
    split = split_of(tmp_path)
    with pytest.raises(UserError) as refused:
        require_images(split, "bring them")
    assert str(refused.value) == (
        f"{tmp_path}: 5 of 5 images are missing, such as cat/a.png, cat/b.png, dog/a b.png, "
        "cat/c.png, top.png; bring them."
    )
    write_images(split)
    require_images(split, "bring them")


def linked(folder: Path) -> ImageSplit:
    """Each part has an image of its own; that of test is a link to the training part's."""
    parts = {
        "train": image_list(("cat/a.png", 0)),
        "difficulty": image_list(("cat/b.png", 0)),
        "test": image_list(("cat/c.png", 0)),
    }
    (folder / "cat").mkdir()
    for name in "ab":
        (folder / "cat" / f"{name}.png").write_bytes(png())
    (folder / "cat/c.png").symlink_to("a.png")
    return ImageSplit(folder, **parts, class_names=("cat",), digest="")


def test_a_link_in_one_part_to_an_image_of_another_is_refused_where_images_must_differ(
    tmp_path: Path,
) -> None:
    split = linked(tmp_path)
    require_images(split, "")
    with pytest.raises(UserError) as refused:
        require_images(split, "", distinct=True)
    assert str(refused.value) == (
        f"{tmp_path}: cat/c.png of the test part and cat/a.png of the train part are one file "
        "(links are followed); an image may be in one part only."
    )
    with pytest.raises(UserError, match="are one file"):
        check_images(split, False, "", own=True)
    (tmp_path / "cat/c.png").unlink()
    (tmp_path / "cat/c.png").symlink_to(tmp_path / "elsewhere.png")
    require_images(split, "", distinct=True)


def test_a_folder_that_is_a_link_hides_no_image_that_is_in_two_parts(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "kitten").symlink_to("cat")
    for name in "abc":
        (tmp_path / "cat" / f"{name}.png").write_bytes(png())
    parts = {
        "train": image_list(("cat/a.png", 0), ("cat/b.png", 0)),
        "difficulty": image_list(("kitten/c.png", 0)),
        "test": image_list(("kitten/b.png", 0)),
    }
    split = ImageSplit(tmp_path, **parts, class_names=("cat",), digest="")
    with pytest.raises(
        UserError, match=r"kitten/b\.png of the test part and cat/b\.png of the tra"
    ):
        require_images(split, "", distinct=True)


@pytest.mark.parametrize(
    ("written", "there", "words"),
    [
        ("cat\\a.png", "cat/a.png", "with '/' in place of"),
        ('"cat/a.png"', "cat/a.png", "without quotation marks"),
        ("'cat/a.png'", "cat/a.png", "without quotation marks"),
        (" cat/a.png", "cat/a.png", "without the blank before it"),
        ("cat/u\u0308.png", "cat/\u00fc.png", r"in another form of Unicode \(NFC\)"),
        ("cat/\u00fc.png", "cat/u\u0308.png", r"in another form of Unicode \(NFD\)"),
    ],
)
def test_a_path_that_is_only_written_otherwise_is_named_for_what_it_is(
    tmp_path: Path, written: str, there: str, words: str
) -> None:
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).write_bytes(png())
    file = write(tmp_path / "list.txt", f"{written} 0\n")
    part = read_image_list(file)
    split = ImageSplit(tmp_path, part, part, part, ("cat",), "")
    said = rf"is there {words}.*: write the paths of the lists so\.$"
    with pytest.raises(UserError, match=said):
        require_images(split, "bring them")
    with pytest.raises(UserError, match=said):
        check_images(split, False, "bring them")


# Files that cannot be read.


def test_every_unreadable_image_is_named_in_order_and_no_other(tmp_path: Path) -> None:
    whole = png()
    contents = {
        "whole.png": whole,
        "cut.png": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.jpg": b"<html>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in (*contents, "nowhere.png")]
    found = find_unreadable(paths, threads=2)
    assert [sentence.split(" cannot be read as an image (")[0] for sentence in found] == [
        str(path) for path in paths[1:]
    ]
    assert "No such file" in found[-1]


def test_a_truncated_jpeg_whose_header_is_whole_is_unreadable(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:-500])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (64, 64)
    assert len(find_unreadable([tmp_path / "a.jpg"])) == 1


def test_more_images_than_one_piece_of_work_are_all_decoded(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(100)]
    for number, path in enumerate(paths):
        path.write_bytes(b"" if number % 10 == 3 else png())
    found = find_unreadable(paths, threads=3)
    assert [sentence.split(" cannot ")[0] for sentence in found] == [str(p) for p in paths[3::10]]


def test_an_error_that_no_reader_foresaw_is_a_finding_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(picture: Image.Image) -> Image.Image:
        raise IndexError("odd")

    (tmp_path / "a.png").write_bytes(png())
    monkeypatch.setattr("data_prep.image_check.as_rgb", fail)
    assert find_unreadable([tmp_path / "a.png"]) == [
        f"{tmp_path}/a.png cannot be read as an image (IndexError('odd')); get it again."
    ]


def test_check_names_missing_and_unreadable_images_and_reports_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split, report = split_of(tmp_path), tmp_path / "report.txt"
    write_images(split)
    check_images(split, True, "mend them", report=report)
    assert "all 5 images are there and can be read" in capsys.readouterr().out
    assert report.read_text() == ""
    (tmp_path / "top.png").unlink()
    (tmp_path / "cat" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="of 5 images 1 missing; mend them"):
        check_images(split, False, "mend them")
    with pytest.raises(UserError, match="1 missing and 1 unreadable; mend them"):
        check_images(split, True, "mend them", report=report)
    first, second = report.read_text().splitlines()
    assert first == f"{tmp_path / 'top.png'} is missing."
    assert second.startswith(f"{tmp_path / 'cat' / 'a.png'} cannot be read as an image (")
    assert first in capsys.readouterr().out


def test_a_decoding_check_says_what_is_turned_dropped_or_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(io.BytesIO(png()))
    picture.save(tmp_path / "turned.jpg", exif=exif)
    picture.convert("RGBA").save(tmp_path / "clear.png")
    picture.save(tmp_path / "two.tif", save_all=True, append_images=[picture])
    train = image_list(("turned.jpg", 0), ("clear.png", 0))
    part = image_list(("two.tif", 0))
    split = ImageSplit(tmp_path, train, part, part, ("a",), "")
    check_images(split, True, "", own=True)
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"{tmp_path}: 1 of 4 images turned as EXIF says",
        f"{tmp_path}: 1 of 4 images see-through in places, which is dropped",
        f"{tmp_path}: 2 of 4 images with several pictures, of which the first is read",
    ]
    check_images(split, True, "")
    assert "EXIF" not in capsys.readouterr().out


def test_only_the_first_twenty_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = image_list(*((f"{number}.png", 0) for number in range(30)))
    other = image_list(("x.png", 0))
    split = ImageSplit(tmp_path, train, other, image_list(("y.png", 0)), ("a",), "")
    with pytest.raises(UserError, match="of 32 images 32 missing"):
        check_images(split, False, "mend them")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "... and 12 more; name a file with --report for all"
    assert len(lines) == 21


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    split = split_of(tmp_path)
    with pytest.raises(UserError, match="--threads is for decoding"):
        check_images(split, False, "", threads=2)
    with pytest.raises(UserError, match="--threads 0 is too few"):
        find_unreadable([], threads=0)
    with pytest.raises(UserError, match="there is no folder"):
        check_images(split, False, "", report=tmp_path / "no" / "report.txt")


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match=r"cat cannot be written or read \(Permission denied\)"):
        find_missing(split_of(tmp_path))


def test_the_table_has_a_line_a_class_and_the_sums(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_split(split_of(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["cat", "2", "1", "0", "few"]
    assert lines[2].split() == ["dog", "1", "0", "1", "few"]
    assert "train: 3 images, 1 to 2 a class" in lines
    assert "2 classes, imbalance 2 (largest over smallest)" in lines
    assert lines[-2].endswith("many 0, medium 0, few 2")
