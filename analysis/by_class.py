"""Finished runs beside each other, class by class.

Use: ``python -m analysis.by_class runs/mine``: all runs below the folder, of one split, or of
several that every method was trained on; seeds and splits of a method stand together as their mean.

Shapes: C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import tyro
from rich.console import Console

from analysis.grid import Grid
from analysis.records import Record, require_folder
from analysis.words import run_name
from common.errors import UserError, run_main
from common.training.record import config_differences, read_record

Epoch = Literal["last", "best"]
_NOTE: Final = (
    "Accuracy on the test set in %, at the {epoch} epoch{best}; means over {seeds}{splits}. "
    "Classes by their training images."
)
_OF_A_RUN: Final = ("seed", "split_seed", "lists")
"""Settings in which the runs of one column may differ."""
_SHAPE: Final = ("class_names", "train", "difficulty", "test")
"""Of a split, what the splits of one table have in common."""


@dataclass(frozen=True)
class Arguments:
    """Accuracy of each class, for every method that was trained on one split."""

    runs: Annotated[Path, tyro.conf.Positional]
    """Folder of finished runs, such as runs/GROUP."""
    epoch: Epoch = "last"
    """The last, or the best on the difficulty set."""


def _columns(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs of each method, by its name.

    Raises:
        UserError: two of them differ in more than seed and split.
    """
    columns: dict[str, list[Record]] = {}
    for record in records:
        name = run_name(record["method"], record["variant"])
        first, *_ = columns.setdefault(name, [record])
        both = first["config"], record["config"]
        if not set(config_differences(*both)) <= set(_OF_A_RUN):
            raise UserError(
                f"{first['run']} and {record['run']} are of one method and differ in more than the "
                "seed; train each setting with a --group of its own, and name its folder."
            )
        if record is not first:
            columns[name].append(record)
    return columns


def _percent(runs: Sequence[Record], epoch: str) -> np.ndarray:
    """Mean accuracy of each class, (C,), in percent; NaN where a class has no test image."""
    each = [run["metrics"][epoch]["class_accuracy"] for run in runs]
    percent: np.ndarray = 100 * np.array(each, dtype=float).mean(axis=0)
    return percent


def _check_splits(columns: Mapping[str, Sequence[Record]]) -> int:
    """How many splits each method was trained on.

    Raises:
        UserError: their classes have other names or numbers of images, or a method lacks one.
    """
    runs = [run for own in columns.values() for run in own]
    alike = {str([run["split"][name] for name in _SHAPE]) for run in runs}
    if len(alike) > 1:
        raise UserError(
            "the runs are of several splits, which have other classes or numbers of images; name a "
            "folder of runs that belong together (train them with a --group of their own)."
        )
    having = {run["split"]["digest"]: run for run in runs}
    for method, own in columns.items():
        for digest in having.keys() - {run["split"]["digest"] for run in own}:
            raise UserError(
                f"{method} was not trained on the split of {having[digest]['run']}; train it there "
                "too, or name a folder in which each method has the same splits."
            )
    return len(having)


def by_class(records: Sequence[Record], epoch: Epoch) -> Grid:
    """A row a class, the most frequent first, and the mean over the classes; a column a method.

    Args:
        records: of classification, at least one.
        epoch: which weights.

    Raises:
        UserError: the runs are of several splits that do not belong together.
    """
    split, columns = records[0]["split"], _columns(records)
    splits = _check_splits(columns)
    percent = [_percent(runs, epoch) for runs in columns.values()]
    order = sorted(range(len(split["train"])), key=lambda c: -split["train"][c])
    rows = [
        (split["class_names"][c], str(split["train"][c]), *(_shown(p[c]) for p in percent))
        for c in order
    ]
    means = [_shown(float(np.nanmean(p))) for p in percent]
    rows.append(("mean of the classes", str(sum(split["train"])), *means))
    return Grid(
        "by-class",
        f"{len(order)} classes, {len(records)} runs",
        ("Class", "Training images", *columns),
        tuple(rows),
        _NOTE.format(
            epoch=epoch,
            best=" (chosen on the difficulty set)" if epoch == "best" else "",
            seeds=" and ".join(f"{len(runs)} of {name}" for name, runs in columns.items()),
            splits=f", on {splits} splits" if splits > 1 else "",
        ),
    )


def _shown(percent: float) -> str:
    return "–" if np.isnan(percent) else f"{percent:.1f}"


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments, prog="python -m analysis.by_class")
    folder = require_folder(arguments.runs, Path(), "RUNS")
    found = [read_record(path) for path in sorted(folder.glob("**/record.json"))]
    records = [r for r in found if "class_accuracy" in r["metrics"].get("last", {})]
    if not records:
        raise UserError(
            f"{arguments.runs} holds no finished run of a classifier; name a folder such as "
            "runs/GROUP."
        )
    Console().print(by_class(records, arguments.epoch).to_terminal())


if __name__ == "__main__":
    run_main(main)
