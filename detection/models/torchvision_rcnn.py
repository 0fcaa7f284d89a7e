"""Faster and Mask R-CNN of torchvision with any of our classification heads: the default engine.

Shapes: B images, C categories, H x W pixels, N detections of an image, n instances in it.

Outside labels are category indices 0..C-1; torchvision's own, with 0 for background, stay within.
Images are scaled and normalised inside: bytes, or floats in [0, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import roi_heads as torchvision_roi_heads
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign

from common.errors import UserError
from common.training.random_draws import global_draws_from
from detection.heads import ClassificationHead
from detection.models.backbones import ALL_LAYERS, SmallResNetFpn, make_resnet50_fpn
from detection.models.pretrained import load_published
from detection.models.roi_heads import (
    BoxPredictor,
    HeadRoIHeads,
    Losses,
    MaskPredictor,
    Prediction,
    Size,
)

Backbone: TypeAlias = Literal["resnet50-fpn", "small"]

# Of ImageNet's pixels in [0, 1], as torchvision's weights expect.
_MEAN: Final = [0.485, 0.456, 0.406]
_STD: Final = [0.229, 0.224, 0.225]
_RATIOS: Final = (0.5, 1.0, 2.0)
_PRETRAINED_LAYERS: Final = 3
_PASTED_AT_ONCE: Final = 16


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What differs between a large and a small detector; numbers of boxes are of one image."""

    min_size: int
    """Pixels of an image's shorter side within the network."""
    max_size: int
    """Most pixels of its longer side; goes before ``min_size``."""
    divisible: int
    """Images are padded to a multiple of this: the stride of the coarsest level of the body."""
    anchor_sides: tuple[int, ...]
    """Of the square anchor of each level, in pixels."""
    pooled_levels: tuple[str, ...]
    """Levels that proposals are cut out of."""
    proposals_before_nms: tuple[int, int]
    """Best anchors of each level: in training, in evaluation."""
    proposals: tuple[int, int]
    """Proposals left after non-maximum suppression: in training, in evaluation."""
    sampled_anchors: int
    """Anchors trained on, half of them foreground if there are so many."""
    sampled_proposals: int
    """Proposals trained on, a quarter of them foreground if there are so many."""
    features: int
    """Width of the two layers before the class layer."""
    mask_layers: tuple[int, ...]
    """Channels of the convolutions before the mask's upsampling."""


LAYOUTS: Final[Mapping[Backbone, Layout]] = {
    # torchvision's own numbers, which are Mask R-CNN's and FPN's.
    "resnet50-fpn": Layout(
        min_size=800,
        max_size=1333,
        divisible=32,
        anchor_sides=(32, 64, 128, 256, 512),
        pooled_levels=("0", "1", "2", "3"),
        proposals_before_nms=(2000, 1000),
        proposals=(2000, 1000),
        sampled_anchors=256,
        sampled_proposals=512,
        features=1024,
        mask_layers=(256, 256, 256, 256),
    ),
    "small": Layout(
        min_size=128,
        max_size=160,
        divisible=16,
        anchor_sides=(16, 32, 64),
        pooled_levels=("0", "1", "2"),
        proposals_before_nms=(300, 200),
        proposals=(200, 100),
        sampled_anchors=128,
        sampled_proposals=64,
        features=128,
        mask_layers=(48, 48),
    ),
}


class _Transform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """torchvision's scaling; takes bytes too, and gives masks as bytes.

    torchvision pastes all masks of an image as float32 at once: 2.6 GB for 300 detections in an
    image of 800 x 1333.
    """

    def normalize(self, image: Tensor) -> Tensor:
        """(3, H, W), uint8 or float in [0, 1] -> (x - mean) / std, float32."""
        pixels = image if image.is_floating_point() else image.to(torch.float32) / 255.0
        normalised: Tensor = super().normalize(pixels)
        return normalised

    def postprocess(
        self, result: list[Prediction], image_shapes: list[Size], original_sizes: list[Size]
    ) -> list[Prediction]:
        """Boxes in pixels of the images as they came; masks (N, H, W) uint8, 1 = inside."""
        if self.training:  # No predictions, then.
            return result
        for prediction, shape, original in zip(result, image_shapes, original_sizes, strict=True):
            prediction["boxes"] = resize_boxes(prediction["boxes"], shape, original)
            if "masks" in prediction:
                prediction["masks"] = _paste(prediction["masks"], prediction["boxes"], original)
        return result


def _paste(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Probabilities (N, 1, M, M) within boxes (N, 4) -> masks (N, H, W), uint8."""
    pasted = torch.zeros((len(masks), *size), dtype=torch.uint8, device=masks.device)
    for start in range(0, len(masks), _PASTED_AT_ONCE):
        part = slice(start, start + _PASTED_AT_ONCE)
        whole = torchvision_roi_heads.paste_masks_in_image(masks[part], boxes[part], size)
        pasted[part] = whole[:, 0] >= 0.5
    return pasted


class Rcnn(GeneralizedRCNN):  # type: ignore[misc]  # torchvision has no types
    """A detector: losses in training, predictions in evaluation.

    In training the proposals are sampled from torch's global generator; see
    :func:`common.training.random_draws.global_draws_from` for how a run draws them from its own.
    """

    roi_heads: HeadRoIHeads

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> Losses | list[Prediction]:
        """Images to losses or predictions.

        Args:
            images: for each (3, H, W), uint8 or float in [0, 1], of any size.
            targets: in training: for each image ``boxes`` (n, 4) float32 (x1, y1, x2, y2) within
                it, x1 < x2, y1 < y2; ``labels`` (n,) int64 0..C-1; with masks ``masks``
                (n, H, W) uint8; in an episode of calibration also ``drawn_for`` (0-d int64), see
                :meth:`~detection.models.roi_heads.HeadRoIHeads.subsample`. n may be 0. Ignored in
                evaluation.

        Returns:
            In training ``loss_classifier``, ``loss_box_reg``, ``loss_objectness``,
            ``loss_rpn_box_reg`` and with masks ``loss_mask``, each 0-d; ``loss_classifier`` alone
            when nothing else is trained. In evaluation for each image ``boxes`` (N, 4),
            ``labels`` (N,) 0..C-1, ``scores`` (N,), best first, and with masks ``masks``
            (N, H, W) uint8.

        Raises:
            AssertionError: from torchvision, for boxes without area.
        """
        if not self.training:
            return cast(list[Prediction], super().forward(list(images)))
        assert targets is not None, "training needs targets"
        shifted = [{**target, "labels": target["labels"] + 1} for target in targets]
        losses = cast(Losses, super().forward(list(images), shifted))
        if self.roi_heads.classifier_only:
            return {"loss_classifier": losses["loss_classifier"]}
        return losses

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation; parts that are not trained any more stay in evaluation."""
        super().train(mode)
        if self.roi_heads.classifier_only:
            self.backbone.eval()
            self.roi_heads.box_head.eval()
        return self


def _make_rpn(channels: int, layout: Layout) -> RegionProposalNetwork:
    sides = tuple((side,) for side in layout.anchor_sides)
    anchors = AnchorGenerator(sides, (_RATIOS,) * len(sides))
    before, after = (
        dict(zip(("training", "testing"), numbers, strict=True))
        for numbers in (layout.proposals_before_nms, layout.proposals)
    )
    return RegionProposalNetwork(
        anchors,
        RPNHead(channels, len(_RATIOS)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=layout.sampled_anchors,
        positive_fraction=0.5,
        pre_nms_top_n=before,
        post_nms_top_n=after,
        nms_thresh=0.7,
    )


def _make_roi_heads(
    head: ClassificationHead,
    num_classes: int,
    channels: int,
    layout: Layout,
    *,
    masks: bool,
    num_regressors: int,
    score_threshold: float,
    detections: int,
) -> HeadRoIHeads:
    pool = partial(MultiScaleRoIAlign, list(layout.pooled_levels), sampling_ratio=2)
    parts: list[Any] = [
        pool(output_size=7),
        TwoMLPHead(channels * 7**2, layout.features),
        BoxPredictor(layout.features, head, num_regressors),
        *(0.5, 0.5),  # IoU from which on a proposal is foreground; below which background.
        layout.sampled_proposals,
        0.25,  # Foreground among them.
        None,  # torchvision's weights of the box deltas, 10, 10, 5, 5.
        score_threshold,
        0.5,  # IoU above which the lower of two boxes of a category is dropped.
        detections,
    ]
    if masks:
        outputs = layout.mask_layers[-1]
        parts += [
            pool(output_size=14),
            MaskRCNNHeads(channels, layout.mask_layers, dilation=1),
            MaskPredictor(outputs, outputs, num_classes),
        ]
    return HeadRoIHeads(head, num_classes, *parts)


def _draw_for_few_channels(rpn: RegionProposalNetwork, roi_heads: HeadRoIHeads) -> None:
    """He et al. 2015 for what follows the pyramid.

    torchvision's weights are made for 256 channels and a trained backbone; through the few channels
    of the small one they let next to nothing pass, forwards and backwards.
    """
    layers = [m for part in (rpn.head.conv, roi_heads.box_head) for m in part.modules()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")


def _check(
    num_classes: int, head: ClassificationHead, backbone: Backbone, weights: Path | None
) -> None:
    """Refuse settings that contradict each other."""
    if num_classes != head.num_classes:
        raise ValueError(f"{num_classes} categories, but the head has {head.num_classes}")
    if backbone not in LAYOUTS:
        raise ValueError(f"backbone must be one of {', '.join(LAYOUTS)}, not {backbone!r}")
    if weights is not None and backbone != "resnet50-fpn":
        raise UserError(
            f"--weights {weights}: published weights are of --backbone resnet50-fpn; leave out "
            f"--weights, for --backbone {backbone} starts from random ones."
        )


def build_rcnn(
    num_classes: int,
    head: ClassificationHead,
    *,
    generator: torch.Generator,
    masks: bool = False,
    backbone: Backbone = "resnet50-fpn",
    min_size: int | None = None,
    max_size: int | None = None,
    detections_per_image: int = 300,
    score_threshold: float = 0.0,
    class_agnostic_boxes: bool = False,
    weights: Path | None = None,
    trainable_layers: int | None = None,
    layout: Layout | None = None,
) -> Rcnn:
    """A detector with new weights, or published ones where they do not depend on the categories.

    Args:
        num_classes: C.
        head: loss and probabilities from logits; part of the model from now on.
        generator: a CPU generator that the weights are drawn from; the global one is not used.
        masks: Mask R-CNN; False: Faster R-CNN.
        backbone: ``resnet50-fpn``, or ``small`` for images of about 128 pixels on a CPU.
        min_size: pixels of the shorter side; None: the layout's.
        max_size: most pixels of the longer side; None: the layout's.
        detections_per_image: at most so many predictions; LVIS: 300.
        score_threshold: predictions score more than this. 0 keeps all, as '-clc' asks for.
        class_agnostic_boxes: one box regressor for all categories, not one for each.
        weights: a file for :func:`~detection.models.pretrained.load_published`; None: random.
        trainable_layers: parts of the ResNet-50, counted from its end, that are trained, 0-5.
            None: as torchvision 3 with ``weights``, else all.
        layout: another one than :data:`LAYOUTS` has for the backbone.

    Raises:
        ValueError: for an unknown backbone, or a head of another number of categories.
        UserError: when ``weights`` cannot be used.
    """
    _check(num_classes, head, backbone, weights)
    layout = LAYOUTS[backbone] if layout is None else layout
    layout = replace(
        layout,
        min_size=layout.min_size if min_size is None else min_size,
        max_size=layout.max_size if max_size is None else max_size,
    )
    if trainable_layers is None:
        trainable_layers = ALL_LAYERS if weights is None else _PRETRAINED_LAYERS
    with global_draws_from(generator):
        body = SmallResNetFpn() if backbone == "small" else make_resnet50_fpn(trainable_layers)
        channels = cast(int, body.out_channels)
        roi_heads = _make_roi_heads(
            head,
            num_classes,
            channels,
            layout,
            masks=masks,
            num_regressors=1 if class_agnostic_boxes else num_classes,
            score_threshold=score_threshold,
            detections=detections_per_image,
        )
        rpn = _make_rpn(channels, layout)
        if backbone == "small":
            _draw_for_few_channels(rpn, roi_heads)
    model = _assemble(body, rpn, roi_heads, layout)
    if weights is not None:
        load_published(model, weights)
    return model


def _assemble(
    body: nn.Module, rpn: RegionProposalNetwork, roi_heads: HeadRoIHeads, layout: Layout
) -> Rcnn:
    transform = _Transform(
        layout.min_size, layout.max_size, _MEAN, _STD, size_divisible=layout.divisible
    )
    return Rcnn(body, rpn, roi_heads, transform)
