"""The runs of one schedule that Figs. 1, 4 and 5 are drawn from, and the figures' headings."""

from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis.claims.cells import Cells, Run
from analysis.claims.shots import figures_condition
from analysis.figures.style import BLUE, GREEN, ORANGE
from analysis.words import dataset_name, is_short, run_name

SHOT_COLOURS: Final = {"many": BLUE, "medium": ORANGE, "few": GREEN}


@dataclass(frozen=True)
class Experiment:
    """Runs of one group.

    Attributes:
        dataset: such as ``cifar100-lt``.
        group: such as ``cifar100-lt-short``.
        runs: of the group (:func:`analysis.records.group_runs`).
        owner: whose they are: ``published records`` or ``runs of this machine``.
    """

    dataset: str
    group: str
    runs: pd.DataFrame
    owner: str

    @property
    def cells(self) -> Cells:
        """The runs at their last epoch."""
        return Cells(self.runs, "last", beside_paper=not is_short(self.group))

    @property
    def condition(self) -> str:
        """Imbalance of Figs. 4 and 5."""
        return figures_condition(self.cells)

    def lacks(self, *runs: Run, condition: str) -> str:
        """What has no run under ``condition``, in words; empty when all have one."""
        absent = [run for run in runs if not self.cells.records(run, condition)]
        if not absent:
            return ""
        return f"no run of {' and '.join(run_name(*run) for run in absent)} at {condition}"

    def heading(self, what: str, condition: str, *runs: Run) -> str:
        """What is shown; where and from how many seeds; a short schedule on a line of its own."""
        cells = [self.cells.records(run, condition) for run in runs]
        counts = sorted({min(map(len, cells)), max(map(len, cells))})
        seeds = "–".join(map(str, counts))
        epochs = max(len(record["history"]["epoch"]) for cell in cells for record in cell)
        where = f"{dataset_name(self.dataset)}, imbalance {condition}"
        sample = f"n = {seeds}, {self.owner}"
        if not is_short(self.group):
            return f"{what}\n{where}; {epochs} epochs; {sample}"
        apart = f"short schedule, {epochs} epochs: not comparable with the paper"
        return f"{what}\n{where}; {sample}\n{apart}"
