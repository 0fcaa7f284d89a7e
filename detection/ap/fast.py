"""LVIS AP of boxes and masks by arrays, equal to the official package.

What LVIS counts (lvis 0.5.3, ``LVISEval``): of each image the 300 detections of largest score;
of those, the ones whose category is annotated or was looked for in the image (annotation is
federated: elsewhere nothing is known); unmatched ones are ignored where the category is not
exhaustively annotated, or where their own area is outside the range. Instances and detections
without area do not exist for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import UserError
from detection.ap.inputs import (
    Bools,
    CheckedDetections,
    Detections,
    Floats,
    GroundTruth,
    Ints,
    IouType,
    check_detections,
)
from detection.ap.matching import (
    COUNTED,
    IGNORED,
    IOU_THRESHOLDS,
    Regions,
    Status,
    chunks,
    find_edges,
    find_pairs,
    match,
)
from detection.ap.summary import AREAS, RECALLS, ApResult, precision_and_recall

MAX_DETECTIONS = 300
"""Of an image, in all categories together."""
MAX_EDGES = 2**17
"""Detections x instances looked at together: about 150 bytes each, 20 MiB in all."""


@dataclass(frozen=True)
class Kept:
    """The instances and detections that take part.

    Detections by category, in each by falling score, then image, then the order they came in.
    """

    instance: Ints
    """(G,), into the ground truth."""
    detection: Ints
    """(D,), into the checked detections."""
    detection_key: Ints
    """(D,), number of the (image, category) pair."""
    instance_key: Ints
    """(G,)."""


def evaluate_ap(
    ground_truth: GroundTruth | Mapping[str, Any],
    detections: Detections,
    iou_type: IouType = "bbox",
    *,
    areas: Sequence[str] = tuple(AREAS),
    max_detections: int = MAX_DETECTIONS,
    max_edges: int = MAX_EDGES,
) -> ApResult:
    """LVIS AP.

    Memory beyond input and result: about 250 bytes a detection, and 150 for each of ``max_edges``.

    Args:
        ground_truth: arrays, or the content of an LVIS annotation file.
        detections: N of them; none is fine.
        iou_type: 'bbox' or 'segm'.
        areas: names of :data:`AREAS`, the first 'all'; the fewer, the faster.
        max_detections: of an image, those of largest score.
        max_edges: most pairs of a detection and an instance that are looked at together (one
            image and category is never parted).

    Raises:
        UserError: as :func:`detection.ap.inputs.check_detections` and ``GroundTruth.from_lvis``;
            or an unknown area.
    """
    if not areas or areas[0] != "all" or not set(areas) <= set(AREAS):
        raise UserError(f"Areas {list(areas)} are not 'all' and others of {list(AREAS)}.")
    if not isinstance(ground_truth, GroundTruth):
        ground_truth = GroundTruth.from_lvis(ground_truth, with_masks=iou_type == "segm")
    checked = check_detections(ground_truth, detections, iou_type)
    kept = _keep(ground_truth, checked, max_detections)
    ignored = _ignored_instances(ground_truth, kept, areas)
    status = _unmatched_status(ground_truth, checked, kept, areas)
    _match_all(kept, _regions(ground_truth, checked, kept), ignored, status, max_edges)
    return _summarise(ground_truth, checked, kept, ignored, status, areas)


def _pair_key(image: Ints, category: Ints, truth: GroundTruth) -> Ints:
    return category * truth.num_images + image


def _keep(truth: GroundTruth, found: CheckedDetections, max_detections: int) -> Kept:
    instance = np.flatnonzero(_has_area(truth.area))
    instance_key = _pair_key(truth.image, truth.category, truth)[instance]
    negative_key = _pair_key(truth.negative[:, 0], truth.negative[:, 1], truth)
    top = _top_of_each_image(found, max_detections)
    top = top[_has_area(found.area[top])]
    key = _pair_key(found.image[top], found.category[top], truth)
    inside = np.isin(key, np.concatenate([instance_key, negative_key]))
    top, key = top[inside], key[inside]
    order = np.lexsort((top, found.image[top], -found.scores[top], found.category[top]))
    return Kept(instance, top[order], key[order], instance_key)


def _has_area(area: Floats) -> Bools:
    return (area > 0) & (area < np.inf)


def _top_of_each_image(found: CheckedDetections, max_detections: int) -> Ints:
    """The detections of largest score of each image; among equals those that came first."""
    order = np.lexsort((-found.scores, found.image))
    image = found.image[order]
    rank = np.arange(len(order)) - np.searchsorted(image, image)
    return order[rank < max_detections]


def _ignored_instances(truth: GroundTruth, kept: Kept, areas: Sequence[str]) -> Bools:
    """(A, G): outside the range, or marked so."""
    area, marked = truth.area[kept.instance], truth.ignore[kept.instance]
    return np.stack([marked | _outside(area, name) for name in areas])


def _outside(area: Floats, name: str) -> Bools:
    low, high = AREAS[name]
    return (area < low) | (area > high)


def _unmatched_status(
    truth: GroundTruth, found: CheckedDetections, kept: Kept, areas: Sequence[str]
) -> Status:
    """(A, T, D): what each detection is unless it finds an instance."""
    partial = _pair_key(truth.not_exhaustive[:, 0], truth.not_exhaustive[:, 1], truth)
    unsure, area = np.isin(kept.detection_key, partial), found.area[kept.detection]
    status = np.empty((len(areas), len(IOU_THRESHOLDS), len(area)), dtype=np.uint8)
    for a, name in enumerate(areas):
        status[a] = np.where(unsure | _outside(area, name), IGNORED, COUNTED)
    return status


def _regions(truth: GroundTruth, found: CheckedDetections, kept: Kept) -> Regions:
    if found.xywh is not None:
        return Regions(found.xywh[kept.detection], truth.xywh[kept.instance])
    assert found.masks is not None
    assert truth.masks is not None
    return Regions(
        [found.masks[i] for i in kept.detection], [truth.masks[i] for i in kept.instance]
    )


def _match_all(
    kept: Kept, regions: Regions, ignored: Bools, status: Status, max_edges: int
) -> None:
    pairs = find_pairs(kept.detection_key, kept.instance_key)
    for part in chunks(pairs, max_edges):
        edges = find_edges(pairs, part, regions)
        for a in range(len(status)):
            match(edges, ignored[a], status[a])


def _summarise(
    truth: GroundTruth,
    found: CheckedDetections,
    kept: Kept,
    ignored: Bools,
    status: Status,
    areas: Sequence[str],
) -> ApResult:
    detection_category = found.category[kept.detection]
    instance_category = truth.category[kept.instance]
    num_categories = truth.num_categories
    shape = (len(areas), len(IOU_THRESHOLDS))
    precision = np.empty((*shape, len(RECALLS), num_categories))
    recall = np.empty((*shape, num_categories))
    for a in range(len(areas)):
        counts = np.bincount(instance_category[~ignored[a]], minlength=num_categories)
        precision[a], recall[a] = precision_and_recall(status[a], detection_category, counts)
    return ApResult(precision, recall, truth.frequency, tuple(areas))
