"""Verbs of new clips, by a finished run.

Use: ``python -m video.predict runs/motion-digits/ce_seed-0 clips``, or from Python::

    model = load_run("runs/motion-digits/ce_seed-0")
    logits = model(torch.stack([model.preprocess("clip.mp4")]))

Shapes: B clips, T frames a clip, S pixels a side of a crop, C verbs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor, nn

from common.errors import run_main
from common.training.predicting import (
    EXIT_CODES,
    Epoch,
    RankingArguments,
    TrainedClassifier,
    class_names_of,
    find_files,
    rank_classes,
    refuse_several_runs,
)
from common.training.process_group import choose_device
from data_prep.clips import SUFFIXES
from video.augment import centre_crop, network_input
from video.data import FrameSource
from video.evaluate import read_config, trained_models
from video.reading import uniform_positions
from video.recipes import VideoConfig
from video.record import TASK


class ClipClassifier(TrainedClassifier):
    """The network of clips; see :class:`TrainedClassifier`."""

    def __init__(
        self, network: nn.Module, class_names: tuple[str, ...], config: VideoConfig
    ) -> None:
        """In evaluation mode."""
        super().__init__(network, class_names)
        self._positions, self._crop = uniform_positions(config.frames), config.crop
        self._source = FrameSource(config.frame_height, config.frame_width, "pyav", cache=None)

    def preprocess(self, item: Path | str) -> Tensor:
        """Evenly spread frames of a clip, their middle: (T, S, S, 3), uint8, on the CPU.

        Raises:
            UserError: the file cannot be read as a clip.
        """
        frames = self._source.frames("", Path(item), self._positions)
        return centre_crop(frames[None], self._crop)[0]

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, T, S, S, 3), uint8, on the network's device -> logits (B, C), float32."""
        logits: Tensor = self.network(network_input(clips))
        return logits


def load_run(folder: Path | str, epoch: Epoch = "last") -> ClipClassifier:
    """A finished run's network for predictions, on the CPU, in evaluation mode.

    Args:
        folder: the run's: config.json, record.json and weights.pt are read.
        epoch: whose weights: the last, or the best on the difficulty set.

    Raises:
        UserError: it is no run of video, has not finished, or a file is damaged.
    """
    folder = Path(folder)
    names = class_names_of(folder, TASK)
    config = read_config(folder)
    network = trained_models(folder, config, len(names))[epoch]
    return ClipClassifier(network, names, config)


@dataclass(frozen=True, kw_only=True)
class Arguments(RankingArguments):
    """Of each clip the most likely verbs, by a finished run, with their probabilities."""

    clips: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CLIP_OR_FOLDER")]
    """A clip, or a folder: all clips below it, sorted by path."""


def main() -> None:
    """Command line."""
    refuse_several_runs()
    arguments = tyro.cli(
        Arguments,
        prog="python -m video.predict",
        description=f"{Arguments.__doc__}\n\n{EXIT_CODES}",
    )
    arguments.check()
    model = load_run(arguments.run, arguments.epoch)
    files = find_files(arguments.clips, SUFFIXES, "clips")
    rank_classes(model, files, arguments, choose_device(arguments.device))


if __name__ == "__main__":
    run_main(main)
