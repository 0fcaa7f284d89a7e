"""A small folder of images with lists, and a small network of ResNet-10's shape."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from classification.models import STRIDE
from classification.models.resnet_cifar import initialise_resnet

COUNTS = {"train": (14, 10, 6, 4, 2, 1), "difficulty": (3,) * 6, "test": (2,) * 6}
CLASSES = len(COUNTS["train"])
WIDTH = 16
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220), (200, 200, 40), (200, 40, 200), (40,) * 3)


def write_images(folder: Path) -> Path:
    """Noise on a colour of the class's own, in sizes that differ; JPEG and PNG files, and lists."""
    generator = np.random.default_rng(0)
    for part, counts in COUNTS.items():
        (folder / part).mkdir(parents=True)
        lines = []
        for label, count in enumerate(counts):
            for number in range(count):
                shape = (*generator.integers(24, 60, 2), 3)
                pixels = np.array(COLOURS[label]) + generator.integers(-40, 40, shape)
                name = f"{part}/{label} {number}.{'jpg' if number % 2 else 'png'}"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
                lines.append(f"{name} {label}\n")
        generator.shuffle(lines)
        (folder / f"{part}.txt").write_text("".join(lines))
    return folder


class SmallImageNet(nn.Module):
    """ResNet-10's interface: maps of a 32nd of the image's side, and a linear classifier."""

    classifier: nn.Linear

    def __init__(self, num_classes: int, mixed: bool) -> None:
        super().__init__()
        self.mixed = mixed
        self.layers = nn.Sequential(
            nn.utils.skip_init(nn.Conv2d, 3, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8),
            nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.utils.skip_init(nn.Conv2d, 8, WIDTH, 4, stride=STRIDE // 8, bias=False),
            nn.BatchNorm2d(WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.utils.skip_init(nn.Linear, WIDTH, num_classes)

    def features(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            maps: Tensor = self.layers(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).float().mean(dim=(2, 3)))
        return logits


def make_small_network(
    num_classes: int, generator: torch.Generator, network: str, *, mixed: bool
) -> SmallImageNet:
    """In place of :func:`classification.models.make_image_resnet`."""
    model = SmallImageNet(num_classes, mixed)
    initialise_resnet(model, generator, mode="fan_out")
    return model


STAND_INS: tuple[tuple[str, str, Any], ...] = (
    ("classification.models.resnet_image", "make_image_resnet", make_small_network),
)
"""Module, name, what stands there instead."""
_SETTINGS: dict[str, Any] = {
    "epochs": 3, "batch_size": 10, "learning_rate": 0.05, "stored_side": 40, "crop": 32,
    "precision": "float32",
}  # fmt: skip
_OF_THE_METHOD: dict[str, dict[str, Any]] = {
    "eql": {"eql_threshold": 0.1}, "cb": {"cb_beta": 0.9}, "oltr": {"stage1_epochs": 2},
}  # fmt: skip


def settings(method: str, **changes: Any) -> dict[str, Any]:
    """Of three epochs that suit the small set."""
    milestones = {"milestones": (2,)} if method == "oltr" else {}
    return {"method": method} | _SETTINGS | milestones | _OF_THE_METHOD.get(method, {}) | changes


def small_run(method: str, *options: str) -> tuple[str, ...]:
    """The command line of three epochs that suit the small set."""
    words = ["image-folder-oltr" if method == "oltr" else "image-folder"]
    for name, value in settings(method).items():
        values = map(str, value) if isinstance(value, tuple) else (str(value),)
        words += [f"--{name.replace('_', '-')}", *values]
    return (*words, *options)
