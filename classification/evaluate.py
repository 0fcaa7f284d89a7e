"""Evaluate a network on a set, and a finished run's weights on its test set.

Use: ``python -m classification.evaluate runs/mnist-lt/ce_imbalance-99_seed-0``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn

from classification.data import LabelledImages, LongTailedData, load_mnist_lt
from classification.models import make_lenet
from classification.recipes import ClassificationConfig
from common.difficulty import class_accuracy
from common.errors import UserError, run_main
from common.metrics import error_percent, shot_accuracy
from common.run import load_tensors
from common.streams import Streams

EVALUATION_BATCH = 250
"""Images a forward pass; 250 of LeNet-5's feature maps stay in the processor's cache."""


def measure(model: nn.Module, data: LabelledImages, num_classes: int) -> torch.Tensor:
    """Accuracy per class on ``data``: shape (C,), float64, on the CPU."""
    return class_accuracy(model, data.batches(EVALUATION_BATCH), num_classes).cpu()


def evaluate(model: nn.Module, data: LongTailedData) -> dict[str, Any]:
    """The record's test metrics: error in percent, accuracy per class and per shot group."""
    accuracy = measure(model, data.test, data.num_classes)
    return {
        "error": error_percent(accuracy, data.test_counts),
        "class_accuracy": accuracy.tolist(),
        "shot_accuracy": shot_accuracy(accuracy, data.train_counts),
    }


def make_model(config: ClassificationConfig, num_classes: int, streams: Streams) -> nn.Module:
    """The configured network with its initial weights."""
    model = make_lenet(config.architecture, num_classes, config.initialisation, streams["model"])
    return model.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run's weights on its test set."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, for instance runs/mnist-lt/ce_imbalance-99_seed-0."""


def read_config(folder: Path) -> ClassificationConfig:
    """The configuration a run's folder was made with.

    Raises:
        UserError: when there is none, or it is of another version.
    """
    try:
        return ClassificationConfig(**json.loads((folder / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder} is not the folder of a classification run of this version ({error}); name a "
            "folder that holds config.json and weights.pt."
        ) from error


def main() -> None:
    """Command line."""
    folder = tyro.cli(Arguments).run
    config = read_config(folder)
    data = load_mnist_lt(config, torch.device("cpu"))
    model = make_model(config, data.num_classes, Streams(config.seed))
    weights = load_tensors(folder / "weights.pt")
    for epoch in ("last", "best"):
        model.load_state_dict(weights[epoch])
        result = evaluate(model, data)
        classes = ", ".join(
            f"{name}: {accuracy:.4f}"
            for name, accuracy in zip(
                data.description["class_names"], result["class_accuracy"], strict=True
            )
        )
        print(f"{epoch} epoch: error {result['error']:.2f} %; accuracy of class {classes}")


if __name__ == "__main__":
    run_main(main)
