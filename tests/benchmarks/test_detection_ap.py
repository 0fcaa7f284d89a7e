import math

import numpy as np
import pytest

from benchmarks.detection_ap import (
    Outcome,
    Size,
    largest_difference,
    main,
    make_problem,
    measure,
    report,
)
from common.errors import UserError

pytest.importorskip("lvis")
SMALL = Size(images=6, detections=40, categories=30)


def test_every_way_runs_and_agrees() -> None:
    ours, official = (measure(name, SMALL, seed=0) for name in ("ours", "official"))
    assert isinstance(ours, Outcome)
    assert isinstance(official, Outcome)
    assert ours.precision.shape == (10, 101, 30, 4)
    assert ours.recall.shape == (10, 30, 4)
    assert largest_difference(ours, official) <= 1e-9
    assert 0.05 < ours.recall[ours.recall >= 0].mean() < 0.95
    assert ours.arrays_mib is not None
    assert 0 < ours.arrays_mib < 10
    assert all(math.isfinite(o.seconds) and o.seconds > 0 for o in (ours, official))


def test_the_data_have_the_size_that_is_said_and_their_ties() -> None:
    annotation, found = make_problem(Size(images=5, detections=300, categories=50), seed=1)
    assert [len(annotation[name]) for name in ("images", "categories", "annotations")] == [
        5,
        50,
        50,
    ]
    assert np.bincount(np.asarray(found.image_ids)).tolist() == [0] + [300] * 5
    assert len(np.unique(np.asarray(found.scores))) < 1500
    assert {one["frequency"] for one in annotation["categories"]} == {"r", "c", "f"}


def outcome(took: float, precision: float) -> Outcome:
    shape = (10, 101, 2, 4)
    values = np.full(shape, precision)
    values[:, :, 1] = -1
    return Outcome(took, 100.0, None, values, values[:, 0])


def test_the_report_sets_ours_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    ways = {"ours": outcome(0.5, 0.25), "official": outcome(10.0, 0.25)}
    assert report({**ways, "faster-coco-eval": "not installed"})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "ours 0.50 s, AP 25.0000 %, peak memory 100 MiB",
        "official 10.00 s, AP 25.0000 %, peak memory 100 MiB",
        "faster-coco-eval left out: not installed",
        "ours is 20.0 times as fast as official",
        "largest difference of ours from official: 0.0e+00",
    ]


def test_a_difference_from_the_official_package_is_reported() -> None:
    assert not report({"ours": outcome(1.0, 0.25), "official": outcome(1.0, 0.25 + 2e-9)})


def test_without_the_official_package_nothing_is_compared() -> None:
    with pytest.raises(UserError, match="Nothing to compare: no lvis"):
        report({"ours": outcome(1.0, 0.25), "official": "no lvis"})


def test_a_size_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--images", "0"])
    assert "must be at least 1, not 0" in capsys.readouterr().err
