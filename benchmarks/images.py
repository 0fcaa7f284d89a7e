"""Speed of the input for folders of images, in images a second: python -m benchmarks.images.

The images are yours (``--folder``), or rendered first, in the form of ImageNet's: 500 x 375
pixels, JPEG. Like photographs they have an amplitude spectrum that falls as 1 / frequency (Field
1987), with random phases and 80 % of the variation in grey; the JPEG quality is chosen so that a
file has about the 115 kB of ImageNet's (ILSVRC-2012: 1,281,167 training images in 147.9 GB). Their
size is printed.

Prints, from interleaved measurements in one process of one thread, medians and the spread:
torchvision's pipeline as it is usually written (decoding by Pillow, RandomResizedCrop(224), flip,
ColorJitter(.4, .4, .4), ToTensor, Normalize), and the same parts of ours: decoding to squares,
filling the cache, reading it, changing a batch on the device, and reading and changing together,
with two factors over torchvision's: of reading alone, since a GPU makes the crops itself, and of
all of it on this device. Every figure is for batches of images in random order, of 32
unless asked otherwise (on a CPU the memory of much larger ones costs time of its own). Files and
cache are in memory after the first round: the disk is not measured.
"""

import argparse
import random
import shutil
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms

from benchmarks.timing import (
    Job,
    Times,
    add_out,
    at_least,
    interleaved,
    ratios,
    seconds,
    show,
    write_shown,
)
from classification.image_augment import DEVIATION, MEAN, CropFlipColour
from classification.image_cache import ImageCache
from classification.image_files import Batch, ImageFiles, ImageReader
from common.errors import UserError, run_main

WIDTH, HEIGHT, QUALITY = 500, 375, 87
SUFFIXES = (".jpeg", ".jpg", ".png")
LEAST_FACTOR = 5
"""What the cache is to bring, at least."""


def photograph(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3): random phases, amplitudes 1 / frequency."""
    generator = np.random.default_rng(seed)
    grey, colours = (generator.standard_normal((height, width, n)) for n in (1, 3))
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    frequency = np.hypot(down, across)[:, :, None]
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(np.sqrt(0.8) * grey + np.sqrt(0.2) * colours, axes=(0, 1)) / frequency
    image = np.fft.ifft2(spectrum, axes=(0, 1)).real
    pixels: NDArray[np.uint8] = (120 + 60 * image / image.std()).clip(0, 255).astype(np.uint8)
    return pixels


def render(folder: Path, images: int, width: int, height: int) -> list[str]:
    """Write the images: their names."""
    names = [f"{seed}.JPEG" for seed in range(images)]
    for seed, name in enumerate(names):
        picture = Image.fromarray(photograph(seed, width, height))
        picture.save(folder / name, quality=QUALITY)
    return names


def find(folder: Path, images: int) -> list[str]:
    """Names of so many images of a folder, chosen evenly.

    Raises:
        UserError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"There is no image (JPEG, PNG) in {folder}; name another --folder.")
    step = max(1, len(paths) // images)
    return [str(path.relative_to(folder)) for path in paths[::step][:images]]


def describe(files: ImageFiles) -> None:
    """Say what is measured."""
    numbers = range(len(files))
    size = statistics.median(files.path(number).stat().st_size for number in numbers)
    shapes = [files.read(number)[1] for number in numbers]
    width, height = (statistics.median(side) for side in zip(*shapes, strict=True))
    form = f"{width:.0f} x {height:.0f} pixels and {size / 1e3:.0f} kB (medians)"
    print(f"{len(files)} images of {form}", flush=True)


def reference_pipeline(crop: int) -> transforms.Compose:
    """torchvision's, an image at a time."""
    return transforms.Compose([
        transforms.RandomResizedCrop(crop),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.4, 0.4, 0.4),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ])  # fmt: skip


def read_reference(files: ImageFiles, pipeline: transforms.Compose, index: Tensor) -> Tensor:
    """A batch as torchvision makes it."""
    images = []
    for number in index.tolist():
        with Image.open(files.path(number)) as file:
            images.append(pipeline(file.convert("RGB")))
    return torch.stack(images)


def refill(cache: ImageCache, scratch: Path) -> None:
    """Fill a second, empty cache of the same files."""
    other = ImageCache(scratch, cache.files)
    for shard in range(other.shards):
        other.keep(shard)
    shutil.rmtree(scratch)


def make_jobs(
    files: ImageFiles, folder: Path, batch_size: int, crop: int, device: torch.device
) -> dict[str, Job]:
    """What is timed, by name; each gives its seconds per image."""
    number, cache = len(files), ImageCache(folder / "cache", files)
    for shard in range(cache.shards):
        cache.keep(shard)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(0)).split(batch_size)
    pipeline, augmentation = reference_pipeline(crop), CropFlipColour(crop)
    generator = torch.Generator().manual_seed(1)
    decoder, reader = ImageReader(files), ImageReader(files, cache)
    ready = [(squares.to(device), sizes) for squares, sizes in reader.batches(order, 0)]

    def change(batch: Batch) -> Tensor:
        squares, sizes = batch
        draws = augmentation.draw(len(squares), generator)
        return augmentation.apply(squares.to(device, non_blocking=True), sizes, draws)

    work = {
        "reference": lambda: [read_reference(files, pipeline, index).to(device) for index in order],
        "decode": lambda: [len(squares) for squares, _ in decoder.batches(order, 0)],
        "fill": lambda: refill(cache, folder / "other"),
        "read": lambda: [len(squares) for squares, _ in reader.batches(order, 0)],
        "change": lambda: [change(batch) for batch in ready],
        "whole": lambda: [change(batch) for batch in reader.batches(order, 0)],
    }

    def per_image(name: str) -> float:
        return seconds(work[name], device) / number

    return {name: partial(per_image, name) for name in work}


_LABELS = {
    "reference": "torchvision: decode, crop, flip, colours, normalise",
    "decode": "ours: decode to squares",
    "fill": "ours: fill the cache",
    "read": "ours: read the cache (checked)",
    "change": "ours: crop, flip, colours, normalise",
    "whole": "ours: read the cache and crop .. normalise",
}


def report(times: Times) -> None:
    """Print the figures; the factors are taken round by round."""
    for name, label in _LABELS.items():
        show(label, [1 / t for t in times[name]], "images/s")
    wanted = f"(at least {LEAST_FACTOR})"
    host = ratios(times["reference"], times["read"])
    show("the cache over torchvision's: what a GPU waits for", host, "times", wanted)
    whole = ratios(times["reference"], times["whole"])
    show("ours with the cache over torchvision's, all here", whole, "times", wanted)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of your images; without it: rendered ones")
    parser.add_argument("--images", type=at_least(1), default=256, help="how many")
    parser.add_argument("--batch-size", type=at_least(1), default=32, help="images")
    parser.add_argument("--side", type=at_least(2), default=256, help="of a square, in pixels")
    parser.add_argument("--crop", type=at_least(1), default=224, help="side, in pixels")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="measurements, interleaved")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_out(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = options.folder or scratch
        make = find if options.folder else partial(render, width=WIDTH, height=HEIGHT)
        files = ImageFiles(folder, make(folder, options.images), options.side)
        describe(files)
        jobs = make_jobs(files, scratch, options.batch_size, options.crop, device)
        report(interleaved(jobs, options.rounds))
    write_shown(options.out, "python -m benchmarks.images", options.rounds, device)


if __name__ == "__main__":
    run_main(main)
