"""Frames of a clip: T at random or evenly spread (Sec. 4.3.2), read by PyAV or by decord.

T frames a clip, F pictures in its file, H x W pixels. A frame position is a number p in [0, 1): the
picture floor(p F). Both readers give the same frames bit for bit: RGB by FFmpeg's own conversion,
as they are stored (metadata that ask to rotate a picture are not followed).

PyAV is the usual reader: one pass, only the wanted pictures are turned into RGB, and decoding stops
behind the last of them. decord goes through all pictures one by one, and is refused by name where
it would give others.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from data_prep.clip_file import (
    VideoPacket,
    decode_pictures,
    first_picture,
    of_several_sizes,
    open_clip,
    picture_packets,
    shown,
    undecodable,
)

Reader: TypeAlias = Literal["pyav", "decord"]
"""What decodes the clips."""

FRAMES: Final = 10
"""T of the paper, Sec. 4.3.2."""

_Image: TypeAlias = NDArray[np.uint8]

# Pixel formats whose conversion is the same, bit for bit, in the FFmpeg of decord (4) and of PyAV.
_SAME_COLOURS: Final = {
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12"),
}

# Of decord's: the share of pictures that it may replace by a neighbour; 0 would mean no limit.
_NO_FAULT: Final = 1e-6


def training_positions(draws: Tensor) -> Tensor:
    """One random position in each of T equal sub-segments (Sec. 4.3.2).

    Args:
        draws: (..., T), uniform in [0, 1).

    Returns:
        (..., T) float64: (i + u_i) / T, in [i / T, (i + 1) / T), i = 0 .. T-1.
    """
    segments = draws.shape[-1]
    start = torch.arange(segments, dtype=torch.float64, device=draws.device)
    # i + u may round up to i + 1, the next sub-segment.
    last = torch.nextafter((start + 1) / segments, torch.zeros_like(start))
    return torch.minimum((start + draws.double()) / segments, last)


def uniform_positions(frames: int = FRAMES) -> Tensor:
    """The middle of each of T equal sub-segments: (T,) float64, (i + 0.5) / T."""
    return (torch.arange(frames, dtype=torch.float64) + 0.5) / frames


def frame_indices(positions: Tensor, frames: int) -> Tensor:
    """Numbers of the pictures at ``positions`` in a clip of F ``frames``; a short one repeats some.

    Args:
        positions: (..., T), in [0, 1).
        frames: F, at least 1.

    Returns:
        (..., T) int64, floor(p F), in 0 .. F-1; as ordered as ``positions`` are.
    """
    return (positions.double() * frames).floor().long().clamp(0, frames - 1)


def fit_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize to cover ``height`` x ``width``, the aspect kept, and cut out the centre.

    Args:
        frames: (T, H, W, 3) uint8.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        (T, height, width, 3) uint8, contiguous; bilinear with antialiasing, EGTEA's 640 x 480
        becomes 299 x 224 without a cut.
    """
    scale = max(height / frames.shape[1], width / frames.shape[2])
    rows = max(height, round(frames.shape[1] * scale))
    columns = max(width, round(frames.shape[2] * scale))
    images = frames.permute(0, 3, 1, 2)
    if (rows, columns) != tuple(frames.shape[1:3]):
        images = F.interpolate(images, (rows, columns), mode="bilinear", antialias=True)
    top, left = (rows - height) // 2, (columns - width) // 2
    cut = images[:, :, top : top + height, left : left + width]
    return cut.permute(0, 2, 3, 1).contiguous()


def read_frames(path: Path, positions: Tensor, reader: Reader = "pyav") -> Tensor:
    """The pictures at ``positions``: (T, H, W, 3) uint8, RGB.

    F is the number of packets. Where a picture that is missing among those decoded shows that not
    all of them can be (the clip was cut out of a longer one without its first key frame), F is the
    number of pictures that decode; what cannot be decoded behind the last wanted one is not seen.

    Args:
        path: the clip.
        positions: (T,), in [0, 1), in ascending order.
        reader: what decodes it.

    Raises:
        UserError: the clip cannot be used (see :func:`data_prep.clip_file.probe_clip`), its
            pictures change their size, or decord is not installed or cannot give the same frames.
    """
    return _read(path, positions, reader)


def read_all_frames(path: Path, reader: Reader = "pyav") -> Tensor:
    """All pictures that can be decoded: (F, H, W, 3) uint8, RGB.

    Raises:
        UserError: as :func:`read_frames`.
    """
    return _read(path, None, reader)


def read_fitted_frames(
    path: Path, positions: Tensor | None, height: int, width: int, reader: Reader = "pyav"
) -> Tensor:
    """As :func:`fit_frames` of :func:`read_frames`, each picture fitted as soon as it is there.

    Args:
        path: the clip.
        positions: (T,), in [0, 1), in ascending order; None: all pictures that can be decoded.
        height: of the result, in pixels.
        width: of the result, in pixels.
        reader: what decodes the clip.

    Returns:
        (T, height, width, 3) uint8, RGB; a long clip is never in memory at its own size.

    Raises:
        UserError: as :func:`read_frames`.
    """
    return _read(path, positions, reader, (height, width))


_Size: TypeAlias = tuple[int, int]


def _read(
    path: Path, positions: Tensor | None, reader: Reader, size: _Size | None = None
) -> Tensor:
    with open_clip(path) as (container, stream):
        packets = picture_packets(container, stream, path)
        if reader == "decord":
            return _read_with_decord(path, stream, packets, positions, size)
        images = _pick(stream, packets, _wanted(positions, len(shown(packets))), path, size)
        if images is None:  # rare: fewer pictures can be decoded than there are packets
            wanted = _wanted(positions, _decodable(stream, packets, path))
            stream.codec_context.flush_buffers()
            images = _pick(stream, packets, wanted, path, size, check=False)
        if images is None:
            raise undecodable(path)
        return images


def _wanted(positions: Tensor | None, frames: int) -> list[int]:
    """Numbers of the wanted pictures; all of them for no positions."""
    if positions is None or not frames:
        return list(range(frames))
    numbers: list[int] = frame_indices(positions, frames).tolist()
    if numbers != sorted(numbers):
        raise ValueError("positions must be in ascending order")
    return numbers


def _decodable(stream: VideoStream, packets: list[VideoPacket], path: Path) -> int:
    """How many pictures come out, counted by decoding them all."""
    stream.codec_context.flush_buffers()
    return sum(1 for _ in decode_pictures(stream, packets, path))


def _pick(
    stream: VideoStream,
    packets: list[VideoPacket],
    wanted: list[int],
    path: Path,
    size: _Size | None,
    check: bool = True,
) -> Tensor | None:
    """The pictures with the ascending numbers ``wanted`` as RGB, (T, H, W, 3).

    Args:
        stream: where they are decoded.
        packets: of the whole clip.
        wanted: (T,), a number may be there more than once.
        path: of the clip, for the error.
        size: height and width to fit them to; None: as they are.
        check: give up as soon as the time of a picture shows that one before it is missing.

    Returns:
        None where one is missing.
    """
    times = _times(stream, packets) if check else None
    pictures = decode_pictures(stream, packets, path)
    if times is not None:
        pictures = _while_complete(pictures, times)
    return _stacked(_convert(pictures, wanted), wanted, path, size)


def _times(stream: VideoStream, packets: list[VideoPacket]) -> list[int] | None:
    """When the pictures are shown, in order; None if the container does not say for all."""
    if stream.container.format.name == "avi" and stream.codec_context.has_b_frames:
        return None  # its times are those of decoding
    times = [packet.pts for packet in shown(packets)]
    known = [time for time in times if time is not None]
    return sorted(known) if len(set(known)) == len(times) else None


def _while_complete(pictures: Iterable[VideoFrame], times: list[int]) -> Iterator[VideoFrame]:
    """The pictures up to the first that is not the next to be shown."""
    for picture, time in zip(pictures, times, strict=False):
        if picture.pts != time:
            return
        yield picture


def _convert(pictures: Iterable[VideoFrame], wanted: list[int]) -> Iterator[_Image]:
    """The wanted ones (H, W, 3), each once; takes no picture behind the last of them."""
    # One for all: a new one for every frame would cost more than the conversion itself; and with
    # its own threads it would be slower still.
    reformatter = VideoReformatter()
    numbers = set(wanted)
    for number, picture in enumerate(itertools.islice(pictures, max(numbers, default=-1) + 1)):
        if number in numbers:
            image = reformatter.reformat(picture, format="rgb24", threads=1)
            yield np.asarray(image.to_ndarray(), np.uint8)


def _stacked(
    images: Iterator[_Image], wanted: list[int], path: Path, size: _Size | None
) -> Tensor | None:
    """Images of the distinct numbers in ``wanted`` to (T, H, W, 3); None if there are too few."""
    frames: Tensor | None = None
    shape: tuple[int, ...] = ()
    repeats = [len(list(same)) for _, same in itertools.groupby(wanted)]
    place = 0
    for image, times in zip(images, repeats, strict=False):
        frame = torch.from_numpy(image)[None]
        fitted = frame if size is None else fit_frames(frame, *size)
        if frames is None:
            shape = image.shape
            frames = torch.empty((len(wanted), *fitted.shape[1:]), dtype=torch.uint8)
        elif shape != image.shape:
            raise of_several_sizes(path)
        frames[place : place + times] = fitted
        place += times
    return frames if place == len(wanted) else None


def _read_with_decord(
    path: Path,
    stream: VideoStream,
    packets: list[VideoPacket],
    positions: Tensor | None,
    size: _Size | None,
) -> Tensor:
    """As PyAV reads it, or refused by name."""
    decord = _import_decord()
    _refuse_other_colours(path, stream)
    if not packets[0].is_keyframe:
        raise _not_with_decord(path, "it begins without a key frame")
    if _times(stream, packets) is None:  # AVI with B-frames: now and then decord gives a neighbour
        raise _not_with_decord(path, "the file does not say when each picture is shown")
    if len(stream.container.streams.video) > 1:  # decord chooses by rules of its own
        raise _not_with_decord(path, "it has a cover picture beside its video")
    count, shape = len(shown(packets)), _shape(path, stream, packets)
    frames = _wanted(positions, count)
    try:
        # fault_tol: by default it would repeat a picture in place of one that does not decode.
        video = decord.VideoReader(str(path), num_threads=1, fault_tol=_NO_FAULT)
        images = _same_shape(_step_through(video, frames, count), path, shape)
        result = _stacked(images, frames, path, size)
    except UserError:
        raise
    except Exception as error:  # decord's own are several and not all public
        raise _not_with_decord(path, "not each of its pictures comes out once") from error
    assert result is not None
    return result


def _not_with_decord(path: Path, reason: str) -> UserError:
    return UserError(f"Clip {path} cannot be read by decord: {reason}; use --reader pyav.")


def _import_decord() -> Any:
    """The library, told to be quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import decord
    except ImportError as error:
        raise UserError(
            "decord is not installed; install the extra 'video' (pip install '.[video]', on Linux "
            "with an x86-64 processor) or read with --reader pyav."
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _refuse_other_colours(path: Path, stream: VideoStream) -> None:
    """FFmpeg 4 in decord rounds the colours of some rare formats in another way than ours."""
    context = stream.codec_context
    odd = context.height % 2 and "444" not in str(context.pix_fmt)
    if context.pix_fmt not in _SAME_COLOURS or odd:
        size = f"{context.pix_fmt}, {context.width} x {context.height}"
        raise _not_with_decord(path, f"its colours ({size}) would not be those of PyAV")


_Shape: TypeAlias = tuple[int, ...]


def _shape(path: Path, stream: VideoStream, packets: list[VideoPacket]) -> _Shape:
    """(H, W, 3) of all pictures; looks at the first and, as a size changes there, the key frames.

    Raises:
        UserError: they change their size (decord would make all as large as the first), are to be
            turned or mirrored when shown (it would do so), or have two fields (its colours differ).
    """
    first = first_picture(stream, packets, path)
    for picture in itertools.chain([first], _key_pictures(path, stream, packets)):
        if picture.side_data.get("DISPLAYMATRIX") is not None:
            raise _not_with_decord(path, "its metadata ask to turn or mirror the pictures")
        if picture.interlaced_frame:
            raise _not_with_decord(path, "its pictures are interlaced")
        if (picture.height, picture.width) != (first.height, first.width):
            raise of_several_sizes(path)
    return first.height, first.width, 3


def _key_pictures(
    path: Path, stream: VideoStream, packets: list[VideoPacket]
) -> Iterator[VideoFrame]:
    """The key frames, each decoded alone."""
    for packet in packets:
        if packet.is_keyframe:
            stream.codec_context.flush_buffers()
            yield from decode_pictures(stream, [packet], path)


def _step_through(video: Any, wanted: list[int], count: int) -> Iterator[_Image]:
    """The wanted ones of ``count`` pictures, in one pass over all of them.

    Never ``get_batch`` nor ``skip_frames``: both give other pictures in some files, such as those
    with an edit list, a variable rate, fragments or open groups.

    Raises:
        ValueError: more of them come out; with fewer, ``next`` raises something. Either way the
            wanted ones may be others, also where they came out before that.
    """
    numbers = set(wanted)
    for number in range(count):
        image = video.next()
        if number in numbers:
            yield image.asnumpy()
    if _has_more(video):
        raise ValueError(f"more than {count} pictures")


def _has_more(video: Any) -> bool:
    """Whether another picture comes out; behind the last decord has several errors to raise."""
    try:
        video.next()
    except Exception:
        return False
    return True


def _same_shape(images: Iterable[_Image], path: Path, shape: _Shape) -> Iterator[_Image]:
    """The images; decord takes padding for more channels where the rows have just the length."""
    for image in images:
        if image.shape != shape:
            reason = f"pictures of shape {image.shape} come out, not {shape}"
            raise _not_with_decord(path, reason)
        yield image
