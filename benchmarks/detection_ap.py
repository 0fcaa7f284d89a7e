"""LVIS box AP, ours beside the official package: python -m benchmarks.detection_ap.

The data are synthetic, of LVIS's form: each image has about 10 instances of 4 categories that
follow a long tail, 9 negative and now and then a not exhaustively annotated category; two thirds of
its 300 detections are moved boxes of its instances, some under another name, the rest random boxes
of categories that the image annotates or not; scores have three decimals, so that many are equal.

Each way runs once, in a process of its own. Printed are the seconds from annotation and detections
in memory to AP (the official package and faster-coco-eval get their lists of dictionaries ready
made), how many times ours is faster, the peak memory of each process, that of the arrays in ours,
and the largest difference of any precision (all areas, thresholds, recalls, categories) or recall.
"""

import argparse
import contextlib
import io
import multiprocessing
import resource
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import at_least, seconds
from common.errors import UserError, run_main
from detection.ap import AREAS, ApResult, Detections, GroundTruth, evaluate_ap
from detection.ap.fast import MAX_DETECTIONS
from detection.ap.official import run_official

HEIGHT, WIDTH = 480, 640
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Size:
    """How much is evaluated."""

    images: int = 1000
    detections: int = 300
    """Of an image."""
    categories: int = 1203


@dataclass(frozen=True)
class Outcome:
    """What one way measured; arrays as the official package has them, -1 for none."""

    seconds: float
    peak_mib: float
    """Of the whole process."""
    arrays_mib: float | None
    """Of what the evaluation itself allocates; ours only."""
    precision: NDArray[np.float64]
    """(T, R, C, A)."""
    recall: NDArray[np.float64]
    """(T, C, A)."""


def random_boxes(generator: np.random.Generator, number: int) -> NDArray[np.float64]:
    """(number, 4), x, y, width, height; sides from 8 pixels to a third of the image."""
    sides = np.exp(generator.uniform(np.log(8), np.log([WIDTH / 3, HEIGHT / 3]), (number, 2)))
    corner = generator.random((number, 2)) * ([WIDTH, HEIGHT] - sides)
    return np.concatenate([corner, sides], axis=1).round(2)


def make_problem(size: Size, seed: int) -> tuple[dict[str, Any], Detections]:
    """An LVIS annotation, category ids 1..C, and detections."""
    generator = np.random.default_rng(seed)
    share = 1 / np.arange(1, size.categories + 1)
    share /= share.sum()
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    parts = []
    for image in range(1, size.images + 1):
        known = generator.choice(size.categories, 14, replace=False, p=share)
        present, negative = known[:4], known[4:13]
        partial_list = present[generator.random(4) < 0.04]
        category = np.sort(generator.choice(present, 10))
        boxes = random_boxes(generator, 10)
        images.append(_image(image, negative, partial_list))
        instances += _instances(image, category, boxes, len(instances))
        parts.append(_detect(generator, size.detections, category, boxes, known, share))
    found = Detections(
        image_ids=np.repeat(np.arange(1, size.images + 1), size.detections),
        categories=np.concatenate([part[0] for part in parts]),
        scores=generator.random(size.images * size.detections).round(3),
        xywh=np.concatenate([part[1] for part in parts]),
    )
    frequency = np.repeat(list("fcr"), [-(-size.categories // 3)] * 3)
    categories = [
        {"id": c + 1, "name": str(c), "frequency": str(frequency[c])}
        for c in range(size.categories)
    ]
    return {"images": images, "categories": categories, "annotations": instances}, found


def _image(image: int, negative: Any, partial_list: Any) -> dict[str, Any]:
    return {
        "id": image,
        "height": HEIGHT,
        "width": WIDTH,
        "neg_category_ids": (negative + 1).tolist(),
        "not_exhaustive_category_ids": (partial_list + 1).tolist(),
    }


def _instances(image: int, category: Any, boxes: Any, before: int) -> list[dict[str, Any]]:
    rows = zip(category.tolist(), boxes.tolist(), strict=True)
    return [
        {
            "id": before + n,
            "image_id": image,
            "category_id": c + 1,
            "bbox": box,
            "area": 0.6 * box[2] * box[3],
        }
        for n, (c, box) in enumerate(rows, start=1)
    ]


def _detect(
    generator: np.random.Generator, number: int, category: Any, boxes: Any, known: Any, share: Any
) -> tuple[Any, Any]:
    """Categories and boxes of an image's detections."""
    pick = generator.integers(0, len(category), number)
    near = generator.random(number) < 2 / 3
    spread = np.tile(boxes[pick, 2:], 2) * generator.uniform(0, 0.3, (number, 1))
    moved = boxes[pick] + spread * generator.uniform(-1, 1, (number, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    other = np.where(
        generator.random(number) < 0.3,
        generator.choice(known, number),
        generator.choice(len(share), number, p=share),
    )
    right = near & (generator.random(number) < 0.7)
    box = np.where(near[:, None], moved, random_boxes(generator, number))
    return np.where(right, category[pick], other), box.round(2)


def run_ours(annotation: dict[str, Any], found: Detections) -> Outcome:
    """The fast evaluation; its arrays are measured in a second run, which tracing slows."""
    results: list[ApResult] = []
    took = seconds(lambda: results.append(evaluate_ap(annotation, found)))
    peak, truth = peak_mib(), GroundTruth.from_lvis(annotation)
    tracemalloc.start()
    evaluate_ap(truth, found)
    arrays = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    precision = np.nan_to_num(np.moveaxis(results[0].precision, 0, 3), nan=-1.0)
    recall = np.nan_to_num(np.moveaxis(results[0].recall, 0, 2), nan=-1.0)
    return Outcome(took, peak, arrays, precision, recall)


def run_lvis(annotation: dict[str, Any], found: Detections) -> Outcome:
    """The official package."""
    rows = _results(annotation, found)
    results: list[dict[str, Any]] = []
    took = seconds(lambda: results.append(run_official(annotation, rows, "bbox")))
    return Outcome(took, peak_mib(), None, results[0]["precision"], results[0]["recall"])


def run_faster(annotation: dict[str, Any], found: Detections) -> Outcome:
    """faster-coco-eval in its LVIS style; it takes at most 300 detections an image as they come."""
    from faster_coco_eval import COCO, COCOeval_faster

    rows = _results(annotation, found)
    evaluations: list[Any] = []

    def work() -> None:
        truth = COCO(annotation)
        evaluation = COCOeval_faster(
            truth, truth.loadRes(rows), "bbox", print_function=lambda *_: None, lvis_style=True
        )
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluations.append(evaluation)

    with contextlib.redirect_stdout(io.StringIO()):
        took = seconds(work)
    values = evaluations[0].eval
    precision = np.asarray(values["precision"])[..., 0]
    return Outcome(took, peak_mib(), None, precision, np.asarray(values["recall"])[..., 0])


def _results(annotation: dict[str, Any], found: Detections) -> list[dict[str, Any]]:
    return found.to_results([one["id"] for one in annotation["categories"]], "bbox")


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


Way = Callable[[dict[str, Any], Detections], Outcome]
WAYS: dict[str, Way] = {"ours": run_ours, "official": run_lvis, "faster-coco-eval": run_faster}


def measure(name: str, size: Size, seed: int) -> Outcome | str:
    """Make the data and evaluate them one way; why not, where its package is missing."""
    annotation, found = make_problem(size, seed)
    try:
        return WAYS[name](annotation, found)
    except (ImportError, UserError) as error:
        return str(error)


def largest_difference(a: Outcome, b: Outcome) -> float:
    """Of any precision or recall."""
    pairs = ((a.precision, b.precision), (a.recall, b.recall))
    return max(float(np.abs(x - y).max()) for x, y in pairs)


def mean_ap(outcome: Outcome) -> float:
    """AP of the official summary, in percent."""
    precision = outcome.precision[..., 0]
    return 100 * float(precision[precision > -1].mean())


def report(outcomes: dict[str, Outcome | str]) -> bool:
    """Print one line a way; whether all agree with the official package."""
    ours, official = outcomes["ours"], outcomes["official"]
    if isinstance(ours, str) or isinstance(official, str):
        raise UserError(f"Nothing to compare: {ours if isinstance(ours, str) else official}")
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            print(f"{name:<17} left out: {outcome}")
            continue
        arrays = "" if outcome.arrays_mib is None else f", its arrays {outcome.arrays_mib:.0f} MiB"
        print(
            f"{name:<17} {outcome.seconds:7.2f} s, AP {mean_ap(outcome):.4f} %, "
            f"peak memory {outcome.peak_mib:.0f} MiB{arrays}"
        )
    for name, outcome in outcomes.items():
        if name != "ours" and not isinstance(outcome, str):
            print(f"ours is {outcome.seconds / ours.seconds:.1f} times as fast as {name}")
    return _report_agreement(outcomes, official)


def _report_agreement(outcomes: dict[str, Outcome | str], official: Outcome) -> bool:
    agree = True
    for name, outcome in outcomes.items():
        if name != "official" and not isinstance(outcome, str):
            difference = largest_difference(outcome, official)
            agree &= difference <= TOLERANCE or name != "ours"
            print(f"largest difference of {name} from official: {difference:.1e}")
    return agree


def main(arguments: list[str] | None = None) -> None:
    """Measure and print.

    Raises:
        UserError: ours differs from the official package.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=at_least(1), default=Size.images)
    parser.add_argument("--detections", type=at_least(1), default=Size.detections, help="an image")
    parser.add_argument("--categories", type=at_least(14), default=Size.categories)
    parser.add_argument("--seed", type=at_least(0), default=0)
    options = parser.parse_args(arguments)
    size = replace(Size(), **{k: v for k, v in vars(options).items() if k != "seed"})
    print(
        f"{size.images} images x {size.detections} detections x {size.categories} categories, "
        f"{len(AREAS)} area ranges",
        flush=True,
    )
    work = partial(measure, size=size, seed=options.seed)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        outcomes = {name: pool.apply(work, (name,)) for name in WAYS}
    if not report(outcomes):
        raise UserError("Ours differs from the official package; report this.")


if __name__ == "__main__":
    run_main(main)
