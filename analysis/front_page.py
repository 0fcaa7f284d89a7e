"""The one table of the front page: what was run beside what the paper has, and what is not so."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis.comparison import Cell
from analysis.findings import ACCV, CE, CODE, CONDITION, PRINTED
from analysis.grid import Grid
from analysis.measured import measured_value
from analysis.records import CELL, paper_runs, paper_table
from analysis.shot_tables import cost_of
from analysis.summary import summarize
from analysis.weight_decay import decay_runs
from analysis.words import MISSING, number, run_name

Runs = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Row:
    """One method on one data set.

    Attributes:
        where: data set, measure and network with its number of parameters.
        method: in words.
        paper: the paper's table, and the cell and metric in it; None: it has no such row.
        runs: ours, of all runs; the mean of their ``error_last`` is shown.
        state: in plain words, with a link.
    """

    where: str
    method: str
    paper: tuple[int, Cell, str] | None
    runs: Runs
    state: str


def _written(dataset: str, cell: Cell) -> Runs:
    """The runs beside the paper's row, of the written recipe."""

    def chosen(frame: pd.DataFrame) -> pd.DataFrame:
        runs = paper_runs(frame, dataset)
        return runs[(runs[CELL] == list(cell)).all(axis=1)]

    return chosen


def _decayed(run: tuple[str, str], decay: float) -> Runs:
    """The runs on CIFAR100-LT that have this weight decay and else depart in nothing."""

    def chosen(frame: pd.DataFrame) -> pd.DataFrame:
        runs = decay_runs(frame, every=True)
        same = (runs[CELL] == [*run, CONDITION]).all(axis=1) & (runs["other"] == "")
        return runs[same & (runs["weight_decay"] == decay)]

    return chosen


_MNIST: Final = "MNIST-LT, imbalance 199; error; LeNet-5 (0.06 M)"
_PRINTED: Final = "CIFAR100-LT, imbalance 100; error; ResNet-32 (0.47 M), weight decay 1e-4"
_CODE: Final = "the same, weight decay 5e-4"
_RATE: Final = "reproduced, at learning rate 0.01, not 0.001: [readings](docs/mnist-readings.md)"
_FALLS: Final = "not reproduced: ends with one answer; [why](docs/mnist-readings.md)"
_NEAR: Final = "near; 450 images at the head, not 500"
_NOT: Final = "not reproduced: [weight decay](docs/cifar100.md)"
_NOT_RUN: Final = "not run; bring the data: "


def _mnist(method: str, variant: str, state: str, *, of_paper: bool = True) -> Row:
    cell = (method, variant, "199")
    theirs = (1, cell, "error") if of_paper else None
    return Row(_MNIST, run_name(method, variant), theirs, _written("mnist-lt", cell), state)


def _cifar(method: str, variant: str, state: str) -> Row:
    cell = (method, variant, CONDITION)
    runs = _decayed((method, variant), PRINTED)
    return Row(_PRINTED, run_name(method, variant), (1, cell, "error"), runs, state)


def _at_code(run: tuple[str, str], paper: Cell | None, state: str, table: int = 1) -> Row:
    theirs = None if paper is None else (table, paper, "error")
    return Row(_CODE, run_name(*run), theirs, _decayed(run, CODE), state)


ROWS: Final = (
    _mnist(*CE, _RATE),
    _mnist("cdb-s", "tau=sigmoid", "above it; at its best epoch not"),
    _mnist("cdb-w-ce", "tau=sigmoid", _FALLS),
    _mnist(
        "cdb-w-ce", "tau=2.0 average=0.9", "ours: accuracies averaged over epochs; near the paper",
        of_paper=False,
    ),
    _cifar(*CE, _NEAR),
    _cifar("ldam-drw", "", _NEAR),
    _cifar("cdb-s", "tau=sigmoid", "not reproduced: [the sampler's unit](docs/cifar100.md)"),
    _cifar("cdb-w-ce", "tau=sigmoid", _NOT),
    _at_code(CE, ("ce", "", CONDITION), "better than the paper's; one seed"),
    _at_code(ACCV, ("cdb-w-ce", "tau=sigmoid", CONDITION), "level with CE; one seed"),
    _at_code(
        ("cdb-w-ce", "tau=1.0 from-epoch=160"), None,
        "ours: weights from the first fall of the rate on; one seed",
    ),
    _at_code(("balanced-softmax", ""), None, "the best of one training; one seed"),
    _at_code(
        ("lws+class-aware", "stage1=ce"), ("lws+class-aware", "stage1=ce", CONDITION),
        "better than Table 4 has it; one seed", 4,
    ),
    Row(
        "ImageNet-LT; error; ResNet-10 (5.4 M)", run_name("cdb-w-ce", "tau=sigmoid"),
        (1, ("cdb-w-ce", "tau=sigmoid", "256"), "error"),
        _written("imagenet-lt", ("cdb-w-ce", "tau=sigmoid", "256")),
        _NOT_RUN + "[page](docs/imagenet-lt.md)",
    ),
    Row(
        "LVIS v0.5; box AP; Faster R-CNN R50-FPN (48 M)", run_name("cdb-w-ce", "pretrained=coco"),
        (5, ("cdb-w-ce", "pretrained=coco", "bbox"), "AP"),
        _written("lvis-v0.5", ("cdb-w-ce", "pretrained=coco", "bbox")),
        _NOT_RUN + "[page](docs/lvis.md)",
    ),
    Row(
        "EGTEA verbs; top-1; 3D-ResNeXt-101 (48 M)", run_name("cdb-w-ce", "tau=sigmoid"),
        (7, ("cdb-w-ce", "tau=sigmoid", "split1"), "top1"),
        _written("egtea-verbs", ("cdb-w-ce", "tau=sigmoid", "split1")),
        _NOT_RUN + "[page](docs/egtea.md)",
    ),
)  # fmt: skip
"""A row without runs of ours has a state that begins with 'not run'."""


def _papers(paper: tuple[int, Cell, str] | None) -> str:
    if paper is None:
        return "not in it"
    table, cell, metric = paper
    rows = paper_table()
    rows = rows[(rows["table"] == table) & (rows["metric"] == metric)]
    rows = rows[(rows[CELL] == list(cell)).all(axis=1)]
    value, std = float(rows["value"].iloc[0]), float(rows["std"].iloc[0])
    return number(value) + ("" if math.isnan(std) else f" ± {number(std)}")


def _cells(row: Row, runs: pd.DataFrame) -> tuple[str, str, str]:
    if runs.empty:
        return MISSING, MISSING, row.state
    _, seconds, hardware = cost_of(runs)
    cost = f"{seconds} s, {hardware}".replace("NVIDIA ", "").replace(" 80GB HBM3", "")
    cost = cost.replace("AMD EPYC, 1 thread", "one EPYC core")
    cost = cost.replace("Intel(R) Xeon(R) Processor, 1 thread", "one Xeon core")
    cost = cost.replace("\n", " or ")
    ours = summarize(list(runs["error_last"])).with_n()
    return ours, cost, row.state


def front_grid(frame: pd.DataFrame) -> Grid:
    """The rows of :data:`ROWS`, the place named once for rows that follow each other."""
    rows: list[tuple[str, ...]] = []
    before = ""
    for row in ROWS:
        where = "" if row.where == before else row.where
        rows.append((where, row.method, _papers(row.paper), *_cells(row, row.runs(frame))))
        before = row.where
    header = ("Data; measure in %; network", "Method", "Paper", "Ours (seeds)", "A run", "State")
    note = (
        "Last epoch, mean ± sample standard deviation (number of seeds); nothing is chosen on a "
        "test set. On the H100 nine runs shared the GPU; alone one of 200 epochs takes "
        f"{measured_value('cifar100_h100', 'a run of 200 epochs')} s."
    )
    return Grid("front-page", "What was run", header, tuple(rows), note, words=(0, 1, 4, 5))
