"""Result records as one tidy table, and the paper's numbers in the same words.

A *frame* is a pandas DataFrame with one row per run and the columns :data:`COLUMNS`. Errors are
percent of the test set; ``difficulty_error_*`` are percent of the difficulty set, from its balanced
accuracy. ``last`` is the last epoch, ``best`` the epoch with the best balanced accuracy on the
difficulty set; ``split`` is the digest of the data split. A missing value is NaN.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pandas as pd

from common.errors import UserError
from common.record import read_record, read_records

Record = dict[str, Any]

PAPER: Final = Path(__file__).parent / "paper"
RESULTS: Final = Path("results")
RUNS: Final = Path("runs")

COLUMNS: Final = (
    "group", "run", "dataset", "method", "variant", "condition", "seed", "epochs",
    "error_last", "error_best", "epoch_best",
    "difficulty_error_last", "difficulty_error_best", "seconds", "split", "config",
)  # fmt: skip
CELL: Final = ["method", "variant", "condition"]


def require_folder(folder: Path, default: Path, option: str) -> Path:
    """Give ``folder`` back; only the default one may be absent (then nothing was run yet).

    Raises:
        UserError: when a folder named on the command line does not exist.
    """
    if folder != default and not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give {option} a folder that exists.")
    return folder


def published_records(folder: Path) -> list[Record]:
    """Read the committed records of ``folder``; an absent folder holds none.

    Raises:
        UserError: for a damaged record.
    """
    return read_records(folder)


def local_records(folder: Path) -> list[Record]:
    """Read ``record.json`` of every finished run ``folder/<group>/<run>/``.

    Raises:
        UserError: for a damaged record.
    """
    records = [read_record(path) for path in sorted(folder.glob("*/*/record.json"))]
    return sorted(records, key=lambda record: (record["group"], record["run"]))


def _difficulty_error(evaluation: dict[str, Any]) -> float:
    accuracy = evaluation.get("difficulty_set_accuracy")
    return math.nan if accuracy is None else 100.0 * (1.0 - float(accuracy))


def _row(record: Record) -> dict[str, Any]:
    last, best = record["metrics"]["last"], record["metrics"]["best"]
    named = ("group", "run", "dataset", "method", "variant", "condition", "seed", "config")
    return {name: record[name] for name in named} | {
        "epochs": len(record["history"]["epoch"]),
        "error_last": last["error"],
        "error_best": best["error"],
        "epoch_best": best["epoch"],
        "difficulty_error_last": _difficulty_error(last),
        "difficulty_error_best": _difficulty_error(best),
        "seconds": record["provenance"]["seconds"],
        "split": record["split"]["digest"],
    }


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run, columns :data:`COLUMNS`, in the order of ``records``."""
    return pd.DataFrame([_row(record) for record in records], columns=list(COLUMNS))


def _group_runs(frame: pd.DataFrame, dataset: str) -> tuple[pd.DataFrame, int]:
    """The runs of the group named like the dataset, and how many epochs most of them have."""
    rows = frame[(frame["group"] == dataset) & (frame["dataset"] == dataset)]
    counts = Counter(rows["epochs"])
    return rows, max(counts, key=lambda epochs: (counts[epochs], epochs), default=0)


def experiment_runs(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Keep the runs of the paper's experiment on ``dataset``.

    These are the runs of the group named like the dataset (other groups hold other settings) that
    have as many epochs as most there, of equally frequent numbers the larger: a shortened trial run
    is not the experiment. :func:`left_out` names the others.
    """
    rows, epochs = _group_runs(frame, dataset)
    return rows[rows["epochs"] == epochs]


def _other_schedules(frame: pd.DataFrame, dataset: str) -> list[str]:
    rows, usual = _group_runs(frame, dataset)
    sentences = []
    for epochs, runs in rows[rows["epochs"] != usual].groupby("epochs"):
        names = ", ".join(runs["run"].iloc[:3]) + (", ..." if len(runs) > 3 else "")
        verb = "has" if len(runs) == 1 else "have"
        sentences.append(f"{names} {verb} {epochs} epochs, where most runs have {usual}")
    return sentences


def left_out(frame: pd.DataFrame, dataset: str) -> list[str]:
    """One sentence per reason why runs of the dataset's group do not stand beside the paper's."""
    return _other_schedules(frame, dataset) + mixed_settings(experiment_runs(frame, dataset))


def paper_runs(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Keep the runs that stand beside the paper's numbers: of each cell those of one setting.

    A mean over different settings means nothing, so where a cell has several
    (:func:`mixed_settings` names them) the one with the most runs is taken.

    Raises:
        UserError: when two such runs have the same method, variant, condition and seed.
    """
    rows = experiment_runs(frame, dataset)
    keys = rows.assign(setting=rows["config"].map(_setting_text))[[*CELL, "setting"]]
    chosen: set[tuple[str, ...]] = set()
    for cell, runs in keys.groupby(CELL, sort=False):
        chosen.add((*cell, Counter(runs["setting"]).most_common(1)[0][0]))
    taken = [key in chosen for key in keys.itertuples(index=False, name=None)]
    rows = rows[pd.Series(taken, index=rows.index, dtype=bool)]
    twice = rows[rows.duplicated([*CELL, "seed"], keep=False)]
    if not twice.empty:
        raise UserError(
            f"The runs {' and '.join(twice['run'].iloc[:2])} of group {dataset} are the same "
            "method, variant, condition and seed; remove one of the two records."
        )
    return rows


def _setting(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what varies from run to run of one cell.

    That is the seed, and the split's seed where it follows the seed; a split of its own is another
    setting.
    """
    usual = {"seed": config.get("seed"), "split_seed": config.get("seed")}
    return {k: v for k, v in config.items() if k not in usual or v != usual[k]}


def _setting_text(config: dict[str, Any]) -> str:
    return json.dumps(_setting(config), sort_keys=True, default=str)


def config_differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of the fields in which two runs' configs differ, sorted."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if first.get(name) != second.get(name)]


def mixed_settings(rows: pd.DataFrame) -> list[str]:
    """One sentence per cell of ``rows`` whose runs differ in more than the seed.

    Args:
        rows: of :func:`experiment_runs`.
    """
    sentences = []
    for cell, runs in rows.groupby(CELL, sort=False):
        first, *others = map(_setting, runs["config"])
        odd = [setting for setting in others if setting != first]
        if odd:
            fields = ", ".join(config_differences(first, odd[0]))
            name = " ".join(part for part in cell if part)
            sentences.append(f"the runs of {name} differ in {fields}")
    return sentences


@cache
def paper_table() -> pd.DataFrame:
    """Read every number of the paper's Tables 1-8, once; not to be changed in place.

    Columns table (int), method, variant, dataset, condition, metric, note (text), value and std
    (float, NaN where the paper gives none).
    """
    text = ["method", "variant", "dataset", "condition", "metric", "note"]
    frame = pd.read_csv(
        PAPER / "tables.csv", dtype=dict.fromkeys(text, "str"), keep_default_na=False,
        na_values={"value": [""], "std": [""]},
    )  # fmt: skip
    return frame


def paper_claims() -> pd.DataFrame:
    """Read the paper's claims as text: columns id, table_or_figure, dataset, claim, test."""
    return pd.read_csv(PAPER / "claims.csv", dtype="str", keep_default_na=False)
