"""Run a detector over images, and measure its AP; a finished run's weights on the val images.

Use: ``python -m detection.evaluate runs/digit-scenes/ce_box_seed-0``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import tyro
from pycocotools import mask as coco_mask
from torch import Tensor

from common.distributed import gather_objects, rank, world_size
from common.errors import UserError, run_main
from common.training.folder import load_tensors
from common.training.process_group import choose_device
from common.training.settings import read_config as config_of
from common.training.settings import read_folder
from detection.ap import ApResult, Detections, evaluate_ap
from detection.data import DetectionData, batches_of, load_batches, plain_requests
from detection.models import Rcnn
from detection.networks import make_trained_model
from detection.recipes import RECIPES, DetectionConfig
from detection.sets import ground_truth

Found = dict[str, Any]
"""Detections of this rank: arrays ``image_ids``, ``categories``, ``scores``, ``boxes``, and with
masks the list ``masks``."""


def _to_arrays(image_id: int, prediction: dict[str, Tensor]) -> Found:
    """What a detector gives for one image, on the CPU."""
    found: Found = {
        "image_ids": np.full(len(prediction["labels"]), image_id),
        "categories": prediction["labels"].cpu().numpy(),
        "scores": prediction["scores"].double().cpu().numpy(),
        "boxes": prediction["boxes"].double().cpu().numpy().reshape(-1, 4),
    }
    if "masks" in prediction:
        masks = prediction["masks"].permute(1, 2, 0).cpu().numpy()
        found["masks"] = coco_mask.encode(np.asfortranarray(masks))
    return found


def _joined(parts: list[Found]) -> Found:
    """Detections of several images."""
    if not parts:
        return {"image_ids": [], "categories": [], "scores": [], "boxes": np.empty((0, 4))}
    arrays = ("image_ids", "categories", "scores", "boxes")
    whole: Found = {name: np.concatenate([part[name] for part in parts]) for name in arrays}
    if "masks" in parts[0]:
        whole["masks"] = [mask for part in parts for mask in part["masks"]]
    return whole


@contextmanager
def _evaluating(model: Rcnn, *, masks: bool) -> Iterator[None]:
    """Evaluation mode, without the mask branch unless ``masks``; then as before."""
    training, pool = model.training, model.roi_heads.mask_roi_pool
    model.eval()
    if not masks:
        model.roi_heads.mask_roi_pool = None
    try:
        yield
    finally:
        model.roi_heads.mask_roi_pool = pool
        model.train(training)


@torch.inference_mode()
def detect(model: Rcnn, data: DetectionData, *, masks: bool, workers: int = 0) -> Detections:
    """The detections in all images, by all ranks together; ``model`` keeps its mode.

    One image a pass: padded to the size of others, it would give other numbers, and they would
    depend on the batch size and on the number of ranks.

    Args:
        model: a detector, see :func:`detection.models.build_rcnn`.
        data: the images.
        masks: whether masks are wanted; a Faster R-CNN has none.
        workers: processes of this rank that read ahead.
    """
    device = next(model.parameters()).device
    mine = range(rank(), len(data), world_size())
    parts = []
    with _evaluating(model, masks=masks):
        for (image,), (target,) in load_batches(data, batches_of(plain_requests(mine), 1), workers):
            parts.append(_to_arrays(target["image_id"], model([image.to(device)])[0]))
    gathered, ranks = gather_objects(parts), world_size()
    # As one process has them: of equal scores the first one counts as the better.
    found = _joined([gathered[image % ranks][image // ranks] for image in range(len(data))])
    return Detections.from_corners(
        found["image_ids"], found["categories"], found["scores"], found["boxes"],
        found.get("masks"),
    )  # fmt: skip


def measure_ap(
    model: Rcnn, data: DetectionData, *, masks: bool, workers: int = 0
) -> dict[str, ApResult]:
    """AP by what is compared: 'bbox', and with masks 'segm'.

    Args:
        model: the detector.
        data: the images.
        masks: whether masks are compared, too.
        workers: processes that read ahead.
    """
    found = detect(model, data, masks=masks, workers=workers)
    truth = ground_truth(data.annotations, masks=masks)
    results = {"bbox": evaluate_ap(truth, found, "bbox")}
    if masks:
        results["segm"] = evaluate_ap(truth, found, "segm")
    return results


def metrics_of(results: dict[str, ApResult]) -> dict[str, Any]:
    """The record's evaluation: averages and AP by category in percent, None where not measured."""
    metrics: dict[str, Any] = {}
    for kind, result in results.items():
        ap = [None if np.isnan(value) else 100 * value for value in result.category_ap.tolist()]
        metrics[kind] = result.record() | {"category_ap": ap}
    return metrics


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run's weights on the val images."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, for instance runs/digit-scenes/ce_box_seed-0."""
    data: Path | None = None
    """Folder of the annotation files, or of a rendered set; None: its usual place."""
    images: Path | None = None
    """Folder of COCO's images; None: its usual place."""
    workers: int = 0
    """Processes that read images ahead; 0: none."""


def config_from(settings: dict[str, Any]) -> DetectionConfig:
    """The configuration whose settings a record holds; see :mod:`common.training.settings`."""
    return config_of(settings, RECIPES)


def read_config(folder: Path) -> DetectionConfig:
    """The configuration a run's folder was made with; see :func:`read_folder`."""
    return read_folder(folder, "detection", RECIPES)


def describe(metrics: dict[str, Any]) -> str:
    """AP, APr, APc and APf of boxes and masks in one line, in percent."""

    def number(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.2f}"

    return "; ".join(
        f"{kind} " + ", ".join(f"{name} {number(values[name])}" for name in _SHOWN)
        for kind, values in metrics.items()
        if kind in ("bbox", "segm")
    )


_SHOWN = ("AP", "APr", "APc", "APf")


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    config = read_config(arguments.run)
    sets = config.load_data(arguments.data, arguments.images)
    weights = read_weights(arguments.run)
    model = make_trained_model(config, sets, weights).to(choose_device("auto"))
    started = time.monotonic()
    masks = config.task == "mask"
    results = measure_ap(model, sets.val, masks=masks, workers=arguments.workers)
    print(f"{describe(metrics_of(results))}  ({time.monotonic() - started:.0f} s)")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A finished run's last weights.

    Raises:
        UserError: when the run has not finished, or the file is damaged.
    """
    path = folder / "weights.pt"
    if not path.exists():
        raise UserError(f"{path} is not there: the run has not finished; start its command again.")
    content = load_tensors(path, f"move {folder} elsewhere and train the run again")
    return cast(dict[str, Tensor], content["last"])


if __name__ == "__main__":
    run_main(main)
