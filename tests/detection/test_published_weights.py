"""torchvision's published weights, from files of the same layout made here."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.resnet import resnet50

from common.errors import UserError
from detection.heads import SoftmaxHead
from detection.models import LAYOUTS, Rcnn, build_rcnn, global_draws_from, load_published
from detection.models.backbones import make_resnet50_fpn
from tests.detection.rcnn_scenes import tiny

State = dict[str, Tensor]


# Thin heads: what is tested is which tensors are taken.
THIN = replace(LAYOUTS["resnet50-fpn"], features=8, mask_layers=(8, 8))


def build(masks: bool, **options: Any) -> Rcnn:
    generator = torch.Generator()
    return build_rcnn(3, SoftmaxHead(3), generator=generator, masks=masks, layout=THIN, **options)


@pytest.fixture(scope="module", params=[False, True], ids=["faster", "mask"])
def model(request: pytest.FixtureRequest) -> Rcnn:
    return build(masks=request.param)


@pytest.fixture(scope="module")
def faster() -> Rcnn:
    return build(masks=False)


def published_name(name: str) -> str:
    """As torchvision named it in 2021, when the files were written."""
    name = re.sub(r"_blocks\.(\d)\.0\.", r"_blocks.\1.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)


def coco(model: Rcnn) -> State:
    """A detector's file of 91 classes, with background, whose every number is 0.5."""
    state = {}
    for name, value in model.state_dict().items():
        if "box_predictor" in name or "mask_fcn_logits" in name:
            factor = 4 if "bbox_pred" in name else 1
            value = value[:1].expand(91 * factor, *value.shape[1:])
        # One number in the file, whatever the shape.
        state[published_name(name)] = torch.tensor(0.5).expand(value.shape)
    return state


def file(folder: Path, state: object) -> Path:
    path = folder / "weights.pth"
    torch.save(state, path)
    return path


def depends_on_categories(name: str) -> bool:
    return "box_predictor" in name or "mask_fcn_logits" in name


def test_everything_but_the_layers_of_the_categories_is_taken(model: Rcnn, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_published(model, file(tmp_path, coco(model)))
    assert sum(depends_on_categories(name) for name in before) == (6 if has_masks(model) else 4)
    for name, value in model.state_dict().items():
        own = depends_on_categories(name)
        assert torch.equal(value, before[name]) if own else bool((value == 0.5).all()), name


def has_masks(model: Rcnn) -> bool:
    return bool(model.roi_heads.has_mask())


def test_boxes_alone_can_be_taken_from_a_mask_file_but_not_masks_from_a_box_file(
    model: Rcnn, tmp_path: Path
) -> None:
    if has_masks(model):
        state = {k: v for k, v in coco(model).items() if "mask" not in k}
        assert "lacks roi_heads.mask_head.0.0.weight" in refusal(model, file(tmp_path, state))
    else:
        load_published(
            model, file(tmp_path, {**coco(model), "roi_heads.mask_head.x": torch.ones(1)})
        )


def refusal(model: Rcnn, path: Path) -> str:
    """The sentence; the model must be as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_published(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert str(path) in str(caught.value)
    assert "--weights" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(state: State) -> object:
    return {k: v for k, v in state.items() if k != "rpn.head.conv.bias"}


def with_more(state: State) -> object:
    return {**state, "backbone.body.layer5.weight": torch.ones(1)}


def with_other_shape(state: State) -> object:
    return {**state, "backbone.body.conv1.weight": torch.ones(64, 3, 3, 3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, r"lacks rpn\.head\.conv\.0\.0\.bias;"),
        (with_more, r"has unexpected backbone\.body\.layer5\.weight"),
        (with_other_shape, r"has other shapes: .*conv1\.weight \(64, 3, 3, 3\) instead of"),
        (lambda _: {"a": torch.ones(1)}, r"lacks backbone\.body\.conv1\.weight, .* more"),
        (lambda _: [1, 2], "no weights by name"),
        (lambda _: {"a": 1}, "more than weights"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_differing_keys(
    faster: Rcnn, tmp_path: Path, change: Callable[[State], object], words: str
) -> None:
    assert re.search(words, refusal(faster, file(tmp_path, change(coco(faster)))))


def test_a_file_that_is_missing_damaged_or_of_code_is_refused(faster: Rcnn, tmp_path: Path) -> None:
    assert "is missing" in refusal(faster, tmp_path / "none.pth")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK\x03\x04 not a checkpoint")
    refusal(faster, damaged)
    assert "foreign code" in refusal(faster, file(tmp_path, nn.Linear(1, 1)))


def imagenet() -> Any:
    """A ResNet-50 whose batch normalisations have seen images."""
    with global_draws_from(torch.Generator()):
        network: Any = resnet50(weights=None)
        for name, value in network.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
        # So small that eps counts.
        network.bn1.running_var.fill_(1e-5)
    return network.eval()


def test_a_backbone_from_imagenet_gives_the_classifiers_features(
    tmp_path: Path,
) -> None:
    model = build(masks=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = imagenet()
    load_published(model, file(tmp_path, network.state_dict()))
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all(name.startswith("backbone.body.") for name in changed)
    image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
        features = network.layer2(network.layer1(x))
        ours: Any = model.backbone
        torch.testing.assert_close(ours.body(image)["1"], features, rtol=1e-4, atol=1e-4)


def test_the_frozen_normalisation_of_a_coco_file_has_no_eps() -> None:
    # torchvision sets eps to 0 for these files, whose smallest variances are under 1e-5.
    with global_draws_from(torch.Generator()):
        backbone: Any = make_resnet50_fpn(3)
    backbone.body.bn1.running_var.fill_(1e-8)
    ones = torch.ones(1, 64, 1, 1)
    torch.testing.assert_close(backbone.body.bn1(ones), ones * 1e4)


def test_published_weights_freeze_the_first_parts(model: Rcnn, tmp_path: Path) -> None:
    built = build(masks=has_masks(model), weights=file(tmp_path, coco(model)))
    frozen = {n.split(".")[2] for n, p in built.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert LAYOUTS["resnet50-fpn"].min_size == built.transform.min_size[0] == 800


def test_the_mask_predictor_has_torchvisions_names() -> None:
    with global_draws_from(torch.Generator()):
        theirs = MaskRCNNPredictor(256, 256, 91).state_dict()
    ours = tiny(masks=True).roi_heads
    assert set(ours.mask_predictor.state_dict()) == set(theirs)
