"""Motion digits: a rendered stand-in for EGTEA's clips, on which the video path can be proven.

Handwritten digits (the 4s and 9s of MNIST that the repository carries) move in 19 ways, the 'verbs'
(data_prep/motions.py), which can be told by the motion and not by a single frame. The set has
EGTEA's class profile scaled down, and its folder layout, file names and split format:

    FOLDER/splits/train_split.txt, val_split.txt, test_split.txt, verb_idx.txt
    FOLDER/clips/<recording>/<clip>.mp4      H.264, 24 to 60 frames of 80 x 64 pixels

Digits of test clips are of MNIST's test part, so none of them was seen in training; training and
difficulty clips have different digits of MNIST's training part. Train without flips: a mirror image
of 'Slide left' is 'Slide right'.

Every clip has its own random numbers, derived from (seed, part, number), and can be rendered alone.

    python -m data_prep.motion_digits render --folder data/motion-digits
    python -m data_prep.motion_digits check --folder data/motion-digits
    python -m data_prep.motion_digits show --folder data/motion-digits

Shapes: F frames, H x W pixels, C = 19 classes.
"""

import importlib.util
import io
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from common.errors import UserError, run_main
from common.files import chosen_path, write_atomically
from common.streams import stream_seed
from common.training.progress import Count
from data_prep.clips import (
    PART_FILES,
    VERB_FILE,
    VerbSplit,
    check_folder,
    print_split,
    read_splits,
)
from data_prep.egtea import load_egtea_splits
from data_prep.mnist import Digits, load_digits
from data_prep.motions import (
    HEIGHT,
    LONGEST,
    NUM_DRAWS,
    SHORTEST,
    VERBS,
    WIDTH,
    Draws,
    State,
    follow,
    ink_size,
)
from data_prep.rendered import RenderedSet, make_folders
from data_prep.split import permuted_class

FOLDER_VARIABLE: Final = "CDB_MOTION_DIGITS"
DEFAULT_FOLDER: Final = Path("data/motion-digits")
SETTINGS_FILE: Final = "motion_digits.json"
_KIND: Final = RenderedSet(
    "motion digits", "data_prep.motion_digits", SETTINGS_FILE, 1, ("clips", "splits")
)
_SPLIT_FILES: Final = (*PART_FILES.values(), VERB_FILE)

RATES = (Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(15))
"""Frames a second."""
_CLIPS_PER_RECORDING: Final = 100
# Time between the starts of two clips of a recording: the longest lasts 60 / 15 s.
_SPACING_MS: Final = 5000

# The look of a clip: a background of two grids of colours, a colour of the ink, a changing light.
_COARSE, _FINE = (3, 4, 5), (3, 13, 16)
_DARKEST, _LIGHTEST = 10.0, 90.0
_INK = (170.0, 255.0)
_LIGHT = (0.75, 1.0)
_FLICKER: Final = 0.06
_NUM_LOOK = math.prod(_COARSE) + math.prod(_FINE) + 3 + 4

# Without mbtree: it gives what moves fewer bits than what stays, which a single frame may show, and
# from call to call it may give others.
_ENCODER: Final = {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0"}

# MNIST draws the ink into 20 x 20 of 28 x 28 pixels.
_IMAGE_SIDE, _INK_SIDE = 28, 20


@dataclass(frozen=True)
class Settings:
    """What a rendered set depends on.

    Attributes:
        seed: of everything random, >= 0.
        train_divisor: EGTEA's number of training clips of a verb is divided by it, >= 1.
        difficulty_divisor: the same for the difficulty part.
        test_divisor: the same for the test part.
    """

    seed: int = 0
    train_divisor: float = 10
    difficulty_divisor: float = 5
    test_divisor: float = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered.

        Raises:
            UserError: a negative seed or a divisor below 1.
        """
        if self.seed < 0:
            raise UserError(f"--seed {self.seed} is negative; give a whole number of at least 0.")
        for name in ("train_divisor", "difficulty_divisor", "test_divisor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 1):
                option = name.replace("_", "-")
                raise UserError(f"--{option} {value} is too small; give a number of at least 1.")


@dataclass(frozen=True)
class Part:
    """One part of the set.

    Attributes:
        name: train, difficulty or test.
        person: who 'recorded' its clips.
        smallest: clips the rarest verb has at least.
    """

    name: str
    person: str
    smallest: int


PARTS = (Part("train", "P01", 2), Part("difficulty", "P02", 4), Part("test", "P03", 6))


@dataclass(frozen=True)
class Clip:
    """One clip to render.

    Attributes:
        part: name of its part.
        number: its place in the part, 0 and up.
        label: its verb, 0 to 18.
        digit: place of its digit in the images of MNIST's training or test part.
        noun: 1 for a four, 2 for a nine.
        frames: how many it has.
        rate: frames a second.
        name: of EGTEA's shape, PERSON-RECIPE-DISH-STARTMS-ENDMS-FSTARTFRAME-FENDFRAME.
    """

    part: str
    number: int
    label: int
    digit: int
    noun: int
    frames: int
    rate: Fraction
    name: str

    @property
    def file(self) -> Path:
        """Where it lies below the folder of clips."""
        return Path("-".join(self.name.split("-")[:3]), f"{self.name}.mp4")


@dataclass(frozen=True, eq=False)
class Look:
    """What a clip looks like, whatever its motion.

    Attributes:
        background: (3, H, W), 10 to 90.
        ink: colour of the digit, (3,), 170 to 255.
        light: brightness at each frame, (F,), at most 1.
    """

    background: Tensor
    ink: Tensor
    light: Tensor


# The plan.


def default_folder() -> Path:
    """The folder that is read when none is named: $CDB_MOTION_DIGITS, else data/motion-digits."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def class_counts(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Clips of each verb in each part: EGTEA's divided and rounded up, and never too few."""
    egtea = load_egtea_splits()
    counts = (egtea.train_counts, egtea.difficulty_counts, egtea.test_counts)
    divisors = (settings.train_divisor, settings.difficulty_divisor, settings.test_divisor)
    return {
        part.name: tuple(max(part.smallest, math.ceil(n / divisor)) for n in of_part)
        for part, of_part, divisor in zip(PARTS, counts, divisors, strict=True)
    }


def plan_clips(settings: Settings, digits: Digits) -> dict[str, list[Clip]]:
    """All clips of each part, by label, as EGTEA's split files are."""
    return {
        part.name: [
            _plan_clip(settings, digits, part, order, number, label)
            for number, label in enumerate(_labels(counts))
        ]
        for part, counts in zip(PARTS, class_counts(settings).values(), strict=True)
        for order in [digit_order(settings.seed, digits, part.name)]
    }


def digit_order(seed: int, digits: Digits, part: str) -> Tensor:
    """Places of the part's digits, (N,): clip i shows digit i (of N, then again from the first).

    Training clips take the permuted digits of MNIST's training part from the front, difficulty
    clips from the back: none is in both, even with every divisor 1.
    """
    source = "test" if part == "test" else "train"
    labels = digits.test_labels if source == "test" else digits.train_labels
    generator = np.random.PCG64(stream_seed(seed, f"motion digits of {source}"))
    order = permuted_class(torch.zeros_like(labels), 0, generator)
    return order.flip(0) if part == "difficulty" else order


def _labels(counts: Iterable[int]) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


def _plan_clip(
    settings: Settings, digits: Digits, part: Part, order: Tensor, number: int, label: int
) -> Clip:
    digit = int(order[number % len(order)])
    labels = digits.test_labels if part.name == "test" else digits.train_labels
    length, rate = _clip_numbers(settings.seed, part.name, number)[:2].tolist()
    frames = SHORTEST + int(length * (LONGEST - SHORTEST + 1))
    chosen = RATES[int(rate * len(RATES))]
    name = _clip_name(part.person, number, frames, chosen)
    noun = int(labels[digit]) + 1
    return Clip(part.name, number, label, digit, noun, frames, chosen, name)


def _clip_name(person: str, number: int, frames: int, rate: Fraction) -> str:
    recording, place = divmod(number, _CLIPS_PER_RECORDING)
    start, first = place * _SPACING_MS, int(place * _SPACING_MS * rate / 1000)
    end = start + int(1000 * frames / rate)
    return f"{person}-R{recording + 1:02d}-Digits-{start}-{end}-F{first:06d}-F{first + frames:06d}"


def _clip_numbers(seed: int, part: str, number: int) -> Tensor:
    """The clip's own numbers, uniform in [0, 1), float64: length, rate, motion, look.

    From raw 64-bit draws: numpy promises that the stream of a bit generator never changes.
    """
    generator = np.random.PCG64(stream_seed(seed, f"motion digits, {part} clip {number}"))
    raw = generator.random_raw(2 + NUM_DRAWS + _NUM_LOOK)
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53)


# Rendering.


def render_frames(clip: Clip, seed: int, digits: Digits) -> Tensor:
    """The pictures of one clip, (F, H, W, 3) uint8."""
    numbers = _clip_numbers(seed, clip.part, clip.number)[2:]
    time = torch.arange(clip.frames, dtype=torch.float64) / clip.frames
    motion = tuple(VERBS.values())[clip.label]
    state = follow(motion, Draws.of(numbers[None, :NUM_DRAWS]), time)
    images = digits.test_images if clip.part == "test" else digits.train_images
    look = draw_look(numbers[NUM_DRAWS:], time)
    return paint(images[clip.digit], state, look)


def draw_look(numbers: Tensor, time: Tensor) -> Look:
    """The look of a clip.

    Args:
        numbers: (_NUM_LOOK,) uniform in [0, 1).
        time: of each frame, (F,), in clips from the start.
    """
    sizes = [math.prod(_COARSE), math.prod(_FINE), 3, 4]
    coarse, fine, ink, light = numbers.float().split(sizes)
    texture = 0.65 * _enlarged(coarse.view(_COARSE)) + 0.35 * _enlarged(fine.view(_FINE))
    waves = torch.sin(math.tau * (light[1] + (0.5 + 2 * light[2]) * time.float()))
    mean = _LIGHT[0] + (_LIGHT[1] - _LIGHT[0]) * light[0]
    return Look(
        background=_DARKEST + (_LIGHTEST - _DARKEST) * texture,
        ink=_INK[0] + (_INK[1] - _INK[0]) * ink,
        light=mean * (1 - _FLICKER * light[3] * (1 + waves) / 2),
    )


def _enlarged(grid: Tensor) -> Tensor:
    """(3, h, w) -> (3, H, W), smooth."""
    size = (HEIGHT, WIDTH)
    return F.interpolate(grid[None], size, mode="bilinear", align_corners=False)[0]


def paint(image: Tensor, state: State, look: Look) -> Tensor:
    """The digit on its background in the clip's light.

    Args:
        image: (28, 28) uint8, 0 = paper, 255 = ink.
        state: of one clip, each (1, F).
        look: of the same clip.

    Returns:
        (F, H, W, 3) uint8.
    """
    cover = place_digit(image, state)[:, None]
    ink = look.ink[:, None, None]
    pictures = (look.background + cover * (ink - look.background)) * look.light[:, None, None, None]
    return pictures.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def place_digit(image: Tensor, state: State) -> Tensor:
    """How far ink covers each pixel of the torus, (F, H, W) float32 in [0, 1]; bilinear.

    A pixel at (dx, dy) from the digit's centre, the shortest way round, shows the point of the
    image at the inverse of: enlarge by size / 20, then turn clockwise by the angle.
    """
    x, y, angle, size = (
        value[0, :, None, None].float() for value in (state.x, state.y, state.angle, state.size)
    )
    columns = (torch.arange(WIDTH) + 0.5) / WIDTH
    rows = (torch.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    dx, dy = WIDTH * _shortest(columns - x), HEIGHT * _shortest(rows - y)
    cos, sin = torch.cos(math.tau * angle), torch.sin(math.tau * angle)
    # grid_sample's unit is half the image.
    unit = ink_size(size) / _INK_SIDE * _IMAGE_SIDE / 2
    grid = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], dim=-1) / unit[..., None]
    images = (image.float() / 255).expand(len(grid), 1, *image.shape)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)[:, 0]


def _shortest(difference: Tensor) -> Tensor:
    """The difference on a circle of length 1, in [-0.5, 0.5)."""
    return difference - torch.floor(difference + 0.5)


def encode(frames: Tensor, rate: Fraction) -> bytes:
    """An MP4 file with the frames as H.264.

    One thread: the bytes then depend on the frames and the libraries only.

    Args:
        frames: (F, H, W, 3) uint8, H and W even.
        rate: frames a second.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=_ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames.numpy():
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


# The folder.


def load_motion_digits(folder: Path | None = None) -> VerbSplit:
    """The splits of a rendered set.

    Args:
        folder: what ``render`` was given; None: see :func:`default_folder`.

    Raises:
        UserError: there is no set, or its rendering was not finished.
    """
    folder = default_folder() if folder is None else folder
    if not (folder / SETTINGS_FILE).is_file():
        raise UserError(f"{folder} holds no motion digits; {remedy(folder)}.")
    if not all((folder / "splits" / name).is_file() for name in _SPLIT_FILES):
        raise UserError(f"{folder} is not rendered to its end; {remedy(folder)}.")
    return read_splits(folder / "splits")


def remedy(folder: Path) -> str:
    """The command that makes what is missing, with the options the folder was made with."""
    return _KIND.remedy(folder, asdict(Settings()))


def clips_folder(folder: Path | None = None) -> Path:
    """Where the clips of a set are."""
    return (default_folder() if folder is None else folder) / "clips"


def render_set(folder: Path, settings: Settings, workers: int) -> None:
    """Render what is missing or damaged, then write the splits.

    Raises:
        UserError: ``folder`` holds something else, or cannot be written; PyAV is not installed.
    """
    _check_pyav()
    digits = load_digits()
    _KIND.claim(folder, asdict(settings))
    parts = plan_clips(settings, digits)
    clips = [clip for of_part in parts.values() for clip in of_part]
    make_folders({clips_folder(folder) / clip.file.parent for clip in clips})
    work = partial(_render_file, folder=clips_folder(folder), seed=settings.seed, digits=digits)
    pool = ThreadPoolExecutor(workers)
    try:
        with Count("clips", len(clips)) as count:
            for _ in pool.map(work, clips):
                count.advance()
    finally:
        # Stopped by Ctrl-C or an error: the clips begun are finished, no other is begun.
        pool.shutdown(wait=True, cancel_futures=True)
    _write_splits(folder / "splits", parts)


def _render_file(clip: Clip, folder: Path, seed: int, digits: Digits) -> None:
    path = folder / clip.file
    if not _is_whole(path, clip.frames):
        write_atomically(path, encode(render_frames(clip, seed, digits), clip.rate))


def _is_whole(path: Path, frames: int) -> bool:
    """Whether an earlier start has rendered the clip and it is still readable."""
    from data_prep.clip_file import decode_clip

    try:
        return path.is_file() and decode_clip(path) == frames
    except UserError:
        return False


def _check_pyav() -> None:
    if importlib.util.find_spec("av") is None:
        raise UserError("Writing clips needs the package av; install this project's extra 'video'.")


def _write_splits(folder: Path, parts: dict[str, list[Clip]]) -> None:
    """EGTEA's format: 'CLIP ACTION VERB NOUN', ids from 1; an action is a verb and a noun."""
    make_folders({folder})
    names = "".join(f"{name} {label}\n" for label, name in enumerate(VERBS, start=1))
    write_atomically(folder / VERB_FILE, names.encode())
    for part in PARTS:
        lines = (
            f"{clip.name} {2 * clip.label + clip.noun} {clip.label + 1} {clip.noun}\n"
            for clip in parts[part.name]
        )
        write_atomically(folder / PART_FILES[part.name], "".join(lines).encode())


# Command line.


def render(
    folder: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    train_divisor: float = Settings.train_divisor,
    difficulty_divisor: float = Settings.difficulty_divisor,
    test_divisor: float = Settings.test_divisor,
) -> None:
    """Render the set; stopped and started again, it goes on, and damaged clips are made anew.

    Args:
        folder: where to put it; else CDB_MOTION_DIGITS, else data/motion-digits.
        seed: of everything random, 0 or more.
        workers: clips rendered at a time; else as many as there are cores.
        train_divisor: EGTEA's training clips of a verb are divided by this, at least 1.
        difficulty_divisor: the same for the difficulty part.
        test_divisor: the same for the test part.
    """
    settings = Settings(seed, train_divisor, difficulty_divisor, test_divisor)
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers} is too few; give at least 1.")
    target = default_folder() if folder is None else folder
    # Each worker renders a clip by itself.
    torch.set_num_threads(1)
    render_set(target, settings, workers or os.cpu_count() or 1)
    show(target)


def show(folder: Path | None = None) -> None:
    """Print how many clips each verb has in each part, and which verbs are the head.

    Args:
        folder: where the set is; else CDB_MOTION_DIGITS, else data/motion-digits.
    """
    print_split(load_motion_digits(folder))


def check(
    folder: Path | None = None, threads: int | None = None, report: Path | None = None
) -> None:
    """Check that every clip is there and all of its pictures can be read.

    Args:
        folder: where the set is; else CDB_MOTION_DIGITS, else data/motion-digits.
        threads: how many clips are read at a time; else one for each core.
        report: a file to write the name of every missing or unreadable clip into.
    """
    target = default_folder() if folder is None else folder
    check_folder(load_motion_digits(target), clips_folder(target), threads, report, remedy(target))


def main() -> None:
    """Run the ``render``, the ``show`` or the ``check`` command."""
    tyro.extras.subcommand_cli_from_dict(
        {"render": render, "show": show, "check": check}, prog="data_prep.motion_digits"
    )


if __name__ == "__main__":
    run_main(main)
