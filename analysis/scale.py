"""What classes and samples cost: the tables of docs/scale.md, from docs/scale/scale.json.

The file is written by ``python -m benchmarks.scale``.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from analysis.grid import Grid
from analysis.words import MISSING, number

RECORDED: Final = Path(__file__).parents[1] / "docs" / "scale" / "scale.json"
MILLION: Final = 1_000_000
LARGEST_EXPONENT: Final = 1.1
"""Above it a row is marked: more than linear, were it not for the end of the caches."""


@dataclass(frozen=True)
class Work:
    """A row: what is done, how often, and where its numbers stand in the file."""

    what: str
    often: str
    task: str
    stage: str


SAMPLES: Final = (
    Work("Difficulty pass, counting (batches of 512)", "epoch", "difficulty", "pass"),
    Work("Frequency weights", "run", "frequency", "count"),
    Work("Instance-balanced sampler, set-up", "run", "instance-balanced", "set-up"),
    Work("– an epoch", "epoch", "instance-balanced", "epoch"),
    Work("CDB-S, CFS, set-up", "run", "class-probability", "set-up"),
    Work("– an epoch", "epoch", "class-probability", "epoch"),
    Work("Class-aware sampler, set-up", "run", "class-aware", "set-up"),
    Work("– an epoch", "epoch", "class-aware", "epoch"),
    Work("– its state, saved", "checkpoint", "class-aware", "save"),
    Work("RFS, set-up (3 categories an image)", "run", "repeat-factor", "set-up"),
    Work("– an epoch", "epoch", "repeat-factor", "epoch"),
    Work("CDB-S on images of several categories, set-up", "run", "image-difficulty", "set-up"),
    Work("– an epoch", "epoch", "image-difficulty", "epoch"),
    Work("The epoch's order in a checkpoint", "checkpoint", "order", "save"),
    Work("Crops and colours of an epoch, drawn (ImageNet-LT)", "epoch", "augmentation", "epoch"),
    Work("– saved", "checkpoint", "augmentation", "save"),
    Work("Split of an image folder", "once", "image-split", "split"),
    Work("A list of images, read and checked", "run", "image-list", "read"),
    Work("– its digest", "run", "image-list", "digest"),
    Work("Split of LVIS (3 categories an image)", "once", "detection-split", "split"),
)
CLASSES: Final = (
    Work("Balancer: update and probabilities", "epoch", "balancer", "update"),
    Work("Difficulty pass, counting", "epoch", "difficulty", "pass"),
    Work("CDB-S, CFS: an epoch", "epoch", "class-probability", "epoch"),
    Work("Class-aware: an epoch", "epoch", "class-aware", "epoch"),
    Work("Class-aware: its state saved", "checkpoint", "class-aware", "save"),
    Work("Split of an image folder", "once", "image-split", "split"),
)


_PATH_BYTES: Final = 100
"""Of a path of 35 letters (a Python string takes 49 bytes more), its place and its label (16)."""
_SAMPLER_BYTES: Final = 16
"""Two numbers of 8 bytes: the samples by class, and the epoch's order."""
_RANKS: Final = 8
_SIZES: Final = {"1.28 million (ImageNet)": 1_281_167, "10 million": 10**7, "100 million": 10**8}


def short(value: float) -> str:
    """Two digits, from 100 on whole: ``0.020``, ``2.1``, ``17``, ``379``."""
    return f"{value:#.2g}".rstrip(".") if 0 < value < 99.5 else f"{value:,.0f}"


@dataclass(frozen=True)
class Scale:
    """The recorded measurements."""

    recorded: dict[str, Any]

    @cached_property
    def _lines(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for one in self.recorded["measurements"]:
            lines.setdefault((one["task"], one["axis"]), []).append(one)
        return lines

    def line(self, task: str, axis: str = "samples") -> list[dict[str, Any]]:
        """Measurements of a job along an axis, the largest last."""
        return self._lines[task, axis]

    def at(self, task: str, samples: int) -> dict[str, Any]:
        """Measurement of a job at a number of samples."""
        return next(one for one in self.line(task) if one["samples"] == samples)

    def growth(self, work: Work) -> dict[str, Any]:
        """Exponents of a row of the samples."""
        return next(
            row
            for row in self.recorded["growth"]
            if (row["task"], row["axis"], row["stage"]) == (work.task, "samples", work.stage)
        )

    def bytes_each(self, task: str, stage: str) -> float:
        """Peak bytes a sample at the largest size."""
        last = self.line(task)[-1]
        return float(last["bytes"][stage]) / float(last["samples"])

    def saved_each(self, task: str) -> float:
        """Bytes a sample in a checkpoint."""
        last = self.line(task)[-1]
        return float(last["saved_bytes"]) / float(last["samples"])


def read_scale(path: Path = RECORDED) -> Scale:
    """What ``python -m benchmarks.scale`` wrote."""
    return Scale(json.loads(path.read_text(encoding="utf-8")))


def _cached(growth: dict[str, Any]) -> bool:
    return float(growth["seconds"]) > LARGEST_EXPONENT


def _exponents(growth: dict[str, Any]) -> str:
    memory = MISSING if growth["bytes"] is None else number(growth["bytes"])
    return f"{number(growth['seconds'])}{' *c*' if _cached(growth) else ''}, {memory}"


def samples_grid(name: str) -> Grid:
    """Cost of a sample, by work."""
    scale = read_scale()
    rows = []
    for work in SAMPLES:
        last = scale.line(work.task)[-1]
        at_million = scale.at(work.task, MILLION)["seconds"][work.stage]
        size = f"{last['samples'] // MILLION} million"
        rows.append(
            (
                work.what,
                work.often,
                short(at_million),
                f"{short(last['seconds'][work.stage])} ({size})",
                f"{scale.bytes_each(work.task, work.stage):.0f}",
                _exponents(scale.growth(work)),
            )
        )
    header = (
        "Work", "How often", "Seconds at 1 million", "At the largest", "Bytes a sample (peak)",
        "Exponent: time, memory",
    )  # fmt: skip
    return Grid(name, "Samples", header, tuple(rows), _left_out(scale), words=(0, 1))


def _left_out(scale: Scale) -> str:
    needed = {one["task"]: one["why"].split(",")[0] for one in scale.recorded["left_out"]}
    names = {
        "repeat-factor": "RFS", "image-difficulty": "CDB-S on images",
        "augmentation": "crops and colours", "image-split": "the split of a folder",
        "image-list": "the list of images", "detection-split": "LVIS' split",
    }  # fmt: skip
    sizes = [f"{names[task]} {why.split()[-2]}" for task, why in needed.items()]
    return (
        "Where 10 million is the largest, 100 million would have needed more than the benchmark's "
        f"limit, inputs included, in GB: {', '.join(sizes)}."
    )


def growth_sentences() -> str:
    """How cost and memory grow with the samples."""
    scale = read_scale()
    rows = [scale.growth(work) for work in SAMPLES]
    memory = [row["bytes"] for row in rows if row["bytes"] is not None]
    marked = [row for row in rows if _cached(row)]
    plain = [row["seconds"] for row in rows if not _cached(row)]
    reads = [row["reads"] for row in marked]
    control = scale.line("control")
    small, large = scale.at("control", MILLION), control[-1]
    cost = [1e9 * one["seconds"]["read"] / one["samples"] for one in (small, large)]
    grows = scale.growth(Work("", "", "control", "read"))["seconds"]
    return (
        "Fitted to the last two decades, memory grows with the samples to the power "
        f"{number(min(memory))} to {number(max(memory))}; seconds to {number(min(plain))} to "
        f"{number(max(plain))} but for {len(marked)} rows, marked *c*: from a million samples on "
        "the data outgrow the processor's cache, and a read in random order costs "
        f"{cost[1]:.0f} ns at the largest size instead of {cost[0]:.0f}. The control, N such reads "
        f"and nothing else, grows to the power {number(grows)}; the marked rows rise by "
        f"{number(min(reads), 1)} to {number(max(reads), 1)} of these reads per sample and no "
        "further."
    )


def classes_grid(name: str) -> Grid:
    """Seconds at growing numbers of classes."""
    scale = read_scale()
    lines = {work: scale.line(work.task, "classes") for work in CLASSES}
    sizes = [one["classes"] for one in lines[CLASSES[0]]]
    rows = tuple(
        (work.what, *(short(one["seconds"][work.stage]) for one in line))
        for work, line in lines.items()
    )
    header = ("Seconds of", *(f"{size:,} classes" for size in sizes))
    return Grid(name, "Classes", header, rows)


def node_grid(name: str) -> Grid:
    """What each rank holds of a folder of images with CDB-S."""
    scale = read_scale()
    colours = scale.saved_each("augmentation")
    reading = scale.bytes_each("image-list", "read")
    held = {
        "Paths of about 35 letters and labels": _PATH_BYTES,
        "The sampler: samples by class, the epoch's order": _SAMPLER_BYTES,
        "Crops and colours of the epoch": colours,
        "Together": _PATH_BYTES + _SAMPLER_BYTES + colours,
        "For a moment: reading the list": reading,
        f"{_RANKS} ranks of a node, at the peak": _RANKS * reading,
        "Checkpoint of an epoch under way, besides the model (rank 0)": colours
        + scale.saved_each("order"),
    }
    rows = tuple(
        (what, f"{each:,.0f}", *(f"{short(each * size / 1e9)} GB" for size in _SIZES.values()))
        for what, each in held.items()
    )
    note = (
        "Paths and sampler are computed (a Python string takes 49 bytes more than its letters, its "
        "place and label 16), the others measured; the larger sizes follow in proportion."
    )
    header = ("Held by each rank", "Bytes a sample", *_SIZES)
    return Grid(name, "One node", header, rows, note)


def scale_makers() -> dict[str, Callable[[], Grid]]:
    """What makes each of these tables, by block."""
    grids = {"samples": samples_grid, "classes": classes_grid, "node": node_grid}
    return {f"scale-{name}": partial(grid, f"scale-{name}") for name, grid in grids.items()}
