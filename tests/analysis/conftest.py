import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.training.record import check_record
from video.evaluate import verb_metrics

Record = dict[str, Any]
SHOTS = ("many", "medium", "few")


def _run_name(record: Record) -> str:
    variant = record["variant"].replace("=", "-")
    condition = record["condition"]
    where = f"imbalance-{condition}" if condition.isdigit() else condition
    parts = [record["method"], variant, where, f"seed-{record['seed']}"]
    return "_".join(part for part in parts if part)


def _tau(method: str, variant: str) -> str | None:
    """As a run is recorded: the law or number of a CDB method, None of any other."""
    if "cdb" not in method:
        return None
    return variant.removeprefix("tau=") if variant.startswith("tau=") else "sigmoid"


def _history(epochs: int, error: float) -> dict[str, Any]:
    steps = range(1, epochs + 1)
    last = max(0.0, 1 - 2 * error / 100)
    tail = [last * (1 - math.exp(-e / 8)) for e in steps]
    accuracy = [[1.0 - 0.01 / e, t] for e, t in zip(steps, tail, strict=True)]
    history: dict[str, Any] = {
        "epoch": list(steps),
        "loss": [0.6 * math.exp(-e / 20) + 0.02 for e in steps],
        "class_accuracy": accuracy,
    }
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
        imbalance = int(condition) if condition.isdigit() else None
        settings = {"method": method, "imbalance": imbalance, "epochs": epochs}
        settings |= {"seed": seed, "split_seed": seed, "tau": _tau(method, variant)}
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
            "history": _history(epochs, error),
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


def long_tail(imbalance: float, classes: int = 100, head: int = 450) -> list[int]:
    """n_c = 450 mu^((c-1)/99), as CIFAR100-LT's split."""
    return [int(head * imbalance ** (-c / (classes - 1))) for c in range(classes)]


def shot_of(count: int) -> str:
    """The paper's shot groups (Sec. 4.1.6)."""
    return "many" if count > 100 else "medium" if count > 20 else "few"


def _cifar_evaluation(epoch: int, counts: list[int], accuracy: list[float]) -> dict[str, Any]:
    shots: dict[str, list[float]] = {}
    for count, value in zip(counts, accuracy, strict=True):
        shots.setdefault(shot_of(count), []).append(value)
    mean = sum(accuracy) / len(accuracy)
    return {
        "epoch": epoch,
        "error": 100 * (1 - mean),
        "class_accuracy": accuracy,
        "shot_accuracy": {name: sum(group) / len(group) for name, group in shots.items()},
        "difficulty_set_accuracy": mean,
    }


def _cifar_history(method: str, counts: list[int], accuracy: np.ndarray) -> dict[str, Any]:
    """A course over E epochs; accuracy of shape (E, C) is measured after each epoch."""
    epochs = len(accuracy)
    history: dict[str, Any] = {
        "epoch": list(range(1, epochs + 1)),
        "loss": [4.6 * math.exp(-e / epochs) for e in range(epochs)],
        "learning_rate": [0.1] * epochs,
        "class_accuracy": accuracy.tolist(),
    }
    if method in ("focal", "cdb-w-fl"):
        # More samples stay hard where the class is predicted badly.
        history["hard_instances"] = (np.asarray(counts) * (1 - accuracy) ** 2).round().tolist()
    return history


@pytest.fixture
def make_cifar(make_record) -> Callable[..., Record]:
    """Make up a record on CIFAR100-LT: 100 classes, split seed 0 whatever the training seed.

    ``level`` is the accuracy of the largest class at the end, ``slope`` how fast it falls with the
    class's frequency, ``error`` sets the test error alone.
    """

    def make(
        method: str = "ce",
        variant: str = "",
        condition: str = "100",
        seed: int = 0,
        *,
        group: str = "cifar100-lt",
        epochs: int = 10,
        level: float = 0.8,
        slope: float = 0.4,
        error: float | None = None,
        config: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        counts = long_tail(float(condition))
        generator = np.random.default_rng([seed, len(method)])
        end = level * (np.array(counts) / 450.0) ** slope + generator.normal(0, 0.06, 100)
        growth = 1 - np.exp(-4 * np.arange(1, epochs + 1) / epochs)
        noise = generator.normal(0, 0.01, (epochs, 100))
        accuracy = np.clip(end * growth[:, None] + noise, 0.0, 1.0)
        metrics = {
            name: _cifar_evaluation(epoch, counts, accuracy[epoch - 1].tolist())
            for name, epoch in (("last", epochs), ("best", max(1, epochs - 1)))
        }
        if error is not None:
            metrics["last"]["error"] = metrics["best"]["error"] = error
        settings = {"split_seed": 0, "method": method.split("+")[-1], "weight_decay": 0.0001}
        settings |= {"milestones": [160, 180]} | (config or {})
        classes = {name: [c for c in range(100) if shot_of(counts[c]) == name] for name in SHOTS}
        return make_record(
            method, variant, condition, seed,
            group=group, epochs=epochs, config=settings, dataset="cifar100-lt", metrics=metrics,
            history=_cifar_history(method, counts, accuracy),
            split={
                "class_names": [f"class {c}" for c in range(100)],
                "train": counts, "difficulty": [50] * 100, "test": [100] * 100,
                "imbalance": counts[0] / counts[-1], "digest": f"imbalance {condition}, split 0",
                "shot": classes,
            },
            **fields,
        )  # fmt: skip

    return make


VERBS = (
    "Take", "Put", "Open", "Cut", "Read", "Close", "Wash", "Move Around", "Turn on", "Pour",
    "Operate", "Transfer", "Mix", "Turn off", "Spread", "Squeeze", "Crack", "Divide/Pull",
    "Compress",
)  # fmt: skip
VERB_HEAD = (2, 5, 1, 3, 18)
"""Not in the classes' order: whatever shows head classes first has to sort."""


def verb_split(head: tuple[int, ...] = VERB_HEAD, test: int = 5) -> dict[str, Any]:
    """A long-tailed split of 19 verbs; ``test`` is the smallest class's number of test clips."""
    place = {c: rank for rank, c in enumerate([*head, *(c for c in range(19) if c not in head)])}
    train = [round(400 * 0.8 ** place[c]) for c in range(19)]
    return {
        "class_names": list(VERBS),
        "train": train,
        "difficulty": [max(6, n // 3) for n in train],
        "test": [max(test, n // 3) for n in train],
        "imbalance": max(train) / min(train),
        "digest": "split 1",
        "head": sorted(head),
        "notes": ["The difficulty set is not balanced."],
    }


def _confusion(test: list[int], recall: list[float], seed: int) -> list[list[int]]:
    """Rows true: the share ``recall`` is right, the rest goes to a few other classes."""
    generator = np.random.default_rng(seed)
    matrix = np.zeros((len(test), len(test)), dtype=int)
    for c, (count, share) in enumerate(zip(test, recall, strict=True)):
        matrix[c, c] = right = round(count * share)
        others = generator.choice([o for o in range(len(test)) if o != c], 3, replace=False)
        for other in generator.choice(others, count - right, p=(0.6, 0.3, 0.1)):
            matrix[c, other] += 1
    return matrix.tolist()


@pytest.fixture
def make_verbs(make_record) -> Callable[..., Record]:
    """Make up a record of a video run: 19 verbs on split 1.

    ``head`` and ``tail`` are about the recall of the head and tail classes; ``values`` sets
    measures of both evaluations by hand, in fractions.
    """

    def make(
        method: str = "ce",
        variant: str | None = None,
        seed: int = 0,
        *,
        group: str = "egtea-verbs",
        epochs: int = 6,
        head: float = 0.8,
        tail: float = 0.5,
        values: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        if variant is None:
            variant = "tau=sigmoid" if method.startswith("cdb") else ""
        split = verb_split()
        recall = [head if c in split["head"] else tail for c in range(19)]
        confusion = torch.tensor(_confusion(split["test"], recall, seed))
        hits = int(0.95 * int(confusion.sum()))
        measured = verb_metrics(confusion, hits, split["head"]) | (values or {})
        metrics = {
            name: {"epoch": epoch, "difficulty_set_accuracy": 0.5} | measured
            for name, epoch in (("last", epochs), ("best", max(1, epochs - 1)))
        }
        growth = 1 - np.exp(-4 * np.arange(1, epochs + 1) / epochs)
        history = _cifar_history(method, split["train"], growth[:, None] * np.array([recall]))
        history.pop("hard_instances", None)
        record = make_record(
            method, variant, "split1", seed, group=group, dataset=group.removesuffix("-readings"),
            epochs=epochs, task="video", split=split, metrics=metrics, history=history, **fields,
        )  # fmt: skip
        del record["config"]["imbalance"], record["config"]["split_seed"]
        return record

    return make


def scenes_split(dataset: str = "digit-scenes") -> dict[str, Any]:
    """Six categories, two of each frequency; the counts are images."""
    return {
        "class_names": ["tree", "boat", "cup", "hat", "kite", "bell"],
        "train": [300, 200, 60, 20, 8, 2],
        "difficulty": [20, 20, 15, 8, 2, 0],
        "test": [50, 50, 20, 20, 10, 10],
        "imbalance": 150.0,
        "digest": f"scenes of {dataset}",
        "frequency": "ffccrr",
        "notes": ["Counts are images."],
    }


def average_precisions(**values: float | None) -> dict[str, Any]:
    """One kind of AP as a record has it, in percent; ``AP`` and so on by name."""
    averages = {"AP": 20.0, "AP50": 40.0, "AP75": 18.0, "APr": 5.0, "APc": 20.0, "APf": 30.0}
    return averages | {"category_ap": [32.0, 28.0, 24.0, 16.0, 5.0, None]} | values


def _detection_history(epochs: int, measured: bool) -> dict[str, Any]:
    """AP of six categories in [0, 1]; the last has no difficulty image."""
    rows: list[list[float | None]] = [
        [0.05 * e * share for share in (1.0, 0.9, 0.8, 0.6, 0.2)] + [None]
        for e in range(1, epochs + 1)
    ]
    nothing: list[float | None] = [None] * 6
    history: dict[str, Any] = {
        "epoch": list(range(1, epochs + 1)),
        "loss": [3.0 / e for e in range(1, epochs + 1)],
        "learning_rate": [0.02] * epochs,
        "class_accuracy": rows if measured else [nothing] * epochs,
    }
    return history


@pytest.fixture
def make_detection(make_record) -> Callable[..., Record]:
    """Make up a record of a detection run on ``digit-scenes`` or ``lvis-v0.5``.

    ``bbox`` and ``segm`` set averages of boxes and masks by hand, in percent; ``task`` is box or
    mask. A CDB method measured its difficulty set, the others did not.
    """

    def make(
        method: str = "ce",
        start: str | None = None,
        seed: int = 0,
        *,
        task: str = "box",
        group: str = "digit-scenes",
        epochs: int = 4,
        bbox: dict[str, Any] | None = None,
        segm: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        dataset = group.removesuffix("-readings")
        if start is None:
            first, own = ("coco", "lvis") if dataset == "lvis-v0.5" else ("random", dataset)
            second = method.endswith("-clc") or method in ("simcal", "calib")
            start = f"{own}-ce" if second else first
        condition = {"box": "bbox", "mask": "bbox+segm"}[task]
        last: dict[str, Any] = {"epoch": epochs, "bbox": average_precisions(**(bbox or {}))}
        if task == "mask":
            last["segm"] = average_precisions(**(segm or {}))
        settings = {"task": task, "difficulty": "ap"} | (config or {})
        record = make_record(
            method, f"pretrained={start}", condition, seed, group=group, dataset=dataset,
            epochs=epochs, config=settings, split=scenes_split(dataset), metrics={"last": last},
            history=_detection_history(epochs, measured=method.startswith("cdb")),
            task="detection", **fields,
        )  # fmt: skip
        del record["config"]["imbalance"], record["config"]["split_seed"]
        return record

    return make
