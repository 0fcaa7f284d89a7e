"""Training images in memory, taken and augmented a batch at a time.

Shapes: N images, B batch, S samples an epoch, H x W pixels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.autoaugment import CIFAR_POLICY, AutoAugment, cut_out, in_bytes
from classification.capture import Inputs
from classification.models.resnet_cifar import CIFAR100_MEAN

CROP_PADDING = 4
"""Black pixels around an image before a crop of its own size (He et al. 2016)."""
CUTOUT_SIDE: Final = 16
"""Of Cutout's square, in pixels: what AutoAugment has for CIFAR-10 and CIFAR-100 (Cubuk et al.
2019, Sec. 4.1); DeVries and Taylor have 16 for the one and 8 for the other."""


class ImageSource(Protocol):
    """Gives images that are in memory."""

    def draw(self, number: int, generator: torch.Generator) -> Tensor | None:
        """Random numbers for ``number`` samples, (number, ...), int64, on the CPU; None: none."""

    def take(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """The images ``index`` (B,), as ``draws`` (B, ...) changes them."""


class TrainingSource(Protocol):
    """Gives the images and labels of training steps, from memory or from files."""

    def draw(self, number: int, generator: torch.Generator) -> Tensor | None:
        """Random numbers for ``number`` samples, (number, ...), on the CPU; None: none."""

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Inputs]:
        """What :meth:`take` needs for each batch of samples, (B,) int64 on the CPU, in turn."""

    def take(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Images (B, ...), as ``inputs["changes"]`` of :meth:`draw` changes them; labels (B,)."""


class InMemory:
    """Samples whose images and labels are tensors on the device: a batch is an index into them."""

    def __init__(self, images: ImageSource, labels: Tensor) -> None:
        """``labels``: (N,), on the device of the images."""
        self._images, self._labels = images, labels

    def draw(self, number: int, generator: torch.Generator) -> Tensor | None:
        """What augmentation does to each sample."""
        return self._images.draw(number, generator)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Inputs]:
        """The samples' numbers, on the device."""
        if indices:
            # One copy to the device for all of them.
            together = torch.cat(list(indices)).to(self._labels.device)
            for index in together.split([len(index) for index in indices]):
                yield {"index": index}

    def take(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Images (B, ...) and labels (B,)."""
        index = inputs["index"]
        images = self._images.take(index, inputs.get("changes"))
        return images, self._labels.index_select(0, index)


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

    A crop is a view (``unfold``) into the padded images, which are kept twice, the second time
    mirrored, so that a batch is one indexed copy.
    """

    def __init__(self, images: Tensor, padding: int = CROP_PADDING) -> None:
        """Pad and mirror the images once.

        Args:
            images: (N, 3, H, W), uint8.
            padding: black pixels on each side.
        """
        height, width = images.shape[2:]
        # Channels last in memory, as the network takes them.
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4))
        both = torch.stack([padded, padded.flip(2)], dim=1).permute(0, 1, 4, 2, 3)
        # (N, 2, 3, 2 padding + 1, 2 padding + 1, H, W)
        self._windows = both.unfold(3, height, 1).unfold(4, width, 1)
        self._last_place = 2 * padding

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Upper edge, left edge, mirrored: (number, 3), int64."""
        edges = torch.randint(self._last_place + 1, (number, 2), generator=generator)
        mirrored = torch.randint(2, (number, 1), generator=generator)
        return torch.cat([edges, mirrored], dim=1)

    def take(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Crops (B, 3, H, W), uint8."""
        assert draws is not None
        top, left, mirrored = draws.unbind(1)
        # What starts at ``left`` starts as far from the other edge in the mirrored image.
        left = torch.where(mirrored.bool(), self._last_place - left, left)
        return self._windows[index, mirrored, :, top, left]


class AutoAugmentCutout:
    """Crops and mirroring, then AutoAugment's policy for CIFAR, then Cutout.

    In this order by the paper (Cubuk et al. 2019, Sec. 4.1); the authors' code crops and mirrors
    after the policy. What the policy moves in from outside, and Cutout's square, have the mean
    colour, which the network scales to 0 (to half a level); it is 0 in that code. Cutout's centre
    is uniform over the image, so that the square may lie partly outside.
    """

    def __init__(self, images: Tensor) -> None:
        """Pad and mirror the images once.

        Args:
            images: (N, 3, H, W), uint8.
        """
        height, width = self._size = images.shape[2:]
        self._crops = CropsAndFlips(images)
        self._policy = AutoAugment(CIFAR_POLICY, height, width, CIFAR100_MEAN, images.device)
        self._fill = in_bytes(CIFAR100_MEAN, images.device)

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """That of crops (3), the policy's two changes, row and column of Cutout: (number, 7)."""
        crops = self._crops.draw(number, generator)
        changes = self._policy.draw(number, generator)
        centre = [torch.randint(side, (number, 1), generator=generator) for side in self._size]
        return torch.cat([crops, changes, *centre], dim=1)

    def take(self, index: Tensor, draws: Tensor | None) -> Tensor:
        """Changed crops (B, 3, H, W), uint8."""
        assert draws is not None
        crops, changes, centres = draws.split([3, 2, 2], dim=1)
        images = self._policy.apply(self._crops.take(index, crops), changes)
        return cut_out(images, centres, CUTOUT_SIDE, self._fill)


AUGMENTATIONS: Final[Mapping[str, Callable[[Tensor], ImageSource]]] = {
    "crop-flip": CropsAndFlips,
    "none": PlainImages,
    "autoaugment-cutout": AutoAugmentCutout,
}
"""Of the settings' ``augmentation``: what is made of the images, (N, 3, H, W), uint8."""
