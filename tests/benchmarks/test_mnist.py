import math

import pytest
import torch

from benchmarks.mnist import make_jobs, report


def test_every_job_runs_and_gives_its_seconds() -> None:
    times = {name: job() for name, job in make_jobs(usual_threads=1).items()}
    assert list(times) == [
        "plain",
        "plain, usual threads",
        "steps",
        "ce",
        "cdb-w-ce",
        "cdb-s",
        "pass",
    ]
    assert all(math.isfinite(t) and t > 0 for t in times.values())
    assert times["pass"] < times["ce"]
    assert torch.get_num_threads() == 1


def test_the_report_sets_ours_beside_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"cdb-w-ce": [0.55], "cdb-s": [0.5], "pass": [0.02]}
    report({"plain": [1.0], "plain, usual threads": [2.0], "steps": [0.5], "ce": [0.5]} | usual)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "DataLoader loop, plain 50.00 (50.00 .. 50.00) steps/s",
        "DataLoader loop, plain, usual threads 25.00 (25.00 .. 25.00) steps/s",
        "ours 100.00 (100.00 .. 100.00) steps/s",
        "ours over the plain loop 2.00 (2.00 .. 2.00) times (target: at least 2)",
        "an epoch of cdb-w-ce over one of ce 10.00 (10.00 .. 10.00) % (target: at most 8)",
        "an epoch of cdb-s over one of ce 0.00 (0.00 .. 0.00) % (target: at most 8)",
        "difficulty pass in an epoch 4.00 (4.00 .. 4.00) % (target: at most 5)",
    ]
