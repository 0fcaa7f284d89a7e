import fcntl
import io
import json
import os
import sys
from pathlib import Path

import pytest

import common.launching.states as states_module
from common.errors import UserError
from common.launching.local import Command
from common.launching.states import (
    STATES,
    Look,
    Status,
    Task,
    complaint,
    details,
    is_locked,
    last_attempt,
    last_error,
    main,
    read_experiments,
    read_queue,
    split_command,
    table,
)

# Stands in for a training module: its run's folder is OUT/g/NAME.
TRAINER = """
import sys
from pathlib import Path
from common.errors import UserError
class TASK:
    def folder_of(words):
        if "--tau" in words:
            raise UserError("--tau nonsense is refused.")
        if "--epocs" in words:
            print("title\\nUnrecognized options: --epocs\\nFor full helptext, x", file=sys.stderr)
            sys.exit(2)
        return Path(words[words.index("--out") + 1]) / "g" / words[0]
"""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/fake_trainer.py").write_text(TRAINER)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "fake_trainer", raising=False)
    states_module._folder_of.cache_clear()
    out = tmp_path / "runs"
    out.mkdir()
    return out


def command(out: Path, run: str = "a", *options: str) -> str:
    return " ".join(["python", "-m", "fake_trainer", run, "--out", str(out), *options])


def folder(out: Path, *files: str, run: str = "a") -> Path:
    path = out / "g" / run
    path.mkdir(parents=True, exist_ok=True)
    for name in files:
        (path / name).touch()
    return path


def local_log(out: Path, text: str) -> Path:
    log = out / "logs" / Command(tuple(command(out).split())).log_name
    log.parent.mkdir(exist_ok=True)
    log.write_text(text)
    return log


def submit(out: Path, text: str | None, *commands: str, job: str = "7") -> Path:
    """What a submission leaves, and the log of its first task."""
    slurm = out / "slurm"
    slurm.mkdir(exist_ok=True)
    (slurm / f"e-{job}.txt").write_text("\n".join(commands or [command(out)]) + "\n")
    with (slurm / "jobs.txt").open("a") as jobs:
        jobs.write(f"{job}\te\t{slurm / f'e-{job}.txt'}\n")
    log = slurm / f"e-{job}_1.log"
    if text is not None:
        log.write_text(text)
    return log


def look(out: Path, **queue: str) -> Look:
    """As :meth:`Look.at`, with this queue instead of the machine's."""
    found = Look(out, {name.removeprefix("task_"): state for name, state in queue.items()})
    for line, task in states_module.read_tasks(out / "slurm"):
        path = states_module._folder_of(line)
        assert isinstance(path, Path)
        found.tasks.setdefault(path, []).append(task)
    return found


def state(out: Path, **queue: str) -> tuple[str, str]:
    found = look(out, **queue).status(command(out))
    return found.state, found.words


# Commands.


def test_module_and_arguments_are_found_behind_torchrun_too() -> None:
    plain = ["python", "-m", "video.train", "x", "-m", "y"]
    assert split_command(plain) == ("video.train", ["x", "-m", "y"])
    torchrun = "python -m torch.distributed.run --standalone --nproc-per-node 2 -m -- a.b x --c d"
    assert split_command(torchrun.split()) == ("a.b", ["x", "--c", "d"])


@pytest.mark.parametrize("line", ["python", "python -m", "python -m torch.distributed.run -m a"])
def test_a_command_without_a_module_is_refused(line: str) -> None:
    with pytest.raises(UserError, match="names no module"):
        split_command(line.split())


def test_commands_belong_to_the_experiment_named_before_them() -> None:
    assert read_experiments("# a\nx\n\ny\n# b\n# c\nz") == {"a": ["x", "y"], "c": ["z"]}


# States.


def test_a_run_that_nobody_started_is_missing(out: Path) -> None:
    assert state(out) == ("missing", "")


def test_a_run_whose_name_needs_data_that_is_not_there_is_missing(out: Path) -> None:
    refused = ("--tau", "nonsense", "--data")
    (out / "there").mkdir()
    found = [
        look(out).status(command(out, "a", *refused, str(out / name))).state
        for name in ("nowhere", "there")
    ]
    assert found == ["missing", "failed"]


def test_a_record_makes_a_run_finished_whatever_else_is_there(out: Path) -> None:
    path = folder(out, "record.json", "checkpoint.pt", "lock")
    (path / "failure.json").write_text(json.dumps({"error": "x", "time": "t"}))
    assert state(out) == ("finished", "")


def test_a_held_lock_makes_a_run_running_and_its_log_tells_the_epoch(out: Path) -> None:
    path = folder(out, "lock", "checkpoint.pt")
    assert state(out) == ("stopped", "")
    local_log(out, "$ x\na: epoch 2/40\nepoch 17/40  loss 0.1\n")
    with (path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_locked(path)
        assert state(out) == ("running", "epoch 17/40")
    assert not is_locked(path)
    assert state(out) == ("stopped", "epoch 17/40")


def test_looking_leaves_no_lock_behind(out: Path) -> None:
    path = folder(out, "lock")
    assert not is_locked(path)
    with (path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_killed_run_without_a_checkpoint_is_interrupted(out: Path) -> None:
    folder(out, "lock", "config.json")
    local_log(out, "$ x\nsome words\n")
    assert state(out) == ("interrupted", "")


def test_a_task_in_the_queue_is_queued_and_one_that_starts_is_running(out: Path) -> None:
    submit(out, None)
    assert state(out) == ("missing", "")
    assert state(out, task_7_1="PENDING") == ("queued", "")
    assert state(out, task_7_1="CONFIGURING")[0] == "running"
    assert state(out, task_7_2="PENDING") == ("missing", "")


def test_a_requeued_run_is_queued_with_its_epoch(out: Path) -> None:
    folder(out, "lock", "checkpoint.pt")
    submit(out, "$ x\nepoch 3/40\nstopped after a checkpoint; the same command goes on\n")
    assert state(out, task_7_1="PENDING") == ("queued", "epoch 3/40")
    assert state(out) == ("stopped", "epoch 3/40")


def test_the_note_in_the_folder_tells_why_a_run_failed(out: Path) -> None:
    path = folder(out, "lock", "checkpoint.pt")
    (path / "failure.json").write_text(json.dumps({"error": "The loss is NaN.", "time": "t"}))
    assert state(out) == ("failed", "The loss is NaN.")


def test_a_log_tells_why_a_run_failed_before_it_had_a_folder(out: Path) -> None:
    log = local_log(out, "$ x\nerror: old\n$ x\nsome\nerror: data/x is missing; fetch it.\n")
    found = look(out).status(command(out))
    assert (found.state, found.words) == ("failed", "data/x is missing; fetch it.")
    assert found.log == log
    log.write_text("$ x\nTraceback (most recent call last):\n  File\nKeyError: 'a'\n$ x\n")
    assert state(out) == ("missing", "")  # Its last start was stopped before it said anything.


def test_slurms_log_tells_of_a_run_that_could_leave_no_note(out: Path) -> None:
    folder(out, "lock", "checkpoint.pt")
    text = (
        "$ x\nepoch 1/2\nslurmstepd: error: Detected 1 oom_kill event.\nended with exit code 137\n"
    )
    log = submit(out, text)
    assert state(out) == ("failed", "slurmstepd: error: Detected 1 oom_kill event.")
    log.write_text("$ x\nepoch 1/2\nended with exit code 0\n")
    assert state(out)[0] == "stopped"
    log.write_text("$ x\nepoch 1/2\nslurmstepd: error: *** CANCELLED ***\nstopped by Slurm\n")
    assert state(out)[0] == "stopped"


def test_the_log_that_was_written_last_counts(out: Path) -> None:
    first = submit(out, "$ x\nerror: one\nended with exit code 2\n")
    second = submit(out, "$ x\nerror: two\nended with exit code 2\n", job="8")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert state(out) == ("failed", "two")
    os.utime(first, (3, 3))
    assert state(out) == ("failed", "one")


def test_a_command_that_names_no_run_has_failed_with_the_sentence(out: Path) -> None:
    found = look(out).status(command(out, "a", "--tau", "nonsense"))
    assert (found.state, found.words) == ("failed", "--tau nonsense is refused.")
    assert found.run.startswith("a --out ")
    found = look(out).status(command(out, "a", "--epocs", "2"))
    assert (found.state, found.words) == ("failed", "Unrecognized options: --epocs")


def test_a_run_stopped_in_its_first_stage_is_stopped_with_its_epoch(out: Path) -> None:
    folder(out, "lock", "config.json")
    stopped = "epoch 3/30\nstopped after a checkpoint; the same command goes on\n"
    log = local_log(out, f"$ x\n{stopped}")
    assert state(out) == ("stopped", "epoch 3/30")
    log.write_text(f"$ x\n{stopped}$ x\nepoch 4/30\n")  # Killed at its next start.
    assert state(out) == ("interrupted", "")


def test_a_stopped_run_whose_folder_was_removed_is_missing(out: Path) -> None:
    local_log(out, "$ x\nepoch 3/30\nstopped after a checkpoint; the same command goes on\n")
    assert state(out) == ("missing", "")


# What torchrun says when a process has ended by an error: shortened in the middle.
TORCHRUN = """\
epoch 0/2
error: data/x.jpg is damaged; fetch it again.
error: another process of this run has ended; what it said is the cause.
E0101 00:00:00.000000 7 torch/distributed/elastic/multiprocessing/api.py:987] failed (exitcode: 2)
Traceback (most recent call last):
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
classification.train FAILED
Root Cause (first observed failure):
  exitcode  : 2 (pid: 8)
  error_file: <N/A>
============================================================
"""


def test_the_log_tells_why_when_torchrun_killed_the_first_rank_before_its_note(out: Path) -> None:
    path = folder(out, "lock", "config.json")
    log = local_log(out, f"$ x\n{TORCHRUN}")
    assert state(out) == ("failed", "data/x.jpg is damaged; fetch it again.")
    submit(out, f"$ x\n{TORCHRUN}ended with exit code 1\n")
    assert state(out) == ("failed", "data/x.jpg is damaged; fetch it again.")
    log.write_text("$ x\nerror: old\n$ x\nepoch 0/2\n")
    (out / "slurm/e-7_1.log").unlink()
    assert state(out) == ("interrupted", "")  # Its next start was killed.
    log.write_text("$ x\nerror: new\n")
    os.utime(log, (1, 1))
    (path / "checkpoint.pt").touch()
    assert state(out)[0] == "stopped"  # Somebody has gone on with it.


@pytest.mark.parametrize(
    "words",
    [
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15",
        "error: another process of this run has ended; what it said is the cause.",
        "slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026-01-01T00:00:00 ***",
    ],
)
def test_words_about_being_ended_are_no_failure(out: Path, words: str) -> None:
    folder(out, "lock", "config.json")
    local_log(out, f"$ x\nepoch 0/2\n{words}\n")
    assert state(out) == ("interrupted", "")


# Words of a log.


def test_the_last_attempt_is_what_follows_the_last_command(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_attempt(log) == ""
    log.write_text("$ a\none\n$ a\ntwo\nthree\n")
    assert last_attempt(log) == "two\nthree\n"


def test_the_last_error_is_found_among_other_lines() -> None:
    assert last_error("error: a\nTraceback\nValueError: b\nmore") == "ValueError: b"
    assert last_error("error: a; mend it.\n") == "a; mend it."
    assert last_error("one\ntwo\n\n") == "two"
    assert last_error("") == "no word in its log"
    assert last_error("error: a\nx.ChildFailedError: \n") == "a"
    assert last_error("words\nx.ChildFailedError: \n") == "x.ChildFailedError:"


def test_a_framed_complaint_is_told_without_its_frame() -> None:
    text = "╭─ Invalid choice ─╮\n│ invalid choice 'x' │\n│ for --method. │\n│ ──── │\n╰────╯\n"
    assert complaint(text) == "invalid choice 'x' for --method."
    assert complaint("alone") == "alone"
    assert complaint("") == ""


# Slurm's queue.


def fake_squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    program = tmp_path / "bin/squeue"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")


def test_the_queue_gives_the_state_of_each_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_squeue(tmp_path, monkeypatch, "printf '12_1 RUNNING\\n12_2 PENDING\\n9_N/A PENDING\\n'")
    assert read_queue() == {"12_1": "RUNNING", "12_2": "PENDING", "9_N/A": "PENDING"}


def test_a_queue_that_cannot_be_read_is_said_and_taken_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_squeue(tmp_path, monkeypatch, "echo 'slurm_load_jobs error: no contact' >&2; exit 1")
    assert read_queue() == {}
    said = capsys.readouterr().err
    assert said == "Slurm's queue cannot be read: slurm_load_jobs error: no contact\n"


def test_without_slurm_the_queue_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert read_queue() == {}


def test_the_queue_is_not_asked_for_runs_that_were_never_submitted(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> dict[str, str]:
        raise AssertionError

    monkeypatch.setattr(states_module, "read_queue", asked)
    assert Look.at(out).queue == {}
    submit(out, None)
    with pytest.raises(AssertionError):
        Look.at(out)


# What is printed.


def test_every_task_of_an_array_is_known_by_its_runs_folder(out: Path) -> None:
    submit(out, None, command(out, "a"), command(out, "b"))
    found = look(out).tasks
    assert found[out / "g/b"] == [Task("7_2", out / "slurm/e-7_2.log")]


def test_the_table_counts_the_states() -> None:
    runs = [Status("finished", "a"), Status("finished", "b"), Status("failed", "c", "why")]
    head, line = table({"mnist": runs}).splitlines()
    assert head.split() == ["runs", *STATES]
    assert line.split() == ["mnist", "3", "2", "-", "-", "1", "-", "-", "-"]
    assert len(head) == len(line)


def test_failed_runs_come_last_once_each_with_reason_and_log() -> None:
    failed = Status("failed", "g/c", "why", Path("x.log"))
    found = {"e": [failed, Status("running", "g/a", "epoch 1/2")], "f": [failed]}
    assert details(found) == ["running: g/a: epoch 1/2", "failed: g/c: why", "    log: x.log"]


def test_main_prints_the_table_and_the_runs(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(out, "record.json")
    lines = f"# mine\n{command(out)}\n{command(out, 'b')}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    main(["--out", str(out)])
    head, line = capsys.readouterr().out.splitlines()[:2]
    counts = dict(zip(head.split(), line.split()[1:], strict=True))
    assert {name for name, count in counts.items() if count == "1"} == {"finished", "missing"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(UserError, match="no command"):
        main(["--out", str(out)])
