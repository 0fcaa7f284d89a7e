"""Errors and shot-wise accuracy on images that the paper has not: the rendered ones, one's own.

Nothing here shows a number of the paper: another data set must never stand beside it.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import pandas as pd

from analysis.grid import Grid
from analysis.records import group_runs
from analysis.shot_tables import apart_grid
from analysis.words import dataset_name

IMAGENET: Final = "imagenet-lt"
DEMO: Final = "digit-images"
FOLDER: Final = "image-folder"
"""The data set of any folder with lists; its group unless another one was named."""
FIRST_STAGE: Final = "-stage1"
"""Ends the group of the first stages of OLTR, which are no row of a table."""
_APART: Final = {
    DEMO: "Rendered demo, not ImageNet-LT and not the paper's setting.",
    FOLDER: "A folder of one's own, not the paper's setting.",
}


def apart_title(dataset: str, group: str) -> str:
    """What a group is: ``Rendered demo, digit images``, ``own images, group birds``."""
    if dataset == DEMO:
        return f"Rendered demo, {dataset_name(dataset)}: all methods"
    where = "" if group == dataset else f", group {group}"
    return f"{dataset_name(dataset).capitalize()}{where}: all methods"


def errors_grid(name: str, dataset: str, group: str, frame: pd.DataFrame) -> Grid:
    """Every cell of a group, with its cost.

    Args:
        name: the block's name.
        dataset: :data:`DEMO` or :data:`FOLDER`.
        group: of the runs.
        frame: runs.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    runs = group_runs(frame, dataset, group)
    return apart_grid(name, apart_title(dataset, group), _APART[dataset], runs, IMAGENET)


def folder_groups(frame: pd.DataFrame) -> list[str]:
    """The groups of runs on folders of one's own, sorted; first stages are no results."""
    groups = set(frame.loc[frame["dataset"] == FOLDER, "group"])
    return sorted(group for group in groups if not group.endswith(FIRST_STAGE))


def apart_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes the tables of the rendered demo and of each group on one's own images, by name."""
    groups = {DEMO: DEMO} | dict.fromkeys(folder_groups(frame), FOLDER)
    return {
        group: partial(errors_grid, group, dataset, group, frame)
        for group, dataset in groups.items()
    }
