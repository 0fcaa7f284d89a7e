"""The detector of a configuration: head, first weights, second stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.streams import Streams
from detection.heads import BagsHead, CalibratedHead, EqlHead, FocalHead, SoftmaxHead
from detection.methods import METHODS
from detection.methods.base import DetectionMethod
from detection.models import Rcnn
from detection.networks import make_model, make_trained_model
from detection.recipes import ClassifierConfig, DetectionConfig
from detection.sets import DetectionSets, load_sets
from tests.detection.runs import FIRST, SECOND, C, config_of, first_weights

STAGES = [(method, False) for method in FIRST] + [(method, True) for method in SECOND]
HEADS = {
    "ce": SoftmaxHead, "rfs": SoftmaxHead, "cdb-s": SoftmaxHead, "cdb-w-ce": SoftmaxHead,
    "lrw": SoftmaxHead, "eql": EqlHead, "focal": FocalHead, "bags": BagsHead,
    "simcal": CalibratedHead, "calib": CalibratedHead,
}  # fmt: skip


@pytest.fixture(scope="module")
def sets(shapes: Path) -> DetectionSets:
    return load_sets(config_of("ce", task="mask"), shapes, shapes)


def model_of(sets: DetectionSets, method: str, second: bool = False, **changes: Any) -> Rcnn:
    config = config_of(method, second=second, **changes)
    first = first_weights(config, sets) if isinstance(config, ClassifierConfig) else None
    return make_model(config, method_of(config, sets), first_stage=first)


def method_of(config: DetectionConfig, sets: DetectionSets, seed: int = 0) -> DetectionMethod:
    return METHODS[config.method](config, sets, Streams(seed))


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> set[str]:
    shared = ours.keys() & theirs.keys()
    assert shared
    return {
        name for name in ours.keys() | theirs.keys()
        if name not in shared or not torch.equal(ours[name], theirs[name])
    }  # fmt: skip


@pytest.mark.parametrize(("method", "second"), STAGES)
def test_a_method_has_its_head(sets: DetectionSets, method: str, second: bool) -> None:
    model = model_of(sets, method, second)
    head = model.roi_heads.head
    assert type(head) is HEADS[method]
    assert head.num_classes == C
    assert (getattr(head, "class_weights", None) is not None) is (method == "lrw")


def test_the_options_of_a_head_reach_it(sets: DetectionSets) -> None:
    focal: Any = model_of(sets, "focal", True, focal_gamma=1.5, focal_alpha=0.6).roi_heads.head
    assert (focal.gamma, focal.alpha) == (1.5, 0.6)
    assert model_of(sets, "bags", True, bags_beta=3.0).roi_heads.head.beta == 3.0
    assert model_of(sets, "ce", loss_reduction="sum").roi_heads.head.reduction == "sum"
    counts = sets.train.annotations.instance_count
    for threshold in (0, 4, 10**6):
        dual: Any = model_of(sets, "simcal", True, calibration_threshold=threshold).roi_heads.head
        assert dual.few.tolist() == (counts < threshold).tolist()
    shares = sets.train.annotations.image_count / len(sets.train)
    for share in (0.1, 0.5):
        eql: Any = model_of(sets, "eql", eql_threshold=share).roi_heads.head
        assert eql.rare.tolist() == (shares < share).tolist()


def test_the_detector_is_the_configured_one(sets: DetectionSets) -> None:
    model = model_of(sets, "ce", detections=7, score_threshold=0.2, min_size=(33, 44), max_size=55)
    assert not model.roi_heads.has_mask()
    assert (model.roi_heads.detections_per_img, model.roi_heads.score_thresh) == (7, 0.2)
    assert (tuple(model.transform.min_size), model.transform.max_size) == ((33, 44), 55)
    assert model_of(sets, "ce", task="mask").roi_heads.has_mask()
    big = model_of(sets, "ce", backbone="resnet50-fpn")
    assert sum(p.numel() for p in big.parameters()) > 4e7
    assert sum(p.numel() for p in model.parameters()) < 1e6


def test_the_seed_alone_decides_the_first_weights(sets: DetectionSets) -> None:
    config = config_of("ce")
    one, again, other = (
        make_model(config, method_of(config, sets, seed)).state_dict() for seed in (0, 0, 1)
    )
    assert not differing(one, again)
    assert differing(one, other)


@pytest.mark.parametrize("task", ["box", "mask"])
@pytest.mark.parametrize("method", SECOND)
def test_a_second_stage_begins_with_all_of_the_first_but_its_classifier(
    sets: DetectionSets, method: str, task: str
) -> None:
    config = config_of(method, second=True, task=task)
    first = first_weights(config, sets)
    model = model_of(sets, method, True, task=task)
    changed = differing(model.state_dict(), first)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if method in ("simcal", "calib"):
        # Beside the old one, which stays.
        assert all(
            name.startswith(("roi_heads.calibrated.", "roi_heads.head.")) for name in changed
        )
        assert trained == {n for n in model.state_dict() if n.startswith("roi_heads.calibrated.")}
    else:
        layer = {f"roi_heads.box_predictor.cls_score.{part}" for part in ("weight", "bias")}
        assert trained == layer
        if method == "lrw":  # As in the code of Li et al. 2020 it goes on from the first stage's.
            assert not changed
            return
        assert "roi_heads.box_predictor.cls_score.weight" in changed <= layer
    assert model.roi_heads.classifier_only


@pytest.mark.parametrize(
    ("method", "second", "score"), [("eql", False, 0.001), ("focal", True, 0.01)]
)
def test_a_sigmoid_layer_begins_with_the_scores_of_its_source(
    sets: DetectionSets, method: str, second: bool, score: float
) -> None:
    bias = model_of(sets, method, second).roi_heads.box_predictor.cls_score.bias
    assert bias.sigmoid().tolist() == pytest.approx([score] * sets.num_classes)


@pytest.mark.parametrize(("method", "second"), STAGES)
def test_a_trained_model_has_the_weights_of_the_run(
    sets: DetectionSets, method: str, second: bool
) -> None:
    config = config_of(method, second=second)
    weights = {name: w + 1 for name, w in model_of(sets, method, second).state_dict().items()}
    again = make_trained_model(config, sets, weights)
    assert not differing(again.state_dict(), weights)


def test_weights_of_another_network_are_refused(sets: DetectionSets) -> None:
    weights = model_of(sets, "ce").state_dict()
    config = config_of("ce", task="mask")
    with pytest.raises(UserError, match="are those of another network"):
        make_trained_model(config, sets, weights)
    second = config_of("bags", second=True, task="mask")
    with pytest.raises(UserError, match="are another network's"):
        make_model(second, method_of(second, sets), first_stage=weights)


# Published weights.


@pytest.fixture(scope="module")
def published(sets: DetectionSets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of the layout of torchvision's: of a detector, and of a classifier."""
    folder = tmp_path_factory.mktemp("published")
    detector = model_of(sets, "ce", backbone="resnet50-fpn").state_dict()
    body = "backbone.body."
    classifier = {
        name.removeprefix(body): w for name, w in detector.items() if name.startswith(body)
    }
    paths = {"coco": folder / "detector.pth", "imagenet": folder / "classifier.pth"}
    torch.save(detector, paths["coco"])
    torch.save(classifier | {"fc.weight": torch.zeros(2, 2)}, paths["imagenet"])
    return paths


@pytest.mark.parametrize("start", ["coco", "imagenet"])
def test_a_detector_starts_with_the_published_weights(
    sets: DetectionSets, published: dict[str, Path], start: str
) -> None:
    config = replace(config_of("ce", backbone="resnet50-fpn"), seed=1, start=start)
    model = make_model(config, method_of(config, sets, 1), published=published[start]).state_dict()
    known = torch.load(published["coco"])
    name = "backbone.body.layer4.0.conv1.weight"
    assert torch.equal(model[name], known[name])
    pyramid = "backbone.fpn.inner_blocks.0.0.weight"
    assert torch.equal(model[pyramid], known[pyramid]) is (start == "coco")
    classes = "roi_heads.box_predictor.cls_score.weight"
    assert not torch.equal(model[classes], known[classes])


@pytest.mark.parametrize(("start", "other"), [("coco", "imagenet"), ("imagenet", "coco")])
def test_a_file_of_other_weights_than_start_says_is_refused(
    sets: DetectionSets, published: dict[str, Path], start: str, other: str
) -> None:
    config = replace(config_of("ce", backbone="resnet50-fpn"), start=start)
    words = f"{published[other].name} has the weights of --start {other}, not of --start {start}"
    with pytest.raises(UserError, match=words):
        make_model(config, method_of(config, sets), published=published[other])
