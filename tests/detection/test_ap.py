"""The fast evaluation against the official package, and against hand-worked cases."""

import json
import logging
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from detection.ap import Detections, GroundTruth, IouType, evaluate_ap, official_ap
from detection.ap.matching import IOU_THRESHOLDS, box_iou, chunks, find_pairs, spread
from detection.ap.official import lvis_package, run_official
from detection.ap.summary import RECALLS, ApResult, _needed

pytest.importorskip("lvis")
from pycocotools import mask as coco_mask

SIZE = 120
"""Height and width of the test images; 96 x 96 pixels and more are large."""
Box = tuple[int, int, int, int]


def annotation(
    instances: list[tuple[int, int, Box]],
    images: int = 2,
    categories: int = 3,
    negative: dict[int, list[int]] | None = None,
    partial: dict[int, list[int]] | None = None,
    **extra: list[Any],
) -> dict[str, Any]:
    """An LVIS annotation; categories and images by index, ids are 10 x index + 7 in reverse."""
    negative, partial = negative or {}, partial or {}

    def ids(of: list[int]) -> list[int]:
        return [category_id(c) for c in of]

    return {
        "images": [
            {
                "id": image_id(i),
                "height": SIZE,
                "width": SIZE,
                "neg_category_ids": ids(negative.get(i, [])),
                "not_exhaustive_category_ids": ids(partial.get(i, [])),
            }
            for i in reversed(range(images))
        ],
        "categories": [
            {"id": category_id(c), "name": f"c{c}", "frequency": "rcf"[c % 3]}
            for c in reversed(range(categories))
        ],
        "annotations": [
            {
                "id": n,
                "image_id": image_id(i),
                "category_id": category_id(c),
                "bbox": list(box),
                "area": box[2] * box[3],
                "segmentation": corners(box),
            }
            | {key: values[n] for key, values in extra.items()}
            for n, (i, c, box) in enumerate(instances)
        ],
    }


def image_id(index: int) -> int:
    return 10 * index + 7


def category_id(index: int) -> int:
    return 3 * index + 2


def corners(box: Box) -> list[list[int]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def detected(rows: list[tuple[int, int, float, Box]], masks: bool = False) -> Detections:
    """From image index, category, score and box."""
    return Detections(
        image_ids=np.array([image_id(row[0]) for row in rows], dtype=np.int64),
        categories=np.array([row[1] for row in rows], dtype=np.int64),
        scores=np.array([row[2] for row in rows]),
        xywh=np.array([row[3] for row in rows], dtype=float).reshape(-1, 4),
        masks=[filled(row[3]) for row in rows] if masks else None,
    )


def filled(box: Box) -> dict[str, Any]:
    x, y, w, h = box
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    rle: dict[str, Any] = coco_mask.encode(mask)
    return rle


def assert_same(ours: ApResult, theirs: ApResult) -> None:
    np.testing.assert_allclose(ours.precision, theirs.precision, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.recall, theirs.recall, rtol=0, atol=1e-9)
    assert ours.averages() == pytest.approx(theirs.averages(), abs=1e-9, nan_ok=True)


def both(truth: dict[str, Any], found: Detections, iou_type: IouType = "bbox") -> ApResult:
    """Ours, once it is the same as the official one, in chunks of any size."""
    theirs = official_ap(truth, found, iou_type)
    for max_edges in (1, 7, 10**6):
        ours = evaluate_ap(truth, found, iou_type, max_edges=max_edges)
        assert_same(ours, theirs)
    return ours


# Few places and sizes: equal boxes, equal IoUs, IoUs on a threshold and equal scores abound.
BOXES = st.tuples(
    st.sampled_from([0, 2, 5]), st.sampled_from([0, 1]), st.sampled_from([0, 8, 10, 33]),
    st.sampled_from([10, 20, 97]),
)  # fmt: skip
REAL_BOXES = BOXES.filter(lambda box: box[2] > 0)
IMAGES, CATEGORIES = st.integers(0, 1), st.integers(0, 2)
SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
LISTS = st.dictionaries(IMAGES, st.lists(CATEGORIES, max_size=3, unique=True))


@st.composite
def problems(draw: st.DrawFn, boxes: Any = BOXES) -> tuple[dict[str, Any], Any]:
    instances = draw(st.lists(st.tuples(IMAGES, CATEGORIES, boxes), max_size=14))
    marks = [draw(st.sampled_from([0, 0, 0, 1])) for _ in instances]
    truth = annotation(instances, negative=draw(LISTS), partial=draw(LISTS), ignore=marks)
    return truth, draw(st.lists(st.tuples(IMAGES, CATEGORIES, SCORES, boxes), max_size=40))


@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_boxes_agree_with_the_official_package(problem: Any) -> None:
    truth, rows = problem
    both(truth, detected(rows))


@settings(max_examples=40, deadline=None)
@given(problem=problems(REAL_BOXES))
def test_masks_agree_with_the_official_package(problem: Any) -> None:
    truth, rows = problem
    both(truth, detected(rows, masks=True), "segm")


@settings(max_examples=20, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_one_crowded_pair_agrees_with_the_official_package(problem: Any, seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth, rows = problem
    near: list[Any] = (10 + generator.integers(0, 4, (25, 4))).tolist()
    more = [(0, 0, float(s), near[i % 25]) for i, s in enumerate(generator.random(60).round(1))]
    crowd = [
        {**one, "id": 100 + i, "bbox": near[i], "area": near[i][2] * near[i][3]}
        for i, one in enumerate(annotation([(0, 0, box) for box in near])["annotations"])
    ]
    both({**truth, "annotations": truth["annotations"] + crowd}, detected(rows + more))


def large_problem(
    images: int, per_image: int, categories: int, seed: int = 0
) -> tuple[dict[str, Any], Detections]:
    """Boxes around instances and at random; scores of two decimals, so that many are equal."""
    generator = np.random.default_rng(seed)
    instances: list[tuple[int, int, Box]] = []
    rows = []
    for i in range(images):
        names = generator.choice(categories, size=4, replace=False)
        for c in np.repeat(names, 3).tolist():
            x, y, w, h = (int(v) for v in generator.integers(2, 60, 4))
            instances.append((i, c, (x, y, w, h)))
        for d in range(per_image):
            c, box = instances[-1 - d % 12][1:]
            moved = tuple(max(1, int(v)) for v in box + generator.integers(-3, 4, 4))
            other = int(generator.integers(categories))
            rows.append((i, c if d % 2 else other, round(generator.random(), 2), moved))
    lists = [
        {i: generator.choice(categories, n, replace=False).tolist() for i in range(images)}
        for n in (categories // 2, 3)
    ]
    truth = annotation(instances, images, categories, negative=lists[0], partial=lists[1])
    return truth, detected(rows)  # type: ignore[arg-type]


def test_more_than_300_detections_an_image_agree_with_the_official_package() -> None:
    truth, found = large_problem(images=6, per_image=420, categories=12)
    result = both(truth, found)
    assert 0.05 < result.averages()["AP"] < 0.95
    unlimited = evaluate_ap(truth, found, max_detections=10**6)
    assert not np.array_equal(unlimited.precision, result.precision, equal_nan=True)


def test_a_larger_problem_agrees_with_the_official_package() -> None:
    truth, found = large_problem(images=40, per_image=300, categories=30, seed=1)
    assert_same(evaluate_ap(truth, found), official_ap(truth, found))


def test_300_masks_in_one_place_agree_with_the_official_package() -> None:
    truth = annotation([(0, 0, (n % 60, 5, 20 + n % 7, 40)) for n in range(280)], images=1)
    rows = [(0, 0, n % 50 / 50, (n % 59, 6, 20 + n % 5, 39)) for n in range(310)]
    found = detected(rows, masks=True)
    assert_same(evaluate_ap(truth, found, "segm"), official_ap(truth, found, "segm"))


def test_detections_in_another_order_change_only_ties() -> None:
    truth, found = large_problem(images=4, per_image=50, categories=9)
    scores = np.random.default_rng(0).permutation(200) / 200
    order = np.random.default_rng(1).permutation(200)
    arrays = [np.asarray(a) for a in (found.image_ids, found.categories, scores, found.xywh)]
    images, categories, boxes = arrays[0], arrays[1], arrays[3]
    straight = evaluate_ap(truth, Detections(images, categories, scores, boxes))
    moved = Detections(images[order], categories[order], scores[order], boxes[order])
    shuffled = evaluate_ap(truth, moved)
    np.testing.assert_array_equal(straight.precision, shuffled.precision)


def test_a_found_and_a_missed_instance_give_half() -> None:
    # Recall 0.5 at precision 1: the recalls 0 .. 0.50 count 1, the other 50 of 101 count 0.
    truth = annotation([(0, 0, (0, 0, 10, 10)), (0, 0, (50, 50, 10, 10))])
    result = both(truth, detected([(0, 0, 0.9, (0, 0, 10, 10))]))
    assert result.category_ap[0] == pytest.approx(51 / 101)
    assert np.isnan(result.category_ap[1:]).all()


def test_a_false_positive_in_front_halves_the_precision() -> None:
    truth = annotation([(0, 0, (0, 0, 10, 10))])
    rows = [(0, 0, 0.9, (50, 50, 10, 10)), (0, 0, 0.8, (0, 0, 10, 10))]
    assert both(truth, detected(rows)).averages()["AP"] == pytest.approx(0.5)


def test_iou_on_a_threshold_matches() -> None:
    # 10 x 10 in 10 x 20: IoU exactly 0.5, matched at the first of ten thresholds.
    truth = annotation([(0, 0, (0, 0, 10, 20))])
    result = both(truth, detected([(0, 0, 0.9, (0, 0, 10, 10))]))
    assert result.averages()["AP50"] == pytest.approx(1)
    assert result.averages()["AP"] == pytest.approx(0.1)
    assert result.averages()["AP75"] == 0


def test_two_detections_of_one_instance_leave_one_false_positive() -> None:
    truth = annotation([(0, 0, (0, 0, 10, 10)), (0, 0, (50, 50, 10, 10))])
    rows = [(0, 0, s, (0, 0, 10, 10)) for s in (0.9, 0.8)] + [(0, 0, 0.7, (50, 50, 10, 10))]
    # Precision 1 up to recall 0.5, then 2/3.
    assert both(truth, detected(rows)).averages()["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({}, 1.0),  # image 1 says nothing about category 0
        ({"negative": {1: [0]}}, 0.5),  # it is known not to be there
        ({"negative": {1: [0]}, "partial": {1: [0]}}, 1.0),  # ignored: not all are annotated
    ],
)
def test_an_unmatched_detection_counts_only_where_the_category_was_looked_for(
    lists: dict[str, Any], expected: float
) -> None:
    truth = annotation([(0, 0, (0, 0, 10, 10))], **lists)
    rows = [(1, 0, 0.9, (0, 0, 10, 10)), (0, 0, 0.8, (0, 0, 10, 10))]
    assert both(truth, detected(rows)).averages()["AP"] == pytest.approx(expected)


def test_a_detection_prefers_an_instance_that_counts_to_a_better_ignored_one() -> None:
    instances = [(0, 0, (0, 0, 10, 10)), (0, 0, (0, 0, 10, 8))]
    truth = annotation(instances, ignore=[1, 0])
    result = both(truth, detected([(0, 0, 0.9, (0, 0, 10, 10))]))
    # IoU 0.8 with the one that counts: found at 0.5 .. 0.8, above it neither right nor wrong.
    assert result.recall[0, :, 0].tolist() == [1.0] * 7 + [0.0] * 3


def test_equal_scores_keep_the_order_of_the_images_and_of_the_list() -> None:
    truth = annotation([(0, 0, (0, 0, 10, 10))], negative={1: [0]})
    wrong_image = (1, 0, 0.5, (0, 0, 10, 10))
    right, wrong = (0, 0, 0.5, (0, 0, 10, 10)), (0, 0, 0.5, (60, 60, 10, 10))
    assert both(truth, detected([wrong_image, right])).averages()["AP"] == pytest.approx(1)
    assert both(truth, detected([wrong, right])).averages()["AP"] == pytest.approx(0.5)


def test_no_detection_gives_zero_and_categories_without_instances_nan() -> None:
    truth = annotation([(0, 0, (0, 0, 10, 10))], negative={0: [1]})
    for iou_type in ("bbox", "segm"):
        result = both(truth, detected([], masks=True), iou_type)
        assert result.category_ap[0] == 0
        assert np.isnan(result.category_ap[1:]).all()
        assert result.record()["APr"] == 0
        assert result.record()["APc"] is None


def test_no_instance_at_all_gives_nan() -> None:
    result = both(annotation([], negative={0: [0]}), detected([(0, 0, 0.5, (0, 0, 9, 9))]))
    assert math.isnan(result.averages()["AP"])


def test_instances_without_area_do_not_exist() -> None:
    truth = annotation([(0, 0, (0, 0, 0, 10)), (0, 1, (0, 0, 10, 10))])
    result = both(truth, detected([(0, 0, 0.9, (0, 0, 10, 10)), (0, 1, 0.9, (0, 0, 10, 0))]))
    assert np.isnan(result.category_ap[0])
    assert result.category_ap[1] == 0


def test_sizes_go_by_the_area_of_the_annotation() -> None:
    truth = annotation([(0, 0, (0, 0, 100, 100)), (0, 1, (0, 0, 10, 10))], images=1)
    result = both(truth, detected([(0, 0, 0.9, (0, 0, 100, 100))]))
    averages = result.averages()
    assert [averages["APl"], averages["APs"]] == pytest.approx([1, 0])
    assert math.isnan(averages["APm"])


def test_averages_are_those_of_the_official_summary() -> None:
    truth, found = large_problem(images=8, per_image=60, categories=9, seed=3)
    ids = [category_id(c) for c in range(9)]
    kept = json.dumps(truth)
    numbered = {
        **truth, "annotations": [{**a, "id": i + 1} for i, a in enumerate(truth["annotations"])]
    }  # fmt: skip
    summary = run_official(numbered, found.to_results(ids, "bbox"), "bbox")["summary"]
    for name, value in evaluate_ap(truth, found).averages().items():
        expected = math.nan if summary[name] == -1 else summary[name]
        assert value == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert json.dumps(truth) == kept


def test_one_area_gives_the_same_as_the_first_of_four() -> None:
    truth, found = large_problem(images=4, per_image=60, categories=9)
    alone, four = evaluate_ap(truth, found, areas=["all"]), evaluate_ap(truth, found)
    np.testing.assert_array_equal(alone.precision[0], four.precision[0])
    assert set(alone.averages()) == {"AP", "AP50", "AP75", "APr", "APc", "APf"}


def test_box_iou_has_the_bits_of_pycocotools() -> None:
    generator = np.random.default_rng(0)
    boxes = generator.random((2, 60, 4)).astype(np.float32).astype(np.float64) * 50
    theirs = coco_mask.iou(boxes[0], boxes[1], [0] * 60)
    a, b = (v.reshape(-1) for v in np.meshgrid(np.arange(60), np.arange(60), indexing="ij"))
    np.testing.assert_array_equal(box_iou(boxes[0][a], boxes[1][b]), theirs.reshape(-1))


def test_thresholds_are_the_official_ones() -> None:
    with lvis_package() as lvis:
        params = lvis.eval.Params("bbox")
    np.testing.assert_array_equal(IOU_THRESHOLDS, params.iou_thrs)
    assert IOU_THRESHOLDS[0] == 0.5
    assert IOU_THRESHOLDS[5] == 0.75


def test_each_recall_needs_the_true_positives_that_a_search_finds() -> None:
    counts = np.arange(1, 301)
    needed = _needed(counts)
    for n in counts.tolist():
        reached = np.searchsorted(np.arange(1, n + 1) / n, RECALLS, side="left") + 1
        assert needed[:, n - 1].tolist() == reached.tolist()


def test_corners_become_boxes_of_the_files() -> None:
    found = Detections.from_corners([7], [0], [0.5], np.array([[1.5, 2, 4, 8]], np.float32))
    assert np.asarray(found.xywh).tolist() == [[1.5, 2, 2.5, 6]]


def test_chunks_hold_all_pairs_once_and_are_bounded() -> None:
    generator = np.random.default_rng(0)
    pairs = find_pairs(generator.integers(0, 50, 400), generator.integers(0, 60, 300))
    sizes = pairs.num_detections * pairs.num_instances
    parts = list(chunks(pairs, 100))
    assert np.concatenate([np.arange(len(sizes))[p] for p in parts]).tolist() == [
        *range(len(sizes))
    ]
    assert all(sizes[p].sum() <= 100 or p.stop - p.start == 1 for p in parts)


def test_spread_of_nothing_is_empty() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert spread(nothing, nothing).shape == (0,)
    assert spread(np.array([4, 2]), np.array([0, 0])).shape == (0,)


def peak_bytes(truth: GroundTruth, found: Detections, max_edges: int) -> int:
    tracemalloc.start()
    evaluate_ap(truth, found, areas=["all"], max_edges=max_edges)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_follows_the_bound_not_the_number_of_overlaps() -> None:
    # 10 images, each with 200 detections and 200 instances in one place: 400,000 overlaps.
    truth = GroundTruth.from_lvis(
        annotation([(i, 0, (0, 0, 50, 50)) for i in range(10) for _ in range(200)], images=10)
    )
    rows = [(i, 0, d / 200, (0, 0, 50, 50)) for i in range(10) for d in range(200)]
    bounded, at_once = (peak_bytes(truth, detected(rows), n) for n in (40_000, 10**7))
    assert bounded < 40_000 * 250 + 2_000 * 400
    assert at_once > 5 * bounded


GOOD_TRUTH = annotation([(0, 0, (0, 0, 10, 10))])
BOX = [[0.0, 0.0, 5.0, 5.0]]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Detections([7], [3], [0.5], BOX), r"Detection 0 \(image 7\) has a category 3"),
        (Detections([7], [-1], [0.5], BOX), r"category -1, outside 0\.\.2"),
        (Detections([8], [0], [0.5], BOX), "image 8 is not in the ground truth"),
        (Detections([7], [0], [math.nan], BOX), "score nan"),
        (Detections([7], [0], [0.5], [[0, 0, math.inf, 5]]), "box .*inf"),
        (Detections([7], [0], [0.5], [[0, 0, -1, 5]]), "box .*-1"),
        (Detections([7, 7], [0], [0.5], BOX), "1 scores but 2 image ids"),
        (Detections([7], [0], [0.5], BOX * 2), "1 scores but 2 boxes"),
        (Detections([7], [0.0], [0.5], BOX), "categories are float64"),
        (Detections([7], [0], [0.5]), "no boxes"),
    ],
)
def test_bad_detections_are_refused_by_name(found: Detections, message: str) -> None:
    for evaluate in (evaluate_ap, official_ap):
        with pytest.raises(UserError, match=message):
            evaluate(GOOD_TRUTH, found)


def test_bad_masks_are_refused_by_name() -> None:
    small: dict[str, Any] = coco_mask.encode(np.ones((5, 4), dtype=np.uint8, order="F"))
    with pytest.raises(UserError, match=r"mask of \[5, 4\] pixels in an image of \[120, 120\]"):
        evaluate_ap(GOOD_TRUTH, Detections([7], [0], [0.5], masks=[small]), "segm")
    with pytest.raises(UserError, match="no masks"):
        evaluate_ap(GOOD_TRUTH, Detections([7], [0], [0.5], BOX), "segm")
    masked = detected([(0, 0, 0.5, (0, 0, 5, 5))], masks=True)
    with pytest.raises(UserError, match="read without masks"):
        evaluate_ap(GroundTruth.from_lvis(GOOD_TRUTH), masked, "segm")


def test_a_segmentation_that_does_not_parse_is_refused_by_name() -> None:
    broken = annotation([(0, 0, (0, 0, 9, 9))], segmentation=[["here"]])
    with pytest.raises(UserError, match="segmentation of annotation 0 does not parse"):
        GroundTruth.from_lvis(broken, with_masks=True)


def test_an_unknown_iou_type_or_area_is_refused() -> None:
    found = detected([])
    with pytest.raises(UserError, match="'keypoints' is not known"):
        evaluate_ap(GOOD_TRUTH, found, "keypoints")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Areas"):
        evaluate_ap(GOOD_TRUTH, found, areas=["all", "huge"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"id": 4, "image_id": 7, "category_id": 2, "area": 1}]}, "no 'bbox'"),
        (
            {"annotations": [{"image_id": 8, "category_id": 2, "area": 1, "bbox": [0, 0, 1, 1]}]},
            "image_id 8 is not",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "area": 1, "bbox": [0, 0, 1, 1]}]},
            "category_id 1 is not",
        ),
        ({"categories": [{"id": 2}]}, "category 2 of the annotation has no 'frequency'"),
    ],
)
def test_a_bad_annotation_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GroundTruth.from_lvis({**GOOD_TRUTH, **change})


def spoiled(key: str, **changes: Any) -> dict[str, Any]:
    """GOOD_TRUTH with another first entry in one of its lists."""
    first, *others = GOOD_TRUTH[key]
    return {**GOOD_TRUTH, key: [{**first, **changes}, *others]}


def doubled(key: str) -> dict[str, Any]:
    return {**GOOD_TRUTH, key: [*GOOD_TRUTH[key], GOOD_TRUTH[key][0]]}


SPOILED: list[tuple[dict[str, Any], str]] = [
    (doubled("categories"), "category 8 of the annotation is there twice"),
    (doubled("images"), "image 17 of the annotation is there twice"),
    (doubled("annotations"), "annotation 0 of the annotation is there twice"),
    (spoiled("annotations", area=None), "annotation 0 .* and area None are not four finite"),
    (spoiled("annotations", area="100"), "annotation 0 .* area '100' are not"),
    (spoiled("annotations", area=math.inf), "annotation 0 .* area inf are not"),
    (spoiled("annotations", bbox=[0, 0, math.nan, 9]), "annotation 0 .*nan, 9. and area"),
    (spoiled("annotations", bbox=[0, 0, 9]), "annotation 0 .*bbox .0, 0, 9. and area"),
    (spoiled("annotations", bbox=None), "annotation 0 .*bbox None and area"),
    (spoiled("annotations", bbox=[0, 0, -9, 9]), "annotation 0 .*without a negative side"),
    (spoiled("annotations", category_id=2.5), "annotation 0 .*category_id 2.5 is not a whole"),
    (spoiled("images", neg_category_ids=None), "image 17 .*'neg_category_ids' is not a list"),
    (spoiled("images", not_exhaustive_category_ids=3), "'not_exhaustive_category_ids' is not a l"),
    (spoiled("images", neg_category_ids=[None]), "neg_category_ids None is not a whole number"),
    (spoiled("images", id="17"), "image 17 .*id '17' is not a whole number"),
    (spoiled("categories", frequency=None), "category 8 .*frequency None where r, c or f"),
    ({**GOOD_TRUTH, "annotations": None}, "no list 'annotations'"),
    ({**GOOD_TRUTH, "images": [None]}, "image number 1 of the annotation has no 'id'"),
]


@pytest.mark.parametrize(("truth", "message"), SPOILED)
def test_a_wrong_entry_of_an_annotation_is_refused_by_name(
    truth: dict[str, Any], message: str
) -> None:
    found = detected([(0, 0, 0.5, (0, 0, 10, 10))])
    for evaluate in (evaluate_ap, official_ap):
        with pytest.raises(UserError, match=message):
            evaluate(truth, found)


def test_an_image_without_a_size_is_refused_where_masks_need_it() -> None:
    found = detected([(0, 0, 0.5, (0, 0, 10, 10))], masks=True)
    truth = spoiled("images", height=None)
    assert evaluate_ap(truth, found).averages()["AP"] == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"image 17 .*height None is not a whole number"):
        evaluate_ap(truth, found, "segm")


def test_tensors_that_want_a_gradient_and_half_precision_give_the_right_number() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]], requires_grad=True)
    for scores in (
        torch.tensor([0.5], requires_grad=True),
        torch.tensor([0.5], dtype=torch.bfloat16),
        [torch.tensor(0.5, requires_grad=True)],
    ):
        ids, categories = torch.tensor([7]), torch.tensor([0], dtype=torch.int32)
        for found in (
            Detections(ids, categories, scores, box),  # type: ignore[arg-type]
            Detections.from_corners(ids, categories, scores, box),  # type: ignore[arg-type]
        ):
            assert both(GOOD_TRUTH, found).averages()["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("scores", "boxes", "message"),
    [
        ([0.5], [[0.0, 0.0, 5.0]], r"boxes have the shape \(1, 3\); give four numbers"),
        ([0.5] * 4, [[0.0, 0.0, 5.0]] * 4, r"boxes have the shape \(4, 3\)"),
        ([0.5] * 2, [[0.0, 0.0, 5.0], [0.0]], "boxes are not an array of numbers"),
        ([0.5], [None], "boxes are not an array of numbers"),
        ([None], BOX, "scores are not an array of numbers"),
    ],
)
def test_short_boxes_and_what_are_no_numbers_are_refused(
    scores: Any, boxes: Any, message: str
) -> None:
    number = len(scores)
    with pytest.raises(UserError, match=message):
        evaluate_ap(GOOD_TRUTH, Detections([7] * number, [0] * number, scores, boxes))
    if "boxes" in message:
        with pytest.raises(UserError, match=message):
            Detections.from_corners([7] * number, [0] * number, scores, boxes)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    truth = vars(GroundTruth.from_lvis(GOOD_TRUTH))
    for change, message in (
        ({"image_ids": truth["image_ids"][::-1]}, "ascend"),
        ({"area": np.ones(2)}, "different number"),
        ({"category": np.array([3])}, "outside"),
    ):
        with pytest.raises(ValueError, match=message):
            GroundTruth(**{**truth, **change})


def test_the_official_package_leaves_numpy_and_logging_as_they_were() -> None:
    handlers = logging.getLogger().handlers[:]
    official_ap(GOOD_TRUTH, detected([(0, 0, 0.5, (0, 0, 5, 5))]))
    with lvis_package() as lvis:
        assert lvis.eval.np is not np
    assert lvis.eval.np is np
    assert not hasattr(np, "float")
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_annotations_of_photographs_agree_with_the_official_package(
    photographs: Path, iou_type: IouType
) -> None:
    path = photographs / "val.json"
    truth = json.loads(path.read_text())
    arrays = GroundTruth.from_lvis(truth, with_masks=True)
    assert arrays.masks is not None
    generator = np.random.default_rng(0)
    # Each instance's region, called by the category of another one now and then.
    pick = generator.integers(0, len(arrays.image), 2 * len(arrays.image))
    category = np.where(
        generator.random(len(pick)) < 0.8, arrays.category[pick], arrays.category[0]
    )
    shift = generator.integers(-5, 6, (len(pick), 4)) * (generator.random((len(pick), 1)) < 0.5)
    boxes = arrays.xywh[pick] + shift
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    found = Detections(
        arrays.image_ids[arrays.image[pick]], category, generator.random(len(pick)).round(2),
        boxes, [arrays.masks[i] for i in pick],
    )  # fmt: skip
    result = both(truth, found, iou_type)
    assert 0 < result.averages()["AP"] <= 1
