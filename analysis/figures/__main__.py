"""Draw the paper's figures, our results beside the paper's, and the course of runs.

    python -m analysis.figures --out runs/figures

Each figure is written as PNG and as SVG.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.comparison import tables_of
from analysis.figures import error_bars, fig2, fig3, run_course, tau_sweep
from analysis.figures.style import save, styled
from analysis.records import (
    RESULTS,
    RUNS,
    Record,
    local_records,
    published_records,
    require_folder,
    to_frame,
)
from analysis.tables import datasets_run
from common.errors import run_main


@dataclass(frozen=True)
class Options:
    """Draw all figures."""

    out: Path
    """Folder to write into."""
    results: Path = RESULTS
    """Folder of the published records."""
    runs: Path = RUNS
    """Folder of this machine's runs."""
    all_seeds: bool = False
    """Draw the course of every local run, not only of the lowest seed of each configuration."""


def our_series(published: pd.DataFrame, local: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Our runs by the names they have in the figures."""
    return {"ours, published": published, "ours, this machine": local}


def paper_figures() -> dict[str, Callable[[], Figure]]:
    """What draws the paper's own figures, by file name."""
    return {"fig2": fig2.draw, "fig3": fig3.draw}


def result_figures(published: pd.DataFrame, local: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """What draws our results beside the paper's, by file name, for the datasets that were run."""
    ours = our_series(published, local)
    makers: dict[str, Callable[[], Figure]] = {}
    for dataset in datasets_run(published, local):
        makers[f"error_bars_{dataset}"] = partial(error_bars.draw, dataset, ours)
        if {2, 3} <= set(tables_of(dataset)):
            makers[f"tau_sweep_{dataset}"] = partial(tau_sweep.draw, dataset, ours)
    return makers


def course_figures(records: list[Record]) -> dict[str, Callable[[], Figure]]:
    """What draws the course of each run, by file name."""
    return {
        f"course_{record['group']}_{record['run']}": partial(run_course.draw, record)
        for record in records
    }


def main(options: Options) -> None:
    """Draw everything into ``options.out``.

    Raises:
        UserError: for a folder that does not exist or cannot be written, or a damaged record.
    """
    published = published_records(require_folder(options.results, RESULTS, "--results"))
    local = local_records(require_folder(options.runs, RUNS, "--runs"))
    courses = local if options.all_seeds else run_course.first_seeds(local)
    makers = paper_figures() | result_figures(to_frame(published), to_frame(local))
    for name, draw in (makers | course_figures(courses)).items():
        for path in save(styled(draw), options.out, name):
            print(path)


if __name__ == "__main__":
    run_main(lambda: main(tyro.cli(Options, description=__doc__)))
