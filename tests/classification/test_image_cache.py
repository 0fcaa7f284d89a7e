import errno
import multiprocessing
import os
import resource
import signal
import threading
import time
import tracemalloc
from collections import Counter, namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from classification import image_cache as cache_module
from classification.image_cache import ImageCache, fill
from classification.image_files import ImageFiles, ImageReader
from common.errors import UserError
from tests.classification.image_trees import picture, write_images

SIDE, IMAGES, PER_SHARD = 16, 11, 4
ORDER = torch.tensor([7, 0, 10, 3, 4, 4])
HEAD = 128


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    folder = tmp_path / "images"
    return ImageFiles(folder, write_images(folder, IMAGES), SIDE)


@pytest.fixture
def cache(tmp_path: Path, files: ImageFiles) -> ImageCache:
    """An empty one."""
    return ImageCache(tmp_path / "cache", files, PER_SHARD)


def reopened(cache: ImageCache) -> ImageCache:
    return ImageCache(cache.folder, cache.files, PER_SHARD)


def kept(cache: ImageCache) -> list[int]:
    """Numbers of the images that the cache gives; each equals the decoded one."""
    found = []
    for number in range(len(cache.files)):
        square = np.zeros((cache.files.side, cache.files.side, 3), np.uint8)
        size = cache.read_into(number, square)
        if size is not None:
            pixels, wanted = cache.files.read(number)
            assert size == wanted
            assert np.array_equal(square, pixels.numpy())
            found.append(number)
    return found


# Whole


def test_a_filled_cache_gives_the_decoded_squares_bit_for_bit(cache: ImageCache) -> None:
    assert kept(cache) == []
    assert fill([cache], workers=2) == IMAGES
    assert kept(cache) == kept(reopened(cache)) == list(range(IMAGES))
    assert fill([cache]) == 0


def test_shards_can_be_mapped_as_numpy_arrays(cache: ImageCache) -> None:
    fill([cache], workers=1)
    assert cache.shards == 3
    for shard in range(3):
        array = np.load(cache.shard_path(shard), mmap_mode="r")
        squares = [cache.files.read(number)[0].numpy() for number in cache.numbers(shard)]
        assert np.array_equal(array, np.stack(squares))
        assert cache.shard_path(shard).stat().st_size == cache.bytes_for(shard)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_of_no_images_is_empty(cache: ImageCache, workers: int) -> None:
    none, one = torch.empty(0, dtype=torch.int64), torch.tensor([3])
    batches = list(ImageReader(cache.files, cache).batches([one, none, one], workers))
    assert [len(squares) for squares, _ in batches] == [1, 0, 1]
    squares, sizes = batches[1]
    assert (squares.shape, squares.dtype) == ((0, SIDE, SIDE, 3), torch.uint8)
    assert (sizes.shape, sizes.dtype) == ((0, 2), torch.float32)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_from_the_cache_equal_decoded_ones(cache: ImageCache, workers: int) -> None:
    fill([cache], workers=1)
    indices = [ORDER, torch.tensor([1]), *torch.arange(IMAGES).split(2), ORDER.flip(0)]
    found = list(ImageReader(cache.files, cache).batches(indices, workers))
    wanted = list(ImageReader(cache.files).batches(indices, 0))
    assert len(found) == len(wanted) == len(indices)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_reading_does_not_decode(cache: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fill([cache], workers=1)
    monkeypatch.setattr(ImageFiles, "read", None)
    for workers in (0, 2):
        assert len(list(ImageReader(cache.files, cache).batches([ORDER] * 9, workers))) == 9


def test_what_is_not_kept_yet_is_decoded(cache: ImageCache) -> None:
    cache.keep(1)
    assert kept(cache) == [4, 5, 6, 7]
    squares, sizes = ImageReader(cache.files, cache).read(ORDER)
    wanted = next(ImageReader(cache.files).batches([ORDER], 0))
    assert torch.equal(squares, wanted[0])
    assert torch.equal(sizes, wanted[1])


def test_batches_left_half_way_leave_no_thread(cache: ImageCache) -> None:
    fill([cache], workers=1)
    before = threading.active_count()
    batches = iter(ImageReader(cache.files, cache).batches([ORDER] * 50, 2))
    next(batches)
    del batches
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_image_that_is_neither_kept_nor_readable_is_named(cache: ImageCache) -> None:
    cache.files.path(3).write_bytes(b"")
    with pytest.raises(UserError, match=r"image3\.JPEG cannot be read"):
        list(ImageReader(cache.files, cache).batches([ORDER] * 3, 2))
    with pytest.raises(UserError, match=r"image3\.JPEG cannot be read"):
        fill([cache], workers=1)
    assert not cache.holds(0)


# Damage


def test_every_byte_matters(cache: ImageCache) -> None:
    """Whatever single byte of a shard is changed, no other square is given."""
    fill([cache], workers=1)
    path = cache.shard_path(0)
    content = path.read_bytes()
    table = HEAD + PER_SHARD * SIDE * SIDE * 3
    for place in [*range(0, HEAD, 9), *range(HEAD, table, 97), *range(table, len(content))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        first = kept(reopened(cache))
        hurt = {(place - HEAD) // (SIDE * SIDE * 3)} if HEAD <= place < table else set(range(4))
        assert set(first) == set(range(IMAGES)) - hurt, place


@pytest.mark.parametrize("length", [0, 1, 127, 128, 2000, -93, -1])
def test_a_shard_that_was_cut_off_counts_as_absent(cache: ImageCache, length: int) -> None:
    fill([cache], workers=1)
    path = cache.shard_path(0)
    path.write_bytes(path.read_bytes()[:length])
    again = reopened(cache)
    assert kept(again) == list(range(4, IMAGES))
    assert fill([again], workers=1) == 4
    assert kept(again) == list(range(IMAGES))


def test_a_shard_with_something_behind_it_counts_as_absent(cache: ImageCache) -> None:
    fill([cache], workers=1)
    with cache.shard_path(2).open("ab") as file:
        file.write(b"\0")
    assert kept(reopened(cache)) == list(range(8))


def test_a_shard_cut_off_while_it_is_read_costs_nothing_but_time(cache: ImageCache) -> None:
    fill([cache], workers=1)
    reader = ImageReader(cache.files, cache)
    wanted = reader.read(ORDER)[0]
    os.truncate(cache.shard_path(0), HEAD + SIDE * SIDE * 3)
    assert torch.equal(reader.read(ORDER)[0], wanted)


def test_a_damaged_square_is_decoded_said_once_and_made_anew(
    cache: ImageCache, capsys: pytest.CaptureFixture[str]
) -> None:
    fill([cache], workers=1)
    path = cache.shard_path(0)
    content = bytearray(path.read_bytes())
    content[HEAD + 3 * SIDE * SIDE * 3 + 5] ^= 4
    path.write_bytes(content)
    again = reopened(cache)
    capsys.readouterr()
    for _ in range(3):
        squares, _ = ImageReader(cache.files, again).read(ORDER)
        assert torch.equal(squares[3], cache.files.read(3)[0])
    assert capsys.readouterr().err.count("shard-000000.npy is damaged") == 1
    assert fill([again], workers=1) == PER_SHARD
    assert kept(again) == list(range(IMAGES))


# Whose it is


def test_a_changed_file_makes_its_shard_anew(cache: ImageCache) -> None:
    fill([cache], workers=1)
    picture(90, 80, seed=99).save(cache.files.path(5))
    again = reopened(cache)
    assert [again.holds(shard) for shard in range(3)] == [True, False, True]
    assert fill([again], workers=1) == 4
    assert kept(again) == list(range(IMAGES))


def test_a_folder_of_images_may_move(cache: ImageCache, tmp_path: Path) -> None:
    fill([cache], workers=1)
    moved = cache.files.folder.rename(tmp_path / "moved")
    files = ImageFiles(moved, cache.files.names, SIDE)
    assert fill([ImageCache(cache.folder, files, PER_SHARD)]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": SIDE + 1}, "side 16, not 17"),
        ({"names": ["class0/image0.JPEG"]}, "images 11, not 1"),
        ({"turn": True}, "exif_orientation absent, not applied"),
        (
            {"names": [f"class0/image{i}.JPEG" for i in range(IMAGES)]},
            "it holds other files than the lists name now",
        ),
    ],
    ids=["another size", "fewer images", "images lying on their side", "other images"],
)
def test_a_cache_of_something_else_is_refused_by_name(
    cache: ImageCache, change: dict[str, object], said: str
) -> None:
    values = {"folder": cache.files.folder, "names": cache.files.names, "side": SIDE} | change
    with pytest.raises(UserError, match=rf"The image cache .*cache was made with .*{said}"):
        ImageCache(cache.folder, ImageFiles(**values), PER_SHARD)  # type: ignore[arg-type]


def test_a_cache_by_another_pillow_is_refused(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels may differ from what is decoded now."""
    monkeypatch.setattr("PIL.__version__", "0.0.7")
    with pytest.raises(UserError, match=r"other settings \(pillow [\d.]+, not 0\.0\.7\); name"):
        reopened(cache)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, files: ImageFiles) -> None:
    with pytest.raises(UserError, match="not empty and holds no image cache"):
        ImageCache(files.folder, files)


# Filling


def test_the_needed_room_is_said_beforehand_and_is_what_is_used(
    cache: ImageCache, capsys: pytest.CaptureFixture[str]
) -> None:
    fill([cache], workers=1)
    used = sum(path.stat().st_size for path in cache.folder.glob("*.npy"))
    assert used == sum(map(cache.bytes_for, range(3)))
    out = capsys.readouterr()
    assert f"11 of 11 images are to be decoded; the image cache {cache.folder} needs" in out.out
    assert "decoding images, 4 at a time 3/3" in out.err


def test_too_little_room_is_refused_before_anything_is_decoded(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = sum(map(cache.bytes_for, range(3)))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(UserError, match=r"image cache .* needs 0\.0 MB, and its disk has"):
        fill([cache], workers=1)
    assert not list(cache.folder.glob("*.npy"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed))
    assert fill([cache], workers=1) == IMAGES


def two_caches(folder: Path, files: ImageFiles) -> list[ImageCache]:
    few = ImageFiles(files.folder, files.names[:5], SIDE)
    parts = {"train": files, "test": few}
    return [ImageCache(folder / name, part, PER_SHARD) for name, part in parts.items()]


def test_several_caches_are_counted_and_filled_together(
    tmp_path: Path, files: ImageFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    caches = two_caches(tmp_path / "caches", files)
    caches[0].keep(1)
    assert fill(caches, workers=2) == IMAGES - PER_SHARD + 5
    assert [kept(cache) for cache in caches] == [list(range(IMAGES)), list(range(5))]
    out = capsys.readouterr()
    said = f"12 of 16 images are to be decoded; the image cache {tmp_path / 'caches'} needs"
    assert said in out.out
    assert "decoding images, 4 at a time 4/4" in out.err


def test_room_for_the_first_of_several_caches_alone_is_too_little(
    tmp_path: Path, files: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = two_caches(tmp_path / "caches", files)
    usage = namedtuple("usage", "total used free")
    first, second = (sum(map(cache.bytes_for, range(cache.shards))) for cache in caches)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, first + second - 1))
    with pytest.raises(UserError, match=r"caches needs 0\.0 MB, and its disk has"):
        fill(caches, workers=1)
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, first + second))
    assert fill(caches, workers=1) == IMAGES + 5


def test_filling_holds_a_shard_in_memory_once(
    tmp_path: Path, files: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = ImageFiles(files.folder, files.names, 256)
    square = torch.zeros(256, 256, 3, dtype=torch.uint8), (1, 1)
    monkeypatch.setattr(large, "read", lambda number: square)
    cache = ImageCache(tmp_path / "cache", large)
    tracemalloc.start()
    try:
        cache.keep(0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.bytes_for(0) <= most < 1.5 * cache.bytes_for(0)


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_half(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def full_after_one(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full_after_one)
    with pytest.raises(UserError, match="No room left"):
        fill([cache], workers=1)
    monkeypatch.setattr("os.fsync", real)
    assert len(list(cache.folder.iterdir())) == 2
    again = reopened(cache)
    there = len(kept(again))
    assert there in (3, 4)  # one shard, perhaps the last
    assert fill([again], workers=1) == IMAGES - there
    assert kept(again) == list(range(IMAGES))


def fill_in_process(folder: Path, files: ImageFiles, pause: float = 0.0) -> None:
    # A shell's background jobs ignore Ctrl-C, and so would this one, started by a test in one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cache = ImageCache(folder, files, PER_SHARD)
    keep = cache.keep

    def slowly(shard: int) -> None:
        time.sleep(pause)
        keep(shard)

    cache.keep = slowly  # type: ignore[method-assign]
    fill([cache], workers=1)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_filling_goes_on_where_it_was(
    tmp_path: Path, files: ImageFiles, stop: signal.Signals
) -> None:
    many = ImageFiles(files.folder, files.names * 20, SIDE)
    folder = tmp_path / "cache"
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=fill_in_process, args=(folder, many, 0.02))
    process.start()
    deadline = time.monotonic() + 30
    while len(list(folder.glob("*.npy"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, stop)
    process.join(30)
    assert process.exitcode != 0
    cache = ImageCache(folder, many, PER_SHARD)
    there = len(kept(cache))
    assert 12 <= there < len(many)
    assert fill([cache], workers=1) == len(many) - there
    assert kept(cache) == list(range(len(many)))


def test_two_processes_that_fill_one_cache_share_the_work(
    tmp_path: Path, files: ImageFiles
) -> None:
    many, folder = ImageFiles(files.folder, files.names * 8, SIDE), tmp_path / "cache"
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=fill_in_process, args=(folder, many, 0.01)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    cache = ImageCache(folder, many, PER_SHARD)
    assert fill([cache]) == 0
    assert kept(cache) == list(range(len(many)))
    assert len(list(folder.iterdir())) == cache.shards + 1


def test_ranks_fill_their_shares(cache: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "world_size", lambda: 2)
    for own, images in ((1, 4), (0, 7)):
        monkeypatch.setattr(cache_module, "rank", lambda own=own: own)
        assert fill([cache], workers=1) == images
    assert kept(cache) == list(range(IMAGES))


# Open shards


@pytest.fixture
def descriptors() -> Iterator[tuple[int, int]]:
    """The limits, soft and hard, which are as before afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def count_opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each shard is opened from now on, by name."""
    opened: Counter[str] = Counter()
    real = cache_module._Shard.__init__

    def watch(self: object, path: Path, *rest: object) -> None:
        opened[path.name] += 1
        real(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module._Shard, "__init__", watch)
    return opened


def test_in_random_order_every_shard_is_opened_once(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: tuple[int, int]
) -> None:
    """Of as many as ImageNet-LT's training images fill, under a usual limit of descriptors."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, descriptors[1]))
    many = ImageFiles(files.folder, (files.names * 42)[:453], 8)
    cache = ImageCache(tmp_path / "cache", many, 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (4 * 453, descriptors[1])
    fill([cache], workers=1)
    opened = count_opened(monkeypatch)
    square = np.empty((8, 8, 3), np.uint8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for number in torch.randperm(len(many), generator=generator).tolist():
            assert cache.read_into(number, square) is not None
    assert len(opened) == opened.total() == 453


@pytest.mark.parametrize(
    ("soft", "hard", "left", "most"),
    [
        (1024, 4096, 1812, 453),
        (1024, -1, 1812, 453),
        (1024, 1024, 1024, 256),
        (256, 400, 400, 100),
        (4000, 4096, 4000, 453),
        (-1, -1, -1, 453),
        (2, 2, 2, 1),
    ],
)
def test_the_limit_of_descriptors_is_raised_where_needed_and_kept_to(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, left: int, most: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: (soft, hard)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert cache_module._most_open(453) == most
    assert limits == {resource.RLIMIT_NOFILE: (left, hard)}


def test_a_limit_that_cannot_be_raised_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert cache_module._most_open(453) == 256


def test_more_shards_than_are_kept_open_can_be_read(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_most_open", lambda shards: 2)
    cache = ImageCache(tmp_path / "cache", files, 1)
    fill([cache], workers=1)
    before = len(os.listdir("/proc/self/fd"))
    assert kept(cache) == list(range(IMAGES))
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
def test_a_shard_that_could_not_be_opened_once_is_tried_again(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fill([cache], workers=1)

    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("classification.image_cache.os.open", fail)
        assert cache.read_into(0, np.empty((SIDE, SIDE, 3), np.uint8)) is None
    assert kept(cache) == list(range(IMAGES))
