"""Losses and predictions of the torchvision engine."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from detection.heads import ClassificationHead, SoftmaxHead
from detection.models import ProposalAccuracy, Rcnn, build_rcnn, global_draws_from, total_loss
from detection.models.roi_heads import MaskPredictor
from tests.detection.heads import make_head, mean_by_class
from tests.detection.rcnn_scenes import SIDE, TINY, Target, scene, stream, tiny, train, two_scenes

COUNTS = torch.tensor([500, 50, 3])
LOSSES = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


@pytest.fixture(autouse=True)
def global_generator_untouched() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def losses_of(model: Rcnn, images: list[Tensor], targets: list[Target], seed: int = 3) -> Any:
    model.train()
    with global_draws_from(stream(seed)):
        return model(images, targets)


def predict(model: Rcnn, images: list[Tensor]) -> Any:
    model.eval()
    with torch.no_grad():
        return model(images)


# ---- the same as torchvision ----


def with_background_first(ours: Tensor, of_each: int = 1) -> Tensor:
    """torchvision's parameter from ours, which has no row for the background: zeros."""
    return torch.cat([ours.new_zeros(of_each, *ours.shape[1:]), ours])


def copy_into(layer: nn.Module, source: nn.Module, of_each: int) -> None:
    for name, value in source.state_dict().items():
        layer.state_dict()[name].copy_(with_background_first(value, of_each))


def torchvisions(model: Rcnn) -> GeneralizedRCNN:
    """torchvision's own detector with the weights of ``model``."""
    ours = model.roi_heads
    c = ours.num_classes
    with global_draws_from(stream(0)):
        predictor = FastRCNNPredictor(ours.box_predictor.cls_score.in_features, c + 1)
        copy_into(predictor.bbox_pred, ours.box_predictor.bbox_pred, 4)
        for name, value in ours.box_predictor.cls_score.state_dict().items():
            predictor.cls_score.state_dict()[name].copy_(value.roll(1, 0))
        masks: tuple[Any, ...] = ()
        if ours.has_mask():
            channels = ours.mask_predictor.conv5_mask.in_channels
            mask_predictor = MaskRCNNPredictor(channels, channels, c + 1)
            own = ours.mask_predictor
            mask_predictor.conv5_mask.load_state_dict(own.conv5_mask.state_dict())
            copy_into(mask_predictor.mask_fcn_logits, own.mask_fcn_logits, 1)
            masks = (ours.mask_roi_pool, ours.mask_head, mask_predictor)
    numbers = (0.5, 0.5, TINY.sampled_proposals, 0.25, None)
    after = (ours.score_thresh, 0.5, ours.detections_per_img)
    heads = RoIHeads(ours.box_roi_pool, ours.box_head, predictor, *numbers, *after, *masks)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    transform = GeneralizedRCNNTransform(SIDE, SIDE, mean, std, size_divisible=16)
    return GeneralizedRCNN(model.backbone, model.rpn, heads, transform)


@pytest.fixture(scope="module", params=[False, True], ids=["boxes", "masks"])
def trained(request: pytest.FixtureRequest) -> Rcnn:
    """After a few steps: scores and boxes that are not those of the start."""
    model = tiny(masks=request.param)
    train(model, *two_scenes(), steps=10)
    return model


def test_with_a_softmax_head_the_losses_are_torchvisions(trained: Rcnn) -> None:
    model, masks = trained, trained.roi_heads.has_mask()
    images, targets = two_scenes()
    ours = losses_of(model, images, targets)
    stock = torchvisions(model).train()
    with global_draws_from(stream(3)):
        theirs = stock(
            [image / 255.0 for image in images],
            [{**target, "labels": target["labels"] + 1} for target in targets],
        )
    assert set(ours) == set(theirs) == LOSSES | ({"loss_mask"} if masks else set())
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_with_a_softmax_head_the_predictions_are_torchvisions(
    trained: Rcnn, threshold: float
) -> None:
    model, masks = trained, trained.roi_heads.has_mask()
    images, _ = two_scenes()
    model.roi_heads.score_thresh = threshold
    # 2 detections need several rounds of candidates, 200 are more than there are.
    for detections in (2, 200):
        model.roi_heads.detections_per_img = detections
        ours = predict(model, images)
        stock = torchvisions(model).eval()
        with torch.no_grad():
            theirs = stock([image / 255.0 for image in images])
        for mine, other in zip(ours, theirs, strict=True):
            assert len(mine["scores"]) > 0
            torch.testing.assert_close(mine["scores"], other["scores"])
            torch.testing.assert_close(mine["boxes"], other["boxes"])
            assert torch.equal(mine["labels"], other["labels"] - 1)
            if masks:
                assert torch.equal(mine["masks"].bool(), other["masks"][:, 0] >= 0.5)


def plain_detections(
    model: Rcnn, scores: Tensor, deltas: Tensor, proposals: Tensor
) -> list[tuple[float, int, list[float]]]:
    """Each candidate in turn, best first: kept unless a better one of its category covers it."""
    heads = model.roi_heads
    kept: list[tuple[float, int, Tensor]] = []
    boxes = heads.box_coder.decode(deltas, [proposals]).clamp(0, SIDE)
    order = sorted(
        ((float(s), r, c) for r, row in enumerate(scores.tolist()) for c, s in enumerate(row)),
        reverse=True,
    )
    for score, r, c in order:
        box = boxes[r, c]
        covered = any(k == c and box_iou(b[None], box[None]) > 0.5 for _, k, b in kept)
        if score > heads.score_thresh and not covered:
            kept.append((score, c, box))
    return [(s, c, box.tolist()) for s, c, box in kept[: heads.detections_per_img]]


@pytest.mark.parametrize("detections", [1, 5, 1000])
def test_detections_are_those_of_the_literal_algorithm(detections: int) -> None:
    model = tiny(detections_per_image=detections, score_threshold=0.05)
    draws = stream(1)
    corners = torch.rand(25, 2, generator=draws) * 30
    proposals = torch.cat([corners, corners + 20], dim=1)
    # Of one score for many candidates the order would be anyone's: these are all different.
    scores = torch.randperm(75, generator=draws).view(25, 3) / 75
    deltas = torch.randn(25, 12, generator=draws) * 0.5
    found = model.roi_heads._detect_in_image(scores, deltas, proposals, (SIDE, SIDE))
    expected = plain_detections(model, scores, deltas, proposals)
    assert len(expected) == min(detections, len(expected))
    assert found["labels"].tolist() == [c for _, c, _ in expected]
    torch.testing.assert_close(found["scores"], torch.tensor([s for s, _, _ in expected]))
    torch.testing.assert_close(found["boxes"], torch.tensor([b for _, _, b in expected]))


def test_scores_that_are_not_numbers_are_no_detections() -> None:
    model = tiny()
    scores = torch.full((4, 3), torch.nan)
    proposals = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).repeat(4, 1)
    found = model.roi_heads._detect_in_image(scores, torch.zeros(4, 12), proposals, (SIDE, SIDE))
    assert len(found["scores"]) == 0


def test_a_mask_is_the_one_that_torchvision_computes_beside_all_others() -> None:
    with global_draws_from(stream(0)):
        predictor = MaskPredictor(8, 8, 5)
        features, labels = torch.randn(6, 8, 7, 7), torch.tensor([4, 0, 0, 2, 1, 3])
    bias = predictor.get_parameter("mask_fcn_logits.bias")
    nn.init.normal_(bias, generator=stream(1))
    every = predictor.mask_fcn_logits(F.relu(predictor.conv5_mask(features)))
    torch.testing.assert_close(predictor(features, labels), every[torch.arange(6), labels])


# ---- every head ----


def heads() -> dict[str, ClassificationHead]:
    weights = partial(mean_by_class, torch.tensor([0.3, 0.9, 1.8, 1.0]), "batch-size")
    share = torch.tensor([0.5, 0.1, 0.001])
    return {
        name: make_head(
            name, 3, reduce=weights, instance_counts=COUNTS, image_share=share,
            generator=stream(4),
        )
        for name in ("ce", "cdb-w-ce", "focal", "lrw", "eql", "bags")
    }  # fmt: skip


@pytest.mark.parametrize("name", heads())
def test_the_loss_of_every_head_falls(name: str) -> None:
    images, targets = two_scenes()
    # Not from the first step on: boxes that are not moved yet cost little.
    totals = train(tiny(heads()[name]), images, targets, steps=12)[1:]
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])


@pytest.mark.parametrize("name", heads())
def test_every_head_predicts_category_indices_with_scores_best_first(name: str) -> None:
    for found in predict(tiny(heads()[name]), two_scenes()[0]):
        assert found["labels"].dtype == torch.int64
        assert set(found["labels"].tolist()) <= {0, 1, 2}
        assert bool((found["scores"].diff() <= 0).all())
        assert bool(((found["scores"] > 0) & (found["scores"] <= 1)).all())
        assert bool(((found["boxes"] >= 0) & (found["boxes"] <= SIDE)).all())


def test_the_weights_of_the_balancer_reach_the_loss_in_place() -> None:
    balancer = ClassDifficultyBalancer(3)
    reduce = partial(balancer.weighted_mean, background_weight=1.0)
    model = tiny(make_head("cdb-w-ce", 3, reduce=reduce))
    images, targets = two_scenes()
    equal = losses_of(model, images, targets)["loss_classifier"].detach()
    balancer.class_weights.zero_()
    background = losses_of(model, images, targets)["loss_classifier"].detach()
    assert 0 < float(background) < float(equal)


def test_a_sigmoid_head_begins_with_small_scores() -> None:
    images, _ = two_scenes()
    scores = torch.cat([found["scores"] for found in predict(tiny(heads()["focal"]), images)])
    assert 0.005 < float(scores.mean()) < 0.02


def test_a_trained_detector_finds_the_instances_it_was_trained_on() -> None:
    images, targets = two_scenes()
    model = tiny(masks=True)
    train(model, images, targets, steps=50)
    for found, target in zip(predict(model, images), targets, strict=True):
        for box, label, mask in zip(
            *(target[k] for k in ("boxes", "labels", "masks")), strict=True
        ):
            own = torch.where((found["labels"] == label) & (found["scores"] > 0.3))[0]
            overlap, best = box_iou(box[None], found["boxes"][own])[0].max(dim=0)
            assert float(overlap) > 0.5
            inside = found["masks"][own[best]].bool()
            truth = mask.bool()
            assert float((inside & truth).sum() / (inside | truth).sum()) > 0.5
    # The same model, for the difficulty measured from proposals.
    accuracy = model.roi_heads.proposal_accuracy = ProposalAccuracy(3)
    losses_of(model, images, targets)
    assert bool((accuracy.compute() > 0.8).all())


# ---- inputs ----


def test_bytes_and_floats_between_0_and_1_are_the_same_image() -> None:
    model, (images, _) = tiny(), two_scenes()
    for a, b in zip(predict(model, images), predict(model, [i / 255 for i in images]), strict=True):
        assert torch.equal(a["scores"], b["scores"])


def test_images_without_annotations_are_trained_on_as_background() -> None:
    images, targets = two_scenes()
    model = tiny(masks=True)
    losses = losses_of(model, images, [scene([], []), scene([], [])])
    assert losses["loss_mask"].item() == losses["loss_box_reg"].item() == 0.0
    assert all(bool(value.isfinite()) for value in losses.values())
    total_loss(losses).backward()
    # Under DistributedDataParallel a parameter without gradient would hang the others.
    assert all(p.grad is not None for p in model.parameters())
    mixed = losses_of(model, images, [targets[0], scene([], [])])
    assert mixed["loss_mask"].item() > 0


def test_targets_stay_as_they_were() -> None:
    images, targets = two_scenes()
    before = [{k: v.clone() for k, v in target.items()} for target in targets]
    losses_of(tiny(masks=True), images, targets)
    for target, old in zip(targets, before, strict=True):
        assert all(torch.equal(target[k], v) for k, v in old.items())


def test_boxes_and_masks_come_back_in_the_pixels_of_each_image() -> None:
    model = tiny(masks=True)
    images = [torch.zeros(3, 40, 90, dtype=torch.uint8), torch.zeros(3, 128, 100)]
    for image, found in zip(images, predict(model, images), strict=True):
        height, width = image.shape[1:]
        assert found["masks"].shape == (len(found["scores"]), height, width)
        assert found["masks"].dtype == torch.uint8
        assert float(found["boxes"][:, 2].max()) > width / 2
        assert bool((found["boxes"] <= torch.tensor([width, height] * 2) + 1e-3).all())


def test_nothing_found_is_an_empty_prediction() -> None:
    for found in predict(tiny(masks=True, score_threshold=0.999), two_scenes()[0]):
        assert found["boxes"].shape == (0, 4)
        assert found["labels"].shape == found["scores"].shape == (0,)
        assert found["masks"].shape == (0, SIDE, SIDE)


def test_class_agnostic_boxes_have_one_regressor() -> None:
    model = tiny(class_agnostic_boxes=True)
    assert model.roi_heads.box_predictor.bbox_pred.out_features == 4
    images, targets = two_scenes()
    totals = train(model, images, targets, steps=12)
    assert totals[-1] < totals[0]
    assert len(predict(model, images)[0]["scores"]) > 0


def test_bfloat16_passes_give_float32_losses_and_scores() -> None:
    model, (images, targets) = tiny(masks=True), two_scenes()
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, images, targets)
        found = predict(model, images)[0]
    total_loss(losses).backward()
    full = losses_of(model, images, targets)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert found["scores"].dtype == found["boxes"].dtype == torch.float32
    torch.testing.assert_close(
        losses["loss_classifier"], full["loss_classifier"], atol=0.05, rtol=0.05
    )


# ---- settings ----


def test_settings_reach_the_network() -> None:
    images, _ = two_scenes()
    assert len(predict(tiny(detections_per_image=2), images)[0]["scores"]) == 2
    every = predict(tiny(), images)[0]["scores"]
    limit = float(every.median())
    above = predict(tiny(score_threshold=limit), images)[0]["scores"]
    assert 0 < len(above) < len(every)
    assert float(above.min()) > limit
    larger = tiny(min_size=96, max_size=96).eval()
    assert larger.transform(images)[0].tensors.shape[-2:] == (96, 96)


def test_contradictory_settings_are_refused() -> None:
    head = SoftmaxHead(3)
    with pytest.raises(ValueError, match="backbone"):
        build_rcnn(3, head, generator=stream(0), backbone="large")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4 categories, but the head has 3"):
        build_rcnn(4, head, generator=stream(0), backbone="small")
    with pytest.raises(UserError, match="--weights"):
        tiny(weights=Path("coco.pth"))


# ---- ResNet-50 ----


def test_resnet50_trains_and_predicts() -> None:
    # As torchvision: batch normalisation and, with published weights, the first parts are frozen.
    model = tiny(backbone="resnet50-fpn", layout=resnet50_layout(), trainable_layers=3)
    frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, targets = two_scenes()
    assert all(np.isfinite(train(model, images, targets, steps=2, rate=1e-5)))
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert any("layer4" in name for name in changed)
    assert not any("bn" in name or "layer1" in name for name in changed)
    assert predict(model, images)[0]["boxes"].shape[1] == 4


def resnet50_layout() -> Any:
    return replace(
        TINY, divisible=32, anchor_sides=(8, 16, 32, 48, 64), pooled_levels=("0", "1", "2", "3")
    )


# ---- real photographs ----


def test_photographs_train_and_are_predicted(photographs: Path) -> None:
    listed = json.loads((photographs / "train.json").read_bytes())
    index = {
        c: i for i, c in enumerate(sorted(category["id"] for category in listed["categories"]))
    }
    images, targets = [], []
    for image in listed["images"][:4]:
        own = [a for a in listed["annotations"] if a["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in own], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        name = Path(image.get("file_name", image.get("coco_url", ""))).name
        pixels = np.array(Image.open(photographs / "train" / name).convert("RGB"))
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
        labels = torch.tensor([index[a["category_id"]] for a in own], dtype=torch.int64)
        targets.append({"boxes": boxes, "labels": labels})
    model = tiny(SoftmaxHead(len(index)), min_size=96, max_size=128)
    totals = train(model, images, targets, steps=8)
    assert totals[-1] < totals[0]
    for image, found in zip(images, predict(model, images), strict=True):
        assert 0 < len(found["scores"]) <= 300
        assert float(found["boxes"][:, 2].max()) <= image.shape[2] + 1e-3
