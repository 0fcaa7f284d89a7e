import math
from pathlib import Path

import pytest
import torch

from benchmarks.video import check_equal, make_jobs, read_plain, render, report, ways_of_reading
from common.errors import UserError
from data_prep.clip_file import probe_clip
from video.cache import FrameCache


def test_every_job_runs_and_gives_its_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = render(tmp_path, 2, 12, 48, 64)
    assert capsys.readouterr().out.startswith("2 clips of 12 frames, 64 x 48, H.264 of ")
    times = {n: job() for n, job in make_jobs(clips, FrameCache(tmp_path / "c", 224, 299)).items()}
    assert list(times) == [
        "plain",
        "seeking",
        "pyav",
        "decord alone",
        "decord",
        "plain, fitted",
        "pyav, fitted",
        "decord, fitted",
        "cache, fitted",
    ]
    assert all(math.isfinite(t) and t > 0 for t in times.values())


def test_the_clips_have_the_form_that_is_said(tmp_path: Path) -> None:
    first, second = render(tmp_path, 2, 5, 48, 64)
    info = probe_clip(first)
    assert (info.frames, info.height, info.width, info.rate) == (5, 48, 64, 24)
    assert first.read_bytes() != second.read_bytes()


def test_a_reader_with_other_frames_is_not_measured(tmp_path: Path) -> None:
    path = render(tmp_path, 1, 12, 48, 64)[0]
    check_equal(ways_of_reading(), path)
    with pytest.raises(UserError, match="wrong reads other frames"):
        check_equal({"wrong": lambda path: torch.flip(read_plain(path), (0,))}, path)


def test_the_report_sets_each_way_beside_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    times = {"plain": [0.5], "seeking": [1.0], "pyav": [0.1], "decord alone": [0.125]}
    times |= {"pyav, fitted": [0.2], "cache, fitted": [0.005]}
    report(times)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "PyAV, all frames to RGB, then chosen 2.00 (2.00 .. 2.00) clips/s",
        "PyAV, seeking for each frame 1.00 (1.00 .. 1.00) clips/s",
        "decord, get_batch 8.00 (8.00 .. 8.00) clips/s",
        "our reader, PyAV 10.00 (10.00 .. 10.00) clips/s",
        "our reader, PyAV, and fitted 5.00 (5.00 .. 5.00) clips/s",
        "cache (fitted frames, checked) 200.00 (200.00 .. 200.00) clips/s",
        "our reader, PyAV, over the plain loop 5.00 (5.00 .. 5.00) times",
        "our reader, PyAV, over decord 1.25 (1.25 .. 1.25) times",
        "cache over our reader, PyAV, and fitted 40.00 (40.00 .. 40.00) times",
    ]
