"""torchvision's RoI heads with an engine-neutral classification head.

Shapes: B images, C categories, D features, K box regressors a proposal (C, or 1 for class-agnostic
boxes), L logits a proposal (``head.num_logits``), M pixels a side of a mask, N detections,
R proposals.

Two conventions meet here. torchvision's matcher and samplers take labels 1..C and 0 for
background; everything of ours takes category indices 0..C-1 and C for background. Only
:func:`_category_index` and :class:`~detection.models.torchvision_rcnn.Rcnn` know of the first.
"""

from typing import Any, Final, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, project_masks_on_boxes
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from common.difficulty import ClassAccuracy
from common.distributed import all_reduce_sum, is_first_rank
from detection.heads import ClassificationHead, calibration_proposals

Size: TypeAlias = tuple[int, int]
"""H, W."""
Losses: TypeAlias = dict[str, Tensor]
Prediction: TypeAlias = dict[str, Tensor]
"""Of one image: boxes (N, 4), labels (N,), scores (N,), and masks if the model has them."""

DRAWN_FOR: Final = "drawn_for"
_CLASS_STD: Final = 0.01
_BOX_STD: Final = 0.001
# torchvision's and detectron2's: where smooth L1 turns from square to linear.
_SMOOTH_L1_BETA: Final = 1 / 9
_LEAST_SIDE: Final = 1e-2
_MASKS_AT_ONCE: Final = 32
_FIRST_CANDIDATES: Final = 10
_MORE_CANDIDATES: Final = 4


def _category_index(labels: Tensor, num_classes: int) -> Tensor:
    """Torchvision's labels, 0 = background -> category indices, C = background."""
    return (labels - 1) % (num_classes + 1)


def make_class_layer(features: int, head: ClassificationHead) -> nn.Linear:
    """D -> L, drawn from the global generator.

    Normal weights of standard deviation 0.01 (Girshick 2015); each bias is the head's
    ``first_bias``.
    """
    layer = nn.Linear(features, head.num_logits)
    nn.init.normal_(layer.weight, std=_CLASS_STD)
    nn.init.constant_(layer.bias, head.first_bias)
    return layer


class BoxPredictor(nn.Module):
    """The class layer and the box regressors; named as torchvision's, without its background box.

    Attributes:
        cls_score: D -> L.
        bbox_pred: D -> 4 K.
    """

    def __init__(self, features: int, head: ClassificationHead, num_regressors: int) -> None:
        """``features`` D, a ``head`` of L logits, ``num_regressors`` K."""
        super().__init__()
        self.cls_score = make_class_layer(features, head)
        self.bbox_pred = nn.Linear(features, 4 * num_regressors)
        nn.init.normal_(self.bbox_pred.weight, std=_BOX_STD)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, D) -> logits (R, L), box deltas (R, 4 K), both float32."""
        return self.cls_score(features).float(), self.bbox_pred(features).float()


class MaskPredictor(nn.Module):
    """One mask a category and proposal, of which only the one asked for is computed.

    torchvision computes all C; for 300 detections of 1230 categories these are 1.2 GB.

    Attributes:
        conv5_mask: doubles the side.
        mask_fcn_logits: a 1 x 1 convolution to C masks.
    """

    def __init__(self, inputs: int, hidden: int, num_classes: int) -> None:
        """``inputs`` channels from the mask head, ``hidden`` after the upsampling, C masks."""
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(inputs, hidden, 2, 2)
        self.mask_fcn_logits = nn.Conv2d(hidden, num_classes, 1)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Features (R, inputs, M / 2, M / 2), category indices (R,) -> logits (R, M, M), float32.

        For each proposal the row of the 1 x 1 convolution that belongs to its category.
        """
        x = F.relu(self.conv5_mask(features))
        weight = self.mask_fcn_logits.weight.flatten(1)[labels]
        bias = self.mask_fcn_logits.bias
        assert bias is not None
        masks = torch.einsum("rd,rdhw->rhw", weight, x.to(weight.dtype))
        return (masks + bias[labels, None, None]).float()


class ProposalAccuracy(ClassAccuracy):
    """Accuracy per category over the sampled foreground proposals of training steps.

    A difficulty that costs no extra pass. The predicted category is the one of the greatest
    probability among the C; background does not compete, for sigmoid heads have none.
    """

    def reset(self) -> None:
        """Start a new epoch."""
        self._counts.zero_()

    def pool(self) -> None:
        """Give the first rank the counts of all, and the others none; all ranks call it.

        The first rank's state is then that of the run.
        """
        total = all_reduce_sum(self._counts)
        self._counts.copy_(total if is_first_rank() else torch.zeros_like(total))

    def state_dict(self) -> dict[str, Tensor]:
        """The counts so far, of this rank; see :meth:`pool`."""
        return {"counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the first rank's :meth:`state_dict`, which every rank is given."""
        self._counts.copy_(state["counts"])
        if not is_first_rank():
            self.reset()


class HeadRoIHeads(RoIHeads):  # type: ignore[misc]  # torchvision has no types
    """RoI heads whose class loss and scores are a :class:`~detection.heads.ClassificationHead`'s.

    Equal to torchvision's with a softmax head (the tests compare the two), but for these:

    - no box regressor and no mask of the background, which torchvision keeps and never trains;
    - detections are found among the best-scoring candidates first, more being taken until an
      image has ``detections_per_img`` or there are none left. A box suppresses only boxes that
      score less, so the result is the one of all candidates (ties in score aside), without
      sorting and decoding the 1.2 million of 1000 proposals of 1230 categories;
    - non-maximum suppression is computed in float64: torchvision moves categories apart by
      offsets, which at 1230 categories eat float32's last digits.

    Attributes:
        head: loss and probabilities from logits.
        calibrated: a second classifier, whose logits follow those of the first; None: no such.
        classifier_only: compute the class loss and no other ('-clc').
        proposal_accuracy: counts of the steps so far; None: not collected.
    """

    def __init__(self, head: ClassificationHead, num_classes: int, *parts: Any) -> None:
        """``head``, C, then what torchvision's ``RoIHeads`` takes, in its order."""
        super().__init__(*parts)
        self.head = head
        self.num_classes = num_classes
        self.calibrated: nn.Module | None = None
        self.classifier_only = False
        self._drawn_for: list[Tensor] | None = None
        self.proposal_accuracy: ProposalAccuracy | None = None

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[Size],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Prediction], Losses]:
        """Detections in evaluation, losses in training; the other one is empty.

        Args:
            features: levels by name, (B, channels, H, W).
            proposals: for each image (R, 4), in pixels of the network's input.
            image_shapes: H, W of each image within the padded batch.
            targets: for each image boxes (n, 4), labels (n,) 1..C, and masks (n, H, W); in an
                episode of calibration ``drawn_for`` (0-d), the category index it was drawn for.
        """
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._detect(features, proposals, image_shapes), {}

    def _predict(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[Size]
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, L) and box deltas (R, 4 K) of all images' proposals."""
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        box_features = self.box_head(pooled)
        logits, deltas = self.box_predictor(box_features)
        if self.calibrated is not None:
            second = self.calibrated(pooled).float()
            logits = torch.cat([logits, second], dim=1)
        return logits, deltas

    # ---- training ----

    def subsample(self, labels: list[Tensor]) -> list[Tensor]:
        """Which proposals of each image are trained on: their indices.

        As torchvision; but where the targets name the categories that their images were drawn for,
        those of :func:`detection.heads.calibration_proposals`.
        """
        if self._drawn_for is None:
            sampled: list[Tensor] = super().subsample(labels)
            return sampled
        # What torchvision calls -1, neither foreground nor background, cannot occur: both begin
        # at the same overlap.
        indices = [_category_index(of_image, self.num_classes) for of_image in labels]
        counts = [len(of_image) for of_image in indices]
        pairs = zip(indices, self._drawn_for, strict=True)
        drawn_for = torch.cat([category.expand_as(of_image) for of_image, category in pairs])
        seed = int(torch.randint(2**62, ()))
        generator = torch.Generator().manual_seed(seed)
        kept = calibration_proposals(torch.cat(indices), self.num_classes, generator, drawn_for)
        return [torch.where(of_image)[0] for of_image in kept.split(counts)]

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[Size],
        targets: list[dict[str, Tensor]],
    ) -> Losses:
        """The losses of one training step, each 0-d."""
        named = all(DRAWN_FOR in target for target in targets)
        self._drawn_for = [target[DRAWN_FOR] for target in targets] if named else None
        proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        indices = [_category_index(of_image, self.num_classes) for of_image in labels]
        flat = torch.cat(indices)
        logits, deltas = self._predict(features, proposals, image_shapes)
        self._count(logits, flat)
        losses = {"loss_classifier": self.head.loss(logits, flat)}
        if self.classifier_only:
            return losses
        losses["loss_box_reg"] = self._box_loss(deltas, flat, torch.cat(regression))
        if self.has_mask():
            losses["loss_mask"] = self._mask_loss(
                features, proposals, image_shapes, matched, indices, targets
            )
        return losses

    @torch.no_grad()
    def _count(self, logits: Tensor, labels: Tensor) -> None:
        """Add a step's foreground proposals to the accuracy, if it is collected."""
        if self.proposal_accuracy is not None:
            foreground = labels < self.num_classes
            probabilities = self.head.probabilities(logits[foreground])
            self.proposal_accuracy.add(probabilities.argmax(dim=1), labels[foreground])

    def _box_loss(self, deltas: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Smooth L1 of foreground proposals' deltas, their sum over R (Girshick 2015, Eq. 3)."""
        rows = torch.where(labels < self.num_classes)[0]
        chosen = _of_category(deltas, rows, labels[rows])
        total = F.smooth_l1_loss(chosen, targets[rows], beta=_SMOOTH_L1_BETA, reduction="sum")
        return total / max(len(labels), 1)

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[Size],
        matched: list[Tensor],
        labels: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        """Binary cross-entropy of foreground proposals' masks (He et al. 2017)."""
        rows = [torch.where(of_image < self.num_classes)[0] for of_image in labels]
        boxes = [p[r] for p, r in zip(proposals, rows, strict=True)]
        categories = torch.cat([of_image[r] for of_image, r in zip(labels, rows, strict=True)])
        logits = self._mask_logits(features, boxes, image_shapes, categories)
        if len(logits) == 0:  # A mean over nothing is NaN; and every layer must get a gradient.
            return logits.sum()
        instances = [m[r] for m, r in zip(matched, rows, strict=True)]
        masks = [target["masks"] for target in targets]
        truth = torch.cat(
            [
                project_masks_on_boxes(m, b, i, logits.shape[-1])
                for m, b, i in zip(masks, boxes, instances, strict=True)
            ]
        )
        return F.binary_cross_entropy_with_logits(logits, truth)

    def _mask_logits(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[Size],
        labels: Tensor,
    ) -> Tensor:
        """(N, M, M) for the boxes of all images and their category indices (N,)."""
        pooled = self.mask_roi_pool(features, boxes, image_shapes)
        if self.training:
            return cast(Tensor, self.mask_predictor(self.mask_head(pooled), labels))
        # In parts: the maps of 300 detections of each image are 0.5 GB and no cache holds them.
        parts = zip(pooled.split(_MASKS_AT_ONCE), labels.split(_MASKS_AT_ONCE), strict=True)
        return torch.cat([self.mask_predictor(self.mask_head(x), y) for x, y in parts])

    # ---- evaluation ----

    def _detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[Size]
    ) -> list[Prediction]:
        """Detections of each image, in pixels of the network's input; masks (N, 1, M, M)."""
        logits, deltas = self._predict(features, proposals, image_shapes)
        counts = [len(of_image) for of_image in proposals]
        results = [
            self._detect_in_image(self.head.probabilities(z), d, p, shape)
            for z, d, p, shape in zip(
                logits.split(counts), deltas.split(counts), proposals, image_shapes, strict=True
            )
        ]
        if self.has_mask():
            self._add_masks(results, features, image_shapes)
        return results

    def _detect_in_image(
        self, scores: Tensor, deltas: Tensor, proposals: Tensor, shape: Size
    ) -> Prediction:
        """Detections from scores (R, C), deltas (R, 4 K) and proposals (R, 4) of one image."""
        above = scores > self.score_thresh
        # Best first; what is under the threshold, or NaN, last, and never taken.
        ranked = torch.where(above, scores, -torch.inf).flatten()
        available = int(above.sum())
        taken = _FIRST_CANDIDATES * self.detections_per_img
        while True:
            taken = min(taken, available)
            found = self._suppress(*ranked.topk(taken), deltas, proposals, shape)
            if taken == available or len(found["scores"]) >= self.detections_per_img:
                return {k: values[: self.detections_per_img] for k, values in found.items()}
            taken *= _MORE_CANDIDATES

    def _suppress(
        self, scores: Tensor, candidates: Tensor, deltas: Tensor, proposals: Tensor, shape: Size
    ) -> Prediction:
        """Boxes of candidates (row x C + category) that survive within their category."""
        rows, labels = candidates // self.num_classes, candidates % self.num_classes
        codes = _of_category(deltas, rows, labels)
        boxes = clip_boxes_to_image(self.box_coder.decode_single(codes, proposals[rows]), shape)
        wide = remove_small_boxes(boxes, _LEAST_SIDE)
        boxes, scores, labels = boxes[wide], scores[wide], labels[wide]
        kept = batched_nms(boxes.double(), scores.double(), labels, self.nms_thresh)
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}

    def _add_masks(
        self, results: list[Prediction], features: dict[str, Tensor], image_shapes: list[Size]
    ) -> None:
        boxes = [result["boxes"] for result in results]
        labels = torch.cat([result["labels"] for result in results])
        masks = self._mask_logits(features, boxes, image_shapes, labels).sigmoid()
        of_images = masks[:, None].split([len(b) for b in boxes])
        for result, of_image in zip(results, of_images, strict=True):
            result["masks"] = of_image


def _of_category(deltas: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """The deltas (n, 4) of ``rows`` (n,) for their categories (n,), from deltas (R, 4 K)."""
    by_category = deltas.view(len(deltas), deltas.shape[1] // 4, 4)
    shared = by_category.shape[1] == 1
    return by_category[rows, torch.zeros_like(labels) if shared else labels]


def total_loss(losses: Losses) -> Tensor:
    """Their sum, 0-d: Faster and Mask R-CNN weigh all losses alike."""
    return torch.stack(list(losses.values())).sum()
