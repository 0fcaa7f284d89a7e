"""detectron2's standard RoI heads with a classification head plugged in."""

from typing import Any, cast

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Instances
from torch import Tensor, nn

from common.errors import UserError
from detection.detectron2_adapter.output_layers import HeadOutputLayers


@ROI_HEADS_REGISTRY.register()
class CdbROIHeads(StandardROIHeads):  # type: ignore[misc]  # detectron2 has no types
    """``StandardROIHeads`` whose box predictor is a :class:`HeadOutputLayers`.

    Named in a yacs configuration by ``MODEL.ROI_HEADS.NAME CdbROIHeads``. Where only the class
    layer is trained ('-clc') no loss of masks is computed.
    """

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts: dict[str, Any] = super()._init_box_head(cfg, input_shape)
        return {**parts, "box_predictor": HeadOutputLayers(cfg, parts["box_head"].output_shape)}

    def _forward_mask(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training and getattr(self.box_predictor, "classifier_only", False):
            return {}
        result: dict[str, Tensor] | list[Instances] = super()._forward_mask(features, instances)
        return result


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, not what ``DistributedDataParallel`` wraps around it."""
    inner: nn.Module = getattr(model, "module", model)
    return inner


def output_layers(model: nn.Module) -> HeadOutputLayers:
    """The box predictor of a detector, wrapped for several devices or not.

    Raises:
        UserError: when it is not this adapter's.
    """
    roi_heads = getattr(unwrapped(model), "roi_heads", None)
    layers = getattr(roi_heads, "box_predictor", None)
    if not isinstance(layers, HeadOutputLayers):
        raise UserError(
            "the model's box predictor has no classification head of this project; set "
            "MODEL.ROI_HEADS.NAME CdbROIHeads, or call use_head on a LazyConfig's model."
        )
    return cast(HeadOutputLayers, layers)
