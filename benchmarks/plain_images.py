"""The loop that ours is compared with: a folder of images as torchvision's reference trains on it.

Shapes: B batch, c x c pixels of an image, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import default_loader

from benchmarks.timing import seconds
from classification.image_augment import DEVIATION, MEAN
from data_prep.image_list import ImageSplit


@dataclass(frozen=True)
class Recipe:
    """What both loops do alike."""

    network: str
    """Of torchvision.models."""
    crop: int
    """c."""
    batch_size: int = 32
    """B."""
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4


class ListedImages(Dataset[tuple[Tensor, int]]):
    """Training images of the lists, as torchvision's ``ImageFolder`` reads and changes them."""

    def __init__(self, split: ImageSplit, crop: int) -> None:
        """Nothing is opened yet; ``crop``: c."""
        self._paths = [str(split.folder / path) for path in split.train.paths]
        self._labels = split.train.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(crop),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        """How many."""
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (3, c, c) and label."""
        return self._transform(default_loader(self._paths[index])), self._labels[index]


def plain_loader(split: ImageSplit, recipe: Recipe, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Shuffled batches of images (B, 3, c, c) and labels (B,), made by ``workers`` processes.

    They stay from epoch to epoch; 0: the loop makes the batches itself.
    """
    return DataLoader(
        ListedImages(split, recipe.crop),
        recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def plain_epochs(
    split: ImageSplit, recipe: Recipe, workers: int, device: torch.device
) -> Callable[[], float]:
    """A job: seconds per image of an epoch, in float32 and torch's default memory format."""
    loader, loss = plain_loader(split, recipe, workers), nn.CrossEntropyLoss()
    model: nn.Module = torchvision.models.get_model(
        recipe.network, num_classes=len(split.class_names)
    )
    model.to(device).train()
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
    )

    def epoch() -> None:
        for images, labels in loader:
            images, labels = (part.to(device, non_blocking=True) for part in (images, labels))
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()

    return lambda: seconds(epoch, device) / len(split.train)
