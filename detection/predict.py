"""Objects in new pictures, by a finished run: as boxes in a table, and drawn.

Use: ``python -m detection.predict runs/digit-scenes/ce_box_seed-0 pictures --out drawn``.

Shapes: C categories, H x W pixels of an image, n objects found in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from common.errors import UserError, run_main
from common.terminal import printable
from common.training.drawing import default_style, write_figure
from common.training.predicting import (
    EXIT_CODES,
    Device,
    Readable,
    find_files,
    finished_record,
    refuse_several_runs,
    refuse_unwritable,
    write_table,
)
from common.training.process_group import choose_device
from data_prep.image_tree import SUFFIXES
from detection.data import read_new_image
from detection.evaluate import read_config, read_weights
from detection.models import Rcnn
from detection.networks import make_trained_model
from detection.prediction_pictures import draw_image
from detection.record import TASK
from detection.sets import load_training_annotations

_TABLE = ("path", "class", "score", "x1", "y1", "x2", "y2")


Found = dict[str, Tensor]
"""Of an image: ``boxes`` (n, 4): x1, y1, x2, y2 in its pixels, ``labels`` (n,), ``scores`` (n,)
and, of a run on masks, ``masks`` (n, H, W)."""


class TrainedDetector(nn.Module):
    """A finished run's detector, in evaluation mode.

    Attributes:
        class_names: (C,), by label.
    """

    def __init__(self, network: Rcnn, class_names: tuple[str, ...]) -> None:
        """In evaluation mode."""
        super().__init__()
        self.network, self.class_names = network, class_names
        self.eval()

    def preprocess(self, item: Path | str) -> Tensor:
        """The pixels of a file, (3, H, W), uint8, of any size, upright; the network scales them.

        Raises:
            UserError: it cannot be read as an image.
        """
        return read_new_image(Path(item))

    def forward(self, images: Sequence[Tensor]) -> list[Found]:
        """Images (3, H, W), uint8, on the network's device -> what is found on each."""
        found: list[Found] = self.network(list(images))
        return found


def load_run(folder: Path | str, data: Path | None = None) -> TrainedDetector:
    """A finished run's detector for predictions, on the CPU, in evaluation mode.

    Args:
        folder: the run's: config.json, record.json and weights.pt are read.
        data: folder of the annotation files, or of a rendered set; None: its usual place. Some
            heads are made from counts of the training instances.

    Raises:
        UserError: it is no run of detection, has not finished, a file is damaged, or the
            annotations are not those that it was trained with.
    """
    folder = Path(folder)
    split = finished_record(folder, TASK)["split"]
    config = read_config(folder)
    weights = read_weights(folder)
    sets = load_training_annotations(config, data)
    known = sets.train.annotations
    if known.image_count.tolist() != split["train"]:
        raise UserError(
            f"{known.source} is not the file that {folder} was trained with; name the folder that "
            "it is in with --data."
        )
    model = make_trained_model(config, sets, weights)
    return TrainedDetector(model, tuple(split["class_names"]))


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Find objects in pictures by a finished run: print their names and scores."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder, for instance runs/digit-scenes/ce_box_seed-0."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER")]
    """A picture, or a folder: all pictures below it, sorted by path."""
    out: Path | None = None
    """Draw what is found on each picture, and write it to this folder as NAME.png."""
    csv: Path | None = None
    """Write a table to this file: path, class, score, x1, y1, x2, y2 (pixels of the picture)."""
    threshold: float = 0.5
    """What scores less is left out, from 0 to 1."""
    data: Path | None = None
    """Folder of the annotation files, or of a rendered set; None: its usual place. Only what the
    run was trained with is read of it, no image."""
    device: Device = "auto"
    """auto: cuda if there is one."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read.

        Raises:
            UserError: naming the option.
        """
        if not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold {self.threshold:g} must be at least 0 and at most 1.")
        refuse_unwritable("--csv", self.csv)
        if self.out and self.images.is_dir():
            source, out = self.images.resolve(), self.out.resolve()
            if out.is_relative_to(source):
                raise UserError(
                    f"--out {self.out} lies in {self.images}, whose pictures are read; name "
                    "another folder."
                )


@torch.inference_mode()
def find_objects(
    model: TrainedDetector, pictures: Readable, threshold: float, device: torch.device
) -> Iterator[tuple[Path, Tensor, Found]]:
    """Each picture that can be read: its path, its pixels (3, H, W), and what scores enough.

    One picture a pass, as in evaluation.

    Raises:
        UserError: not one can be read.
    """
    model.to(device)
    for path, image in pictures.read(model.preprocess):
        found = model([image.to(device)])[0]
        sure = found["scores"] >= threshold
        yield path, image, {name: values[sure].cpu() for name, values in found.items()}


def _rows(path: Path, found: Found, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Of :data:`_TABLE`, one an object."""
    columns = (found[name].tolist() for name in ("labels", "scores", "boxes"))
    # Nine digits give a float32 back to the bit.
    return [
        (path, names[label], *(f"{number:.9g}" for number in (score, *box)))
        for label, score, box in zip(*columns, strict=True)
    ]


def _write_drawn(path: Path, image: Tensor, found: Found, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with default_style():
        write_figure(draw_image(image, found, names), path)


def main() -> None:
    """Command line."""
    refuse_several_runs()
    arguments = tyro.cli(
        Arguments,
        prog="python -m detection.predict",
        description=f"{Arguments.__doc__}\n\n{EXIT_CODES}",
    )
    arguments.check()
    source = arguments.images
    model = load_run(arguments.run, arguments.data)
    pictures = Readable(find_files(source, SUFFIXES, "images"))
    device, rows = choose_device(arguments.device), []
    for path, image, found in find_objects(model, pictures, arguments.threshold, device):
        own = _rows(path, found, model.class_names)
        told = ", ".join(f"{name} {float(score):.2f}" for _, name, score, *_ in own)
        print(printable(f"{path}: {told or 'nothing'}"))
        rows += own
        if arguments.out:
            below = path.relative_to(source) if source.is_dir() else Path(path.name)
            target = arguments.out / below.with_name(f"{below.name}.png")
            _write_drawn(target, image, found, model.class_names)
    if arguments.csv:
        write_table(arguments.csv, _TABLE, rows)
    pictures.exit()


if __name__ == "__main__":
    run_main(main)
