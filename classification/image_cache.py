"""Squares of a folder's images kept on the disk, so that later epochs decode no JPEG.

A shard keeps the squares of a fixed number of images: a NumPy array (n, S, S, 3), uint8, that
``numpy.load(..., mmap_mode="r")`` maps, followed by a table (a CRC-32 and the file's width and
height for each image) and a tail. Shards are written whole and renamed. One that is cut off, or
whose files have changed since, counts as absent; of one that is damaged the images hurt are decoded
again, and the next filling makes it anew. Several processes may fill and read one folder at once.

Shards stay open, as many as the limit of descriptors allows (it is raised where it may be): to open
one and read its table takes much longer than to read an image.

Images are read into their place in the batch by ``preadv`` rather than copied out of a memory map:
as fast when the file is in memory (8 us an image either way), one request instead of many when it
is not, and a file cut off meanwhile, or a failing disk, is an error that can be met; under a map
it would end the process (SIGBUS).

Room: 3 S^2 bytes an image; 22.8 GB for ImageNet-LT's 115,846 training images at S = 256.

Shapes: N images, n images in a shard, S pixels a side of a square.
"""

import hashlib
import io
import os
import random
import resource
import struct
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import PIL
from numpy.typing import NDArray

from classification.image_files import ImageFiles
from common.distributed import barrier, rank, world_size
from common.errors import UserError
from common.files import remove, write_atomically
from common.training.cache_folder import (
    FILES,
    check_room,
    claim_folder,
    file_stamp,
    filling_threads,
    map_counted,
    remove_old_partial_files,
)

IMAGES_PER_SHARD: Final = 256
"""50 MB at S = 256: so much a thread holds while filling, and so much work a kill can cost it."""

_SETTINGS: Final = "image-cache.json"
_WORDS: Final = "image cache"
_VERSION: Final = 1
_TABLE: Final = np.dtype([("crc", "<u4"), ("width", "<u4"), ("height", "<u4")])
# Mark, digest of the names and stamps of the shard's files, CRC-32 of table and tail up to here.
_TAIL: Final = struct.Struct("<8s32sI")
_MARK: Final = b"cdbimage"
_CRC_BYTES: Final = 4
# Of the descriptors a process may have, a cache takes at most one in so many: three caches, of the
# parts of a split, leave a quarter.
_SHARE: Final = 4


class _Shard:
    """A shard that is whole, opened; closed when nobody needs it any more."""

    source: bytes
    """Digest of its files as they were."""

    def __init__(self, path: Path, images: int, image_bytes: int, head: bytes) -> None:
        """Open it.

        Raises:
            OSError: there is none.
            ValueError: it is cut off or not one of these.
        """
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY)
        self._image_bytes, self._start = image_bytes, len(head)
        table_start = len(head) + images * image_bytes
        table_bytes = images * _TABLE.itemsize
        # One byte more than there should be, which shows a file that is too long.
        end = os.pread(self._descriptor, table_bytes + _TAIL.size + 1, table_start)
        if os.pread(self._descriptor, len(head), 0) != head:
            raise ValueError("another head")
        if len(end) != table_bytes + _TAIL.size:
            raise ValueError("another length")
        mark, self.source, check = _TAIL.unpack(end[table_bytes:])
        if mark != _MARK or check != zlib.crc32(end[:-_CRC_BYTES]):
            raise ValueError("a damaged table")
        self._table: list[tuple[int, int, int]] = np.frombuffer(end[:table_bytes], _TABLE).tolist()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_into(self, place: int, square: NDArray[np.uint8]) -> tuple[int, int] | None:
        """Width and height of an image's file; None if it is damaged."""
        crc, width, height = self._table[place]
        start = self._start + place * self._image_bytes
        try:
            read = os.preadv(self._descriptor, [square.data], start)
        except OSError:
            return None
        whole = read == self._image_bytes and zlib.crc32(square.data) == crc
        return (width, height) if whole else None


class ImageCache:
    """A folder of shards, all of one list of files and of one size."""

    def __init__(
        self, folder: Path, files: ImageFiles, images_per_shard: int = IMAGES_PER_SHARD
    ) -> None:
        """Open the folder, or make it; :func:`fill` fills it.

        Args:
            folder: of the cache alone.
            files: what it keeps. Their folder may move: their names in it count.
            images_per_shard: at least 1.

        Raises:
            UserError: it keeps squares of another size, of other files or by another Pillow
                (whose pixels may differ), holds something else, or cannot be written.
        """
        self.folder, self.files, self._per_shard = folder, files, images_per_shard
        self._image_bytes = 3 * files.side**2
        self._open = lru_cache(_most_open(self.shards))(self._opened)
        self._damaged: set[int] = set()
        settings = {
            "version": _VERSION,
            "side": files.side,
            "images": len(files),
            "images_per_shard": images_per_shard,
            FILES: hashlib.sha256("\n".join(files.names).encode()).hexdigest(),
            "pillow": PIL.__version__,
        }
        if files.turn:
            # Named only then: caches of images that are not turned stay what they are.
            settings["exif_orientation"] = "applied"
        claim_folder(folder, _SETTINGS, settings, _WORDS)

    @property
    def shards(self) -> int:
        """How many there are when all is kept."""
        return -(-len(self.files) // self._per_shard)

    def numbers(self, shard: int) -> range:
        """The images of a shard."""
        start = shard * self._per_shard
        return range(start, min(start + self._per_shard, len(self.files)))

    def shard_path(self, shard: int) -> Path:
        """Its file."""
        return self.folder / f"shard-{shard:06d}.npy"

    def bytes_for(self, shard: int) -> int:
        """Size of a shard's file."""
        images = len(self.numbers(shard))
        per_image = self._image_bytes + _TABLE.itemsize
        return len(self._head(images)) + images * per_image + _TAIL.size

    def holds(self, shard: int) -> bool:
        """Whether there is a whole shard of the files as they are now.

        Its squares are checked when they are read.
        """
        try:
            found = self._opened(shard)
        except (OSError, ValueError):
            return False
        return found.source == self._source(shard)

    def read_into(self, number: int, square: NDArray[np.uint8]) -> tuple[int, int] | None:
        """Read an image into its place, and check it against its CRC-32.

        Args:
            number: of the image, 0..N-1.
            square: (S, S, 3), contiguous; holds anything if the result is None.

        Returns:
            Width and height of the file's image, or None: not kept, or damaged.
        """
        shard, place = divmod(number, self._per_shard)
        try:
            found = self._open(shard)
        except (OSError, ValueError):
            # Not remembered: what was in the way may pass, as too many open files do.
            return None
        size = found.read_into(place, square)
        if size is None:
            self._report_damage(shard)
        return size

    def _report_damage(self, shard: int) -> None:
        """Once: say it, and let the next filling make the shard anew."""
        if shard not in self._damaged:
            self._damaged.add(shard)
            path = self.shard_path(shard)
            remove(path)
            words = "is damaged: its images are decoded again, and the next start makes it anew"
            print(f"{path} {words}.", file=sys.stderr, flush=True)

    def keep(self, shard: int) -> None:
        """Decode the images of a shard, and write it.

        Raises:
            UserError: an image cannot be read, or there is no room or no permission; nothing half
                is left.
        """
        numbers, source = self.numbers(shard), self._source(shard)
        side = self.files.side
        squares = np.empty((len(numbers), side, side, 3), np.uint8)
        table = np.empty(len(numbers), _TABLE)
        for place, number in enumerate(numbers):
            pixels, (width, height) = self.files.read(number)
            squares[place] = pixels.numpy()
            table[place] = zlib.crc32(squares[place].data), width, height
        end = table.tobytes() + _TAIL.pack(_MARK, source, 0)[:-_CRC_BYTES]
        check = struct.pack("<I", zlib.crc32(end))
        write_atomically(self.shard_path(shard), self._head(len(numbers)), squares.data, end, check)

    def forget(self) -> None:
        """Look anew which shards there are."""
        self._open.cache_clear()
        self._damaged.clear()

    def _opened(self, shard: int) -> _Shard:
        images = len(self.numbers(shard))
        return _Shard(self.shard_path(shard), images, self._image_bytes, self._head(images))

    def _head(self, images: int) -> bytes:
        """The head of a .npy file."""
        head = io.BytesIO()
        shape = (images, self.files.side, self.files.side, 3)
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        return head.getvalue()

    def _source(self, shard: int) -> bytes:
        """Digest of a shard's files: their names, sizes and times of change.

        Raises:
            UserError: one is not there.
        """
        digest = hashlib.sha256()
        for number in self.numbers(shard):
            path = self.files.path(number)
            try:
                stamp = file_stamp(path)
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"{path} cannot be read ({reason}); get it again.") from error
            digest.update(f"{self.files.names[number]}\0{stamp}\n".encode())
        return digest.digest()


_Item: TypeAlias = tuple[ImageCache, int]
"""A shard, by its cache and its number."""


def _most_open(shards: int) -> int:
    """How many of a cache's shards stay open: all, if the limit of descriptors can be raised so."""
    wanted = _SHARE * shards
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return shards
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    return min(shards, max(1, soft // _SHARE))


def fill(caches: Sequence[ImageCache], workers: int | None = None) -> int:
    """Decode the images that are not in the caches yet, with a progress bar.

    The room is checked once, for all of them, before anything is decoded. May be interrupted at any
    moment, even killed; the same call goes on. Under torchrun every rank calls it and makes its
    share of the shards.

    Args:
        caches: where to; at least one, all on one disk.
        workers: threads, >= 1; None: one for each core. (Pillow decodes outside of Python's lock:
            processes measured no faster.)

    Returns:
        How many images this rank found missing.

    Raises:
        UserError: an image cannot be read, or the disk has not enough room; shards that were
            finished before stay.
    """
    for cache in caches:
        remove_old_partial_files(cache.folder)
    own = [(cache, n) for cache in caches for n in range(rank(), cache.shards, world_size())]
    with filling_threads(workers) as pool:
        held = pool.map(_is_held, own)
        missing = [item for item, there in zip(own, held, strict=True) if not there]
        images = _count(missing)
        needed = sum(cache.bytes_for(shard) for cache, shard in missing)
        folder = Path(os.path.commonpath([cache.folder for cache in caches]))
        check_room(folder, _WORDS, "images", needed, images, _count(own))
        most = max(len(cache.numbers(0)) for cache in caches)
        words = f"decoding images, {most} at a time" if missing else ""
        map_counted(pool, _keep, _from_somewhere(missing), words)
    barrier()
    for cache in caches:
        cache.forget()
    return images


def _is_held(item: _Item) -> bool:
    cache, shard = item
    return cache.holds(shard)


def _keep(item: _Item) -> None:
    # Another process, which fills the folder at the same time, may have made it.
    if not _is_held(item):
        cache, shard = item
        cache.keep(shard)


def _count(items: Sequence[_Item]) -> int:
    """Their images."""
    return sum(len(cache.numbers(shard)) for cache, shard in items)


def _from_somewhere(items: list[_Item]) -> list[_Item]:
    """The same, from another start in every process: two that fill one folder share the work."""
    start = random.Random(os.getpid()).randrange(len(items)) if items else 0
    return items[start:] + items[:start]
