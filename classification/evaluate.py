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

from classification.config import ClassificationConfig
from classification.data import ImageSet, LongTailedData, load_data
from classification.image_recipes import ImageConfig, OltrConfig
from classification.models import (
    STRIDE,
    SecondStage,
    make_lenet,
    make_oltr,
    make_resnet,
)
from classification.recipes import RECIPES, CifarConfig, DecoupledConfig, MnistConfig
from common.difficulty import class_accuracy
from common.errors import UserError, run_main
from common.metrics import error_percent, shot_accuracy
from common.streams import Streams
from common.training.folder import load_tensors
from common.training.history import plain_numbers
from common.training.settings import with_earlier


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
    generator = streams["model"]
    match config:
        case MnistConfig():
            model: nn.Module = make_lenet(
                config.architecture, num_classes, config.initialisation, generator
            )
        case CifarConfig():
            mixed = config.precision == "bfloat16"
            cosine = config.method == "ldam-drw"
            model = make_resnet(num_classes, generator, cosine=cosine, mixed=mixed)
            if isinstance(config, DecoupledConfig):
                model = SecondStage(model, num_classes, rescale=config.classifier == "lws")
        case ImageConfig():
            model = _image_model(config, num_classes, generator)
        case _:
            raise TypeError(f"no network for {type(config).__name__}")
    return model.to(memory_format=torch.channels_last)


def _image_model(config: ImageConfig, num_classes: int, generator: torch.Generator) -> nn.Module:
    from classification.models.resnet_image import make_image_resnet  # torchvision, seconds

    mixed = config.precision == "bfloat16"
    first = make_image_resnet(num_classes, generator, config.network, mixed=mixed)
    if not isinstance(config, OltrConfig):
        return first
    side = -(-config.crop // STRIDE)
    return make_oltr(first, generator, side=(side, side), mixed=mixed)


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run's weights on its test set."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, for instance runs/mnist-lt/ce_imbalance-99_seed-0."""
    data: Path | None = None
    """The data set's file or folder; None: its usual place, see data_prep/README.md."""


def config_from(settings: dict[str, Any]) -> ClassificationConfig:
    """The configuration whose settings a run's folder or a record holds.

    A setting that a record lacks, because it was made before the setting was there, has the value
    that the run was made with, which need not be today's default.

    Raises:
        UserError: for a value out of its range.
        KeyError, TypeError: when they are not those of a recipe.
    """
    kind = type(RECIPES[settings.get("recipe", settings["dataset"])])
    return kind(**with_earlier(kind, settings))


def read_config(folder: Path) -> ClassificationConfig:
    """The configuration a run's folder was made with.

    Raises:
        UserError: when there is none, or it is of another version.
    """
    try:
        return config_from(json.loads((folder / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder} is not the folder of a classification run of this version ({error}); name a "
            "folder that holds config.json and weights.pt."
        ) from error


def load_weights(folder: Path, model: nn.Module) -> dict[str, Any]:
    """A finished run's weights by epoch ('last', 'best'), checked against ``model``.

    Raises:
        UserError: when the run has not finished, or the file is damaged or of another network.
    """
    path, remedy = folder / "weights.pt", f"delete {folder} and train the run again"
    if not path.exists():
        raise UserError(f"{path} is not there: the run has not finished; start its command again.")
    weights = load_tensors(path, remedy)
    try:
        for epoch in ("best", "last"):
            model.load_state_dict(weights[epoch])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds the weights of another network; {remedy}.") from error
    return weights


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
    if isinstance(config, ImageConfig):
        from classification.image_data import with_lists

        config = with_lists(config, arguments.data)
    data = load_data(config, torch.device("cpu"), arguments.data)
    model = make_model(config, data.num_classes, Streams(config.seed))
    weights = load_weights(folder, model)
    for epoch in ("last", "best"):
        model.load_state_dict(weights[epoch])
        result = evaluate(model, data)
        print(f"{epoch} epoch: {describe(result, data.description['class_names'])}")


if __name__ == "__main__":
    run_main(main)
