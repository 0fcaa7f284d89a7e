"""LVIS AP of a detectron2 model, by :mod:`detection.ap`.

Shapes: C categories, N detections of an image.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from pycocotools import mask as coco_mask

from common.errors import UserError
from detection.ap import ApResult, Detections, GroundTruth, evaluate_ap
from detection.detectron2_adapter.datasets import read_registered
from detection.sets import ground_truth

Found = dict[str, Any]
"""Of one image: ``image_ids``, ``categories``, ``scores``, ``boxes``, and with masks ``masks``."""


def _found_in(image_id: int, instances: Instances, *, masks: bool) -> Found:
    """The detections in one image, on the CPU; boxes in pixels of the image as it is on disk."""
    found: Found = {
        "image_ids": np.full(len(instances), image_id),
        "categories": instances.pred_classes.numpy(),
        "scores": instances.scores.double().numpy(),
        "boxes": instances.pred_boxes.tensor.double().numpy().reshape(-1, 4),
    }
    if masks:
        pixels = instances.pred_masks.numpy().astype(np.uint8)
        # One at a time: pycocotools fails for more than 255 masks at once.
        found["masks"] = [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]
    return found


def _joined(parts: list[Found], *, masks: bool) -> Detections:
    """The detections of several images."""

    def column(name: str, *shape: int) -> np.ndarray:
        return np.concatenate([np.zeros((0, *shape), np.int64), *(part[name] for part in parts)])

    return Detections.from_corners(
        column("image_ids"),
        column("categories"),
        column("scores"),
        column("boxes", 4),
        [mask for part in parts for mask in part["masks"]] if masks else None,
    )


class ApEvaluator(DatasetEvaluator):  # type: ignore[misc]  # detectron2 has no types
    """AP of boxes, and of masks, on a registered set in LVIS's layout.

    In place of detectron2's ``LVISEvaluator``, whose numbers it gives (``detection.ap`` is tested
    against the official package), faster, and for categories whose ids have gaps.

    Attributes:
        results: of the last evaluation, by 'bbox' and 'segm'; on the first rank alone.
    """

    def __init__(self, dataset: str, *, masks: bool) -> None:
        """Nothing is read yet.

        Args:
            dataset: name of the registered set.
            masks: evaluate masks, too.
        """
        self.results: dict[str, ApResult] = {}
        self._dataset, self._masks = dataset, masks
        self._parts: list[Found] = []

    def reset(self) -> None:
        """Forget the detections of another evaluation."""
        self._parts = []

    def process(
        self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Instances]]
    ) -> None:
        """Keep the detections of a batch.

        Args:
            inputs: with ``image_id``.
            outputs: with ``instances``.
        """
        for given, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            self._parts.append(_found_in(given["image_id"], instances, masks=self._masks))

    @cached_property
    def _truth(self) -> GroundTruth:
        return ground_truth(read_registered(self._dataset), masks=self._masks)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """AP, APr, APc, APf and so on in percent, NaN where not measured; None on other ranks.

        Every rank must call it.

        Raises:
            UserError: when the model has categories that the set does not have.
        """
        comm.synchronize()
        gathered = comm.gather(self._parts, dst=0)
        self._parts = []
        if not comm.is_main_process():
            return None
        found = _joined(list(itertools.chain(*gathered)), masks=self._masks)
        self.results = {"bbox": evaluate_ap(self._truth, found, "bbox")}
        if self._masks:
            self.results["segm"] = evaluate_ap(self._truth, found, "segm")
        return {kind: _percent(result) for kind, result in self.results.items()}

    def category_ap(self, num_classes: int) -> np.ndarray:
        """AP of boxes of each category in the last evaluation, (C,), NaN where not measured.

        NaN throughout on other ranks than the first.

        Raises:
            UserError: when the set has another number of categories.
        """
        if "bbox" not in self.results:
            return np.full(num_classes, math.nan)
        ap = self.results["bbox"].category_ap
        if len(ap) != num_classes:
            raise UserError(
                f"the data set {self._dataset} has {len(ap)} categories, the model {num_classes}; "
                "name a set of the categories that are trained."
            )
        return ap


def _percent(result: ApResult) -> dict[str, float]:
    """The averages as numbers, as detectron2's writers ask for."""
    return {k: math.nan if value is None else value for k, value in result.record().items()}
