"""Small data sets in memory: every method trains on them in a fraction of a second."""

from dataclasses import replace
from functools import cache, partial
from typing import get_args

import pytest
import torch

from classification.config import ClassificationConfig
from classification.data import LabelledImages, LongTailedData
from classification.models import make_resnet
from classification.recipes import (
    RECIPES,
    CifarMethod,
    DecoupledConfig,
    MnistConfig,
    SecondStageMethod,
    resolved,
)
from classification.training import Training
from common.shots import shot_groups
from common.training.loop import Weights
from common.training.signals import StopRequest

METHODS = get_args(CifarMethod)
"""All but OLTR."""
COUNTS = (40, 30, 20)
CIFAR_COUNTS = (13, 11, 9, 8, 6, 4, 4, 3, 2, 2, 1, 1)


def labelled(counts: tuple[int, ...], generator: torch.Generator) -> LabelledImages:
    """Noise with a brighter square whose place tells the class, in random order."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.randn(len(labels), 1, 28, 28, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 8 * label : 8 * label + 10, 10:20] += 2.0
    return LabelledImages(images.contiguous(memory_format=torch.channels_last), labels)


def coloured(counts: tuple[int, ...], generator: torch.Generator, size: int = 8) -> LabelledImages:
    """Bytes: noise on a colour of the class's own, in random order; size x size pixels."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    levels = torch.tensor([50, 128, 206])
    # Class c in base 3: red, green and blue.
    colours = levels[torch.stack([labels % 3, labels // 3 % 3, labels // 9 % 3], dim=1)]
    noise = torch.randint(-50, 50, (len(labels), 3, size, size), generator=generator)
    return LabelledImages((colours[:, :, None, None] + noise).to(torch.uint8), labels)


def _split(
    train: LabelledImages, difficulty: LabelledImages, test: LabelledImages, counts: tuple[int, ...]
) -> LongTailedData:
    classes = len(counts)
    groups = shot_groups(torch.tensor(counts)).items()
    per_class = {
        name: torch.bincount(part.labels, minlength=classes).tolist()
        for name, part in (("train", train), ("difficulty", difficulty), ("test", test))
    }
    return LongTailedData(
        train=train,
        difficulty=difficulty,
        test=test,
        train_counts=torch.tensor(counts),
        test_counts=torch.bincount(test.labels, minlength=classes),
        description={
            "class_names": [str(c) for c in range(classes)],
            **per_class,
            "imbalance": max(counts) / min(counts),
            "shot": {name: mask.nonzero().flatten().tolist() for name, mask in groups},
            "digest": "synthetic",
        },
    )


def small_data(counts: tuple[int, ...] = COUNTS, seed: int = 0) -> LongTailedData:
    """MNIST-like training images by ``counts``, 10 per class for difficulty, 7 to test."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(counts)
    return _split(
        labelled(counts, generator),
        labelled((10,) * classes, generator),
        labelled((7,) * classes, generator),
        counts,
    )


def small_cifar(
    counts: tuple[int, ...] = CIFAR_COUNTS, seed: int = 0, size: int = 8
) -> LongTailedData:
    """CIFAR-like training images by ``counts``, 3 per class for difficulty, 2 to test.

    Of 8 x 8 pixels by default: the network takes any size, and 32 x 32 costs sixteen times as much.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = len(counts)
    return _split(
        coloured(counts, generator, size),
        coloured((3,) * classes, generator, size),
        coloured((2,) * classes, generator, size),
        counts,
    )


def config(**changes: object) -> MnistConfig:
    """A resolved configuration that suits the small data; ``changes`` depart from it."""
    usual: dict[str, object] = {
        "epochs": 3, "batch_size": 16, "learning_rate": 0.02,
        "initialisation": "xavier-uniform", "input_scaling": "unit",
    }  # fmt: skip
    of_the_method: dict[str, dict[str, object]] = {
        "l2rw": {"l2rw_batch_size": 12},
        "eql": {"eql_threshold": 0.25},
    }
    usual |= of_the_method.get(str(changes.get("method")), {})
    return resolved(MnistConfig(**(usual | changes)))  # type: ignore[arg-type]


SECOND_STAGE_METHODS = get_args(SecondStageMethod)

# What suits the small CIFAR data: every phase of the schedule and of LDAM-DRW in four epochs.
_FOR_SMALL_CIFAR: dict[str, object] = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.05, "warmup_epochs": 1.5,
    "milestones": (2, 3), "lr_decay": 0.5, "precision": "float32",
}  # fmt: skip
_OF_THE_METHOD: dict[str, dict[str, object]] = {
    "l2rw": {"l2rw_batch_size": 12},
    "meta-weight-net": {"mwn_batch_size": 12, "mwn_learning_rate": 0.1},
    "eql": {"eql_threshold": 0.05},
    "cb": {"cb_beta": 0.9},
    "ldam-drw": {"cb_beta": 0.9},
}


def cifar_config(recipe: str = "cifar100-lt", **changes: object) -> ClassificationConfig:
    """A resolved configuration that suits :func:`small_cifar`; ``changes`` depart from it."""
    usual = _FOR_SMALL_CIFAR | _OF_THE_METHOD.get(str(changes.get("method")), {})
    return resolved(replace(RECIPES[recipe], **(usual | changes)))  # type: ignore[arg-type]


def use_small_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-8 in place of ResNet-32: the same blocks, one a stage."""
    small = partial(make_resnet, blocks=1)
    monkeypatch.setattr("classification.models.resnet_cifar.make_resnet", small)


def training(data: LongTailedData | None = None, **changes: object) -> Training:
    """A run at its first step."""
    return Training(config(**changes), data or small_data(), torch.device("cpu"))


def cifar_training(
    data: LongTailedData | None = None, recipe: str = "cifar100-lt", **changes: object
) -> Training:
    """A run on CIFAR-like data at its first step; a second stage begins with trained features."""
    config = cifar_config(recipe, **changes)
    second = isinstance(config, DecoupledConfig)
    first_stage = first_stage_weights() if second else None
    return Training(config, data or small_cifar(), torch.device("cpu"), first_stage)


@cache
def first_stage_weights() -> Weights:
    """A ResNet-8 after a run of ce."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_resnet(patch)
        return trained_cifar().model.state_dict()


def to_the_end(run: Training) -> Training:
    """Train what is left of a run."""
    while not run.complete():
        assert run.run_epoch(StopRequest())
        run.end_epoch()
    return run


def trained(data: LongTailedData | None = None, **changes: object) -> Training:
    """A run after its last epoch."""
    return to_the_end(training(data, **changes))


def trained_cifar(
    data: LongTailedData | None = None, recipe: str = "cifar100-lt", **changes: object
) -> Training:
    """A run on CIFAR-like data after its last epoch."""
    return to_the_end(cifar_training(data, recipe, **changes))


def same_weights(a: Training, b: Training) -> bool:
    """Whether two networks are equal to the bit."""
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
