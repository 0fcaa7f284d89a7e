"""Tiny videos whose pictures tell their number, written with PyAV; and how to spoil them."""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

BITS = 8
"""The picture's number is written in this many black and white fields along the top."""


_FOR_X264: dict[str, object] = {"preset": "veryfast", "crf": "16"}


def picture(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Picture ``number`` (height, width, 3), RGB: its number above, a coloured pattern below."""
    field = width // BITS
    rows, columns = np.mgrid[:height, :width]
    below = np.stack([2 * columns + 5 * number, 3 * rows + 40, columns + rows + 3 * number], axis=2)
    image: NDArray[np.uint8] = (below % 256).astype(np.uint8)
    for bit in range(BITS):
        image[: height // 2, bit * field : (bit + 1) * field] = 235 * (number >> bit & 1)
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number in a picture (height, width, 3) as it was decoded, of whatever size."""
    height, width = image.shape[:2]
    field = width // BITS
    row = image[height // 8 : 3 * height // 8]
    lit = [
        row[:, b * field + field // 4 : (b + 1) * field - field // 4].mean() for b in range(BITS)
    ]
    return sum(1 << bit for bit, level in enumerate(lit) if level > 118)


def numbers_of(frames: Iterable[NDArray[np.uint8]]) -> list[int]:
    """The numbers in several pictures."""
    return [number_of(frame) for frame in frames]


def write_video(
    path: Path,
    frames: int = 24,
    *,
    height: int = 48,
    width: int = 64,
    rate: Fraction | int = 24,
    gop: int = 250,
    b_frames: int = 2,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Iterable[int] | None = None,
    **options: str,
) -> Path:
    """Write ``frames`` numbered pictures to ``path``; the suffix chooses the container.

    Args:
        path: the file.
        frames: how many pictures; the numbers repeat after 256.
        height: of a picture.
        width: of a picture.
        rate: pictures a second.
        gop: pictures from one key frame to the next at most.
        b_frames: of the encoder, in a row at most.
        codec: an encoder of FFmpeg's.
        pix_fmt: how it keeps colours.
        times: in units of 1/rate when each picture is shown (a variable rate); default: 0, 1, ...
        options: of the encoder, such as ``crf="10"``.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.gop_size, stream.max_b_frames = gop, b_frames
        stream.codec_context.thread_count = 1
        stream.options = (_FOR_X264 if codec == "libx264" else {}) | options
        for number, time in zip(range(frames), times or range(frames), strict=False):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame.pts, frame.time_base = time, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut_video(source: Path, path: Path, start: int, *, edit_list: bool = True) -> Path:
    """Copy the packets of ``source`` so that it begins at picture ``start``, without encoding.

    With an edit list the packets before it stay and are not shown; without one they are left out,
    so that the first pictures have no key frame.
    """
    with (
        av.open(str(source)) as old,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new,
    ):
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        stream = new.add_stream_from_template(old.streams.video[0])
        offset = sorted(packet.pts or 0 for packet in packets)[start]
        for packet in packets if edit_list else packets[start:]:
            assert packet.pts is not None
            assert packet.dts is not None
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = stream
            new.mux(packet)
    return path


def copy_video(
    source: Path, path: Path, *, without: Container[int] = (), turn: int = 0, **options: str
) -> Path:
    """Copy the packets of ``source`` without encoding.

    Args:
        source: a clip.
        path: the new one; the suffix chooses the container.
        without: packets that are left out, by number in decoding order.
        turn: degrees, anticlockwise, that a player is asked to turn the pictures by.
        options: of the container, such as ``movflags="frag_keyframe"``.
    """
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        if turn:
            stream.set_display_rotation(turn)
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        for number, packet in enumerate(packets):
            if number not in without:
                packet.stream = stream
                new.mux(packet)
    return path


def join_streams(sources: Sequence[Path], path: Path, *, cover: bool = False) -> Path:
    """Write the video streams of several clips into one file; ``cover``: the last is its cover."""
    with ExitStack() as stack:
        clips = [stack.enter_context(av.open(str(source))) for source in sources]
        new = stack.enter_context(av.open(str(path), "w"))
        streams = [new.add_stream_from_template(clip.streams.video[0]) for clip in clips]
        if cover:
            streams[-1].disposition = Disposition.attached_pic
        for clip, stream in zip(clips, streams, strict=True):
            for packet in clip.demux(clip.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
    return path


def join_pictures(sources: Sequence[Path], path: Path) -> Path:
    """Write the single pictures (JPEG) of several clips into one stream, of whatever size."""
    with av.open(str(path), "w") as new:
        stream = new.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, source in enumerate(sources):
            with av.open(str(source)) as old:
                packet = next(iter(old.demux(old.streams.video[0])))
                packet.pts = packet.dts = number
                packet.stream = stream
                new.mux(packet)
    return path


def write_jpeg(path: Path, height: int = 48) -> Path:
    """A clip of one picture, JPEG: its size is its own."""
    return write_video(path, 1, height=height, codec="mjpeg", pix_fmt="yuvj420p", b_frames=0)


def write_changing_size(folder: Path) -> Path:
    """A clip of four pictures, the last two of which are higher."""
    heights = (48, 48, 64, 64)
    parts = [write_jpeg(folder / f"{n}.avi", height) for n, height in enumerate(heights)]
    return join_pictures(parts, folder / "both.avi")


def cut_off(source: Path, path: Path, share: float) -> Path:
    """The first bytes of ``source``: what a broken download leaves."""
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage(clip: Path, path: Path, choose: Callable[[int], bool]) -> Path:
    """Overwrite the pictures of ``clip`` that ``choose`` picks, by number in decoding order."""
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    for number, packet in enumerate(packets):
        if choose(number):
            assert packet.pos is not None
            content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    return path


def write_sound(path: Path) -> Path:
    """A file with an audio stream alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
