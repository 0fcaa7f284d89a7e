"""One clip, a video file: opened safely, its pictures counted, or refused with its name.

A container's own word on how many pictures it holds may be wrong or missing, so they are counted
from the packets of the video stream, which needs no decoding. A file that stops before the end of
its outermost parts (what a broken download or copy leaves) is refused: its last pictures are gone.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from common.errors import UserError

OpenClip: TypeAlias = tuple[InputContainer, VideoStream]
VideoPacket: TypeAlias = "Packet[VideoStream]"
"""One picture, compressed."""

# Only these containers: FFmpeg would also read a text as a picture, or a play list that names
# other files.
_OPTIONS: Final = {"format_whitelist": "mov,avi,matroska", "protocol_whitelist": "file"}
_REMEDY: Final = "copy or download it again, or take it out of the split"


@dataclass(frozen=True)
class ClipInfo:
    """What a clip holds."""

    frames: int
    """Pictures in the file, at least 1: packets of its video stream that are to be shown."""
    width: int
    """Of a picture as it is stored, in pixels: metadata that ask to rotate it are not followed."""
    height: int
    """Of a picture as it is stored, in pixels."""
    rate: float
    """Pictures a second on average; nan where the file does not say."""


def probe_clip(path: Path) -> ClipInfo:
    """Count the pictures of a clip and decode the first.

    Raises:
        UserError: the file is missing, empty, cut off, not an MP4, MOV, AVI, MKV or WebM video,
            has no video stream or no picture, or none that can be decoded.
    """
    with open_clip(path) as (container, stream):
        packets = picture_packets(container, stream, path)
        first = first_picture(stream, packets, path)
        rate = stream.average_rate
        return ClipInfo(
            frames=len(shown(packets)),
            width=first.width,
            height=first.height,
            rate=float(rate) if rate else float("nan"),
        )


def decode_clip(path: Path) -> int:
    """Decode every picture of a clip: training may want any of them.

    Returns:
        How many there are, at least 1.

    Raises:
        UserError: see :func:`probe_clip`; also where a picture in the middle cannot be decoded, or
            the pictures change their size.
    """
    with open_clip(path) as (container, stream):
        packets = picture_packets(container, stream, path)
        pictures = decode_pictures(stream, packets, path)
        sizes = Counter((picture.width, picture.height) for picture in pictures)
    if not sizes:
        raise undecodable(path)
    if len(sizes) > 1:
        raise of_several_sizes(path)
    return sizes.total()


def unusable(path: Path, reason: str, remedy: str = _REMEDY) -> UserError:
    """The sentence for a clip that cannot be used."""
    return UserError(f"Clip {path} cannot be used: {reason}; {remedy}.")


def undecodable(path: Path) -> UserError:
    """The sentence for a clip without a single picture that comes out."""
    return unusable(path, "no picture of it can be decoded")


def of_several_sizes(path: Path) -> UserError:
    """The sentence for a clip whose pictures are not all of one height and width."""
    return unusable(path, "its pictures change their size on the way")


@contextmanager
def open_clip(path: Path) -> Iterator[OpenClip]:
    """The container and its video stream, to be decoded by one thread.

    Data loaders run several processes: more threads in each would only get in their way. A picture
    of the cover is no video.

    Raises:
        UserError: see :func:`probe_clip`; also for what FFmpeg finds wrong while it is open.
    """
    _check_whole(path)
    try:
        container = av.open(str(path), options=_OPTIONS)
    except (av.FFmpegError, UnicodeError) as error:
        raise unusable(path, "it is not an MP4, MOV, AVI, MKV or WebM video") from error
    with container:
        stream = _only_video(container, path)
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise unusable(path, f"it cannot be decoded ({error.strerror})") from error


def _only_video(container: InputContainer, path: Path) -> VideoStream:
    """The one video stream of a container.

    Raises:
        UserError: there is none, or several: nothing says which of them shows the action.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise unusable(path, "it has no video stream")
    if len(streams) > 1:
        remedy = "keep one (ffmpeg -i CLIP -map 0:v:0 -c copy NEW), or take it out of the split"
        raise unusable(path, f"it has {len(streams)} video streams", remedy)
    return streams[0]


def picture_packets(
    container: InputContainer, stream: VideoStream, path: Path
) -> list[VideoPacket]:
    """The packets of all pictures in decoding order: the compressed clip, a few hundred kB.

    Kept in memory so that the pictures can be counted before they are decoded, in one pass over
    the file.

    Raises:
        UserError: there is none, or one of them is cut off or cannot be read.
    """
    try:
        packets = [packet for packet in container.demux(stream) if packet.size]
    except av.FFmpegError as error:
        raise unusable(path, f"it is damaged ({error.strerror})") from error
    if any(packet.is_corrupt for packet in packets):
        raise unusable(path, "it is cut off or damaged: a picture in it is not complete")
    if not shown(packets):
        raise unusable(path, "it holds no picture")
    return packets


def shown(packets: Iterable[VideoPacket]) -> list[VideoPacket]:
    """Those that give a picture.

    Not those before the start that an edit list sets: the decoder needs them and drops them.
    """
    return [packet for packet in packets if not packet.is_discard]


def first_picture(stream: VideoStream, packets: Iterable[VideoPacket], path: Path) -> VideoFrame:
    """The first picture that is shown, as :func:`decode_pictures` gives it.

    Raises:
        UserError: none can be decoded.
    """
    for picture in decode_pictures(stream, packets, path):
        return picture
    raise undecodable(path)


def decode_pictures(
    stream: VideoStream, packets: Iterable[VideoPacket], path: Path
) -> Iterator[VideoFrame]:
    """All pictures in the order in which they are shown.

    Packets at the beginning or at the end that cannot be decoded are passed over, such as those of
    a clip that was cut out without its first key frame.

    Raises:
        UserError: one in the middle cannot be decoded: pictures come out of packets before it and
            of packets behind it. (With B-frames a picture may come out after a later packet has
            failed, so each is asked for the number of its own; the decoder's threads now and then
            lose it.)
    """
    stream.codec_context.copy_opaque = True
    failed: list[int] = []
    given: list[int] = []
    for place, packet in enumerate((*packets, None)):
        if packet is not None:
            packet.opaque = place
        try:
            pictures = stream.codec_context.decode(packet)
        except av.FFmpegError:
            failed.append(place)
            continue
        given += [cast("int", p.opaque) for p in pictures if p.opaque is not None]
        if failed and given and any(min(given) < number < max(given) for number in failed):
            raise unusable(path, "it is damaged: a picture in the middle cannot be decoded")
        yield from pictures


def _check_whole(path: Path) -> None:
    """Whether the file is there and as long as its outermost parts say.

    Raises:
        UserError: it is missing, a folder, unreadable, empty or cut off.
    """
    try:
        if path.is_dir():
            raise unusable(path, "it is a folder")
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if not length:
                raise unusable(path, "the file is empty")
            if _end_of_parts(file, length) > length:
                raise unusable(path, "the file is cut off before its end")
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error


def _end_of_parts(file: BinaryIO, length: int) -> int:
    """Where the file ends by the lengths that its outermost parts give themselves, in bytes."""
    head = file.read(12)
    if head[:4] == b"RIFF":
        return _end_of_riff(file, length)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _end_of_matroska(file, length)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"):
        return _end_of_boxes(file, length)
    return 0


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    """MP4 and MOV: boxes of a length, a kind and content (ISO/IEC 14496-12, Sec. 4.2)."""
    place = 0
    while place + 8 <= length:
        file.seek(place)
        head = file.read(16).ljust(16, b"\0")
        size: int = struct.unpack(">I", head[:4])[0]
        if size == 1:
            size = struct.unpack(">Q", head[8:])[0]
        if size < 8:  # 0: to the end of the file
            return length
        place += size
    return place


def _end_of_riff(file: BinaryIO, length: int) -> int:
    """AVI: one RIFF chunk or, above 1 GB, several."""
    place = 0
    while place + 12 <= length:
        file.seek(place)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or not size:
            return length
        place += 8 + size
    return place


def _end_of_matroska(file: BinaryIO, length: int) -> int:
    """MKV and WebM: a header and a segment (RFC 8794, Sec. 4: length octets, then the number)."""
    place = 0
    while place + 12 <= length:
        file.seek(place + 4)  # both identifiers have four bytes
        first = file.read(1)[0]
        octets = 9 - first.bit_length()
        rest = file.read(octets - 1)
        if octets > 8:
            return length
        size = int.from_bytes(bytes([first & (0xFF >> octets)]) + rest)
        if size == (1 << 7 * octets) - 1:  # not known: written as a stream
            return length
        place += 4 + octets + size
    return place
