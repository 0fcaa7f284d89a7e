import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as reference

from classification.autoaugment import IMAGENET_POLICY, AutoAugment
from classification.image_augment import (
    DEVIATION,
    GREY,
    MEAN,
    CropFlipColour,
    blend_by_gathering,
    blend_in_one_pass,
    centre_boxes,
    change_colours,
    draw_boxes,
    sample,
)

PLAIN = CropFlipColour(crop=64, flip=0, jitter=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_image(width: int, height: int, seed: int = 0) -> Tensor:
    """(3, height, width) in [0, 255], that changes slowly."""
    coarse = 255 * torch.rand(1, 3, 4, 4, generator=generator(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)[0]


def square_of(image: Tensor, side: int) -> Tensor:
    """(1, side, side, 3), uint8."""
    square = reference.resize(image, [side, side], antialias=True)
    return square.round().to(torch.uint8).permute(1, 2, 0)[None].contiguous()


def in_bytes(images: Tensor) -> Tensor:
    """Normalised images (B, 3, c, c) in [0, 255] again."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return 255 * (images * deviation + mean)


def noise(number: int, side: int, low: int = 0, high: int = 256) -> Tensor:
    """Squares (B, side, side, 3) of random bytes."""
    shape = (number, side, side, 3)
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=generator(3))


# Geometry


@pytest.mark.parametrize(("width", "height"), [(500, 375), (300, 400), (256, 256), (900, 200)])
def test_a_crop_is_the_one_torchvision_cuts_from_the_file_s_image(width: int, height: int) -> None:
    image, sizes = smooth_image(width, height), torch.tensor([[float(width), height]])
    square = square_of(image, 256)
    for seed in range(8):
        draws = PLAIN.draw(1, generator(seed))
        box = draw_boxes(sizes, draws)[0] * sizes.repeat(1, 2)[0]
        left, top, crop_width, crop_height = (round(v) for v in box.tolist())
        assert torch.allclose(box, box.round(), atol=1e-3)
        cut = (top, left, crop_height, crop_width)
        wanted = reference.resized_crop(image, *cut, [64, 64], antialias=True)
        found = in_bytes(PLAIN.apply(square, sizes, draws))[0]
        assert (found - wanted).abs().max() < 3
        assert (found - wanted).abs().mean() < 0.6


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 512), (256, 256), (37, 91)])
def test_the_centre_is_that_of_torchvision_s_resize_and_centre_crop(
    width: int, height: int
) -> None:
    image = smooth_image(width, height)
    resized = reference.resize(image, 73, antialias=True)  # 64 256 / 224 = 73.1
    wanted = reference.center_crop(resized, [64, 64])
    found = PLAIN.centre(square_of(image, 128), torch.tensor([[float(width), height]]))
    assert (in_bytes(found)[0] - wanted).abs().max() < 3


def test_the_centre_is_256_to_224_of_the_short_side() -> None:
    box = centre_boxes(torch.tensor([[512.0, 256.0]]), 224)
    assert torch.allclose(box, torch.tensor([[144 / 512, 16 / 256, 224 / 512, 224 / 256]]))


def test_a_mirrored_crop_is_the_crop_mirrored_exactly() -> None:
    always = replace(PLAIN, flip=1.0)
    squares, sizes = noise(9, 32), torch.tensor([[50.0, 40.0]]).expand(9, 2)
    draws = PLAIN.draw(9, generator())
    straight, mirrored = PLAIN.apply(squares, sizes, draws), always.apply(squares, sizes, draws)
    assert torch.allclose(mirrored, straight.flip(3), atol=2e-4)


def test_flip_is_the_share_of_images_that_are_mirrored() -> None:
    squares, sizes = noise(1, 4).expand(2000, -1, -1, -1), torch.full((2000, 2), 4.0)
    some = CropFlipColour(crop=2, flip=0.3, jitter=0)
    draws = some.draw(2000, generator())
    straight = replace(some, flip=0.0).apply(squares, sizes, draws)
    changed = (some.apply(squares, sizes, draws) != straight).flatten(1).any(1)
    assert abs(changed.float().mean() - 0.3) < 0.04


def literal_sample(square: Tensor, box: list[float], crop: int) -> Tensor:
    """(3, crop, crop), pixel by pixel."""
    side = len(square)
    left, top, width, height = (side * v for v in box)
    result = torch.empty(3, crop, crop)

    def neighbours(place: float) -> tuple[int, int, float]:
        place = min(max(place, 0.0), side - 1.0)
        return math.floor(place), min(math.floor(place) + 1, side - 1), place % 1

    for y in range(crop):
        for x in range(crop):
            x0, x1, wx = neighbours(left + width * (x + 0.5) / crop - 0.5)
            y0, y1, wy = neighbours(top + height * (y + 0.5) / crop - 0.5)
            upper = (1 - wx) * square[y0, x0] + wx * square[y0, x1]
            lower = (1 - wx) * square[y1, x0] + wx * square[y1, x1]
            result[:, y, x] = (1 - wy) * upper + wy * lower
    return result


def test_sampling_is_bilinear() -> None:
    squares = noise(3, 7)
    boxes = torch.tensor([[0, 0, 1, 1], [0.9, 0.2, -0.7, 0.3], [0.1, 0.5, 0.2, 0.5]])
    found = sample(squares, boxes, 5)
    for number in range(3):
        wanted = literal_sample(squares[number], boxes[number].tolist(), 5)
        assert torch.allclose(found[:, :, number].permute(1, 2, 0), wanted, atol=1e-3)


def test_both_ways_of_blending_lines_give_the_same() -> None:
    lines = noise(1, 12).view(12, -1)
    first, weight = torch.tensor([0, 9, 3, 3]), torch.tensor([0.0, 1.0, 0.25, 0.9])
    wanted = blend_by_gathering(lines, first, 2, weight)
    assert torch.allclose(blend_in_one_pass(lines, first, 2, weight), wanted, atol=1e-4)
    assert torch.equal(wanted[0], lines[0].float())
    assert torch.equal(wanted[1], lines[11].float())


def test_a_crop_of_the_whole_square_at_its_size_is_the_square() -> None:
    squares = noise(2, 16)
    found = sample(squares, torch.tensor([[0.0, 0, 1, 1]] * 2), 16).permute(2, 3, 0, 1)
    assert torch.equal(found, squares.float())


# What is drawn


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (900, 300), (1200, 100)])
def test_areas_ratios_and_places_are_spread_as_torchvision_s(width: int, height: int) -> None:
    number = 3000
    sizes = torch.tensor([[float(width), height]]).expand(number, 2)
    boxes = draw_boxes(sizes, PLAIN.draw(number, generator())) * sizes.repeat(1, 2)
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    drawn = [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(number)]
    theirs = torch.tensor(drawn, dtype=torch.float32)[:, [1, 0, 3, 2]]
    measures: list[Callable[[Tensor], Tensor]] = [
        lambda b: b[:, 2] * b[:, 3] / (width * height),
        lambda b: (b[:, 2] / b[:, 3]).log(),
        lambda b: b[:, 0] / width,
        lambda b: b[:, 1] / height,
    ]
    for measure in measures:
        ours, wanted = measure(boxes).sort().values, measure(theirs).sort().values
        # Areas under the two distribution functions: 0.02 is four times what chance gives.
        assert (ours - wanted).abs().mean() < 0.02


def test_a_crop_lies_in_its_image_in_whole_pixels() -> None:
    sizes = torch.randint(1, 700, (5000, 2), generator=generator()).float()
    draws = PLAIN.draw(5000, generator())
    draws[::3] = 1 - 2**-24  # the largest that is drawn
    draws[1::3] = 0
    boxes = draw_boxes(sizes, draws) * sizes.repeat(1, 2)
    assert torch.allclose(boxes, boxes.round(), atol=1e-3)
    boxes = boxes.round()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()


def test_an_image_too_long_for_any_try_gives_its_middle() -> None:
    sizes = torch.tensor([[1000.0, 10.0], [10.0, 1000.0]])
    draws = torch.full((2, PLAIN.draw(1, generator()).shape[1]), 0.5)
    boxes = draw_boxes(sizes, draws) * sizes.repeat(1, 2)
    assert torch.allclose(boxes, torch.tensor([[493.0, 0, 13, 10], [0, 493, 10, 13]]), atol=1e-3)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    first, again, other = (PLAIN.draw(5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_settings_do_not_change_how_much_is_drawn() -> None:
    everything = CropFlipColour()
    assert torch.equal(PLAIN.draw(4, generator()), everything.draw(4, generator()))


# Colour

OPERATIONS = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_colours_change_as_torchvision_changes_them_in_every_order(order: tuple[int, ...]) -> None:
    """In the middle of the range, where nothing is clamped."""
    images = 0.4 + 0.2 * torch.rand(4, 3, 6, 6, generator=generator())
    factors = 0.8 + 0.4 * torch.rand(4, 3, generator=generator(1))
    crops = images.permute(3, 1, 0, 2).contiguous()
    change_colours(crops, factors)
    for image, factor, changed in zip(images, factors.tolist(), crops.unbind(2), strict=True):
        wanted = image
        for kind in order:
            wanted = OPERATIONS[kind](wanted, factor[kind])
        # torchvision's weights of grey sum to 0.9999.
        assert torch.allclose(changed.permute(1, 2, 0), wanted, atol=1e-4)


def test_apply_crops_changes_colours_and_normalises() -> None:
    augmentation = CropFlipColour(crop=16, flip=0, jitter=0.3)
    squares, sizes = noise(11, 20, 100, 150), torch.full((11, 2), 33.0)
    draws = augmentation.draw(11, generator())
    found = in_bytes(augmentation.apply(squares, sizes, draws))
    plain = in_bytes(replace(augmentation, jitter=0).apply(squares, sizes, draws))
    for image, drawn, changed in zip(plain, draws.tolist(), found, strict=True):
        wanted = image / 255
        for operation, uniform in zip(OPERATIONS, drawn[-3:], strict=True):
            wanted = operation(wanted, 0.7 + 0.6 * uniform)
        assert torch.allclose(changed, 255 * wanted, atol=0.03)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_each_factor_has_a_limit_of_its_own_meaning(kind: int) -> None:
    """At factor 0: black, the mean grey everywhere, each pixel's grey."""
    crops = torch.rand(5, 3, 1, 5, generator=generator())
    grey = torch.einsum("c,xcby->xby", torch.tensor(GREY), crops)
    wanted = (torch.zeros_like(grey), grey.mean().expand_as(grey), grey)[kind]
    factors = torch.ones(1, 3)
    factors[0, kind] = 0
    change_colours(crops, factors)
    assert torch.allclose(crops, wanted[:, None].expand_as(crops), atol=1e-6)


def test_colours_stay_between_black_and_white() -> None:
    augmentation = CropFlipColour(crop=8, jitter=1.0)
    squares, sizes = noise(20, 8), torch.full((20, 2), 8.0)
    found = in_bytes(augmentation.apply(squares, sizes, augmentation.draw(20, generator())))
    assert found.min() > -1e-3
    assert found.max() < 255 + 1e-3
    assert (found < 1e-3).any()
    assert (found > 255 - 1e-3).any()


# AutoAugment


def test_a_policy_follows_on_whole_levels_before_normalisation() -> None:
    policy = AutoAugment(IMAGENET_POLICY, 12, 12, MEAN, torch.device("cpu"))
    augmentation = CropFlipColour(crop=12, policy=policy)
    squares, sizes = noise(60, 16), torch.full((60, 2), 40.0)
    draws = augmentation.draw(60, generator())
    plain = in_bytes(CropFlipColour(crop=12).apply(squares, sizes, draws[:, :26]))
    images = plain.round().to(torch.uint8).contiguous()
    wanted = policy.apply(images, draws[:, 26:].long())
    assert not torch.equal(wanted, images)
    found = in_bytes(augmentation.apply(squares, sizes, draws))
    # A level that lies between two whole ones may be rounded otherwise after normalisation.
    whole = (plain - plain.floor() - 0.5).abs().flatten(1).amin(1) > 1e-3
    assert int(whole.sum()) > 30
    assert torch.allclose(found[whole], wanted[whole].float(), atol=1e-3)


def test_a_policy_leaves_the_numbers_drawn_for_crops_and_colours_as_they_are() -> None:
    policy = AutoAugment(IMAGENET_POLICY, 8, 8, MEAN, torch.device("cpu"))
    draws = CropFlipColour(crop=8, policy=policy).draw(9, generator())
    assert draws.shape == (9, 28)
    assert torch.equal(draws[:, :26], PLAIN.draw(9, generator()))


def test_a_policy_leaves_the_centre_as_it_is() -> None:
    policy = AutoAugment(IMAGENET_POLICY, 64, 64, MEAN, torch.device("cpu"))
    squares, sizes = noise(3, 70), torch.full((3, 2), 70.0)
    found = replace(PLAIN, policy=policy).centre(squares, sizes)
    assert torch.equal(found, PLAIN.centre(squares, sizes))


# As a whole


@pytest.mark.parametrize(
    "change", [{"crop": 20}, {"flip": 0.0}, {"jitter": 0.0}], ids=["crop", "flip", "jitter"]
)
def test_every_setting_changes_the_images(change: dict[str, float]) -> None:
    usual = CropFlipColour(crop=16)
    squares, sizes = noise(6, 16), torch.full((6, 2), 40.0)
    draws = usual.draw(6, generator())
    found = replace(usual, **change).apply(squares, sizes, draws)
    expected = usual.apply(squares, sizes, draws)
    assert found.shape != expected.shape or not torch.allclose(found, expected)


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    augmentation = CropFlipColour(crop=12)
    squares, sizes = noise(10, 16), 20 + 30 * torch.rand(10, 2, generator=generator()).round()
    draws = augmentation.draw(10, generator())
    whole = augmentation.apply(squares, sizes, draws)
    for number in range(10):
        one = slice(number, number + 1)
        alone = augmentation.apply(squares[one], sizes[one], draws[one])
        assert torch.allclose(whole[one], alone, atol=1e-4)


@pytest.mark.parametrize("with_policy", [False, True])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_images_come_as_the_network_takes_them(number: int, with_policy: bool) -> None:
    policy = AutoAugment(IMAGENET_POLICY, 12, 12, MEAN, torch.device("cpu"))
    augmentation = CropFlipColour(crop=12, policy=policy if with_policy else None)
    squares, sizes = noise(number, 16), torch.full((number, 2), 16.0)
    for images in (
        augmentation.apply(squares, sizes, augmentation.draw(number, generator())),
        augmentation.centre(squares, sizes),
    ):
        assert images.shape == (number, 3, 12, 12)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_grey_of_the_mean_becomes_nought() -> None:
    squares = torch.tensor([124, 116, 104], dtype=torch.uint8).expand(1, 8, 8, 3).contiguous()
    found = PLAIN.centre(squares, torch.tensor([[8.0, 8.0]]))
    assert found.abs().max() < 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [({"crop": 0}, "crop"), ({"flip": 1.5}, "flip"), ({"jitter": -0.1}, "jitter")],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CropFlipColour(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("with_policy", [False, True])
def test_nothing_is_read_back_from_the_device(with_policy: bool) -> None:
    """On the meta device there are no values: whatever waits for one fails."""
    policy = AutoAugment(IMAGENET_POLICY, 8, 8, MEAN, torch.device("meta"))
    augmentation = CropFlipColour(crop=8, policy=policy if with_policy else None)
    squares = torch.empty(3, 16, 16, 3, dtype=torch.uint8, device="meta")
    sizes, draws = torch.empty(3, 2, device="meta"), augmentation.draw(3, generator()).to("meta")
    assert augmentation.apply(squares, sizes, draws).shape == (3, 3, 8, 8)
    assert augmentation.centre(squares, sizes).shape == (3, 3, 8, 8)
