"""Random crop, rotation and mirroring of clips (Sec. 4.3.2), the same for all frames of a clip.

Shapes: B clips, T frames a clip, H x W pixels, N samples. Frames come as bytes with the colours
last, as they are decoded; clips go to the network as numbers in [0, 255] with the colours first.

A change first turns the frame about the crop's centre, then cuts the crop out, then mirrors it.
The paper does not say what stands where a turned frame does not reach: here it is black, as with
torchvision's rotation. What lies outside the crop but within the frame is turned in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError


def _check_crop(clips: Tensor, crop: int) -> None:
    """Refuse a crop that is larger than the frames.

    Raises:
        UserError: naming both sizes.
    """
    height, width = clips.shape[2:4]
    if crop > min(height, width):
        raise UserError(
            f"A crop of {crop} x {crop} pixels does not fit into frames of {width} x {height} "
            "(width x height); choose a smaller crop or larger frames."
        )


def centre_crop(clips: Tensor, crop: int) -> Tensor:
    """The middle of every frame, for evaluation.

    Args:
        clips: (B, T, H, W, 3), uint8.
        crop: side in pixels, at most H and W.

    Returns:
        (B, T, crop, crop, 3), uint8, contiguous.

    Raises:
        UserError: when the crop is larger than the frames.
    """
    _check_crop(clips, crop)
    top, left = ((side - crop) // 2 for side in clips.shape[2:4])
    return clips[:, :, top : top + crop, left : left + crop].contiguous()


def network_input(clips: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 -> (B, 3, T, H, W) float32 in [0, 255], channels last in memory."""
    return clips.float().permute(0, 4, 1, 2, 3)


def _crop_and_mirror(
    clips: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, crop: int
) -> Tensor:
    """Exact pixels: (B, T, H, W, 3) uint8 -> (B, 3, T, crop, crop) float32.

    Args:
        clips: the frames.
        top: (B,), 0 .. H - crop.
        left: (B,), 0 .. W - crop.
        mirrored: (B,), bool.
        crop: side in pixels.
    """
    # A crop is a view (B, top, left, T, crop, crop, 3): all are taken by one indexed copy.
    windows = clips.unfold(2, crop, 1).unfold(3, crop, 1).permute(0, 2, 3, 1, 5, 6, 4)
    crops = windows[torch.arange(len(clips), device=clips.device), top, left]
    crops = torch.where(mirrored.view(-1, 1, 1, 1, 1), crops.flip(3), crops)
    return crops.float().permute(0, 4, 1, 2, 3)


def _turn_and_crop(clips: Tensor, maps: Tensor, crop: int) -> Tensor:
    """Bilinear: (B, T, H, W, 3) uint8 -> (B, 3, T, crop, crop) float32.

    Args:
        clips: the frames.
        maps: (B, 2, 3), from places in the crop to places in the frame, both in [-1, 1].
        crop: side in pixels.
    """
    # Frames as channels: what must be read for a pixel is worked out once a clip. The colours are
    # moved while they are bytes: that is four times as fast.
    images = clips.permute(0, 4, 1, 2, 3).contiguous().flatten(1, 2).float()
    grid = F.affine_grid(maps, [len(clips), 1, crop, crop], align_corners=False)
    turned = F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    colours_first: Tensor = turned.unflatten(1, (3, -1))
    return colours_first


@dataclass(frozen=True)
class ClipAugmentation:
    """Random changes of training clips; drawing and applying are apart, as the first is cheap."""

    crop: int
    """Side in pixels of the square that the network sees."""
    max_angle: float
    """Turn by up to so many degrees either way; 0: pixels stay exactly as they are."""
    flip: float
    """Probability of mirroring left and right."""

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            ValueError: naming the setting.
        """
        if self.crop < 1:
            raise ValueError(f"crop must be at least 1 pixel, not {self.crop}")
        if not 0 <= self.max_angle <= 180:
            raise ValueError(f"max_angle must be in [0, 180] degrees, not {self.max_angle}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability in [0, 1], not {self.flip}")

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Changes of ``number`` clips: (N, 4) float32, on the CPU.

        Columns: place of the crop along x and along y, from 0 to 1 (0 left or top, 1 excluded);
        angle in degrees, in [-max_angle, max_angle], positive counter-clockwise; mirrored, 0 or 1.
        Every clip takes four random numbers, whatever the settings.
        """
        x, y, turn, mirror = torch.rand(number, 4, generator=generator).unbind(1)
        angle = self.max_angle * (2 * turn - 1)
        return torch.stack([x, y, angle, (mirror < self.flip).float()], dim=1)

    def apply(self, clips: Tensor, changes: Tensor) -> Tensor:
        """Change every clip as a whole, on its device.

        Args:
            clips: (B, T, H, W, 3), uint8.
            changes: (B, 4), of :meth:`draw`. Crops lie at whole pixels.

        Returns:
            (B, 3, T, crop, crop) float32 in [0, 255].

        Raises:
            UserError: when the crop is larger than the frames.
        """
        _check_crop(clips, self.crop)
        changes = changes.to(clips.device, non_blocking=True)
        x, y, angle, mirrored = changes.unbind(1)
        left, top = (
            # place < 1, but its product with the number of places may be rounded up to it.
            (place * (side - self.crop + 1)).long().clamp(max=side - self.crop)
            for place, side in ((x, clips.shape[3]), (y, clips.shape[2]))
        )
        if self.max_angle == 0 or len(clips) == 0:
            return _crop_and_mirror(clips, top, left, mirrored.bool(), self.crop)
        maps = self._maps(left, top, angle, mirrored, clips.shape[3], clips.shape[2])
        return _turn_and_crop(clips, maps, self.crop)

    def _maps(
        self, left: Tensor, top: Tensor, angle: Tensor, mirrored: Tensor, width: int, height: int
    ) -> Tensor:
        """Affine maps (B, 2, 3) of :func:`torch.nn.functional.affine_grid`.

        A place (u, v) in the crop lies (u, v) crop / 2 pixels from its centre. In the frame that
        vector is mirrored, turned by ``angle``, and starts from the crop's centre.
        """
        sine, cosine = angle.deg2rad().sin(), angle.deg2rad().cos()
        mirror = 1 - 2 * mirrored
        crop = self.crop
        x_row = torch.stack([crop * mirror * cosine, -crop * sine, 2 * left + crop - width], 1)
        y_row = torch.stack([crop * mirror * sine, crop * cosine, 2 * top + crop - height], 1)
        return torch.stack([x_row / width, y_row / height], dim=1)
