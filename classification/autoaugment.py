"""AutoAugment (Cubuk et al. 2019) and Cutout (DeVries and Taylor 2017), of whole batches of bytes.

A policy is 25 sub-policies of two operations. Each time that an image is seen it gets one of the
25, drawn anew; each of the two operations is carried out with its probability, at its magnitude.

Magnitude m, 0 to 9, is m / 9 of the way through the operation's range (:data:`OPERATIONS`), which
is the paper's (its appendix), so that m = 0 does nothing; the direction of what moves or blends is
+ or -, each with probability 1/2. So torchvision and Ren et al. 2020's code for long-tailed CIFAR.
The authors' own code for CIFAR (tensorflow/models, research/autoaugment) has m / 10 of the range,
moves by up to 10 pixels (the paper's 150, of ImageNet's 331, are here a share of the side), blends
with 0.1 + 0.18 m without a sign, and keeps 4 to 1 bits where the paper has 8 to 4.

Pixels are those of Pillow, which the authors' code calls: to the bit, but where the source of a
place is on the edge between two pixels.

An operation at a magnitude is a :class:`Change`, and every image goes through the same kernels,
which leave alone what is not theirs: an affine map, a table of 256 values for each channel, a
blend with grey and one with the smoothed image. Nothing loops over images, has a shape that
depends on data, or waits for the device: the methods can be captured in a CUDA graph.

Shapes: B batch, H x W pixels, N samples, K different changes of a policy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

Operation: TypeAlias = tuple[str, float, int]
"""Name, probability (whole tenths) and magnitude (0 to 9), as the paper's tables have them."""
Policy: TypeAlias = Sequence[tuple[Operation, Operation]]

CIFAR_POLICY: Final[Policy] = (
    (("Invert", 0.1, 7), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 8), ("Equalize", 0.9, 2)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 5), ("Equalize", 0.5, 1)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 7), ("AutoContrast", 0.4, 8)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 3)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 8), ("Equalize", 0.6, 4)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 6)),
    (("AutoContrast", 0.8, 4), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 3)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 2), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 8), ("Invert", 0.1, 3)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)),
)
"""Found on 4,000 images of CIFAR-10, and used by the paper for CIFAR-100 too (its appendix)."""

IMAGENET_POLICY: Final[Policy] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)
"""Found on 6,000 images of 120 of ImageNet's classes (the paper's appendix); five stand twice."""

LARGEST_MAGNITUDE: Final = 9
_LEVELS: Final = 256
_GREY: Final = (19595, 38470, 7471)
"""ITU-R 601's 0.299, 0.587 and 0.114 in parts of 65,536, as Pillow has them."""


# What an operation at a magnitude is.


@dataclass(frozen=True)
class Change:
    """What is done to an image; as it stands, nothing."""

    matrix: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    """(a, b, c, d, e, f): the point (x, y) shows what was at (a x + b y + c, d x + e y + f)."""
    table: tuple[int, ...] = tuple(range(_LEVELS))
    """What becomes of each level."""
    gain: float = 1.0
    """Of a level's distance from black."""
    about_mean: bool = False
    """From the mean grey instead."""
    colour: float = 1.0
    """Gain of a pixel's distance from its grey."""
    sharpness: float = 1.0
    """Gain of a pixel's distance from the mean of it and its neighbours."""
    stretches: bool = False
    """The levels of each channel to 0..255."""
    equalises: bool = False
    """The histogram of each channel."""


@dataclass(frozen=True)
class Range:
    """An operation between its magnitudes 0 and 9."""

    start: float
    end: float
    signed: bool
    """Whether its direction is + or - at random."""
    make: Callable[[float, int, int], Change]
    """(value in the range, H, W) -> what it does."""


def _rotation(degrees: float, height: int, width: int) -> Change:
    """Counterclockwise about the centre."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    across = (cosine, -sine, x - cosine * x + sine * y)
    down = (sine, cosine, y - sine * x - cosine * y)
    return Change(matrix=(*across, *down))


def _table(change: Callable[[int], int]) -> Change:
    return Change(table=tuple(change(level) for level in range(_LEVELS)))


OPERATIONS: Final[Mapping[str, Range]] = {
    "ShearX": Range(0, 0.3, True, lambda v, h, w: Change(matrix=(1, v, 0, 0, 1, 0))),
    "ShearY": Range(0, 0.3, True, lambda v, h, w: Change(matrix=(1, 0, 0, v, 1, 0))),
    "TranslateX": Range(
        0, 150 / 331, True, lambda v, h, w: Change(matrix=(1, 0, -int(v * w), 0, 1, 0))
    ),
    "TranslateY": Range(
        0, 150 / 331, True, lambda v, h, w: Change(matrix=(1, 0, 0, 0, 1, -int(v * h)))
    ),
    "Rotate": Range(0, 30, True, _rotation),
    "AutoContrast": Range(0, 0, False, lambda v, h, w: Change(stretches=True)),
    "Invert": Range(0, 0, False, lambda v, h, w: _table(lambda level: 255 - level)),
    "Equalize": Range(0, 0, False, lambda v, h, w: Change(equalises=True)),
    "Solarize": Range(
        256, 0, False, lambda v, h, w: _table(lambda level: level if level < v else 255 - level)
    ),
    "Posterize": Range(
        8, 4, False, lambda v, h, w: _table(lambda level: level & ~(2 ** (8 - round(v)) - 1))
    ),
    "Contrast": Range(0, 0.9, True, lambda v, h, w: Change(gain=1 + v, about_mean=True)),
    "Color": Range(0, 0.9, True, lambda v, h, w: Change(colour=1 + v)),
    "Brightness": Range(0, 0.9, True, lambda v, h, w: Change(gain=1 + v)),
    "Sharpness": Range(0, 0.9, True, lambda v, h, w: Change(sharpness=1 + v)),
}
"""By the paper's names, with its ranges: of sides sheared and moved a share, of angles degrees, of
solarising the level from which on all are inverted, of posterising the bits that stay."""


def change_of(name: str, magnitude: int, sign: int, height: int, width: int) -> Change:
    """What an operation does to images of H x W pixels.

    Args:
        name: of :data:`OPERATIONS`.
        magnitude: 0 to 9.
        sign: 1 or -1; without effect on what has no direction.
        height: H.
        width: W.
    """
    kind = OPERATIONS[name]
    value = kind.start + (kind.end - kind.start) * magnitude / LARGEST_MAGNITUDE
    return kind.make(sign * value if kind.signed else value, height, width)


class AutoAugment:
    """A policy for images of one size."""

    def __init__(
        self,
        policy: Policy,
        height: int,
        width: int,
        mean: tuple[float, ...],
        device: torch.device,
    ) -> None:
        """Work out its changes.

        Args:
            policy: the sub-policies.
            height: H.
            width: W.
            mean: red, green and blue, in [0, 1], that images are normalised by: what comes in from
                outside has this colour, and is then 0, as in the authors' code.
            device: of the images.
        """
        signed = [
            [[change_of(name, m, sign, height, width) for sign in (1, -1)] for name, _, m in pair]
            for pair in policy
        ]
        every = [Change(), *(change for pair in signed for both in pair for change in both)]
        number = {change: place for place, change in enumerate(dict.fromkeys(every))}
        self._numbers = torch.tensor([[[number[c] for c in both] for both in p] for p in signed])
        tenths = [[round(10 * probability) for _, probability, _ in pair] for pair in policy]
        self._tenths = torch.tensor(tenths)
        self._changes = stacked(list(number), height, width, device)
        self._fill = in_bytes(mean, device)

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """The two changes of each image, one after the other: (N, 2) int64 in [0, K), CPU.

        0 changes nothing.
        """
        chosen = torch.randint(len(self._tenths), (number,), generator=generator)
        happens = torch.randint(10, (number, 2), generator=generator) < self._tenths[chosen]
        signs = torch.randint(2, (number, 2, 1), generator=generator)
        return happens * self._numbers[chosen].gather(2, signs).squeeze(2)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """The changed images.

        Args:
            images: (B, 3, H, W), uint8.
            draws: (B, 2), of :meth:`draw`, on the images' device.

        Returns:
            (B, 3, H, W), uint8.
        """
        for step in draws.unbind(1):
            own = {name: values[step] for name, values in self._changes.items()}
            images = change_images(images, own, self._fill)
        return images


def in_bytes(colour: tuple[float, ...], device: torch.device) -> Tensor:
    """Red, green and blue in [0, 1] to the nearest level: (3,) uint8."""
    return (255 * torch.tensor(colour)).round().to(torch.uint8).to(device)


# Kernels.


def stacked(
    changes: Sequence[Change], height: int, width: int, device: torch.device
) -> dict[str, Tensor]:
    """What the kernels need of changes, (K, ...) each, by name, on the device.

    ``sources`` (K, H W), of :func:`sources_of`, and the other fields of :class:`Change`.
    """
    made = {
        name: torch.tensor([getattr(change, name) for change in changes], dtype=kind)
        for name, kind in _TYPES.items()
    }
    made["sources"] = sources_of(made.pop("matrix"), height, width)
    return {name: values.to(device) for name, values in made.items()}


_TYPES: Final = {
    "matrix": torch.float64, "table": torch.float32, "gain": torch.float32,
    "about_mean": torch.bool, "colour": torch.float32, "sharpness": torch.float32,
    "stretches": torch.bool, "equalises": torch.bool,
}  # fmt: skip


def sources_of(matrices: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of a mapped image comes from: (K, H W) int64, row W + column; H W: outside.

    Args:
        matrices: (K, 6) as :class:`Change` has them; centres of pixels are at halves.
        height: H.
        width: W.
    """
    x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    across, down = (a * x + b * y + c).floor(), (d * x + e * y + f).floor()
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    return torch.where(inside, down * width + across, height * width).flatten(1).long()


def change_images(images: Tensor, changes: Mapping[str, Tensor], fill: Tensor) -> Tensor:
    """Each image as its own change has it.

    Args:
        images: (B, 3, H, W), uint8.
        changes: of each image, as :func:`stacked` gives them.
        fill: (3,), uint8, of what comes in from outside.

    Returns:
        (B, 3, H, W), uint8.
    """
    images = warp(images, changes["sources"], fill)
    grey, levels = grey_of(images), images.flatten(2).long()
    images = make_tables(levels, grey, changes).gather(2, levels).view_as(images)
    images = blend(grey[:, None], images, changes["colour"])
    return blend(smooth(images), images, changes["sharpness"])


def warp(images: Tensor, sources: Tensor, fill: Tensor) -> Tensor:
    """Pixels of (B, 3, H, W) from their sources, (B, H W), of :func:`sources_of`."""
    outside = fill[None, :, None].expand(len(images), -1, -1)
    pixels = torch.cat([images.flatten(2), outside], 2)
    return pixels.gather(2, sources[:, None].expand(-1, 3, -1)).view_as(images)


def grey_of(images: Tensor) -> Tensor:
    """Luma of (B, 3, H, W): (B, H, W) int32, 0 to 255."""
    red, green, blue = images.int().unbind(1)
    sums: Tensor = _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue
    return (sums + (1 << 15)) >> 16


def make_tables(levels: Tensor, grey: Tensor, changes: Mapping[str, Tensor]) -> Tensor:
    """What becomes of each level of each channel.

    Args:
        levels: of the images, (B, 3, H W) int64, 0 to 255.
        grey: (B, H, W), of the same.
        changes: of each image, as :func:`stacked` gives them.

    Returns:
        (B, 3, 256), uint8.
    """
    pixels = levels.shape[2]
    # To the nearest whole number, halves up.
    mean = (2 * grey.sum((1, 2)) + pixels) // (2 * pixels)
    pivot = (mean * changes["about_mean"])[:, None].float()
    scaled = pivot + changes["gain"][:, None] * (changes["table"] - pivot)
    scaled = scaled.clamp(0, 255).to(torch.uint8)[:, None]
    counts = levels.new_zeros(*levels.shape[:2], _LEVELS, dtype=torch.int32)
    counts.scatter_add_(2, levels, torch.ones_like(levels, dtype=torch.int32))
    ends = levels.aminmax(dim=2, keepdim=True)
    stretches, equalises = (changes[n][:, None, None] for n in ("stretches", "equalises"))
    tables = torch.where(stretches, stretching(ends.min, ends.max), scaled)
    return torch.where(equalises, equalising(counts, ends.max), tables)


def stretching(least: Tensor, greatest: Tensor) -> Tensor:
    """Tables that bring the least level to 0 and the greatest to 255: (..., 256) uint8.

    Args:
        least: the least level of each channel, (..., 1) int64.
        greatest: likewise.
    """
    levels = torch.arange(_LEVELS, device=least.device)
    span = (greatest - least).clamp(min=1).double()
    # A number divided by a tensor would be the number times its reciprocal: 254 for 255.
    scale = torch.full_like(span, 255) / span
    table = levels * scale - least * scale
    return torch.where(greatest > least, table, levels).clamp_(0, 255).to(torch.uint8)


def equalising(counts: Tensor, greatest: Tensor) -> Tensor:
    """Tables that make every level about equally frequent: (..., 256) uint8.

    With s = (pixels - those at the greatest level) // 255, level v becomes (s // 2 + the number of
    pixels below v) // s; where s is 0, nothing is changed.

    Args:
        counts: pixels at each level, (..., 256) integers.
        greatest: the greatest level of each channel, (..., 1) int64.
    """
    levels = torch.arange(_LEVELS, device=counts.device)
    step = (counts.sum(-1, keepdim=True) - counts.gather(-1, greatest)) // 255
    below = counts.cumsum(-1, dtype=torch.float64) - counts
    # In float64 such a quotient is cut to the whole number that is meant.
    table = (step // 2 + below) / step.clamp(min=1)
    return torch.where(step > 0, table, levels).clamp_(max=255).to(torch.uint8)


def smooth(images: Tensor) -> Tensor:
    """Of (B, 3, H, W), uint8, the mean of each pixel, five times, and its eight neighbours.

    Rounded; the outermost pixels stay as they are. Float32.
    """
    result = images.float()
    inner = result[:, :, 1:-1, 1:-1]
    rows = (result[:, :, :-2] + result[:, :, 1:-1]).add_(result[:, :, 2:])
    sums = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4)
    # A thirteenth of a whole number is never a half.
    inner.copy_(sums.div_(13).round_())
    return result


def blend(others: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """From others by a factor towards images or beyond: others + factor (images - others).

    Cut to whole numbers from 0 to 255.

    Args:
        others: of the shape of the images, or one that becomes it.
        images: (B, 3, H, W), uint8.
        factors: (B,).
    """
    away = (images - others.float()).mul_(factors[:, None, None, None])
    return away.add_(others).clamp_(0, 255).to(torch.uint8)


def cut_out(images: Tensor, centres: Tensor, side: int, fill: Tensor) -> Tensor:
    """Cutout: a square of each image is filled, as far as it lies within it.

    Args:
        images: (B, 3, H, W).
        centres: (B, 2), int64, row and column; of the square's rows, as of its columns, side // 2
            lie before it (DeVries and Taylor's code, and AutoAugment's).
        side: in pixels, even.
        fill: (3,), as the images.
    """
    height, width = images.shape[2:]
    row, column = centres[:, :, None].unbind(1)

    def covered(centre: Tensor, length: int) -> Tensor:
        from_first = torch.arange(length, device=images.device) - (centre - side // 2)
        return (from_first >= 0) & (from_first < side)

    square = covered(row, height)[:, :, None] & covered(column, width)[:, None]
    return torch.where(square[:, None], fill[:, None, None], images)
