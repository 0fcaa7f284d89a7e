"""LVIS v0.5: the official files, the images of COCO, and the difficulty split."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError, run_main
from data_prep import lvis
from data_prep.lvis import (
    DIFFICULTY_FILE,
    REST_FILE,
    TRAIN_FILE,
    VAL_FILE,
    describe_split,
    hold_out_difficulty,
    hold_out_images,
    summary,
    write_split,
)
from data_prep.lvis_format import Annotations, Ints, read_lvis
from tests.detection.synthetic import entries, write_entries, write_set


@pytest.fixture
def train(tmp_path: Path) -> Annotations:
    return read_lvis(write_entries(entries(), tmp_path / "train.json"), training=True)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny set in the layout of the official files and of COCO; taken for official."""
    folder = write_set(tmp_path / "set")
    expected = {}
    for part, name in (("train", TRAIN_FILE), ("val", VAL_FILE)):
        (folder / f"{part}.json").rename(folder / name)
        expected[name] = summary(read_lvis(folder / name))
    monkeypatch.setattr(lvis, "OFFICIAL", expected)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["data_prep.lvis", *map(str, arguments)])
    run_main(lvis.main)


# The difficulty split.


def pairs_of(lists: list[set[int]]) -> tuple[Ints, Ints]:
    """Pairs of images, each with its set of categories."""
    pairs = [(image, category) for image, one in enumerate(lists) for category in sorted(one)]
    array = np.array(pairs, np.int64).reshape(-1, 2)
    return array[:, 0].copy(), array[:, 1].copy()


def test_each_category_gives_k_images_where_it_can() -> None:
    """Nine images of one category, two of another, one of a third, none of a fourth."""
    lists: list[set[int]] = [{0}] * 9 + [{1}] * 2 + [{2}]
    held = hold_out_images(pairs_of(lists), 12, 4, images_per_category=3, seed=0)
    assert (held[:9].sum(), held[9:11].sum(), held[11]) == (3, 1, False)


def test_at_least_the_share_stays_and_never_less_than_one() -> None:
    """Of 9, 30 and 2 images; 0.1 * 30 is 3, though not in floating point."""
    lists: list[set[int]] = [{0}] * 9 + [{1}] * 30 + [{2}] * 2
    for share, expected in ((0.5, [4, 15, 1]), (0.1, [8, 27, 1]), (1.0, [0, 0, 0])):
        held = hold_out_images(pairs_of(lists), 41, 3, 50, seed=1, kept_share=share)
        assert [held[:9].sum(), held[9:39].sum(), held[39:].sum()] == expected


def test_an_image_that_would_break_the_bound_of_another_category_is_not_taken() -> None:
    """Category 1 may lose one image; category 0's two images both have it, as has a third."""
    lists: list[set[int]] = [{0, 1}, {0, 1}, {1}]
    for seed in range(5):
        held = hold_out_images(pairs_of(lists), 3, 2, images_per_category=5, seed=seed)
        # Category 0, the rarer, takes one; then category 1 has no room left.
        assert held.tolist() in ([True, False, False], [False, True, False])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([0.01, 0.5, 0.8]),
)
def test_the_split_is_as_a_plain_reading_of_its_rule(
    lists: list[set[int]], k: int, seed: int, share: float
) -> None:
    held = hold_out_images(pairs_of(lists), len(lists), 6, k, seed, share)
    again = hold_out_images(pairs_of(lists), len(lists), 6, k, seed, share)
    assert held.tolist() == again.tolist()
    total = np.array([sum(c in one for one in lists) for c in range(6)])
    lost = np.array([sum(c in one for one in np.array(lists, object)[held]) for c in range(6)])
    room = np.maximum(0, np.minimum(k, total - np.maximum(1, np.ceil(share * total))))
    assert (lost <= room).all()
    # Nothing more can be taken: each image left has a category without room, or none at all.
    for image in np.flatnonzero(~held):
        assert not lists[image] or any(lost[c] == room[c] for c in lists[image])


def test_another_seed_holds_out_other_images(train: Annotations) -> None:
    splits = {tuple(hold_out_difficulty(train, 2, seed)[1].tolist()) for seed in range(8)}
    assert len(splits) > 1


def test_the_two_parts_are_the_whole_and_share_nothing(train: Annotations) -> None:
    rest, difficulty = hold_out_difficulty(train, 3, seed=0)
    assert sorted([*rest, *difficulty]) == train.image_ids.tolist()
    assert len(difficulty) > 0
    # The image without annotations stays.
    assert 100 in rest


def test_lvis_own_size_is_split_in_seconds_within_the_bounds() -> None:
    """Pairs drawn at LVIS's size: 56,740 images, 1,230 categories of Zipf-like frequency."""
    draw = np.random.default_rng(0)
    size = np.maximum(1, 12_000 / np.arange(1, 1231) ** 1.0).astype(int)
    pairs = np.unique(
        np.concatenate([
            np.stack([draw.integers(0, 56_740, n), np.full(n, c)], 1) for c, n in enumerate(size)
        ]),
        axis=0,
    )  # fmt: skip
    held = hold_out_images((pairs[:, 0].copy(), pairs[:, 1].copy()), 56_740, 1230, 10, 0)
    total = np.bincount(pairs[:, 1], minlength=1230)
    lost = np.bincount(pairs[held[pairs[:, 0]], 1], minlength=1230)
    assert lost.max() == 10
    assert (total - lost >= np.maximum(1, total / 2)).all()


@pytest.mark.parametrize(
    ("k", "seed", "share", "words"),
    [(0, 0, 0.5, "--images-per-category 0"), (1, -1, 0.5, "--seed -1"), (1, 0, 0.0, "--kept-share"),
     (1, 0, 1.5, "--kept-share 1.5")],
)  # fmt: skip
def test_wrong_options_of_a_split_are_refused(
    k: int, seed: int, share: float, words: str, train: Annotations
) -> None:
    with pytest.raises(UserError, match=words):
        hold_out_difficulty(train, k, seed, share)


def test_written_parts_hold_the_images_and_say_the_rule(train: Annotations, tmp_path: Path) -> None:
    rest, difficulty = write_split(train, tmp_path / "new" / "out", 2, seed=3)
    files = [tmp_path / "new" / "out" / name for name in (REST_FILE, DIFFICULTY_FILE)]
    assert sorted((tmp_path / "new" / "out").iterdir()) == sorted(files)
    ids = hold_out_difficulty(train, 2, 3)
    for path, part, expected in zip(files, (rest, difficulty), ids, strict=True):
        written = read_lvis(path)
        assert written.image_ids.tolist() == part.image_ids.tolist() == expected.tolist()
        assert written.num_instances == part.num_instances
        assert written.frequency == train.frequency
        assert json.loads(path.read_text())["difficulty_split"] == {
            "images_per_category": 2, "seed": 3, "kept_share": 0.5,
        }  # fmt: skip
    total = rest.instance_count + difficulty.instance_count
    assert total.tolist() == train.instance_count.tolist()


def test_a_split_that_cannot_be_written_leaves_the_old_one(
    train: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_split(train, out, 2, seed=3)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    written: list[Path] = []

    def fail_at_the_second(annotations: Annotations, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            raise UserError("No room left")
        path.write_text("{}")

    monkeypatch.setattr(lvis, "write_lvis", fail_at_the_second)
    with pytest.raises(UserError, match="No room"):
        write_split(train, out, 1, seed=4)
    assert len(written) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_set_of_which_nothing_can_be_held_out_is_refused(
    train: Annotations, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"No image .* can be held out"):
        write_split(train, tmp_path / "out", 2, seed=3, kept_share=1)
    assert not (tmp_path / "out").exists()


def test_the_description_tells_how_many_categories_can_be_measured(train: Annotations) -> None:
    """Images a category: 13, 9, 6, 3 and 0, by hand from the shapes of ``synthetic``."""
    assert train.image_count.tolist() == [13, 9, 6, 3, 0]
    rest, difficulty = (train.select(ids) for ids in hold_out_difficulty(train, 1, 0))
    said = describe_split(train, rest, difficulty)
    measured = int((difficulty.image_count > 0).sum())
    assert f"it can measure {measured} of 5 categories (" in said
    rare = int((difficulty.image_count[1:] > 0).sum())
    assert f"{rare} of 4 rare, {measured - rare} of 1 common, 0 of 0 frequent; 1 to 1" in said
    assert f"training: {14 - difficulty.num_images} images" in said


# The official files.


def test_the_official_numbers_are_those_of_the_paper_and_of_lvis() -> None:
    for numbers in lvis.OFFICIAL.values():
        assert numbers.letters == (454, 461, 315)
        assert sum(numbers.letters) == 1230
    assert lvis.OFFICIAL[TRAIN_FILE].instances == 693_958
    assert lvis.OFFICIAL[TRAIN_FILE].annotated_images == 56_740


def test_check_passes_and_prints_the_letters(
    official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "check", "--annotations", official, "--images", official)
    said = capsys.readouterr().out
    assert "14 images (13 with annotations), 31 instances of 4 of 5 categories" in said
    assert "rare/common/frequent 4/1/0" in said
    assert f"all 20 images are in {official} and can be opened" in said


def test_check_takes_the_folders_of_the_environment(
    official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CDB_LVIS", str(official))
    monkeypatch.setenv("CDB_COCO", str(official))
    call(monkeypatch, "check")
    assert "all 20 images" in capsys.readouterr().out


def test_check_names_missing_images_and_empty_ones(
    official: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (official / "train" / "003.png").unlink()
    (official / "val" / "015.png").write_bytes(b"")
    options = ("--annotations", official, "--images", official, "--report", tmp_path / "bad.txt")
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "check", *options)
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert "train/003.png is missing or unreadable.\nval/015.png is missing" in captured.out
    assert "2 of the 20 images are not in" in captured.err
    assert "--images" in captured.err
    assert (tmp_path / "bad.txt").read_text() == "train/003.png\nval/015.png\n"


def test_check_names_20_of_many_missing_images_and_their_number(
    official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lvis, "SHOWN", 5)
    for path in official.glob("train/*.png"):
        path.unlink()
    with pytest.raises(SystemExit):
        call(monkeypatch, "check", "--annotations", official, "--images", official)
    said = capsys.readouterr().out
    assert said.count("is missing") == 5
    assert "... and 9 more." in said


def test_a_file_of_other_numbers_is_refused(
    official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = dict(lvis.OFFICIAL)
    expected[TRAIN_FILE] = replace(expected[TRAIN_FILE], instances=32)
    monkeypatch.setattr(lvis, "OFFICIAL", expected)
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "check", "--annotations", official, "--images", official)
    assert end.value.code == 2
    assert f"{TRAIN_FILE} is not LVIS v0.5's: it has" in capsys.readouterr().err


def test_a_missing_file_is_refused_with_the_way_to_name_it(
    official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (official / VAL_FILE).unlink()
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "check", "--annotations", official, "--images", official)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"{VAL_FILE} is missing" in said
    assert "--annotations" in said


def test_split_writes_both_files_and_prints_what_can_be_measured(
    official: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    options = ("--annotations", official, "--images-per-category", 2, "--seed", 1, "--out", out)
    call(monkeypatch, "split", *options)
    assert "it can measure" in capsys.readouterr().out
    parts = [read_lvis(out / name) for name in (REST_FILE, DIFFICULTY_FILE)]
    assert sum(part.num_images for part in parts) == 14
    # LVIS val is the test set.
    test = set(read_lvis(official / VAL_FILE).image_ids.tolist())
    assert not any(test & set(part.image_ids.tolist()) for part in parts)
