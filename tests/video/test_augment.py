import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from common.errors import UserError
from video.augment import ClipAugmentation, centre_crop, network_input

CROP = 9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_clips(number: int = 4, frames: int = 3, height: int = 12, width: int = 17) -> Tensor:
    shape = (number, frames, height, width, 3)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator())


def change(x: float = 0, y: float = 0, angle: float = 0, mirrored: float = 0) -> Tensor:
    return torch.tensor([[x, y, angle, mirrored]])


def corner(place: float, side: int, crop: int) -> int:
    """The ``side - crop + 1`` places are equally wide."""
    return min(math.floor(place * (side - crop + 1)), side - crop)


def literal_crop(clip: Tensor, left: int, top: int, mirrored: bool, crop: int) -> Tensor:
    """Pixel by pixel: (T, H, W, 3) -> (3, T, crop, crop)."""
    result = torch.full((3, len(clip), crop, crop), math.nan)
    for t in range(len(clip)):
        for row in range(crop):
            for column in range(crop):
                source = crop - 1 - column if mirrored else column
                result[:, t, row, column] = clip[t, top + row, left + source].float()
    return result


def rotated_by_torchvision(clip: Tensor, changes: Tensor, crop: int) -> Tensor:
    """Frame by frame: rotate the whole frame about the crop's centre, crop, mirror."""
    x, y, angle, mirrored = changes.tolist()
    left, top = corner(x, clip.shape[2], crop), corner(y, clip.shape[1], crop)
    centre = [left + crop / 2, top + crop / 2]
    frames = []
    for frame in clip.permute(0, 3, 1, 2).float():
        turned = vision.rotate(frame, angle, InterpolationMode.BILINEAR, center=centre)
        part = vision.crop(turned, top, left, crop, crop)
        frames.append(vision.hflip(part) if mirrored else part)
    return torch.stack(frames, dim=1)


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.999, 0.999), (0.5, 0.2)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_without_rotation_every_pixel_is_that_of_the_frame(
    place: tuple[float, float], mirrored: bool
) -> None:
    clips = random_clips()
    augmentation = ClipAugmentation(CROP, max_angle=0, flip=0.5)
    left, top = corner(place[0], 17, CROP), corner(place[1], 12, CROP)
    found = augmentation.apply(clips, change(*place, 0, mirrored).expand(4, 4))
    assert found.dtype == torch.float32
    for clip, result in zip(clips, found, strict=True):
        assert torch.equal(result, literal_crop(clip, left, top, mirrored, CROP))


@pytest.mark.parametrize("max_angle", [10, 45, 180])
def test_a_rotated_batch_equals_torchvision_frame_by_frame(max_angle: float) -> None:
    clips = random_clips(number=12)
    augmentation = ClipAugmentation(CROP, max_angle, flip=0.5)
    changes = augmentation.draw(12, generator(1))
    assert 0 < float(changes[:, 3].mean()) < 1
    found = augmentation.apply(clips, changes)
    assert found.shape == (12, 3, 3, CROP, CROP)
    for clip, row, result in zip(clips, changes, found, strict=True):
        expected = rotated_by_torchvision(clip, row, CROP)
        torch.testing.assert_close(result, expected, rtol=0, atol=0.02)


def test_at_angle_0_rotation_gives_the_exact_crop() -> None:
    clips = random_clips(number=20)
    exact = ClipAugmentation(CROP, max_angle=0, flip=0.5)
    changes = exact.draw(20, generator(2))
    turning = ClipAugmentation(CROP, max_angle=10, flip=0.5)
    torch.testing.assert_close(
        turning.apply(clips, changes), exact.apply(clips, changes), rtol=0, atol=0.01
    )


@pytest.mark.parametrize(
    ("angle", "mirrored", "expected"),
    [
        (0, 0, [[1, 2], [3, 4]]),
        (90, 0, [[2, 4], [1, 3]]),  # counter-clockwise: the upper right goes to the upper left
        (-90, 0, [[3, 1], [4, 2]]),
        (180, 0, [[4, 3], [2, 1]]),
        (90, 1, [[4, 2], [3, 1]]),  # mirrored after turning
    ],
)
def test_quarter_turns_by_hand(angle: float, mirrored: int, expected: list[list[int]]) -> None:
    clips = (
        torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).view(1, 1, 2, 2, 1).expand(1, 2, 2, 2, 3)
    )
    found = ClipAugmentation(2, 180, 1).apply(clips, change(0, 0, angle, mirrored))
    for t in range(2):
        for colour in range(3):
            torch.testing.assert_close(
                found[0, colour, t], torch.tensor(expected).float(), rtol=0, atol=1e-4
            )


def test_a_turned_frame_is_black_beyond_its_corners_and_continues_beyond_the_crop() -> None:
    white = torch.full((1, 1, 20, 20, 3), 255, dtype=torch.uint8)
    whole = ClipAugmentation(20, 45, 0).apply(white, change(0, 0, 45))
    assert whole[0, :, 0, 0, 0].tolist() == [0, 0, 0]
    torch.testing.assert_close(whole[0, :, 0, 10, 10], torch.full((3,), 255.0))
    # The corners of a crop of 10 in the middle of 20 pixels stay within the frame.
    inner = ClipAugmentation(10, 45, 0).apply(white, change(0.5, 0.5, 45))
    torch.testing.assert_close(inner, torch.full_like(inner, 255.0))


@pytest.mark.parametrize("max_angle", [0, 25])
def test_all_frames_of_a_clip_get_the_same_change_and_clips_different_ones(
    max_angle: float,
) -> None:
    still = random_clips(number=1, frames=1).expand(6, 5, -1, -1, -1)
    augmentation = ClipAugmentation(CROP, max_angle, flip=0.5)
    found = augmentation.apply(still, augmentation.draw(6, generator()))
    assert torch.equal(found, found[:, :, :1].expand_as(found))
    assert len({tuple(clip.flatten().tolist()) for clip in found}) > 1


@settings(max_examples=30, deadline=None)
@given(
    crop=st.integers(1, 7), beyond=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    angle=st.sampled_from([0.0, 10.0, 180.0]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_results_are_within_the_range_of_the_frames_for_any_size(
    crop: int, beyond: tuple[int, int], angle: float, seed: int
) -> None:
    clips = random_clips(3, 2, crop + beyond[0], crop + beyond[1])
    augmentation = ClipAugmentation(crop, angle, flip=0.5)
    before = clips.clone()
    found = augmentation.apply(clips, augmentation.draw(3, generator(seed)))
    assert torch.equal(clips, before)
    assert found.shape == (3, 3, 2, crop, crop)
    assert 0 <= float(found.min()) <= float(found.max()) <= 255.001


def test_draws_depend_on_the_generator_only_and_cover_their_ranges() -> None:
    augmentation = ClipAugmentation(CROP, max_angle=10, flip=0.25)
    torch.manual_seed(5)
    draws = augmentation.draw(4000, generator(3))
    torch.manual_seed(6)
    assert torch.equal(draws, augmentation.draw(4000, generator(3)))
    assert not torch.equal(draws, augmentation.draw(4000, generator(4)))
    assert (draws.shape, draws.dtype) == ((4000, 4), torch.float32)
    x, y, angle, mirrored = draws.unbind(1)
    for place in (x, y):
        assert 0 <= float(place.min()) < 0.01
        assert 0.99 < float(place.max()) < 1
    assert -10 <= float(angle.min()) < -9.9
    assert 9.9 < float(angle.max()) <= 10
    assert set(mirrored.tolist()) == {0.0, 1.0}
    assert float(mirrored.mean()) == pytest.approx(0.25, abs=0.03)


def test_every_setting_takes_as_many_random_numbers() -> None:
    # A sampler that shares the generator would else draw other clips.
    states = []
    for settings_ in ((CROP, 0, 0), (CROP, 10, 1)):
        source = generator()
        ClipAugmentation(*settings_).draw(7, source)
        states.append(source.get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("flip", [0, 1])
def test_flip_probabilities_0_and_1_are_certain(flip: float) -> None:
    draws = ClipAugmentation(CROP, 10, flip).draw(500, generator())
    assert set(draws[:, 3].tolist()) == {float(flip)}


def test_every_place_of_the_crop_is_drawn() -> None:
    columns = torch.arange(12, dtype=torch.uint8).view(1, 1, 1, 12, 1).expand(300, 1, 12, 12, 3)
    augmentation = ClipAugmentation(CROP, 0, 0)
    found = augmentation.apply(columns, augmentation.draw(300, generator()))
    assert set(found[:, 0, 0, 0, 0].tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_a_crop_of_the_whole_frame_is_the_frame() -> None:
    clips = random_clips(height=CROP, width=CROP)
    expected = clips.permute(0, 4, 1, 2, 3).float()
    augmentation = ClipAugmentation(CROP, 0, 0)
    assert torch.equal(augmentation.apply(clips, augmentation.draw(4, generator())), expected)
    assert torch.equal(network_input(centre_crop(clips, CROP)), expected)


def test_the_last_place_is_in_the_frame_even_if_its_product_is_rounded_up() -> None:
    nearly_one = 1 - 2**-24
    clips = random_clips(number=1, height=CROP + 75, width=CROP + 75)
    found = ClipAugmentation(CROP, 0, 0).apply(clips, change(nearly_one, nearly_one))
    assert torch.equal(found[0], literal_crop(clips[0], 75, 75, False, CROP))


@pytest.mark.parametrize("max_angle", [0, 10])
def test_no_clip_gives_no_clip(max_angle: float) -> None:
    augmentation = ClipAugmentation(CROP, max_angle, 0.5)
    draws = augmentation.draw(0, generator())
    assert augmentation.apply(random_clips(number=0), draws).shape == (0, 3, 3, CROP, CROP)


def test_the_centre_crop_takes_the_middle() -> None:
    clips = random_clips()
    found = network_input(centre_crop(clips, CROP))
    assert found.dtype == torch.float32
    assert torch.equal(found[0], literal_crop(clips[0], 4, 1, False, CROP))


@pytest.mark.parametrize(("height", "width"), [(8, 17), (12, 8)])
def test_a_crop_larger_than_the_frame_is_refused(height: int, width: int) -> None:
    clips = random_clips(height=height, width=width)
    words = f"crop of 9 x 9 pixels does not fit into frames of {width} x {height}"
    with pytest.raises(UserError, match=words):
        centre_crop(clips, CROP)
    with pytest.raises(UserError, match=words):
        ClipAugmentation(CROP, 0, 0).apply(clips, change())


@pytest.mark.parametrize(
    ("name", "value"),
    [("crop", 0), ("max_angle", -1), ("max_angle", 181), ("max_angle", math.nan),
     ("flip", -0.1), ("flip", 1.1), ("flip", math.nan)],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ClipAugmentation(**({"crop": CROP, "max_angle": 10, "flip": 0.5} | {name: value}))
