"""Images in files as the parts of a long-tailed data set: read in batches, cut on the device.

Shapes: N images of a part, B batch, S pixels a side of a stored square, c of a crop.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from classification.autoaugment import IMAGENET_POLICY, AutoAugment
from classification.capture import Inputs
from classification.image_augment import CropFlipColour
from classification.image_cache import ImageCache, fill
from classification.image_files import ImageFiles, ImageReader
from classification.image_recipes import ImageStage
from classification.reading import Reading
from common.distributed import barrier, is_first_rank, of_rank, world_size
from common.errors import UserError
from data_prep import digit_images, image_folder, imagenet_lt
from data_prep.image_list import ImageList, ImageSplit, require_images

_DIGEST_LETTERS: Final = 12


@dataclass(frozen=True, eq=False)
class SquareImages:
    """Labelled images in files, one part of a split."""

    reader: ImageReader
    numbers: Tensor
    """Of the images, in the reader, (N,) int64, on the CPU."""
    labels: Tensor
    """(N,) int64, on the device."""
    augmentation: CropFlipColour
    batch_size: int
    """Images of this process in one pass of an evaluation."""
    workers: int

    def of_rank(self) -> "SquareImages":
        """This rank's share."""
        return replace(self, numbers=of_rank(self.numbers), labels=of_rank(self.labels))

    def evaluation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The middle of every image (B, 3, c, c), normalised, and labels (B,), in order."""
        numbers = self.numbers.split(self.batch_size) if len(self.numbers) else ()
        read = self.reader.batches(numbers, self.workers)
        for (squares, sizes), labels in zip(read, self.labels.split(self.batch_size), strict=False):
            squares = squares.to(labels.device, non_blocking=True)
            yield self.augmentation.centre(squares, sizes), labels


class FromFiles:
    """A training source: squares are read, cut and coloured anew for each step."""

    def __init__(self, images: SquareImages) -> None:
        """``images``: of the training part."""
        self._images = images

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """What augmentation does to each sample, (number, 26 or 28) float32."""
        return self._images.augmentation.draw(number, generator)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Inputs]:
        """Squares (B, S, S, 3), sizes (B, 2) and labels (B,) of each batch."""
        images = self._images
        read = images.reader.batches([images.numbers[index] for index in indices], images.workers)
        for (squares, sizes), index in zip(read, indices, strict=True):
            labels = images.labels.index_select(0, index.to(images.labels.device))
            yield {"squares": squares, "sizes": sizes, "labels": labels}

    def take(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Images (B, 3, c, c), as ``inputs["changes"]`` cuts and colours them; labels (B,)."""
        images = self._images.augmentation.apply(
            inputs["squares"], inputs["sizes"], inputs["changes"]
        )
        return images, inputs["labels"]


def _imagenet_lt(folder: Path | None) -> tuple[ImageSplit, str]:
    return imagenet_lt.load_imagenet_lt(folder), imagenet_lt.remedy()


def _digit_images(folder: Path | None) -> tuple[ImageSplit, str]:
    return digit_images.load_digit_images(folder), digit_images.REMEDY


def _image_folder(folder: Path | None) -> tuple[ImageSplit, str]:
    split = image_folder.load_image_folder(folder)
    return split, f"put them back, or make the lists of {split.folder} anew"


_LISTS: Final[Mapping[str, Callable[[Path | None], tuple[ImageSplit, str]]]] = {
    "imagenet-lt": _imagenet_lt,
    "digit-images": _digit_images,
    "image-folder": _image_folder,
}
"""Of each data set the lists in a folder, and what to do where an image is missing."""


def load_split(config: ImageStage, folder: Path | None) -> ImageSplit:
    """The configured lists, after a look for every file.

    Args:
        config: resolved.
        folder: of the images; None: its usual place.

    Raises:
        UserError: a list or an image is missing, or a list is not what it must be.
    """
    split, remedy = _LISTS[config.dataset](folder)
    if is_first_rank():
        # ImageNet has some images twice, and where equal files are kept once, links say so.
        require_images(split, remedy, distinct=config.dataset != "imagenet-lt")
    barrier()
    return split


def lists_digest(config: ImageStage, folder: Path | None) -> str | None:
    """What one's own lists are told apart by; None of a data set whose lists are fixed.

    Raises:
        UserError: a list is missing or damaged, or is not the one that the configuration names.
    """
    if config.dataset != "image-folder":
        return None
    found = image_folder.load_image_folder(folder)
    digest = found.digest[:_DIGEST_LETTERS]
    if config.lists not in (None, digest):
        raise UserError(
            f"--lists {config.lists}: the lists in {folder or image_folder.default_folder()} are "
            f"others ({digest}); bring the "
            "old ones back, or leave the option out."
        )
    return digest


def _augmentation(config: ImageStage, device: torch.device) -> CropFlipColour:
    policy, (mean, deviation) = None, config.normalisation
    if config.augmentation == "autoaugment":
        policy = AutoAugment(IMAGENET_POLICY, config.crop, config.crop, mean, device)
    return CropFlipColour(config.crop, config.flip, config.colour_jitter, mean, deviation, policy)


def load_parts(
    config: ImageStage, split: ImageSplit, device: torch.device, reading: Reading
) -> dict[str, SquareImages]:
    """The three parts by name; the cache, if there is one, is filled first.

    Raises:
        UserError: a file cannot be read, or the cache cannot be written or is another's.
    """
    augmentation = _augmentation(config, device)
    files = {
        name: ImageFiles(split.folder, images.paths, config.stored_side, config.turns)
        for name, images in split.parts.items()
    }
    caches: dict[str, ImageCache] = {}
    if reading.cache is not None:
        caches = {name: ImageCache(reading.cache / name, part) for name, part in files.items()}
        fill(list(caches.values()), reading.workers or None)

    def part(name: str, images: ImageList) -> SquareImages:
        return SquareImages(
            ImageReader(files[name], caches.get(name)),
            torch.arange(len(images)),
            images.labels.to(device),
            augmentation,
            max(1, config.batch_size // world_size()),
            reading.workers,
        )

    return {name: part(name, images) for name, images in split.parts.items()}
