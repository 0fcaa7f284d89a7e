"""The clips of a split, and where the frames of a batch come from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import data_prep.egtea
import video.data
from common.errors import UserError
from data_prep.clips import find_clips
from tests.video.synthetic import (
    BATCH,
    CONFIG,
    COUNTS,
    EPOCHS,
    NAMES,
    STEPS,
    make_training,
    to_the_end,
)
from video.cache import FrameCache
from video.data import (
    Clips,
    FrameSource,
    describe_data,
    evaluation_batches,
    load_batches,
    load_data,
)
from video.reading import (
    fit_frames,
    frame_indices,
    read_all_frames,
    read_fitted_frames,
    uniform_positions,
)
from video.recipes import EGTEA_VERBS
from video.training import Training

SOURCE = FrameSource(16, 20, "pyav", cache=None)
Reads = list[tuple[str, Tensor | None]]
"""File name and positions of each video that was decoded."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Every decoding for a batch from now on, by this process."""
    seen: Reads = []

    def spy(path: Path, positions: Tensor | None, *rest: Any) -> Tensor:
        seen.append((path.stem, positions))
        return read_fitted_frames(path, positions, *rest)

    monkeypatch.setattr(video.data, "read_fitted_frames", spy)
    return seen


def of_part(reads: Reads, part: str) -> Reads:
    return [read for read in reads if read[0].startswith(part)]


# The parts of the split.


def test_the_parts_hold_their_clips_with_labels_from_0(verbs: Path) -> None:
    data = load_data(CONFIG, verbs)
    for part in ("train", "difficulty", "test"):
        clips: Clips = getattr(data, part)
        expected = [label for label, n in enumerate(COUNTS[part]) for _ in range(n)]
        assert clips.labels.tolist() == expected
        assert len(clips) == len(expected)
        assert [path.stem for path in clips.paths] == list(clips.names)
        assert all(name.startswith(part) for name in clips.names)
    assert data.num_classes == 6
    assert data.train_counts.tolist() == list(COUNTS["train"])


def test_the_description_says_what_a_reader_of_the_numbers_should_know(verbs: Path) -> None:
    data = load_data(CONFIG, verbs)
    said = data.description
    assert {part: tuple(said[part]) for part in COUNTS} == COUNTS
    assert said["class_names"] == list(NAMES)
    assert said["imbalance"] == 4.0
    # By train + difficulty: 12, 9, 8, 6, 5, 2.
    assert said["head"] == [0, 1, 2, 3, 4] == list(data.head)
    assert said["notes"] == [
        "The difficulty set has no clip of Wash: its difficulty is not measured and stays 1.",
        "The difficulty set is not balanced: 2 (Move Around and 1 more) to 4 (Rise) clips a verb; "
        "the accuracy of a verb with 2 clips moves in steps of 0.5.",
        "The test set has no clip of Cut: its test accuracy is not given.",
        "The test set is not balanced: 2 (Move Around) to 4 (Rise) clips a verb; "
        "the accuracy of a verb with 2 clips moves in steps of 0.5.",
    ]
    first, *notes = describe_data(data).splitlines()
    assert first == (
        "28 training, 14 difficulty and 15 test clips of 6 verbs; imbalance 4.0; "
        "head: Rise, Fall, Open, Move Around, Cut"
    )
    assert notes == said["notes"]


def test_egteas_split_is_looked_for_in_the_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def found(folder: Path, names: tuple[str, ...], remedy: str) -> dict[str, Path]:
        asked.append(folder)
        return {name: folder / f"{name}.mp4" for name in names}

    monkeypatch.setattr(video.data, "find_clips", found)
    data = load_data(EGTEA_VERBS, tmp_path)
    assert asked == [tmp_path]
    assert (len(data.train), len(data.difficulty), len(data.test)) == (6372, 1927, 2022)
    assert data.description["digest"] == data_prep.egtea.load_egtea_splits().digest
    assert min(data.description["difficulty"]) == 6
    assert any("not balanced: 6 (" in note for note in data.description["notes"])


@pytest.mark.parametrize("recipe", ["egtea-verbs", "motion-digits"])
def test_a_missing_folder_is_refused_with_the_option_that_names_it(
    recipe: str, tmp_path: Path
) -> None:
    config = {"egtea-verbs": EGTEA_VERBS, "motion-digits": CONFIG}[recipe]
    with pytest.raises(UserError, match=str(tmp_path / "none")) as refusal:
        load_data(config, tmp_path / "none")
    if recipe == "egtea-verbs":
        assert "--data" in str(refusal.value)
        assert "--folder" not in str(refusal.value)


def test_the_usual_folder_is_that_of_the_environment(
    verbs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDB_MOTION_DIGITS", str(verbs))
    assert load_data(CONFIG).train.paths == load_data(CONFIG, verbs).train.paths


def test_missing_clips_are_refused_by_name_and_number(verbs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(verbs, tmp_path / "set")
    for number in (3, 5, 7, 9):
        (folder / "clips" / f"train-{number:03d}.mp4").unlink()
    with pytest.raises(UserError, match=r"4 of the 57 clips .*train-003 .*train-007") as refusal:
        load_data(CONFIG, folder)
    assert "1 more" in str(refusal.value)


# Frames.


def test_a_source_gives_the_fitted_frames_at_the_positions(verbs: Path) -> None:
    path = find_clips(verbs / "clips", ["train-000"])["train-000"]
    whole = fit_frames(read_all_frames(path), 16, 20)
    positions = torch.tensor([0.0, 0.3, 0.31, 0.99])
    frames = SOURCE.frames("train-000", path, positions)
    assert torch.equal(frames, whole[frame_indices(positions, len(whole))])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_order_asked_for(verbs: Path, workers: int) -> None:
    clips = load_data(CONFIG, verbs).train
    places = uniform_positions(4).tolist()
    wanted = [[7, 0], [3], [3, 27, 1]]
    batches = [[(number, places) for number in batch] for batch in wanted]
    got = list(load_batches(clips, SOURCE, batches, workers))
    for numbers, batch in zip(wanted, got, strict=True):
        expected = [
            SOURCE.frames("", clips.paths[number], uniform_positions(4)) for number in numbers
        ]
        assert torch.equal(batch, torch.stack(expected))


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_batches_touches_no_global_generator(verbs: Path, workers: int) -> None:
    clips = load_data(CONFIG, verbs).train
    before = torch.get_rng_state()
    list(load_batches(clips, SOURCE, [[(0, uniform_positions(4).tolist())]], workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_clip_is_a_sentence_from_any_process(
    verbs: Path, tmp_path: Path, workers: int
) -> None:
    folder = shutil.copytree(verbs, tmp_path / "set")
    path = folder / "clips" / "train-002.mp4"
    path.write_bytes(path.read_bytes()[:300])
    clips = load_data(CONFIG, folder).train
    batches = [[(number, uniform_positions(4).tolist())] for number in range(4)]
    got = load_batches(clips, SOURCE, batches, workers)
    assert next(got).shape == (1, 4, 16, 20, 3)
    with pytest.raises(UserError, match=str(path)):
        list(got)


def test_evaluation_takes_the_middle_of_each_sub_segment_and_of_each_frame(
    verbs: Path, reads: Reads
) -> None:
    clips = load_data(CONFIG, verbs).test
    batches = list(evaluation_batches(clips, SOURCE, CONFIG, workers=0))
    assert [len(labels) for _, labels in batches] == [6, 6, 3]
    assert torch.equal(torch.cat([labels for _, labels in batches]), clips.labels)
    frames = torch.cat([frames for frames, _ in batches])
    for path, got in zip(clips.paths, frames, strict=True):
        whole = read_all_frames(path)
        middles = [int((2 * i + 1) * len(whole) / 8) for i in range(4)]
        assert torch.equal(got, fit_frames(whole[middles], 16, 20)[:, :, 2:18])
    assert [name for name, _ in reads] == list(clips.names)


# What a run reads.


def test_training_takes_a_random_frame_of_each_sub_segment_and_evaluation_the_middle_ones(
    verbs: Path, reads: Reads
) -> None:
    run = to_the_end(make_training(verbs))
    trained = [positions for _, positions in of_part(reads, "train") if positions is not None]
    assert len(trained) == EPOCHS * STEPS * BATCH
    together = torch.stack(trained)
    assert torch.equal((together * 4).floor(), torch.arange(4.0).expand_as(together))
    # Uniform within its sub-segment, another one each time.
    within = (together * 4) % 1
    assert within.unique().numel() == within.numel()
    assert float(within.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(within.std()) == pytest.approx(12**-0.5, abs=0.05)
    measured = of_part(reads, "difficulty")
    assert all(torch.equal(p, uniform_positions(4)) for _, p in measured if p is not None)
    assert run.epoch == EPOCHS


def test_difficulty_clips_are_decoded_once_and_test_clips_not_in_training(
    verbs: Path, reads: Reads
) -> None:
    run = to_the_end(make_training(verbs, "cdb-w-ce"))
    names = [name for name, _ in of_part(reads, "difficulty")]
    assert names == list(run.data.difficulty.names)
    assert not of_part(reads, "test")


def test_with_the_cache_nothing_is_decoded_after_it_is_filled(
    verbs: Path, tmp_path: Path, reads: Reads
) -> None:
    run = make_training(verbs, cache=tmp_path / "cache")
    to_the_end(run)
    list(evaluation_batches(run.data.test, run.source, run.config, 0))
    assert reads == []


def end_of(run: Training) -> dict[str, Any]:
    to_the_end(run)
    tested = evaluation_batches(run.data.test, run.source, run.config, 0)
    return {
        "weights": run.model.state_dict(),
        "history": run.history.rows,
        "test clips": torch.cat([frames for frames, _ in tested]),
    }


def assert_equal_ends(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["history"] == theirs["history"]
    assert torch.equal(ours["test clips"], theirs["test clips"])
    for name, weight in theirs["weights"].items():
        assert torch.equal(ours["weights"][name], weight), name


@pytest.fixture(scope="module")
def usual_end(verbs: Path) -> dict[str, Any]:
    return end_of(make_training(verbs, "cdb-s"))


@pytest.mark.parametrize(
    ("reader", "cached", "workers"),
    [
        ("pyav", False, 2),
        ("pyav", True, 0),
        ("pyav", True, 2),
        ("decord", False, 0),
        ("decord", True, 0),
        ("decord", False, 2),
    ],
)
def test_cache_reader_and_workers_change_no_bit(
    verbs: Path, tmp_path: Path, usual_end: dict[str, Any], reader: Any, cached: bool, workers: int
) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    cache = tmp_path / "cache" if cached else None
    run = make_training(verbs, "cdb-s", reader=reader, cache=cache, workers=workers)
    assert_equal_ends(end_of(run), usual_end)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "workers"), [(flip_a_bit, 0), (flip_a_bit, 2), (cut_short, 0), (Path.unlink, 0)]
)
def test_files_of_the_cache_damaged_during_a_run_change_no_bit(
    verbs: Path,
    tmp_path: Path,
    usual_end: dict[str, Any],
    spoil: Callable[[Path], None],
    workers: int,
) -> None:
    run = make_training(verbs, "cdb-s", cache=tmp_path, workers=workers)
    files = sorted(path for path in tmp_path.iterdir() if path.suffix == ".npy")
    assert len(files) == len(run.data.train) + len(run.data.difficulty) + len(run.data.test)
    for path in files:
        spoil(path)
    assert_equal_ends(end_of(run), usual_end)


def test_a_damaged_file_of_the_cache_is_mended_once(
    verbs: Path, tmp_path: Path, reads: Reads
) -> None:
    data = load_data(CONFIG, verbs)
    cache = FrameCache(tmp_path, 16, 20)
    data.fill_cache(cache, 4, "pyav", 1)
    name, path = data.test.names[0], data.test.paths[0]
    source = FrameSource(16, 20, "pyav", cache)
    usual = source.frames(name, path, uniform_positions(4))
    flip_a_bit(tmp_path / f"{name}.uniform-4.npy")
    for _ in range(2):
        assert torch.equal(source.frames(name, path, uniform_positions(4)), usual)
    assert [name for name, _ in reads] == [name]


def test_a_clip_that_the_cache_has_is_not_needed_any_more(verbs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(verbs, tmp_path / "set")
    data = load_data(CONFIG, folder)
    cache = FrameCache(tmp_path / "cache", 16, 20)
    data.fill_cache(cache, 4, "pyav", 1)
    source = FrameSource(16, 20, "pyav", cache)
    usual = source.frames(data.train.names[0], data.train.paths[0], uniform_positions(4))
    data.train.paths[0].unlink()
    again = source.frames(data.train.names[0], data.train.paths[0], uniform_positions(4))
    assert torch.equal(again, usual)
