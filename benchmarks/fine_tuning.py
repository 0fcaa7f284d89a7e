"""Speed of training on a folder of images: python -m benchmarks.fine_tuning [--folder FOLDER].

Prints, from interleaved epochs in one process, images a second (medians and the spread) of our
loop, with its cache of squares, and of a plain one that does the same work as torchvision's
reference for classification does it: ``ImageFolder``, ``RandomResizedCrop``, flip, ``Normalize``, a
``DataLoader`` without and with worker processes, SGD. Both train the same network from the same
list, with the same batch, crop and optimizer; ours over the faster of the plain loops is taken
round by round. The weights are drawn at random: the speed does not depend on them.

The images are yours, with the lists of ``python -m data_prep.image_folder split FOLDER``, or
rendered as in ``benchmarks.images``. Each loop has one epoch before the first that is counted; the
cache is filled before that, and no epoch has a difficulty pass. Squares have 256 / 224 of a crop's
side.
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.images import HEIGHT, WIDTH, render
from benchmarks.plain_images import Recipe, plain_epochs
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
from classification.config import Precision
from classification.data import load_data
from classification.image_augment import resized_side
from classification.image_recipes import IMAGE_FOLDER
from classification.reading import Reading
from classification.recipes import resolved
from classification.training import Training
from common.errors import run_main
from common.training.provenance import has_bfloat16
from common.training.signals import StopRequest
from data_prep.image_folder import load_image_folder, split_tree, write_lists
from data_prep.image_tree import scan_tree

NETWORKS = ("mobilenet_v3_small", "resnet18")
CROPS = (96, 224)
WORKERS = (0, 2)
CLASSES = 4


def render_folder(folder: Path, images: int, width: int, height: int) -> Path:
    """Write the images in :data:`CLASSES` folders, and lists that hold two of each out."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
        render(folder / str(label), 2 + -(-images // CLASSES), width, height)
    tree = scan_tree(folder)
    parts = split_tree(tree, difficulty=1, test=1, split_seed=0)
    write_lists(folder, tree.class_names, parts, overwrite=False)
    return folder


def our_training(
    folder: Path, recipe: Recipe, precision: Precision, cache: Path, device: torch.device
) -> Training:
    """A run of cross-entropy at its start."""
    config = replace(
        IMAGE_FOLDER,
        network=recipe.network,
        crop=recipe.crop,
        stored_side=resized_side(recipe.crop),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        colour_jitter=0.0,
        precision=precision,
    )
    reading = Reading(cache / str(recipe.crop))
    return Training(resolved(config), load_data(config, device, folder, reading), device)


def epoch_seconds(training: Training) -> float:
    """Seconds per image of a whole epoch."""
    taken = seconds(partial(training.run_epoch, StopRequest()), training.device)
    training.end_epoch()
    return taken / training.method.sampler.num_samples


def make_jobs(folder: Path, recipe: Recipe, cache: Path, device: torch.device) -> dict[str, Job]:
    """The loops of one network and crop, by what is said of them."""
    split = load_image_folder(folder)
    precisions: tuple[Precision, ...] = ("float32",)
    if device.type == "cuda" or has_bfloat16():
        precisions += ("bfloat16",)
    plain = {
        f"plain, {number} workers": plain_epochs(split, recipe, number, device)
        for number in WORKERS
    }
    runs = {name: our_training(folder, recipe, name, cache, device) for name in precisions}
    ours = {f"ours, {name}": partial(epoch_seconds, run) for name, run in runs.items()}
    return plain | ours


def report(recipe: Recipe, times: Times) -> None:
    """Print the figures of one network and crop."""
    what = f"{recipe.network}, {recipe.crop} x {recipe.crop}"
    for name, values in times.items():
        show(f"{what}: {name}", [1 / value for value in values], "images/s")
    plain = [values for name, values in times.items() if name.startswith("plain")]
    faster = [min(values) for values in zip(*plain, strict=True)]
    for name, values in times.items():
        if name.startswith("ours"):
            show(f"{what}: {name}, over the faster plain loop", ratios(faster, values), "times")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of your images; without it: rendered ones")
    parser.add_argument("--images", type=at_least(1), default=160, help="how many are rendered")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="of torchvision")
    parser.add_argument("--crops", nargs="+", type=at_least(8), default=CROPS, help="sides, pixels")
    parser.add_argument("--threads", type=at_least(1), default=1, help="of torch, in both loops")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="measurements, interleaved")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_out(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = options.folder or render_folder(scratch / "images", options.images, WIDTH, HEIGHT)
        print(f"{len(load_image_folder(folder).train)} images an epoch", flush=True)
        for crop in options.crops:
            for network in options.networks:
                recipe = Recipe(network, crop)
                jobs = make_jobs(folder, recipe, scratch / "cache", device)
                report(recipe, interleaved(jobs, options.rounds))
    write_shown(options.out, "python -m benchmarks.fine_tuning", options.rounds, device)


if __name__ == "__main__":
    run_main(main)
