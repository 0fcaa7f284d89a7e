import errno
import math
import os
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import av
import pytest

from common.errors import UserError
from data_prep.clip_file import (
    ClipInfo,
    decode_clip,
    decode_pictures,
    open_clip,
    picture_packets,
    probe_clip,
    shown,
)
from tests.video.videos import (
    cut_off,
    cut_video,
    damage,
    join_streams,
    write_changing_size,
    write_sound,
    write_video,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures in one group, with B-frames."""
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4")


def test_probing_tells_pictures_size_and_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 17, height=54, width=70, rate=Fraction(30000, 1001))
    info = probe_clip(path)
    assert info == ClipInfo(frames=17, width=70, height=54, rate=info.rate)
    assert info.rate == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "vp8")],
)
def test_every_container_of_the_list_is_read(tmp_path: Path, suffix: str, codec: str) -> None:
    codec = "libvpx" if codec == "vp8" else codec
    path = write_video(tmp_path / f"clip.{suffix}", 12, codec=codec, b_frames=0)
    assert probe_clip(path).frames == 12


def test_a_single_picture_is_a_clip(tmp_path: Path) -> None:
    assert probe_clip(write_video(tmp_path / "one.mp4", 1)).frames == 1


def test_a_variable_rate_counts_pictures_not_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "vfr.mp4", 8, times=[0, 1, 5, 6, 20, 21, 22, 40])
    info = probe_clip(path)
    assert info.frames == 8
    assert 0 < info.rate < 24


def with_declared_count(clip: Path, path: Path, count: int) -> Path:
    """An MP4 whose header counts ``count`` pictures in its time table (box stts)."""
    content = bytearray(clip.read_bytes())
    place = content.index(b"stts")
    assert int.from_bytes(content[place + 8 : place + 12]) == 1, "one entry: a constant rate"
    content[place + 12 : place + 16] = count.to_bytes(4)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("declared", [7, 500])
def test_a_wrong_count_in_the_container_is_not_believed(
    clip: Path, tmp_path: Path, declared: int
) -> None:
    path = with_declared_count(clip, tmp_path / "wrong.mp4", declared)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == declared
    assert probe_clip(path).frames == 24


def test_a_container_that_declares_no_count_is_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", 15)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    assert probe_clip(path).frames == 15


def test_pictures_before_the_start_of_an_edit_list_do_not_count(clip: Path, tmp_path: Path) -> None:
    path = cut_video(clip, tmp_path / "cut.mp4", 9)
    assert probe_clip(path).frames == 15
    with open_clip(path) as (container, stream):
        packets = picture_packets(container, stream, path)
        assert (len(packets), len(shown(packets))) == (24, 15)


def refused(path: Path, reason: str) -> None:
    """The clip is refused in one sentence with its name."""
    with pytest.raises(UserError) as error:
        probe_clip(path)
    message = str(error.value)
    assert str(path) in message
    assert reason in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_missing_clip_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "gone.mp4", "No such file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    refused(folder, "is a folder")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "is empty")


def test_a_file_that_may_not_be_read_is_refused(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.mp4"
    path.write_bytes(clip.read_bytes())

    def locked(self: Path, *arguments: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    # Not chmod: root may read every file.
    monkeypatch.setattr(Path, "open", locked)
    refused(path, "Permission denied")


@pytest.mark.parametrize("name", ["text.mp4", "text.avi", "text.txt", "text"])
@pytest.mark.parametrize("lines", [1, 3000])
def test_a_text_is_no_video_whatever_its_name(tmp_path: Path, name: str, lines: int) -> None:
    path = tmp_path / name
    path.write_text("P19-R03-BaconAndEggs-806419-820160-F019321-F019717 2 1 3\n" * lines)
    refused(path, "is not an MP4, MOV, AVI, MKV or WebM video")


def test_a_play_list_does_not_lead_to_another_file(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    refused(path, "is not an MP4, MOV, AVI, MKV or WebM video")


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    refused(write_sound(tmp_path / "sound.mp4"), "has no video stream")


def test_a_video_without_a_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height = 64, 48
        container.start_encoding()
    refused(path, "cannot be used")


def move_header_first(clip: Path, path: Path) -> Path:
    """The same MP4 with its index before the pictures."""
    with (
        av.open(str(clip)) as old,
        av.open(str(path), "w", options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 0.97, 0.999])
@pytest.mark.parametrize("kind", ["mp4", "faststart", "mov", "mkv", "avi", "webm"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx"}.get(kind, "libx264")
    suffix = "mp4" if kind == "faststart" else kind
    path = write_video(tmp_path / f"whole.{suffix}", codec=codec, b_frames=0)
    if kind == "faststart":
        path = move_header_first(path, tmp_path / "fast.mp4")
    assert probe_clip(path).frames == 24
    refused(cut_off(path, tmp_path / f"part.{suffix}", share), "cut off")


def test_a_clip_without_a_decodable_picture_is_refused(clip: Path, tmp_path: Path) -> None:
    refused(damage(clip, tmp_path / "noise.mp4", lambda number: True), "no picture of it")


def test_an_unknown_rate_is_nan_or_positive(clip: Path) -> None:
    rate = probe_clip(clip).rate
    assert math.isnan(rate) or rate > 0


def test_several_video_streams_are_refused_with_the_way_to_keep_one(
    clip: Path, tmp_path: Path
) -> None:
    path = join_streams([clip, clip], tmp_path / "two.mp4")
    refused(path, "has 2 video streams; keep one (ffmpeg -i CLIP -map 0:v:0 -c copy NEW)")


def test_decoding_a_clip_counts_the_pictures_that_come_out(clip: Path, tmp_path: Path) -> None:
    assert decode_clip(clip) == 24
    assert decode_clip(cut_video(clip, tmp_path / "cut.mp4", 9)) == 15


class Forgetful:
    """A decoder that fails at a packet and loses the numbers of some pictures, as threads may."""

    def __init__(self, failing: int, forgotten: Collection[int]) -> None:
        self.failing, self.forgotten = failing, forgotten

    def decode(self, packet: SimpleNamespace | None) -> list[SimpleNamespace]:
        if packet is None:
            return []
        if packet.opaque == self.failing:
            raise av.InvalidDataError(1, "damaged")
        number = None if packet.opaque in self.forgotten else packet.opaque
        return [SimpleNamespace(opaque=number)]


def test_a_picture_without_its_number_hides_no_damage(tmp_path: Path) -> None:
    packets = [SimpleNamespace() for _ in range(6)]

    def decoded(failing: int, forgotten: Collection[int]) -> int:
        stream: Any = SimpleNamespace(codec_context=Forgetful(failing, forgotten))
        return len(list(decode_pictures(stream, packets, tmp_path)))  # type: ignore[arg-type]

    assert decoded(0, {1, 5}) == 5
    with pytest.raises(UserError, match="a picture in the middle cannot be decoded"):
        decoded(3, {2, 4})


def test_decoding_a_clip_finds_what_its_first_picture_does_not_show(
    clip: Path, tmp_path: Path
) -> None:
    broken = damage(clip, tmp_path / "broken.mp4", lambda number: number == 12)
    assert probe_clip(broken).frames == 24
    with pytest.raises(UserError, match="a picture in the middle cannot be decoded"):
        decode_clip(broken)
    with pytest.raises(UserError, match="change their size"):
        decode_clip(write_changing_size(tmp_path))
    with pytest.raises(UserError, match="no picture of it can be decoded"):
        decode_clip(damage(clip, tmp_path / "noise.mp4", lambda number: True))
