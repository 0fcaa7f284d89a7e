import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import (
    TASKS,
    Growth,
    Measurement,
    Watch,
    category_pairs,
    growth,
    growth_exponent,
    long_tailed_labels,
    measure_axis,
    measure_here,
    peak_bytes,
    sorted_labels,
    too_much,
    worse_than_linear,
)
from common.difficulty import ClassAccuracy
from common.sampler import (
    ClassAwareSampler,
    ClassProbabilitySampler,
    EpochSampler,
    InstanceBalancedSampler,
)
from detection.samplers import ImageDifficultySampler, RepeatFactorSampler

ROOT = Path(__file__).parents[2]
MILLION = 1_000_000


def made_up(
    size: int, seconds: float, memory: int, task: str = "frequency", axis: str = "samples"
) -> Measurement:
    samples, classes = (size, 10) if axis == "samples" else (MILLION, size)
    return Measurement(
        task, axis, samples, classes, {"a": seconds}, {"a": memory}, None, memory + 500, 500
    )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.floats(0.1, 3), st.floats(1e-9, 1e3), st.floats(1.5, 20))
def test_the_exponent_of_a_power_is_that_power(power: float, factor: float, step: float) -> None:
    sizes = [100 * step**i for i in range(3)]
    assert growth_exponent(sizes, [factor * n**power for n in sizes]) == pytest.approx(power)


def test_the_exponent_is_fitted_to_the_last_three_sizes() -> None:
    sizes = [1, 10, 100, 1000, 10_000]
    assert growth_exponent(sizes, [9, 9, 1, 100, 10_000]) == pytest.approx(2)
    # By hand: logarithms 0, 2, 3 at 0, 1, 2 have the least-squares slope (3 - 0) / 2.
    assert growth_exponent([1, 10, 100], [1, 100, 1000]) == pytest.approx(1.5)


@pytest.mark.parametrize(("sizes", "values"), [([10], [1.0]), ([1, 10], [0.0, 1.0]), ([], [])])
def test_there_is_no_exponent_without_two_values_above_0(
    sizes: list[float], values: list[float]
) -> None:
    assert growth_exponent(sizes, values) is None


def test_growth_is_told_for_each_stage_and_axis_and_what_exceeds_1_1_is_named() -> None:
    rows = growth(
        [
            *(made_up(n, 1e-6 * n**2, 8 * n) for n in (10, 100, 1000)),
            *(made_up(c, 1e-6 * c, 8 * c, axis="classes") for c in (10, 100, 1000)),
        ]
    )
    assert [(row.axis, row.stage) for row in rows] == [("samples", "a"), ("classes", "a")]
    assert (rows[0].seconds, rows[0].bytes) == pytest.approx((2.0, 1.0))
    assert worse_than_linear(rows) == ["frequency, a: seconds grow with samples to the power 2.00"]
    assert not worse_than_linear([Growth("frequency", "samples", "a", 1.1, None, None)])


def test_a_rise_by_three_random_reads_is_that_of_the_caches_in_time_but_not_in_memory() -> None:
    sizes, reads = (10**6, 10**7, 10**8), (1e-9, 40e-9, 50e-9)  # of the control
    control = [made_up(n, n * read, n, "control") for n, read in zip(sizes, reads, strict=True)]

    def shuffle(last: float) -> list[Growth]:
        each = (5e-9, 40e-9, last)
        return growth(control + [made_up(n, n * t, n) for n, t in zip(sizes, each, strict=True)])

    assert shuffle(155e-9)[-1].reads == pytest.approx(3)
    assert worse_than_linear(shuffle(154e-9)) == []
    assert len(worse_than_linear(shuffle(156e-9))) == 1
    assert len(worse_than_linear([Growth("order", "samples", "save", 1.2, 1.2, 1.0)])) == 1


def test_a_size_is_measured_until_it_would_need_too_much_and_then_said_to_be_left_out() -> None:
    asked: list[int] = []

    def measure(task: str, axis: str, samples: int, classes: int) -> Measurement:
        asked.append(samples)
        return made_up(samples, 1e-6 * samples, 100 * samples)

    sizes = [10**6, 10**4, 10**5, 10**8]  # any order
    done, left_out = measure_axis("frequency", "samples", sizes, 8.0, 60.0, measure)
    assert asked == [m.samples for m in done] == [10**4, 10**5, 10**6]
    assert [(one.size, one.why) for one in left_out] == [
        (10**8, "would need about 10 GB, 100 bytes each with inputs")
    ]


def test_time_is_limited_too() -> None:
    last = made_up(1000, 7.0, 0)
    assert too_much(last, 10_000, 8.0, 60.0) == "would take about 70 s, 7000.0 µs each"
    assert too_much(last, 10_000, 8.0, 80.0) is None


def test_the_watch_counts_processor_time_and_the_peak_of_memory() -> None:
    watch = Watch()
    watch.start()
    result = watch.time("sleep", lambda: time.sleep(0.02) or 7)
    assert result == 7
    assert watch.seconds["sleep"] < 0.015
    room = peak_bytes()  # Above all that this process has ever held.
    watch.time("hold", lambda: torch.ones(room // 4 + MILLION).sum())
    assert watch.bytes["hold"] >= 4 * MILLION
    assert watch.bytes["sleep"] <= watch.bytes["hold"]


def test_synthetic_labels_are_long_tailed_and_leave_no_class_out() -> None:
    labels = long_tailed_labels(30_000, 50)
    counts = labels.bincount(minlength=50)
    assert counts.numel() == 50
    assert int(counts.min()) >= 1
    assert 80 < float(counts[0] / counts[-1]) < 125
    assert sorted_labels(6, 3).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("task", TASKS)
def test_every_job_runs_and_names_its_stages(task: str) -> None:
    found = measure_here(task, TASKS[task].axes[0], 2000, 100)
    assert found.seconds.keys() == found.bytes.keys() != set()
    assert all(value >= 0 for value in found.seconds.values())
    assert found.process_bytes >= found.base_bytes > 0


def test_the_command_writes_numbers_and_figure(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "benchmarks.scale", "--samples", "2000", "1000"),
        *("--classes", "20", "40", "--tasks", "balancer", "order", "--out", str(tmp_path)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # 1: so tiny a size may grow in any way.
    assert done.returncode in (0, 1), done.stderr
    record = json.loads((tmp_path / "scale.json").read_text())
    sizes = [(m["task"], m["samples"], m["classes"]) for m in record["measurements"]]
    assert sizes == [
        *(("balancer", MILLION, classes) for classes in (20, 40)),
        *(("order", samples, samples // 10) for samples in (1000, 2000)),
    ]
    stages = [(row["task"], row["axis"], row["stage"]) for row in record["growth"]]
    assert stages == [
        *(("balancer", "classes", stage) for stage in ("set-up", "update")),
        ("order", "samples", "save"),
    ]
    assert 8000 <= record["measurements"][-2]["saved_bytes"] < 12_000
    assert record["command"].startswith("python -m benchmarks.scale --samples 2000 1000")
    assert record["machine"]["threads"] >= 1
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def count_in_batches(labels: torch.Tensor) -> object:
    accuracy = ClassAccuracy(1000)
    for batch in labels.split(10_000):
        accuracy.add(batch, batch)
    return accuracy.compute()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "work",
    [
        count_in_batches,
        lambda labels: InstanceBalancedSampler(labels, 1000, seeded()).draw(),
        lambda labels: ClassProbabilitySampler(labels, 1000, seeded()).draw(),
        lambda labels: ClassAwareSampler(labels, 1000, seeded()).draw(),
    ],
)
def test_a_million_samples_run_fewer_lines_of_python_than_there_are_samples(
    work: Callable[[torch.Tensor], object],
) -> None:
    labels = long_tailed_labels(MILLION, 1000)
    assert lines_run(lambda: work(labels)) < 40_000


@pytest.mark.parametrize(
    "make",
    [
        lambda image, category, n: RepeatFactorSampler(image, category, n, seeded()),
        lambda image, category, n: ImageDifficultySampler(image, category, n, 1000, seeded()),
    ],
)
def test_detection_s_samplers_run_no_line_of_python_per_image(
    make: Callable[[torch.Tensor, torch.Tensor, int], EpochSampler],
) -> None:
    image, category = category_pairs(200_000, 1000)
    assert lines_run(lambda: make(image, category, 200_000).draw()) < 2_000


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that a call runs, whatever the machine's speed."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_a_loop_over_samples_would_be_noticed() -> None:
    def loop() -> int:
        total = 0
        for i in range(50_000):
            total += i
        return total

    assert lines_run(loop) > 40_000
