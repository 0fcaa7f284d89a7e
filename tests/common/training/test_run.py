"""A run from its folder to its record, with a made-up task."""

import json
import os
import shutil
import signal
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import common.training.provenance
import common.training.run
from common.errors import UserError
from common.training.folder import RunFolder, load_tensors, save_tensors
from common.training.run import Outcome, advise_on_precision, run, steps
from common.training.settings import RunConfig, plain
from common.training.signals import StopRequest
from tests.common.training.made import STEPS, Arguments, MadeConfig, MadeTask, Training
from tests.states import assert_same_state

CONFIG = MadeConfig(method="cdb-s", tau="2.0")


def arguments(out: Path, **changes: Any) -> Arguments:
    """A run without checkpoints between."""
    return Arguments(config=replace(CONFIG, **changes), out=out, checkpoint_seconds=1000.0)


def folder(out: Path, **changes: Any) -> Path:
    task = MadeTask()
    return task.folder(task.resolve(arguments(out, **changes)))


def signalled(step: int, number: int = signal.SIGTERM) -> MadeTask:
    """A task whose run gets a signal within a step, counted from 1 over its stages."""
    task, taken = MadeTask(), []

    def look(training: Training) -> None:
        taken.append(0)
        if len(taken) == step:
            os.kill(os.getpid(), number)

    task.look = look
    return task


def read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((path / "record.json").read_text())
    del record["provenance"]
    return record


def assert_same_run(path: Path, other: Path) -> None:
    assert read(path) == read(other)
    assert_same_state(load_tensors(path / "weights.pt"), load_tensors(other / "weights.pt"))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An undisturbed run."""
    run(MadeTask(), arguments(tmp_path / "whole"))
    return folder(tmp_path / "whole")


# One run.


def test_a_run_goes_to_its_last_epoch_shows_each_and_says_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = MadeTask()
    record = run(task, arguments(tmp_path))
    path = folder(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path.name}: epoch 0/3"
    assert lines[-2].startswith("epoch 3/3  loss ")
    assert "difficulty-set accuracy 0." in lines[-2]
    assert lines[-1] == f"tested  {path / 'record.json'}"
    assert record["history"]["epoch"] == [1, 2, 3]
    assert (task.begun[0].epoch, task.begun[0].steps_taken) == (3, 3 * STEPS)
    assert not (path / "checkpoint.pt").exists()


def test_a_record_names_the_run_as_the_tables_do_and_what_the_task_adds(tmp_path: Path) -> None:
    record = run(MadeTask(), replace(arguments(tmp_path, seed=4), group="mine"))
    assert (record["method"], record["variant"], record["seed"]) == ("cdb-s", "tau=2.0", 4)
    assert (record["task"], record["group"]) == ("made", "mine")
    assert record["run"] == "cdb-s_first-0_seed-4"
    assert record["config"] == plain(replace(CONFIG, seed=4))
    assert record["provenance"]["versions"]["points"] == "12"
    assert "tau" not in record["history"]  # It follows from the rest.


def test_a_finished_run_is_found(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    task = MadeTask()
    record = run(task, arguments(whole.parents[1]))
    assert capsys.readouterr().out == f"finished already: {whole / 'record.json'}\n"
    assert not task.begun
    del record["provenance"]
    assert record == read(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("step", "epoch"), [(1, 0), (5, 1), (6, 2), (9, 3)])
def test_a_signal_saves_after_the_step_and_the_next_start_ends_as_the_undisturbed_run(
    tmp_path: Path,
    whole: Path,
    number: int,
    step: int,
    epoch: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match=str(128 + number)):
        run(signalled(step, number), arguments(tmp_path))
    said = capsys.readouterr().err
    assert said == "stopped after a checkpoint; the same command goes on\n"
    path = folder(tmp_path)
    state = load_tensors(path / "checkpoint.pt")["state"]["training"]
    assert (state["epoch"], state["steps_taken"]) == (epoch, step)
    run(MadeTask(), arguments(tmp_path))
    assert_same_run(path, whole)


def test_checkpoints_are_written_after_epochs_when_their_time_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, int]] = []

    def note(self: RunFolder, state: dict[str, Any]) -> None:
        saved.append((state["training"]["epoch"], state["training"]["steps_taken"]))

    monkeypatch.setattr(RunFolder, "save_checkpoint", note)
    run(MadeTask(), replace(arguments(tmp_path), checkpoint_seconds=0.0))
    assert saved == [(1, STEPS), (2, 2 * STEPS), (3, 3 * STEPS)]


def test_a_checkpoint_that_lacks_something_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(signalled(2), arguments(tmp_path))
    path = folder(tmp_path) / "checkpoint.pt"
    content = load_tensors(path)
    del content["state"]["training"]["method"]
    save_tensors(path, content)
    with pytest.raises(UserError, match=rf"{path} does not fit this version"):
        run(MadeTask(), arguments(tmp_path))


def test_a_task_that_cannot_train_on_its_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^made cannot be trained on as it is: no such loss\.$"):
        run(MadeTask(), arguments(tmp_path, method="focal", tau=None))


# What it is made with.

WITH: dict[str, Any] = {"versions": {"torch": "2.0"}, "hardware": {"threads": 1, "cores": 2}}


def resumed(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *starts: Any
) -> tuple[dict[str, Any], str]:
    """Provenance of a run with a start for each environment, and what the last start said."""
    for number, made_with in enumerate(starts, start=1):
        monkeypatch.setattr(common.training.run, "environment", lambda *_, w=made_with: w)
        capsys.readouterr()
        if number < len(starts):
            with pytest.raises(SystemExit):
                run(signalled(1), arguments(out))
        else:
            record = run(MadeTask(), arguments(out))
    return record["provenance"], capsys.readouterr().err


def test_a_run_resumed_with_other_means_says_so_and_its_record_has_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"versions": {"torch": "2.1", "commit": "abc"}, "hardware": {"threads": 2, "cores": 2}}
    told, said = resumed(tmp_path, monkeypatch, capsys, WITH, WITH, other)
    assert told["starts"] == 3
    assert told["versions"] == other["versions"] | {"points": "12"}
    assert told["hardware"] == other["hardware"]
    assert told["environments"] == [{"from_start": 1, **WITH}, {"from_start": 3, **other}]
    for words in (
        "threads 1 before, 2 now",
        "torch 2.0 before, 2.1 now",
        "commit none before, abc",
    ):
        assert words in said
    assert "may differ" in said


def test_a_run_resumed_with_the_same_means_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, said = resumed(tmp_path, monkeypatch, capsys, WITH, WITH, WITH)
    assert (told["starts"], "environments" in told, said) == (3, False, "")


# Two stages.


def test_a_second_stage_trains_its_first_goes_on_from_its_weights_and_finds_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = MadeTask()
    run(task, arguments(tmp_path, first=2))
    first = folder(tmp_path, epochs=2)
    assert [training.epoch for training in task.begun] == [2, 3]
    assert f"\nfirst stage: {first}\n" in capsys.readouterr().out
    shutil.rmtree(folder(tmp_path, first=2))
    again = MadeTask()
    run(again, arguments(tmp_path, first=2))
    assert len(again.begun) == 1
    start = Training(CONFIG, load_tensors(first / "weights.pt")["last"])
    assert not torch.equal(start.model.weight, Training(CONFIG).model.weight)  # type: ignore[arg-type]


def test_stopped_within_its_first_stage_a_run_goes_on_there(tmp_path: Path) -> None:
    run(MadeTask(), arguments(tmp_path / "whole", first=2))
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        run(signalled(STEPS + 1), arguments(tmp_path, first=2))
    assert (folder(tmp_path, epochs=2) / "checkpoint.pt").exists()
    run(MadeTask(), arguments(tmp_path, first=2))
    assert_same_run(folder(tmp_path, first=2), folder(tmp_path / "whole", first=2))


@pytest.mark.parametrize(
    "content", [{}, {"last": {}}, {"last": {"w": torch.zeros(2)}}, {"last": 1}]
)
def test_another_networks_weights_in_the_first_stages_place_are_refused(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    run(MadeTask(), arguments(tmp_path, epochs=2))
    first = folder(tmp_path, epochs=2)
    save_tensors(first / "weights.pt", content)
    said = rf"^{first}/weights.pt holds the weights of another network; move {first} "
    with pytest.raises(UserError, match=said):
        run(MadeTask(), arguments(tmp_path, first=2))


# Several in one process.

UnderWay = Generator[None, None, Outcome]


class Silent:
    def show(self, epoch: int, words: str) -> None:
        pass


def silent(name: str, done: int, total: int) -> Any:
    return nullcontext(Silent())


def in_turn(*under_way: UnderWay) -> list[Outcome]:
    """Ask each for a step, in turn, until all have ended."""
    ends: dict[int, Outcome] = {}
    while len(ends) < len(under_way):
        for number, one in enumerate(under_way):
            try:
                if number not in ends:
                    next(one)
            except StopIteration as end:
                ends[number] = end.value
    return [ends[number] for number in range(len(under_way))]


def test_a_run_yields_once_a_step(tmp_path: Path) -> None:
    task = MadeTask()
    under_way = steps(task, arguments(tmp_path, first=2), StopRequest(), silent)
    taken = [sum(training.steps_taken for training in task.begun) for _ in under_way]
    assert taken == list(range(1, 5 * STEPS + 1))


def test_several_runs_of_a_process_end_as_each_alone(tmp_path: Path) -> None:
    stop = StopRequest()
    seeds = (0, 1, 2)
    for seed in seeds:
        run(MadeTask(), arguments(tmp_path / "alone", seed=seed))
    records = in_turn(
        *(steps(MadeTask(), arguments(tmp_path, seed=seed), stop, silent) for seed in seeds)
    )
    for seed, record in zip(seeds, records, strict=True):
        assert record is not None
        assert record["seed"] == seed
        assert_same_run(folder(tmp_path, seed=seed), folder(tmp_path / "alone", seed=seed))


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_a_signal_stops_all_runs_of_a_process_and_the_handlers_are_given_back(
    tmp_path: Path, whole: Path
) -> None:
    before, stop = handlers(), StopRequest()
    tasks = signalled(4), MadeTask()
    # The second is longer: it is left in hand when the first has gone.
    both = arguments(tmp_path), arguments(tmp_path, seed=1, epochs=5)
    ends = in_turn(*(steps(t, a, stop, silent) for t, a in zip(tasks, both, strict=True)))
    assert ends == [None, None]
    assert handlers() == before
    for seed, epochs in ((0, 3), (1, 5)):
        assert (folder(tmp_path, seed=seed, epochs=epochs) / "checkpoint.pt").exists()
    run(MadeTask(), both[0])
    assert_same_run(folder(tmp_path), whole)


def test_the_handlers_are_those_of_before_while_nothing_can_be_saved(tmp_path: Path) -> None:
    before, seen = handlers(), []

    class Looking(MadeTask):
        def begin(self, *arguments: Any) -> Training:
            seen.append(handlers())
            return super().begin(*arguments)

        def results(self, *arguments: Any) -> Any:
            seen.append(handlers())
            return super().results(*arguments)

    run(Looking(), arguments(tmp_path))
    assert seen == [before, before]


def test_a_folder_that_this_process_holds_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    stop = StopRequest()
    first = steps(MadeTask(), arguments(tmp_path), stop, silent)
    next(first)
    with pytest.raises(UserError, match="is in use by another run of this process; let that one"):
        next(steps(MadeTask(), arguments(tmp_path), stop, silent))
    # So is a first stage that another one trains just now; once it has finished it is shared.
    with pytest.raises(UserError, match="is in use by another run of this process"):
        in_turn(steps(MadeTask(), arguments(tmp_path, first=3), stop, silent))
    assert in_turn(first)[0] is not None
    (record,) = in_turn(steps(MadeTask(), arguments(tmp_path, first=3), stop, silent))
    assert record is not None


def test_a_run_that_is_given_up_lets_go_of_its_folder(tmp_path: Path, whole: Path) -> None:
    before = handlers()
    given_up = steps(MadeTask(), arguments(tmp_path), StopRequest(), silent)
    next(given_up)
    given_up.close()
    assert handlers() == before
    run(MadeTask(), arguments(tmp_path))
    assert_same_run(folder(tmp_path), whole)


# Advice.


@dataclass(frozen=True)
class Mixed(RunConfig):
    precision: str = "bfloat16"


def test_bfloat16_on_a_processor_without_it_gets_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = Mixed(dataset="made")
    cases = (
        (mixed, "cpu", False, True), (mixed, "cpu", True, False), (mixed, "cuda", False, False),
        (replace(mixed, precision="float32"), "cpu", False, False), (CONFIG, "cpu", False, False),
    )  # fmt: skip
    for config, device, able, advised in cases:
        monkeypatch.setattr(common.training.run, "has_bfloat16", lambda able=able: able)
        advise_on_precision(config, torch.device(device))
        assert ("--precision float32" in capsys.readouterr().err) is advised
