"""Data sets as tensors in memory: images, labels and the three parts of a split.

Shapes: N images, C classes, H x W pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classification.recipes import ClassificationConfig, InputScaling
from common.difficulty import check_labels
from common.errors import UserError
from common.metrics import shot_groups
from data_prep.mnist import load_digits, split_mnist_lt

# Mean and standard deviation of MNIST's 60,000 training images, of value / 255.
_MNIST_MEAN, _MNIST_STD = 0.1307, 0.3081


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and labels on one device.

    Attributes:
        images: (N, 1, H, W), float32, scaled, channels last.
        labels: (N,), int64, 0..C-1.
    """

    images: Tensor
    labels: Tensor

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """The whole set in order, ``size`` at a time; views, nothing is copied."""
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))


@dataclass(frozen=True, eq=False)
class LongTailedData:
    """The three parts of a long-tailed data set, and what a record says of them."""

    train: LabelledImages
    difficulty: LabelledImages
    test: LabelledImages
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
    config: ClassificationConfig, device: torch.device, file: Path | None = None
) -> LongTailedData:
    """The configured data set on ``device``.

    Args:
        config: a resolved configuration.
        device: where the images are kept.
        file: another copy of the data than the usual one.

    Raises:
        UserError: when the data is missing, damaged or does not fit the configuration.
    """
    match config.dataset:
        case "mnist-lt":
            return _load_mnist_lt(config, device, file)


def _load_mnist_lt(
    config: ClassificationConfig, device: torch.device, file: Path | None
) -> LongTailedData:
    """MNIST-LT of Sec. 4.1.1: 5000 images of 4 (head) and 9, 1000 for difficulty, 1600 for test."""
    digits = load_digits(file)
    assert config.split_seed is not None  # resolved
    split = split_mnist_lt(digits, config.imbalance, config.split_seed)

    def part(images: Tensor, labels: Tensor, index: Tensor) -> LabelledImages:
        scaled = scale_pixels(images[index], config.input_scaling)
        return LabelledImages(scaled.to(device), labels[index].to(device))

    counts = torch.tensor(split.train_counts)
    return LongTailedData(
        train=part(digits.train_images, digits.train_labels, split.train_index),
        difficulty=part(digits.train_images, digits.train_labels, split.difficulty_index),
        test=part(digits.test_images, digits.test_labels, split.test_index),
        train_counts=counts,
        test_counts=torch.tensor(split.test_counts),
        description={
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
    )
