"""Classification heads of the detection methods, the same in every engine.

Shapes: R proposals, C categories, L logits a proposal; background is label C.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from common.losses import Reduction
from detection.heads.bags import BagsHead
from detection.heads.base import ClassificationHead
from detection.heads.calibrated import CalibratedHead, calibration_proposals
from detection.heads.sigmoid import EqlHead, FocalDivisor, FocalHead
from detection.heads.softmax import Reduce, SoftmaxHead, lrw_class_weights

__all__ = [
    "ClassificationHead",
    "SoftmaxHead",
    "Reduce",
    "lrw_class_weights",
    "FocalHead",
    "EqlHead",
    "BagsHead",
    "CalibratedHead",
    "calibration_proposals",
    "HEAD_METHODS",
    "make_head",
]

HEAD_METHODS = (
    "ce",
    "cdb-w-ce",
    "rfs",
    "cdb-s",
    "focal",
    "lrw",
    "eql",
    "bags",
    "simcal",
    "calib",
)


T = TypeVar("T")


def _needed(value: T | None, name: str, method: str) -> T:
    """``value``, if it was given."""
    if value is None:
        raise ValueError(f"{method} needs {name}")
    return value


def make_head(
    method: str,
    num_classes: int,
    *,
    reduce: Reduce | None = None,
    instance_counts: Tensor | None = None,
    image_share: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "batch-size",
    focal_gamma: float = 2.0,
    focal_alpha: float = 0.25,
    focal_divisor: FocalDivisor = "foreground",
    eql_threshold: float = 1.76e-3,
    bags_beta: float = 8.0,
    calibration_threshold: int = 100,
    device: torch.device | str = "cpu",
) -> ClassificationHead:
    """The head of a method, on ``device``.

    Args:
        method: one of :data:`HEAD_METHODS`; with '-clc' behind it (only the last layer is trained)
            it is the same head.
        num_classes: C.
        reduce: for cdb-w-ce, of its balancer: see :class:`SoftmaxHead`.
        instance_counts: for lrw, bags, simcal and calib, training instances, (C,).
        image_share: for eql, share of the training images with each category, (C,).
        generator: for bags, a CPU generator of its own.
        reduction: of the softmax heads but that of cdb-w-ce, whose balancer has it.
        focal_gamma: gamma of focal.
        focal_alpha: alpha of focal.
        focal_divisor: what focal is divided by.
        eql_threshold: lambda of eql.
        bags_beta: 'others' for a foreground proposal, of bags.
        calibration_threshold: instances under which simcal and calib use the calibrated head.
        device: where the logits are.

    Raises:
        ValueError: for an unknown method, one that lacks what it needs, or a head that refuses.

    >>> make_head("focal-clc", 3).num_logits, make_head("ce", 3).num_logits
    (3, 4)
    """
    name = method.removesuffix("-clc")

    def softmax(weights: Tensor | None = None) -> SoftmaxHead:
        return SoftmaxHead(num_classes, weights, reduction=reduction)

    def cdb() -> ClassificationHead:
        return SoftmaxHead(num_classes, reduce=_needed(reduce, "reduce", method))

    def lrw() -> ClassificationHead:
        head = softmax(lrw_class_weights(counts()))
        head.keeps_class_layer = True  # The code of Li et al. 2020 loads it and draws none.
        return head

    def counts() -> Tensor:
        return _needed(instance_counts, "instance_counts", method)

    def focal() -> ClassificationHead:
        return FocalHead(num_classes, focal_gamma, focal_alpha, divide_by=focal_divisor)

    def eql() -> ClassificationHead:
        return EqlHead(num_classes, _needed(image_share, "image_share", method), eql_threshold)

    def bags() -> ClassificationHead:
        own = _needed(generator, "generator", method)
        return BagsHead(num_classes, counts(), bags_beta, generator=own)

    def dual() -> ClassificationHead:
        return CalibratedHead(softmax(), softmax(), counts(), calibration_threshold)

    makers: dict[str, Callable[[], ClassificationHead]] = {
        "cdb-w-ce": cdb,
        "lrw": lrw,
        "focal": focal,
        "eql": eql,
        "bags": bags,
        "simcal": dual,
        "calib": dual,
    }
    makers |= dict.fromkeys(("ce", "rfs", "cdb-s"), softmax)
    if name not in makers:
        raise ValueError(f"method must be one of {', '.join(HEAD_METHODS)}, not {method!r}")
    return makers[name]().to(device)
