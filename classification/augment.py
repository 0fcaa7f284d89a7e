"""Training images in memory, taken and augmented a batch at a time.

Shapes: N images, B batch, S samples an epoch, H x W pixels.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_PADDING = 4
"""Black pixels around an image before a crop of its own size (He et al. 2016)."""


class ImageSource(Protocol):
    """Gives the images of a training step."""

    def draw(self, number: int, generator: torch.Generator) -> Tensor | None:
        """Random numbers for ``number`` samples, (number, ...), int64, on the CPU; None: none."""

    def take(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """The images ``index`` (B,), as ``draws`` (B, ...) changes them."""


class PlainImages:
    """Images as they are."""

    def __init__(self, images: Tensor) -> None:
        """``images``: (N, ...)."""
        self._images = images

    def draw(self, number: int, generator: torch.Generator) -> None:
        """Nothing is random."""

    def take(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Images (B, ...)."""
        # index_select: on a CPU three times as fast as indexing.
        return self._images.index_select(0, index)


class CropsAndFlips:
    """Random crops after padding, and random mirroring.

    A crop is a view into the padded images (``unfold``), so that a batch is one indexed copy.
    """

    def __init__(self, images: Tensor, padding: int = CROP_PADDING) -> None:
        """Pad the images once.

        Args:
            images: (N, 3, H, W), uint8.
            padding: black pixels on each side.
        """
        height, width = images.shape[2:]
        padded = F.pad(images, (padding,) * 4)
        # (N, 3, 2 padding + 1, 2 padding + 1, H, W)
        self._windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        self._places = 2 * padding + 1

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Upper edge, left edge, mirrored: (number, 3), int64."""
        edges = torch.randint(self._places, (number, 2), generator=generator)
        mirrored = torch.randint(2, (number, 1), generator=generator)
        return torch.cat([edges, mirrored], dim=1)

    def take(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Crops (B, 3, H, W), uint8."""
        assert draws is not None
        top, left, mirrored = draws.unbind(1)
        crops = self._windows[index, :, top, left]
        return torch.where(mirrored.bool()[:, None, None, None], crops.flip(3), crops)
