import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.record import check_record

Record = dict[str, Any]


def _run_name(record: Record) -> str:
    variant = record["variant"].replace("=", "-")
    parts = [
        record["method"],
        variant,
        f"imbalance-{record['condition']}",
        f"seed-{record['seed']}",
    ]
    return "_".join(part for part in parts if part)


def _history(epochs: int, error: float, method: str) -> dict[str, Any]:
    steps = range(1, epochs + 1)
    tail = [min(1.0, (1 - 2 * error / 100) * (1 - math.exp(-e / 8))) for e in steps]
    accuracy = [[1.0 - 0.01 / e, t] for e, t in zip(steps, tail, strict=True)]
    history: dict[str, Any] = {
        "epoch": list(steps),
        "loss": [0.6 * math.exp(-e / 20) + 0.02 for e in steps],
        "class_accuracy": accuracy,
    }
    if method.startswith("cdb"):
        before = [[0.0, 0.0], *accuracy[:-1]]
        history["difficulty"] = [[1 - a for a in row] for row in before]
        history["bias"] = [max(max(row) / (min(row) + 0.01) - 1, 0.0) for row in before]
        history["tau"] = [5 * (2 / (1 + math.exp(-b)) - 1) for b in history["bias"]]
        history["class_weights"] = [
            [d**t for d in row]
            for row, t in zip(history["difficulty"], history["tau"], strict=True)
        ]
    return history


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Make up a valid record; the keywords are its fields, or ``error``, ``best_error``, ..."""

    def make(
        method: str = "ce",
        variant: str = "",
        condition: str = "99",
        seed: int = 0,
        *,
        error: float = 8.0,
        best_error: float | None = None,
        epochs: int = 4,
        group: str = "mnist-lt",
        difficulty_set_accuracy: float | None = 0.9,
        config: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        best_epoch = max(1, epochs - 1)
        evaluations = {}
        for name, epoch, value in (
            ("last", epochs, error),
            ("best", best_epoch, error if best_error is None else best_error),
        ):
            evaluations[name] = {
                "epoch": epoch,
                "error": value,
                "class_accuracy": [1.0, max(0.0, 1 - 2 * value / 100)],
            }
            if difficulty_set_accuracy is not None:
                evaluations[name]["difficulty_set_accuracy"] = difficulty_set_accuracy
        settings = {"method": method, "imbalance": int(condition), "epochs": epochs}
        settings |= {"seed": seed, "split_seed": seed}
        record: Record = {
            "schema": 1,
            "run": "",
            "group": group,
            "task": "classification",
            "dataset": "mnist-lt",
            "method": method,
            "variant": variant,
            "condition": condition,
            "seed": seed,
            "config": settings | (config or {}),
            "split": {
                "class_names": ["4", "9"],
                "train": [4950, 50],
                "difficulty": [500, 500],
                "test": [800, 800],
                "imbalance": 99.0,
                "digest": f"digest-{seed}",
            },
            "metrics": evaluations,
            "history": _history(epochs, error, method),
            "provenance": {
                "seconds": 60.0,
                "finished": "2025-01-02T03:04:05+00:00",
                "versions": {"python": "3.11.9", "torch": "2.11.0"},
                "hardware": {"cpu": "test CPU", "cores": 2},
            },
        } | fields
        record["run"] = record["run"] or _run_name(record)
        check_record(record, "the factory's record")
        return record

    return make


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Write records as published ones; gives the results folder."""

    def write(*records: Record) -> Path:
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        for record in records:
            path = folder / record["group"] / f"{record['run']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def finish(tmp_path: Path) -> Callable[..., Path]:
    """Write records as this machine's finished runs; gives the runs folder."""

    def write(*records: Record) -> Path:
        folder = tmp_path / "runs"
        folder.mkdir(exist_ok=True)
        for record in records:
            path = folder / record["group"] / record["run"] / "record.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record), encoding="utf-8")
            path.with_name("config.json").write_text("{}", encoding="utf-8")
        return folder

    return write
