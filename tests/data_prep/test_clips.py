import hashlib
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data_prep import clips
from data_prep.clips import (
    ClipList,
    VerbSplit,
    check_clips,
    check_folder,
    find_clips,
    print_split,
    read_splits,
    scan_clips,
    split_notes,
)

VERBS = "Take 1\nTurn on 2\nPut 3\n"
TRAIN = "a 1 1 1\nb 1 1 1 2\nc 2 2 1 2 3\nd 3 3 7\n"
DIFFICULTY = "e 1 1 1\nf 3 3 7\n"
TEST = "g 2 2 4\n"
FILES = {
    "verb_idx.txt": VERBS,
    "train_split.txt": TRAIN,
    "val_split.txt": DIFFICULTY,
    "test_split.txt": TEST,
}


def write_split(folder: Path, **changed: str) -> Path:
    """The four files, some with other content; a keyword is the name without its ending."""
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        text = changed.get(name.removesuffix(".txt"), content)
        (folder / name).write_bytes(text.encode())
    return folder


def made_split(train: list[int], difficulty: list[int], test: list[int]) -> VerbSplit:
    """A split with so many clips of each verb in its parts; verbs are A, B, C, ..."""

    def part(name: str, counts: list[int]) -> ClipList:
        labels = tuple(c for c, count in enumerate(counts) for _ in range(count))
        return ClipList(tuple(f"{name}{i}" for i in range(len(labels))), labels)

    names = tuple(chr(ord("A") + c) for c in range(len(train)))
    parts = part("train", train), part("difficulty", difficulty), part("test", test)
    return VerbSplit(names, *parts)


# Reading.


def test_a_split_is_read_with_labels_from_0_and_val_as_the_difficulty_set(tmp_path: Path) -> None:
    split = read_splits(write_split(tmp_path))
    assert split.class_names == ("Take", "Turn on", "Put")
    assert split.train == ClipList(("a", "b", "c", "d"), (0, 0, 1, 2))
    assert split.difficulty == ClipList(("e", "f"), (0, 2))
    assert split.test == ClipList(("g",), (1,))
    assert split.clips == ("a", "b", "c", "d", "e", "f", "g")


def test_verbs_without_a_difficulty_or_a_test_clip_are_allowed_and_count_0(tmp_path: Path) -> None:
    split = read_splits(write_split(tmp_path))
    assert split.train_counts == (2, 1, 1)
    assert split.difficulty_counts == (1, 0, 1)
    assert split.test_counts == (0, 1, 0)
    assert split.imbalance == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("verb_idx", "Put 3\nTake 1\nTurn on 2\n"),
        ("train_split", TRAIN.replace("\n", "\r\n")),
        ("train_split", TRAIN.removesuffix("\n")),
        ("train_split", "\ufeff" + TRAIN),
    ],
)
def test_order_of_verbs_line_ends_and_byte_order_mark_do_not_matter(
    name: str, content: str, tmp_path: Path
) -> None:
    plain = read_splits(write_split(tmp_path / "plain"))
    assert read_splits(write_split(tmp_path / "other", **{name: content})) == plain


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("train_split", "a 1 1\n", r"train_split.txt, line 1: 3 fields where 4 to 6"),
        ("val_split", "e 1 1 1\nf 1 1 1 1 1 1\n", r"val_split.txt, line 2: 7 fields"),
        ("test_split", "g 1 1 1\n\n", r"test_split.txt, line 2: 1 fields"),
        ("test_split", "g  1 1\n", r"test_split.txt, line 1: action id '' is not a whole"),
        ("test_split", "g\t1\t1\t1\n", r"test_split.txt, line 1: 1 fields"),
        ("test_split", "g x 1 1\n", r"test_split.txt, line 1: action id 'x' is not a whole"),
        ("test_split", "g 1 -1 1\n", r"test_split.txt, line 1: verb id '-1' is not a whole"),
        ("test_split", "g 1 0 1\n", r"test_split.txt, line 1: verb id '0' is not a whole"),
        ("test_split", "g 1 1.0 1\n", r"test_split.txt, line 1: verb id '1.0' is not"),
        ("test_split", "g 1 \u0661 1\n", "test_split.txt, line 1: verb id '\u0661' is not"),
        ("test_split", f"g 1 {'9' * 5000} 1\n", r"test_split.txt, line 1: verb id '99"),
        ("test_split", "g 1 4 1\n", r"line 1: verb id 4 is out of range; verb_idx.txt names 1 to"),
        ("test_split", "g 1 1 1 0\n", r"test_split.txt, line 1: noun id '0' is not"),
        ("test_split", " 1 1 1\n", r"test_split.txt, line 1: '' is not the name of a clip"),
        ("test_split", "../g 1 1 1\n", r"line 1: '../g' is not the name of a clip"),
        ("test_split", "g\x00 1 1 1\n", r"line 1: 'g\\x00' is not the name of a clip"),
        ("train_split", TRAIN + "a 1 1 1\n", r"train_split.txt, line 5: clip a .*line 1 too"),
        ("test_split", "b 1 1 1\n", r"test_split.txt, line 1: clip b .*train_split.txt, line 2"),
        ("val_split", "", r"val_split.txt is empty"),
        ("train_split", "a 1 1 1\nd 3 3 7\n", r"train_split.txt has no clip of the verb Turn on"),
        ("verb_idx", "", r"verb_idx.txt is empty"),
        ("verb_idx", "Take 1\nPut\n", r"verb_idx.txt, line 2: 'Put' is not 'NAME ID'"),
        ("verb_idx", "Take 1\nPut two\n", r"verb_idx.txt, line 2: verb id 'two' is not"),
        ("verb_idx", "Take 1\nPut 3\n", r"verb_idx.txt has no verb with id 2"),
        ("verb_idx", "Take 1\nPut 1\n", r"verb_idx.txt, line 2: 'Put 1' repeats"),
        ("verb_idx", "Take 1\nTake 2\n", r"verb_idx.txt, line 2: 'Take 2' repeats"),
    ],
)
def test_a_wrong_line_is_refused_with_file_and_line(
    name: str, content: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        read_splits(write_split(tmp_path, **{name: content}))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (write_split(tmp_path) / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        read_splits(tmp_path)


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    (write_split(tmp_path) / "test_split.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"test_split\.txt is not text in UTF-8"):
        read_splits(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    (write_split(tmp_path) / "test_split.txt").unlink()
    (tmp_path / "test_split.txt").mkdir()
    with pytest.raises(UserError, match=r"test_split\.txt"):
        read_splits(tmp_path)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(7, 12))
def test_counts_equal_a_literal_count(labels: list[int], num_classes: int) -> None:
    part = ClipList(tuple(map(str, range(len(labels)))), tuple(labels))
    assert part.counts(num_classes) == tuple(labels.count(c) for c in range(num_classes))


# Head and tail, digest, notes.


def test_the_head_is_the_five_most_frequent_verbs_of_train_and_difficulty_together() -> None:
    # Train + difficulty: 2 5 10 7 7 3 9. By train alone, verb A (index 0) would not be last.
    split = made_split([1, 4, 9, 1, 6, 2, 3], [1, 1, 1, 6, 1, 1, 6], [1] * 7)
    assert split.frequency == (2, 5, 10, 7, 7, 3, 9)
    # Of two equal ones the lower label comes first.
    assert split.head == (2, 6, 3, 4, 1)
    assert split.tail == (5, 0)
    assert split.average_frequency(split.head) == (10 + 9 + 7 + 7 + 5) / 5
    assert split.average_frequency(split.tail) == 2.5


def test_a_split_of_three_verbs_is_all_head_and_its_tail_has_no_average() -> None:
    split = made_split([3, 2, 1], [1, 1, 1], [1, 1, 1])
    assert (split.head, split.tail) == ((0, 1, 2), ())
    assert math.isnan(split.average_frequency(split.tail))


def test_the_digest_is_the_sha256_of_clips_and_labels_part_after_part(tmp_path: Path) -> None:
    text = "train 4\na 0\nb 0\nc 1\nd 2\ndifficulty 2\ne 0\nf 2\ntest 1\ng 1\n"
    split = read_splits(write_split(tmp_path))
    assert split.digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [
        {"train_split": TRAIN.replace("a 1", "z 1")},
        {"train_split": TRAIN.replace("b 1 1", "b 1 2")},
        {"val_split": "e 1 1 1\n", "train_split": TRAIN + "f 3 3 7\n"},
        {"test_split": TEST + "h 1 1 1\n"},
    ],
)
def test_another_clip_label_or_part_changes_the_digest(
    changed: dict[str, str], tmp_path: Path
) -> None:
    plain = read_splits(write_split(tmp_path / "plain"))
    assert read_splits(write_split(tmp_path / "other", **changed)).digest != plain.digest


def test_nouns_and_actions_do_not_change_the_digest(tmp_path: Path) -> None:
    plain = read_splits(write_split(tmp_path / "plain"))
    other = write_split(tmp_path / "other", test_split="g 9 2 8 7\n")
    assert read_splits(other).digest == plain.digest


def test_an_even_split_needs_no_note() -> None:
    assert split_notes(made_split([9, 1], [4, 4], [2, 2])) == []


def test_the_notes_name_the_smallest_and_largest_verb_and_the_step_of_the_accuracy() -> None:
    split = made_split([9, 5, 5], [447, 6, 50], [3, 3, 3])
    assert split_notes(split) == [
        "The difficulty set is not balanced: 6 (B) to 447 (A) clips a verb; the accuracy of a verb "
        "with 6 clips moves in steps of 0.17."
    ]


def test_the_notes_name_verbs_that_are_not_measured_and_leave_them_out_of_the_smallest() -> None:
    split = made_split([9, 5, 5, 5], [8, 0, 1, 1], [0, 2, 2, 2])
    assert split_notes(split) == [
        "The difficulty set has no clip of B: its difficulty is not measured and stays 1.",
        "The difficulty set is not balanced: 1 (C and 1 more) to 8 (A) clips a verb; the accuracy "
        "of a verb with 1 clip moves in steps of 1.",
        "The test set has no clip of A: its test accuracy is not given.",
    ]


def test_print_split_shows_every_verb_the_sums_and_the_notes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    split = made_split([9, 5, 5, 5, 5, 3], [2] * 6, [1, 1, 1, 1, 1, 2])
    print_split(split)
    assert capsys.readouterr().out.splitlines() == [
        "verb  train  difficulty   test  group",
        "A         9           2      1  head",
        "B         5           2      1  head",
        "C         5           2      1  head",
        "D         5           2      1  head",
        "E         5           2      1  head",
        "F         3           2      2  tail",
        "all      32          12      7",
        "imbalance 3 (largest over smallest number of training clips)",
        "The test set is not balanced: 1 (A and 4 more) to 2 (F) clips a verb; the accuracy of a "
        "verb with 1 clip moves in steps of 1.",
        f"digest {split.digest}",
    ]


# Finding clips.


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"video")
    return path


def test_clips_are_found_flat_and_in_sub_folders_with_every_suffix(tmp_path: Path) -> None:
    wanted = {
        "e": touch(tmp_path / "e.mp4"),
        "d": touch(tmp_path / "one" / "d.avi"),
        "c": touch(tmp_path / "one" / "two" / "c.MKV"),
        "b.1": touch(tmp_path / "b.1.mov"),
        "a": touch(tmp_path / "three" / "a.webm"),
    }
    touch(tmp_path / "other.mp4")
    touch(tmp_path / "e.txt")
    touch(tmp_path / "._e.mp4")
    found = find_clips(tmp_path, wanted)
    assert found == wanted
    assert list(found) == list(wanted)


def test_missing_clips_are_refused_the_first_few_by_name_and_with_their_number(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "c2.mp4")
    with pytest.raises(UserError) as caught:
        find_clips(tmp_path, [f"c{i}" for i in range(7)], "say --folder")
    assert str(caught.value) == (
        f"6 of the 7 clips are not in {tmp_path}, or are there twice; say --folder. "
        "c0 is missing. c1 is missing. c3 is missing. (3 more.)"
    )


def test_two_files_of_one_clip_are_refused_by_name(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a.avi"), touch(tmp_path / "sub" / "a.mp4")
    with pytest.raises(UserError, match=f"a has more than one file: {first}, {second}"):
        find_clips(tmp_path, ["a"])


def test_two_files_of_a_clip_that_is_not_asked_for_are_no_mistake(tmp_path: Path) -> None:
    touch(tmp_path / "a.avi")
    touch(tmp_path / "a.mp4")
    path = touch(tmp_path / "b.mp4")
    assert find_clips(tmp_path, ["b"]) == {"b": path}


def test_a_name_in_other_upper_and_lower_case_is_not_the_clip_and_is_named(tmp_path: Path) -> None:
    path = touch(tmp_path / "p01-r01.mp4")
    with pytest.raises(
        UserError, match=f"P01-R01 is missing; {path} differs in upper and lower case"
    ):
        find_clips(tmp_path, ["P01-R01"])


def test_a_folder_with_the_name_of_a_clip_is_not_the_clip(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert scan_clips(tmp_path, ["a"]).missing == ["a"]


@pytest.mark.parametrize(("name", "sentence"), [("no", "is missing"), ("file", "is a file")])
def test_a_folder_that_is_none_is_refused_with_the_remedy(
    name: str, sentence: str, tmp_path: Path
) -> None:
    touch(tmp_path / "file")
    with pytest.raises(UserError, match=f"{name} {sentence}; say --folder"):
        find_clips(tmp_path / name, ["a"], "say --folder")


def test_linked_sub_folders_are_followed_and_a_circle_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "a.mp4")
    root = tmp_path / "clips"
    root.mkdir()
    (root / "recording").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(root)
    assert find_clips(root, ["a"]) == {"a": root / "recording" / "a.mp4"}


@settings(max_examples=25, deadline=None)
@given(st.sets(st.text("abAB", min_size=1, max_size=2), min_size=1, max_size=6), st.data())
def test_every_clip_is_either_found_or_missing(names: set[str], data: st.DataObject) -> None:
    present = data.draw(st.sets(st.sampled_from(sorted(names))))
    with tempfile.TemporaryDirectory() as folder:
        for name in present:
            touch(Path(folder, f"{name}.mp4"))
        files = scan_clips(Path(folder), sorted(names))
    assert set(files.found) == present
    assert set(files.missing) == names - present
    assert not files.doubled


# Checking clips.


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands for the reader of videos: a file that holds 'broken' is unreadable."""
    seen: list[Path] = []

    def probe(path: Path) -> None:
        seen.append(path)
        if not path.exists() or path.read_bytes() == b"broken":
            raise UserError(f"{path} cannot be used.")

    monkeypatch.setattr(clips, "_load_decoder", lambda: probe)
    return seen


def folder_with(folder: Path, *names: str, broken: tuple[str, ...] = ()) -> Path:
    for name in names:
        touch(folder / f"{name}.mp4")
    for name in broken:
        touch(folder / f"{name}.mp4").write_bytes(b"broken")
    return folder


def test_every_unreadable_clip_has_its_sentence_in_the_order_given(
    tmp_path: Path, probed: list[Path]
) -> None:
    folder_with(tmp_path, "a", "c", broken=("b", "d"))
    paths = [tmp_path / f"{name}.mp4" for name in ("d", "a", "e", "b", "c")]
    wanted = [f"{tmp_path / name}.mp4 cannot be used." for name in ("d", "e", "b")]
    assert check_clips(paths, threads=3) == wanted
    assert sorted(probed) == sorted(paths)


def test_no_clip_at_all_is_nothing_to_say(probed: list[Path]) -> None:
    assert check_clips([], threads=1) == []
    assert probed == []


def test_clips_are_read_by_as_many_threads_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # Passes only if all three are inside at the same time.
    together = threading.Barrier(3, timeout=20)
    monkeypatch.setattr(clips, "_load_decoder", lambda: lambda path: together.wait())
    assert check_clips([Path(name) for name in "abc"], threads=3) == []


def test_an_interrupted_check_does_not_read_the_waiting_clips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[Path] = []

    def probe(path: Path) -> None:
        started.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(clips, "_load_decoder", lambda: probe)
    with pytest.raises(KeyboardInterrupt):
        check_clips([Path(str(i)) for i in range(20_000)], threads=1)
    assert len(started) < 20_000


def test_too_few_threads_are_refused(probed: list[Path]) -> None:
    with pytest.raises(UserError, match="--threads 0 is too few"):
        check_clips([Path("a")], threads=0)


def test_a_check_without_pyav_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "data_prep.clip_file", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"needs the package av.*; install .* 'video'"):
        check_clips([Path("a")])


def test_lines_tell_how_far_a_long_check_is_where_there_is_no_terminal(
    probed: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("common.training.progress._SECONDS_BETWEEN_COUNTS", 0.0)
    check_clips([Path("a"), Path("b")], threads=1)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["clips 1/2", "clips 2/2"]
    assert captured.out == ""


def test_a_bar_tells_it_on_a_terminal(
    probed: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    check_clips([Path("a"), Path("b")], threads=1)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert "\x1b[" in captured.err
    assert captured.out == ""


Checked = Callable[..., tuple[str, str]]


@pytest.fixture
def checked(tmp_path: Path, probed: list[Path], capsys: pytest.CaptureFixture[str]) -> Checked:
    """Check a folder; gives what is printed and what is refused."""

    def check(split: VerbSplit, folder: Path, report: Path | None = None) -> tuple[str, str]:
        refused = ""
        try:
            check_folder(split, folder, 1, report, "say --folder")
        except UserError as error:
            refused = str(error)
        return capsys.readouterr().out, refused

    return check


def test_a_whole_folder_is_said_to_be_whole(tmp_path: Path, checked: Checked) -> None:
    split = made_split([2], [1], [1])
    folder = folder_with(tmp_path / "clips", *split.clips)
    said = f"{folder}: all 4 clips are there and can be read\n"
    assert checked(split, folder) == (said, "")


def test_missing_doubled_and_unreadable_clips_are_listed_and_counted(
    tmp_path: Path, checked: Checked
) -> None:
    split = made_split([2], [1], [1])
    folder = folder_with(tmp_path / "clips", "train0", "test0", broken=("train1",))
    second = touch(folder / "sub" / "test0.mp4")
    printed, refused = checked(split, folder)
    assert printed.splitlines() == [
        "difficulty0 is missing.",
        f"test0 has more than one file: {second}, {folder / 'test0.mp4'}.",
        f"{folder / 'train1.mp4'} cannot be used.",
    ]
    assert refused == (
        f"{folder}: of 4 clips 1 are missing, 1 have two files and 1 are unreadable; say --folder."
    )


def test_the_first_20_are_printed_and_all_go_into_a_file_if_asked(
    tmp_path: Path, checked: Checked
) -> None:
    split = made_split([25], [1], [1])
    folder = folder_with(tmp_path / "clips", "test0")
    printed = checked(split, folder)[0].splitlines()
    assert printed[:20] == [f"train{i} is missing." for i in range(20)]
    assert printed[20:] == ["... and 6 more; name a file with --report for all"]
    assert sorted(os.listdir(tmp_path)) == ["clips"]
    report = tmp_path / "missing.txt"
    assert checked(split, folder, report)[0].splitlines()[20:] == [f"... and 6 more; see {report}"]
    assert report.read_text().splitlines() == [
        *(f"train{i} is missing." for i in range(25)),
        "difficulty0 is missing.",
    ]


def test_the_report_of_a_whole_folder_is_an_empty_file(tmp_path: Path, checked: Checked) -> None:
    split = made_split([1], [1], [1])
    report = tmp_path / "missing.txt"
    report.write_text("train0 is missing.\n")
    assert not checked(split, folder_with(tmp_path / "clips", *split.clips), report)[1]
    assert report.read_text() == ""


def test_a_report_that_has_no_place_is_refused_before_the_clips_are_read(
    tmp_path: Path, probed: list[Path], checked: Checked
) -> None:
    split = made_split([1], [1], [1])
    folder = folder_with(tmp_path / "clips", *split.clips)
    _, refused = checked(split, folder, tmp_path / "no" / "report.txt")
    assert refused.startswith(f"--report {tmp_path / 'no' / 'report.txt'}: there is no folder")
    assert probed == []


def write_video(path: Path, frames: int = 3) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    return path


def test_real_videos_are_read_and_a_truncated_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = made_split([1], [1], [1])
    for name in split.clips:
        write_video(tmp_path / f"{name}.mp4")
    check_folder(split, tmp_path)
    cut = tmp_path / "test0.mp4"
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(UserError, match="0 are missing, 0 have two files and 1 are unreadable"):
        check_folder(split, tmp_path)
    assert str(cut) in capsys.readouterr().out


def test_a_clip_that_is_damaged_behind_its_first_picture_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = made_split([1], [1], [1])
    for name in split.clips:
        write_video(tmp_path / f"{name}.mp4")
    bad = tmp_path / "test0.mp4"
    content = bytearray(bad.read_bytes())
    av = pytest.importorskip("av")
    with av.open(str(bad)) as container:
        second = [packet for packet in container.demux(video=0) if packet.size][1]
        content[second.pos : second.pos + second.size] = bytes(second.size)
    bad.write_bytes(content)
    with pytest.raises(UserError, match="0 are missing, 0 have two files and 1 are unreadable"):
        check_folder(split, tmp_path)
    assert f"{bad} cannot be used: it is damaged" in capsys.readouterr().out
