import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.images import describe, find, make_jobs, photograph, render, report
from classification.image_files import ImageFiles
from common.errors import UserError


def test_every_job_runs_and_gives_its_seconds(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, render(tmp_path, 5, 40, 30), 16)
    jobs = make_jobs(files, tmp_path, 2, 12, torch.device("cpu"))
    times = {name: job() for name, job in jobs.items()}
    assert list(times) == ["reference", "decode", "fill", "read", "change", "whole"]
    assert all(math.isfinite(t) and t > 0 for t in times.values())
    assert not (tmp_path / "other").exists()


def test_the_images_have_the_form_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    describe(ImageFiles(tmp_path, render(tmp_path, 3, 100, 75), 16))
    assert capsys.readouterr().out.startswith("3 images of 100 x 75 pixels and ")


def test_amplitudes_fall_as_one_over_the_frequency() -> None:
    image = photograph(0, 128, 128).astype(float).mean(2)
    power = np.abs(np.fft.fft2(image)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    low, high = (power[abs(frequency - f) < f / 4].mean() for f in (0.05, 0.2))
    assert 10 < low / high < 24  # (0.2 / 0.05) squared: 16


def test_a_folder_s_images_are_found_and_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image"):
        find(tmp_path, 3)
    (tmp_path / "deep").mkdir()
    render(tmp_path / "deep", 7, 8, 8)
    (tmp_path / "notes.txt").touch()
    assert find(tmp_path, 3) == ["deep/0.JPEG", "deep/2.JPEG", "deep/4.JPEG"]


def test_the_report_sets_the_cache_beside_torchvision(capsys: pytest.CaptureFixture[str]) -> None:
    times = {"reference": [0.01], "decode": [0.005], "fill": [0.0052], "read": [0.0001]}
    report(times | {"change": [0.001], "whole": [0.00125]})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].endswith("normalise 100.00 (100.00 .. 100.00) images/s")
    assert lines[-2:] == [
        f"{label} {factor} ({factor} .. {factor}) times (at least 5)"
        for label, factor in (
            ("the cache over torchvision's: what a GPU waits for", "100.00"),
            ("ours with the cache over torchvision's, all here", "8.00"),
        )
    ]
    assert len(lines) == 8
