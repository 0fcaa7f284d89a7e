"""A run from its folder to its last epoch, with a made-up training."""

import contextlib
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import common.training.fit
from common.errors import UserError
from common.training.fit import (
    Clock,
    RunArguments,
    advise_on_precision,
    choose_device,
    fit,
    go_on,
    parse_command_line,
    record_of,
    set_threads,
)
from common.training.folder import RunFolder
from common.training.settings import RunConfig, plain
from common.training.signals import StopRequest

CONFIG = RunConfig(dataset="made", epochs=3)

WITH: dict[str, Any] = {"versions": {"torch": "2.0"}, "hardware": {"threads": 1, "cores": 2}}


class Counting:
    """A training of three steps an epoch, which does nothing but count."""

    def __init__(self, send: dict[int, int] | None = None) -> None:
        self.config: RunConfig = CONFIG
        self.epoch, self.steps = 0, 0
        self.send = send or {}
        """Signal to send at a step, counted from 1."""

    def run_epoch(self, stop: StopRequest) -> bool:
        while self.steps < 3 * (self.epoch + 1) and not stop.requested():
            self.steps += 1
            if self.steps in self.send:
                os.kill(os.getpid(), self.send.pop(self.steps))
        return self.steps == 3 * (self.epoch + 1)

    def end_epoch(self) -> dict[str, float]:
        self.epoch += 1
        return {"train/loss": 1 / self.epoch, "difficulty_set/balanced_accuracy": 0.5}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.steps = state["epoch"], state["steps"]


def folder_at(path: Path, stack: ExitStack) -> RunFolder:
    return stack.enter_context(RunFolder(path, plain(CONFIG)))


def trained(path: Path, training: Counting, interval: float = 1000.0) -> Counting:
    """Go on from the folder, to the end."""
    with ExitStack() as stack:
        folder, clock = folder_at(path, stack), Clock(WITH)
        go_on(training, folder, clock)
        fit(training, folder, clock, interval)
    return training


def saved(path: Path) -> Any:
    with ExitStack() as stack:
        return folder_at(path, stack).load_checkpoint()


def test_a_run_goes_to_its_last_epoch_and_shows_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(tmp_path / "run", Counting()).state_dict() == {"epoch": 3, "steps": 9}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: epoch 0/3"
    assert lines[-1] == "epoch 3/3  loss 0.3333  difficulty-set accuracy 0.5000"
    assert saved(tmp_path / "run") is None  # The interval was not over.


def test_checkpoints_are_written_after_epochs_when_their_time_has_come(tmp_path: Path) -> None:
    trained(tmp_path, Counting(), interval=0.0)
    assert saved(tmp_path)["training"] == {"epoch": 3, "steps": 9}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("step", "epoch"), [(1, 0), (5, 1), (6, 2), (9, 3)])
def test_a_signal_saves_after_the_step_and_the_next_start_goes_on(
    tmp_path: Path, number: int, step: int, epoch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=str(128 + number)):
        trained(tmp_path, Counting({step: number}))
    assert "the same command goes on" in capsys.readouterr().err
    assert saved(tmp_path)["training"] == {"epoch": epoch, "steps": step}
    training = Counting()
    assert trained(tmp_path, training).state_dict() == {"epoch": 3, "steps": 9}


def test_the_clock_counts_starts_and_adds_up_their_seconds(tmp_path: Path) -> None:
    clock = Clock(WITH)
    assert (clock.starts, clock.seconds() >= 0) == (1, True)
    other = Clock(WITH)
    other.load_state_dict({"seconds": 100.0, "starts": 2})
    assert other.starts == 3
    assert 100 <= other.seconds() < 160
    assert other.state_dict()["seconds"] >= 100


def test_a_checkpoint_is_due_after_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(WITH)
    found = []
    for now in (54.0, 60.0, 69.0, 70.5, 71.0):  # noqa: B007
        found.append(clock.due(10.0))
    assert found == [False, True, False, True, False]


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    with ExitStack() as stack:
        folder = folder_at(tmp_path, stack)
        folder.save_checkpoint({"training": {"epoch": 1}, "seconds": 1.0, "starts": 1})
        with pytest.raises(UserError, match=rf"{tmp_path}/checkpoint.pt does not fit this version"):
            go_on(Counting(), folder, Clock(WITH))


# What it is made with.


def resumed(path: Path, capsys: pytest.CaptureFixture[str], *environments: Any) -> tuple[Any, str]:
    """Provenance of a run with a start for each environment, and what the last start said."""
    for number, made_with in enumerate(environments, start=1):
        last = number == len(environments)
        training = Counting({} if last else {number: signal.SIGTERM})
        capsys.readouterr()
        with ExitStack() as stack:
            folder, clock = folder_at(path, stack), Clock(made_with)
            go_on(training, folder, clock)
            with contextlib.suppress(SystemExit):
                fit(training, folder, clock, 1000.0)
    return clock.provenance(), capsys.readouterr().err


def test_a_run_resumed_with_other_means_says_so_and_its_record_has_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"versions": {"torch": "2.1", "commit": "abc"}, "hardware": {"threads": 2, "cores": 2}}
    told, said = resumed(tmp_path, capsys, WITH, WITH, other)
    assert told["starts"] == 3
    assert told["versions"] == other["versions"]
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, said = resumed(tmp_path, capsys, WITH, WITH, WITH)
    assert (told["starts"], "environments" in told, said) == (3, False, "")


def test_a_checkpoint_of_before_means_were_kept_is_gone_on_with() -> None:
    clock = Clock(WITH)
    clock.load_state_dict({"seconds": 100.0, "starts": 2})
    assert clock.provenance()["starts"] == 3
    assert clock.environments == [{"from_start": 3, **WITH}]


# Where it is carried out.


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    config: RunConfig


RECIPES = {"made": CONFIG, "made-short": replace(CONFIG, epochs=1)}


def parse(*words: str) -> Arguments:
    return parse_command_line(words, "made.train", RECIPES, Arguments)


def test_a_command_line_is_a_recipe_and_what_departs_from_it() -> None:
    assert parse("made") == Arguments(config=CONFIG)
    assert parse("made-short").config.epochs == 1
    changed = parse("made", "--config.epochs", "7", "--out", "there", "--threads", "2")
    assert changed == Arguments(config=replace(CONFIG, epochs=7), out=Path("there"), threads=2)


@pytest.mark.parametrize("words", [(), ("other",), ("--out", "x")])
def test_without_a_recipe_the_known_ones_are_named(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"first argument .* one of: made, made-short\.$"):
        parse(*words)


def test_help_without_a_recipe_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    assert "python -m made.train {made, made-short}" in capsys.readouterr().out


def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("cpu") == choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="--device cuda: no CUDA device"):
        choose_device("cuda")


def test_processes_without_a_gpu_are_told_to_train_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for name, rank, said in (("auto", "0", True), ("auto", "1", False), ("cpu", "0", False)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        choose_device(name)
        assert ("the 3 processes of this run train on the CPU" in capsys.readouterr().err) is said


@pytest.mark.parametrize("group", ["..", ".", "", "a/b", "/tmp", "a/../..", "a\0b"])
def test_a_group_is_a_folder_within_out(group: str) -> None:
    with pytest.raises(UserError, match=r"--group .* must be the name of one folder within --out"):
        Arguments(config=CONFIG, group=group)
    assert parse("made", "--group", "..a").group == "..a"


@pytest.mark.parametrize("seconds", ["-1", "nan", "-inf"])
def test_the_time_between_checkpoints_is_not_negative(seconds: str) -> None:
    with pytest.raises(UserError, match="--checkpoint-seconds must be at least 0"):
        parse("made", f"--checkpoint-seconds={seconds}")
    assert parse("made", "--checkpoint-seconds", "0").checkpoint_seconds == 0


def test_help_says_which_settings_change_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("made", "--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Another number sums in another order" in said
    assert "nothing here" not in said


def test_each_process_has_a_gpu_of_its_own_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for local, expected in (("0", "cuda"), ("1", "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert choose_device("auto") == choose_device("cuda") == torch.device(expected)
    assert set(chosen) == {1}
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="there are 2 GPUs; give it --nproc-per-node 2"):
        choose_device("auto")


def test_threads_are_set_or_refused() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(2)
        assert torch.get_num_threads() == 2
        with pytest.raises(UserError, match="--threads must be at least 1, not 0"):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


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
        monkeypatch.setattr(common.training.fit, "has_bfloat16", lambda able=able: able)
        advise_on_precision(config, torch.device(device))
        assert ("--precision float32" in capsys.readouterr().err) is advised


def test_a_record_names_the_run_as_the_tables_do() -> None:
    config = replace(CONFIG, method="cdb-s", tau="2.0", seed=4)
    record = record_of(
        "task", config, run="r", group="g", condition="c", split={}, metrics={}, history={}
    )
    assert (record["method"], record["variant"], record["seed"]) == ("cdb-s", "tau=2.0", 4)
    assert record["config"] == plain(config)
    assert "provenance" not in record
