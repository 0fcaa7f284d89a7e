"""Detections of all images, and the command that evaluates a finished run's weights again."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import run_main
from common.training.record import read_record
from detection import evaluate
from detection.ap import evaluate_ap
from detection.data import DetectionData
from detection.evaluate import detect, measure_ap
from detection.models import Rcnn
from detection.sets import ground_truth, load_sets
from tests.detection.runs import C, config_of, make_training, options
from tests.detection.trainer import DetectionTrainer


@pytest.fixture(scope="module")
def model(shapes: Path) -> Rcnn:
    return make_training(shapes, task="mask", detections=20).model


@pytest.fixture(scope="module")
def val(shapes: Path) -> DetectionData:
    return load_sets(config_of("ce", task="mask"), shapes, shapes).val


def rows(found: Any) -> list[Any]:
    """Of Detections."""
    assert found.xywh is not None
    return [*zip(found.image_ids, found.categories, found.scores, found.xywh.tolist(), strict=True)]


def test_the_detections_are_those_of_each_image_by_itself(model: Rcnn, val: DetectionData) -> None:
    found = detect(model, val, masks=True)
    expected = []
    model.eval()
    for n in range(len(val)):
        image, target = val[n]  # type: ignore[misc]
        with torch.inference_mode():
            (prediction,) = model([image])
        for box, label, score in zip(
            prediction["boxes"].double().tolist(), prediction["labels"].tolist(),
            prediction["scores"].double().tolist(), strict=True,
        ):  # fmt: skip
            x1, y1, x2, y2 = box
            expected.append((target["image_id"], label, score, [x1, y1, x2 - x1, y2 - y1]))
    assert rows(found) == expected
    assert len(expected) == 20 * len(val)
    assert found.masks is not None
    assert [tuple(mask["size"]) for mask in found.masks] == [(40, 56)] * len(expected)


def test_masks_that_are_not_wanted_are_not_computed(
    model: Rcnn, val: DetectionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_masks = detect(model, val, masks=True)
    monkeypatch.delattr(type(model.roi_heads), "_mask_logits")
    without = detect(model, val, masks=False)
    assert without.masks is None
    assert rows(without) == rows(with_masks)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_model_keeps_its_mode_and_its_masks(
    model: Rcnn, val: DetectionData, monkeypatch: pytest.MonkeyPatch, training: bool, fails: bool
) -> None:
    model.train(training)
    pool = model.roi_heads.mask_roi_pool
    if fails:
        monkeypatch.delattr(type(model.roi_heads), "_detect")
        with pytest.raises(AttributeError):
            detect(model, val, masks=False)
    else:
        detect(model, val, masks=False)
    assert model.training is training
    assert model.roi_heads.mask_roi_pool is pool is not None


class Oracle(nn.Module):
    """Finds what is there: images are told apart by their pixels."""

    def __init__(self, data: DetectionData, wrong: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.roi_heads = nn.Module()
        self.roi_heads.mask_roi_pool = None
        self.known = [data[n] for n in range(len(data))]
        self.wrong = wrong

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        (image,) = images
        (target,) = [t for i, t in self.known if torch.equal(i, image)]  # type: ignore[misc]
        labels = (target["labels"] + self.wrong) % C
        scores = torch.full((len(labels),), 0.5)
        return [{"boxes": target["boxes"], "labels": labels, "scores": scores,
                 "masks": target["masks"]}]  # fmt: skip


@pytest.mark.parametrize(("wrong", "ap"), [(0, 1.0), (1, 0.0)])
def test_a_detector_that_finds_all_has_ap_1_and_one_that_confuses_all_has_0(
    val: DetectionData, wrong: int, ap: float
) -> None:
    results = measure_ap(Oracle(val, wrong), val, masks=True)  # type: ignore[arg-type]
    metrics = evaluate.metrics_of(results)
    for kind in ("bbox", "segm"):
        assert results[kind].category_ap[:-1] == pytest.approx([ap] * (C - 1))
        assert np.isnan(results[kind].category_ap[-1])
        assert metrics[kind]["AP"] == pytest.approx(100 * ap)
        # In percent; of a category without instances nothing is said.
        assert metrics[kind]["category_ap"][-1] is None


def test_no_detection_at_all_gives_ap_0(val: DetectionData) -> None:
    class Blind(Oracle):
        def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
            return [{k: v[:0] for k, v in super().forward(images)[0].items()}]

    results = measure_ap(Blind(val), val, masks=True)  # type: ignore[arg-type]
    for result in results.values():
        assert (result.category_ap[:-1] == 0).all()


def test_the_ap_is_that_of_the_detections(model: Rcnn, val: DetectionData) -> None:
    found = detect(model, val, masks=True)
    truth = ground_truth(val.annotations, masks=True)
    results = measure_ap(model, val, masks=True)
    assert results.keys() == {"bbox", "segm"}
    for kind in ("bbox", "segm"):
        expected = evaluate_ap(truth, found, kind)  # type: ignore[arg-type]
        assert np.array_equal(results[kind].category_ap, expected.category_ap, equal_nan=True)


# The command.


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    places = ("--data", str(folder), "--images", str(folder))
    monkeypatch.setattr(sys, "argv", ["detection.evaluate", *words, *places])
    run_main(evaluate.main)


@pytest.mark.parametrize(
    "run",
    [options("cdb-w-ce"), options("ce", task="mask"), options("simcal", second=True, task="mask")],
)
def test_it_gives_the_records_numbers_again(
    trainer: DetectionTrainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: tuple[str, ...],
) -> None:
    path = trainer.reference(*run)
    seen: list[Any] = []
    metrics_of = evaluate.metrics_of

    def kept(results: Any) -> Any:
        seen.append(metrics_of(results))
        return seen[-1]

    monkeypatch.setattr(evaluate, "metrics_of", kept)
    call(monkeypatch, trainer.data, str(path))
    last = read_record(path / "record.json")["metrics"]["last"]
    assert seen == [{kind: values for kind, values in last.items() if kind != "epoch"}]
    assert capsys.readouterr().out.startswith(f"{evaluate.describe(last)}  (")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("weights.pt", None, "the run has not finished"),
        ("weights.pt", b"nothing", "is truncated or damaged"),
        ("config.json", None, "is not the folder of a detection run"),
        ("config.json", b'{"recipe": "mnist-lt"}', "is not the folder of a detection run"),
        ("config.json", b'{"recipe": "lvis", "dataset": "coco"}', "is not one of lvis-v0.5"),
    ],
)
def test_a_folder_it_cannot_use_is_refused_by_name(
    trainer: DetectionTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes | None,
    words: str,
) -> None:
    run = shutil.copytree(trainer.reference(*options("cdb-w-ce")), tmp_path / "run")
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, trainer.data, str(run))
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
