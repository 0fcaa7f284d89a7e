"""Cost and memory as data sets grow: python -m benchmarks.scale --out docs/scale.

Measures with synthetic labels what is done for every sample or every class besides the network: the
difficulty pass's counting, the balancer, frequency weights, the samplers, what a checkpoint holds
of an epoch, the split tools. Each at 10,000 to 100 million samples (of 1000 classes) and at 100 to
100,000 classes (of 1 million samples), in a process of its own:

* seconds of one core (processor time, so that what else the machine does counts little), the least
  of two to five calls, of one if that takes 5 s;
* bytes: the peak of the process's memory until the stage's end, less what it held, with the
  inputs, before the first stage.

A number of samples that would need more than ``--memory`` or ``--seconds``, told from the one
before, is left out and said so. The growth exponent is the slope of a line through the last three
sizes (two decades) in logarithms: 1 is linear, and so counts n log n of a sort, 1.05 to 1.1 there.
What grows faster is still linear where it is the processor's caches that end: the cost of a sample
then rises by that of a few reads from main memory and no further. N reads in random order are
measured as a control, and a rise by at most three of them counts as linear.

Writes DIR/scale.json and DIR/scale.png. Shapes: C classes, N samples.
"""

import argparse
import ctypes
import json
import math
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis.figures.style import CYCLE, GREY, MARKERS, panels, save, styled
from benchmarks.timing import at_least
from classification.image_augment import CropFlipColour
from common.balancer import ClassDifficultyBalancer
from common.difficulty import ClassAccuracy, count_per_class
from common.errors import UserError, run_main
from common.files import remove, write_atomically
from common.sampler import (
    ClassAwareSampler,
    ClassProbabilitySampler,
    EpochSampler,
    InstanceBalancedSampler,
    frequency_probabilities,
)
from common.training.folder import save_tensors
from common.training.provenance import environment
from common.weights import class_balanced_weights
from data_prep.image_folder import split_tree
from data_prep.image_list import ImageList, lists_digest, read_image_list
from data_prep.image_tree import ImageTree
from data_prep.lvis import hold_out_images
from detection.samplers import ImageDifficultySampler, RepeatFactorSampler

Result = TypeVar("Result")

SAMPLES: Final = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
CLASSES: Final = (100, 1_000, 10_000, 100_000)
CLASSES_OF_SAMPLES, SAMPLES_OF_CLASSES = 1_000, 1_000_000
LARGEST_EXPONENT: Final = 1.1
FITTED: Final = 3
"""Sizes that the growth exponent is fitted to: the last two decades."""
CONTROL: Final = "control"
MOST_READS: Final = 3.0
IMBALANCE: Final = 100.0
BATCH_SIZE: Final = 512
PAIRS: Final = 3
"""Categories of an image in the samplers of detection."""
_CHUNK: Final = 1 << 16
_IMPORTED: Final = (
    "analysis.figures.style",
    "classification.image_augment",
    "common.balancer",
    "data_prep.image_folder",
    "data_prep.lvis",
    "detection.samplers",
)


# Synthetic data.


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def long_tailed_labels(samples: int, classes: int) -> Tensor:
    """(N,) int64 in random order; n_c falls exponentially to a hundredth, but is at least 1.

    Made piece by piece: the peak of memory stays that of the result.
    """
    shares = IMBALANCE ** -torch.linspace(0, 1, classes, dtype=torch.float64)
    ends, draws = shares.cumsum(0) / shares.sum(), generator()
    labels = torch.empty(samples, dtype=torch.int64)
    for piece in labels.split(_CHUNK):
        numbers = torch.rand(piece.numel(), dtype=torch.float64, generator=draws)
        piece.copy_(torch.searchsorted(ends, numbers).clamp_(max=classes - 1))
    labels[:classes] = torch.arange(classes)
    return labels


def sorted_labels(samples: int, classes: int) -> Tensor:
    """(N,) int64, ascending, as many of each class."""
    return torch.arange(samples) * classes // samples


def paths(samples: int) -> tuple[str, ...]:
    """(N,) as long as ImageNet's."""
    return tuple(f"n{i // 1000:08d}/n{i // 1000:08d}_{i}.JPEG" for i in range(samples))


def category_pairs(images: int, categories: int) -> tuple[Tensor, Tensor]:
    """Image and category of each pair, (P,) each: three long-tailed categories an image."""
    image = torch.arange(images).repeat_interleave(PAIRS)
    return image, long_tailed_labels(images * PAIRS, categories)


# Measuring.


def return_freed_memory() -> None:
    """Let the C library give back at once what is freed, at every size alike.

    Else memory that a small job uses again is not counted, and a large one waits longer for its
    own.
    """
    mmap_threshold = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
    ctypes.CDLL(None).mallopt(mmap_threshold, 1 << 16)


def peak_bytes() -> int:
    """The largest memory of this process so far (Linux tells it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def held_bytes() -> int:
    """The memory of this process now."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


@dataclass
class Watch:
    """Seconds and bytes of the stages of a job, in the order in which they come."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    saved_bytes: int | None = None
    """What the job left in a file."""
    before: int = 0

    def start(self) -> None:
        """The inputs are there: memory counts from here on."""
        self.before = held_bytes()

    def time(self, stage: str, work: Callable[[], Result]) -> Result:
        """Least processor time of up to five calls, one if it takes 5 s; the last result."""
        times: list[float] = []
        while True:
            start = time.process_time()
            result = work()
            times.append(time.process_time() - start)
            # Twice even where it is long: the first call is the one that is given new memory.
            if len(times) == 5 or (sum(times) > 1.0 and len(times) > 1) or sum(times) > 5.0:
                break
            del result  # Two at a time would double the peak.
        self.seconds[stage] = min(times)
        self.bytes[stage] = max(peak_bytes() - self.before, 0)
        return result


Job = Callable[[int, int, Watch], None]
"""Makes inputs for N samples and C classes, starts the watch and passes its stages through it."""


def random_reads(samples: int, classes: int, watch: Watch) -> None:
    """The control: by its definition linear."""
    values = torch.arange(samples)
    places = torch.empty(samples, dtype=torch.int64)
    places.random_(samples, generator=generator())
    watch.start()
    watch.time("read", lambda: values[places])


def difficulty_pass(samples: int, classes: int, watch: Watch) -> None:
    labels = long_tailed_labels(samples, classes)
    predictions = labels.flip(0)
    watch.start()

    def measure() -> Tensor:
        accuracy = ClassAccuracy(classes)
        for start in range(0, samples, BATCH_SIZE):
            batch = slice(start, start + BATCH_SIZE)
            accuracy.add(predictions[batch], labels[batch])
        return accuracy.compute()

    watch.time("pass", measure)


def balancer(samples: int, classes: int, watch: Watch) -> None:
    performance = torch.rand(classes, dtype=torch.float64, generator=generator())
    watch.start()
    balancer = watch.time("set-up", lambda: ClassDifficultyBalancer(classes))
    watch.time("update", lambda: (balancer.update(performance), balancer.probabilities))


def frequency(samples: int, classes: int, watch: Watch) -> None:
    labels = long_tailed_labels(samples, classes)
    watch.start()
    counts = watch.time("count", lambda: count_per_class(labels, classes))
    watch.time("weights", lambda: (class_balanced_weights(counts), frequency_probabilities(counts)))


def _sampler(make: Callable[[Tensor, int], EpochSampler]) -> Job:
    def job(samples: int, classes: int, watch: Watch) -> None:
        labels = long_tailed_labels(samples, classes)
        watch.start()
        sampler = watch.time("set-up", lambda: make(labels, classes))
        watch.time("epoch", sampler.draw)
        watch.saved_bytes = watch.time("save", lambda: written({"sampler": sampler.state_dict()}))

    return job


def instance_balanced(labels: Tensor, classes: int) -> EpochSampler:
    return InstanceBalancedSampler(labels, classes, generator())


def class_probability(labels: Tensor, classes: int) -> EpochSampler:
    """CFS: CDB-S differs from it in where its probabilities are from."""
    sampler = ClassProbabilitySampler(labels, classes, generator())
    sampler.set_class_probabilities(frequency_probabilities(sampler.class_counts))
    return sampler


def class_aware(labels: Tensor, classes: int) -> EpochSampler:
    return ClassAwareSampler(labels, classes, generator())


def written(state: dict[str, Any]) -> int:
    """Write as a checkpoint is written: bytes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        save_tensors(file, state)
        return file.stat().st_size


def checkpoint_order(samples: int, classes: int, watch: Watch) -> None:
    order = torch.randperm(samples, generator=generator())
    watch.start()
    watch.saved_bytes = watch.time("save", lambda: written({"order": order}))


def augmentation(samples: int, classes: int, watch: Watch) -> None:
    change, draws = CropFlipColour(224), generator()
    watch.start()
    changes = watch.time("epoch", lambda: change.draw(samples, draws))
    watch.saved_bytes = watch.time("save", lambda: written({"changes": changes}))


def image_split(samples: int, classes: int, watch: Watch) -> None:
    images = ImageList(paths(samples), sorted_labels(samples, classes))
    tree = ImageTree(tuple(map(str, range(classes))), images, 0)
    watch.start()
    watch.time("split", lambda: split_tree(tree, difficulty=2, test=2, split_seed=0))


def image_list(samples: int, classes: int, watch: Watch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        labels = sorted_labels(samples, classes)
        with file.open("w") as lines:
            for i in range(0, samples, _CHUNK):
                some = labels[i : i + _CHUNK].tolist()
                lines.writelines(
                    f"train/n{label:08d}/n{label:08d}_{i + j}.JPEG {label}\n"
                    for j, label in enumerate(some)
                )
        watch.start()
        images = watch.time("read", lambda: read_image_list(file, classes))
        watch.time("digest", lambda: lists_digest({"train": images}))


def _detection(make: Callable[[Tensor, Tensor, int, int], EpochSampler]) -> Job:
    def job(samples: int, classes: int, watch: Watch) -> None:
        image, category = category_pairs(samples, classes)
        watch.start()
        sampler = watch.time("set-up", lambda: make(image, category, samples, classes))
        watch.time("epoch", sampler.draw)

    return job


def repeat_factor(image: Tensor, category: Tensor, images: int, categories: int) -> EpochSampler:
    return RepeatFactorSampler(image, category, images, generator())


def image_difficulty(image: Tensor, category: Tensor, images: int, categories: int) -> EpochSampler:
    return ImageDifficultySampler(image, category, images, categories, generator())


def detection_split(samples: int, classes: int, watch: Watch) -> None:
    image, category = category_pairs(samples, classes)
    named = np.unique(image.numpy() * classes + category.numpy())
    pairs = named // classes, named % classes
    watch.start()
    watch.time("split", lambda: hold_out_images(pairs, samples, classes, 10, seed=0))


@dataclass(frozen=True)
class Task:
    """A job, how it is called in the figure, and along which axes it is measured."""

    label: str
    job: Job
    axes: tuple[str, ...] = ("samples", "classes")


TASKS: Final = {
    CONTROL: Task("control: N random reads", random_reads, ("samples",)),
    "difficulty": Task("difficulty pass (counting)", difficulty_pass),
    "balancer": Task("balancer", balancer, ("classes",)),
    "frequency": Task("frequency weights", frequency),
    "instance-balanced": Task("instance-balanced sampler", _sampler(instance_balanced)),
    "class-probability": Task("CDB-S, CFS sampler", _sampler(class_probability)),
    "class-aware": Task("class-aware sampler", _sampler(class_aware)),
    "repeat-factor": Task("RFS (detection)", _detection(repeat_factor)),
    "image-difficulty": Task("CDB-S (detection)", _detection(image_difficulty)),
    "order": Task("epoch's order in a checkpoint", checkpoint_order, ("samples",)),
    "augmentation": Task("augmentation's draws", augmentation, ("samples",)),
    "image-split": Task("split of an image folder", image_split),
    "image-list": Task("list of images, read", image_list),
    "detection-split": Task("split of LVIS", detection_split),
}


@dataclass(frozen=True)
class Measurement:
    """One job at one size."""

    task: str
    axis: str
    samples: int
    classes: int
    seconds: dict[str, float]
    """Of each stage."""
    bytes: dict[str, int]
    """Peak until the end of each stage, beside the inputs."""
    saved_bytes: int | None
    process_bytes: int
    """Peak of the whole process, torch and inputs included."""
    base_bytes: int
    """The same after a run at a tiny size."""

    @property
    def size(self) -> int:
        """Samples or classes, whichever grow."""
        return self.samples if self.axis == "samples" else self.classes

    @property
    def peak(self) -> int:
        """Largest of the bytes."""
        return max(self.bytes.values())

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def measure_here(task: str, axis: str, samples: int, classes: int) -> Measurement:
    """Run a job in this process."""
    torch.set_num_threads(1)
    return_freed_memory()
    TASKS[task].job(1000, 50, Watch())  # What is loaded or made at the first call.
    watch, base = Watch(), peak_bytes()
    TASKS[task].job(samples, classes, watch)
    return Measurement(
        task=task,
        axis=axis,
        samples=samples,
        classes=classes,
        seconds=watch.seconds,
        bytes=watch.bytes,
        saved_bytes=watch.saved_bytes,
        process_bytes=peak_bytes(),
        base_bytes=base,
    )


def measure_apart(task: str, axis: str, samples: int, classes: int) -> Measurement:
    """Run a job in a new process, forked from one that has only imported what is measured.

    Raises:
        UserError: the process died.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([*_IMPORTED])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure_here, task, axis, samples, classes).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"The process measuring {task} at {samples} samples and {classes} classes died; "
                "give less --memory."
            ) from error


@dataclass(frozen=True)
class LeftOut:
    """A size that was not measured."""

    task: str
    axis: str
    size: int
    why: str


def too_much(last: Measurement, size: int, memory: float, seconds: float) -> str | None:
    """Why a size cannot be measured, judged by the one before; None: it can."""
    factor, held = size / last.size, last.process_bytes - last.base_bytes
    needed, lasting = (last.base_bytes + held * factor) / 1e9, last.total * factor
    if needed > memory:
        return f"would need about {needed:.0f} GB, {held / last.size:.0f} bytes each with inputs"
    if lasting > seconds:
        return f"would take about {lasting:.0f} s, {last.total / last.size * 1e6:.1f} µs each"
    return None


def measure_axis(
    task: str,
    axis: str,
    sizes: Sequence[int],
    memory: float,
    seconds: float,
    measure: Callable[[str, str, int, int], Measurement] = measure_apart,
) -> tuple[list[Measurement], list[LeftOut]]:
    """A job at growing sizes, until one would be too much."""
    done: list[Measurement] = []
    left_out: list[LeftOut] = []
    for size in sorted(sizes):
        # More classes of as many samples: nothing grows in proportion before it has outgrown these.
        foreseen = bool(done) and axis == "samples"
        why = too_much(done[-1], size, memory, seconds) if foreseen else None
        if why is not None:
            left_out.append(LeftOut(task, axis, size, why))
            continue
        if axis == "samples":
            done.append(measure(task, axis, size, min(CLASSES_OF_SAMPLES, size // 10)))
        else:
            done.append(measure(task, axis, max(SAMPLES_OF_CLASSES, 10 * size), size))
    return done, left_out


# Growth.


def growth_exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Slope of the least-squares line through the last three sizes in logarithms.

    Args:
        sizes: ascending, > 0.
        values: seconds or bytes at them, >= 0.

    Returns:
        1 where values grow in proportion; None for less than two sizes or a value of 0.

    >>> round(growth_exponent([1, 10, 100], [3.0, 300.0, 30_000.0]), 6)
    2.0
    """
    sizes, values = sizes[-FITTED:], values[-FITTED:]
    if len(sizes) < 2 or min(values) <= 0:
        return None
    x, y = ([math.log(value) for value in row] for row in (sizes, values))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)


@dataclass(frozen=True)
class Growth:
    """How a stage of a job grows along an axis."""

    task: str
    axis: str
    stage: str
    seconds: float | None
    """Exponent."""
    bytes: float | None
    """Exponent."""
    reads: float | None
    """By how many random reads the cost of one sample rose over the sizes that were fitted."""


def growth(measurements: Sequence[Measurement]) -> list[Growth]:
    """Of every stage of every job along every axis."""
    rows = []
    read_seconds = {m.size: m.total / m.size for m in measurements if m.task == CONTROL}
    for task, axis in dict.fromkeys((m.task, m.axis) for m in measurements):
        line = [m for m in measurements if (m.task, m.axis) == (task, axis)]
        sizes = [m.size for m in line]
        for stage in line[0].seconds:
            seconds = [m.seconds[stage] for m in line]
            memory = growth_exponent(sizes, [m.bytes[stage] for m in line])
            each = [s / n for s, n in zip(seconds, sizes, strict=True)][-FITTED:]
            read = read_seconds.get(sizes[-1]) if axis == "samples" else None
            reads = (each[-1] - each[0]) / read if read else None
            rows.append(Growth(task, axis, stage, growth_exponent(sizes, seconds), memory, reads))
    return rows


def worse_than_linear(rows: Sequence[Growth]) -> list[str]:
    """A line for each exponent above 1.1, but for what the end of the caches explains."""
    worse = []
    for row in rows:
        cached = row.reads is not None and row.reads <= MOST_READS
        for what, value in (("seconds", row.seconds), ("bytes", row.bytes)):
            if (
                value is not None
                and value > LARGEST_EXPONENT
                and not (what == "seconds" and cached)
            ):
                grows = f"{what} grow with {row.axis} to the power {value:.2f}"
                worse.append(f"{row.task}, {row.stage}: {grows}")
    return worse


# Showing.

_SHOWN: Final[tuple[tuple[str, Callable[[Measurement], float]], ...]] = (
    ("seconds of one core", lambda m: m.total),
    ("bytes, peak", lambda m: m.peak),
)


def draw_growth(measurements: Sequence[Measurement]) -> Figure:
    """Seconds (above) and bytes (below) of each job against samples (left) and classes (right)."""
    figure, axes = panels(2, 2, 10.0, 8.6)
    handles: dict[str, Any] = {}
    for column, axis in enumerate(("samples", "classes")):
        for row, (unit, value) in enumerate(_SHOWN):
            plot = axes[2 * row + column]
            plot.set(xscale="log", yscale="log", xlabel=axis, ylabel=unit)
            for number, (name, task) in enumerate(TASKS.items()):
                line = [m for m in measurements if (m.task, m.axis) == (name, axis)]
                if line:
                    (handles[task.label],) = plot.plot(
                        [m.size for m in line],
                        [value(m) or math.nan for m in line],
                        color=GREY if name == CONTROL else CYCLE[number % len(CYCLE)],
                        marker=MARKERS[number % len(MARKERS)],
                        linestyle=":" if name == CONTROL else "-" if number <= len(CYCLE) else "--",
                        markersize=4.5,
                    )
    axes[0].set_title(f"{CLASSES_OF_SAMPLES:,} classes")
    axes[1].set_title(f"{SAMPLES_OF_CLASSES:,} samples")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def show_growth(rows: Sequence[Growth], measurements: Sequence[Measurement]) -> None:
    """A line for each stage: exponents, and the cost of a sample or class at the largest size."""
    print(f"{'':<36} {'axis':<8} {'largest':>9} {'ns each':>9} {'bytes':>7}   exponents  reads")
    for row in rows:
        last = [m for m in measurements if (m.task, m.axis) == (row.task, row.axis)][-1]
        spent, held = last.seconds[row.stage] / last.size, last.bytes[row.stage] / last.size
        each = f"{spent * 1e9:9.1f} {held:7.1f}"
        numbers = (row.seconds, row.bytes, row.reads)
        told = " ".join("    -" if value is None else f"{value:5.2f}" for value in numbers)
        print(f"{row.task + ', ' + row.stage:<36} {row.axis:<8} {last.size:>9.0e} {each}   {told}")


def as_record(
    command: str, measurements: Sequence[Measurement], left_out: Sequence[LeftOut]
) -> dict[str, Any]:
    """What is written: where it was measured, the numbers, how they grow, what was left out."""
    made = environment(torch.device("cpu"))
    return {
        "command": command,
        "machine": made["hardware"] | {"memory_bytes": machine_memory()},
        "versions": made["versions"],
        "measurements": [asdict(m) for m in measurements],
        "growth": [asdict(row) for row in growth(measurements)],
        "left_out": [asdict(one) for one in left_out],
    }


def machine_memory() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def as_text(record: dict[str, Any]) -> str:
    """JSON with one measurement a line."""
    parts = []
    for name, value in record.items():
        if isinstance(value, list) and value:
            lines = ",\n".join(f"    {json.dumps(one)}" for one in value)
            parts.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
        else:
            parts.append(f"  {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def measure_all(
    options: argparse.Namespace,
) -> tuple[list[Measurement], list[LeftOut]]:
    """Every chosen job along its axes."""
    measurements: list[Measurement] = []
    left_out: list[LeftOut] = []
    sizes = {"samples": options.samples, "classes": options.classes}
    for name in options.tasks:
        for axis in TASKS[name].axes:
            limits = options.memory, options.seconds
            done, others = measure_axis(name, axis, sizes[axis], *limits)
            measurements += done
            left_out += others
            print(f"{name}, {axis}: {', '.join(f'{m.total:.3g} s' for m in done)}", flush=True)
    return measurements, left_out


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__.splitlines()[0])
    for axis, sizes in (("samples", SAMPLES), ("classes", CLASSES)):
        parser.add_argument(
            f"--{axis}", nargs="+", type=at_least(20), default=sizes, metavar="N", help="sizes"
        )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--memory", type=float, default=8.0, help="GB that a process may need")
    parser.add_argument("--seconds", type=float, default=25.0, help="that a job may take")
    parser.add_argument("--out", type=Path, help="folder for scale.json and scale.png")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print, write; 1 if anything grows faster than linear."""
    options = parse(sys.argv[1:])
    measurements, left_out = measure_all(options)
    rows = growth(measurements)
    show_growth(rows, measurements)
    for one in left_out:
        print(f"left out: {one.task}, {one.size:.0e} {one.axis}: {one.why}")
    if options.out is not None:
        command = shlex.join(["python", "-m", "benchmarks.scale", *sys.argv[1:]])
        _, vector = save(styled(lambda: draw_growth(measurements)), options.out, "scale")
        remove(vector)  # The page shows the other.
        text = as_text(as_record(command, measurements, left_out))
        write_atomically(options.out / "scale.json", text.encode())
    worse = worse_than_linear(rows)
    print("\n".join(["worse than linear:", *worse]) if worse else "nothing is worse than linear")
    sys.exit(bool(worse))


if __name__ == "__main__":
    run_main(main)
