"""The loop that ours is compared with: ResNet-32 on CIFAR-100 as one usually writes it.

Shapes: N images, B batch.
"""

from collections.abc import Callable
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import seconds
from classification.data import LabelledImages
from classification.models.resnet_cifar import CIFAR100_MEAN, CIFAR100_STD, make_resnet
from classification.recipes import CIFAR100_LT

BATCH = CIFAR100_LT.batch_size


class PilImages(Dataset[tuple[Tensor, int]]):
    """Training images, read and augmented as with torchvision's ``CIFAR100``."""

    def __init__(self, data: LabelledImages) -> None:
        """Keep the images as torchvision does: (N, 32, 32, 3), numpy."""
        self._images = data.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self._labels = data.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR100_MEAN, CIFAR100_STD),
            ]
        )

    def __len__(self) -> int:
        """N."""
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (3, 32, 32) and label."""
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def plain_loader(data: LabelledImages, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Shuffled whole batches, made by ``workers`` processes; 0: by the loop itself."""
    return DataLoader(
        PilImages(data),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        pin_memory=data.labels.device.type == "cuda",
        drop_last=True,
    )


def plain_network(num_classes: int) -> nn.Module:
    """The layers of our ResNet-32 in float32 and torch's default memory format."""
    network = make_resnet(num_classes, torch.Generator().manual_seed(0), mixed=False)
    return nn.Sequential(network.layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.classifier)


def plain_loop(
    data: LabelledImages, num_classes: int, workers: int, steps: int
) -> Callable[[], float]:
    """A job: seconds per step over ``steps`` steps.

    The step before them is not counted: it starts the loader's processes, a cost of each epoch.

    Args:
        data: where its labels are, the network is trained.
        num_classes: C.
        workers: processes that load images.
        steps: at least 1, and fewer than an epoch has whole batches.
    """
    device = data.labels.device
    loader, loss = plain_loader(data, workers), nn.CrossEntropyLoss()
    model = plain_network(num_classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()

    def job() -> float:
        batches = iter(loader)
        step(next(batches))

        def work() -> None:
            for batch in islice(batches, steps):
                step(batch)

        return seconds(work, device) / steps

    return job
