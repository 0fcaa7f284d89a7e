"""Clips of a split, and the loaders that turn them into batches of frames.

Shapes: N clips, B batch, T frames a clip, h x w pixels of a frame after fitting, S of a crop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.distributed import rank, world_size
from common.errors import UserError
from common.training.read_ahead import read_batches
from data_prep import egtea, motion_digits
from data_prep.clips import ClipList, VerbSplit, find_clips, split_notes
from video.augment import centre_crop
from video.cache import FrameCache, Part, fill
from video.reading import Reader, read_fitted_frames, uniform_positions
from video.recipes import VideoConfig

CONDITION: Final = "split1"
"""Both data sets have one split: EGTEA's first, and the rendered one."""


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of one part, on disk."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Tensor
    """(N,), int64, 0..C-1, on the CPU."""

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    @property
    def files(self) -> dict[str, Path]:
        """File of each clip, by name."""
        return dict(zip(self.names, self.paths, strict=True))

    def of_rank(self) -> "Clips":
        """This rank's share: every W-th clip (W ranks)."""
        mine = slice(rank(), None, world_size())
        return Clips(self.names[mine], self.paths[mine], self.labels[mine])


@dataclass(frozen=True, eq=False)
class VerbData:
    """The three parts of a split, and what a record says of them."""

    train: Clips
    difficulty: Clips
    test: Clips
    train_counts: Tensor
    """Training clips per verb, (C,), int64."""
    head: tuple[int, ...]
    """Labels of the five most frequent verbs."""
    description: dict[str, Any]
    """The record's ``split``."""

    @property
    def num_classes(self) -> int:
        """C."""
        return self.train_counts.numel()

    def fill_cache(self, cache: FrameCache, frames: int, reader: Reader, threads: int) -> None:
        """Keep every training frame, and of the other clips those that are measured on.

        Under torchrun each rank fills its share.

        Args:
            cache: where to.
            frames: T of evaluation.
            reader: what decodes.
            threads: at once, >= 1.

        Raises:
            UserError: when a clip cannot be read, or there is not enough room.
        """
        parts: list[Part] = [
            (self.train.of_rank().files, "all"),
            (self.difficulty.of_rank().files, "uniform"),
            (self.test.of_rank().files, "uniform"),
        ]
        fill(cache, parts, frames=frames, reader=reader, workers=threads)


def load_data(config: VideoConfig, folder: Path | None = None) -> VerbData:
    """The configured data set; every clip is looked for, none is opened.

    Args:
        config: names the data set.
        folder: EGTEA's trimmed clips, or the folder of a rendered set; None: its usual place.

    Raises:
        UserError: when the folder or a clip is missing, or a split is damaged.
    """
    data: VerbData = config.load_data(folder)
    return data


def load_motions(folder: Path | None) -> VerbData:
    """The rendered clips in ``folder``, or in their usual place."""
    folder = folder or motion_digits.default_folder()
    split = motion_digits.load_motion_digits(folder)
    return _described(split, motion_digits.clips_folder(folder), motion_digits.remedy(folder))


def load_egtea(folder: Path | None) -> VerbData:
    """EGTEA's trimmed clips in ``folder``, or in their usual place."""
    split = egtea.load_egtea_splits()
    return _described(split, folder or egtea.default_folder(), egtea.remedy("--data"))


def _described(split: VerbSplit, folder: Path, remedy: str) -> VerbData:
    paths = find_clips(folder, split.clips, remedy)

    def part(clips: ClipList) -> Clips:
        found = tuple(paths[name] for name in clips.names)
        return Clips(clips.names, found, torch.tensor(clips.labels))

    return VerbData(
        part(split.train),
        part(split.difficulty),
        part(split.test),
        train_counts=torch.tensor(split.train_counts),
        head=split.head,
        description={
            "class_names": list(split.class_names),
            "train": list(split.train_counts),
            "difficulty": list(split.difficulty_counts),
            "test": list(split.test_counts),
            "imbalance": split.imbalance,
            "head": list(split.head),
            "notes": split_notes(split),
            "digest": split.digest,
        },
    )


def describe_data(data: VerbData) -> str:
    """Sizes, imbalance and what a reader of the numbers should know, in a few lines."""
    said = data.description
    names = ", ".join(said["class_names"][label] for label in data.head)
    return "\n".join([
        f"{len(data.train)} training, {len(data.difficulty)} difficulty and {len(data.test)} test "
        f"clips of {data.num_classes} verbs; imbalance {said['imbalance']:.1f}; head: {names}",
        *said["notes"],
    ])  # fmt: skip


@dataclass(frozen=True)
class FrameSource:
    """Where frames come from: the cache if it has them, else the video."""

    height: int
    """h."""
    width: int
    """w."""
    reader: Reader
    cache: FrameCache | None

    def frames(self, name: str, path: Path, positions: Tensor) -> Tensor:
        """The frames at ``positions`` (T,) in [0, 1): (T, h, w, 3), uint8."""
        kept = None if self.cache is None else self._kept(self.cache, name, path, positions)
        return self._read(path, positions) if kept is None else kept

    def _read(self, path: Path, positions: Tensor | None) -> Tensor:
        return read_fitted_frames(path, positions, self.height, self.width, self.reader)

    def _kept(self, cache: FrameCache, name: str, path: Path, positions: Tensor) -> Tensor | None:
        """What the cache has; a file that was damaged or lost since it was filled is made anew."""
        kept = cache.read(name, positions)
        if kept is None and torch.equal(positions, uniform_positions(len(positions))):
            kept = self._read(path, positions)
            cache.write_uniform(name, kept, path)
        elif kept is None:
            cache.write(name, self._read(path, None), path)
            kept = cache.read(name, positions)
        return kept


Request = tuple[int, list[float]]
"""A clip's number and the T positions of its wanted frames. (No tensor: on its way to a worker each
would take a file descriptor.)"""


class ClipFrames(Dataset["Tensor | UserError"]):
    """Frames (T, h, w, 3), uint8, of the clip that a request asks for.

    What is wrong with a clip is returned, not raised: a worker's exception would reach the user as
    a traceback.
    """

    def __init__(self, clips: Clips, source: FrameSource) -> None:
        """``clips`` are numbered 0..N-1."""
        self._clips, self._source = clips, source

    def __getitem__(self, request: Request) -> Tensor | UserError:
        """The frames of one clip."""
        number, places = request
        clips, positions = self._clips, torch.as_tensor(places, dtype=torch.float64)
        try:
            return self._source.frames(clips.names[number], clips.paths[number], positions)
        except UserError as error:
            return error


def load_batches(
    clips: Clips, source: FrameSource, batches: list[list[Request]], workers: int
) -> Iterator[Tensor]:
    """The frames of each batch in turn, (B, T, h, w, 3), uint8, read by worker processes.

    Args:
        clips: what the requests number.
        source: reads them.
        batches: requests of each batch.
        workers: processes that read ahead; 0: this one reads.

    Raises:
        UserError: when a clip cannot be read.
    """
    return read_batches(ClipFrames(clips, source), batches, workers, torch.stack)


def evaluation_batches(
    clips: Clips, source: FrameSource, config: VideoConfig, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Evenly spread frames, centre crops (B, T, S, S, 3), uint8, and labels (B,), in order."""
    positions = uniform_positions(config.frames).tolist()
    numbers = torch.arange(len(clips)).split(max(1, config.batch_size // world_size()))
    batches = [[(int(number), positions) for number in batch] for batch in numbers if len(batch)]
    frames = load_batches(clips, source, batches, workers)
    for number, batch in zip(numbers, frames, strict=False):
        yield centre_crop(batch, config.crop), clips.labels[number]
