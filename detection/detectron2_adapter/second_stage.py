"""Which weights of a detectron2 model are trained, and which are taken from a first file."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from detection.detectron2_adapter.roi_heads import output_layers, unwrapped


def freeze_all_but_classifier(model: nn.Module) -> list[nn.Parameter]:
    """Train nothing but the class layer ('-clc', Li et al. 2020).

    Batch normalisation keeps its statistics. Call it before the optimizer is made, and before the
    model is wrapped for several devices. Losses of the frozen region proposals are still computed
    and shown, but move nothing.

    Returns:
        The parameters that are trained.
    """
    layers = output_layers(model)
    model.requires_grad_(False)
    FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    layers.classifier_only = True
    layers.cls_score.requires_grad_(True)
    return list(layers.cls_score.parameters())


@contextmanager
def first_weights(model: nn.Module) -> Iterator[None]:
    """Within the block load the weights that a training starts from, not those it resumes with.

    What such a file says of the difficulty is another training's: the balancer stays as it was. In
    a second stage ('-clc') so does the class layer, which is to start anew, but for a head of
    ``keeps_class_layer``. (A layer of another number of logits stays in any case; detectron2's
    checkpointer says so.)
    """
    layers = output_layers(unwrapped(model))
    anew = layers.classifier_only and not layers.head.keeps_class_layer
    kept: list[nn.Module] = [layers.cls_score] if anew else []
    kept += [layers.balancer] if layers.balancer is not None else []
    before = [{name: v.clone() for name, v in part.state_dict().items()} for part in kept]
    yield
    with torch.no_grad():
        for part, state in zip(kept, before, strict=True):
            part.load_state_dict(state)
