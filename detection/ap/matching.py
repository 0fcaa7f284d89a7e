"""Which detection finds which instance: the greedy matching of LVIS, all images at once.

Shapes: T IoU thresholds, E edges (a detection and an instance of its image and category), D
detections, G instances. Detections choose in the order of their scores, each the best instance
that is still free; a detection waits only for those of its own (image, category) pair, so the r-th
detections of all pairs choose together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.ap.inputs import Bools, Floats, Ints, Rle

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""(T,). The official values bit for bit: the ninth is 0.9 less one unit in the last place."""
_MATCH_AT: Floats = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)

COUNTED, FOUND, IGNORED = 0, 1, 2
"""Status of a detection at a threshold: false positive, true positive, neither."""
Status = NDArray[np.uint8]


@dataclass(frozen=True)
class Pairs:
    """The (image, category) pairs that have both detections and instances, shape (P,) each.

    Detections and instances of a pair are neighbours in ``detections`` and ``instances``.
    """

    detections: Ints
    """(D,), detections sorted by pair, in each by falling score."""
    first_detection: Ints
    """Into ``detections``."""
    num_detections: Ints
    instances: Ints
    """(G,), instances sorted by pair, in each in the order of the file."""
    first_instance: Ints
    """Into ``instances``."""
    num_instances: Ints


@dataclass(frozen=True)
class Regions:
    """What IoU is computed from: boxes (., 4), or masks."""

    detections: Floats | Sequence[Rle]
    instances: Floats | Sequence[Rle]


@dataclass(frozen=True)
class Edges:
    """Detections and instances that overlap enough for the lowest threshold, shape (E,) each.

    Sorted by ``turn``, then detection, then falling IoU, then instance, the last first: the order
    in which a detection wants its instances, were none ignored.
    """

    detection: Ints
    instance: Ints
    iou: Floats
    turn: Ints
    """r: the detection is the r-th of its pair, counting those with an edge."""


def find_pairs(detection_key: Ints, instance_key: Ints) -> Pairs:
    """Sort by pair.

    Args:
        detection_key: number of the pair of each detection, detections by falling score, (D,).
        instance_key: the same of each instance, in the order of the file, (G,).
    """
    detections = np.argsort(detection_key, kind="stable")
    instances = np.argsort(instance_key, kind="stable")
    det_keys, det_first, det_number = _runs(detection_key[detections])
    ins_keys, ins_first, ins_number = _runs(instance_key[instances])
    _, i, j = np.intersect1d(det_keys, ins_keys, assume_unique=True, return_indices=True)
    return Pairs(detections, det_first[i], det_number[i], instances, ins_first[j], ins_number[j])


def _runs(ordered: Ints) -> tuple[Ints, Ints, Ints]:
    values, first, number = np.unique(ordered, return_index=True, return_counts=True)
    return values, first.astype(np.int64), number.astype(np.int64)


def chunks(pairs: Pairs, max_edges: int) -> Iterator[slice]:
    """Slices of consecutive pairs with at most ``max_edges`` edges each, or of one pair."""
    total = np.concatenate([[0], np.cumsum(pairs.num_detections * pairs.num_instances)])
    start, number = 0, len(total) - 1
    while start < number:
        end = int(np.searchsorted(total, total[start] + max_edges, side="right")) - 1
        end = max(end, start + 1)
        yield slice(start, end)
        start = end


def spread(first: Ints, number: Ints) -> Ints:
    """Concatenate ``first[i] .. first[i] + number[i] - 1`` for all i.

    >>> spread(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(number)
    if len(ends) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.arange(ends[-1]) + np.repeat(first - ends + number, number)


def find_edges(pairs: Pairs, part: slice, regions: Regions) -> Edges:
    """All detections and instances of some pairs that overlap by the lowest threshold or more."""
    number, per_det = pairs.num_detections[part], pairs.num_instances[part]
    slots = spread(pairs.first_detection[part], number)
    per_det, first = np.repeat(per_det, number), np.repeat(pairs.first_instance[part], number)
    instance = pairs.instances[spread(first, per_det)]
    detection = np.repeat(pairs.detections[slots], per_det)
    iou = _iou(pairs, part, regions, detection, instance)
    keep = np.flatnonzero(iou >= _MATCH_AT[0])
    pair = np.repeat(np.repeat(np.arange(len(number)), number), per_det)[keep]
    # Instances of a pair follow each other in the file's order: the place stands for it.
    return _by_turn(detection[keep], instance[keep], iou[keep], pair, keep)


def _by_turn(detection: Ints, instance: Ints, iou: Floats, pair: Ints, place: Ints) -> Edges:
    starts = _starts(detection)
    turn_of_detection = _rank_in_run(pair[starts])
    turn = np.repeat(turn_of_detection, np.diff(np.append(starts, len(detection))))
    which = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(detection))))
    order = np.lexsort((-place, -iou, which, turn))
    return Edges(detection[order], instance[order], iou[order], turn[order])


def _starts(values: Ints) -> Ints:
    """Where a run of equal values begins."""
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _rank_in_run(values: Ints) -> Ints:
    """0, 1, 2, ... in every run of equal values."""
    starts = _starts(values)
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def _iou(pairs: Pairs, part: slice, regions: Regions, detection: Ints, instance: Ints) -> Floats:
    if isinstance(regions.detections, np.ndarray):
        assert isinstance(regions.instances, np.ndarray)
        return box_iou(regions.detections[detection], regions.instances[instance])
    return _mask_iou(pairs, part, regions)


def box_iou(a: Floats, b: Floats) -> Floats:
    """IoU of each box of ``a`` with that of ``b``, (E, 4) as x, y, width, height.

    Computed in pycocotools' order of operations, for its very bits. Boxes that only touch, or
    have no area, have IoU 0.
    """
    ax, ay, aw, ah = a.T
    bx, by, bw, bh = b.T
    width = np.minimum(aw + ax, bw + bx) - np.maximum(ax, bx)
    height = np.minimum(ah + ay, bh + by) - np.maximum(ay, by)
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    union = aw * ah + bw * bh - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return iou


def _mask_iou(pairs: Pairs, part: slice, regions: Regions) -> Floats:
    """IoU of the edges of some pairs, pair by pair as pycocotools has it."""
    from pycocotools import mask as coco_mask

    values = [np.zeros(0)]
    for p in range(part.start, part.stop):
        d, g = pairs.first_detection[p], pairs.first_instance[p]
        found = [regions.detections[i] for i in pairs.detections[d : d + pairs.num_detections[p]]]
        real = [regions.instances[i] for i in pairs.instances[g : g + pairs.num_instances[p]]]
        values.append(coco_mask.iou(found, real, [0] * len(real)).reshape(-1))
    return np.concatenate(values)


def match(edges: Edges, ignored: Bools, status: Status) -> None:
    """Let the detections of some pairs choose; write the status of those that find an instance.

    At every threshold a detection takes, of the instances that no earlier one took and that it
    overlaps enough, the one of largest IoU, among equals the last in the file; one to ignore only
    if there is no other.

    Args:
        edges: of whole pairs.
        ignored: instances to ignore, shape (G,).
        status: shape (T, D), changed where a detection finds one.
    """
    # Within a detection: those to ignore last, else the order that is there.
    order = np.argsort(2 * _number_runs(edges.detection) + ignored[edges.instance], kind="stable")
    detection, iou = edges.detection[order], edges.iou[order]
    known, instance = np.unique(edges.instance[order], return_inverse=True)
    taken = np.zeros((len(known), len(_MATCH_AT)), dtype=bool)
    ends = np.cumsum(np.bincount(edges.turn)) if len(order) else np.zeros(0, dtype=np.int64)
    start = 0
    for end in ends.tolist():
        now = slice(start, end)
        free = (iou[now, None] >= _MATCH_AT) & ~taken[instance[now]]
        edge, threshold = _first_free(free, _starts(detection[now]))
        chosen = instance[now][edge]
        taken[chosen, threshold] = True
        outcome = np.where(ignored[known[chosen]], IGNORED, FOUND)
        status[threshold, detection[now][edge]] = outcome
        start = end


def _number_runs(values: Ints) -> Ints:
    starts = np.zeros(len(values), dtype=np.int64)
    starts[_starts(values)[1:]] = 1
    return np.cumsum(starts)


def _first_free(free: Bools, starts: Ints) -> tuple[Ints, Ints]:
    """The first free edge of each run and threshold: edges and thresholds, those that exist."""
    beyond = len(free)
    place = np.where(free, np.arange(beyond)[:, None], beyond)
    first = np.minimum.reduceat(place, starts, axis=0)
    run, threshold = np.nonzero(first < beyond)
    return first[run, threshold], threshold
