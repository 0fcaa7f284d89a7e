"""Evaluate a network on a set, and a finished run's weights on its test set.

Use: ``python -m classification.evaluate runs/mnist-lt/ce_imbalance-99_seed-0``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn

from classification.config import ClassificationConfig
from classification.data import ImageSet, LongTailedData, load_data
from classification.recipes import RECIPES
from common.difficulty import class_accuracy
from common.errors import UserError, run_main
from common.metrics import error_percent, shot_accuracy
from common.streams import Streams
from common.terminal import printable
from common.training.folder import load_tensors
from common.training.history import plain_numbers
from common.training.predicting import Epoch
from common.training.settings import read_config as config_of
from common.training.settings import read_folder


def measure(model: nn.Module, data: ImageSet, num_classes: int) -> torch.Tensor:
    """Accuracy per class on the ``data`` of all ranks: shape (C,), float64, on the CPU."""
    return class_accuracy(model, data.evaluation_batches(), num_classes).cpu()


def evaluate(model: nn.Module, data: LongTailedData) -> dict[str, Any]:
    """The record's test metrics: error in percent, accuracy per class and per shot group."""
    accuracy = measure(model, data.test.of_rank(), data.num_classes)
    return {
        "error": error_percent(accuracy, data.test_counts),
        "class_accuracy": plain_numbers(accuracy),
        "shot_accuracy": shot_accuracy(accuracy, data.train_counts),
    }


def make_model(config: ClassificationConfig, num_classes: int, streams: Streams) -> nn.Module:
    """The configured network with its initial weights."""
    model = config.make_network(num_classes, streams["model"])
    return model.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run's weights on its test set."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, for instance runs/mnist-lt/ce_imbalance-99_seed-0."""
    data: Path | None = None
    """The data set's file or folder; None: its usual place, see data_prep/README.md."""


def config_from(settings: dict[str, Any]) -> ClassificationConfig:
    """The configuration whose settings a record holds; see :mod:`common.training.settings`."""
    return config_of(settings, RECIPES)


def read_config(folder: Path) -> ClassificationConfig:
    """The configuration a run's folder was made with; see :func:`read_folder`."""
    return read_folder(folder, "classification", RECIPES)


def load_weights(folder: Path, model: nn.Module) -> dict[str, Any]:
    """A finished run's weights by epoch ('last', 'best' if any), checked against ``model``.

    Raises:
        UserError: when the run has not finished, or the file is damaged or of another network.
    """
    path, remedy = folder / "weights.pt", f"move {folder} elsewhere and train the run again"
    if not path.exists():
        raise UserError(f"{path} is not there: the run has not finished; start its command again.")
    weights = load_tensors(path, remedy)
    try:
        for state in (weights["last"], *weights.values()):
            model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds the weights of another network; {remedy}.") from error
    return weights


def trained_model(
    folder: Path, config: ClassificationConfig, num_classes: int, epoch: Epoch
) -> nn.Module:
    """A finished run's network, with its weights of an epoch, in evaluation mode, on the CPU.

    Args:
        folder: the run's.
        config: the run's, see :func:`read_config`.
        num_classes: C.
        epoch: the last, or the best on the difficulty set.

    Raises:
        UserError: as :func:`load_weights`, or the run held nothing out and has no best epoch.
    """
    model = make_model(config, num_classes, Streams(config.seed))
    weights = load_weights(folder, model)
    if epoch not in weights:
        raise UserError(f"{folder} has no {epoch} epoch, for nothing was held out; use the last.")
    model.load_state_dict(weights[epoch])
    return model.eval()


def describe(result: dict[str, Any], class_names: list[str]) -> str:
    """Error and accuracy per class, by shot group where there are more than ten classes."""
    pairs = dict(zip(class_names, result["class_accuracy"], strict=True))
    what = "class"
    if len(pairs) > 10:
        pairs, what = result["shot_accuracy"], "shot group"
    parts = ", ".join(f"{n}: {'n/a' if a is None else f'{a:.4f}'}" for n, a in pairs.items())
    return f"error {result['error']:.2f} %; accuracy of {what} {parts}"


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    folder = arguments.run
    config = read_config(folder)
    config = config.with_lists(arguments.data)
    data = load_data(config, torch.device("cpu"), arguments.data)
    model = make_model(config, data.num_classes, Streams(config.seed))
    weights = load_weights(folder, model)
    for epoch in sorted(weights, reverse=True):
        model.load_state_dict(weights[epoch])
        result = evaluate(model, data)
        names = data.description["class_names"]
        print(printable(f"{epoch} epoch: {describe(result, names)}"))


if __name__ == "__main__":
    run_main(main)
