import argparse
import time
from pathlib import Path

import pytest
import torch

from analysis.measured import measured_grid
from benchmarks import timing
from benchmarks.timing import at_least, interleaved, ratios, seconds, show, write_shown


def test_jobs_are_timed_in_turn_after_one_warm_up_of_each() -> None:
    calls: list[str] = []

    def job(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    times = interleaved({"a": lambda: job("a"), "b": lambda: job("b")}, rounds=2)
    assert "".join(calls) == "ababab"
    assert times == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_time_is_that_of_the_work() -> None:
    assert 0.02 <= seconds(lambda: time.sleep(0.02)) < 2


def test_a_cuda_device_is_waited_for_before_and_after_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: said.append(f"wait {device}"))
    seconds(lambda: said.append("work"), torch.device("cuda"))
    assert said == ["wait cuda", "work", "wait cuda"]
    seconds(lambda: said.append("work"), torch.device("cpu"))
    assert said[3:] == ["work"]


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 2.0], [1.0])


def test_a_line_shows_median_smallest_and_largest(capsys: pytest.CaptureFixture[str]) -> None:
    show("gain", [3.0, 1.0, 2.5], "times", "(target: at least 2)")
    show("gain", [1.0], "%")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=1)[0] == "gain"
    assert " ".join(lines[0].split()[1:]) == "2.50 (1.00 .. 3.00) times (target: at least 2)"
    assert lines[1].endswith("1.00 (1.00 .. 1.00) %")


def test_a_number_below_the_limit_is_refused() -> None:
    assert at_least(1)("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="must be at least 1, not 0"):
        at_least(1)("0")


def test_what_was_shown_is_written_as_a_file_that_pages_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_shown", [])
    show("ours", [80.63, 77.2, 84.0], "steps/s")
    show("a run", [61.549], "s")
    out = tmp_path / "mine.json"
    write_shown(out, "python -m benchmarks.mnist", 3, torch.device("cpu"))
    grid = measured_grid("x", out)
    assert grid.rows == (("ours", "80.6 (77.2 .. 84) steps/s"), ("a run", "61.5 s"))
    assert grid.note.startswith("Median (smallest .. largest) of 3 interleaved measurements")
    assert f"torch {torch.__version__.partition('+')[0]}" in grid.note


def test_without_a_file_nothing_is_written() -> None:
    write_shown(None, "", 3, torch.device("cpu"))
