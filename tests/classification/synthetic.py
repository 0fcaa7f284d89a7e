"""A small data set in memory: blobs of three classes, in a second nine methods train on it."""

import torch

from classification.data import LabelledImages, LongTailedData
from classification.engine import Training
from classification.recipes import ClassificationConfig, resolved
from common.signals import StopRequest

COUNTS = (40, 30, 20)


def labelled(counts: tuple[int, ...], generator: torch.Generator) -> LabelledImages:
    """Noise with a brighter square whose place tells the class, in random order."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.randn(len(labels), 1, 28, 28, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 8 * label : 8 * label + 10, 10:20] += 2.0
    return LabelledImages(images.contiguous(memory_format=torch.channels_last), labels)


def small_data(counts: tuple[int, ...] = COUNTS, seed: int = 0) -> LongTailedData:
    """Training images by ``counts``, 10 per class to measure difficulty, 7 per class to test."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(counts)
    return LongTailedData(
        train=labelled(counts, generator),
        difficulty=labelled((10,) * classes, generator),
        test=labelled((7,) * classes, generator),
        train_counts=torch.tensor(counts),
        test_counts=torch.full((classes,), 7),
        description={"class_names": [str(c) for c in range(classes)]},
    )


def config(**changes: object) -> ClassificationConfig:
    """A resolved configuration that suits the small data; ``changes`` depart from it."""
    usual: dict[str, object] = {
        "epochs": 3, "batch_size": 16, "learning_rate": 0.02,
        "initialisation": "xavier-uniform", "input_scaling": "unit",
    }  # fmt: skip
    of_the_method = {"l2rw": {"l2rw_batch_size": 12}, "eql": {"eql_threshold": 0.25}}
    usual |= of_the_method.get(str(changes.get("method")), {})
    return resolved(ClassificationConfig(**(usual | changes)))  # type: ignore[arg-type]


def training(data: LongTailedData | None = None, **changes: object) -> Training:
    """A run at its first step."""
    return Training(config(**changes), data or small_data(), torch.device("cpu"))


def trained(data: LongTailedData | None = None, **changes: object) -> Training:
    """A run after its last epoch."""
    run = training(data, **changes)
    while run.epoch < run.config.epochs:
        assert run.run_epoch(StopRequest())
        run.end_epoch()
    return run


def same_weights(a: Training, b: Training) -> bool:
    """Whether two networks are equal to the bit."""
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
