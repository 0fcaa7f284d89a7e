"""One picture as its network takes it: what evaluation does to the images of a test set.

A picture is the path of a file, or an image of Pillow's (``Image.fromarray`` makes one of an
array). A JPEG given by its path is decoded at the least size that covers the square, as in
evaluation; one that is given open, at its own size, which may change the last digits.

Shapes: H x W pixels of the input, S pixels a side of a square, c of a crop.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classification.data import scale_pixels
from classification.image_augment import DEVIATION, MEAN, CropFlipColour, resized_side
from classification.image_files import Square, as_square
from classification.recipes import InputScaling
from common.training.image_file import check_depth, open_picture

Picture: TypeAlias = Path | str | Image.Image


class Preprocessing(Protocol):
    """What makes the input of one picture."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Colours, H and W of an input."""
        ...

    def __call__(self, picture: Picture) -> Tensor:
        """The input of one picture, of :attr:`shape`, float32, on the CPU.

        Raises:
            UserError: a file cannot be read as an image, or has grey values of 32 bits.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What whoever prepares inputs elsewhere must know, as JSON has it.

        ``resize``: in words; ``mean`` and ``std``: an input is (pixel - mean) / std by colour, a
        pixel being in 0..255.
        """
        ...


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    """A file's picture; or a copy of an open one, which stays as it is."""
    if isinstance(picture, Image.Image):
        check_depth(picture, getattr(picture, "filename", None) or "the picture")
        yield picture.copy()
    else:
        with open_picture(Path(picture)) as own:
            yield own


def _square(picture: Picture, side: int, turn: bool) -> Square:
    with _opened(picture) as own:
        return as_square(own, side, turn)


_WHOLE: Final = "the whole picture, upright, to {side} x {side} pixels, bilinear with antialiasing"


@dataclass(frozen=True)
class GreyDigit:
    """MNIST's: the whole picture as 28 x 28 grey values; digits are white on black."""

    scaling: InputScaling
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)

    def __call__(self, picture: Picture) -> Tensor:
        """(1, 28, 28); of colours their luma (ITU-R 601)."""
        square, _ = _square(picture, 28, turn=True)
        grey = np.array(Image.fromarray(square.numpy()).convert("L"))
        return scale_pixels(torch.from_numpy(grey)[None], self.scaling)[0]

    def describe(self) -> dict[str, Any]:
        """White on black."""
        # The scaling of two pixels is that of all.
        black, white = scale_pixels(
            torch.tensor([[[0, 255]]], dtype=torch.uint8), self.scaling
        ).flatten()
        std = 255 / float(white - black)
        return {
            "colours": "grey, white on black",
            "resize": _WHOLE.format(side=28),
            "mean": [-float(black) * std],
            "std": [std],
        }


@dataclass(frozen=True)
class SmallColour:
    """CIFAR's: the whole picture as 32 x 32 pixels in 0..255; the network scales them itself."""

    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)

    def __call__(self, picture: Picture) -> Tensor:
        """(3, 32, 32)."""
        square, _ = _square(picture, 32, turn=True)
        return square.permute(2, 0, 1).float()

    def describe(self) -> dict[str, Any]:
        """Pixels as they are."""
        return {
            "colours": "RGB",
            "resize": _WHOLE.format(side=32),
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
        }


@dataclass(frozen=True)
class Middle:
    """That of images in files: squeezed to a square, of which the middle is cut and normalised."""

    stored_side: int
    """S."""
    crop: int
    """c."""
    turn: bool
    """Make pictures upright, as their EXIF says."""
    mean: tuple[float, ...] = MEAN
    """Red, green, blue, in [0, 1]."""
    deviation: tuple[float, ...] = DEVIATION
    """Likewise."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, c, c)."""
        return (3, self.crop, self.crop)

    def __call__(self, picture: Picture) -> Tensor:
        """(3, c, c)."""
        pixels, size = _square(picture, self.stored_side, self.turn)
        sizes = torch.tensor([size], dtype=torch.float32)
        cut = CropFlipColour(self.crop, mean=self.mean, deviation=self.deviation)
        return cut.centre(pixels[None], sizes)[0]

    def describe(self) -> dict[str, Any]:
        """As ImageNet's are usually made."""
        upright = ", upright" if self.turn else ""
        return {
            "colours": "RGB",
            "resize": f"the short side to {resized_side(self.crop)} pixels{upright}, then the "
            f"middle {self.crop} x {self.crop}; here sampled from the picture squeezed to "
            f"{self.stored_side} x {self.stored_side}",
            "mean": [255 * value for value in self.mean],
            "std": [255 * value for value in self.deviation],
        }
