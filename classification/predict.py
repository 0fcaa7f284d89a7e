"""Classes of new pictures, by a finished run; and the run's network for other programs.

Use: ``python -m classification.predict runs/mnist-lt/ce_imbalance-99_seed-0 digits``, or from
Python::

    model = load_run("runs/mnist-lt/ce_imbalance-99_seed-0")
    logits = model(torch.stack([model.preprocess("digit.png")]))

Shapes: B batch, C classes.
"""

import copy
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import tyro
from torch import Tensor, nn

from classification.evaluate import read_config, trained_model
from classification.preprocessing import Picture, Preprocessing
from classification.record import TASK
from common.errors import UserError, run_main
from common.files import write_atomically
from common.training.predicting import (
    EXIT_CODES,
    Epoch,
    RankingArguments,
    Row,
    TrainedClassifier,
    class_names_of,
    find_files,
    rank_classes,
    refuse_several_runs,
    refuse_unwritable,
)
from common.training.process_group import choose_device
from data_prep.image_tree import SUFFIXES

EXPORTED_TEXT: Final = "cdb_longtail.json"
"""Name of what is said of an exported program, among its ``extra_files``."""


class ImageClassifier(TrainedClassifier):
    """The network of images; see :class:`TrainedClassifier`."""

    def __init__(
        self, network: nn.Module, class_names: tuple[str, ...], preprocessing: Preprocessing
    ) -> None:
        """In evaluation mode."""
        super().__init__(network, class_names)
        self.preprocessing = preprocessing

    def preprocess(self, item: Picture) -> Tensor:
        """One picture as the network takes it.

        Args:
            item: path of a file, or an image of Pillow's; of any size and mode.

        Returns:
            float32, on the CPU: (3, c, c) for images in files, c being the run's ``crop``;
            (3, 32, 32) for CIFAR100-LT, (1, 28, 28) for MNIST-LT. ``torch.stack`` makes a batch.

        Raises:
            UserError: it cannot be read as an image, or has grey values of 32 bits.
        """
        return self.preprocessing(item)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, ...) of :meth:`preprocess`, on the network's device -> logits (B, C), float32.

        ``logits.softmax(dim=1)`` are the probabilities.
        """
        logits: Tensor = self.network(images.to(memory_format=torch.channels_last))
        return logits


def load_run(folder: Path | str, epoch: Epoch = "last") -> ImageClassifier:
    """A finished run's network for predictions, on the CPU, in evaluation mode.

    Args:
        folder: the run's: config.json, record.json and weights.pt are read.
        epoch: whose weights: the last, or the best on the difficulty set.

    Raises:
        UserError: it is no run of classification, has not finished, or a file is damaged.
    """
    folder = Path(folder)
    names = class_names_of(folder, TASK)
    config = read_config(folder)
    network = trained_model(folder, config, len(names), epoch)
    return ImageClassifier(network, names, config.make_preprocessing())


def _in_float32(model: ImageClassifier) -> ImageClassifier:
    """A copy whose passes are in float32, whatever the run's precision."""
    # Of weights that lie channels last torch.export.save warns.
    whole = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
    parts: list[Any] = list(whole.modules())
    for part in parts:
        if hasattr(part, "mixed"):
            part.mixed = False
    return whole


def export_program(model: ImageClassifier, path: Path, **about: Any) -> None:
    """Write the network as a program of ``torch.export``, which needs nothing of this repository.

    It takes a batch (B, ...) as :meth:`ImageClassifier.preprocess` makes it, float32, on the CPU,
    of any B >= 1, and gives logits (B, C). Its passes are in float32, also where the run's are in
    bfloat16.

    Args:
        model: of :func:`load_run`.
        path: of the file (.pt2).
        about: what else its :data:`EXPORTED_TEXT` is to say, as JSON has it.

    Raises:
        UserError: there is no room or no permission.
    """
    shape = model.preprocessing.shape
    example = torch.zeros(2, *shape)
    with torch.no_grad():
        program = torch.export.export(
            _in_float32(model), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    said = about | {
        "class_names": model.class_names,
        "input": {"shape": ["batch", *shape], "dtype": "float32"} | model.preprocessing.describe(),
        "output": {"shape": ["batch", len(model.class_names)], "meaning": "logits"},
        "precision": "float32",
    }
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={EXPORTED_TEXT: json.dumps(said)})
    write_atomically(path, content.getbuffer())


@dataclass(frozen=True, kw_only=True)
class Arguments(RankingArguments):
    """Of each picture the most likely classes, by a finished run, with their probabilities."""

    images: Annotated[
        Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER")
    ] = None
    """A picture, or a folder: all pictures below it, sorted by path."""
    sheet: Path | None = None
    """Draw the pictures on one sheet (.png), each with its most likely class; of more than 48 so
    many."""
    export: Path | None = None
    """Write the network to this file (.pt2) for torch.export.load, which needs nothing of this
    repository: any number of preprocessed pictures -> logits, in float32. With pictures or
    without."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read.

        Raises:
            UserError: naming the option.
        """
        super().check()
        if self.images is None and self.export is None:
            raise UserError("there is nothing to do; name a picture or a folder, or --export FILE.")
        for option, path in (("--csv", self.csv), ("--sheet", self.sheet)):
            if self.images is None and path is not None:
                raise UserError(f"{option} {path} has no effect without pictures; name some.")
        refuse_unwritable("--sheet", self.sheet, ".png")
        refuse_unwritable("--export", self.export, ".pt2")

    def draw_sheet(self, rows: Sequence[Row]) -> None:
        """Write the sheet, if there is to be one."""
        if self.sheet is not None:
            # Matplotlib takes a second to import.
            from classification.contact_sheet import write_sheet

            write_sheet(rows, self.sheet)


def main() -> None:
    """Command line."""
    refuse_several_runs()
    arguments = tyro.cli(
        Arguments,
        prog="python -m classification.predict",
        description=f"{Arguments.__doc__}\n\n{EXIT_CODES}",
    )
    arguments.check()
    model = load_run(arguments.run, arguments.epoch)
    arguments.classes_told(len(model.class_names))
    device = choose_device(arguments.device)
    files = find_files(arguments.images, SUFFIXES, "images") if arguments.images else []
    if arguments.export:
        export_program(model, arguments.export, run=arguments.run.name, epoch=arguments.epoch)
    if files:
        rank_classes(model, files, arguments, device, arguments.draw_sheet)


if __name__ == "__main__":
    run_main(main)
