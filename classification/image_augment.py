"""Random crop, mirroring and colour of images, in batches on their device.

What torchvision's ``RandomResizedCrop``, ``RandomHorizontalFlip``, ``ColorJitter`` and
``Normalize`` do image by image (ImageNet-LT's training in Liu et al. 2019 and in the paper, Sec.
4.1.2), for squares as ``classification.image_files`` makes them.

Geometry: a crop is drawn in whole pixels of the image as it is in the file and sampled bilinearly
from the square, whose two axes are scaled differently. There is no antialiasing: a square should
not have much more than the crop's resolution (256 pixels for crops of 224).

Colour: with factor f and grey g(x) = 0.299 r + 0.587 g + 0.114 b, brightness makes f x of a pixel,
contrast f x + (1 - f) g(m), m the mean colour of the image as it is then, and saturation
f x + (1 - f) g(x). The three commute (the weights of grey sum to 1), so that each image has ONE map

    brightness (contrast (saturation x + (1 - saturation) g(x)) + (1 - contrast) g(m)),

and the order of the three, which torchvision draws, is of no account. It is there only through the
clamping to [0, 1] after each of them; here we depart from it, and clamp once, at the end.

A policy of AutoAugment, where there is one, comes after these, on whole levels 0 to 255
(:mod:`classification.autoaugment`), as the baseline's changes come before it in Cubuk et al. 2019.

Nothing loops over images, has a shape that depends on data, or waits for the device: the methods
can be captured in a CUDA graph.

Shapes: B batch, S pixels a side of a square, c pixels a side of a crop, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.autoaugment import AutoAugment

MEAN: Final = (0.485, 0.456, 0.406)
"""Of ImageNet's training images, red, green, blue, in [0, 1] (torchvision)."""
DEVIATION: Final = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""
GREY: Final = (0.299, 0.587, 0.114)
"""Share of each colour in grey (ITU-R 601; torchvision has 0.2989, and a sum of 0.9999)."""

_TRIES: Final = 10
_COLUMNS: Final = 2 * _TRIES + 6
_AREA: Final = (0.08, 1.0)
_RATIO: Final = (3 / 4, 4 / 3)
_RESIZED_TO_CROP: Final = 256 / 224
# On a CPU, images at a time: what lies between the steps stays in the processor's own memory.
_CPU_IMAGES: Final = 4


@dataclass(frozen=True)
class CropFlipColour:
    """Random changes of training images; drawing and applying are apart, as the first is cheap."""

    crop: int = 224
    """c: side in pixels of what the network sees."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    jitter: float = 0.4
    """Brightness, contrast and saturation are multiplied by factors in [1 - jitter, 1 + jitter];
    0: colours stay as they are."""
    mean: tuple[float, ...] = MEAN
    """Of red, green and blue, in [0, 1], that images are normalised by."""
    deviation: tuple[float, ...] = DEVIATION
    """Standard deviation, likewise."""
    policy: AutoAugment | None = None
    """Of images of c x c pixels, on the device of the squares."""

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            ValueError: naming the setting.
        """
        if self.crop < 1:
            raise ValueError(f"crop must be at least 1 pixel, not {self.crop}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability in [0, 1], not {self.flip}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], not {self.jitter}")

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """All that is random in the changes of ``number`` images: (N, 26) float32 in [0, 1), CPU.

        Columns: area and aspect ratio of ten tries of a crop, its place down and across, mirrored,
        factors of brightness, contrast and saturation. An image takes as many random numbers
        whatever the settings; with a policy two more, which are whole: its two changes.
        """
        draws = torch.rand(number, _COLUMNS, generator=generator)
        if self.policy is None:
            return draws
        return torch.cat([draws, self.policy.draw(number, generator)], 1)

    @torch.no_grad()
    def apply(self, squares: Tensor, sizes: Tensor, draws: Tensor) -> Tensor:
        """Change and normalise every image, on the device of ``squares``.

        Args:
            squares: (B, S, S, 3), uint8, S >= 2.
            sizes: (B, 2), widths and heights of the images before they became squares, in pixels.
            draws: (B, 26 or 28), of :meth:`draw`.

        Returns:
            (B, 3, c, c) float32, channels last in memory.
        """
        sizes = sizes.to(squares.device, non_blocking=True)
        draws = draws.to(squares.device, non_blocking=True)
        draws, of_policy = draws.tensor_split([_COLUMNS], 1)
        boxes = draw_boxes(sizes, draws)
        if self.flip > 0:
            left, top, width, height = boxes.unbind(1)
            mirrored = draws[:, 2 * _TRIES + 2] < self.flip
            flipped = torch.stack([left + width, top, -width, height], 1)
            boxes = torch.where(mirrored[:, None], flipped, boxes)
        factors = 1 + self.jitter * (2 * draws[:, -3:] - 1)
        return self._cut(squares, boxes, factors if self.jitter > 0 else None, of_policy.long())

    @torch.no_grad()
    def centre(self, squares: Tensor, sizes: Tensor) -> Tensor:
        """The middle of every image, normalised, for evaluation.

        The geometry of torchvision's ``Resize(crop 256 / 224)``, which is of the short side, and
        ``CenterCrop(crop)``.

        Args:
            squares: (B, S, S, 3), uint8, S >= 2.
            sizes: (B, 2), widths and heights as in :meth:`apply`.

        Returns:
            (B, 3, c, c) float32, channels last in memory.
        """
        sizes = sizes.to(squares.device, non_blocking=True)
        return self._cut(squares, centre_boxes(sizes, self.crop))

    def _cut(
        self,
        squares: Tensor,
        boxes: Tensor,
        factors: Tensor | None = None,
        of_policy: Tensor | None = None,
    ) -> Tensor:
        """Crops, changed and normalised, a few images at a time on a CPU."""
        batch = len(squares)
        result = torch.empty(batch, self.crop, self.crop, 3, device=squares.device)
        at_once = max(1, batch)
        if squares.device.type == "cpu":
            at_once = _CPU_IMAGES
            _keep_freed_memory()
        for start in range(0, batch, at_once):
            part = slice(start, start + at_once)
            crops = sample(squares[part], boxes[part], self.crop)
            if factors is not None:
                change_colours(crops, factors[part])
            if self.policy is not None and of_policy is not None:
                crops = _changed(crops, self.policy, of_policy[part])
            _normalise(crops, self.mean, self.deviation)
            # Turned back: one transposition of a matrix, which PyTorch does by blocks.
            result[part].view(-1, 3 * self.crop).copy_(crops.flatten(2).flatten(0, 1).T)
        return result.permute(0, 3, 1, 2)


@cache
def _keep_freed_memory() -> None:
    """Once: let the C library keep what is freed between the steps, instead of returning it.

    glibc learns from the first large block that is freed, up to 32 MiB: blocks up to its size then
    come from memory that is there already. Else every step pays for its pages anew, which took
    two thirds of the time.
    """
    torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8, device="cpu")


# Where the crop lies.


def draw_boxes(sizes: Tensor, draws: Tensor) -> Tensor:
    """Crops as torchvision's ``RandomResizedCrop`` draws them.

    The first of ten tries that fits: an area, uniform in 8 to 100 % of the image, and an aspect
    ratio between 3/4 and 4/3, uniform in its logarithm; without one the largest central crop of
    a ratio within these limits.

    Args:
        sizes: (B, 2), widths and heights, in pixels.
        draws: (B, 26), of :meth:`CropFlipColour.draw`.

    Returns:
        Left, top, width, height: (B, 4), as shares of the image's width and height; whole pixels.
    """
    width, height = sizes.unbind(1)
    tries = draws[:, : 2 * _TRIES].unflatten(1, (_TRIES, 2))
    area = (width * height)[:, None] * _between(_AREA, tries[..., 0])
    low, high = (torch.full((), limit, device=sizes.device).log() for limit in _RATIO)
    ratio = (low + (high - low) * tries[..., 1]).exp()
    tried = torch.stack([(area * ratio).sqrt().round(), (area / ratio).sqrt().round()], 2)
    fits = ((tried > 0) & (tried <= sizes[:, None])).all(2)
    first = fits.int().argmax(1)[:, None, None].expand(-1, 1, 2)
    crops = tried.gather(1, first).squeeze(1)
    last_place = sizes - crops
    # Down, then across; place < 1, but its product may be rounded up to it.
    places = draws[:, 2 * _TRIES : 2 * _TRIES + 2].flip(1)
    corners = torch.minimum((places * (last_place + 1)).floor(), last_place)
    central = _central_crops(width, height)
    found = torch.where(fits.any(1)[:, None], torch.cat([corners, crops], 1), central)
    return found / sizes.repeat(1, 2)


def _between(limits: tuple[float, float], uniform: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * uniform


def _central_crops(width: Tensor, height: Tensor) -> Tensor:
    """The whole image, or its middle if it is too long: left, top, width, height in pixels."""
    low, high = _RATIO
    crop_width = torch.minimum(width, (height * high).round())
    crop_height = torch.minimum(height, (width / low).round())
    left, top = ((width - crop_width) / 2).floor(), ((height - crop_height) / 2).floor()
    return torch.stack([left, top, crop_width, crop_height], 1)


def resized_side(crop: int) -> int:
    """Pixels of an image's short side before its middle of ``crop`` pixels is cut out.

    >>> resized_side(224)
    256
    """
    return int(crop * _RESIZED_TO_CROP)


def centre_boxes(sizes: Tensor, crop: int) -> Tensor:
    """Central crops after the short side became ``crop`` 256 / 224 pixels long.

    Args:
        sizes: (B, 2), widths and heights, in pixels.
        crop: c.

    Returns:
        (B, 4), as of :func:`draw_boxes`.
    """
    resized = (resized_side(crop) * sizes / sizes.amin(1, keepdim=True)).floor()
    corners = ((resized - crop) / 2).round()
    return torch.cat([corners, torch.full_like(corners, crop)], 1) / resized.repeat(1, 2)


# Pixels.


def sample(squares: Tensor, boxes: Tensor, crop: int) -> Tensor:
    """Bilinear samples of crops: along y, then along x; beyond an edge stands the edge.

    Rows are gathered and blended, then, of the same turned over, the columns: every copy is of
    whole lines of memory. (On a CPU about 0.2 ms an image; ``grid_sample`` takes 0.37.)

    Args:
        squares: (B, S, S, 3), uint8, S >= 2.
        boxes: (B, 4), left, top, width, height as shares of the square; a negative width or height
            mirrors.
        crop: c.

    Returns:
        (c, 3, B, c) float32 in [0, 255]: x, colour, image, y.
    """
    batch, side = squares.shape[:2]
    left, top, width, height = (side * boxes).unsqueeze(2).unbind(1)
    # Middle of each new pixel, in [0, 1].
    middles = (torch.arange(crop, device=squares.device) + 0.5) / crop
    across, down = left + width * middles - 0.5, top + height * middles - 0.5
    images = torch.arange(batch, device=squares.device)

    above, weight = _between_lines(down, side)
    first = (side * images[:, None] + above).flatten()
    rows = _blend(squares.reshape(batch * side, -1), first, 1, weight.flatten())

    before, weight = _between_lines(across.T, side)
    colours = torch.arange(3, device=squares.device)[:, None]
    # Line of x, colour and image: (x 3 + colour) B + image.
    first = ((3 * before[:, None] + colours) * batch + images).flatten()
    weight = weight[:, None].expand(-1, 3, -1).reshape(-1)
    columns = rows.T.contiguous().view(3 * side * batch, crop)
    return _blend(columns, first, 3 * batch, weight).view(crop, 3, batch, crop)


def _between_lines(places: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The line before each place (int64), and how far it is from there to the next, in [0, 1]."""
    places = places.clamp(0, side - 1)
    before = places.floor().clamp_(max=side - 2)
    return before.long(), places - before


def _blend(lines: Tensor, first: Tensor, step: int, weight: Tensor) -> Tensor:
    """Between the lines ``first`` (M,) of (., L) and those ``step`` on: (M, L) float32."""
    blend = blend_in_one_pass if lines.device.type == "cpu" else blend_by_gathering
    return blend(lines, first, step, weight)


def blend_by_gathering(lines: Tensor, first: Tensor, step: int, weight: Tensor) -> Tensor:
    """As :func:`_blend`, on any device."""
    one, other = (lines.index_select(0, index).float() for index in (first, first + step))
    return one.lerp_(other, weight[:, None])


def blend_in_one_pass(lines: Tensor, first: Tensor, step: int, weight: Tensor) -> Tensor:
    """As :func:`_blend`; on a CPU 0.06 ms an image instead of 0.10."""
    pairs, weights = torch.stack([first, first + step], 1), torch.stack([1 - weight, weight], 1)
    return F.embedding_bag(pairs, lines.float(), mode="sum", per_sample_weights=weights)


# Colours.


def change_colours(crops: Tensor, factors: Tensor) -> None:
    """Brightness, contrast and saturation, in place; nothing is clamped.

    Args:
        crops: (c, 3, B, c): x, colour, image, y.
        factors: (B, 3), of brightness, contrast, saturation, >= 0.
    """
    brightness, contrast, saturation = factors.unsqueeze(2).unbind(1)
    red, green, blue = crops.unbind(1)
    grey = (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    of_mean = brightness * (1 - contrast) * grey.mean((0, 2))[:, None]
    torch.addcmul(of_mean, grey, brightness * contrast * (1 - saturation), out=grey)
    for colour in (red, green, blue):
        torch.addcmul(grey, colour, brightness * contrast * saturation, out=colour)


def _changed(crops: Tensor, policy: AutoAugment, draws: Tensor) -> Tensor:
    """Crops (c, 3, B, c): x, colour, image, y; in [0, 255], after a policy on whole levels."""
    images = crops.clamp(0, 255).round_().to(torch.uint8).permute(2, 1, 3, 0)
    return policy.apply(images, draws).permute(3, 1, 0, 2).float().contiguous()


def _normalise(crops: Tensor, means: Sequence[float], deviations: Sequence[float]) -> None:
    """Clamp, scale and centre (c, 3, B, c), in [0, 255], in place."""
    crops.clamp_(0, 255)
    for colour, mean, deviation in zip(crops.unbind(1), means, deviations, strict=True):
        start = torch.full((), -mean / deviation, device=crops.device)
        torch.add(start, colour, alpha=1 / (255 * deviation), out=colour)
