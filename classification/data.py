"""Data sets: images, in memory or in files, labels and the three parts of a split.

Shapes: N images, C classes, H x W pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from classification.config import ClassificationConfig
from classification.image_recipes import ImageStage
from classification.reading import Reading
from classification.recipes import CifarStage, InputScaling, MnistConfig
from common.difficulty import check_labels
from common.distributed import of_rank
from common.errors import UserError
from common.shots import shot_groups
from data_prep.cifar100 import CifarSplit, load_cifar100, split_cifar100_lt
from data_prep.image_list import ImageSplit
from data_prep.mnist import MnistSplit, load_digits, split_mnist_lt

if TYPE_CHECKING:  # It needs torchvision and the renderer of its example.
    from classification.image_data import SquareImages

NO_CACHE = Reading()
EVALUATION_BATCH = 250
"""Images a forward pass on a CPU; 250 of LeNet-5's feature maps stay in its cache."""
# Mean and standard deviation of MNIST's 60,000 training images, of value / 255.
_MNIST_MEAN, _MNIST_STD = 0.1307, 0.3081


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and labels on one device.

    Attributes:
        images: (N, 1, H, W), float32, scaled, channels last (MNIST), or (N, 3, H, W), uint8, which
            the network scales (CIFAR).
        labels: (N,), int64, 0..C-1.
    """

    images: Tensor
    labels: Tensor

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """The whole set in order, ``size`` at a time; views, nothing is copied."""
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))

    def evaluation_batches(self) -> list[tuple[Tensor, Tensor]]:
        """The whole set in order, as many at a time as are evaluated fastest."""
        # One resident batch on a GPU: there the fewest launches win.
        whole = max(1, self.labels.numel())
        return self.batches(EVALUATION_BATCH if self.labels.device.type == "cpu" else whole)

    def of_rank(self) -> "LabelledImages":
        """This rank's share."""
        return LabelledImages(of_rank(self.images), of_rank(self.labels))

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, ...) and labels (B,) at ``index`` (B,), which is on the same device."""
        return self.images.index_select(0, index), self.labels.index_select(0, index)


ImageSet: TypeAlias = "LabelledImages | SquareImages"


@dataclass(frozen=True, eq=False)
class LongTailedData:
    """The three parts of a long-tailed data set, and what a record says of them."""

    train: ImageSet
    difficulty: ImageSet
    test: ImageSet
    train_counts: Tensor
    """Training samples per class, shape (C,), int64, on the CPU."""
    test_counts: Tensor
    """Test samples per class, shape (C,), int64, on the CPU."""
    description: dict[str, Any]
    """The record's ``split``."""

    def __post_init__(self) -> None:
        """Refuse labels out of range in any part, and fewer than two classes."""
        if self.num_classes < 2:
            raise UserError(
                f"the data has {self.num_classes} class; classification needs at least 2."
            )
        for part in (self.train, self.difficulty, self.test):
            try:
                check_labels(part.labels, self.num_classes)
            except ValueError as error:
                raise UserError(f"the data cannot be used as it is: {error}.") from error

    @property
    def num_classes(self) -> int:
        """C."""
        return self.train_counts.numel()


def scale_pixels(images: Tensor, scaling: InputScaling) -> Tensor:
    """Grey values (N, H, W), uint8 -> (N, 1, H, W), float32, channels last."""
    scaled = images[:, None].to(torch.float32)
    if scaling != "raw":
        scaled = scaled / 255.0
    if scaling == "standardise":
        scaled = (scaled - _MNIST_MEAN) / _MNIST_STD
    return scaled.contiguous(memory_format=torch.channels_last)


def load_data(
    config: ClassificationConfig,
    device: torch.device,
    source: Path | None = None,
    reading: Reading = NO_CACHE,
) -> LongTailedData:
    """The configured data set on ``device``.

    Args:
        config: a resolved configuration.
        device: where the images are kept, or come to.
        source: another copy of the data than the usual one: a file (MNIST) or a folder.
        reading: how images in files are read.

    Raises:
        UserError: when the data is missing, damaged or does not fit the configuration.
    """
    data: LongTailedData = config.load_data(device, source, reading)
    return data


def describe_split(data: LongTailedData, wanted: float | None) -> str:
    """Sizes, the true imbalance beside the wanted one, and the shot groups, in one line."""
    asked = "" if wanted is None else f" ({wanted:g} asked for)"
    said = data.description
    groups = ", ".join(f"{len(classes)} {name}" for name, classes in said["shot"].items())
    sizes = [sum(said[part]) for part in ("train", "difficulty", "test")]
    return (
        f"{sizes[0]} training, {sizes[1]} difficulty and {sizes[2]} test images; imbalance "
        f"{said['imbalance']:g}{asked}; classes by shots: {groups}"
    )


def load_mnist_lt(config: MnistConfig, device: torch.device, file: Path | None) -> LongTailedData:
    """MNIST-LT of Sec. 4.1.1: 5000 images of 4 (head) and 9, 1000 for difficulty, 1600 for test."""
    digits = load_digits(file)
    assert config.split_seed is not None  # resolved
    split = split_mnist_lt(digits, config.imbalance, config.split_seed)

    def part(images: Tensor, labels: Tensor, index: Tensor) -> LabelledImages:
        scaled = scale_pixels(images[index], config.input_scaling)
        return LabelledImages(scaled.to(device), labels[index].to(device))

    return LongTailedData(
        train=part(digits.train_images, digits.train_labels, split.train_index),
        difficulty=part(digits.train_images, digits.train_labels, split.difficulty_index),
        test=part(digits.test_images, digits.test_labels, split.test_index),
        **_counts_and_description(split),
    )


def load_cifar100_lt(
    config: CifarStage, device: torch.device, folder: Path | None
) -> LongTailedData:
    """CIFAR100-LT of Sec. 4.1.1: images of each class for its difficulty, the whole test set."""
    images = load_cifar100(folder)
    assert config.split_seed is not None  # resolved
    split = split_cifar100_lt(
        images,
        config.imbalance,
        config.split_seed,
        config.difficulty_per_class,
        config.head_size,
    )

    def part(index: Tensor) -> LabelledImages:
        return LabelledImages(
            images.train_images[index].to(device), images.train_labels[index].to(device)
        )

    return LongTailedData(
        train=part(split.train_index),
        difficulty=part(split.difficulty_index),
        test=LabelledImages(images.test_images.to(device), images.test_labels.to(device)),
        **_counts_and_description(split),
    )


def load_image_files(
    config: ImageStage, device: torch.device, folder: Path | None, reading: Reading
) -> LongTailedData:
    """ImageNet-LT of Sec. 4.1.1, or the lists of one's own folder."""
    from classification.image_data import load_parts, load_split

    split = load_split(config, folder)
    parts = load_parts(config, split, device, reading)
    return LongTailedData(
        train=parts["train"],
        difficulty=parts["difficulty"],
        test=parts["test"],
        **_counts_and_description(split),
    )


def _counts_and_description(split: MnistSplit | CifarSplit | ImageSplit) -> dict[str, Any]:
    """What :class:`LongTailedData` keeps of a split besides the images."""
    counts = torch.tensor(split.train_counts)
    return {
        "train_counts": counts,
        "test_counts": torch.tensor(split.test_counts),
        "description": {
            "class_names": list(split.class_names),
            "train": list(split.train_counts),
            "difficulty": list(split.difficulty_counts),
            "test": list(split.test_counts),
            "imbalance": split.imbalance,
            "shot": {
                name: mask.nonzero().flatten().tolist()
                for name, mask in shot_groups(counts).items()
            },
            "digest": split.digest,
        },
    }
