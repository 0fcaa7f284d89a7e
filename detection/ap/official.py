"""The official ``lvis`` package on the same input; slow, and the measure of our own.

lvis 0.5.3 says ``np.float``, which numpy took out in version 1.24. Its evaluation module is
given a numpy namespace that has the name, for as long as it runs; numpy itself stays as it is.
"""

import contextlib
import logging
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.errors import UserError
from detection.ap.inputs import (
    Detections,
    GroundTruth,
    IouType,
    check_detections,
    lvis_category_ids,
)
from detection.ap.summary import AREAS, ApResult


def official_ap(
    annotation: Mapping[str, Any], detections: Detections, iou_type: IouType = "bbox"
) -> ApResult:
    """LVIS AP by the official package.

    Two things are mended on the way: the package fails without any detection (here: nothing is
    found), and takes a match with the annotation of id 0 for none (they are numbered from 1).

    Args:
        annotation: the content of an LVIS annotation file; stays as it is.
        detections: N of them; none is fine.
        iou_type: 'bbox' or 'segm'.

    Raises:
        UserError: as ``evaluate_ap``; or the package is not installed.
    """
    truth = GroundTruth.from_lvis(annotation, with_masks=iou_type == "segm")
    check_detections(truth, detections, iou_type)
    results = detections.to_results(lvis_category_ids(annotation).tolist(), iou_type)
    evaluation = run_official(annotation, results or [_nothing(truth)], iou_type)
    # (T, R, C, A) and (T, C, A), -1 where not measured.
    precision = np.moveaxis(evaluation["precision"], 3, 0)
    recall = np.moveaxis(evaluation["recall"], 2, 0)
    precision, recall = (np.where(x < 0, np.nan, x) for x in (precision, recall))
    return ApResult(precision, recall, truth.frequency, tuple(AREAS))


def run_official(
    annotation: Mapping[str, Any], results: list[dict[str, Any]], iou_type: IouType
) -> dict[str, Any]:
    """What ``LVISEval.accumulate`` leaves in ``eval``, with the means of ``summarize``.

    Args:
        annotation: the content of an LVIS annotation file; stays as it is.
        results: at least one, as in an LVIS results file; the package adds to them.
        iou_type: 'bbox' or 'segm'.

    Returns:
        ``precision`` (T, R, C, A), ``recall`` (T, C, A), ``summary`` name -> mean; -1 is none.
    """
    with lvis_package() as lvis:
        truth = _in_memory(lvis, annotation)
        evaluation = lvis.LVISEval(truth, lvis.LVISResults(truth, results), iou_type)
        evaluation.run()
        return {**evaluation.eval, "summary": dict(evaluation.get_results())}


@contextlib.contextmanager
def lvis_package() -> Iterator[types.ModuleType]:
    """The package, able to run with the numpy that is there, and quiet.

    Raises:
        UserError: it is not installed.
    """
    package = _import_lvis()
    module = package.eval
    logger = logging.getLogger("lvis")
    numpy, level = module.np, logger.level
    module.np = _numpy_with_float()
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():  # it calls Logger.warn
            warnings.simplefilter("ignore", DeprecationWarning)
            yield package
    finally:
        module.np = numpy
        logger.setLevel(level)


def _import_lvis() -> types.ModuleType:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import lvis
        import lvis.eval
    except ImportError as error:
        raise UserError(
            f"The official evaluation needs the package lvis ({error}); "
            "install this project with its 'detection' extra, or use evaluate_ap."
        ) from error
    finally:  # importing it sets up logging for the whole program
        root.handlers[:] = handlers
        root.setLevel(level)
    module: types.ModuleType = lvis
    return module


def _numpy_with_float() -> types.ModuleType:
    namespace = types.ModuleType("numpy with the names lvis wants")
    namespace.__dict__.update(vars(np))
    namespace.__dict__["float"] = float
    return namespace


def _in_memory(lvis: types.ModuleType, annotation: Mapping[str, Any]) -> Any:
    """An ``LVIS`` object, which otherwise reads its file itself."""
    numbered = [{**one, "id": i} for i, one in enumerate(annotation["annotations"], start=1)]
    truth = lvis.LVIS.__new__(lvis.LVIS)
    truth.logger = logging.getLogger("lvis.lvis")
    truth.dataset = {**annotation, "annotations": numbered}
    truth._create_index()
    return truth


def _nothing(truth: GroundTruth) -> dict[str, Any]:
    """A result without area: the package leaves it out again."""
    image = int(truth.image_ids[0])
    return {"image_id": image, "category_id": -1, "score": 0.0, "bbox": [0.0, 0.0, 0.0, 0.0]}
