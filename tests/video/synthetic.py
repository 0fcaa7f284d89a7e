"""A tiny set of verbs as real video files, and short runs on it.

Verb c is a bright square of its own colour that moves its own way over noise, so that it can be
learnt; what is wanted of the clips is that there are few and that they are small.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classification.methods.l2rw import reweight
from common.streams import Streams
from common.training.methods.base import LogitMethod
from common.training.signals import StopRequest
from data_prep.clips import PART_FILES, VERB_FILE
from data_prep.motion_digits import SETTINGS_FILE
from video.cache import FrameCache
from video.data import FrameSource, load_data
from video.evaluate import make_model
from video.reading import Reader
from video.recipes import MOTION_DIGITS, VideoConfig, resolved
from video.training import Training

NAMES = ("Rise", "Fall", "Open", "Move Around", "Cut", "Wash")
# The last verb has no difficulty clip, the last but one no test clip.
COUNTS = {
    "train": (8, 6, 5, 4, 3, 2), "difficulty": (4, 3, 3, 2, 2, 0), "test": (4, 3, 3, 2, 0, 3),
}  # fmt: skip
HEIGHT, WIDTH = 24, 32
BATCH, STEPS, EPOCHS = 6, 4, 3
CHANGES: dict[str, Any] = {
    "epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 0.02, "milestones": (2,), "frames": 4,
    "frame_height": 16, "frame_width": 20, "crop": 16, "flip": 0.5,
}  # fmt: skip
CONFIG = replace(MOTION_DIGITS, **CHANGES)
"""Six verbs, 28 training clips in batches of 6; the last 4 drawn are left out."""


def pictures(label: int, number: int) -> NDArray[np.uint8]:
    """Clip ``number`` of a verb: (F, 24, 32, 3), 7 to 12 pictures."""
    draw = np.random.default_rng([label, number])
    frames = 7 + number % 6
    images = draw.integers(0, 120, (frames, HEIGHT, WIDTH, 3)).astype(np.uint8)
    colour = [90 + 150 * (label >> bit & 1) for bit in range(3)]
    x, y = draw.integers(0, 16), draw.integers(0, 8)
    for time, image in enumerate(images):
        left = (x + (label - 2) * time) % (WIDTH - 8)
        image[y : y + 10, left : left + 10] = colour
    return images


def write_clip(path: Path, label: int, number: int) -> None:
    """Write one clip as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "20"}
        stream.codec_context.thread_count = 1
        for image in pictures(label, number):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def write_set(folder: Path, counts: Mapping[str, tuple[int, ...]] = COUNTS) -> Path:
    """Write a folder such as ``data_prep.motion_digits render`` leaves, of other clips."""
    (folder / "splits").mkdir(parents=True)
    (folder / "clips").mkdir()
    (folder / SETTINGS_FILE).write_text("{}")
    names = "".join(f"{name} {label}\n" for label, name in enumerate(NAMES, start=1))
    (folder / "splits" / VERB_FILE).write_text(names)
    number = 0
    for part, of_part in counts.items():
        lines = []
        for label, count in enumerate(of_part):
            for _ in range(count):
                name = f"{part}-{number:03d}"
                write_clip(folder / "clips" / f"{name}.mp4", label, number)
                lines.append(f"{name} {label + 1} {label + 1} 1\n")
                number += 1
        (folder / "splits" / PART_FILES[part]).write_text("".join(lines))
    return folder


def config_of(method: str, **changes: Any) -> VideoConfig:
    """The tiny run of a method, resolved."""
    return resolved(replace(CONFIG, **({"method": method} | changes)))


class PlainNetwork(nn.Module):
    """Two convolutions in float64: rounding stays so small that two ways of training agree."""

    def __init__(self, num_classes: int, generator: torch.Generator) -> None:
        """Draw the weights."""
        super().__init__()
        self.conv1 = nn.utils.skip_init(nn.Conv3d, 3, 6, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm3d(6, momentum=0.5)
        self.conv2 = nn.utils.skip_init(nn.Conv3d, 6, 12, (1, 3, 3), stride=(1, 2, 2), bias=False)
        self.bn2 = nn.BatchNorm3d(12, momentum=0.5)
        self.fc = nn.utils.skip_init(nn.Linear, 12, num_classes)
        for layer in (self.conv1, self.conv2, self.fc):
            nn.init.normal_(layer.weight, std=0.2, generator=generator)
        nn.init.zeros_(self.fc.bias)
        self.double()

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W), pixels in [0, 255] -> logits (B, C)."""
        x = self.bn1(self.conv1(clips.double() / 64)).relu()
        x = self.bn2(self.conv2(x)).relu()
        logits: Tensor = self.fc(x.mean(dim=(2, 3, 4)))
        return logits


class Reweighing(LogitMethod):
    """L2RW, for which some clips of the batch stand for the balanced ones: weights by all of it."""

    whole_batch = True

    def draw(self, batch_size: int) -> Tensor:
        """Which clips."""
        return torch.randint(batch_size, (3,), generator=self.streams["reweighing"])

    def sample_weights(
        self, model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None
    ) -> Tensor:
        """One on average."""
        assert draws is not None
        return len(labels) * reweight(model, images, labels, (images[draws], labels[draws]))


def make_training(
    folder: Path,
    method: str = "ce",
    *,
    in_its_place: type[LogitMethod] | None = None,
    plain: bool = False,
    workers: int = 0,
    cache: Path | None = None,
    reader: Reader = "pyav",
    **changes: Any,
) -> Training:
    """A run at its first step, as ``video.train`` begins it; ``plain``: of the other network.

    ``in_its_place``: what stands by the method's name.
    """
    config = config_of(method, **changes)
    data = load_data(config, folder)
    streams = Streams(config.seed)
    model: nn.Module = make_model(config, data.num_classes, streams)
    if plain:
        model = PlainNetwork(data.num_classes, streams["plain"])
    kept = None
    if cache is not None:
        kept = FrameCache(cache, config.frame_height, config.frame_width)
        data.fill_cache(kept, config.frames, reader, 1)
    source = FrameSource(config.frame_height, config.frame_width, reader, kept)
    with pytest.MonkeyPatch.context() as patch:
        if in_its_place is not None:
            patch.setattr("video.training.LOGIT_METHODS", {method: in_its_place})
        return Training(config, data, model, source, streams, workers)


def epochs_of(run: Training) -> Iterator[int]:
    """Train to the end; gives the number of each epoch, from 1, when it is complete."""
    while run.epoch < run.config.epochs:
        assert run.run_epoch(StopRequest())
        run.end_epoch()
        yield run.epoch


def to_the_end(run: Training) -> Training:
    """Train all epochs."""
    assert list(epochs_of(run))
    return run


def options(method: str = "ce", *more: str, **changes: Any) -> tuple[str, ...]:
    """The command line of the tiny run of a method."""
    words = ["motion-digits", "--method", method]
    for name, value in (CHANGES | changes).items():
        words.append("--" + name.replace("_", "-"))
        words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return (*words, *more)
