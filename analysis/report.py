"""One HTML page with everything: tables beside the paper's, claims, figures, courses, machines.

    python -m analysis.report

The page stands alone: figures are inside it and nothing is loaded from elsewhere.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis import core, detection, verbs
from analysis.claims import claims_grid, count_verdicts
from analysis.comparison import comparison_grid, tables_of, tables_run
from analysis.figures.__main__ import (
    course_figures,
    numbered_classes,
    paper_figures,
    result_figures,
    shot_figures,
)
from analysis.figures.run_course import first_seeds
from analysis.figures.style import as_data_url, styled
from analysis.grid import Grid
from analysis.metric_tables import beside_paper_grid
from analysis.readings import readings_grid
from analysis.records import (
    RESULTS,
    RUNS,
    Record,
    left_out,
    local_records,
    paper_runs,
    published_records,
    require_folder,
    to_frame,
)
from analysis.reproduction import count_outcomes, reproduction_grid
from analysis.run_pictures import pictures_of
from analysis.shot_tables import SHORT_GROUPS, shots_grid
from analysis.tables import (
    READING_NAMES,
    SHOT_DATASETS,
    apart_makers,
    console,
    counted_groups,
    datasets_run,
    short_makers,
)
from analysis.words import number, off_paper, value_text
from common.errors import describe_os_error, run_main
from common.files import write_atomically
from common.terminal import printable

CAPTIONS = {
    "fig1": "The paper's Fig. 1: class frequency and class accuracy of the CE model.",
    "fig2": "The paper's Fig. 2: weight of a class over its accuracy, for the fixed τ of Table 2.",
    "fig3": "The paper's Fig. 3: the four growth laws of τ over the performance bias, T_M = 5.",
    "fig4": "The paper's Fig. 4: hard instances over the training, focal and CDB-W-CE.",
    "fig5": "The paper's Fig. 5: shot-wise accuracy of focal and CDB-W-CE.",
    "fig6": "The paper's Fig. 6: clips of each EGTEA verb in train + difficulty, head and tail.",
    "confusion": "Which verb is taken for which: rows are the true class; head, then tail.",
    "error_bars": "Table 1: mean and standard deviation of each method's test error.",
    "shots_by_decay": "Accuracy by shot group at the printed weight decay and the authors' code's.",
    "steadiers": "What each law of tau and each steadier gains, on the difficulty set.",
    "swing": "How weights and accuracies change from epoch to epoch, steadied and not.",
    "tau_sweep": "Tables 2 and 3: test error over fixed and dynamic τ.",
}


@dataclass(frozen=True)
class Options:
    """Print the tables that were run here beside the paper's and write the report."""

    runs: Path = RUNS
    """Folder of this machine's runs."""
    results: Path = RESULTS
    """Folder of the published records."""
    out: Path = RUNS / "report"
    """Folder to write index.html into."""


@dataclass(frozen=True)
class Material:
    """All that the report is made from.

    Attributes:
        published: the committed records.
        local: of this machine's runs.
        runs: folder of this machine's runs, where their pictures are.
    """

    published: list[Record]
    local: list[Record]
    runs: Path = RUNS
    published_frame: pd.DataFrame = field(init=False)
    local_frame: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        """Tidy both sets of records once."""
        object.__setattr__(self, "published_frame", to_frame(self.published))
        object.__setattr__(self, "local_frame", to_frame(self.local))

    @property
    def datasets(self) -> list[str]:
        """The datasets with a run beside the paper's."""
        return datasets_run(self.published_frame, self.local_frame)


def comparison_grids(material: Material, tables: Callable[[str], Iterable[int]]) -> list[Grid]:
    """The paper's tables beside the published runs and, when there are any, this machine's.

    Args:
        material: the runs.
        tables: for a dataset, the numbers of the tables wanted.
    """
    local = material.local_frame if material.local else None
    return [
        comparison_grid(f"{d}-table-{table}", table, d, material.published_frame, local)
        for d in material.datasets
        for table in tables(d)
    ]


def local_tables(material: Material) -> list[Grid]:
    """The tables for which this machine has runs; Table 1 if there is none."""

    def tables(dataset: str) -> list[int]:
        return tables_run(dataset, paper_runs(material.local_frame, dataset))

    run = comparison_grids(material, tables)
    run += metric_grids(material, set(material.local_frame["group"]))
    run += apart_grids(("this machine", material.local_frame))
    return run or comparison_grids(material, lambda dataset: tables_of(dataset)[:1])


def _readings(material: Material) -> list[Grid]:
    frame = material.published_frame
    grids = [readings_grid(f"readings-{s}", d, frame) for s, d in READING_NAMES.items()]
    return [grid for grid in grids if grid.rows]


def shot_grids(material: Material) -> list[Grid]:
    """Errors with intervals and shot-wise accuracy of the published runs of the paper's tables."""
    grids = [
        shots_grid(f"{d}-table-{table}-shots", table, d, material.published_frame)
        for d in material.datasets
        for table in (tables_of(d) if d in SHOT_DATASETS else ())
    ]
    return [grid for grid in grids if grid.rows]


def short_grids(*owners: tuple[str, pd.DataFrame]) -> list[Grid]:
    """The tables of the shortened schedules, their claims' tests and readings.

    Args:
        *owners: whose runs, said in the titles, and their frame.
    """
    makers = [
        (owner, make)
        for short in SHORT_GROUPS
        for owner, frame in owners
        for make in short_makers(short, frame).values()
    ]
    return _with_owner(makers)


def _with_owner(makers: Iterable[tuple[str, Callable[[], Grid]]]) -> list[Grid]:
    """The tables that have a row, with the name of whose runs they show in the title."""
    grids = [(owner, make()) for owner, make in makers]
    return [replace(g, title=f"{g.title} ({owner})") for owner, g in grids if g.rows]


def metric_grids(material: Material, groups: Container[str]) -> list[Grid]:
    """Tables 5 to 8 of the groups beside the published runs and, if there are any, this machine's.

    Args:
        material: the runs.
        groups: data sets of the paper whose tables are wanted.
    """
    local = material.local_frame if material.local else None
    return [
        beside_paper_grid(f"{t.dataset}-table-{t.table}", t, material.published_frame, local)
        for t in (*detection.TABLES.values(), *verbs.TABLES.values())
        if t.dataset in groups
    ]


def apart_grids(*owners: tuple[str, pd.DataFrame]) -> list[Grid]:
    """The tables of what we render, with its answers to the claims' questions, and of own images.

    Args:
        *owners: as of :func:`short_grids`.
    """
    return _with_owner(
        (owner, make) for owner, frame in owners for make in apart_makers(frame).values()
    )


def _warnings(material: Material) -> list[str]:
    """Which runs of a group do not stand beside the paper's, and why."""
    sentences = []
    frames = {"Published": material.published_frame, "This machine": material.local_frame}
    for owner, frame in frames.items():
        for dataset, group in counted_groups():
            sentences += [
                f"{owner}: {sentence}; only the most frequent kind counts."
                for sentence in left_out(frame, dataset, group)
            ]
    return sentences


def _apart(name: str) -> str:
    """Says of a figure of a group that is not the paper's experiment that it is not."""
    reason = off_paper(name)
    return f" {reason.capitalize()}: not comparable with the paper." if reason else ""


def _embed(makers: Mapping[str, Callable[[], Figure]]) -> list[dict[str, str]]:
    """Name, caption and data address of each figure."""
    captions = {
        name: text + _apart(name)
        for name in makers
        for key, text in CAPTIONS.items()
        if name.startswith(key)
    }
    return [
        {"name": name, "caption": captions.get(name, name), "url": as_data_url(styled(draw))}
        for name, draw in makers.items()
    ]


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in sorted(values.items()))


def machines_grid(material: Material) -> Grid:
    """Hardware and versions of all runs, with their number and time."""
    seconds: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for owner, records in (("published", material.published), ("this machine", material.local)):
        for record in records:
            where = record["provenance"]
            key = (owner, _flat(where["hardware"]), _flat(where["versions"]))
            seconds[key].append(float(where["seconds"]))
    rows = [
        (*key, str(len(s)), number(sum(s), 0), number(sum(s) / len(s), 1))
        for key, s in seconds.items()
    ]
    header = ("Runs", "Hardware", "Versions", "Number", "Seconds in all", "Seconds a run")
    return Grid("machines", "Machines", header, tuple(rows), words=(0, 1, 2))


def _runs_grid(material: Material) -> Grid:
    """How many runs of what, by group."""
    frame = pd.concat(
        [material.published_frame.assign(owner="published")] * bool(material.published)
        + [material.local_frame.assign(owner="this machine")] * bool(material.local)
        or [material.published_frame.assign(owner="")]
    )
    rows = []
    for (owner, group), runs in frame.groupby(["owner", "group"], sort=False):
        conditions = sorted(set(runs["condition"]), key=lambda text: (len(text), text))
        lists = [list(dict.fromkeys(runs["method"])), conditions]
        lists += [list(map(str, sorted(set(runs[name])))) for name in ("seed", "epochs")]
        rows.append((owner, group, str(len(runs)), *map(", ".join, lists)))
    header = ("Runs", "Group", "Number", "Methods", "Imbalance or split", "Seeds", "Epochs")
    return Grid("runs", "What was run", header, tuple(rows), words=(0, 1, 3, 4, 5, 6))


def context(material: Material) -> dict[str, Any]:
    """Everything the template shows."""
    # Published runs decide the claims; without any, this machine's do.
    from_published = bool(material.published)
    claims = claims_grid(material.published_frame if from_published else material.local_frame)
    reproduction = reproduction_grid(material.local, material.published)
    frames = material.published_frame, material.local_frame
    from_runs, not_drawn = shot_figures(*frames)
    figures = paper_figures() | from_runs | result_figures(*frames)
    courses, datasets = first_seeds(material.local), material.datasets
    pictures, left_out_pictures = pictures_of(material.runs, courses)
    return {
        "published": len(material.published),
        "local": len(material.local),
        "warnings": _warnings(material),
        "runs": _runs_grid(material),
        "tables": comparison_grids(material, tables_of) + metric_grids(material, datasets),
        "shots": shot_grids(material),
        "short": short_grids(("published", frames[0]), ("this machine", frames[1])),
        "demo": apart_grids(("published", frames[0]), ("this machine", frames[1])),
        "readings": _readings(material),
        "claims": claims,
        "claims_from": "the published records" if from_published else "this machine's runs",
        "verdicts": count_verdicts(claims),
        "reproduction": reproduction,
        "outcomes": count_outcomes(reproduction),
        "figures": _embed(figures),
        "not_drawn": not_drawn,
        "courses": _embed(course_figures(courses)),
        "numbered": numbered_classes(courses),
        "pictures": pictures,
        "left_out_pictures": left_out_pictures,
        "machines": machines_grid(material),
    }


def render(material: Material) -> str:
    """The whole page as HTML; the same records give the same page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(context(material))


def write_report(page: str, folder: Path) -> Path:
    """Write ``index.html`` below ``folder``, whole and then renamed.

    Raises:
        UserError: when the folder cannot be written or is full.
    """
    path = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    # A file's name that is no Unicode may have become a class's.
    write_atomically(path, page.encode(errors="replace"))
    return path


def main(options: Options) -> None:
    """Write the page, then print the tables this machine has runs for.

    Raises:
        UserError: for a folder that does not exist or cannot be written, or a damaged record.
    """
    results = require_folder(options.results, RESULTS, "--results")
    runs = require_folder(options.runs, RUNS, "--runs")
    core.start()  # Loads torch while the records are read.
    published, local = published_records(results), local_records(runs)
    material = Material(published, local, options.runs)
    # First what takes long and cannot be made good by scrolling back.
    path = write_report(render(material), options.out)
    screen = console()
    for grid in local_tables(material) + short_grids(("this machine", material.local_frame)):
        screen.print(grid.to_terminal(), "")
    for sentence in _warnings(material):
        print(printable(f"Note: {sentence}"))
    print(f"Report: {path} ({len(local)} runs of this machine, {len(published)} published)")


if __name__ == "__main__":
    run_main(lambda: main(tyro.cli(Options, description=__doc__)))
