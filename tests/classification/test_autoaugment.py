import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms.v2 import functional as vision

from classification.autoaugment import (
    CIFAR_POLICY,
    IMAGENET_POLICY,
    OPERATIONS,
    AutoAugment,
    Change,
    Policy,
    blend,
    change_images,
    change_of,
    cut_out,
    equalising,
    in_bytes,
    smooth,
    stacked,
    stretching,
)

CPU = torch.device("cpu")
SIDE = 32
MEAN = (0.5071, 0.4865, 0.4409)
FILL = (129, 124, 112)
GEOMETRY = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}

# The paper's two tables (appendix), row by row: name, probability in tenths, magnitude.
OF_CIFAR = """
Invert 1 7, Contrast 2 6; Rotate 7 2, TranslateX 3 9; Sharpness 8 1, Sharpness 9 3
ShearY 5 8, TranslateY 7 9; AutoContrast 5 8, Equalize 9 2; ShearY 2 7, Posterize 3 7
Color 4 3, Brightness 6 7; Sharpness 3 9, Brightness 7 9; Equalize 6 5, Equalize 5 1
Contrast 6 7, Sharpness 6 5; Color 7 7, TranslateX 5 8; Equalize 3 7, AutoContrast 4 8
TranslateY 4 3, Sharpness 2 6; Brightness 9 6, Color 2 8; Solarize 5 2, Invert 0 3
Equalize 2 0, AutoContrast 6 0; Equalize 2 8, Equalize 6 4; Color 9 9, Equalize 6 6
AutoContrast 8 4, Solarize 2 8; Brightness 1 3, Color 7 0; Solarize 4 5, AutoContrast 9 3
TranslateY 9 9, TranslateY 7 9; AutoContrast 9 2, Solarize 8 3; Equalize 8 8, Invert 1 3
TranslateY 7 9, AutoContrast 9 1
"""
OF_IMAGENET = """
Posterize 4 8, Rotate 6 9; Solarize 6 5, AutoContrast 6 5; Equalize 8 8, Equalize 6 3
Posterize 6 7, Posterize 6 6; Equalize 4 7, Solarize 2 4; Equalize 4 4, Rotate 8 8
Solarize 6 3, Equalize 6 7; Posterize 8 5, Equalize 10 2; Rotate 2 3, Solarize 6 8
Equalize 6 8, Posterize 4 6; Rotate 8 8, Color 4 0; Rotate 4 9, Equalize 6 2
Equalize 0 7, Equalize 8 8; Invert 6 4, Equalize 10 8; Color 6 4, Contrast 10 8
Rotate 8 8, Color 10 2; Color 8 8, Solarize 8 7; Sharpness 4 7, Invert 6 8
ShearX 6 5, Equalize 10 9; Color 4 0, Equalize 6 3; Equalize 4 7, Solarize 2 4
Solarize 6 5, AutoContrast 6 5; Invert 6 4, Equalize 10 8; Color 6 4, Contrast 10 8
Equalize 8 8, Equalize 6 3
"""
POLICIES = {
    "cifar": (CIFAR_POLICY, OF_CIFAR, AutoAugmentPolicy.CIFAR10),
    "imagenet": (IMAGENET_POLICY, OF_IMAGENET, AutoAugmentPolicy.IMAGENET),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(number: int, low: int = 0, high: int = 256, seed: int = 0, side: int = SIDE) -> Tensor:
    shape = (number, 3, side, side)
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=generator(seed))


def all_sorts() -> Tensor:
    """Noise, little contrast, one colour, two levels, slopes: (7, 3, 32, 32)."""
    down, across = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    slopes = torch.stack([8 * across, 8 * down, 4 * (across + down)]).to(torch.uint8)
    one_colour = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].expand(3, SIDE, SIDE)
    of_two_levels = 201 * noise(1, 0, 2) + 7
    few = torch.stack([slopes, one_colour])
    return torch.cat([noise(2), noise(2, 90, 130), of_two_levels, few])


def as_picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def as_bytes(picture: Image.Image | Tensor) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def sheared(picture: Image.Image, across: float, down: float) -> Image.Image:
    shear = [math.degrees(math.atan(across)), math.degrees(math.atan(down))]
    moved: Image.Image = vision.affine(
        picture, angle=0, translate=[0, 0], scale=1, shear=shear, center=[0, 0], fill=[*FILL]
    )
    return moved


def shifted(picture: Image.Image, across: float, down: float) -> Image.Image:
    pixels = [int(across * SIDE), int(down * SIDE)]
    moved: Image.Image = vision.affine(
        picture, angle=0, translate=pixels, scale=1, shear=[0, 0], fill=[*FILL]
    )
    return moved


# The ten values of the paper's range, whether a sign is drawn, and torchvision's operation.
REFERENCE: dict[str, tuple[list[float], bool, Callable[..., Image.Image]]] = {
    "ShearX": ([m / 30 for m in range(10)], True, lambda p, v: sheared(p, v, 0)),
    "ShearY": ([m / 30 for m in range(10)], True, lambda p, v: sheared(p, 0, v)),
    "TranslateX": ([m * 150 / 331 / 9 for m in range(10)], True, lambda p, v: shifted(p, v, 0)),
    "TranslateY": ([m * 150 / 331 / 9 for m in range(10)], True, lambda p, v: shifted(p, 0, v)),
    "Rotate": ([m * 30 / 9 for m in range(10)], True, lambda p, v: vision.rotate(p, v, fill=FILL)),
    "AutoContrast": ([0] * 10, False, lambda p, v: vision.autocontrast(p)),
    "Invert": ([0] * 10, False, lambda p, v: vision.invert(p)),
    "Equalize": ([0] * 10, False, lambda p, v: vision.equalize(p)),
    "Solarize": ([256 - m * 256 / 9 for m in range(10)], False, vision.solarize),
    "Posterize": ([8, 8, 7, 7, 6, 6, 5, 5, 4, 4], False, vision.posterize),
    "Contrast": ([m / 10 for m in range(10)], True, lambda p, v: vision.adjust_contrast(p, 1 + v)),
    "Color": ([m / 10 for m in range(10)], True, lambda p, v: vision.adjust_saturation(p, 1 + v)),
    "Brightness": (
        [m / 10 for m in range(10)], True, lambda p, v: vision.adjust_brightness(p, 1 + v),
    ),
    "Sharpness": (
        [m / 10 for m in range(10)], True, lambda p, v: vision.adjust_sharpness(p, 1 + v),
    ),
}  # fmt: skip


def reference(name: str, magnitude: int, sign: int, image: Tensor) -> Tensor:
    """What Pillow makes of an image, (3, 32, 32)."""
    values, signed, operation = REFERENCE[name]
    value = sign * values[magnitude] if signed else values[magnitude]
    return as_bytes(operation(as_picture(image), value))


def changed(images: Tensor, *changes: Change) -> Tensor:
    height, width = images.shape[2:]
    return change_images(images, stacked(changes, height, width, CPU), in_bytes(MEAN, CPU))


def between_two_pixels(change: Change, within: float = 1e-3) -> Tensor:
    """Places, (32, 32), whose source is so near to the edge of a pixel that rounding decides."""
    a, b, c, d, e, f = change.matrix
    y, x = torch.meshgrid(*2 * [torch.arange(SIDE).double() + 0.5], indexing="ij")
    sources = torch.stack([a * x + b * y + c, d * x + e * y + f])
    return ((sources - sources.round()).abs() < within).any(0)


# Operations.


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_at_every_magnitude_is_pillows_to_the_bit(name: str) -> None:
    images = all_sorts()
    for magnitude, sign in product(range(10), (1, -1)):
        change = change_of(name, magnitude, sign, SIDE, SIDE)
        found = changed(images, *[change] * len(images))
        unclear = between_two_pixels(change)
        # A shear by 0.2 has six whole lines of such places.
        assert int(unclear.sum()) <= 6 * SIDE
        for image, got in zip(images, found, strict=True):
            wanted = reference(name, magnitude, sign, image)
            assert torch.equal(got[:, ~unclear], wanted[:, ~unclear]), (magnitude, sign)


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - GEOMETRY))
def test_torchvisions_operations_on_tensors_are_one_level_away_at_most(name: str) -> None:
    """They round grey down, and the mean of contrast not at all."""
    values, signed, operation = REFERENCE[name]
    images = noise(4)
    for magnitude, sign in product(range(10), (1, -1)):
        value = min(sign * values[magnitude] if signed else values[magnitude], 255)
        found = changed(images, *[change_of(name, magnitude, sign, SIDE, SIDE)] * 4)
        if (name, magnitude) == ("Solarize", 0):  # They take no 256.
            assert torch.equal(found, images)
            continue
        wanted = torch.stack([as_bytes(operation(image, value)) for image in images])
        assert (found.int() - wanted.int()).abs().max() <= 1


def test_the_ranges_are_torchvisions() -> None:
    space = TorchvisionAutoAugment._AUGMENTATION_SPACE
    assert space.keys() == OPERATIONS.keys()
    for name, (values, signed) in space.items():
        kind = OPERATIONS[name]
        assert kind.signed is signed
        theirs = values(10, 1, 1)
        if theirs is None:
            continue
        ours = torch.linspace(kind.start, kind.end, 10)
        if name == "Solarize":  # A share of 255 there, of 256 in the paper.
            ours = ours / 256
        elif name == "Posterize":
            ours = ours.round()
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-6), name


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"AutoContrast", "Equalize", "Invert"}))
def test_magnitude_0_changes_nothing_and_the_signs_differ_where_there_are_two(name: str) -> None:
    images = all_sorts()
    assert torch.equal(changed(images, *[change_of(name, 0, -1, SIDE, SIDE)] * len(images)), images)
    one, other = (change_of(name, 9, sign, SIDE, SIDE) for sign in (1, -1))
    assert (one != other) is OPERATIONS[name].signed


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (7, 3)])
def test_images_of_any_shape_are_changed_as_pillow_changes_them(height: int, width: int) -> None:
    images = noise(1, side=8)[:, :, :height, :width].contiguous()
    for name in sorted(OPERATIONS.keys() - GEOMETRY):
        found = changed(images, change_of(name, 7, 1, height, width))[0]
        assert torch.equal(found, reference(name, 7, 1, images[0])), name
    by_hand = {"TranslateX": (0, 2), "TranslateY": (2, 0)}
    for name, (down, across) in by_hand.items():
        pixels = (int(150 / 331 * height) * (down > 0), int(150 / 331 * width) * (across > 0))
        found = changed(images, change_of(name, 9, 1, height, width))[0]
        kept = found[:, pixels[0] :, pixels[1] :]
        assert torch.equal(kept, images[0, :, : height - pixels[0], : width - pixels[1]])


def test_an_image_has_its_own_change_and_does_not_see_the_others() -> None:
    images = all_sorts().repeat(4, 1, 1, 1)
    before = images.clone()
    kinds = [change_of(n, 8, s, SIDE, SIDE) for n, s in product(OPERATIONS, (1, -1))]
    together = changed(images, *kinds)
    for number, change in enumerate(kinds):
        alone = changed(images[number : number + 1], change)
        assert torch.equal(together[number], alone[0])
    assert torch.equal(images, before)


# Kernels, by hand.


def test_stretching_brings_the_ends_to_0_and_255_and_leaves_one_level() -> None:
    first, second = stretching(torch.tensor([[10], [99]]), torch.tensor([[110], [99]]))
    assert first[[10, 20, 110]].tolist() == [0, 25, 255]
    assert second.tolist() == list(range(256))


def test_stretching_0_to_248_ends_at_255() -> None:
    """255 times the reciprocal of 248 would end at 254."""
    assert int(stretching(torch.tensor([0]), torch.tensor([248]))[248]) == 255


def test_equalising_by_hand() -> None:
    counts = torch.zeros(2, 256, dtype=torch.int64)
    counts[0, [3, 5, 9]] = torch.tensor([510, 255, 7])
    counts[1, [3, 9]] = torch.tensor([254, 1000])
    first, second = equalising(counts, torch.tensor([[9], [9]]))
    # s = 765 // 255 = 3: (1 + 0) // 3, (1 + 510) // 3, (1 + 765) // 3; then s = 254 // 255 = 0.
    assert first[[3, 5, 9]].tolist() == [0, 170, 255]
    assert second.tolist() == list(range(256))


def test_smoothing_by_hand_leaves_the_border() -> None:
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[:, :, 1, 1], image[:, :, 0, 0] = 130, 13
    wanted = torch.zeros(4, 4)
    wanted[0, 0], wanted[1, 1] = 13, 51  # (5 130 + 13) / 13
    wanted[1, 2] = wanted[2, 1] = wanted[2, 2] = 10
    assert torch.equal(smooth(image)[0, 0], wanted)


def test_a_blend_goes_beyond_both_and_is_cut_to_whole_levels() -> None:
    images = torch.tensor([100, 100, 100, 250], dtype=torch.uint8)[:, None, None, None]
    factors = torch.tensor([0.5, 1.99, -2.0, 2.0])
    assert blend(torch.tensor(45), images, factors).flatten().tolist() == [72, 154, 0, 255]


# Policies.


def rows_of(table: str) -> Iterator[list[tuple[str, int, int]]]:
    for pair in table.replace("\n", ";").split(";"):
        words = [operation.split() for operation in pair.split(",") if operation.strip()]
        if words:
            yield [(name, int(tenths), int(magnitude)) for name, tenths, magnitude in words]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_the_papers_table(name: str) -> None:
    policy, table, _ = POLICIES[name]
    ours = [[(kind, round(10 * p, 9), m) for kind, p, m in pair] for pair in policy]
    assert ours == [*rows_of(table)]
    assert len(ours) == 25


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_torchvisions(name: str) -> None:
    """Which has no magnitude where it is without effect."""
    policy, _, theirs = POLICIES[name]
    idle = {"AutoContrast", "Equalize", "Invert"}
    ours = [tuple((n, p, None if n in idle else m) for n, p, m in pair) for pair in policy]
    assert ours == TorchvisionAutoAugment(theirs)._get_policies(theirs)


def made(policy: Policy, device: torch.device = CPU, side: int = SIDE) -> AutoAugment:
    return AutoAugment(policy, side, side, MEAN, device)


@pytest.mark.parametrize("name", POLICIES)
def test_a_sub_policy_is_its_two_operations_one_after_the_other(name: str) -> None:
    policy, table, _ = POLICIES[name]
    ours, image = made(policy), noise(1, 20, 236)
    for number, pair in enumerate(rows_of(table)):
        for both in product((0, 1), repeat=2):
            draws = ours._numbers[number, [0, 1], both][None]
            wanted, unclear = image[0], torch.zeros(SIDE, SIDE, dtype=torch.bool)
            for (kind, _, magnitude), negative in zip(pair, both, strict=True):
                sign = -1 if negative else 1
                wanted = reference(kind, magnitude, sign, wanted)
                unclear |= between_two_pixels(change_of(kind, magnitude, sign, SIDE, SIDE))
            differs = (ours.apply(image, draws)[0] != wanted).float().mean()
            # Of the policies' operations a rotation alone has places between two pixels.
            assert differs < 0.01 if bool(unclear.any()) else differs == 0, (pair, both)


def expected_shares(policy: AutoAugment, table: str) -> dict[tuple[int, ...], float]:
    """How often each pair of changes is to be drawn, by the table."""
    shares: Counter[tuple[int, ...]] = Counter()
    for number, pair in enumerate(rows_of(table)):
        for signs in product((0, 1), repeat=2):
            for happens in product((False, True), repeat=2):
                share, changes = 1 / 25 / 4, []
                for place, (_, tenths, _) in enumerate(pair):
                    share *= tenths / 10 if happens[place] else 1 - tenths / 10
                    number_of = int(policy._numbers[number, place, signs[place]])
                    changes.append(number_of if happens[place] else 0)
                shares[tuple(changes)] += share  # type: ignore[assignment]
    return dict(shares)


@pytest.mark.parametrize("name", POLICIES)
def test_sub_policies_probabilities_and_signs_are_drawn_as_often_as_the_table_says(
    name: str,
) -> None:
    policy, table, _ = POLICIES[name]
    ours, number = made(policy), 100_000
    draws = ours.draw(number, generator())
    assert (draws.shape, draws.dtype) == ((number, 2), torch.int64)
    found = Counter(map(tuple, draws.tolist()))
    shares = expected_shares(ours, table)
    assert {pair for pair, share in shares.items() if share > 0} >= found.keys()
    for pair, share in shares.items():
        deviation = math.sqrt(number * share * (1 - share))
        assert abs(found[pair] - number * share) <= 4.5 * deviation + 1e-9, pair


def test_both_signs_have_changes_of_their_own() -> None:
    ours = made(CIFAR_POLICY)
    signed = [[OPERATIONS[name].signed and m > 0 for name, _, m in pair] for pair in CIFAR_POLICY]
    assert (ours._numbers[..., 0] != ours._numbers[..., 1]).tolist() == signed


def test_draws_come_from_their_own_generator_alone() -> None:
    ours = made(CIFAR_POLICY)
    before = torch.get_rng_state()
    one, again, other = (ours.draw(50, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_what_is_drawn_as_nothing_changes_nothing() -> None:
    images = all_sorts()
    draws = torch.zeros(len(images), 2, dtype=torch.int64)
    assert torch.equal(made(IMAGENET_POLICY).apply(images, draws), images)


def test_a_rank_may_have_no_images_of_a_batch() -> None:
    ours = made(CIFAR_POLICY)
    nothing = ours.apply(noise(0), ours.draw(0, generator()))
    assert (nothing.shape, nothing.dtype) == ((0, 3, SIDE, SIDE), torch.uint8)
    fill = torch.zeros(3, dtype=torch.uint8)
    centres = torch.empty(0, 2, dtype=torch.int64)
    assert cut_out(nothing, centres, 16, fill).shape == nothing.shape


@pytest.mark.parametrize("policy", [CIFAR_POLICY, IMAGENET_POLICY])
def test_nothing_is_read_back_from_the_device(policy: Policy) -> None:
    """On the meta device there are no values: whatever waits for one fails."""
    meta = torch.device("meta")
    ours = made(policy, meta)
    images, draws = noise(5).to(meta), ours.draw(5, generator()).to(meta)
    assert ours.apply(images, draws).shape == (5, 3, SIDE, SIDE)


# Cutout.


def literal_cutout(image: Tensor, row: int, column: int, side: int, fill: Tensor) -> Tensor:
    """Pixel by pixel."""
    result = image.clone()
    for y in range(row - side // 2, row + side // 2):
        for x in range(column - side // 2, column + side // 2):
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                result[:, y, x] = fill
    return result


@pytest.mark.parametrize(("height", "width", "side"), [(6, 9, 4), (3, 2, 4), (5, 5, 2)])
def test_cutout_is_a_square_about_its_centre_clipped_at_the_borders(
    height: int, width: int, side: int
) -> None:
    images = noise(height * width, 1, side=9)[:, :, :height, :width]
    centres = torch.tensor([*product(range(height), range(width))])
    fill = torch.tensor([0, 7, 200], dtype=torch.uint8)
    found = cut_out(images, centres, side, fill)
    for image, (row, column), got in zip(images, centres.tolist(), found, strict=True):
        assert torch.equal(got, literal_cutout(image, row, column, side, fill))


def test_cutout_covers_the_whole_square_inside_and_a_quarter_in_the_corner() -> None:
    images, fill = noise(2, 1), torch.zeros(3, dtype=torch.uint8)
    found = cut_out(images, torch.tensor([[16, 16], [0, 0]]), 16, fill)
    assert (found == 0).all(1).sum((1, 2)).tolist() == [256, 64]
