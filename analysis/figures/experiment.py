"""The runs of one group that Figs. 1, 4 and 5 and the confusion matrices are drawn from."""

from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis.claims.cells import Cells, Run
from analysis.claims.shot_tests import figures_condition
from analysis.figures.style import BLUE, GREEN, ORANGE
from analysis.words import condition_name, dataset_name, off_paper, run_name

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
        return Cells(self.runs, "last", beside_paper=not off_paper(self.group))

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
        """What is shown; where, from how many seeds; what is not the paper's on its own line."""
        cells = [self.cells.records(run, condition) for run in runs]
        counts = sorted({min(map(len, cells)), max(map(len, cells))})
        seeds = "–".join(map(str, counts))
        epochs = max(len(record["history"]["epoch"]) for cell in cells for record in cell)
        where = f"{dataset_name(self.dataset)}, {condition_name(condition)}"
        sample = f"n = {seeds}, {self.owner}"
        reason = off_paper(self.group)
        if not reason:
            return f"{what}\n{where}; {epochs} epochs; {sample}"
        apart = f"{reason}, {epochs} epochs: not comparable with the paper"
        return f"{what}\n{where}; {sample}\n{apart}"
