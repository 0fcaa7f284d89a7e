import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from tests.video.videos import cut_off, write_video
from video import cache as cache_module
from video.cache import FrameCache, Keep
from video.cache import fill as fill_parts
from video.reading import (
    fit_frames,
    frame_indices,
    read_all_frames,
    read_frames,
    training_positions,
    uniform_positions,
)

HEIGHT, WIDTH = 12, 16


def fill(cache: FrameCache, clips: dict[str, Path], *, keep: Keep = "all", **options: Any) -> int:
    return fill_parts(cache, [(clips, keep)], **options)


def noise(frames: int, seed: int = 0) -> Tensor:
    """Frames (F, 12, 16, 3) of random bytes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    """An empty one."""
    return FrameCache(tmp_path / "cache", HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four clips; one is shorter than ten frames."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = {"P01-R01-A": 24, "P01-R01-B": 13, "P02-R01-C": 30, "short": 3}
    return {name: write_video(folder / f"{name}.mp4", n) for name, n in lengths.items()}


def read_all(cache: FrameCache, clip: str, frames: int) -> Tensor | None:
    """All frames of a clip that has so many."""
    return cache.read(clip, (torch.arange(frames, dtype=torch.float64) + 0.5) / frames)


# One clip


@given(frames=st.integers(1, 40), seed=st.integers(0, 99))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_read_at_any_positions(
    cache: FrameCache, frames: int, seed: int
) -> None:
    kept = noise(frames, seed)
    cache.write("clip", kept)
    generator = torch.Generator().manual_seed(seed)
    positions = training_positions(torch.rand(10, generator=generator))
    found = cache.read("clip", positions)
    assert found is not None
    assert torch.equal(found, kept[frame_indices(positions, frames)])


def test_a_clip_that_is_not_kept_is_none(cache: FrameCache) -> None:
    assert cache.read("clip", uniform_positions()) is None
    assert not cache.holds("clip", "all")


def test_of_an_evaluation_clip_only_the_evenly_spread_frames_are_kept(cache: FrameCache) -> None:
    kept = noise(10)
    cache.write_uniform("clip", kept)
    found = cache.read("clip", uniform_positions())
    assert found is not None
    assert torch.equal(found, kept)
    assert cache.read("clip", uniform_positions(5)) is None
    assert cache.read("clip", training_positions(torch.rand(10))) is None
    assert cache.holds("clip", "uniform")
    assert not cache.holds("clip", "uniform", frames=5)
    assert not cache.holds("clip", "all")


def test_a_clip_kept_whole_also_answers_for_evenly_spread_frames(cache: FrameCache) -> None:
    cache.write("clip", noise(24))
    assert cache.holds("clip", "uniform")
    found = cache.read("clip", uniform_positions())
    assert found is not None
    assert torch.equal(found, noise(24)[frame_indices(uniform_positions(), 24)])


def test_a_file_of_the_cache_can_be_mapped_as_a_numpy_array(cache: FrameCache) -> None:
    cache.write("clip", noise(5))
    array = np.load(cache.folder / "clip.npy", mmap_mode="r")
    assert np.array_equal(array, noise(5).numpy())
    assert (cache.folder / "clip.npy").stat().st_size == cache.bytes_for(5)


@pytest.mark.parametrize("name", ["../outside", "a/b", ".hidden", "with space", "ü"])
def test_whatever_a_clip_is_called_it_stays_in_the_folder(cache: FrameCache, name: str) -> None:
    cache.write(name, noise(2))
    found = read_all(cache, name, 2)
    assert found is not None
    assert torch.equal(found, noise(2))
    assert len(list(cache.folder.iterdir())) == 2
    assert list(cache.folder.parent.iterdir()) == [cache.folder]


@pytest.mark.parametrize(
    "frames",
    [
        noise(3).float(),
        noise(3)[:, :11],
        noise(0),
        noise(3)[0],
    ],
    ids=["float", "another size", "none", "one without T"],
)
def test_frames_of_another_shape_or_kind_are_refused(cache: FrameCache, frames: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        cache.write("clip", frames)
    assert cache.read("clip", uniform_positions()) is None


# Damage


def test_every_byte_matters(cache: FrameCache) -> None:
    """Whatever single byte of the file is changed, all of its frames together are refused."""
    cache.write("clip", noise(2))
    path = cache.folder / "clip.npy"
    content = path.read_bytes()
    for place in [
        *range(0, 128, 5),
        *range(128, len(content), 61),
        *range(len(content) - 44, len(content)),
    ]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert read_all(cache, "clip", 2) is None, place
    path.write_bytes(content)
    assert read_all(cache, "clip", 2) is not None


def test_damage_of_one_frame_leaves_the_others_readable(cache: FrameCache) -> None:
    cache.write("clip", noise(4))
    path = cache.folder / "clip.npy"
    content = bytearray(path.read_bytes())
    content[128 + 2 * HEIGHT * WIDTH * 3 + 7] ^= 255
    path.write_bytes(content)
    assert read_all(cache, "clip", 4) is None
    whole = cache.read("clip", torch.tensor([0.0, 0.3, 0.8]))
    assert whole is not None
    assert torch.equal(whole, noise(4)[[0, 1, 3]])


@pytest.mark.parametrize("length", [0, 1, 127, 128, 600, -44, -1])
def test_a_file_that_was_cut_off_counts_as_absent(cache: FrameCache, length: int) -> None:
    cache.write("clip", noise(3))
    path = cache.folder / "clip.npy"
    path.write_bytes(path.read_bytes()[:length])
    assert read_all(cache, "clip", 3) is None
    assert not cache.holds("clip", "all")


def test_a_folder_in_the_place_of_a_file_counts_as_absent(cache: FrameCache) -> None:
    (cache.folder / "clip.npy").mkdir()
    assert read_all(cache, "clip", 3) is None


# The folder


def test_a_cache_of_another_size_is_refused_by_name(cache: FrameCache) -> None:
    FrameCache(cache.folder, HEIGHT, WIDTH)
    with pytest.raises(UserError, match=r"other settings \(width \d+, not \d+\); name another"):
        FrameCache(cache.folder, HEIGHT, WIDTH + 1)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty and holds no frame cache"):
        FrameCache(tmp_path, HEIGHT, WIDTH)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damaged_settings_are_refused(cache: FrameCache) -> None:
    (cache.folder / "frame-cache.json").write_bytes(b"\0\0\0")
    with pytest.raises(UserError, match="other settings"):
        FrameCache(cache.folder, HEIGHT, WIDTH)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match="cache"):
        FrameCache(tmp_path / "cache", HEIGHT, WIDTH)


def test_a_cache_can_be_sent_to_a_worker_process(cache: FrameCache) -> None:
    cache.write("clip", noise(3))
    found = read_all(pickle.loads(pickle.dumps(cache)), "clip", 3)
    assert found is not None
    assert torch.equal(found, noise(3))


# Filling


def fitted(path: Path, positions: Tensor) -> Tensor:
    """Read without a cache."""
    return fit_frames(read_frames(path, positions), HEIGHT, WIDTH)


def test_filled_frames_equal_those_read_from_the_video(
    cache: FrameCache, clips: dict[str, Path]
) -> None:
    assert fill(cache, clips, workers=2) == len(clips)
    positions = training_positions(torch.rand(10, generator=torch.Generator().manual_seed(1)))
    for name, path in clips.items():
        for wanted in (positions, uniform_positions()):
            found = cache.read(name, wanted)
            assert found is not None
            assert torch.equal(found, fitted(path, wanted))


def test_filled_evaluation_clips_equal_those_read_from_the_video(
    cache: FrameCache, clips: dict[str, Path]
) -> None:
    fill(cache, clips, keep="uniform", workers=2)
    for name, path in clips.items():
        found = cache.read(name, uniform_positions())
        assert found is not None
        assert torch.equal(found, fitted(path, uniform_positions()))
        kept = cache.folder / f"{name}.uniform-10.npy"
        assert kept.stat().st_size == cache.bytes_for(10)


def test_decord_fills_the_same_bytes(tmp_path: Path, clips: dict[str, Path]) -> None:
    ours, theirs = (FrameCache(tmp_path / name, HEIGHT, WIDTH) for name in ("pyav", "decord"))
    fill(ours, clips, workers=1)
    fill(theirs, clips, workers=1, reader="decord")
    for name in clips:
        file = f"{name}.npy"
        assert (ours.folder / file).read_bytes() == (theirs.folder / file).read_bytes()


def test_only_missing_damaged_and_changed_clips_are_decoded_again(
    cache: FrameCache, clips: dict[str, Path], tmp_path: Path
) -> None:
    copies = {name: Path(shutil.copy2(path, tmp_path)) for name, path in clips.items()}
    assert fill(cache, copies, workers=1) == 4
    assert fill(cache, copies, workers=1) == 0
    assert fill(cache, copies, keep="uniform", workers=1) == 0
    (cache.folder / "short.npy").unlink()
    part = cache.folder / "P02-R01-C.npy"
    cut_off(part, part, 0.5)
    write_video(copies["P01-R01-A"], 20)
    assert fill(cache, copies, workers=1) == 3
    found = cache.read("P01-R01-A", uniform_positions())
    assert found is not None
    assert torch.equal(found, fitted(copies["P01-R01-A"], uniform_positions()))


def test_an_unusable_clip_ends_the_filling_with_its_name(
    cache: FrameCache, clips: dict[str, Path], tmp_path: Path
) -> None:
    bad = cut_off(clips["P01-R01-A"], tmp_path / "bad.mp4", 0.5)
    for keep in ("all", "uniform"):
        with pytest.raises(UserError, match=r"bad\.mp4"):
            fill(cache, {**clips, "bad": bad}, keep=keep, workers=1)
    assert not cache.holds("bad", "uniform")


def test_several_parts_are_counted_and_filled_together(
    cache: FrameCache, clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(clips)
    train, test = ({n: clips[n] for n in half} for half in (names[:2], names[2:]))
    assert fill_parts(cache, [(train, "all"), (test, "uniform")], frames=5, workers=1) == 4
    assert capsys.readouterr().out.startswith("4 of 4 clips are to be decoded; ")
    kept = [path.name for path in cache.folder.glob("*.npy")]
    assert sum(name.endswith(".uniform-5.npy") for name in kept) == 2
    assert len(kept) == 4


def test_runs_of_other_numbers_of_frames_share_a_folder(
    cache: FrameCache, clips: dict[str, Path]
) -> None:
    for frames in (5, 1, 5, 1):
        fill(cache, clips, keep="uniform", frames=frames, workers=1)
    for frames in (5, 1):
        assert fill(cache, clips, keep="uniform", frames=frames, workers=1) == 0
        for clip, path in clips.items():
            found = cache.read(clip, uniform_positions(frames))
            assert found is not None
            expected = read_frames(path, uniform_positions(frames))
            assert torch.equal(found, fit_frames(expected, HEIGHT, WIDTH))


def test_the_needed_room_is_said_beforehand_and_is_what_is_used(
    cache: FrameCache, clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(cache, clips, workers=1)
    used = sum(path.stat().st_size for path in cache.folder.glob("*.npy"))
    assert used == sum(cache.bytes_for(n) for n in (24, 13, 30, 3))
    out = capsys.readouterr()
    assert f"4 of 4 clips are to be decoded; the frame cache {cache.folder} needs" in out.out
    assert f" {used / 1e6:.1f} MB, and its disk has " in out.out
    assert "decoding clips 4/4" in out.err


def test_too_little_room_is_refused_before_anything_is_decoded(
    cache: FrameCache, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = sum(cache.bytes_for(n) for n in (24, 13, 30, 3))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(UserError, match=r"cache needs 0\.\d MB, and its disk has 0\.\d MB free"):
        fill(cache, clips, workers=1)
    assert not list(cache.folder.glob("*.npy"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed))
    assert fill(cache, clips, workers=1) == 4


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_half(
    cache: FrameCache, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def full_after_two(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full_after_two)
    with pytest.raises(UserError, match="No room left"):
        fill(cache, clips, workers=1)
    monkeypatch.setattr("os.fsync", real)
    kept = sorted(path.name for path in cache.folder.iterdir())
    assert kept == ["P01-R01-A.npy", "P01-R01-B.npy", "frame-cache.json"]
    assert fill(cache, clips, workers=1) == 2


def test_old_partial_files_are_removed_and_young_ones_stay(
    cache: FrameCache, clips: dict[str, Path]
) -> None:
    old, young = (cache.folder / f".clip.npy.{pid}.partial" for pid in (1, 2))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    fill(cache, clips, workers=1)
    assert not old.exists()
    assert young.exists()


def test_filling_leaves_the_number_of_threads_as_it_was(
    cache: FrameCache, clips: dict[str, Path]
) -> None:
    threads = torch.get_num_threads()
    fill(cache, clips, workers=2)
    assert torch.get_num_threads() == threads


def fill_in_process(folder: Path, clips: dict[str, Path]) -> None:
    fill(FrameCache(folder, HEIGHT, WIDTH), clips, workers=2)


def fill_slowly(folder: Path, clips: dict[str, Path]) -> None:
    """In a process of its own: never done before it is stopped."""
    # A shell's background jobs ignore Ctrl-C, and so would this one, started by a test in one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    read = cache_module.read_fitted_frames

    def slowly(*arguments: Any) -> torch.Tensor:
        time.sleep(0.05)
        return read(*arguments)

    cache_module.read_fitted_frames = slowly  # type: ignore[assignment]
    fill_in_process(folder, clips)


def test_two_processes_may_fill_one_cache_at_once(tmp_path: Path, clips: dict[str, Path]) -> None:
    folder = tmp_path / "cache"
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=fill_in_process, args=(folder, clips)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    cache = FrameCache(folder, HEIGHT, WIDTH)
    assert fill(cache, clips) == 0
    for name, path in clips.items():
        found = cache.read(name, uniform_positions())
        assert found is not None
        assert torch.equal(found, fitted(path, uniform_positions()))
    assert len(list(folder.iterdir())) == len(clips) + 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_filling_goes_on_where_it_was(
    tmp_path: Path, stop: signal.Signals, clips: dict[str, Path]
) -> None:
    many = {}
    for i in range(200):
        many[f"clip{i}"] = tmp_path / f"{i}.mp4"
        many[f"clip{i}"].hardlink_to(clips["short"])
    folder = tmp_path / "cache"
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=fill_slowly, args=(folder, many))
    process.start()
    deadline = time.monotonic() + 30
    while len(list(folder.glob("*.npy"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, stop)
    process.join(30)
    assert process.exitcode != 0
    cache = FrameCache(folder, HEIGHT, WIDTH)
    kept = [name for name in many if cache.holds(name, "all", many[name])]
    assert 5 <= len(kept) < 200
    expected = fit_frames(read_all_frames(clips["short"]), HEIGHT, WIDTH)
    for path in folder.glob("*.npy"):
        found = read_all(cache, path.stem, 3)
        assert found is not None
        assert torch.equal(found, expected)
    assert fill(cache, many, workers=2) == 200 - len(kept)
