"""What the fork server puts in place of CIFAR-100 and ResNet-32, so that a run takes a second.

Everything between the file reader and the network is the real thing: split, loader, engine.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

import classification.data
import classification.models.resnet_cifar
import data_prep.cifar100
from classification.models import make_resnet
from data_prep.cifar100 import CLASS_NAMES, Cifar100, load_cifar100, training_sizes
from tests.classification.synthetic import coloured

CLASSES, HEAD, DIFFICULTY, TEST = 12, 24, 4, 3
IMBALANCE = 4
BATCH = 32
STEPS = -(-sum(training_sizes(IMBALANCE, CLASSES, HEAD)) // BATCH)


def small_cifar100(folder: Path | None = None) -> Cifar100:
    """In place of :func:`load_cifar100`, which still reads a folder that is named."""
    if folder is not None:
        return load_cifar100(folder)
    generator = torch.Generator().manual_seed(0)
    train = coloured((HEAD + DIFFICULTY,) * CLASSES, generator)
    test = coloured((TEST,) * CLASSES, generator)
    names = CLASS_NAMES[:CLASSES]
    return Cifar100(train.images, train.labels, test.images, test.labels, names)


STAND_INS: tuple[tuple[Any, str, Any], ...] = (
    (classification.data, "load_cifar100", small_cifar100),
    (data_prep.cifar100, "HEAD_SIZE", HEAD),
    (data_prep.cifar100, "DIFFICULTY_PER_CLASS", DIFFICULTY),
    (classification.models.resnet_cifar, "make_resnet", partial(make_resnet, blocks=1)),
)
"""Module, name, what stands there instead."""

_OPTIONS: dict[str, tuple[str, ...]] = {
    "eql": ("--eql-threshold", "0.06"),
    "l2rw": ("--l2rw-batch-size", "20"),
    "meta-weight-net": ("--mwn-batch-size", "20", "--mwn-learning-rate", "0.1"),
}


def small_run(recipe: str, method: str, *options: str) -> tuple[str, ...]:
    """The command line of three epochs that suit the small set."""
    return (
        recipe, "--method", method, "--epochs", "3", "--batch-size", str(BATCH),
        "--imbalance", str(IMBALANCE), "--learning-rate", "0.05", "--warmup-epochs", "0.5",
        "--milestones", "2", "--lr-decay", "0.5", "--precision", "float32",
        *_OPTIONS.get(method, ()), *options,
    )  # fmt: skip
