"""The heads, the balancing and the second stages within detectron2.

Skipped where detectron2 is not importable; see detection/README.md for how it is installed.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("detectron2._C", reason="detectron2 is not installed", exc_type=ImportError)

from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_train_loader
from detectron2.data.datasets.lvis import load_lvis_json
from detectron2.engine import SimpleTrainer, create_ddp_model, launch
from detectron2.modeling import build_model
from detectron2.modeling.backbone import ResNet
from detectron2.structures import Boxes, Instances
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from pycocotools import mask as coco_mask

from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from data_prep.lvis_format import read_lvis
from detection.ap import Detections, GroundTruth, evaluate_ap
from detection.detectron2_adapter import trainer as trainer_module
from detection.detectron2_adapter.config import (
    METHODS,
    add_cdb_config,
    check_config,
    follow_method,
    make_dataset_head,
)
from detection.detectron2_adapter.datasets import (
    category_counts,
    read_registered,
    register_annotations,
    register_digit_scenes,
    register_lvis_v05,
)
from detection.detectron2_adapter.difficulty import ProposalDifficultyHook
from detection.detectron2_adapter.evaluation import ApEvaluator
from detection.detectron2_adapter.lazy import use_head
from detection.detectron2_adapter.output_layers import HeadOutputLayers
from detection.detectron2_adapter.roi_heads import CdbROIHeads, output_layers
from detection.detectron2_adapter.second_stage import first_weights, freeze_all_but_classifier
from detection.detectron2_adapter.trainer import (
    Trainer,
    check,
    make_lazy_trainer,
    prepare,
    read_config,
    run,
)
from detection.heads import ClassificationHead
from tests.detection.heads import make_head, mean_by_class
from tests.detection.rcnn_scenes import tiny
from tests.detection.synthetic import entries, write_entries, write_set

C = 5
SIDE = 64
ZOO = "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
STAGES = [*METHODS, *(f"{m}-clc" for m in METHODS if m != "rfs")]
LOSSES = {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.NUM_CLASSES", str(C),
    "MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.NORM", "BN",
    "MODEL.FPN.OUT_CHANNELS", "16",
    "MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16], [32], [48], [64]]",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40", "MODEL.RPN.POST_NMS_TOPK_TEST", "20",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "32", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "24",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8",
    "MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "TEST.DETECTIONS_PER_IMAGE", "20",
    "INPUT.MIN_SIZE_TRAIN", f"({SIDE},)", "INPUT.MIN_SIZE_TEST", str(SIDE),
    "INPUT.MAX_SIZE_TRAIN", "96", "INPUT.MAX_SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.01", "SOLVER.MAX_ITER", "4",
    "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.STEPS", "()", "SEED", "3",
    "DATASETS.TRAIN", "('shapes_train',)", "DATASETS.TEST", "('shapes_val',)",
]  # fmt: skip
"""A Mask R-CNN for images of 64 pixels: the zoo's, with a few channels."""
BALANCED = ["CDB.METHOD", "cdb-w-ce", "CDB.PERIOD", "2", "CDB.DIFFICULTY_SET", "shapes_held"]


@pytest.fixture(scope="module", autouse=True)
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small set in LVIS's layout, registered as training, difficulty and test set."""
    folder = write_set(tmp_path_factory.mktemp("shapes") / "set")
    files = {"shapes_train": "train", "shapes_held": "val", "shapes_val": "val"}
    for name, part in files.items():
        register_annotations(name, folder / f"{part}.json", folder)
    yield folder
    for name in files:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(*options: str) -> CfgNode:
    cfg = get_cfg()
    add_cdb_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(ZOO))
    cfg.merge_from_list([*SMALL, *options])
    follow_method(cfg)
    return cfg


def arguments(out: Path, *options: str, resume: bool = False, eval_only: bool = False) -> Any:
    opts = [*SMALL, "OUTPUT_DIR", str(out), *options]
    return argparse.Namespace(
        config_file=ZOO, opts=opts, resume=resume, eval_only=eval_only, num_gpus=1
    )


@pytest.fixture
def quick_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without detectron2's report on the machine, which takes seconds."""
    monkeypatch.setattr(
        trainer_module,
        "default_setup",
        lambda cfg, _: (Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True), seed_all_rng(cfg.SEED)),
    )


@pytest.fixture(scope="module")
def batch(shapes: Path) -> list[dict[str, Any]]:
    """Two training images as the model takes them."""
    torch.manual_seed(0)
    return next(iter(build_detection_train_loader(config())))


def steps(model: nn.Module, batch: list[dict[str, Any]], number: int) -> dict[str, Tensor]:
    """The losses of the last of some steps."""
    torch.manual_seed(0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    losses: dict[str, Tensor] = {}
    model.train()
    with EventStorage():
        for _ in range(number):
            losses = model(batch)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
    return losses


# ---- both engines ----


def head_of(method: str, c: int = 3) -> ClassificationHead:
    """Every sampled proposal counts: with fewer, the order of the proposals would matter."""
    return make_head(
        method,
        c,
        reduce=partial(mean_by_class, torch.linspace(0.5, 2.0, c + 1), "batch-size"),
        instance_counts=torch.tensor([500, 50, 3]),
        image_share=torch.tensor([0.5, 0.05, 1e-4]),
        generator=torch.Generator().manual_seed(0),
        bags_beta=1e6,
    )


class BoxFeatures(nn.Module):
    """Stands for pooling: features (R, D) of boxes alone, whichever engine asks."""

    def __init__(self, features: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.matrix = torch.randn(4, features, generator=generator)

    def forward(self, _: Any, boxes: list[Any], *__: Any) -> Tensor:
        plain = [b.tensor if isinstance(b, Boxes) else b for b in boxes]
        return torch.tanh((torch.cat(plain) / SIDE - 0.5) @ self.matrix)


PROPOSALS = [
    torch.tensor([[3.0, 5, 29, 30], [2, 2, 60, 60], [30, 22, 62, 57], [40, 1, 55, 20]]),
    torch.tensor([[12.0, 28, 41, 63], [35, 3, 60, 22], [0, 0, 12, 12]]),
]
TRUTH = [
    (torch.tensor([[4.0, 4, 30, 28], [34, 20, 60, 58]]), torch.tensor([0, 2])),
    (torch.tensor([[10.0, 30, 40, 60], [36, 2, 62, 24]]), torch.tensor([1, 0])),
]


def two_engines(method: str) -> tuple[Any, Any]:
    """RoI heads of torchvision and of detectron2 with the same features, layers and head."""
    ours = tiny(head_of(method)).roi_heads
    features = ours.box_predictor.cls_score.in_features
    with torch.no_grad():
        ours.box_predictor.cls_score.weight.normal_(std=0.4)
        ours.box_predictor.bbox_pred.weight.normal_(std=0.3)
    ours.box_roi_pool, ours.box_head = BoxFeatures(features), nn.Identity()
    ours.fg_bg_sampler.batch_size_per_image, ours.detections_per_img = 1000, 1000
    lazy = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    lazy.roi_heads.num_classes = 3
    use_head(lazy, "ce")
    heads = lazy.roi_heads
    heads.batch_size_per_image, heads.box_predictor.input_shape.channels = 1000, features
    heads.box_predictor.head = head_of(method)
    heads.box_predictor.smooth_l1_beta = 1 / 9  # L1 is detectron2's default.
    heads.box_predictor.test_score_thresh = ours.score_thresh
    heads.box_predictor.test_topk_per_image = 1000
    del heads.mask_in_features, heads.mask_pooler, heads.mask_head
    theirs = instantiate(heads)
    theirs.box_pooler, theirs.box_head = BoxFeatures(features), nn.Identity()
    for name in ("cls_score", "bbox_pred"):
        source = getattr(ours.box_predictor, name)
        getattr(theirs.box_predictor, name).load_state_dict(source.state_dict())
    return ours, theirs


def as_instances(boxes: Tensor, labels: Tensor | None = None) -> Instances:
    found = Instances((SIDE, SIDE))
    if labels is None:
        found.proposal_boxes, found.objectness_logits = Boxes(boxes), torch.zeros(len(boxes))
    else:
        found.gt_boxes, found.gt_classes = Boxes(boxes), labels.clone()
    return found


@pytest.mark.parametrize("method", ["ce", "cdb-w-ce", "focal", "lrw", "eql", "bags"])
def test_both_engines_give_the_same_losses(method: str) -> None:
    ours, theirs = two_engines(method)
    targets = [{"boxes": boxes, "labels": labels + 1} for boxes, labels in TRUTH]
    mine = ours.train()({}, PROPOSALS, [(SIDE, SIDE)] * 2, targets)[1]
    given = [as_instances(boxes) for boxes in PROPOSALS]
    truth = [as_instances(*of_image) for of_image in TRUTH]
    with EventStorage():
        other = theirs.train()(None, dict.fromkeys(("p2", "p3", "p4", "p5")), given, truth)[1]
    assert float(mine["loss_classifier"].detach()) > 0
    torch.testing.assert_close(other["loss_cls"], mine["loss_classifier"])
    torch.testing.assert_close(other["loss_box_reg"], mine["loss_box_reg"])


@pytest.mark.parametrize("method", ["ce", "focal", "bags"])
def test_both_engines_find_the_same(method: str) -> None:
    ours, theirs = two_engines(method)
    with torch.no_grad():
        mine = ours.eval()({}, PROPOSALS, [(SIDE, SIDE)] * 2)[0]
        given = [as_instances(boxes) for boxes in PROPOSALS]
        other = theirs.eval()(None, dict.fromkeys(("p2", "p3", "p4", "p5")), given)[0]
    for found, same in zip(mine, other, strict=True):
        assert len(found["scores"]) > 3
        torch.testing.assert_close(same.scores, found["scores"])
        torch.testing.assert_close(same.pred_boxes.tensor, found["boxes"])
        assert torch.equal(same.pred_classes, found["labels"])


def test_scores_of_background_are_left_out_by_detectron2() -> None:
    _, theirs = two_engines("eql")
    logits = torch.randn(3, 3)
    scores = theirs.box_predictor.predict_probs((logits, None), [as_instances(PROPOSALS[1])])
    assert torch.equal(scores[0], torch.cat([logits.sigmoid(), torch.zeros(3, 1)], dim=1))


# ---- training ----


@pytest.mark.parametrize("method", STAGES)
def test_a_few_steps_train_what_the_method_trains(method: str, batch: list[dict[str, Any]]) -> None:
    cfg = config("CDB.METHOD", method, "CDB.EQL_THRESHOLD", "0.5")
    model = prepare(build_model(cfg))
    before = {name: value.clone() for name, value in model.named_parameters()}
    losses = steps(model, batch, 2)
    assert all(torch.isfinite(loss) for loss in losses.values())
    changed = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    layer = {f"roi_heads.box_predictor.cls_score.{n}" for n in ("weight", "bias")}
    if method.endswith("-clc"):
        assert set(losses) == LOSSES - {"loss_box_reg", "loss_mask"}
        assert changed == layer
    else:
        assert set(losses) == LOSSES
        assert layer < changed
        assert any(name.startswith("backbone") for name in changed)


def test_steps_lower_the_class_loss(batch: list[dict[str, Any]]) -> None:
    cfg = config("CDB.METHOD", "cdb-w-ce")
    torch.manual_seed(1)
    first = build_model(cfg)
    trained = copy.deepcopy(first)
    start = steps(first, batch, 1)["loss_cls"]
    assert float(steps(trained, batch, 12)["loss_cls"]) < 0.8 * float(start)


def test_a_second_stage_trains_the_class_layer_alone() -> None:
    model = build_model(config("CDB.METHOD", "focal-clc"))
    trained = freeze_all_but_classifier(model)
    layer = output_layers(model).cls_score
    assert {id(p) for p in trained} == {id(layer.weight), id(layer.bias)}
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in trained}
    norms = (nn.BatchNorm2d, nn.SyncBatchNorm)
    assert not any(isinstance(module, norms) for module in model.modules())


def test_the_gradient_is_clipped_as_a_whole(batch: list[dict[str, Any]]) -> None:
    cfg = config("CDB.CLIP_NORM", "0.5", "SOLVER.WEIGHT_DECAY", "0.0")
    model = build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    model.train()
    with EventStorage():
        torch.stack(list(model(batch).values())).sum().backward()
    trained = [p for p in model.parameters() if p.grad is not None]
    before = torch.cat([p.grad.flatten() for p in trained])
    assert float(before.norm()) > 0.5
    optimizer.step()
    after = torch.cat([p.grad.flatten() for p in trained])
    torch.testing.assert_close(after, before * 0.5 / before.norm(), rtol=1e-4, atol=1e-8)


# ---- the balancer ----


def test_the_head_reads_the_balancers_weights_wherever_they_go() -> None:
    cfg = config("CDB.METHOD", "cdb-w-ce", "CDB.TAU", "1.0")
    layers = output_layers(build_model(cfg).to(torch.float64).to(torch.float32))
    assert layers.balancer is not None
    assert layers.head.reduce.func.__self__ is layers.balancer
    twin = copy.deepcopy(layers)
    twin.load_state_dict(layers.state_dict())
    twin.balancer.update(torch.tensor([0.9, 0.7, 0.5, 0.3, 0.1]))
    logits, labels = torch.zeros(2, C + 1), torch.tensor([4, C])
    ln = float(np.log(C + 1))
    # difficulty 0.1 0.3 0.5 0.7 0.9, weights that sum to 5: 0.9 / 2.5 * 5 = 1.8, background 1
    assert float(twin.head.loss(logits, labels)) == pytest.approx((1.8 + 1.0) * ln / 2)
    assert float(layers.head.loss(logits, labels)) == pytest.approx(ln)


def test_lrw_weights_move_with_the_model() -> None:
    layers = output_layers(build_model(config("CDB.METHOD", "lrw"))).double()
    assert layers.head.class_weights.dtype == torch.float64


@pytest.mark.usefixtures("quick_setup")
def test_ap_on_the_held_out_set_updates_the_balancer_every_period(tmp_path: Path) -> None:
    options = [*BALANCED, "CDB.PERIOD", "3", "SOLVER.MAX_ITER", "5"]
    run(arguments(tmp_path, *options))
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert any("cdb/tau" in line for line in lines)
    state = torch.load(tmp_path / "model_final.pth")["model"]
    measured = state["roi_heads.box_predictor.balancer.measured"]
    held = read_registered("shapes_held").instance_count > 0
    assert measured.tolist() == held.tolist()
    assert state["roi_heads.box_predictor.balancer.difficulty"][measured == 0].tolist() == [1.0]
    # After 3 of 5 iterations, and not after 2.
    early = torch.load(tmp_path / "model_0000001.pth")["model"]
    assert not early["roi_heads.box_predictor.balancer.measured"].any()


def test_the_hooks_performance_is_the_ap_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(
        ClassDifficultyBalancer, "update", lambda self, performance: seen.append(performance)
    )
    cfg = read_config(ZOO, [*SMALL, *BALANCED, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path)])
    trainer = Trainer(cfg)
    trainer.train()
    evaluator = ApEvaluator("shapes_held", masks=True)
    Trainer.test(cfg, trainer.model, [evaluator])
    expected = evaluator.category_ap(C)
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0].numpy(), expected, equal_nan=True)
    assert set(evaluator.results) == {"bbox", "segm"}


def test_proposals_counted_in_training_update_the_balancer(tmp_path: Path) -> None:
    counted: list[tuple[Tensor, Tensor]] = []

    class Watching(Trainer):
        def run_step(self) -> None:
            super().run_step()
            counts = output_layers(self.model).proposal_accuracy.state_dict()["counts"]
            counted.append(tuple(counts))

    options = [*BALANCED, "CDB.DIFFICULTY", "proposals", "SOLVER.MAX_ITER", "2"]
    cfg = read_config(ZOO, [*SMALL, *options, "OUTPUT_DIR", str(tmp_path)])
    trainer = Watching(cfg)
    trainer.train()
    correct, total = (torch.stack(parts).sum(0) for parts in zip(*counted, strict=True))
    assert float(total.sum()) > 0
    difficulty = output_layers(trainer.model).balancer.difficulty
    expected = torch.where(total > 0, 1 - correct / total, 1.0)
    torch.testing.assert_close(difficulty, expected)


@pytest.mark.usefixtures("quick_setup")
def test_a_resumed_training_keeps_difficulty_and_counts(tmp_path: Path) -> None:
    options = [*BALANCED, "CDB.DIFFICULTY", "proposals", "CDB.PERIOD", "3"]
    run(arguments(tmp_path, *options, "SOLVER.MAX_ITER", "4"))
    saved = torch.load(tmp_path / "model_final.pth")
    counts = saved["trainer"]["hooks"]["ProposalDifficultyHook"]["counts"]
    assert float(counts[1].sum()) > 0
    cfg = read_config(ZOO, [*SMALL, *options, "SOLVER.MAX_ITER", "5", "OUTPUT_DIR", str(tmp_path)])
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 4
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, saved["model"][name]), name
    layers = output_layers(trainer.model)
    assert layers.head.reduce.func.__self__ is layers.balancer
    assert bool(layers.balancer.measured.any())
    trainer.train()
    after = torch.load(tmp_path / "model_final.pth")["trainer"]["hooks"]["ProposalDifficultyHook"]
    assert bool((after["counts"][1] >= counts[1]).all())
    assert float(after["counts"][1].sum()) > float(counts[1].sum())


def test_a_bags_head_goes_on_with_its_draws(tmp_path: Path) -> None:
    options = ("CDB.METHOD", "bags", "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path))
    trainer = Trainer(read_config(ZOO, [*SMALL, *options]))
    trainer.train()
    state = output_layers(trainer.model).head.generator.get_state()
    again = Trainer(read_config(ZOO, [*SMALL, *options]))
    assert not torch.equal(output_layers(again.model).head.generator.get_state(), state)
    again.resume_or_load(resume=True)
    assert torch.equal(output_layers(again.model).head.generator.get_state(), state)


# ---- first weights ----


def test_a_second_stage_starts_with_a_new_class_layer_and_balancer(tmp_path: Path) -> None:
    first = build_model(config("CDB.METHOD", "cdb-w-ce"))
    output_layers(first).balancer.update(torch.full((C,), 0.3))
    DetectionCheckpointer(first, str(tmp_path)).save("first")
    file = str(tmp_path / "first.pth")
    options = [*BALANCED, "CDB.METHOD", "cdb-w-ce-clc", "MODEL.WEIGHTS", file]
    cfg = read_config(ZOO, [*SMALL, *options, "OUTPUT_DIR", str(tmp_path / "second")])
    trainer = Trainer(cfg)
    new = copy.deepcopy(output_layers(trainer.model).cls_score.state_dict())
    trainer.resume_or_load(resume=False)
    layers = output_layers(trainer.model)
    assert all(torch.equal(layers.cls_score.state_dict()[name], new[name]) for name in new)
    assert not layers.balancer.measured.any()
    assert torch.equal(layers.bbox_pred.weight, output_layers(first).bbox_pred.weight)
    assert torch.equal(
        trainer.model.backbone.bottom_up.stem.conv1.weight,
        first.backbone.bottom_up.stem.conv1.weight,
    )


@pytest.mark.parametrize("method", ["eql", "bags"])
def test_a_class_layer_of_another_size_is_left_new(method: str, tmp_path: Path) -> None:
    first = build_model(config())
    DetectionCheckpointer(first, str(tmp_path)).save("first")
    model = build_model(config("CDB.METHOD", method, "CDB.EQL_THRESHOLD", "0.5"))
    new = output_layers(model).cls_score.weight.clone()
    with first_weights(model):
        DetectionCheckpointer(model).load(str(tmp_path / "first.pth"))
    assert torch.equal(output_layers(model).cls_score.weight, new)
    assert torch.equal(output_layers(model).bbox_pred.weight, output_layers(first).bbox_pred.weight)


def test_a_first_stage_takes_the_class_layer_of_its_weights(tmp_path: Path) -> None:
    first = build_model(config())
    DetectionCheckpointer(first, str(tmp_path)).save("first")
    model = build_model(config("CDB.METHOD", "cdb-w-ce"))
    with first_weights(model):
        DetectionCheckpointer(model).load(str(tmp_path / "first.pth"))
    assert torch.equal(output_layers(model).cls_score.weight, output_layers(first).cls_score.weight)


def test_lrw_clc_goes_on_from_the_class_layer_of_its_weights(tmp_path: Path) -> None:
    first = build_model(config())
    DetectionCheckpointer(first, str(tmp_path)).save("first")
    model = build_model(config("CDB.METHOD", "lrw-clc"))
    with first_weights(model):
        DetectionCheckpointer(model).load(str(tmp_path / "first.pth"))
    assert torch.equal(output_layers(model).cls_score.weight, output_layers(first).cls_score.weight)


# ---- data sets ----


def test_a_registered_set_has_category_indices_by_id(shapes: Path) -> None:
    records = DatasetCatalog.get("shapes_train")
    said = entries("train")
    ids = [2, 3, 7, 11, 12]
    assert MetadataCatalog.get("shapes_train").thing_classes == [
        "ball", "box", "kite", "wedge", "absent",
    ]  # fmt: skip
    by_image = {record["image_id"]: record for record in records}
    assert [record["image_id"] for record in records] == sorted(by_image)
    assert by_image[100]["annotations"] == []
    for image in said["images"]:
        assert by_image[image["id"]]["file_name"] == str(shapes / image["file_name"])
        assert by_image[image["id"]]["neg_category_ids"] == image["neg_category_ids"]
    seen = 0
    for entry in said["annotations"]:
        matching = [
            one
            for one in by_image[entry["image_id"]]["annotations"]
            if one["category_id"] == ids.index(entry["category_id"])
        ]
        assert [one["bbox"] for one in matching] == [entry["bbox"]]
        assert matching[0]["segmentation"] == entry["segmentation"]
        seen += 1
    assert seen == sum(len(record["annotations"]) for record in records)


def test_a_set_without_gaps_reads_as_detectron2_reads_it(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    said = entries("train")
    numbers = {category["id"]: n + 1 for n, category in enumerate(said["categories"])}
    for category in said["categories"]:
        category["id"] = numbers[category["id"]]
    for annotation in said["annotations"]:
        annotation["category_id"] = numbers[annotation["category_id"]]
    for image in said["images"]:
        image["neg_category_ids"] = [numbers[c] for c in image["neg_category_ids"]]
        image["coco_url"] = f"http://images.cocodataset.org/{image.pop('file_name')}"
    file = write_entries(said, folder / "contiguous.json")
    register_annotations("shapes_contiguous", file, folder)
    assert DatasetCatalog.get("shapes_contiguous") == load_lvis_json(str(file), f"{folder}/")


def test_run_length_masks_train_as_bitmasks(shapes: Path, tmp_path: Path) -> None:
    said = entries("train")
    for annotation in said["annotations"]:
        codes = coco_mask.frPyObjects(annotation["segmentation"], 40, 56)
        code = coco_mask.merge(codes)
        annotation["segmentation"] = {"size": [40, 56], "counts": code["counts"].decode()}
    file = write_entries(said, tmp_path / "rle.json")
    register_annotations("shapes_rle", file, shapes, mask_format="bitmask")
    cfg = config("DATASETS.TRAIN", "('shapes_rle',)", "INPUT.MASK_FORMAT", "bitmask")
    loader = build_detection_train_loader(cfg)
    masks = next(iter(loader))[0]["instances"].gt_masks
    assert masks.tensor.any(dim=2).any(dim=1).all()
    wrong = config("DATASETS.TRAIN", "('shapes_rle',)")
    with pytest.raises(UserError, match=r"INPUT\.MASK_FORMAT bitmask"):
        check(wrong, 1)


def test_counts_are_of_the_whole_training_set() -> None:
    instances, share = category_counts("shapes_train")
    annotations = read_registered("shapes_train")
    assert instances.tolist() == annotations.instance_count.tolist()
    assert share.tolist() == (annotations.image_count / 14).tolist()


def test_the_usual_sets_are_registered_by_name_and_read_when_asked_for(tmp_path: Path) -> None:
    register_lvis_v05(tmp_path, tmp_path)
    register_digit_scenes(tmp_path)
    assert MetadataCatalog.get("digit_scenes_train").mask_format == "bitmask"
    with pytest.raises(UserError, match=r"lvis_v0\.5_train_rest\.json"):
        DatasetCatalog.get("cdb_lvis_v0.5_train_rest")
    with pytest.raises(UserError, match="not registered"):
        read_registered("nonsense")


def test_perfect_detections_have_an_ap_of_100(shapes: Path) -> None:
    annotations = read_lvis(shapes / "val.json")
    evaluator = ApEvaluator("shapes_val", masks=False)
    evaluator.reset()
    for image, number in enumerate(annotations.image_ids.tolist()):
        rows = annotations.image == image
        found = Instances((40, 56))
        xywh = torch.from_numpy(annotations.bboxes[rows])
        found.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
        found.pred_classes = torch.from_numpy(annotations.category[rows])
        found.scores = torch.ones(int(rows.sum()))
        evaluator.process([{"image_id": number}], [{"instances": found}])
    averages = evaluator.evaluate()
    assert averages is not None
    assert averages["bbox"]["AP"] == pytest.approx(100.0)
    with pytest.raises(UserError, match="5 categories"):
        evaluator.category_ap(7)
    truth = GroundTruth.from_lvis(json.loads((shapes / "val.json").read_text()))
    nothing = evaluate_ap(truth, Detections([], [], [], np.empty((0, 4))), "bbox")
    measured = ~np.isnan(nothing.category_ap)
    assert evaluator.category_ap(C)[measured].tolist() == pytest.approx([1.0] * measured.sum())


# ---- configurations ----


def test_the_zoos_lvis_configuration_takes_the_heads_by_name() -> None:
    cfg = read_config(ZOO, ["MODEL.DEVICE", "cpu", "CDB.METHOD", "cdb-w-ce", "CDB.PERIOD", "7093"])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1230
    assert cfg.MODEL.ROI_HEADS.NAME == "CdbROIHeads"
    # The zoo's file repeats images, which is another method.
    assert cfg.DATALOADER.SAMPLER_TRAIN == "TrainingSampler"
    assert "CDB" in cfg
    rfs = read_config(ZOO, ["CDB.METHOD", "rfs"])
    assert rfs.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    named = read_config(ZOO, ["DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"])
    assert named.DATALOADER.SAMPLER_TRAIN == "RandomSubsetTrainingSampler"


def test_the_zoos_lvis_model_has_a_head_of_1230_categories() -> None:
    classes = ["MODEL.ROI_HEADS.NUM_CLASSES", "1230"]
    model = build_model(config(*classes, "CDB.METHOD", "cdb-w-ce"))
    assert isinstance(model.roi_heads, CdbROIHeads)
    layers = output_layers(model)
    assert layers.cls_score.out_features == 1231
    assert layers.balancer.class_weights.shape == (1230,)
    assert layers.test_score_thresh == 0.0001


def small_lazy(method: str, out: Path, **options: Any) -> DictConfig:
    """The LazyConfig of detectron2's Mask R-CNN, with a few channels."""
    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up.stages = LazyCall(ResNet.make_default_stages)(depth=18, norm="BN")
    model.backbone.out_channels = 16
    model.proposal_generator.head.in_channels = 16
    model.proposal_generator.post_nms_topk = [40, 20]
    heads = model.roi_heads
    heads.num_classes, heads.batch_size_per_image = C, 24
    heads.box_head.input_shape.channels = heads.mask_head.input_shape.channels = 16
    heads.box_head.fc_dims, heads.mask_head.conv_dims = [32], [8, 8]
    heads.box_predictor.input_shape.channels = 32
    use_head(model, method, **options)
    return OmegaConf.create(
        {
            "model": model,
            "optimizer": model_zoo.get_config("common/optim.py").SGD,
            "lr_multiplier": {"_target_": "fvcore.common.param_scheduler.MultiStepParamScheduler",
                              "values": [1.0, 0.1], "milestones": [1], "num_updates": 2},
            "dataloader": {"train": {
                "_target_": "tests.detection.test_detectron2_adapter.shape_batches"}},
            "train": {"device": "cpu", "output_dir": str(out), "max_iter": 2, "eval_period": 0,
                      "log_period": 1, "amp": {"enabled": False}, "init_checkpoint": "",
                      "ddp": {"device_ids": None, "broadcast_buffers": False},
                      "checkpointer": {"period": 1}},
        },
        flags={"allow_objects": True},
    )  # fmt: skip


def shape_batches() -> Any:
    """The training images, for a LazyConfig."""
    return build_detection_train_loader(config())


def test_a_lazy_config_names_the_head(tmp_path: Path) -> None:
    cfg = small_lazy("bags-clc", tmp_path, dataset="shapes_train")
    cfg.model.roi_heads.num_classes = C
    model = instantiate(cfg.model)
    layers = output_layers(model)
    assert isinstance(model.roi_heads, CdbROIHeads)
    assert layers.cls_score.out_features == layers.head.num_logits
    assert layers.classifier_only
    with pytest.raises(UserError, match="simcal"):
        use_head(cfg.model, "simcal")


def test_a_lazy_config_survives_being_saved(tmp_path: Path) -> None:
    cfg = small_lazy("cdb-w-ce", tmp_path, balancer={"tau": 2.0})
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    model = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).model)
    assert float(output_layers(model).balancer.tau) == 2.0


PROPOSAL_HOOK = "detection.detectron2_adapter.difficulty.ProposalDifficultyHook"


def test_the_lazy_loop_trains_and_resumes(tmp_path: Path) -> None:
    cfg = small_lazy("cdb-w-ce", tmp_path)
    with pytest.raises(UserError, match="nothing measures it"):
        make_lazy_trainer(cfg)
    cfg.difficulty = {"_target_": PROPOSAL_HOOK, "period": 2}
    trainer, _ = make_lazy_trainer(cfg)
    trainer.train(0, 2)
    saved = torch.load(tmp_path / "model_final.pth")
    assert bool(saved["model"]["roi_heads.box_predictor.balancer.measured"].any())
    trainer, checkpointer = make_lazy_trainer(cfg)
    assert trainer_module.load_first(checkpointer, "", resume=True)
    assert trainer.iter == 1
    assert bool(output_layers(trainer.model).balancer.measured.any())


def two_ranks(folder: Path, out: Path) -> None:
    """What each of two processes does: train, their proposals counted together."""
    torch.set_num_threads(1)
    register_annotations("shapes_train", folder / "train.json", folder)
    model = build_model(config(*BALANCED))
    wrapped = create_ddp_model(model, device_ids=None, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    trainer = SimpleTrainer(wrapped, shape_batches(), optimizer)
    trainer.register_hooks([ProposalDifficultyHook(1)])
    trainer.train(0, 1)
    layers = output_layers(wrapped)
    state = {**layers.balancer.state_dict(), "layer": layers.cls_score.weight.detach()}
    torch.save(state, out / f"rank{torch.distributed.get_rank()}.pt")


def test_two_processes_of_the_launcher_hold_the_same_difficulty(
    shapes: Path, tmp_path: Path
) -> None:
    launch(two_ranks, 2, dist_url="auto", args=(shapes, tmp_path))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert bool(first["measured"].any())
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["CDB.METHOD", "simcal"], "simcal"),
        (["CDB.METHOD", "rfs-clc"], "rfs"),
        (["CDB.METHOD", "cdb-w-ce"], r"CDB\.PERIOD"),
        ([*BALANCED, "CDB.DIFFICULTY", "guess"], r"CDB\.DIFFICULTY"),
        ([*BALANCED, "CDB.DIFFICULTY_SET", "shapes_val"], "tested on"),
        (["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True"], "USE_SIGMOID_CE"),
        (["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"], "CascadeROIHeads"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_config(config(*options))


@pytest.mark.parametrize(
    ("options", "processes", "said"),
    [
        (["MODEL.WEIGHTS", "nowhere.pth"], 1, "nowhere.pth"),
        ([], 3, r"SOLVER\.IMS_PER_BATCH 2"),
    ],
)
def test_what_would_fail_later_is_refused_before(
    options: list[str], processes: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check(config(*options), processes)


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("nowhere.yaml", [], "nowhere.yaml"),
        (ZOO, ["CDB.METHODS", "ce"], "METHODS"),
        (ZOO, ["CDB.METHOD"], "CDB.METHOD"),
    ],
)
def test_a_wrong_file_or_option_is_named(file: str, options: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_config(file, options)


@pytest.mark.usefixtures("quick_setup")
def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    options = ("MODEL.WEIGHTS", str(tmp_path / "bad.pth"))
    with pytest.raises(UserError, match=r"bad\.pth"):
        run(arguments(tmp_path / "out", *options))


@pytest.mark.usefixtures("quick_setup")
def test_other_categories_than_the_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shapes_train has 5"):
        run(arguments(tmp_path, "MODEL.ROI_HEADS.NUM_CLASSES", "4"))
    with pytest.raises(UserError, match="shapes_train has 5"):
        make_dataset_head("lrw", 4, "shapes_train")


@pytest.mark.usefixtures("quick_setup")
def test_a_loss_that_is_not_finite_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"iteration \d.*SOLVER\.BASE_LR"):
        run(arguments(tmp_path, "SOLVER.BASE_LR", "1e30", "SOLVER.WARMUP_ITERS", "0"))


def test_a_balancer_needs_a_head_that_weighs_classes() -> None:
    cfg = config("CDB.METHOD", "cdb-w-ce")
    options = HeadOutputLayers.from_config(cfg, None)
    shape = type("Shape", (), {"channels": 8, "width": None, "height": None})()
    options |= {"input_shape": shape, "head": make_head("focal", C)}
    with pytest.raises(ValueError, match="FocalHead has no reduction"):
        HeadOutputLayers(**options)
    with pytest.raises(ValueError, match="5 categories"):
        HeadOutputLayers(**{**options, "head": make_head("ce", 4)})


def test_evaluation_alone_gives_the_averages(tmp_path: Path) -> None:
    model = build_model(config())
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    options = ("MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    results = run(arguments(tmp_path / "out", *options, eval_only=True))
    assert results is not None
    assert {"AP", "APr", "APc", "APf", "AP50"} <= set(results["bbox"])
    assert set(results) == {"bbox", "segm"}
