"""Draw the paper's figures, our results beside the paper's, and the course of runs.

    python -m analysis.figures --out runs/figures

Each figure is written as PNG and as SVG. One whose runs are not recorded is left out.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis import core, images
from analysis.comparison import tables_of
from analysis.figures import (
    confusion,
    error_bars,
    fig1,
    fig2,
    fig3,
    fig4,
    fig5,
    fig6,
    run_course,
    shots_by_decay,
    steadiers,
    swing,
    tau_sweep,
)
from analysis.figures.experiment import Experiment
from analysis.figures.style import save, styled
from analysis.records import (
    RESULTS,
    RUNS,
    Record,
    group_runs,
    local_records,
    published_records,
    require_folder,
    to_frame,
)
from analysis.shot_tables import SHORT_GROUPS
from analysis.tables import datasets_run
from analysis.verbs import DEMO, EGTEA
from common.errors import UserError, run_main
from common.terminal import printable


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
    only: tuple[str, ...] = ()
    """Names of the figures to draw, without the ending; none given: all."""


def our_series(published: pd.DataFrame, local: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Our runs by the names they have in the figures."""
    return {"ours, published": published, "ours, this machine": local}


def paper_figures() -> dict[str, Callable[[], Figure]]:
    """What draws the paper's figures that need no run, by file name."""
    return {"fig2": fig2.draw, "fig3": fig3.draw, "fig6": fig6.draw}


def result_figures(published: pd.DataFrame, local: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """What draws our results beside the paper's, by file name, for the datasets that were run."""
    ours = our_series(published, local)
    makers: dict[str, Callable[[], Figure]] = {}
    for dataset in datasets_run(published, local):
        if not tables_of(dataset):
            continue
        makers[f"error_bars_{dataset}"] = partial(error_bars.draw, dataset, ours)
        if {2, 3} <= set(tables_of(dataset)):
            makers[f"tau_sweep_{dataset}"] = partial(tau_sweep.draw, dataset, ours)
    if not shots_by_decay.lacks(published):
        makers["shots_by_decay_cifar100-lt"] = partial(shots_by_decay.draw, published)
    if not swing.lacks(published):
        makers["swing_cifar100-lt"] = partial(swing.draw, published)
    if not steadiers.lacks(published):
        makers["steadiers"] = partial(steadiers.draw, published)
    return makers


def _experiments(
    dataset: str, group: str, published: pd.DataFrame, local: pd.DataFrame
) -> list[Experiment]:
    """A group's published runs, then this machine's, where there are any."""
    owners = {"published records": published, "runs of this machine": local}
    found = [
        Experiment(dataset, group, group_runs(frame, dataset, group), owner)
        for owner, frame in owners.items()
    ]
    return [experiment for experiment in found if len(experiment.runs)]


def _groups(dataset: str) -> list[str]:
    return [dataset, *(group for data, group in SHORT_GROUPS.values() if data == dataset)]


_FROM_RUNS = {"fig1": fig1, "fig4": fig4, "fig5": fig5, "confusion": confusion}
_DATASETS = {"fig1": ("cifar100-lt", images.IMAGENET, images.DEMO), "fig4": ("cifar100-lt",),
             "fig5": ("cifar100-lt",), "confusion": (EGTEA, DEMO)}  # fmt: skip


def shot_figures(
    published: pd.DataFrame, local: pd.DataFrame
) -> tuple[dict[str, Callable[[], Figure]], list[str]]:
    """What draws the paper's Figs. 1, 4 and 5 and confusion matrices from our runs, per group.

    Each is drawn from the published runs, without these from this machine's.

    Returns:
        Makers by file name, and a sentence for each figure of a group with runs that is left out.
    """
    makers: dict[str, Callable[[], Figure]] = {}
    sentences = []
    wanted = [(n, d, g) for n, datasets in _DATASETS.items() for d in datasets for g in _groups(d)]
    for name, dataset, group in wanted:
        module = _FROM_RUNS[name]
        experiments = _experiments(dataset, group, published, local)
        reasons = [module.lacks(experiment) for experiment in experiments]
        if "" in reasons:
            makers[f"{name}_{group}"] = partial(module.draw, experiments[reasons.index("")])
        elif reasons:
            sentences.append(f"{name}_{group} is left out: group {group} has {reasons[0]}.")
    return makers, sentences


def course_figures(records: list[Record]) -> dict[str, Callable[[], Figure]]:
    """What draws the course of each run, by ``<group>/<run>``."""
    return {
        f"{record['group']}/{record['run']}": partial(run_course.draw, record) for record in records
    }


def numbered_classes(records: list[Record]) -> dict[str, str]:
    """Which classes a run's course shows as a number, by ``<group>/<run>``; where there are any."""
    said = {f"{r['group']}/{r['run']}": run_course.numbered(r) for r in records}
    return {name: words for name, words in said.items() if words}


def course_files(names: Iterable[str]) -> dict[str, str]:
    """A file's name for the course of each run, by ``<group>/<run>``; no two are the same.

    It is ``course_<group>_<run>``, with what may not stand in a file's name as ``%2F``; where that
    would be the name of several runs, as of ``a_b/c`` and ``a/b_c``, an underscore of the group is
    ``%5F``.
    """
    parts = {name: [quote(part, safe="+=,@") for part in name.split("/", 1)] for name in names}
    files = {name: "_".join(both) for name, both in parts.items()}
    times = Counter(files.values())
    for name, (group, run) in parts.items():
        if times[files[name]] > 1:
            files[name] = f"{group.replace('_', '%5F')}_{run}"
    return {name: f"course_{file}" for name, file in files.items()}


def main(options: Options) -> None:
    """Draw everything into ``options.out``.

    Raises:
        UserError: for a folder that does not exist or cannot be written, a damaged record, or a
            figure that is not there.
    """
    results = require_folder(options.results, RESULTS, "--results")
    runs = require_folder(options.runs, RUNS, "--runs")
    core.start()  # Loads torch while the records are read.
    published, local = published_records(results), local_records(runs)
    courses = local if options.all_seeds else run_course.first_seeds(local)
    frames = to_frame(published), to_frame(local)
    from_runs, sentences = shot_figures(*frames)
    makers = paper_figures() | from_runs | result_figures(*frames)
    drawn = course_figures(courses)
    files = course_files(drawn)
    makers |= {files[name]: draw for name, draw in drawn.items()}
    unknown = [name for name in options.only if name not in makers]
    if unknown:
        raise UserError(f"--only {unknown[0]} is none of the figures: {', '.join(makers)}.")
    for name in options.only or makers:
        draw = makers[name]
        for path in save(styled(draw), options.out, name):
            print(printable(str(path)))
    numbers = numbered_classes(courses).items()
    sentences += [f"Classes by number in {files[name]}: {words}." for name, words in numbers]
    for sentence in sentences:
        print(printable(sentence))


if __name__ == "__main__":
    run_main(lambda: main(tyro.cli(Options, description=__doc__)))
