"""What a result record of each task has to hold, and what it may not."""

import copy
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import classification.record
import detection.record
import video.record
from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from common.training.history import History
from common.training.record import (
    COURSES,
    check_record,
    courses,
    read_record,
)

Record = dict[str, Any]


def _record(task: str, condition: str, metrics: Record, **split: Any) -> Record:
    return {
        "schema": 1,
        "run": "ce",
        "group": "a-group",
        "task": task,
        "dataset": "some-data",
        "method": "ce",
        "variant": "",
        "condition": condition,
        "seed": 0,
        "config": {"seed": 0},
        "split": {
            "class_names": ["a", "b"],
            "train": [20, 5],
            "difficulty": [2, 0],
            "test": [4, 4],
            "imbalance": 4.0,
            "digest": "a digest",
            **split,
        },
        "metrics": metrics,
        "history": {"epoch": [1], "loss": [0.5], "class_accuracy": [[0.5, None]]},
        "provenance": {"seconds": 1.0, "finished": "now", "versions": {}, "hardware": {}},
    }


def _classification(task: str = "classification") -> Record:
    measured = {"epoch": 1, "error": 25.0, "class_accuracy": [1.0, 0.5]}
    return _record(task, "4", {"last": measured, "best": dict(measured)})


def _averages() -> Record:
    return {
        "AP": 12.5, "AP50": 25.0, "AP75": 10.0, "APs": None, "APm": 12.0, "APl": 14.0,
        "APr": None, "APc": 12.5, "APf": 100.0, "category_ap": [12.5, None],
    }  # fmt: skip


def _detection(masks: bool = True) -> Record:
    last: Record = {"epoch": 1, "bbox": _averages()}
    if masks:
        last["segm"] = _averages()
    condition = "bbox+segm" if masks else "bbox"
    return _record("detection", condition, {"last": last}, frequency="cr")


def _without(record: Record, *path: str) -> Record:
    changed = copy.deepcopy(record)
    part = changed
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return changed


def _with(record: Record, value: Any, *path: str) -> Record:
    changed = copy.deepcopy(record)
    part = changed
    for name in path[:-1]:
        part = part.setdefault(name, {})
    part[path[-1]] = value
    return changed


def _refused(record: Record, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_record(record, "record.json")


@pytest.mark.parametrize("task", ["classification", "video"])
def test_a_classifier_needs_a_best_epoch_error_and_class_accuracy(task: str) -> None:
    record = _classification(task)
    check_record(record, "record.json")
    _refused(_without(record, "metrics", "best"), "'best' is a required property")
    for epoch in ("last", "best"):
        for name in ("epoch", "error", "class_accuracy"):
            _refused(_without(record, "metrics", epoch, name), f"'{name}' is a required property")
    _refused(_with(record, 100.5, "metrics", "last", "error"), "metrics/last/error")


def test_where_nothing_is_held_out_there_is_no_best_epoch_to_have() -> None:
    record = _without(_with(_classification(), [0, 0], "split", "difficulty"), "metrics", "best")
    check_record(record, "record.json")
    _refused(_without(record, "metrics", "last"), "'last' is a required property")
    held_out = _with(record, [0, 1], "split", "difficulty")
    _refused(held_out, "metrics: 'best' is a required property")


@pytest.mark.parametrize("task", ["classification", "video"])
def test_averages_of_ap_do_not_make_a_classifiers_record(task: str) -> None:
    _refused(_with(_detection(), task, "task"), "required property")


def test_a_record_of_an_unknown_task_is_refused_by_its_name() -> None:
    record = _with(_classification(), "audio", "task")
    _refused(record, "task 'audio', .* classification, detection")


@pytest.mark.parametrize("masks", [False, True])
def test_a_detector_is_measured_at_the_last_epoch_without_an_error(masks: bool) -> None:
    check_record(_detection(masks), "record.json")


@pytest.mark.parametrize(
    "path",
    [
        ("metrics", "last"),
        ("metrics", "last", "epoch"),
        ("metrics", "last", "bbox"),
        ("metrics", "last", "segm"),
        ("metrics", "last", "segm", "category_ap"),
        *[("metrics", "last", "bbox", n) for n in ("AP", "AP50", "AP75", "APr", "APc", "APf")],
        ("split", "frequency"),
        ("split", "digest"),
        ("history", "class_accuracy"),
        ("provenance",),
    ],
)
def test_a_detectors_record_without_a_part_is_refused(path: tuple[str, ...]) -> None:
    _refused(_without(_detection(), *path), f"'{path[-1]}' is a required property")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (100.5, ("metrics", "last", "bbox", "AP")),
        (-1.0, ("metrics", "last", "segm", "APr")),
        ("12", ("metrics", "last", "bbox", "APf")),
        ([0.5, 120.0], ("metrics", "last", "bbox", "category_ap")),
        (0, ("metrics", "last", "epoch")),
        ("rcx", ("split", "frequency")),
        ("", ("split", "frequency")),
        ([[0.5, 1.5]], ("history", "class_accuracy")),
        ("segm", ("condition",)),
        ("100", ("condition",)),
    ],
)
def test_a_value_that_a_detector_cannot_have_is_refused(value: Any, path: tuple[str, ...]) -> None:
    _refused(_with(_detection(), value, *path), "/".join(path))


def test_what_no_detector_measures_is_refused() -> None:
    record = _detection()
    _refused(_with(record, record["metrics"]["last"], "metrics", "best"), "'best'")
    _refused(_with(record, 20.0, "metrics", "last", "error"), "'error'")
    _refused(_with(record, 20.0, "metrics", "last", "bbox", "AR"), "'AR'")


def test_masks_are_measured_if_and_only_if_the_condition_says_so() -> None:
    _refused(_with(_detection(masks=True), "bbox", "condition"), "'segm'")
    _refused(_with(_detection(masks=False), "bbox+segm", "condition"), "'segm'")


def test_what_is_no_record_at_all_is_refused() -> None:
    _refused([], "is not a result record")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "path",
    [
        ("metrics", "last", "error"),
        ("metrics", "best", "difficulty_set_accuracy"),
        ("metrics", "last", "class_accuracy"),
        ("config", "learning_rate"),
        ("split", "own"),
        ("history", "loss"),
        ("history", "class_accuracy"),
        ("provenance", "hardware", "memory"),
    ],
)
def test_a_number_that_json_has_not_is_refused_with_file_and_field(
    tmp_path: Path, path: tuple[str, ...], text: str
) -> None:
    value: Any = {
        ("history", "class_accuracy"): [[0.5, "HERE"]],
        ("history", "loss"): [0.5, "HERE"],
        ("metrics", "last", "class_accuracy"): [0.5, "HERE"],
    }.get(path, "HERE")
    file = tmp_path / "record.json"
    record = _with(_classification(), value, *path)
    file.write_text(json.dumps(record).replace('"HERE"', text))
    with pytest.raises(UserError, match="/".join(path)) as caught:
        read_record(file)
    assert str(file) in str(caught.value)
    assert "NaN" in str(caught.value)


def _spoiled(record: Record, draws: random.Random) -> Iterator[Record]:
    """``record`` with one part exchanged for what may not stand there."""
    odd = [None, True, -1, -0.5, 5, 5.0, 101.0, 2.5, "a", "", [], {}, [[0.5]], [1.5], [None, "x"]]
    places: list[list[Any]] = []

    def collect(value: Any, path: list[Any]) -> None:
        places.append(path)
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in pairs if not isinstance(value, str) else ():
            places.append([*path, name])
            if isinstance(part, (dict, list)):
                collect(part, [*path, name])

    collect(record, [])
    for path in places:
        if path:
            changed = copy.deepcopy(record)
            part = changed
            for name in path[:-1]:
                part = part[name]
            part[path[-1]] = draws.choice(odd)
            yield changed


SCHEMAS = {
    "classification": classification.record.SCHEMA,
    "video": video.record.SCHEMA,
    "detection": detection.record.SCHEMA,
}


@pytest.mark.parametrize("task", SCHEMAS)
def test_lists_looked_at_as_a_whole_are_refused_in_jsonschemas_words(task: str) -> None:
    record = _detection() if task == "detection" else _classification(task)
    history = {"bias": [0.5], "tau": [None], "difficulty": [[0.5, None]], "hard_instances": [[3]]}
    record["history"] |= history | {"learning_rate": [0.1], "class_weights": [[1.0, 2]]}
    if task == "video":
        record["metrics"]["last"] |= {"confusion": [[3, 1], [0, 4]], "class_precision": [0.5, None]}
        record["split"] |= {"head": [0], "notes": ["a note"]}
    slow, draws = jsonschema.Draft202012Validator(SCHEMAS[task]), random.Random(0)
    for changed in [record, *(r for _ in range(3) for r in _spoiled(record, draws))]:
        if changed["task"] != record["task"] or changed["schema"] != 1:
            continue
        error = jsonschema.exceptions.best_match(slow.iter_errors(changed))
        if error is None:
            check_record(changed, "record.json")
        else:
            with pytest.raises(UserError) as caught:
                check_record(changed, "record.json")
            assert error.message in str(caught.value)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b'<<<<<<< HEAD\n{"schema": 1}\n=======\n{}\n>>>>>>> b\n', "conflict markers of a merge"),
        (b'{"schema": 1,\n<<<<<<< HEAD\n"seed": 0}\n', r"conflict markers of a merge \(line 2\)"),
        (b"", "is empty"),
        (b"\0\0\0\0", "is empty"),
        (b'{"schema": 1, "run', "cannot be read as a result record"),
        (b"\xff\xfe\xfd", "cannot be read as a result record"),
        (b"[" * 200_000, "cannot be read as a result record"),
        (b"[]", "is not a result record"),
        (b'{"schema": 0}', "is not a result record"),
    ],
)
def test_a_file_that_is_no_record_is_named_for_what_it_is_and_no_remedy_deletes_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_record(_written(tmp_path / "record.json", content))
    assert str(tmp_path / "record.json") in str(caught.value)
    assert "delete" not in str(caught.value)


def test_a_record_of_a_newer_version_asks_for_a_newer_checkout() -> None:
    with pytest.raises(UserError, match=r"schema 2, .*newer version.*update this checkout") as said:
        check_record(_classification() | {"schema": 2, "new": 1}, "record.json")
    assert "delete" not in str(said.value)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_record_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, coding: str) -> None:
    record = _classification() | {"run": "déjà-vu"}
    text = json.dumps(record, ensure_ascii=False)
    assert read_record(_written(tmp_path / "record.json", text.encode(coding))) == record


def test_a_record_that_cannot_be_opened_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(UserError, match=r"record.json cannot be read \(Is a directory\)"):
        read_record(tmp_path / "record.json")


def test_long_lists_take_no_time_a_number() -> None:
    rows = [[epoch / 1000] * 200 for epoch in range(1000)]
    record = _with(_classification(), rows, "history", "class_accuracy")
    begin = time.process_time()
    check_record(record, "record.json")
    # jsonschema alone takes 4 s and more.
    assert time.process_time() - begin < 1.0


def test_records_share_the_numbers_that_they_have_in_common(tmp_path: Path) -> None:
    path = _written(tmp_path / "record.json", json.dumps(_classification()).encode())
    first, second = read_record(path), read_record(path)
    assert first["history"]["loss"][0] is second["history"]["loss"][0]


# What follows from what was measured.

CDB = {"tau_max": 4.0, "eps": 0.02, "tau_power": 3.0, "normalize_weights": False}


@pytest.mark.parametrize("settings", [{}, CDB, {"difficulty_average": 0.9}])
@pytest.mark.parametrize("tau", ["sigmoid", "polynomial", "sigmoid-accv", "1.5"])
def test_courses_are_to_the_bit_what_the_balancer_trained_with(tau: str, settings: Record) -> None:
    names = {
        "tau_power": "power", "normalize_weights": "normalize",
        "difficulty_average": "average", "weights_from_epoch": "start_epoch",
    }  # fmt: skip
    options = {names.get(name, name): value for name, value in settings.items()}
    balancer = ClassDifficultyBalancer(3, tau, **options)
    history = History(("a", "b", "c"), torch.tensor([9, 5, 1]))
    generator = torch.Generator().manual_seed(0)
    for epoch in range(1, 7):
        accuracy = torch.rand(3, dtype=torch.float64, generator=generator)
        if epoch == 3:
            accuracy[1] = math.nan
        history.add(epoch, 0.5, 0.1, accuracy, balancer)
        balancer.update(accuracy)
    rows = {name: history.rows.pop(name) for name in COURSES}
    record = {"config": {"method": "cdb-s", "tau": tau, **settings}, "history": history.rows}
    assert courses(record) == rows
    assert len({tuple(weights) for weights in rows["class_weights"]}) == 6


def test_courses_take_the_prior_from_the_counts_of_the_difficulty_set() -> None:
    rows = [[0.5, 0.25], [1.0, None], [0.0, 1.0]]
    settings = {"method": "cdb-s", "tau": "1", "difficulty_prior": 1.0, "weights_from_epoch": 2}
    record = {
        "config": settings,
        "split": {"difficulty": [2, 4]},
        "history": {"class_accuracy": rows},
    }
    found = courses(record)
    # (1 + 1) / (2 + 2), (1 + 1) / (4 + 2); then (2 + 1) / (2 + 2), and the second class as before.
    assert found["difficulty"] == [[1.0, 1.0], [0.5, 1 - 1 / 3], [0.25, 1 - 1 / 3]]
    assert found["class_weights"][:2] == [[1.0, 1.0]] * 2
    assert found["class_weights"][2] == pytest.approx([6 / 11, 16 / 11])


def test_an_epoch_without_any_measurement_leaves_the_difficulty_as_it_was() -> None:
    rows = [[0.5, 0.25], [None, None], [0.75, None]]
    record = {"config": {"method": "cdb-s", "tau": "1"}, "history": {"class_accuracy": rows}}
    assert courses(record)["difficulty"] == [[1.0, 1.0], [0.5, 0.75], [0.5, 0.75]]


def test_a_run_without_a_balancer_has_no_courses() -> None:
    # A second stage may name the tau of its first.
    record = {
        "config": {"method": "class-aware", "tau": "sigmoid"},
        "history": {"class_accuracy": [[0.5, 0.25]]},
    }
    assert courses(record) == {}
