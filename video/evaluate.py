"""Measure a network on clips, and a finished run's weights on its test clips.

Use: ``python -m video.evaluate runs/motion-digits/ce_seed-0``.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from common.difficulty import class_accuracy
from common.distributed import all_reduce_sum
from common.errors import UserError, run_main
from common.metrics import (
    class_precision,
    class_recall,
    confusion_matrix,
    macro_average,
    top_k_correct,
)
from common.streams import Streams
from common.training.folder import load_tensors
from common.training.history import plain_numbers
from common.training.process_group import choose_device
from common.training.settings import option, read_folder
from video.augment import network_input
from video.data import FrameSource, evaluation_batches, load_data
from video.recipes import RECIPES, VideoConfig

_TOP = 5


def make_model(config: VideoConfig, num_classes: int, streams: Streams) -> nn.Module:
    """The configured network with random weights."""
    return config.make_network(num_classes, streams["model"])


def measure(
    model: nn.Module, frames: Tensor, labels: Tensor, num_classes: int, batch_size: int
) -> Tensor:
    """Accuracy per class over the clips of all ranks: (C,), float64, on the CPU.

    Args:
        model: takes (B, 3, T, S, S).
        frames: this rank's clips, (N, T, S, S, 3), uint8.
        labels: (N,).
        num_classes: C.
        batch_size: clips a pass.
    """
    device = next(model.parameters()).device

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for clips, own in zip(frames.split(batch_size), labels.split(batch_size), strict=True):
            if len(own):  # A rank may have no clip.
                yield network_input(clips.to(device, non_blocking=True)), own.to(device)

    return class_accuracy(model, batches(), num_classes).cpu()


@torch.inference_mode()
def verb_metrics(confusion: Tensor, top5_hits: int, head: Sequence[int]) -> dict[str, Any]:
    """The measures of Tables 7 and 8 as a result record holds them.

    Precision and recall are macro averages: over all classes, over the head and over the tail,
    which is every other class; a class without a sample is left out of each.

    Args:
        confusion: shape (C, C), rows true and columns predicted, at least one sample.
        top5_hits: samples whose true class is among the five largest logits.
        head: indices of the head classes.

    Returns:
        ``error`` in percent; ``top5_accuracy``, ``macro_precision``, ``macro_recall`` and the
        ``precision`` and ``recall`` of ``head`` and ``tail`` in [0, 1]; per class, shape (C,),
        ``class_accuracy`` (recall) and ``class_precision``; ``confusion``, shape (C, C). Plain
        numbers; None where nothing was measured.

    Raises:
        ValueError: when there is no sample.
    """
    confusion = confusion.cpu()
    total, correct = int(confusion.sum()), int(confusion.trace())
    if total == 0:
        raise ValueError("the confusion matrix is empty; evaluate at least one sample")
    precision, recall = class_precision(confusion), class_recall(confusion)
    tail = [c for c in range(len(confusion)) if c not in set(head)]

    def averages(classes: Sequence[int]) -> dict[str, float | None]:
        means = {"precision": precision, "recall": recall}
        averaged = {name: macro_average(values, classes) for name, values in means.items()}
        return {name: None if math.isnan(mean) else mean for name, mean in averaged.items()}

    return {
        "error": 100.0 * (total - correct) / total,
        "top5_accuracy": top5_hits / total,
        "macro_precision": macro_average(precision),
        "macro_recall": macro_average(recall),
        "head": averages(head),
        "tail": averages(tail),
        "class_accuracy": plain_numbers(recall),
        "class_precision": plain_numbers(precision),
        "confusion": confusion.tolist(),
    }


def evaluate(
    models: Mapping[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    head: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Test metrics of several networks over the clips of all ranks, each clip read once.

    Args:
        models: by name, on one device; left in evaluation mode.
        batches: this rank's frames (B, T, S, S, 3), uint8, and labels (B,).
        num_classes: C.
        head: labels of the head classes.

    Returns:
        For each name the fields of a record's evaluation (:func:`common.metrics.verb_metrics`).
    """
    device = next(next(iter(models.values())).parameters()).device
    counts = {
        name: torch.zeros(num_classes * num_classes + 1, dtype=torch.int64, device=device)
        for name in models
    }
    for frames, labels in batches:
        clips = network_input(frames.to(device, non_blocking=True))
        labels = labels.to(device)
        for name, model in models.items():
            logits = model.eval()(clips)
            confusion = confusion_matrix(logits.argmax(dim=1), labels, num_classes)
            hits = top_k_correct(logits, labels, _TOP).sum()
            counts[name] += torch.cat([confusion.flatten(), hits[None]])
    results = {}
    for name, count in counts.items():
        total = all_reduce_sum(count).cpu()
        confusion = total[:-1].view(num_classes, num_classes)
        results[name] = verb_metrics(confusion, int(total[-1]), head)
    return results


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run's weights on its test clips."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, for instance runs/motion-digits/ce_seed-0."""
    data: Path | None = None
    """The data set's folder; None: its usual place, see data_prep/README.md."""
    workers: int = 0
    """Processes that read clips ahead; 0: none."""


def read_config(folder: Path) -> VideoConfig:
    """The configuration a run's folder was made with; see :func:`read_folder`."""
    return read_folder(folder, "video", RECIPES)


def load_weights(folder: Path, model: nn.Module) -> dict[str, nn.Module]:
    """The networks of a finished run's epochs 'best' and 'last'.

    Args:
        folder: the run's.
        model: of its configuration.

    Raises:
        UserError: when the run has not finished, or the file is damaged or of another network.
    """
    path, remedy = folder / "weights.pt", f"move {folder} elsewhere and train the run again"
    if not path.exists():
        raise UserError(f"{path} is not there: the run has not finished; start its command again.")
    weights = load_tensors(path, remedy)
    models = {"best": model, "last": copy.deepcopy(model)}
    try:
        for epoch, network in models.items():
            network.load_state_dict(weights[epoch])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds the weights of another network; {remedy}.") from error
    return models


def trained_models(folder: Path, config: VideoConfig, num_classes: int) -> dict[str, nn.Module]:
    """A finished run's networks of its epochs 'best' and 'last', in evaluation mode, on the CPU.

    Raises:
        UserError: as :func:`load_weights`.
    """
    models = load_weights(folder, make_model(config, num_classes, Streams(config.seed)))
    return {epoch: model.eval() for epoch, model in models.items()}


def describe(result: dict[str, Any]) -> str:
    """Top-1, top-5 and macro averages in one line, in percent."""

    def percent(fraction: float | None) -> str:
        return "n/a" if fraction is None else f"{100 * fraction:.2f}"

    parts = [f"top-1 {100 - result['error']:.2f}", f"top-5 {percent(result['top5_accuracy'])}"]
    for name, values in (
        ("macro", {kind: result[f"macro_{kind}"] for kind in ("precision", "recall")}),
        ("head", result["head"]),
        ("tail", result["tail"]),
    ):
        parts.append(
            f"{name} precision {percent(values['precision'])}, recall {percent(values['recall'])}"
        )
    return "; ".join(parts)


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    config = read_config(arguments.run)
    if arguments.workers < 0:
        raise UserError(f"{option('workers')} must be at least 0, not {arguments.workers}.")
    data = load_data(config, arguments.data)
    device = choose_device("auto")
    loaded = trained_models(arguments.run, config, data.num_classes)
    models = {epoch: model.to(device) for epoch, model in loaded.items()}
    source = FrameSource(config.frame_height, config.frame_width, "pyav", cache=None)
    batches = evaluation_batches(data.test, source, config, arguments.workers)
    for epoch, result in evaluate(models, batches, data.num_classes, data.head).items():
        print(f"{epoch} epoch: {describe(result)}")


if __name__ == "__main__":
    run_main(main)
