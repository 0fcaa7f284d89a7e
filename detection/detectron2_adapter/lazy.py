"""A classification head in the model of a detectron2 LazyConfig."""

from typing import Any

from detectron2.config import LazyCall
from omegaconf import DictConfig

from common.balancer import ClassDifficultyBalancer
from detection.detectron2_adapter.config import (
    check_method,
    is_second_stage,
    make_dataset_head,
    uses_balancer,
)
from detection.detectron2_adapter.output_layers import HeadOutputLayers
from detection.detectron2_adapter.roi_heads import CdbROIHeads


def use_head(
    model: DictConfig,
    method: str,
    dataset: str = "",
    *,
    balancer: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Give the R-CNN of a LazyConfig the head of a method, and for cdb-w-ce a balancer.

    The model's other settings stay; ``model.roi_heads.num_classes`` says the number of categories
    and may be set later::

        model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
        model.roi_heads.num_classes = 1230
        use_head(model, "cdb-w-ce", balancer={"tau": "sigmoid"})

    Args:
        model: with ``StandardROIHeads``; changed in place.
        method: see :data:`~detection.detectron2_adapter.config.METHODS`.
        dataset: for eql, lrw and bags, the registered training set that is counted in.
        balancer: options of :class:`~common.balancer.ClassDifficultyBalancer`.
        **options: of :func:`~detection.detectron2_adapter.config.make_dataset_head`.

    Raises:
        UserError: for a method that this engine does not have.
    """
    check_method(method)
    model.roi_heads._target_ = CdbROIHeads
    predictor = model.roi_heads.box_predictor
    predictor._target_ = HeadOutputLayers
    classes = "${..num_classes}"
    predictor.head = LazyCall(make_dataset_head)(
        method=method, num_classes=classes, dataset=dataset, **options
    )
    predictor.classifier_only = is_second_stage(method)
    if uses_balancer(method):
        # It is the balancer that reduces.
        shared = {name: options[name] for name in options.keys() & {"reduction"}}
        predictor.balancer = LazyCall(ClassDifficultyBalancer)(
            num_classes=classes, **(shared | (balancer or {}))
        )
