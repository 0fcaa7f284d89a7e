"""CIFAR100-LT training speed: python -m benchmarks.cifar100 [--data FOLDER] [--device cuda].

Prints, from interleaved measurements in one process, medians and the spread:

* images/s of our engine beside a plain loop of the same ResNet-32, batch and optimizer: a
  ``torch.utils.data.DataLoader`` of PIL images through torchvision's transforms;
* the augmentation alone, ours beside the PIL transforms of a ``DataLoader`` without processes;
* the difficulty pass, and what else CDB-W-CE and CDB-S do once an epoch, as shares of an epoch;
* a step of L2RW, of Meta-Weight-Net and of the second stage (cRT) over one of cross-entropy;
* on a CUDA device also the captured step beside the same step uncaptured, whole epochs, a run of
  200 epochs, and several runs that share the device.

Both loops have one torch thread. Without CIFAR-100 the images are random numbers of the same
shapes: the speed does not depend on what they show. Imbalance 100, batches of 128.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.plain_cifar import BATCH, plain_loader, plain_loop
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
from classification.augment import CropsAndFlips
from classification.config import Precision
from classification.data import ImageSet, LabelledImages, LongTailedData, load_data
from classification.evaluate import measure
from classification.models.resnet_cifar import CIFAR100_MEAN, CIFAR100_STD, PixelScaling
from classification.recipes import (
    CIFAR100_LT,
    RECIPES,
    CifarConfig,
    CifarMethod,
    DecoupledConfig,
    resolved,
)
from classification.training import Training
from common.errors import UserError, run_main
from common.training.provenance import environment, has_bfloat16
from common.training.signals import StopRequest
from data_prep.cifar100 import (
    CLASS_NAMES,
    DIFFICULTY_PER_CLASS,
    IMAGE_SHAPE,
    default_folder,
    training_sizes,
)

IMBALANCE = 100
EPOCHS = CIFAR100_LT.epochs
METHODS_OF_STEPS: tuple[CifarMethod, ...] = ("ce", "cdb-w-ce", "l2rw", "meta-weight-net")
# CDB-S takes the steps of cross-entropy: it differs in what it does once an epoch.
METHODS_OF_EPOCHS: tuple[CifarMethod, ...] = ("ce", "cdb-w-ce", "cdb-s")


# ---- data and runs


def random_images(counts: tuple[int, ...], generator: torch.Generator) -> LabelledImages:
    """``counts`` images of each class, whose pixels mean nothing."""
    shape = (sum(counts), *IMAGE_SHAPE)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return LabelledImages(images, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))


def random_data(
    counts: tuple[int, ...], per_class: int, device: torch.device, seed: int = 0
) -> LongTailedData:
    """Random images in place of CIFAR100-LT; ``per_class`` of each class measure the difficulty."""
    generator = torch.Generator().manual_seed(seed)
    parts = [random_images(n, generator) for n in (counts, (per_class,) * len(counts))]
    train, held_out = (LabelledImages(p.images.to(device), p.labels.to(device)) for p in parts)
    return LongTailedData(
        train=train,
        difficulty=held_out,
        test=held_out,
        train_counts=torch.tensor(counts),
        test_counts=torch.full((len(counts),), per_class),
        description={
            "class_names": list(CLASS_NAMES[: len(counts)]),
            "difficulty": [per_class] * len(counts),
        },
    )


def find_data(folder: Path | None, device: torch.device) -> LongTailedData:
    """CIFAR100-LT from ``folder`` or its usual place; random images if nothing is there.

    Raises:
        UserError: when a folder is named, or the usual one exists, and does not hold CIFAR-100.
    """
    if folder is None and not default_folder().exists():
        return random_data(training_sizes(IMBALANCE), DIFFICULTY_PER_CLASS, device)
    return load_data(resolved(replace(CIFAR100_LT, imbalance=IMBALANCE)), device, folder)


def new_training(data: LongTailedData, method: CifarMethod, precision: Precision) -> Training:
    """A run at its start."""
    config = replace(CIFAR100_LT, imbalance=IMBALANCE, method=method, precision=precision)
    return Training(resolved(config), data, data.train.labels.device)


def new_second_stage(data: LongTailedData, first: Training) -> Training:
    """The second stage (cRT, class-aware sampling) of a run."""
    recipe = RECIPES["cifar100-lt-crt"]
    assert isinstance(recipe, DecoupledConfig)
    assert isinstance(first.config, CifarConfig)
    config = replace(
        recipe,
        imbalance=IMBALANCE,
        batch_size=first.config.batch_size,
        precision=first.config.precision,
    )
    # Features of the difficulty set are made beforehand and not timed: a few will do.
    data = replace(data, difficulty=some(in_memory(data.difficulty), BATCH))
    return Training(resolved(config), data, first.device, first.model.state_dict())


def in_memory(images: ImageSet) -> LabelledImages:
    """CIFAR-100's images, which always are."""
    assert isinstance(images, LabelledImages)
    return images


def some(images: LabelledImages, number: int) -> LabelledImages:
    """``number`` images, spread over all."""
    places = torch.linspace(0, len(images.labels) - 1, min(number, len(images.labels)))
    return LabelledImages(*images.take(places.long().to(images.labels.device)))


# ---- what is timed


@dataclass(frozen=True)
class Extent:
    """How much is done at a time."""

    steps: int
    """Training steps; fewer than an epoch has."""
    meta_steps: int
    """The same for L2RW and Meta-Weight-Net, whose steps are slow."""
    difficulty_images: int
    """Images of the difficulty set."""
    pil_batches: int
    """Batches of the PIL transforms alone."""


ON_CPU = Extent(steps=4, meta_steps=2, difficulty_images=1000, pil_batches=8)
# 70 of the 77 steps of an epoch at imbalance 100.
ON_CUDA = Extent(steps=70, meta_steps=70, difficulty_images=5000, pil_batches=16)


class StopAfter(StopRequest):
    """Stops an epoch after so many steps."""

    def __init__(self, steps: int) -> None:
        """``steps``: at least 1."""
        super().__init__()
        self._left = steps

    def requested(self) -> bool:
        """Asked before every step."""
        self._left -= 1
        return self._left < 0


def step_seconds(training: Training, steps: int) -> float:
    """Seconds per step over ``steps`` whole batches of one epoch, all a run does in them."""
    assert steps < training.method.sampler.num_samples / training.config.batch_size
    while True:
        complete = False

        def run() -> None:
            nonlocal complete
            complete = training.run_epoch(StopAfter(steps))

        taken = seconds(run, training.device)
        if not complete:
            return taken / steps
        # The epoch ended first, with a smaller batch: again, in the next one.
        training.end_epoch()


def epoch_seconds(training: Training) -> float:
    """Seconds of a whole epoch, difficulty pass and all."""

    def epoch() -> None:
        training.run_epoch(StopRequest())
        training.end_epoch()

    return seconds(epoch, training.device)


def loop_jobs(
    data: LongTailedData, runs: dict[str, Training], workers: list[int], extent: Extent
) -> dict[str, Job]:
    """Seconds per step of the plain loops and of ``runs``."""
    jobs: dict[str, Job] = {
        f"plain {n}": plain_loop(in_memory(data.train), data.num_classes, n, extent.steps)
        for n in workers
    }
    for name, training in runs.items():
        steps = extent.meta_steps if training.method.whole_batch else extent.steps
        jobs[name] = partial(step_seconds, training, steps)
    return jobs


def augmentation_jobs(data: LongTailedData, pil_batches: int) -> dict[str, Job]:
    """Seconds per image of the augmentation and scaling, of both kinds."""
    device = data.train.labels.device
    train = in_memory(data.train)
    source, loader = CropsAndFlips(train.images), plain_loader(train, workers=0)
    scaling = PixelScaling(CIFAR100_MEAN, CIFAR100_STD).to(device)
    generator = torch.Generator().manual_seed(0)
    number, pil_batches = len(data.train.labels), min(pil_batches, len(loader))

    def ours() -> None:
        order = torch.randperm(number, generator=generator).to(device)
        draws = source.draw(number, generator).to(device)
        for index, draw in zip(order.split(BATCH), draws.split(BATCH), strict=True):
            scaling(source.take(index, draw))

    def pil() -> None:
        for _ in islice(loader, pil_batches):
            pass

    return {
        "pil": lambda: seconds(pil) / (pil_batches * BATCH),
        "crops": lambda: seconds(ours, device) / number,
    }


def epoch_jobs(data: LongTailedData, runs: dict[str, Training], images: int) -> dict[str, Job]:
    """Seconds of what is done once an epoch: the difficulty pass, and what CDB adds to it."""
    device = data.train.labels.device
    subset = some(in_memory(data.difficulty), images)
    parts = len(data.difficulty.labels) / len(subset.labels)
    accuracy = torch.linspace(0, 1, data.num_classes, dtype=torch.float64)

    def once(training: Training) -> Tensor:
        balancer = training.method.balancer
        if balancer is not None:
            balancer.update(accuracy.to(device))
        training.method.before_epoch(training.epoch)
        return training.method.sampler.draw_for_rank()

    jobs: dict[str, Job] = {
        f"once {name}": partial(seconds, partial(once, runs[name]), device)
        for name in METHODS_OF_EPOCHS
    }
    difficulty_pass = partial(measure, runs["ce"].model, subset, data.num_classes)
    return {"pass": lambda: parts * seconds(difficulty_pass, device)} | jobs


def cuda_jobs(data: LongTailedData, steps: int) -> dict[str, Job]:
    """The step without a CUDA graph, and whole epochs."""
    eager = new_training(data, "ce", "bfloat16")
    eager.step = eager.train_step
    jobs: dict[str, Job] = {"eager": partial(step_seconds, eager, steps)}
    for method in METHODS_OF_EPOCHS:
        jobs[f"epoch {method}"] = partial(epoch_seconds, new_training(data, method, "bfloat16"))
    return jobs


def make_jobs(
    data: LongTailedData, precision: Precision, workers: list[int], extent: Extent
) -> dict[str, Job]:
    """Everything that is timed in turn, by name; what is compared most stands side by side."""
    runs: dict[str, Training] = {}
    if precision != "float32":
        runs["float32"] = new_training(data, "ce", "float32")
    for method in METHODS_OF_STEPS:
        runs[method] = new_training(data, method, precision)
    runs["crt"] = new_second_stage(data, runs["ce"])
    jobs = loop_jobs(data, runs, workers, extent)
    jobs |= augmentation_jobs(data, extent.pil_batches)
    runs["cdb-s"] = new_training(data, "cdb-s", precision)
    jobs |= epoch_jobs(data, runs, extent.difficulty_images)
    if data.train.labels.device.type == "cuda":
        jobs |= cuda_jobs(data, extent.steps)
    return jobs


# ---- several runs at once, and a run from beginning to end


Result = TypeVar("Result")
_barrier: Barrier | None = None


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _epochs_together(make: Callable[[], Training], epochs: int) -> tuple[float, float, int]:
    """Start, end (s) and images of ``epochs`` epochs that begin with those of the other runs."""
    assert _barrier is not None
    torch.set_num_threads(1)
    try:
        training = make()
        epoch_seconds(training)
    except BaseException:
        _barrier.abort()
        raise
    _barrier.wait()
    start = time.monotonic()
    for _ in range(epochs):
        epoch_seconds(training)
    return start, time.monotonic(), epochs * training.method.sampler.num_samples


def images_per_second_together(processes: int, make: Callable[[], Training], epochs: int) -> float:
    """Training images/s of several runs in processes of their own, all together.

    Args:
        processes: at least 1.
        make: called in each process for its run; importable by it.
        epochs: at least 1; one more before them is not counted.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_set_barrier, initargs=(barrier,)
    ) as pool:
        runs = [pool.submit(_epochs_together, make, epochs) for _ in range(processes)]
    starts, ends, images = zip(*results(runs), strict=True)
    return float(sum(images) / (max(ends) - min(starts)))


def results(runs: Sequence[Future[Result]]) -> list[Result]:
    """What the runs returned.

    Raises:
        Exception: a run's own error, rather than that of one that waited for the run that failed.
    """
    errors = [error for run in runs if (error := run.exception())]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, BrokenBarrierError))
    return [run.result() for run in runs]


def shared_training(folder: Path | None, precision: Precision, device: torch.device) -> Training:
    """A run of cross-entropy in a process of its own."""
    return new_training(find_data(folder, device), "ce", precision)


def run_seconds(training: Training, measured: int, epochs: int = EPOCHS) -> float:
    """Seconds of a run of ``epochs`` epochs, from its first step to its last difficulty pass.

    Args:
        training: at its start; its first epoch also records the step on CUDA.
        measured: epochs that are run, at least 2; for the others the median of all but the first
            is taken.
        epochs: of the whole run.
    """
    first, *others = [epoch_seconds(training) for _ in range(measured)]
    return first + sum(others) + (epochs - measured) * statistics.median(others)


# ---- what is printed


def percent_more(above: list[float], below: list[float]) -> list[float]:
    """By how many percent each is above its counterpart."""
    return [100 * (ratio - 1) for ratio in ratios(above, below)]


def show_throughput(times: Times, device: torch.device, precision: Precision) -> None:
    """Images/s of all loops, and ours over the faster plain one."""
    plain = [name for name in times if name.startswith("plain ")]
    best = min(plain, key=lambda name: statistics.median(times[name]))
    for name in plain:
        workers = name.removeprefix("plain ")
        rate = [BATCH / t for t in times[name]]
        show(f"DataLoader loop, float32, {workers} workers", rate, "img/s")
    target = "(target: at least 15)" if device.type == "cuda" else "(target: at least 1.3)"
    ours = {"float32": "float32"} if "float32" in times else {}
    for name, job in (ours | {precision: "ce"}).items():
        show(f"ours, {name}", [BATCH / t for t in times[job]], "img/s")
        gain = ratios(times[best], times[job])
        show(f"ours, {name}, over the faster DataLoader loop", gain, "times", target)


def show_augmentation(times: Times) -> None:
    """Images/s of the augmentation alone."""
    for name, label in (("pil", "PIL transforms"), ("crops", "our augmentation")):
        show(f"{label} alone", [1 / t for t in times[name]], "img/s")
    gain = ratios(times["pil"], times["crops"])
    show("our augmentation over the PIL transforms", gain, "times", "(target: at least 10)")


def epoch_from_parts(times: Times, method: CifarMethod, steps: float) -> list[float]:
    """Seconds of an epoch of ``steps`` steps, each round's put together from its parts."""
    step = times["cdb-w-ce" if method == "cdb-w-ce" else "ce"]
    parts = zip(step, times["pass"], times[f"once {method}"], strict=True)
    return [steps * a + b + c for a, b, c in parts]


def show_epochs(times: Times, steps: float) -> None:
    """What measuring the difficulty costs, and what using it costs."""
    ce = epoch_from_parts(times, "ce", steps)
    show("an epoch of ce, put together from its parts", ce, "s")
    show(f"a run of {EPOCHS} such epochs", [EPOCHS * t / 3600 for t in ce], "h")
    share = [100 * r for r in ratios(times["pass"], ce)]
    show("difficulty pass in it, which every method makes", share, "%")
    for method in METHODS_OF_EPOCHS[1:]:
        once = zip(times[f"once {method}"], times["once ce"], strict=True)
        extra = [1000 * (ours - ce_only) for ours, ce_only in once]
        show(f"once an epoch, {method} over ce: tau, weights, draw", extra, "ms")


def show_cdb(times: Times, steps: float) -> None:
    """Epochs of CDB over those of cross-entropy: measured whole if they were, else from parts."""
    whole = "epoch ce" in times
    for method in METHODS_OF_EPOCHS[1:]:
        ce, cdb = (
            times[f"epoch {name}"] if whole else epoch_from_parts(times, name, steps)
            for name in ("ce", method)
        )
        target = "(target: at most 3)" if whole else "(target on a GPU: at most 3)"
        show(f"an epoch of {method} over one of ce", percent_more(cdb, ce), "%", target)


def show_steps(times: Times, precision: Precision) -> None:
    """Steps over one of cross-entropy."""
    labels = {"l2rw": "L2RW", "meta-weight-net": "Meta-Weight-Net", "crt": "the second stage, cRT,"}
    for name, label in labels.items():
        cost = ratios(times[name], times["ce"])
        show(f"a step of {label} over one of ce, {precision}", cost, "times")
    if "eager" in times:
        gain = ratios(times["eager"], times["ce"])
        show("the step as a CUDA graph over the same step without", gain, "times")


def show_whole_run(make: Callable[[], Training], full: bool) -> None:
    """Seconds of a 200-epoch run."""
    measured = EPOCHS if full else 5
    how = "measured" if full else f"extrapolated from {measured}"
    taken = run_seconds(make(), measured)
    show(f"a run of {EPOCHS} epochs, {how}", [taken], "s", "(target on a GPU: at most 25)")


def show_shared(numbers: list[int], make: Callable[[], Training], epochs: int) -> None:
    """Throughput of several runs at once, each in a process of its own."""
    first = 0.0
    for number in numbers:
        together = images_per_second_together(number, make, epochs)
        first = first or together
        show(f"runs at once: {number}, together", [together], "img/s")
        show(f"runs at once: {number}, over {numbers[0]}", [together / first], "times")


# ---- command line


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Options; ``words`` in place of the command line's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cifar100", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of CIFAR-100; default: its usual place, else random")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--rounds", type=at_least(1), default=7, help="measurements, interleaved")
    add("--steps", type=at_least(1), help="steps in each measurement")
    add("--workers", type=at_least(0), nargs="+", default=[0, 2], help="of the plain loop")
    add("--processes", type=at_least(1), nargs="+", help="runs at once; default on CUDA: 1 2 4")
    add("--full", action="store_true", help="run all 200 epochs (on a CPU: hours)")
    add_out(parser)
    return parser.parse_args(words)


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto``: CUDA if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_extent(device: torch.device, steps: int | None, samples: int) -> Extent:
    """What suits the device, with ``steps`` if given; ``samples``: images of an epoch."""
    extent = ON_CUDA if device.type == "cuda" else ON_CPU
    if steps is None:
        return extent
    most = samples // BATCH - 1
    if steps > most:
        raise UserError(f"--steps {steps} is more than the {most} that fit in an epoch.")
    return replace(extent, steps=steps, meta_steps=steps)


def show_conditions(data: LongTailedData, device: torch.device) -> None:
    """Where and on what it is measured."""
    made = environment(device)
    hardware, versions = made["hardware"], made["versions"]
    where = f"{hardware['cores']} cores of {hardware['processor']}, device {hardware['device']}"
    images = "CIFAR100-LT" if "digest" in data.description else "random images (no CIFAR-100 found)"
    print(f"{where}, torch {versions['torch']}, {hardware['threads']} torch thread")
    print(f"{images}, imbalance {IMBALANCE}, {len(data.train.labels)} images, batches of {BATCH}")
    print("median (smallest .. largest); ratios are taken round by round", flush=True)


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(words)
    torch.set_num_threads(1)
    device = choose_device(options.device)
    cuda = device.type == "cuda"
    precision: Precision = "bfloat16" if cuda or has_bfloat16() else "float32"
    data = find_data(options.data, device)
    samples = len(data.train.labels)
    extent = choose_extent(device, options.steps, samples)
    show_conditions(data, device)
    times = interleaved(make_jobs(data, precision, options.workers, extent), options.rounds)
    show_throughput(times, device, precision)
    show_augmentation(times)
    show_epochs(times, samples / BATCH)
    show_cdb(times, samples / BATCH)
    show_steps(times, precision)
    if cuda or options.full:
        show_whole_run(partial(new_training, data, "ce", precision), options.full)
    if processes := options.processes or ([1, 2, 4] if cuda else []):
        make = partial(shared_training, options.data, precision, device)
        show_shared(processes, make, epochs=10 if cuda else 1)
    write_shown(options.out, "python -m benchmarks.cifar100", options.rounds, device)


if __name__ == "__main__":
    run_main(main)
