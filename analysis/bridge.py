"""CIFAR100-LT with 500 images at the head: our runs beside the numbers that others report for it.

Its split is that of nearly all papers but ours (``--head-size 500``), so that these rows, and no
others here, may be compared with theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis.grid import Grid
from analysis.summary import summarize
from analysis.words import MISSING, method_name, number, scientific

GROUP: Final = "cifar100-lt-head-500"
_SCHEDULE: Final = {"imbalance": 100, "epochs": 200, "augmentation": "crop-flip"}


@dataclass(frozen=True)
class Report:
    """What a paper or a repository reports for ResNet-32 at imbalance 100, crops and mirroring.

    Attributes:
        method: as ``--method`` names it.
        accuracy: of the test set in %, last epoch.
        decay: the weight decay; None where the source names none.
        source: who reports it.
    """

    method: str
    accuracy: float
    decay: float | None
    source: str


REPORTS: Final = (
    Report("ce", 38.3, 2e-4, "Cao et al. 2019, as Zhang et al. 2021 (Bag of tricks) list it"),
    Report("ce", 39.9, None, "README of Menon et al. 2021's code"),
    Report("ldam-drw", 42.0, 2e-4, "Cao et al. 2019; the paper's Table 1 has 57.96 % error"),
    Report("balanced-softmax", 43.2, 2e-4, "Zhang et al. 2021's code, trick_gallery.md"),
    Report("logit-adjustment", 44.1, None, "README of Menon et al. 2021's code"),
    Report("logit-adjustment-post-hoc", 44.1, None, "README of Menon et al. 2021's code"),
    Report("tau-normalisation", 41.6, 2e-4, "Zhang et al. 2021's code, trick_gallery.md"),
    Report("mixup", 39.9, 2e-4, "Zhang et al. 2021's code, trick_gallery.md"),
)
"""Looked up in the sources named; a method's numbers that could not be found there are left out."""

Row = tuple[str, ...]


def bridge_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of the group at the schedule that others have, with a column ``decay``."""
    runs = frame[frame["group"] == GROUP]
    usual = [
        all(config.get(name, value) == value for name, value in _SCHEDULE.items())
        for config in runs["config"]
    ]
    runs = runs[pd.Series(usual, runs.index, dtype=bool)]
    return runs.assign(decay=[float(config["weight_decay"]) for config in runs["config"]])


def _rows_of(method: str, runs: pd.DataFrame, reports: Sequence[Report]) -> list[Row]:
    """A method's rows: what is reported, beside ours at the same decay; then ours at others."""
    ours: dict[float | None, str] = {
        float(decay): summarize([100.0 - error for error in same["error_last"]]).with_n()
        for decay, same in runs.groupby("decay", sort=True)
    }
    rows = [
        (report.decay, ours.pop(report.decay, MISSING), number(report.accuracy, 1), report.source)
        for report in reports
    ]
    rows += [(decay, accuracy, MISSING, "") for decay, accuracy in ours.items()]
    return [
        (method_name(method), MISSING if decay is None else scientific(decay), *rest)
        for decay, *rest in rows
    ]


def bridge_grid(name: str, frame: pd.DataFrame) -> Grid:
    """Ours and others' accuracies, a row for each source and each other decay of ours.

    Args:
        name: the block's name.
        frame: runs.
    """
    runs = bridge_runs(frame)
    methods = dict.fromkeys([*(report.method for report in REPORTS), *runs["method"]])
    rows = [
        row
        for method in methods
        for row in _rows_of(
            method, runs[runs["method"] == method], [r for r in REPORTS if r.method == method]
        )
    ]
    note = (
        "Accuracy in % of the test set at the last epoch of 200, ResNet-32, imbalance 100, crops "
        "and mirroring; ours: mean ± sample standard deviation (number of seeds)."
    )
    if runs.empty:
        note += " No run of ours is recorded yet: these are the numbers to hold one against."
    header = ("Method", "Decay", "Ours", "Reported", "By")
    return Grid(name, "500 images at the head", header, tuple(rows), note, words=(0, 4))
