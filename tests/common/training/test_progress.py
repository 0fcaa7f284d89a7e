import io
import sys
import time

import pytest

from common.training.progress import Count, EpochProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_at_most_a_line_a_second_and_always_the_last(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with EpochProgress("run", done=0, total=40) as progress:
        for epoch in range(1, 41):
            clock[0] += 0.125
            progress.show(epoch, f"loss {epoch}")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "run: epoch 0/40",
        *(f"epoch {epoch}/40  loss {epoch}" for epoch in (1, 9, 17, 25, 33, 40)),
    ]


def test_a_continued_run_begins_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    with EpochProgress("run", done=7, total=9) as progress:
        progress.show(8, "words")
    assert capsys.readouterr().out.splitlines() == ["run: epoch 7/9", "epoch 8/9  words"]


def test_each_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw, 10_000)))
    progress = EpochProgress("run", done=0, total=2)
    assert raw.getvalue() == b"run: epoch 0/2\n"
    progress.show(1, "words")
    assert raw.getvalue().endswith(b"epoch 1/2  words\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with EpochProgress("my-run", done=1, total=3) as progress:
        progress.show(2, "loss 0.1234")
        progress.show(3, "loss 0.0123")
    shown = terminal.getvalue()
    assert "my-run" in shown
    assert "3/3" in shown
    assert "loss 0.0123" in shown
    assert "epoch 3/3" not in shown


def test_a_terminal_that_cannot_draw_gets_lines(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with EpochProgress("my-run", done=1, total=3) as progress:
        for epoch in (2, 3):
            clock[0] += 2
            progress.show(epoch, "loss 0.1234")
    with Count("clips", 1) as count:
        count.advance()
    lines = ["my-run: epoch 1/3", "epoch 2/3  loss 0.1234", "epoch 3/3  loss 0.1234", "clips 1/1"]
    assert terminal.getvalue().splitlines() == lines


def test_a_count_in_a_file_is_a_line_now_and_then_and_the_last(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Count("clips", 4) as count:
        for seconds in (4.0, 2.0, 1.0, 0.0):
            clock[0] += seconds
            count.advance()
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["clips 2/4", "clips 4/4"]
    assert shown.out == ""
