"""What each reading of an open point gives, from the group of a data set's readings."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Final

import pandas as pd

from analysis.core import courses
from analysis.grid import Grid
from analysis.records import EPOCHS, Record, imbalance_of
from analysis.summary import summarize
from analysis.words import MISSING, method_name, schedule_name
from common.training.record import NAMED_WITHOUT_EFFECT

# Config fields that have their own column, or that vary from seed to seed.
_NO_READING: Final = frozenset(
    {"method", "seed", "split_seed", "imbalance", "condition", "run", "group", "out"}
)
_NAMES: Final = {
    "architecture": "network",
    "initialisation": "initial weights",
    "input_scaling": "pixels",
    "loss_reduction": "loss divided by",
}
# Of each set the error at the last and at the best epoch.
_ERRORS: Final = {"difficulty_error": "difficulty set", "error": "test"}


def _varying_fields(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Config fields that take more than one value, in the config's order."""
    names = dict.fromkeys(name for config in configs for name in config)
    idle = {name for config in configs for name in NAMED_WITHOUT_EFFECT - config.keys()}

    def varies(name: str) -> bool:
        values = [config.get(name) for config in configs if name in config or name not in idle]
        return any(value != values[0] for value in values)

    return [name for name in names if name not in _NO_READING and varies(name)]


def _mean_tau(record: Record) -> float:
    """Over the epochs of the training; NaN for a run without tau."""
    taus = courses(record).get("tau")
    return fmean(taus) if taus else math.nan


def _cells(runs: pd.DataFrame, condition: str, *, mean_tau: bool) -> list[str]:
    chosen = runs[runs["condition"] == condition]
    taus = [summarize(list(chosen["mean_tau"])).with_n()] if mean_tau else []
    pairs = [[summarize(list(chosen[f"{error}_{epoch}"])) for epoch in EPOCHS] for error in _ERRORS]
    return taus + [f"{last} / {best} ({last.n})" if last.n else MISSING for last, best in pairs]


def readings_group(group: str) -> str:
    """Name of the group with the readings for another group's experiment."""
    return f"{group}-readings"


def readings_grid(
    name: str, dataset: str, published: pd.DataFrame, group: str = "", *, mean_tau: bool = False
) -> Grid:
    """What each reading of an open point gives.

    One row per method and configuration; only the config fields that vary in the group are
    columns. The choice between readings may use the difficulty set's columns only.

    Args:
        name: the block's name.
        dataset: such as ``mnist-lt``.
        published: frame of the committed records.
        group: whose readings, ``<group>-readings``; without one the data set's own.
        mean_tau: show the mean tau over the training as well.
    """
    group = readings_group(group or dataset)
    runs = published[published["group"] == group]
    if mean_tau:
        runs = runs.assign(mean_tau=[_mean_tau(record) for record in runs["record"]])
    fields = _varying_fields(list(runs["config"]))
    conditions = sorted(set(runs["condition"]), key=imbalance_of)
    columns = [*(["mean τ"] if mean_tau else []), *_ERRORS.values()]
    header = ["Method", *(_NAMES.get(field, field.replace("_", " ")) for field in fields)]
    header += [f"{condition}: {kind}" for condition in conditions for kind in columns]
    keys = [
        [method, *map(config.get, fields)]
        for method, config in zip(runs["method"], runs["config"], strict=True)
    ]
    rows = []
    for method, *values in [key for i, key in enumerate(keys) if key not in keys[:i]]:
        same = runs[[key == [method, *values] for key in keys]]
        cells = [cell for c in conditions for cell in _cells(same, c, mean_tau=mean_tau)]
        texts = [MISSING if value is None else str(value) for value in values]
        rows.append((method_name(method), *texts, *cells))
    title = f"Readings of the open points, {schedule_name(group, dataset)}"
    note = _note(runs, mean_tau=mean_tau) if rows else "No run of the readings is recorded yet."
    return Grid(name, title, tuple(header), tuple(rows), note, words=tuple(range(1 + len(fields))))


def _note(runs: pd.DataFrame, *, mean_tau: bool) -> str:
    note = (
        "Error in % at the last epoch / at the best epoch on the difficulty set, per imbalance; "
        "mean ± sample standard deviation (number of seeds)."
    )
    if not mean_tau:
        return note
    epochs = " or ".join(map(str, sorted(set(runs["epochs"]))))
    return f"{note} Mean τ: over all epochs of the training. Runs of {epochs} epochs."
