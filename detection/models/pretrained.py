"""torchvision's published weights for a ResNet-50-FPN detector, from a local file.

A detector's file (Faster or Mask R-CNN trained on COCO) gives everything but what depends on the
categories: the class layer, the box regressors and the mask of each category. A classifier's file
(ResNet-50 trained on ImageNet) gives the backbone without its pyramid.
"""

import re
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from common.errors import UserError
from common.training.published_weights import COUNTER, differences, read_state

_BODY: Final = "backbone.body."
_CATEGORY_LAYERS: Final = (
    "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
    "roi_heads.calibrated.",
    "roi_heads.head.",
)
_MASKS: Final = "roi_heads.mask_"
# What torchvision's batch normalisation adds to the variance of a ResNet trained on ImageNet.
_IMAGENET_EPS: Final = 1e-5
_REMEDY: Final = (
    "name torchvision's fasterrcnn_resnet50_fpn_coco-258fb6c6.pth, "
    "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth or resnet50-0676ba61.pth with --weights"
)


def _current_name(name: str) -> str:
    """The name that today's torchvision gives a tensor of its published files."""
    name = re.sub(r"(\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
    return re.sub(
        r"^(roi_heads\.mask_head\.)mask_fcn(\d)\.",
        lambda found: f"{found[1]}{int(found[2]) - 1}.0.",
        name,
    )


def _of_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors as those of a backbone, but its last layer's.

    Our frozen batch normalisation adds no eps (see :mod:`detection.models.backbones`), so the
    variances bear it: the same sum in float32.
    """
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    return {
        _BODY + name: value + _IMAGENET_EPS if name.endswith("running_var") else value
        for name, value in kept.items()
    }


def _of_detector(state: dict[str, Tensor], *, masks: bool) -> dict[str, Tensor]:
    """A detector's tensors that do not depend on the categories; its masks' only where needed."""
    left_out = _CATEGORY_LAYERS if masks else (*_CATEGORY_LAYERS, _MASKS)
    current = {_current_name(name): value for name, value in state.items()}
    return {name: value for name, value in current.items() if not name.startswith(left_out)}


def load_published(model: nn.Module, path: Path) -> None:
    """Take every weight that does not depend on the categories from a file.

    Args:
        model: a detector with the backbone resnet50-fpn; unchanged when the file is refused.
        path: torchvision's file of a detector trained on COCO, or of a ResNet-50 on ImageNet.

    Raises:
        UserError: when the file is missing, no checkpoint, partial, or of another network; it
            names the first differing keys.
    """
    state = {k: v for k, v in read_state(path, _REMEDY).items() if not k.endswith(COUNTER)}
    ours = {k: v for k, v in model.state_dict().items() if not k.startswith(_CATEGORY_LAYERS)}
    if "conv1.weight" in state:
        theirs = _of_classifier(state)
        ours = {name: value for name, value in ours.items() if name.startswith(_BODY)}
    else:
        theirs = _of_detector(state, masks=any(name.startswith(_MASKS) for name in ours))
    if found := differences(ours, theirs):
        raise UserError(f"{path} does not fit: it {'; it '.join(found)}; {_REMEDY}.")
    model.load_state_dict(theirs, strict=False)
