import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from av.video.reformatter import VideoReformatter
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from data_prep.clip_file import decode_pictures, open_clip, picture_packets
from tests.video.videos import (
    copy_video,
    cut_off,
    cut_video,
    damage,
    join_streams,
    numbers_of,
    write_changing_size,
    write_jpeg,
    write_sound,
    write_video,
)
from video.reading import (
    Reader,
    fit_frames,
    frame_indices,
    read_all_frames,
    read_fitted_frames,
    read_frames,
    training_positions,
    uniform_positions,
)

READERS: list[Reader] = ["pyav", "decord"]


def numbers(frames: Tensor) -> list[int]:
    """The numbers written in frames (T, H, W, 3)."""
    return numbers_of(frames.numpy())


def literal_frames(path: Path) -> Tensor:
    """All frames as PyAV's usual loop gives them, (F, H, W, 3)."""
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.stack([torch.from_numpy(image) for image in images])


# Positions


def test_the_uniform_positions_are_the_middles_of_the_sub_segments() -> None:
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    assert torch.equal(uniform_positions(4), expected)
    assert frame_indices(uniform_positions(), 72).tolist() == [
        3,
        10,
        18,
        25,
        32,
        39,
        46,
        54,
        61,
        68,
    ]


def test_a_training_clip_has_one_frame_of_each_sub_segment_by_hand() -> None:
    positions = training_positions(torch.tensor([[0.0, 0.5], [0.75, 0.25]]))
    assert positions.tolist() == [[0.0, 0.75], [0.375, 0.625]]
    assert frame_indices(positions, 8).tolist() == [[0, 6], [3, 5]]


@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=20))
def test_every_training_position_lies_in_its_own_sub_segment(draws: list[float]) -> None:
    positions = training_positions(torch.tensor(draws, dtype=torch.float64))
    segments = len(draws)
    for i, position in enumerate(positions.tolist()):
        assert i / segments <= position < (i + 1) / segments


@given(
    st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=10, max_size=10),
    st.integers(1, 500),
)
def test_frame_numbers_ascend_and_stay_in_the_clip(draws: list[float], frames: int) -> None:
    indices = frame_indices(training_positions(torch.tensor(draws)), frames).tolist()
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < frames


def test_draws_that_differ_give_other_frames() -> None:
    low, high = training_positions(torch.zeros(10)), training_positions(torch.full((10,), 0.95))
    assert frame_indices(low, 100).tolist() == list(range(0, 100, 10))
    assert frame_indices(high, 100).tolist() == list(range(9, 100, 10))


# Reading

VIDEOS: dict[str, dict[str, Any]] = {
    "24": {},
    "29.97": {"rate": Fraction(30000, 1001), "gop": 12},
    "7.5": {"rate": Fraction(15, 2)},
    "variable rate": {"times": [i + i * i // 7 for i in range(24)]},
    "no B-frames": {"b_frames": 0},
    "many B-frames": {"b_frames": 8, "gop": 10},
    "key frames only": {"gop": 1},
    "open groups": {"gop": 8, "x264-params": "open-gop=1"},
    "no multiple of 16": {"width": 70, "height": 54},
    "odd size": {"width": 71, "height": 53, "pix_fmt": "yuv444p"},
    "odd width": {"width": 71, "height": 54, "codec": "mpeg4"},
    "HD colours": {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"},
    "full range": {"pix_fmt": "yuvj420p"},
    "4:2:2": {"pix_fmt": "yuv422p"},
    "3 frames": {"frames": 3},
    "1 frame": {"frames": 1},
    "mkv": {"suffix": "mkv"},
    "avi": {"suffix": "avi", "codec": "mpeg4", "b_frames": 0},
    "webm": {"suffix": "webm", "codec": "libvpx", "b_frames": 0},
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_both_readers_give_the_frames_of_the_plain_loop_bit_for_bit(
    tmp_path: Path, kind: str
) -> None:
    options = dict(VIDEOS[kind])
    path = write_video(tmp_path / f"clip.{options.pop('suffix', 'mp4')}", **options)
    expected = literal_frames(path)
    assert numbers(expected) == list(range(options.get("frames", 24)))
    training = training_positions(torch.rand(10, generator=torch.Generator().manual_seed(0)))
    for reader in READERS:
        assert torch.equal(read_all_frames(path, reader), expected)
        for positions in (uniform_positions(), training, uniform_positions(3)):
            wanted = frame_indices(positions, len(expected))
            assert torch.equal(read_frames(path, positions, reader), expected[wanted])


@pytest.mark.parametrize("reader", READERS)
def test_a_clip_shorter_than_ten_frames_repeats_some(tmp_path: Path, reader: Reader) -> None:
    frames = read_frames(write_video(tmp_path / "3.mp4", 3), uniform_positions(), reader)
    assert numbers(frames) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_positions_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ascending"):
        read_frames(write_video(tmp_path / "clip.mp4"), torch.tensor([0.5, 0.1]))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("start", [3, 9])
def test_an_edit_list_cuts_the_first_frames(tmp_path: Path, reader: Reader, start: int) -> None:
    whole = write_video(tmp_path / "whole.mp4")
    path = cut_video(whole, tmp_path / "cut.mp4", start)
    assert numbers(read_all_frames(path, reader)) == list(range(start, 24))
    expected = literal_frames(whole)[start:][frame_indices(uniform_positions(), 24 - start)]
    assert torch.equal(read_frames(path, uniform_positions(), reader), expected)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("gop", [5, 12, 40])
def test_decord_gives_the_frames_of_pyav_wherever_an_edit_list_cuts(
    tmp_path: Path, gop: int, b_frames: int
) -> None:
    whole = write_video(tmp_path / "whole.mp4", 40, gop=gop, b_frames=b_frames)
    for start in (1, 7, 13, 22):
        path = cut_video(whole, tmp_path / f"{start}.mp4", start)
        assert_readers_agree(path, list(range(start, 40)))


IRREGULAR: dict[str, dict[str, Any]] = {
    "H.264 in AVI": {"suffix": "avi", "b_frames": 0},
    "fragments": {"b_frames": 2},
    "variable rate": {"b_frames": 1, "times": [i + i * i // 7 for i in range(40)]},
}


@pytest.mark.parametrize("gop", [5, 12, 40])
@pytest.mark.parametrize("kind", IRREGULAR)
def test_decord_gives_the_frames_of_pyav_where_it_cannot_skip(
    tmp_path: Path, kind: str, gop: int
) -> None:
    options = dict(IRREGULAR[kind])
    path = write_video(tmp_path / f"clip.{options.pop('suffix', 'mp4')}", 40, gop=gop, **options)
    if kind == "fragments":
        path = copy_video(path, tmp_path / "fragments.mp4", movflags="frag_keyframe+empty_moov")
    assert_readers_agree(path, list(range(40)))


def assert_readers_agree(path: Path, expected: list[int]) -> None:
    """Both give the frames of the plain loop, evenly spread ones and others."""
    frames = literal_frames(path)
    assert numbers(frames) == expected
    draws = torch.rand(10, generator=torch.Generator().manual_seed(0))
    for positions in (uniform_positions(), uniform_positions(3), training_positions(draws)):
        wanted = frames[frame_indices(positions, len(frames))]
        for reader in READERS:
            assert torch.equal(read_frames(path, positions, reader), wanted)


def test_reading_stops_behind_the_last_wanted_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "clip.mp4", b_frames=0)
    decoded = count_decoded(monkeypatch)
    frames = read_frames(path, torch.tensor([0.1, 0.25]))
    assert numbers(frames) == [2, 6]
    assert decoded == list(range(7))


def test_only_the_wanted_frames_are_turned_into_rgb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[object] = []

    class Counting:
        def __init__(self) -> None:
            self.real = VideoReformatter()

        def reformat(self, frame: av.VideoFrame, **changes: Any) -> av.VideoFrame:
            converted.append(frame.pts)
            return self.real.reformat(frame, **changes)

    monkeypatch.setattr("video.reading.VideoReformatter", Counting)
    read_frames(write_video(tmp_path / "clip.mp4"), torch.tensor([0.1, 0.1, 0.25, 0.9]))
    assert len(converted) == 3


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of each picture that is decoded."""
    decoded: list[int] = []

    def counting(*args: Any) -> Any:
        for number, picture in enumerate(decode_pictures(*args)):
            decoded.append(number)
            yield picture

    monkeypatch.setattr("video.reading.decode_pictures", counting)
    return decoded


def test_positions_are_taken_on_the_frames_that_decode(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", gop=8, b_frames=0)
    # Behind picture 3 and without its key frame: the first group cannot be decoded as a whole.
    path = cut_video(whole, tmp_path / "cut.mkv", 3, edit_list=False)
    expected = literal_frames(path)
    assert 16 <= len(expected) < 21
    assert torch.equal(read_all_frames(path), expected)
    # Early in the clip: that frames are missing is noticed although there are enough for these.
    early = torch.tensor([0.0, 0.24])
    assert not torch.equal(frame_indices(early, len(expected)), frame_indices(early, 21))
    for positions in (uniform_positions(), early):
        wanted = frame_indices(positions, len(expected))
        assert torch.equal(read_frames(path, positions), expected[wanted])


def test_frames_missing_at_the_end_are_made_up_for(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", b_frames=0)
    path = damage(whole, tmp_path / "end.mp4", lambda number: number >= 20)
    assert numbers(read_all_frames(path)) == list(range(20))
    expected = literal_frames(whole)[:20][frame_indices(uniform_positions(), 20)]
    assert torch.equal(read_frames(path, uniform_positions()), expected)


@pytest.mark.parametrize("number", [20, 22, 23])
def test_damage_at_the_end_is_not_in_the_middle_although_b_frames_come_out_behind_it(
    tmp_path: Path, number: int
) -> None:
    whole = write_video(tmp_path / "whole.mp4", codec="mpeg4", b_frames=2)
    path = damage(whole, tmp_path / "end.mp4", lambda packet: packet >= number)
    frames = read_all_frames(path)
    kept = numbers(frames)
    assert number - 2 <= len(kept) <= number
    expected = literal_frames(whole)[kept]
    assert torch.equal(frames, expected)
    wanted = frame_indices(uniform_positions(), len(kept))
    assert torch.equal(read_frames(path, uniform_positions()), expected[wanted])


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("number", [1, 2, 12, 22])
def test_a_frame_damaged_in_the_middle_is_refused_by_name(
    tmp_path: Path, b_frames: int, number: int
) -> None:
    whole = write_video(tmp_path / "whole.mp4", b_frames=b_frames)
    path = damage(whole, tmp_path / "middle.mp4", lambda packet: packet == number)
    with pytest.raises(UserError, match=r"middle\.mp4 .* in the middle cannot be decoded"):
        read_all_frames(path)


@pytest.mark.parametrize("reader", READERS)
def test_unusable_clips_are_refused_alike_by_both_readers(tmp_path: Path, reader: Reader) -> None:
    whole = write_video(tmp_path / "whole.mp4")
    part, sound = cut_off(whole, tmp_path / "part.mp4", 0.9), write_sound(tmp_path / "sound.mp4")
    for path in (part, sound, join_streams([whole, whole], tmp_path / "two.mp4")):
        with pytest.raises(UserError, match=path.name):
            read_frames(path, uniform_positions(), reader)


def test_decord_refuses_what_it_would_number_wrongly(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", gop=8, b_frames=0)
    path = cut_video(whole, tmp_path / "cut.mkv", 3, edit_list=False)
    with pytest.raises(UserError, match=r"cut\.mkv .*key frame.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")


def test_decord_refuses_a_clip_in_which_a_frame_is_missing_before_the_wanted(
    tmp_path: Path,
) -> None:
    """It would number those behind a missing one too low, and never notice."""
    whole = write_video(tmp_path / "whole.mp4", gop=8)
    path = copy_video(whole, tmp_path / "gap.mp4", without=[8])
    early = torch.tensor([0.25, 0.5])
    assert len(read_all_frames(path)) < 23
    with pytest.raises(UserError, match=r"gap\.mp4 .*--reader pyav"):
        read_frames(path, early, "decord")


@pytest.mark.parametrize("width", [24, 48, 72])
def test_decord_refuses_widths_whose_padding_it_takes_for_a_channel(
    tmp_path: Path, width: int
) -> None:
    path = write_video(tmp_path / "narrow.mp4", 4, width=width)
    assert read_all_frames(path).shape == (4, 48, width, 3)
    with pytest.raises(UserError, match=rf"narrow\.mp4 .*\(48, {width}, 4\).*--reader pyav"):
        read_all_frames(path, "decord")


@pytest.mark.parametrize(("height", "turn"), [(48, 90), (64, 90), (48, 180)])
def test_decord_refuses_to_turn_frames(tmp_path: Path, height: int, turn: int) -> None:
    """Also where a turned one has the same shape."""
    upright = write_video(tmp_path / "upright.mp4", height=height)
    path = copy_video(upright, tmp_path / "turned.mp4", turn=turn)
    assert torch.equal(read_all_frames(path), read_all_frames(upright))
    with pytest.raises(UserError, match=r"turned\.mp4 .*ask to turn.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")


def test_decord_refuses_interlaced_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", **{"x264-params": "interlaced=1"})
    assert torch.equal(read_all_frames(path), literal_frames(path))
    with pytest.raises(UserError, match=r"clip\.mp4 .*interlaced.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")


def test_a_cover_picture_is_no_second_video_but_refused_by_decord(tmp_path: Path) -> None:
    whole, cover = write_video(tmp_path / "whole.mp4"), write_jpeg(tmp_path / "cover.avi", 96)
    path = join_streams([whole, cover], tmp_path / "covered.mp4", cover=True)
    assert torch.equal(read_all_frames(path), literal_frames(whole))
    with pytest.raises(UserError, match=r"covered\.mp4 .*cover picture.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")


def test_decord_does_not_repeat_frames_in_place_of_undecodable_ones(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", b_frames=0)
    path = damage(whole, tmp_path / "end.mp4", lambda number: number >= 20)
    with pytest.raises(UserError, match=r"end\.mp4 .*--reader pyav"):
        read_all_frames(path, "decord")


def test_decord_refuses_frames_without_a_time(tmp_path: Path) -> None:
    """In some of many reads it gives the frame beside the wanted one."""
    path = write_video(tmp_path / "clip.avi")
    assert numbers(read_all_frames(path)) == list(range(24))
    with pytest.raises(UserError, match=r"clip\.avi .*when each picture is shown.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")


@pytest.mark.parametrize(
    "options",
    [{"width": 70, "height": 53, "codec": "mpeg4"}, {"pix_fmt": "yuv420p10le"}],
    ids=["odd height", "10 bits"],
)
def test_decord_refuses_what_it_would_colour_differently(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write_video(tmp_path / "clip.mp4", **options)
    assert torch.equal(read_all_frames(path), literal_frames(path))
    with pytest.raises(UserError, match=r"clip\.mp4 .*colours.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")


def test_without_decord_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write_video(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"extra 'video'.*--reader pyav"):
        read_frames(path, uniform_positions(), "decord")
    assert numbers(read_frames(path, uniform_positions(2))) == [6, 18]


@pytest.mark.parametrize("reader", READERS)
def test_frames_that_change_their_size_are_refused(tmp_path: Path, reader: Reader) -> None:
    path = write_changing_size(tmp_path)
    with pytest.raises(UserError, match=r"both\.avi .*change their size"):
        read_all_frames(path, reader)


def test_decoding_uses_one_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with open_clip(path) as (container, stream):
        assert picture_packets(container, stream, path)
        assert stream.codec_context.thread_count == 1
        assert stream.codec_context.thread_type.name in ("NONE", None)


# Fitting


def test_egtea_frames_become_299_by_224() -> None:
    frames = torch.randint(0, 256, (2, 480, 640, 3), dtype=torch.uint8)
    fitted = fit_frames(frames, 224, 299)
    assert fitted.shape == (2, 224, 299, 3)
    assert fitted.dtype == torch.uint8
    assert fitted.is_contiguous()


def test_frames_of_the_right_size_stay_as_they_are() -> None:
    frames = torch.randint(0, 256, (2, 24, 32, 3), dtype=torch.uint8)
    assert torch.equal(fit_frames(frames, 24, 32), frames)


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (48, 64), (7, 5), (100, 100)])
def test_the_aspect_is_kept_and_the_centre_cut_out(height: int, width: int) -> None:
    """A picture whose colour is its place: a linear ramp, which resizing leaves linear."""
    rows = torch.arange(48)[:, None].expand(48, 64)
    columns = torch.arange(64)[None].expand(48, 64)
    frames = (2 * torch.stack([rows, columns, rows], dim=2)).to(torch.uint8)[None]
    fitted = fit_frames(frames, height, width)[0].double()
    assert fitted.shape == (height, width, 3)
    scale = max(height / 48, width / 64)
    middle = fitted[height // 4 : -height // 4, width // 4 : -width // 4]
    assert middle[..., 0].mean().item() == pytest.approx(2 * 23.5, abs=2.5 / scale + 1)
    assert middle[..., 1].mean().item() == pytest.approx(2 * 31.5, abs=2.5 / scale + 1)
    steps = middle[1:, :, 0] - middle[:-1, :, 0]
    if steps.numel():
        assert steps.mean().item() == pytest.approx(2 / scale, rel=0.15, abs=0.3)


def test_antialiasing_averages_fine_detail() -> None:
    board = (255 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)).to(torch.uint8)
    fitted = fit_frames(board[None, :, :, None].expand(1, 64, 64, 3).contiguous(), 16, 16)
    assert (fitted[:, 2:-2, 2:-2].int() - 127).abs().max() <= 2


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("frames", [24, 3])
def test_fitting_while_reading_equals_fitting_afterwards(
    tmp_path: Path, reader: Reader, frames: int
) -> None:
    path = write_video(tmp_path / "clip.mp4", frames)
    positions = uniform_positions()
    expected = fit_frames(read_frames(path, positions), 20, 33)
    assert torch.equal(read_fitted_frames(path, positions, 20, 33, reader), expected)
    expected = fit_frames(read_all_frames(path), 20, 33)
    assert torch.equal(read_fitted_frames(path, None, 20, 33, reader), expected)
