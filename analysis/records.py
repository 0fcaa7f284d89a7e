"""Result records as one tidy table, and the paper's numbers in the same words.

A *frame* is a pandas DataFrame with one row per run and the columns :data:`COLUMNS`. Errors are
percent of the test set; ``difficulty_error_*`` are percent of the difficulty set, from its balanced
accuracy. ``last`` is the last epoch, ``best`` the epoch with the best balanced accuracy on the
difficulty set; ``split`` is the digest of the data split. ``many_last`` to ``few_best`` are the
accuracies of the shot groups in percent of the test set, ``top1_last`` to ``tail_recall_best`` the
measures of Tables 7 and 8 and ``bbox_AP_last`` to ``segm_APf_best`` those of Tables 5 and 6 in
percent, and ``record`` is the whole record, for what is no single number. A missing value is NaN: a
detector has AP in place of an error, and no best epoch.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

import classification.record  # noqa: F401  (what records of each task hold)
import detection.record  # noqa: F401
import video.record  # noqa: F401
from analysis.words import value_text
from common.errors import UserError
from common.training.record import (
    NAMED_WITHOUT_EFFECT,
    config_differences,
    read_record,
    read_records,
)

Record = dict[str, Any]

PAPER: Final = Path(__file__).parent / "paper"
RESULTS: Final = Path("results")
RUNS: Final = Path("runs")

SHOTS: Final = ("many", "medium", "few")
EPOCHS: Final = ("last", "best")
VERB_METRICS: Final = (
    "top1", "top5", "macro_precision", "macro_recall",
    "head_precision", "head_recall", "tail_precision", "tail_recall",
)  # fmt: skip
"""Of Tables 7 and 8, as the paper's numbers name them; with an epoch a frame's columns."""
AP_METRICS: Final = tuple(
    f"{kind}_{average}" for kind in ("bbox", "segm") for average in ("AP", "APr", "APc", "APf")
)
"""Of Tables 5 and 6: what is compared (boxes or masks) and the average, as a record has them."""
_SHOT_COLUMNS: Final = tuple(f"{shot}_{epoch}" for epoch in EPOCHS for shot in SHOTS)
_VERB_COLUMNS: Final = tuple(f"{metric}_{epoch}" for epoch in EPOCHS for metric in VERB_METRICS)
_AP_COLUMNS: Final = tuple(f"{metric}_{epoch}" for epoch in EPOCHS for metric in AP_METRICS)
COLUMNS: Final = (
    "group", "run", "dataset", "method", "variant", "condition", "seed", "epochs",
    "error_last", "error_best", "epoch_best",
    "difficulty_error_last", "difficulty_error_best", *_SHOT_COLUMNS, *_VERB_COLUMNS,
    *_AP_COLUMNS, "seconds", "hardware", "split", "config", "record",
)  # fmt: skip
_PARTS: Final = ("train", "difficulty", "test")
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


def _measured(record: Record, epoch: str) -> dict[str, Any]:
    """What was measured at an epoch; nothing where the record has no such epoch."""
    measured: dict[str, Any] = record["metrics"].get(epoch, {})
    return measured


def main_measure(record: Record, epoch: str) -> float:
    """The one number to compare runs by: the test error, of a detector the AP of boxes, in percent.

    NaN where the record has none.
    """
    measured = _measured(record, epoch)
    value = measured.get("error", measured.get("bbox", {}).get("AP"))
    return math.nan if value is None else float(value)


def _difficulty_error(evaluation: dict[str, Any]) -> float:
    accuracy = evaluation.get("difficulty_set_accuracy")
    return math.nan if accuracy is None else 100.0 * (1.0 - float(accuracy))


def _shot_percent(record: Record) -> dict[str, float]:
    """Percent by column; a shot group without a class is NaN."""
    return {
        f"{shot}_{epoch}": 100.0
        * _measured(record, epoch).get("shot_accuracy", {}).get(shot, math.nan)
        for epoch in EPOCHS
        for shot in SHOTS
    }


def _verb_percent(record: Record) -> dict[str, float]:
    """Percent by column; NaN where a record of another task has no such value."""
    values: dict[str, float | None] = {}
    for epoch in EPOCHS:
        measured = _measured(record, epoch)
        error = measured.get("error")
        values[f"top1_{epoch}"] = None if error is None else 1.0 - error / 100.0
        values[f"top5_{epoch}"] = measured.get("top5_accuracy")
        for kind in ("precision", "recall"):
            values[f"macro_{kind}_{epoch}"] = measured.get(f"macro_{kind}")
            for part in ("head", "tail"):
                values[f"{part}_{kind}_{epoch}"] = measured.get(part, {}).get(kind)
    return {column: math.nan if v is None else 100.0 * v for column, v in values.items()}


def _ap_percent(record: Record) -> dict[str, float]:
    """Percent by column; NaN where no such category was measured, or the task has no AP."""
    values: dict[str, float] = {}
    for epoch in EPOCHS:
        measured = _measured(record, epoch)
        for metric in AP_METRICS:
            kind, average = metric.split("_")
            value = measured.get(kind, {}).get(average)
            values[f"{metric}_{epoch}"] = math.nan if value is None else float(value)
    return values


def _device(hardware: dict[str, Any]) -> str:
    """The accelerator's name, else the processor's with the threads it was given."""
    device = str(hardware.get("device", "cpu"))
    if device != "cpu":
        return device
    name = str(hardware.get("processor", hardware.get("cpu", "CPU")))
    threads = hardware.get("threads")
    if threads is None:
        return name
    return f"{name}, {value_text(threads)} thread{'s' * (threads != 1)}"


def _row(record: Record) -> dict[str, Any]:
    last, best = (_measured(record, epoch) for epoch in EPOCHS)
    named = ("group", "run", "dataset", "method", "variant", "condition", "seed", "config")
    row = {name: record[name] for name in named}
    # A program that rewrites JSON may make 3.0 of 3.
    row["seed"] = int(record["seed"])
    row |= _shot_percent(record) | _verb_percent(record) | _ap_percent(record)
    return row | {
        "epochs": len(record["history"]["epoch"]),
        "error_last": last.get("error", math.nan),
        "error_best": best.get("error", math.nan),
        "epoch_best": best.get("epoch", math.nan),
        "difficulty_error_last": _difficulty_error(last),
        "difficulty_error_best": _difficulty_error(best),
        "seconds": record["provenance"]["seconds"],
        "hardware": _device(record["provenance"]["hardware"]),
        "split": record["split"]["digest"],
        "record": record,
    }


def as_array(rows: list[list[float | None]]) -> np.ndarray:
    """A record's history per class, shape (epochs, classes), NaN where a class was not measured."""
    return np.array([[math.nan if x is None else x for x in row] for row in rows], dtype=float)


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run, columns :data:`COLUMNS`, in the order of ``records``."""
    return pd.DataFrame([_row(record) for record in records], columns=list(COLUMNS))


def imbalance_of(condition: str) -> tuple[float, str]:
    """Sorts conditions: the imbalance, whatever is no number (a split's name) behind by name."""
    number = condition.replace(".", "", 1).isdigit()
    return (float(condition), "") if number else (math.inf, condition)


def stage_of(method: str) -> str:
    """The second stage of a method, empty for one stage: each stage has its own epochs.

    ``crt`` of ``crt+cdb-s``, ``clc`` of ``bags-clc``; ``simcal``, ``calib`` and ``oltr`` are
    themselves one.
    """
    if method in ("simcal", "calib", "oltr"):
        return method
    if method.endswith("-clc"):
        return "clc"
    return method.partition("+")[0] if "+" in method else ""


def _scheduled_epochs(rows: pd.DataFrame) -> pd.Series:
    """The epochs of each run's schedule, which patience may have ended before."""
    asked = rows["config"].map(lambda config: config["epochs"] if config.get("patience") else None)
    return asked.fillna(rows["epochs"]).astype(int)


def _usual_epochs(rows: pd.DataFrame) -> pd.Series:
    """For each run the epochs of most schedules of its stage, of equal numbers the larger."""
    usual: dict[str, int] = {}
    stages = rows["method"].map(stage_of)
    for stage, epochs in _scheduled_epochs(rows).groupby(stages):
        counts = Counter(epochs)
        usual[stage] = max(counts, key=lambda number: (counts[number], number))
    return stages.map(usual)


def experiment_runs(frame: pd.DataFrame, dataset: str, group: str = "") -> pd.DataFrame:
    """Keep the runs of one experiment on ``dataset``; without a group, of the paper's.

    These are the runs of the group (the paper's is named like the dataset; other groups hold other
    settings) that have as many epochs as most there of the same stage, of equally frequent numbers
    the larger: a shortened trial run is not the experiment. :func:`left_out` names the others.
    """
    rows = frame[(frame["group"] == (group or dataset)) & (frame["dataset"] == dataset)]
    return rows[_scheduled_epochs(rows) == _usual_epochs(rows)]


def _other_schedules(frame: pd.DataFrame, dataset: str, group: str) -> list[str]:
    rows = frame[(frame["group"] == (group or dataset)) & (frame["dataset"] == dataset)]
    rows = rows.assign(usual=_usual_epochs(rows))
    rows = rows.assign(epochs=_scheduled_epochs(rows))
    sentences = []
    for (usual, epochs), runs in rows[rows["epochs"] != rows["usual"]].groupby(["usual", "epochs"]):
        names = ", ".join(runs["run"].iloc[:3]) + (", ..." if len(runs) > 3 else "")
        verb = "has" if len(runs) == 1 else "have"
        sentences.append(f"{names} {verb} {epochs} epochs, where most runs have {usual}")
    return sentences


def left_out(frame: pd.DataFrame, dataset: str, group: str = "") -> list[str]:
    """One sentence per reason why runs of a group (the dataset's own) do not enter its tables."""
    chosen = experiment_runs(frame, dataset, group)
    return _other_schedules(frame, dataset, group) + mixed_settings(chosen)


def group_runs(frame: pd.DataFrame, dataset: str, group: str) -> pd.DataFrame:
    """Keep the runs of a group that are counted: of each cell those of one setting.

    A mean over different settings means nothing, so where a cell has several
    (:func:`mixed_settings` names them) the one with the most runs is taken.

    Raises:
        UserError: when two such runs have the same method, variant, condition and seed.
    """
    rows = experiment_runs(frame, dataset, group)
    taken = pd.Series(False, index=rows.index)
    for _, runs in rows.groupby(CELL, sort=False):
        settings = _settings(runs)
        most = max(settings, key=settings.count)
        taken[runs.index] = [setting == most for setting in settings]
    rows = rows[taken]
    twice = rows[rows.duplicated([*CELL, "seed"], keep=False)]
    if not twice.empty:
        raise UserError(
            f"The runs {' and '.join(twice['run'].iloc[:2])} of group {group} are the same "
            "method, variant, condition and seed; move one of the two records elsewhere."
        )
    return rows


def paper_runs(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Keep the runs that stand beside the paper's numbers, as :func:`group_runs`."""
    return group_runs(frame, dataset, dataset)


def _split_follows_seed(configs: Sequence[dict[str, Any]]) -> bool:
    """Whether a cell draws a new split with each seed, rather than one split for all seeds.

    Seed 0 on split 0 fits both designs, so one run cannot tell: the design that more of the cell's
    runs fit is taken.
    """
    splits = [config.get("split_seed") for config in configs]
    following = sum(c.get("seed") == split for c, split in zip(configs, splits, strict=True))
    return bool(following >= max(Counter(splits).values(), default=0))


def _lists_follow_seed(runs: pd.DataFrame) -> bool:
    """Whether each run of a cell has lists of its own, with as many images of each class."""
    lists = [config.get("lists") for config in runs["config"]]
    if None in lists or len(set(lists)) < len(lists):
        return False
    splits = [record["split"] for record in runs["record"]]
    return all(split[part] == splits[0][part] for split in splits for part in _PARTS)


def _settings(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The config of each run of one cell without what varies from run to run.

    That is the seed, and the split's seed, or one's own lists, where the cell's splits follow the
    seed; a split of its own is another setting. A field that is null is left out: to
    ``config_differences`` it is as good as absent, and what is mixed there must be mixed here. So
    is one that names no effect in some of the cell's records and is not named in the others.
    """
    cell = list(runs["config"])
    idle = {name for config in cell for name in NAMED_WITHOUT_EFFECT - config.keys()}
    follows = _split_follows_seed(cell)
    varied = {"seed", "lists"} if _lists_follow_seed(runs) else {"seed"}
    settings = []
    for config in cell:
        own = varied | idle
        if follows and config.get("split_seed") == config.get("seed"):
            own.add("split_seed")
        told = {name: value for name, value in config.items() if value is not None}
        settings.append({name: value for name, value in told.items() if name not in own})
    return settings


def mixed_settings(rows: pd.DataFrame) -> list[str]:
    """One sentence per cell of ``rows`` whose runs differ in more than the seed.

    Args:
        rows: of :func:`experiment_runs`.
    """
    sentences = []
    for cell, runs in rows.groupby(CELL, sort=False):
        first, *others = _settings(runs)
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
