"""Print the paper's tables beside ours; keep the tables in the Markdown pages current.

    python -m analysis.tables            print every table that has runs
    python -m analysis.tables --write    rewrite the generated blocks of the Markdown pages
    python -m analysis.tables --check    exit code 1 when a block is not current

A block is made from the published records only, never from this machine's runs.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from analysis.blocks import check_pages, write_pages
from analysis.bridge import bridge_grid
from analysis.claims import DEMOS, claims_grid, demo_claims_makers, short_claims_grid
from analysis.comparison import SHORT_NAMES, comparison_grid, tables_of
from analysis.detection import LVIS, lvis_makers, scenes_makers
from analysis.findings import cifar100_findings
from analysis.front_page import front_grid
from analysis.grid import Grid
from analysis.images import FOLDER, folder_groups
from analysis.images import apart_makers as image_makers
from analysis.measured import measured_makers
from analysis.mnist_findings import mnist_findings, readings_findings
from analysis.mnist_recipe import DATASET as MNIST
from analysis.mnist_recipe import PRINTED, recipe_grid, recipe_sentence
from analysis.photo_crops import GROUP as EXAMPLE
from analysis.photo_crops import photo_crops_makers
from analysis.readings import readings_grid
from analysis.records import (
    RESULTS,
    left_out,
    published_records,
    require_folder,
    to_frame,
)
from analysis.scale import growth_sentences, scale_makers
from analysis.shot_tables import SHORT_GROUPS, short_grid, shots_grid
from analysis.steadiers import steadiers_makers
from analysis.steadiers_choice import choice_sentences
from analysis.verbs import demo_makers, one_frame_sentence, verb_makers
from analysis.weight_decay import decay_makers
from common.errors import UserError, run_main

_PLAIN_WIDTH = 150
# A reading is chosen by errors on the difficulty set; detectors have none.
READING_NAMES = {short: dataset for short, dataset in SHORT_NAMES.items() if dataset != LVIS}
# MNIST-LT has two classes: nothing to group.
SHOT_DATASETS = ("cifar100-lt", "imagenet-lt")


@dataclass(frozen=True)
class Options:
    """The paper's tables beside ours, from the published records."""

    results: Path = RESULTS
    """Folder of the published records."""
    root: Path = Path(".")
    """Repository whose Markdown pages are rewritten or checked."""
    write: bool = False
    """Rewrite the generated blocks."""
    check: bool = False
    """Exit with code 1 when a generated block is not current."""


def short_makers(short: str, frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """The tables of a shortened schedule, none with a number of the paper.

    Args:
        short: a name of :data:`analysis.shot_tables.SHORT_GROUPS`.
        frame: runs.
    """
    dataset, group = SHORT_GROUPS[short]
    stages = {short: False, f"{short}-decoupled": True}
    makers: dict[str, Callable[[], Grid]] = {
        name: partial(short_grid, name, dataset, group, frame, second_stage=second)
        for name, second in stages.items()
    }
    name = f"{short}-claims"
    makers[name] = partial(short_claims_grid, name, dataset, group, frame)
    name = f"readings-{short}"
    makers[name] = partial(readings_grid, name, dataset, frame, group, mean_tau=True)
    return makers


def apart_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """The tables of data that is not the paper's: what we render, and one's own images.

    With what is rendered come its answers to the claims' questions.
    """
    tables = scenes_makers(frame) | demo_makers(frame) | image_makers(frame)
    return tables | photo_crops_makers(frame) | demo_claims_makers(frame)


def table_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """For every table's name, what makes it from the published runs."""
    makers: dict[str, Callable[[], Grid]] = {}
    for short, dataset in SHORT_NAMES.items():
        for table in tables_of(dataset):
            name = f"{short}-table-{table}"
            makers[name] = partial(comparison_grid, name, table, dataset, frame)
            if dataset in SHOT_DATASETS:
                shots = f"{name}-shots"
                makers[shots] = partial(shots_grid, shots, table, dataset, frame)
        if short in READING_NAMES:
            name = f"readings-{short}"
            makers[name] = partial(readings_grid, name, dataset, frame)
    for short in SHORT_GROUPS:
        makers |= short_makers(short, frame)
    makers |= decay_makers(frame) | steadiers_makers(frame)
    makers["cifar100-head-500"] = partial(bridge_grid, "cifar100-head-500", frame)
    makers["mnist-recipe"] = partial(recipe_grid, "mnist-recipe", frame)
    makers |= lvis_makers(frame) | verb_makers(frame)
    makers |= apart_makers(frame)
    makers["claims"] = partial(claims_grid, frame)
    return makers


def block_makers(frame: pd.DataFrame) -> dict[str, Callable[[], str]]:
    """For every block's name, what makes its Markdown: the tables, and what is for pages alone."""

    def text(make: Callable[[], Grid]) -> str:
        return make().to_markdown()

    more: dict[str, Callable[[], Grid]] = {"front-page": partial(front_grid, frame)}
    claims = {f"claims-{n}": partial(claims_grid, frame, d) for n, d in SHORT_NAMES.items()}
    for table in tables_of(MNIST):
        name = f"mnist-printed-table-{table}"
        more[name] = partial(comparison_grid, name, table, MNIST, frame, group=PRINTED)
    grids = table_makers(frame) | claims | more | measured_makers() | scale_makers()
    blocks: dict[str, Callable[[], str]] = {n: partial(text, make) for n, make in grids.items()}
    sentences = {
        "cifar100-findings": cifar100_findings,
        "mnist-findings": mnist_findings,
        "mnist-readings-findings": readings_findings,
        "mnist-recipe-sentence": recipe_sentence,
        "motion-digits-one-frame": one_frame_sentence,
        "steadiers-choice": choice_sentences,
    }
    blocks |= {name: partial(make, frame) for name, make in sentences.items()}
    return blocks | {"scale-growth": growth_sentences}


def datasets_run(*frames: pd.DataFrame) -> list[str]:
    """Datasets with at least one run beside the paper's; all of them when there is none.

    Runs on rendered data or on a folder of one's own stand beside nothing, but who has them asks
    for no other table.
    """
    groups = {group for frame in frames for group in frame["group"]}
    run = [dataset for dataset in SHORT_NAMES.values() if dataset in groups]
    apart = groups & set(DEMOS) or any(len(folder_groups(frame)) for frame in frames)
    return run if run or apart else list(SHORT_NAMES.values())


def counted_groups() -> list[tuple[str, str]]:
    """Data set and group of every experiment with tables.

    The paper's, MNIST-LT's at the printed learning rate, the shortened, rendered, and the example
    of one's own images.
    """
    papers = [(dataset, dataset) for dataset in SHORT_NAMES.values()]
    demos = [(demo, demo) for demo in DEMOS]
    return [*papers, (MNIST, PRINTED), *SHORT_GROUPS.values(), *demos, (FOLDER, EXAMPLE)]


def check_settings(frame: pd.DataFrame) -> None:
    """Refuse published runs of mixed lengths, or whose cells mix settings.

    Raises:
        UserError: naming the first such runs, or the cell and the config fields that differ.
    """
    for dataset, group in counted_groups():
        for sentence in left_out(frame, dataset, group):
            raise UserError(
                f"In group {group} {sentence}; publish runs of one setting, or give the others "
                "a group of their own."
            )


def console() -> Console:
    """A console that does not wrap tables at 80 columns when its output goes into a file."""
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


def print_tables(frame: pd.DataFrame) -> None:
    """Print every table of the datasets that were run, the readings and the claims."""
    makers = table_makers(frame)
    run = set(datasets_run(frame))
    hidden = {short for short, dataset in SHORT_NAMES.items() if dataset not in run}
    screen = console()
    for name, make in makers.items():
        if any(name.startswith(f"{short}-table-") for short in hidden):
            continue
        grid = make()
        if grid.rows:
            screen.print(grid.to_terminal(), "")


def _check(root: Path, makers: Mapping[str, Callable[[], str]]) -> None:
    sentences = check_pages(root, makers)
    for sentence in sentences:
        print(sentence)
    if sentences:
        sys.exit(1)
    print("Every generated table is current.")


def main(options: Options) -> None:
    """Print, write or check.

    Raises:
        UserError: for a folder that does not exist, a damaged record, mixed settings or an
            unknown block.
    """
    if options.write and options.check:
        raise UserError("--write and --check exclude each other; give one of them.")
    folder = require_folder(options.results, RESULTS, "--results")
    frame = to_frame(published_records(folder))
    check_settings(frame)
    makers = block_makers(frame)
    if options.check:
        _check(options.root, makers)
    elif options.write:
        for page in write_pages(options.root, makers):
            print(f"{page} rewritten")
    else:
        print_tables(frame)


if __name__ == "__main__":
    run_main(lambda: main(tyro.cli(Options, description=__doc__)))
