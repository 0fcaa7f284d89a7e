"""What holds for a run of every task: it learns, resumes to the bit, and loses nothing."""

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.training.folder import CHECKPOINT_FORMAT, load_tensors, save_tensors
from common.training.loop import Training, Weights
from common.training.record import courses
from common.training.signals import StopRequest
from tests.classification.trainer import (
    Ended,
    Trainer,
    assert_nothing_left_over,
    assert_nothing_trained,
    assert_same_run,
    assert_says,
    read_record,
)
from tests.common.training.cases import CASES, Case, begin, copied, first_weights, small_data
from tests.ranks import on_ranks
from tests.states import assert_same_state, written_and_read
from tests.stopping import SignalOnSecondRank, StopAfter

EVERY_EPOCH = ("--checkpoint-seconds", "0")


@dataclass
class Bench:
    """A case, its data, and what starts its runs."""

    case: Case
    data: Path
    trainer: Trainer
    words: tuple[str, ...]

    def run(self, out: Path, *more: str, **job: Any) -> Ended:
        """The case's run below ``out``, to its end."""
        return self.run_of(out, *self.words, *more, **job)

    def run_of(self, out: Path, *words: str, **job: Any) -> Ended:
        """A run of the case's task, to its end; what it counts on the way is left out."""
        ended = self.trainer.run(out, *words, **job)
        lines = ended.err.splitlines(keepends=True)
        said = [line for line in lines if not re.fullmatch(r"[a-z ]+ \d+/\d+\n", line)]
        return Ended(ended.code, ended.out, "".join(said))

    def folder(self, out: Path, *more: str) -> Path:
        """Its folder."""
        return self.trainer.run_folder(out, *self.words, *more)

    def reference(self) -> Path:
        """The folder of the undisturbed run."""
        return self.trainer.reference(*self.words)

    def assert_continues(self, out: Path) -> None:
        """The same command ends as if nothing had happened."""
        ended = self.run(out)
        assert (ended.code, ended.err) == (0, "")
        assert_same_run(self.folder(out), self.reference())
        assert_nothing_left_over(self.folder(out))


def bench_of(name: str, trainer_of: Callable[..., Any], data_of: Callable[..., Path]) -> Bench:
    case = CASES[name]
    data = data_of(case.write_data)
    return Bench(case, data, trainer_of(case.task), case.line(data))


@pytest.fixture(params=CASES)
def bench(
    request: pytest.FixtureRequest, trainer_of: Callable[..., Any], data_of: Callable[..., Path]
) -> Bench:
    return bench_of(request.param, trainer_of, data_of)


@pytest.fixture
def begun(bench: Bench, tmp_path: Path) -> Path:
    """Where the run was killed in its last epoch, with the checkpoint of the one before."""
    case = bench.case
    at = ("step", case.before + (case.epochs - 1) * case.steps + 2)
    ended = bench.run(tmp_path / "out", *EVERY_EPOCH, at=at, what="kill")
    assert ended.code == -signal.SIGKILL, ended
    return tmp_path / "out"


# Learning.


def test_a_run_learns_and_its_course_is_worth_comparing(bench: Bench) -> None:
    record = read_record(bench.reference())
    losses = record["history"]["loss"]
    assert record["history"]["epoch"] == list(range(1, bench.case.epochs + 1))
    assert len(set(losses)) == bench.case.epochs
    assert losses[-1] < losses[0]
    weights = {tuple(epoch) for epoch in courses(record).get("class_weights", [])}
    assert len(weights) >= 2 or record["method"] == "oltr"
    assert_nothing_left_over(bench.reference())


def test_a_finished_run_is_not_trained_again(bench: Bench) -> None:
    path = bench.reference()
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    ended = bench.run(path.parents[1])
    assert (ended.code, ended.out) == (0, f"finished already: {path / 'record.json'}\n")
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


# Killed or stopped.


def test_killed_and_terminated_at_random_steps_the_run_ends_as_the_undisturbed_one(
    bench: Bench, tmp_path: Path
) -> None:
    case, draw = bench.case, random.Random(bench.case.name)
    # In the second epoch; then as many steps after the checkpoint of the first.
    killed = case.before + case.steps + draw.randint(1, case.steps)
    ended = bench.run(tmp_path, *EVERY_EPOCH, at=("step", killed), what="kill")
    assert ended.code == -signal.SIGKILL
    stopped = draw.randint(1, case.steps - 1)
    ended = bench.run(tmp_path, at=("step", stopped), what="terminate")
    assert ended.code == 128 + signal.SIGTERM
    assert ended.err == "stopped after a checkpoint; the same command goes on\n"
    path = bench.folder(tmp_path)
    state = load_tensors(path / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["step"]) == (1, stopped)
    assert state["steps_taken"] == case.steps + stopped
    bench.assert_continues(tmp_path)
    assert read_record(path)["provenance"]["starts"] == 3


def test_killed_before_any_write_reaches_the_disk_the_run_ends_as_the_undisturbed_one(
    bench: Bench, tmp_path: Path
) -> None:
    """Each write flushes a temporary file, renames it, and flushes the folder."""
    case = bench.case
    if case.before:
        pytest.skip("The first stage writes the same files.")
    # One checkpoint: after the last epoch. A file that waits for its name is there in part.
    moments = [(name, flush) for name in case.written for flush in ("file", "folder")]
    chosen = moments if case.write_data is None else moments[-6::2]
    for number, (name, flush) in enumerate(moments, start=1):
        if (name, flush) not in chosen:
            continue
        out = tmp_path / str(number)
        more = ("--epochs", "1")
        words = (*bench.words, *more)
        ended = bench.run_of(out, *words, *EVERY_EPOCH, at=("fsync", number), what="kill")
        assert ended.code == -signal.SIGKILL
        run = bench.folder(out, *more)
        partial = [path.name for path in run.iterdir() if path.name.endswith(".partial")]
        assert [part.split(".")[1:3] for part in partial] == (
            [name.split(".")] if flush == "file" else []
        )
        assert (run / name).exists() is (flush == "folder")
        assert bench.run_of(out, *words).code == 0
        assert_same_run(run, bench.trainer.reference(*words))
        assert_nothing_left_over(run)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.before])
def test_killed_within_its_first_stage_a_second_one_goes_on_there(
    name: str, trainer_of: Callable[..., Any], data_of: Callable[..., Path], tmp_path: Path
) -> None:
    bench = bench_of(name, trainer_of, data_of)
    step = bench.case.before - 1
    ended = bench.run(tmp_path, *EVERY_EPOCH, at=("step", step), what="kill")
    assert ended.code == -signal.SIGKILL
    (checkpoint,) = tmp_path.rglob("checkpoint.pt")
    bench.assert_continues(tmp_path)
    assert read_record(checkpoint.parent)["provenance"]["starts"] == 2


def moved(training: Training[Any], moment: int, steps: int) -> Training[Any]:
    """After so many steps of the whole run."""
    for _ in range(moment // steps):
        assert training.run_epoch(StopRequest())
        training.end_epoch()
    assert not training.run_epoch(StopAfter(moment % steps))
    return training


def to_the_end(training: Training[Any]) -> Training[Any]:
    while training.epoch < training.config.epochs:
        assert training.run_epoch(StopRequest())
        training.end_epoch()
    return training


def timeless(state: dict[str, Any]) -> dict[str, Any]:
    """Without what the clock says."""
    return {name: value for name, value in state.items() if not name.endswith("seconds")}


def test_a_copy_made_from_the_state_at_random_moments_ends_alike_to_the_bit(bench: Bench) -> None:
    case, draw = bench.case, random.Random(bench.case.name)
    first = first_weights(case, bench.data, bench.reference().parents[1])
    with small_data():
        undisturbed = to_the_end(begin(case, bench.data, first))
        whole = timeless(undisturbed.state_dict())
        within = draw.randrange(1, case.steps), draw.randrange(case.steps, case.epochs * case.steps)
        for moment in (0, *within, case.steps):
            run = moved(begin(case, bench.data, first), moment, case.steps)
            resumed = begin(case, bench.data, first)
            resumed.load_state_dict(written_and_read(run.state_dict()))
            assert_same_state(timeless(to_the_end(resumed).state_dict()), whole)
        # Between an epoch's last step and its end.
        run, resumed = begin(case, bench.data, first), begin(case, bench.data, first)
        assert run.run_epoch(StopRequest())
        resumed.load_state_dict(written_and_read(run.state_dict()))
        assert_same_state(timeless(to_the_end(resumed).state_dict()), whole)
    # What the commands trained is what the skeleton trains without them.
    assert_same_state(dict(undisturbed.model.state_dict()), last_weights(bench.reference()))


def last_weights(run: Path) -> Weights:
    return dict(load_tensors(run / "weights.pt")["last"])


# Checkpoints that are none.


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_truncated_a_damaged_a_code_carrying_and_an_older_checkpoint_are_refused_by_name(
    bench: Bench, begun: Path, tmp_path: Path
) -> None:
    path = bench.folder(begun) / "checkpoint.pt"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    for content in (whole[:-1000], bytes(flipped)):
        path.write_bytes(content)
        assert_says(bench.run(begun), str(path), "truncated or damaged", "move it elsewhere")
        assert path.read_bytes() == content
    save_tensors(path, {"format": CHECKPOINT_FORMAT, "state": Code(tmp_path / "ran")})
    assert_says(bench.run(begun), str(path), "foreign code", "move it elsewhere")
    assert not (tmp_path / "ran").exists()
    config = json.dumps(json.loads((path.parent / "config.json").read_text()), sort_keys=True)
    ours: dict[str, Any] = {"format": CHECKPOINT_FORMAT, "config": config}
    save_tensors(path, ours | {"state": {"training": {"model": {}}}})
    assert_says(bench.run(begun), str(path), "does not fit this version", "move it elsewhere")
    save_tensors(path, ours | {"format": CHECKPOINT_FORMAT - 1, "state": {}})
    assert_says(
        bench.run(begun), str(path), "not a checkpoint of this version", "move it elsewhere"
    )
    path.unlink()
    bench.assert_continues(begun)


def test_a_checkpoint_of_another_configuration_is_refused_and_stays(
    bench: Bench, begun: Path
) -> None:
    seeded = ("--seed", "1")
    other = bench.folder(begun, *seeded)
    ended = bench.run(begun, *seeded, at=("step", bench.case.before + 1), what="kill")
    assert ended.code == -signal.SIGKILL
    shutil.copy(bench.folder(begun) / "checkpoint.pt", other)
    content = (other / "checkpoint.pt").read_bytes()
    ended = bench.run(begun, *seeded)
    path = str(other / "checkpoint.pt")
    assert_says(ended, path, "seed 0 there, 1 asked for", "another folder with --out")
    assert (other / "checkpoint.pt").read_bytes() == content


# Losses that are no numbers.


def test_a_nan_loss_names_epoch_and_step_and_keeps_the_last_good_checkpoint(
    bench: Bench, begun: Path
) -> None:
    path = bench.folder(begun) / "checkpoint.pt"
    before = path.read_bytes()
    ended = bench.run(begun, *EVERY_EPOCH, at=("step", 3), what="nan")
    rate = bench.case.task.parse(bench.words).config.learning_rate
    where = f"The loss is nan at epoch {bench.case.epochs}, step 3"
    assert_says(ended, where, f"--learning-rate (now {rate})")
    assert path.read_bytes() == before
    bench.assert_continues(begun)


def test_a_learning_rate_that_diverges_is_named_and_nothing_of_it_is_kept(
    bench: Bench, tmp_path: Path
) -> None:
    more = ("--learning-rate", "1e30", *bench.case.diverging)
    ended = bench.run(tmp_path, *more)
    assert_says(ended, "epoch 1, step ", "lower --learning-rate (now 1e+30)")
    # A second stage's first diverges with it.
    (note,) = {path.parent for path in tmp_path.rglob("failure.json")} - {
        bench.folder(tmp_path, *more)
    } or {bench.folder(tmp_path, *more)}
    names = {path.name for path in note.iterdir()}
    assert names == {"config.json", "failure.json", "lock", "tensorboard"}


# A full disk.


@pytest.mark.parametrize("name", ["config.json", "tensorboard", "checkpoint.pt"])
def test_no_room_for_a_file(bench: Bench, tmp_path: Path, name: str) -> None:
    path = bench.reference() / name
    if name == "tensorboard":
        (path,) = path.iterdir()
    often = () if name == "tensorboard" else EVERY_EPOCH
    # Bytes that a file may have: a little too few for this one, some for those before it.
    limit = 30_000 if name == "checkpoint.pt" else path.stat().st_size - 1
    ended = bench.run(tmp_path, *often, limit=limit)
    # A first stage's weights may be what meets it.
    met = "" if bench.case.before else name
    if name == "config.json":
        # It is so small that the file of what the run says is cut, too.
        assert ended.code == 2
        assert ended.err.startswith("error: No room left to write ")
    else:
        assert_says(ended, "No room left", met, "File too large", "free some space", "it continues")
    assert not list(tmp_path.rglob(".*"))
    bench.assert_continues(tmp_path)


def test_no_room_for_the_next_checkpoint_or_the_results_keeps_the_last(
    bench: Bench, begun: Path
) -> None:
    run = bench.folder(begun)
    path = run / "checkpoint.pt"
    before = path.read_bytes()
    ended = bench.run(begun, *EVERY_EPOCH, limit=len(before) // 2)
    assert_says(ended, "No room left", str(path))
    assert path.read_bytes() == before
    # Each write flushes its file, then the folder.
    for number, name in enumerate(bench.case.written[2:]):
        ended = bench.run(begun, at=("fsync", 2 * number + 1), what="no room")
        assert_says(ended, "No room left", str(run / name), "No space left on device")
        assert path.read_bytes() == before
    bench.assert_continues(begun)


# A class without training samples.


def test_a_class_without_training_samples_is_named_or_gone_on_without(
    bench: Bench, tmp_path: Path
) -> None:
    case = bench.case
    data = copied(case, bench.data, tmp_path / "set")
    case.lose_a_class(data)
    words = (*case.line(data), *case.losing)
    ended = bench.run_of(tmp_path / "out", *words)
    if case.lost is not None:
        assert_says(ended, *case.lost)
        assert_nothing_trained(tmp_path / "out")
        return
    assert ended.code == 0
    record = read_record(bench.trainer.run_folder(tmp_path / "out", *words))
    assert 0 in record["split"]["train"]
    assert {accuracy[-1] for accuracy in record["history"]["class_accuracy"]} == {None}


# Two processes.

Found = dict[str, Any]


def measured(data: dict[str, Path], first: dict[str, Weights | None], states: Path) -> Found:
    """Of each case: two steps, a whole run, one that is gone on with, and a stop by one rank."""
    with small_data():
        return {
            name: _measured(CASES[name], data[name], first[name], states / f"{name}.state")
            for name in data
        }


def _measured(case: Case, data: Path, first: Weights | None, state: Path) -> Found:
    few = begin(case, data, first)
    assert not few.run_epoch(StopAfter(2))
    losses, start = few._losses[:2].clone(), written_and_read(few.model.state_dict())
    middle = moved(begin(case, data, first), case.steps + 2, case.steps).state_dict()
    middle = written_and_read(middle)
    resumed = begin(case, data, first)
    resumed.load_state_dict(written_and_read(middle))
    run, from_one = to_the_end(begin(case, data, first)), begin(case, data, first)
    if state.exists():
        from_one.load_state_dict(torch.load(state))
    else:
        torch.save(middle, state)
    asked, stop = begin(case, data, first), SignalOnSecondRank()
    complete = asked.run_epoch(stop)
    return {
        "two steps": {"losses": losses, "weights": start},
        "whole": end_of(run),
        "middle": middle,
        "resumed": end_of(to_the_end(resumed)),
        "from one": end_of(to_the_end(from_one)),
        "stopped": (complete, asked._step, stop.signal),
    }


def end_of(training: Training[Any]) -> Found:
    return {"rows": training.history.rows, "weights": training.model.state_dict()}


Both = tuple[Found, list[Found]]


@pytest.fixture(scope="module")
def one_and_two(
    trainer_of: Callable[..., Any],
    data_of: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Both:
    """What one process finds, and what each of two does."""
    folder = tmp_path_factory.mktemp("ranks")
    benches = {name: bench_of(name, trainer_of, data_of) for name in CASES}
    data = {name: bench.data for name, bench in benches.items()}
    first = {
        name: first_weights(bench.case, bench.data, bench.reference().parents[1])
        if bench.case.before
        else None
        for name, bench in benches.items()
    }
    alone = measured(data, first, folder)
    return alone, on_ranks(2, folder, measured, data, first, folder)


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4, msg=name)


# Proposals are sampled by each rank from draws of its own.
@pytest.mark.parametrize("name", [name for name in CASES if name != "scenes"])
def test_two_processes_take_the_steps_of_one(one_and_two: Both, name: str) -> None:
    alone, both = one_and_two
    for found in both:
        ours, theirs = found[name]["two steps"], alone[name]["two steps"]
        torch.testing.assert_close(ours["losses"], theirs["losses"], rtol=1e-4, atol=1e-5)
        close(ours["weights"], theirs["weights"])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_hold_the_same_bits_and_go_on_to_the_same_end(
    one_and_two: Both, name: str
) -> None:
    first, second = (found[name] for found in one_and_two[1])
    for part in ("whole", "resumed", "from one"):
        assert_same_state(first[part], second[part])
    assert_same_state(first["resumed"], first["whole"])
    assert len(first["from one"]["rows"]["epoch"]) == CASES[name].epochs


@pytest.mark.parametrize("name", CASES)
def test_one_process_goes_on_from_a_state_of_two(
    one_and_two: Both,
    name: str,
    trainer_of: Callable[..., Any],
    data_of: Callable[..., Path],
) -> None:
    bench = bench_of(name, trainer_of, data_of)
    found = one_and_two[1][0][name]
    first = first_weights(bench.case, bench.data, bench.reference().parents[1])
    with small_data():
        resumed = begin(bench.case, bench.data, first)
        resumed.load_state_dict(written_and_read(found["middle"]))
        assert (resumed.epoch, resumed._step) == (1, 2)
        rows = to_the_end(resumed).history.rows
    # The first epoch is that of the two, and so is what its difficulty gave.
    for column in ("loss", "class_accuracy"):
        assert rows[column][0] == found["whole"]["rows"][column][0]
    for column in {"difficulty", "class_weights", "tau"} & rows.keys():
        assert rows[column][:2] == found["whole"]["rows"][column][:2]


@pytest.mark.parametrize("name", CASES)
def test_a_signal_to_one_rank_stops_both_after_the_same_step(one_and_two: Both, name: str) -> None:
    for found in one_and_two[1]:
        assert found[name]["stopped"] == (False, 2, signal.SIGTERM)
