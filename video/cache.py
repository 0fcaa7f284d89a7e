"""Frames kept on the disk, so that later epochs decode no video.

One file a clip: a NumPy array (n, h, w, 3), uint8, that ``numpy.load(..., mmap_mode="r")`` opens
too, followed by a table of CRC-32, one a frame, and a tail. Reading takes the wanted frames alone
and checks them: a file that is damaged, cut off or of another version counts as absent.

Files are written whole and renamed. Several processes may fill and read one folder at once: what
two of them write for a clip is the same.

n frames in a file, h x w pixels, T wanted frames.
"""

import io
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from common.files import write_atomically
from common.training.cache_folder import (
    check_room,
    claim_folder,
    file_stamp,
    filling_threads,
    map_counted,
    remove_old_partial_files,
)
from data_prep.clip_file import probe_clip
from video.reading import FRAMES, Reader, frame_indices, read_fitted_frames, uniform_positions

Keep: TypeAlias = Literal["all", "uniform"]
"""All frames of a clip (for training), or T evenly spread ones (for evaluation)."""

_SETTINGS: Final = "frame-cache.json"
_WORDS: Final = "frame cache"
_VERSION: Final = 1
# Mark, what is kept, size and time of the clip's file, CRC-32 of table and tail up to here.
_TAIL: Final = struct.Struct("<8sIQqI")
_MARK: Final = b"cdbframe"
_KEEPS: Final[tuple[Keep, ...]] = ("all", "uniform")
_CRC_BYTES: Final = 4


@dataclass(frozen=True)
class _Layout:
    """What the file of a clip says of itself."""

    frames: int
    keep: Keep
    source: tuple[int, int]
    checksums: tuple[int, ...]


class FrameCache:
    """A folder of clips' frames, all fitted to one size; may be sent to worker processes."""

    def __init__(self, folder: Path, height: int, width: int) -> None:
        """Open the folder, or make it.

        Args:
            folder: of the cache alone.
            height: of every frame, in pixels.
            width: of every frame, in pixels.

        Raises:
            UserError: it keeps frames of another size, holds something else, or cannot be written.
        """
        self.folder, self.height, self.width = folder, height, width
        self._frame_bytes = height * width * 3
        settings = {"version": _VERSION, "height": height, "width": width}
        claim_folder(folder, _SETTINGS, settings, _WORDS)

    def read(self, clip: str, positions: Tensor) -> Tensor | None:
        """The frames of a clip at ``positions``, each checked against its CRC-32.

        Args:
            clip: its name.
            positions: (T,), in [0, 1); where only evenly spread frames are kept, those of
                :func:`video.reading.uniform_positions`.

        Returns:
            (T, h, w, 3) uint8, or None: not kept, or damaged.
        """
        for keep in _KEEPS:
            found = self._read(self._path(clip, keep, len(positions)), positions)
            if found is not None:
                return found
        return None

    def _read(self, path: Path, positions: Tensor) -> Tensor | None:
        try:
            with path.open("rb") as file:
                layout = self._layout(file)
                numbers = _kept_numbers(layout, positions) if layout else None
                if layout is None or numbers is None:
                    return None
                return self._frames(file, layout, numbers)
        except OSError:
            return None

    def write(self, clip: str, frames: Tensor, source: Path | None = None) -> None:
        """Keep all frames of a clip.

        Args:
            clip: its name.
            frames: (F, h, w, 3) uint8.
            source: the clip's file; when it has changed, :meth:`holds` says no.

        Raises:
            UserError: when there is no room or no permission; nothing half is left.
        """
        self._write(clip, frames, "all", source)

    def write_uniform(self, clip: str, frames: Tensor, source: Path | None = None) -> None:
        """Keep the T evenly spread frames of a clip; otherwise as :meth:`write`.

        Raises:
            UserError: as :meth:`write`.
        """
        self._write(clip, frames, "uniform", source)

    def holds(
        self, clip: str, keep: Keep, source: Path | None = None, frames: int = FRAMES
    ) -> bool:
        """Whether there is a file that can answer; its frames are checked when they are read.

        Args:
            clip: its name.
            keep: what is wanted of it.
            source: the clip's file, which must not have changed since; None: any will do.
            frames: T of evenly spread ones.
        """
        kinds: tuple[Keep, ...] = ("all",) if keep == "all" else _KEEPS
        return any(self._is_fresh(self._path(clip, kind, frames), source) for kind in kinds)

    def _is_fresh(self, path: Path, source: Path | None) -> bool:
        """Whether a file is whole and of ``source`` as it is now."""
        try:
            with path.open("rb") as file:
                layout = self._layout(file)
            return layout is not None and (source is None or layout.source == file_stamp(source))
        except OSError:
            return False

    def bytes_for(self, frames: int) -> int:
        """Size of a file that keeps n ``frames``."""
        return len(self._head(frames)) + frames * (self._frame_bytes + _CRC_BYTES) + _TAIL.size

    def _path(self, clip: str, keep: Keep, frames: int) -> Path:
        """Where all frames of a clip are, or its T ``frames``: other T stand in other files."""
        kind = "" if keep == "all" else f".uniform-{frames}"
        return self.folder / f"{quote(clip, safe='')}{kind}.npy"

    def _head(self, frames: int) -> bytes:
        """The head of a .npy file; 128 bytes for any n in use."""
        head = io.BytesIO()
        shape = (frames, self.height, self.width, 3)
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        return head.getvalue()

    def _write(self, clip: str, frames: Tensor, keep: Keep, source: Path | None) -> None:
        shape = (self.height, self.width, 3)
        if frames.dtype != torch.uint8 or not len(frames) or tuple(frames.shape[1:]) != shape:
            raise ValueError(f"frames must be (F, {shape}) uint8, not {tuple(frames.shape)}")
        array = frames.contiguous().numpy()
        table = struct.pack(f"<{len(array)}I", *(zlib.crc32(frame.data) for frame in array))
        size, moment = (0, 0) if source is None else file_stamp(source)
        tail = _TAIL.pack(_MARK, _KEEPS.index(keep), size, moment, 0)[:-_CRC_BYTES]
        check = struct.pack("<I", zlib.crc32(table + tail))
        content = b"".join([self._head(len(array)), array.data, table, tail, check])
        write_atomically(self._path(clip, keep, len(array)), content)

    def _layout(self, file: BinaryIO) -> _Layout | None:
        """Read the head, the table and the tail; None if they do not fit together."""
        length = os.fstat(file.fileno()).st_size
        head_bytes = len(self._head(1))
        frames, rest = divmod(length - head_bytes - _TAIL.size, self._frame_bytes + _CRC_BYTES)
        if frames < 1 or rest or file.read(head_bytes) != self._head(frames):
            return None
        file.seek(head_bytes + frames * self._frame_bytes)
        end = file.read()
        mark, keep, size, moment, check = _TAIL.unpack(end[-_TAIL.size :])
        if mark != _MARK or check != zlib.crc32(end[:-_CRC_BYTES]) or keep >= len(_KEEPS):
            return None
        table = struct.unpack(f"<{frames}I", end[: -_TAIL.size])
        return _Layout(frames, _KEEPS[keep], (size, moment), table)

    def _frames(self, file: BinaryIO, layout: _Layout, numbers: list[int]) -> Tensor | None:
        """The frames with these numbers; None if one is damaged."""
        frames = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
        head_bytes = len(self._head(1))
        for frame, number in zip(frames, numbers, strict=True):
            file.seek(head_bytes + number * self._frame_bytes)
            # Into place: neither a copy nor, as through a memory map, a fault for every page.
            file.readinto(frame.data)  # type: ignore[attr-defined]
            if zlib.crc32(frame.data) != layout.checksums[number]:
                return None
        return torch.from_numpy(frames)


def _kept_numbers(layout: _Layout, positions: Tensor) -> list[int] | None:
    """Where the wanted frames are in the file; None if they are not."""
    if layout.keep == "all":
        return frame_indices(positions, layout.frames).tolist()
    kept = uniform_positions(layout.frames)
    return list(range(layout.frames)) if torch.equal(positions.double(), kept) else None


Part: TypeAlias = tuple[Mapping[str, Path], Keep]
"""Files of clips by name, and what is kept of each."""


def fill(
    cache: FrameCache,
    parts: Sequence[Part],
    *,
    frames: int = FRAMES,
    reader: Reader = "pyav",
    workers: int | None = None,
) -> int:
    """Decode the clips that are not in the cache yet, with a progress bar.

    May be interrupted at any moment, even killed; the same call goes on. Under torchrun every rank
    calls it with clips of its own, and the room is counted for all of them.

    Args:
        cache: where to.
        parts: clips, and what is kept of them.
        frames: T, for evenly spread ones.
        reader: what decodes them.
        workers: threads, >= 1; None: one for each core. (Both readers decode outside of Python's
            lock: processes measured no faster.)

    Returns:
        How many clips this rank decoded.

    Raises:
        UserError: a clip cannot be used, or the disk has not enough room; clips that were finished
            before stay.
    """
    remove_old_partial_files(cache.folder)
    missing = {
        name: (path, keep)
        for clips, keep in parts
        for name, path in clips.items()
        if not cache.holds(name, keep, path, frames)
    }

    def keep_clip(name: str) -> None:
        path, keep = missing[name]
        positions = uniform_positions(frames) if keep == "uniform" else None
        images = read_fitted_frames(path, positions, cache.height, cache.width, reader)
        (cache.write_uniform if keep == "uniform" else cache.write)(name, images, path)

    with filling_threads(workers) as pool:
        whole = [path for path, keep in missing.values() if keep == "all"]
        counts = map_counted(pool, lambda path: probe_clip(path).frames, whole, "counting frames")
        counts += [frames] * (len(missing) - len(whole))
        needed, total = sum(map(cache.bytes_for, counts)), sum(len(clips) for clips, _ in parts)
        check_room(cache.folder, _WORDS, "clips", needed, len(missing), total)
        map_counted(pool, keep_clip, missing, "decoding clips")
    return len(missing)
