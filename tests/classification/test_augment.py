import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as vision

from classification.augment import (
    AUGMENTATIONS,
    CROP_PADDING,
    CUTOUT_SIDE,
    AutoAugmentCutout,
    CropsAndFlips,
    ImageSource,
    PlainImages,
)
from classification.autoaugment import CIFAR_POLICY, AutoAugment, cut_out
from classification.models.resnet_cifar import CIFAR100_MEAN, CIFAR100_STD, PixelScaling

EVERY_CHANGE = torch.tensor(list(itertools.product(range(9), range(9), range(2))))
"""The 81 places of a crop after padding by 4, each as it is and mirrored: (162, 3)."""


def random_images(number: int, side: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # No pixel is 0: black can only be padding.
    return torch.randint(1, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def literal_crop(image: Tensor, top: int, left: int, mirrored: int, padding: int) -> Tensor:
    """Pixel by pixel: (3, H, W) -> (3, H, W)."""
    _, height, width = image.shape
    crop = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            across = width - 1 - x if mirrored else x
            row, column = y + top - padding, across + left - padding
            if 0 <= row < height and 0 <= column < width:
                crop[:, y, x] = image[:, row, column]
    return crop


def pil_crop(image: Tensor, top: int, left: int, mirrored: int) -> Tensor:
    """What ``RandomCrop(32, padding=4)`` and ``RandomHorizontalFlip`` do to a PIL image."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    crop = vision.crop(vision.pad(picture, [CROP_PADDING] * 4), top, left, *image.shape[1:])
    crop = vision.hflip(crop) if mirrored else crop
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1)


def test_every_crop_and_flip_is_that_of_pil_to_the_bit() -> None:
    images = random_images(3)
    index = torch.arange(162) % 3
    crops = CropsAndFlips(images).take(index, EVERY_CHANGE)
    assert crops.dtype == torch.uint8
    for crop, image, change in zip(crops, images[index], EVERY_CHANGE.tolist(), strict=True):
        assert torch.equal(crop, pil_crop(image, *change))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 5), width=st.integers(1, 5), padding=st.integers(0, 3), data=st.data())
def test_crops_of_any_size_equal_the_literal_ones(
    height: int, width: int, padding: int, data: st.DataObject
) -> None:
    images = random_images(4, 5)[:, :, :height, :width].contiguous()
    place = st.integers(0, 2 * padding)
    change = st.tuples(st.integers(0, 3), place, place, st.integers(0, 1))
    changes = torch.tensor(data.draw(st.lists(change, min_size=1, max_size=4)))
    crops = CropsAndFlips(images, padding).take(changes[:, 0], changes[:, 1:])
    for crop, (index, top, left, mirrored) in zip(crops, changes.tolist(), strict=True):
        assert torch.equal(crop, literal_crop(images[index], top, left, mirrored, padding))


def test_the_place_in_the_middle_is_the_image_itself() -> None:
    images = random_images(2)
    middle = torch.tensor([[4, 4, 0], [4, 4, 1]])
    crops = CropsAndFlips(images).take(torch.arange(2), middle)
    assert torch.equal(crops[0], images[0])
    assert torch.equal(crops[1], images[1].flip(2))


def test_every_place_and_both_flips_are_drawn_equally_often() -> None:
    draws = CropsAndFlips(random_images(1)).draw(162 * 100, torch.Generator().manual_seed(0))
    assert (draws.shape, draws.dtype) == ((16200, 3), torch.int64)
    top, left, mirrored = draws.unbind(1)
    counts = torch.bincount((top * 9 + left) * 2 + mirrored, minlength=162)
    assert counts.numel() == 162
    # 100 +- 10 each: four standard deviations and a half.
    assert 55 < int(counts.min()) <= int(counts.max()) < 145


@pytest.mark.parametrize("kind", [CropsAndFlips, AutoAugmentCutout])
def test_an_epoch_is_drawn_from_its_own_generator_alone(kind: type[CropsAndFlips]) -> None:
    source = kind(random_images(1))
    before = torch.get_rng_state()
    one, again, other = (source.draw(50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", [CropsAndFlips, AutoAugmentCutout])
def test_taking_a_batch_draws_nothing(kind: type[CropsAndFlips]) -> None:
    generator = torch.Generator().manual_seed(0)
    source = kind(random_images(2))
    draws = source.draw(2, generator)
    states = generator.get_state(), torch.get_rng_state()
    one, again = (source.take(torch.arange(2), draws) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(generator.get_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_an_image_is_not_touched_by_the_others_of_its_batch() -> None:
    """A crop over the edge meets padding, never the next image in memory."""
    images = random_images(3)
    others = images.clone()
    others[[0, 2]] = 255 - others[[0, 2]]
    index = torch.ones(162, dtype=torch.int64)
    ours = CropsAndFlips(images).take(index, EVERY_CHANGE)
    assert torch.equal(ours, CropsAndFlips(others).take(index, EVERY_CHANGE))


def test_a_batch_is_a_copy() -> None:
    for source in (CropsAndFlips(random_images(2)), PlainImages(random_images(2))):
        index, changes = torch.arange(2), torch.tensor([[4, 4, 0]] * 2)
        source.take(index, changes).zero_()
        assert int(source.take(index, changes).min()) > 0


def test_the_windows_are_a_view_of_the_padded_images() -> None:
    images = random_images(20)
    windows = CropsAndFlips(images)._windows
    assert windows.shape == (20, 2, 3, 9, 9, 32, 32)
    # Padded images of 40 x 40 pixels, as they are and mirrored: not 81 crops of each.
    assert windows.untyped_storage().nbytes() == 20 * 2 * 3 * 40 * 40


def test_black_is_what_images_are_padded_with() -> None:
    crops = CropsAndFlips(random_images(1)).take(torch.tensor([0]), torch.tensor([[0, 0, 0]]))
    assert int(crops[0, :, :4].max()) == int(crops[0, :, :, :4].max()) == 0
    assert int(crops[0, :, 4:, 4:].min()) > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_images_are_as_they_are_and_draw_nothing(channels: int) -> None:
    images = random_images(5)[:, :channels]
    source: ImageSource = PlainImages(images)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert source.draw(7, generator) is None
    assert torch.equal(generator.get_state(), before)
    index = torch.tensor([4, 0, 0])
    assert torch.equal(source.take(index, None), images[index])


# AutoAugment and Cutout.


def test_crops_come_first_then_the_policy_then_cutout() -> None:
    images = random_images(6)
    index = torch.arange(300) % 6
    source = AutoAugmentCutout(images)
    draws = source.draw(300, torch.Generator().manual_seed(0))
    crops, changes, centres = draws[:, :3], draws[:, 3:5], draws[:, 5:]
    mean = torch.tensor([round(255 * value) for value in CIFAR100_MEAN], dtype=torch.uint8)
    policy = AutoAugment(CIFAR_POLICY, 32, 32, CIFAR100_MEAN, images.device)
    wanted = policy.apply(CropsAndFlips(images).take(index, crops), changes)
    assert torch.equal(source.take(index, draws), cut_out(wanted, centres, CUTOUT_SIDE, mean))
    assert CUTOUT_SIDE == 16


def test_the_crops_are_those_of_crops_and_flips_of_the_same_generator() -> None:
    images = random_images(2)
    ours, plain = (
        kind(images).draw(40, torch.Generator().manual_seed(3))
        for kind in (AutoAugmentCutout, CropsAndFlips)
    )
    assert (ours.shape, ours.dtype) == ((40, 7), torch.int64)
    assert torch.equal(ours[:, :3], plain)


def test_cutouts_centre_is_uniform_over_the_image() -> None:
    images = random_images(1)[:, :, :4, :8].contiguous()
    draws = AutoAugmentCutout(images).draw(32 * 100, torch.Generator().manual_seed(0))
    counts = torch.bincount(draws[:, 5] * 8 + draws[:, 6], minlength=32)
    assert counts.numel() == 32
    # 100 +- 10 each: four standard deviations and a half.
    assert 55 < int(counts.min()) <= int(counts.max()) < 145


def test_what_is_cut_out_and_moved_in_is_nothing_to_the_network_to_half_a_level() -> None:
    source = AutoAugmentCutout(random_images(1))
    level = 1 / 255 / torch.tensor(CIFAR100_STD)
    for fill in (source._fill, source._policy._fill):
        seen = PixelScaling(CIFAR100_MEAN, CIFAR100_STD)(fill.view(1, 3, 1, 1)).flatten()
        assert (seen.abs() <= level / 2).all()


def test_every_augmentation_takes_batches_of_bytes_of_the_images_size() -> None:
    images, index = random_images(5), torch.tensor([4, 0, 0])
    for kind in AUGMENTATIONS.values():
        source = kind(images)
        taken = source.take(index, source.draw(3, torch.Generator().manual_seed(0)))
        assert (taken.shape, taken.dtype) == ((3, 3, 32, 32), torch.uint8)
