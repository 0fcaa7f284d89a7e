"""'-clc', SimCal and Calib on the torchvision engine."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from detection.heads import CalibratedHead, SoftmaxHead
from detection.models import (
    Rcnn,
    add_calibrated_classifier,
    freeze_all_but_classifier,
    global_draws_from,
    replace_classifier,
)
from tests.detection.heads import make_head
from tests.detection.rcnn_scenes import stream, tiny, train, two_scenes

COUNTS = torch.tensor([500, 50, 3])
CLASS_LAYER = {f"roi_heads.box_predictor.cls_score.{name}" for name in ("weight", "bias")}


def weights(model: Rcnn) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: Rcnn, before: dict[str, Tensor]) -> set[str]:
    now = model.state_dict()
    return {name for name, value in before.items() if not torch.equal(now[name], value)}


def predictions(model: Rcnn) -> list[dict[str, Tensor]]:
    model.eval()
    with torch.no_grad():
        found = model(two_scenes()[0])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("method", ["focal", "lrw", "bags", "cdb-w-ce"])
def test_clc_trains_the_class_layer_and_nothing_else(method: str) -> None:
    model = tiny(masks=True)
    head = make_head(
        method,
        3,
        reduce=lambda losses, labels: losses.mean(),
        instance_counts=COUNTS,
        generator=stream(1),
    )
    replace_classifier(model, head, generator=stream(2))
    assert {id(p) for p in freeze_all_but_classifier(model)} == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    assert {n for n, p in model.named_parameters() if p.requires_grad} == CLASS_LAYER
    before = weights(model)
    totals = train(model, *two_scenes(), steps=8, rate=0.01)
    assert sum(totals[-3:]) < sum(totals[:3])
    assert changed(model, before) == CLASS_LAYER


def test_clc_samples_the_proposals_that_training_samples() -> None:
    images, targets = two_scenes()
    model = tiny(masks=True).train()
    with global_draws_from(stream(3)):
        whole = model(images, targets)
    freeze_all_but_classifier(model)
    with global_draws_from(stream(3)):
        alone = model(images, targets)
    assert set(alone) == {"loss_classifier"}
    assert torch.equal(alone["loss_classifier"], whole["loss_classifier"])


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    model = tiny().train()
    assert model.backbone.training
    freeze_all_but_classifier(model)
    for _ in range(2):
        assert not model.backbone.training
        assert not model.roi_heads.box_head.training
        assert model.training
        assert model.roi_heads.training
        model.eval()
        model.train()


def test_freezing_changes_no_prediction() -> None:
    model = tiny(masks=True)
    before = predictions(model)
    freeze_all_but_classifier(model)
    for a, b in zip(before, predictions(model), strict=True):
        assert all(torch.equal(a[name], value) for name, value in b.items())


def test_a_new_class_layer_is_drawn_from_the_generator_for_the_heads_logits() -> None:
    before = torch.get_rng_state()
    layers = []
    for seed in (1, 1, 2):
        model = tiny()
        head = make_head("bags", 3, instance_counts=COUNTS, generator=stream(0))
        replace_classifier(model, head, generator=stream(seed))
        layers.append(model.roi_heads.box_predictor.cls_score.weight)
        assert model.roi_heads.box_predictor.cls_score.out_features == head.num_logits
        assert model.roi_heads.head is head
    assert torch.equal(layers[0], layers[1])
    assert not torch.equal(layers[0], layers[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_kept_class_layer_of_another_head_is_refused() -> None:
    lrw = make_head("lrw", 3, instance_counts=torch.tensor([1, 2, 3]))
    eql = make_head("eql", 3, image_share=torch.zeros(3))
    with pytest.raises(ValueError, match="head has 4 logits, not 3"):
        replace_classifier(tiny(eql), lrw, generator=stream(1))


def test_a_head_of_other_categories_is_refused() -> None:
    with pytest.raises(ValueError, match="4 categories"):
        replace_classifier(tiny(), SoftmaxHead(4), generator=stream(0))


def calibrated(kind: Literal["simcal", "calib"], threshold: int = 100) -> Rcnn:
    model = tiny()
    train(model, *two_scenes(), steps=4)
    head = CalibratedHead(SoftmaxHead(3), SoftmaxHead(3), COUNTS, threshold)
    add_calibrated_classifier(model, head, kind, generator=stream(2))
    freeze_all_but_classifier(model)
    return model


def test_simcal_begins_with_the_detectors_own_predictions() -> None:
    model = tiny()
    train(model, *two_scenes(), steps=4)
    before = predictions(model)
    head = CalibratedHead(SoftmaxHead(3), SoftmaxHead(3), COUNTS)
    add_calibrated_classifier(model, head, "simcal", generator=stream(2))
    for a, b in zip(before, predictions(model), strict=True):
        assert all(torch.equal(a[name], value) for name, value in b.items())


@pytest.mark.parametrize("kind", ["simcal", "calib"])
def test_calibration_trains_the_second_classifier_and_nothing_else(
    kind: Literal["simcal", "calib"],
) -> None:
    model = calibrated(kind)
    before = weights(model)
    train(model, *two_scenes(), steps=2)
    assert changed(model, before) == {n for n in before if n.startswith("roi_heads.calibrated.")}


@pytest.mark.parametrize("kind", ["simcal", "calib"])
def test_only_categories_of_few_instances_take_the_calibrated_scores(
    kind: Literal["simcal", "calib"],
) -> None:
    few, none = calibrated(kind), calibrated(kind, threshold=0)
    for model in (few, none):  # The calibrated classifier is now sure of the background.
        bias = model.get_parameter("roi_heads.calibrated.cls_score.bias")
        with torch.no_grad():
            bias.copy_(torch.tensor([0.0, 0.0, 0.0, 50.0]))
    for a, b in zip(predictions(few), predictions(none), strict=True):
        assert float(b["scores"][b["labels"] > 0].max()) > 0.01
        # Category 0 has 500 instances, the others less than 100.
        for name in ("scores", "boxes"):
            own = a[name][(a["labels"] == 0) & (a["scores"] > 1e-6)]
            torch.testing.assert_close(own, b[name][b["labels"] == 0][: len(own)])
        assert bool((a["scores"][a["labels"] > 0] < 1e-6).all())


def test_an_episode_takes_instances_of_its_category_and_as_many_of_the_background() -> None:
    model = calibrated("calib").train()
    images, targets = two_scenes()
    seen: list[Tensor] = []
    loss = model.roi_heads.head.loss

    def record(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return loss(logits, labels)

    model.roi_heads.head.loss = record  # type: ignore[method-assign]
    drawn = [{**t, "drawn_for": torch.tensor(c)} for t, c in zip(targets, (2, 1), strict=True)]
    with global_draws_from(stream(3)):
        model(images, drawn)
    counts = torch.bincount(seen[0], minlength=4).tolist()
    assert counts[0] == 0  # The first image has 0 beside 2, the second one beside 1.
    assert counts[1] > 0
    assert counts[2] > 0
    assert counts[3] == counts[1] + counts[2]


def test_a_calibrated_head_that_does_not_fit_the_class_layer_is_refused() -> None:
    model = tiny(make_head("focal", 3))
    head = CalibratedHead(SoftmaxHead(3), SoftmaxHead(3), COUNTS)
    with pytest.raises(ValueError, match="4 logits, the detector 3"):
        add_calibrated_classifier(model, head, "calib", generator=stream(0))
