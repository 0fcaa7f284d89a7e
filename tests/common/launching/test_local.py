import io
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import common.launching.local as local_module
from common.errors import UserError
from common.files import IN_USE
from common.launching.local import (
    Command,
    Display,
    Launcher,
    Run,
    child_environment,
    describe_seconds,
    launch,
    read_commands,
    remaining_seconds,
    seconds_by_kind,
)

ROOT = Path(__file__).parents[3]


def train(method: str, seed: int) -> Command:
    return Command(("python", "-m", "train", "--method", method, "--seed", str(seed)))


def make_run(command: Command, started: float = 0.0) -> Run:
    return Run(command, Path("unused.log"), started=started)


def finished_run(command: Command, seconds: float) -> Run:
    run = make_run(command)
    run.exit_code, run.seconds = 0, seconds
    return run


def run_launcher(
    tmp_path: Path, lines: list[str], *options: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "common.launching.local",
            "--logs",
            str(tmp_path / "logs"),
            *options,
        ],
        cwd=ROOT,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
    )


def start_launcher(tmp_path: Path, lines: list[str]) -> "subprocess.Popen[str]":
    commands = tmp_path / "commands.txt"
    commands.write_text("\n".join(lines))
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "common.launching.local",
            "--logs",
            str(tmp_path / "logs"),
            str(commands),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# ---- what is read


def test_kind_is_the_command_without_its_seed() -> None:
    assert train("ce", 0).kind == train("ce", 7).kind
    assert train("ce", 0).kind != train("l2rw", 0).kind
    assert Command(("a", "--seed=1", "b")).kind == ("a", "b")
    assert Command(("a", "--seed", "1", "b")).kind == ("a", "b")


def test_commands_are_split_as_by_a_shell_without_comments_and_repetitions() -> None:
    text = "# head\n\necho 'a b'  # why\necho c\\ d\necho 'a b'\n"
    assert [c.words for c in read_commands(text, "x")] == [("echo", "a b"), ("echo", "c d")]


@pytest.mark.parametrize(
    ("text", "expected"), [("echo 'a", "line 1"), ("\n# none\n", "no command")]
)
def test_unreadable_commands_are_a_user_error(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        read_commands(text, "commands.txt")


def test_log_is_named_after_the_arguments_without_interpreter_and_folder() -> None:
    words = ".venv/bin/python -m classification.train mnist-lt --tau 0.5 --seed 3 --out /data/runs"
    assert Command(tuple(words.split())).log_name == "mnist-lt_tau-0.5_seed-3.log"


def test_epoch_lines_give_the_progress() -> None:
    run = make_run(train("ce", 0), started=100.0)
    run.hear(b"ce: epoch 0/20\nepoch 1/20 loss 0.3\nepoch 2/20 loss 0.2\n", now=110.0)
    run.hear(b"saved\n", now=111.0)
    assert (run.epoch, run.epochs, run.resumed_at, run.heard) == (2, 20, 0, 110.0)


@pytest.mark.parametrize("text", [b"epoch 0/0\n", b"epoch 21/20\n", b"epochs 3/20\n", b"3/20\n"])
def test_other_lines_are_no_progress(text: bytes) -> None:
    run = make_run(train("ce", 0))
    run.hear(text, now=1.0)
    assert run.epochs == 0


def test_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    run = Run(train("ce", 0), tmp_path / "log")
    run.log.write_bytes(b"epoch 1/20\nepoch 1")
    run.read_log(1.0)
    assert run.epoch == 1
    run.log.write_bytes(b"epoch 1/20\nepoch 12/20\n")
    run.read_log(2.0)
    assert run.epoch == 12


# ---- the estimate, worked by hand


def test_kind_takes_total_seconds_over_total_work() -> None:
    half = make_run(train("ce", 1))
    half.hear(b"epoch 0/10\nepoch 5/10\n", now=50.0)
    # 100 s for a whole run and 50 s for half of one: 150 s / 1.5.
    measured = seconds_by_kind([finished_run(train("ce", 0), 100.0), half])
    assert measured == {train("ce", 0).kind: pytest.approx(100.0)}


def test_finished_and_running_measurements_are_weighted_by_work() -> None:
    half = make_run(train("ce", 1))
    half.hear(b"epoch 0/10\nepoch 5/10\n", now=80.0)
    # (100 + 80) / 1.5, not the mean of 100 and 160.
    measured = seconds_by_kind([finished_run(train("ce", 0), 100.0), half])
    assert measured[train("ce", 0).kind] == pytest.approx(120.0)


def test_resumed_run_counts_only_what_it_did_itself() -> None:
    run = make_run(train("ce", 0))
    run.hear(
        b"ce: epoch 7/10\nepoch 8/10\n", now=10.0
    )  # one tenth of a run in 10 s, 7 epochs were there before
    assert seconds_by_kind([run])[run.command.kind] == pytest.approx(100.0)
    assert remaining_seconds([run], [], 1, now=10.0) == pytest.approx(20.0)
    run.exit_code, run.seconds = 0, 33.0  # three tenths in 33 s
    assert seconds_by_kind([run])[run.command.kind] == pytest.approx(110.0)


def test_remaining_is_unknown_until_something_is_measured() -> None:
    silent, resumed = make_run(train("ce", 0)), make_run(train("ce", 1))
    resumed.hear(b"ce: epoch 7/10\n", now=4.0)  # work of an earlier start, in unknown time
    assert remaining_seconds([silent, resumed], [train("ce", 2)], 2, now=5.0) is None


def test_runs_finished_already_and_failed_runs_measure_nothing() -> None:
    already, failed = finished_run(train("ce", 0), 2.0), finished_run(train("ce", 1), 2.0)
    already.already = True
    failed.exit_code = 1
    assert remaining_seconds([already, failed], [train("ce", 2)], 1, now=5.0) is None
    slow = finished_run(train("ce", 3), 100.0)
    assert remaining_seconds([already, failed, slow], [train("ce", 2)], 1, now=5.0) == 100.0


def test_nothing_left_is_zero_seconds() -> None:
    assert remaining_seconds([finished_run(train("ce", 0), 9.0)], [], 2, now=9.0) == 0.0


def test_running_remainder_shrinks_with_the_clock_between_epochs() -> None:
    run = make_run(train("ce", 0))
    run.hear(b"epoch 0/10\nepoch 5/10\n", now=50.0)
    assert remaining_seconds([run], [], 1, now=50.0) == pytest.approx(50.0)
    assert remaining_seconds([run], [], 1, now=70.0) == pytest.approx(30.0)
    assert remaining_seconds([run], [], 1, now=500.0) == 0.0


def test_queue_is_played_through_on_the_free_jobs() -> None:
    half = make_run(train("ce", 1))
    half.hear(b"epoch 0/10\nepoch 5/10\n", now=50.0)  # 50 s left of 100
    queue = [train("ce", seed) for seed in (2, 3, 4)]
    # Job 1 is free at 50, job 2 at 0: 0-100, 50-150, 100-200.
    assert remaining_seconds([half], queue, 2, now=50.0) == pytest.approx(200.0)
    # One job: 50 + 3 * 100.
    assert remaining_seconds([half], queue, 1, now=50.0) == pytest.approx(350.0)


def test_remaining_is_never_less_than_the_longest_running_run() -> None:
    long = make_run(train("l2rw", 0))
    long.hear(b"epoch 0/10\nepoch 1/10\n", now=100.0)  # 900 s left
    short = finished_run(train("ce", 0), 10.0)
    assert remaining_seconds([long, short], [train("ce", 1)], 8, now=100.0) == pytest.approx(900.0)


def test_kind_not_seen_takes_the_mean_of_those_seen() -> None:
    runs = [finished_run(train("ce", 0), 20.0), finished_run(train("l2rw", 0), 100.0)]
    assert remaining_seconds(runs, [train("cb", 0)], 2, now=120.0) == pytest.approx(60.0)


def test_running_run_without_an_epoch_line_counts_from_its_start() -> None:
    runs = [finished_run(train("ce", 0), 100.0), make_run(train("ce", 1), started=100.0)]
    assert remaining_seconds(runs, [], 1, now=130.0) == pytest.approx(70.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (61, "2 min"), (3600, "1 h 00 min"),
     (3900, "1 h 05 min")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert describe_seconds(seconds) == words


# ---- runs of real, small commands


def test_all_succeed(tmp_path: Path) -> None:
    result = run_launcher(tmp_path, ["echo one", "sh -c 'echo finished already: two'"], "-j", "2")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 finished (1 of them already), 0 failed" in result.stdout
    assert (tmp_path / "logs" / "echo-one.log").read_text() == "$ echo one\none\n"


def test_failure_does_not_stop_the_others_and_is_named_at_the_end(tmp_path: Path) -> None:
    lines = ["sh -c 'echo first; echo the reason; exit 3'", "touch " + str(tmp_path / "done")]
    result = run_launcher(tmp_path, lines)
    assert result.returncode == 1
    assert (tmp_path / "done").exists()
    assert "1 of 2 finished (0 of them already), 1 failed" in result.stdout
    assert f"failed with exit code 3: {lines[0]}\n    the reason\n" in result.stderr


def test_only_user_errors_give_exit_code_2(tmp_path: Path) -> None:
    assert run_launcher(tmp_path, ["sh -c 'exit 2'", "true"]).returncode == 2
    assert run_launcher(tmp_path, ["sh -c 'exit 2'", "sh -c 'exit 3'"]).returncode == 1


def test_command_that_does_not_exist_fails_alone(tmp_path: Path) -> None:
    result = run_launcher(tmp_path, ["no-such-command-here x", "true"])
    assert result.returncode == 1
    assert "1 of 2 finished" in result.stdout
    assert "no-such-command-here cannot be started" in result.stderr


def test_second_launch_keeps_the_first_log(tmp_path: Path) -> None:
    for _ in range(2):
        run_launcher(tmp_path, ["echo one"])
    assert (tmp_path / "logs" / "echo-one.log").read_text() == "$ echo one\none\n" * 2


def test_two_launches_at_once_tell_their_own_runs_and_that_another_is_at_work(
    tmp_path: Path,
) -> None:
    # As two starts of one run: the second waits for the first, and then finds it finished.
    go, first = tmp_path / "go", tmp_path / "first"
    script = (
        f"if mkdir {first} 2>/dev/null; then while [ ! -e {go} ]; do sleep 0.05; done; "
        f"else echo x {IN_USE}; touch {go}; echo finished already; fi"
    )
    line = shlex.join(["sh", "-c", script])
    one = start_launcher(tmp_path, [line])
    wait_until(first.exists)
    other = run_launcher(tmp_path, [line])
    said, _ = one.communicate(timeout=60)
    assert "1 of 1 finished (0 of them already), 0 failed" in said
    by_another = "1 of 1 finished (1 of them already, 1 by another process meanwhile), 0 failed"
    assert by_another in other.stdout
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_a_run_that_waits_for_another_process_is_said(tmp_path: Path) -> None:
    launcher = Launcher([train("ce", 0), train("ce", 1)], jobs=2, logs=tmp_path)
    launcher.runs = [make_run(launcher.queue.pop(0)), make_run(launcher.queue.pop(0))]
    launcher.runs[1].hear(f"runs/x {IN_USE}; waiting for it\n".encode(), now=1.0)
    waiting = "2 running (1 wait for another process that has the run in hand)"
    assert waiting in launcher.status(now=2.0)
    launcher.runs[1].hear(b"epoch 0/10\n", now=3.0)
    assert "2 running, 0 failed" in launcher.status(now=4.0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_commands_are_the_bytes_that_were_written_in_any_encoding(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "é猫"
    folder.mkdir()
    (tmp_path / "commands.txt").write_text(f"touch '{folder}/made'\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    with (tmp_path / "commands.txt").open() as commands:
        run = subprocess.run(
            [sys.executable, "-m", "common.launching.local", "--logs", tmp_path / "logs"],
            cwd=ROOT, stdin=commands, capture_output=True, timeout=60,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert (folder / "made").exists()


def test_old_log_is_no_progress_of_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "sh--c-true.log").write_text("finished already: long ago\n")
    launcher = Launcher([Command(("sh", "-c", "true"))], jobs=1, logs=tmp_path)
    launch(launcher, Display(launcher, Console(file=io.StringIO())))
    assert [run.already for run in launcher.runs] == [False]


def test_two_commands_of_one_name_have_two_logs(tmp_path: Path) -> None:
    assert run_launcher(tmp_path, ["echo 'a b'", "echo a b"]).returncode == 0
    assert len(list((tmp_path / "logs").iterdir())) == 2


class CountingDisplay(Display):
    most_running = 0

    def update(self, now: float) -> None:
        self.most_running = max(self.most_running, len(self._launcher.running))


def test_never_more_than_the_given_number_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "READ_SECONDS", 0.0)
    commands = [Command(("sleep", f"0.{number}")) for number in (21, 22, 23, 24, 25)]
    launcher = Launcher(commands, jobs=3, logs=tmp_path)
    display = CountingDisplay(launcher, Console(file=io.StringIO()))
    launch(launcher, display)
    assert display.most_running == 3
    assert [run.exit_code for run in launcher.runs] == [0] * 5
    assert [run.command for run in launcher.runs] == commands


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_the_running_and_starts_no_other(tmp_path: Path, number: int) -> None:
    started, ended, next_one = (tmp_path / name for name in ("started", "ended", "next"))
    loop = f'trap "touch {ended}; exit 1" TERM; touch {started}; while :; do sleep 0.05; done'
    process = start_launcher(tmp_path, [f"sh -c '{loop}'", f"touch {next_one}"])
    wait_until(started.exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 128 + number
    assert "interrupted" in errors
    assert ended.exists()
    assert not next_one.exists()


def test_children_of_a_run_end_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    process = start_launcher(tmp_path, [f"sh -c 'sleep 60 & echo $! > {pid_file}; wait'"])
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
    process.terminate()
    process.communicate(timeout=90)
    grandchild = int(pid_file.read_text())
    wait_until(lambda: not is_alive(grandchild))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_run_that_ignores_the_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "GRACE_SECONDS", 0.2)
    ready = tmp_path / "ready"
    stubborn = f'trap "" TERM; touch {ready}; while :; do sleep 0.05; done'
    launcher = Launcher([Command(("sh", "-c", stubborn))], jobs=1, logs=tmp_path)
    launcher.step()
    wait_until(ready.exists)
    launcher.stop()
    process = launcher.runs[0].process
    assert process is not None
    assert process.returncode == -signal.SIGKILL


# ---- what is shown


def test_status_counts_and_says_when_it_does_not_know(tmp_path: Path) -> None:
    launcher = Launcher([train("ce", seed) for seed in range(4)], jobs=2, logs=tmp_path)
    bad = finished_run(launcher.queue.pop(0), 1.0)
    bad.exit_code = 1
    launcher.runs = [bad, make_run(launcher.queue.pop(0))]
    counts = "0 of 4 finished, 1 running, 1 failed, "
    assert launcher.status(now=10.0) == counts + "estimating the time left"
    launcher.runs[1].hear(b"epoch 0/10\nepoch 1/10\n", now=10.0)
    # 100 s a run; job 1 is free at 90, job 2 at 0: 0-100 and 90-190.
    assert launcher.status(now=10.0) == counts + "about 4 min left"


def test_terminal_shows_a_bar_with_parts_of_runs(tmp_path: Path) -> None:
    launcher = Launcher([train("ce", 0), train("ce", 1)], jobs=1, logs=tmp_path)
    launcher.runs = [make_run(launcher.queue.pop(0))]
    launcher.runs[0].hear(b"epoch 0/10\nepoch 5/10\n", now=50.0)
    assert launcher.work_done == pytest.approx(0.5)
    text = io.StringIO()
    with Display(launcher, Console(file=text, force_terminal=True, width=150)) as display:
        display.update(now=50.0)
    assert "0 of 2 finished, 1 running, 0 failed, about 3 min left" in text.getvalue()


def test_plain_line_comes_every_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = Launcher([train("ce", 0)], jobs=1, logs=tmp_path)
    with Display(launcher, Console(file=io.StringIO())) as display:
        for now in (100.0, 101.0, 109.9, 110.0, 111.0):
            display.update(now)
    assert capsys.readouterr().out.count("0 of 1 finished") == 2


def test_a_terminal_that_cannot_draw_gets_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    launcher = Launcher([train("ce", 0)], jobs=1, logs=tmp_path)
    with Display(launcher, Console(force_terminal=True)) as display:
        display.update(100.0)
    assert "0 of 1 finished" in capsys.readouterr().out


# ---- surroundings


@pytest.mark.parametrize(("users", "expected"), [({}, "0 1"), ({"GOMP_SPINCOUNT": "7"}, "7 1")])
def test_runs_get_one_quiet_thread_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: dict[str, str], expected: str
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    run_launcher(tmp_path, ["sh -c 'echo $GOMP_SPINCOUNT $OMP_NUM_THREADS'"])
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text().splitlines()[1] == expected


def test_environment_of_the_user_reaches_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = child_environment()
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["PATH"] == os.environ["PATH"]


def test_launcher_does_not_load_torch() -> None:
    code = "import sys, common.launching.local; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("options", [("-j", "0"), ("no-such-file.txt",)])
def test_senseless_options_are_one_sentence(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run_launcher(tmp_path, ["true"], *options)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_logs_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the way")
    result = run_launcher(tmp_path, ["true"])
    assert result.returncode == 2
    assert str(tmp_path / "logs") in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_first_epochs_of_a_run_say_nothing_yet() -> None:
    """Two of a hundred epochs in 10 s are mostly start-up; from five on they count."""
    run = Run(Command(("a",)), Path("a.log"), started=0.0)
    run.hear(b"epoch 0/100\nepoch 2/100\n", now=10.0)
    assert remaining_seconds([run], [], jobs=1, now=10.0) is None
    run.hear(b"epoch 5/100\n", now=20.0)
    assert remaining_seconds([run], [], jobs=1, now=20.0) == pytest.approx(20.0 / 0.05 * 0.95)
