"""Networks for images in files by a name of :mod:`classification.models.network_names`.

Shapes: B batch, C classes, c x c pixels of an image.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classification.models.network_names import (
    TIMM,
    called,
    check_name,
    in_timm,
    reason_of,
    side_of_weights,
    user_function,
)
from classification.models.with_head import WithHead
from common.errors import UserError
from common.training.random_draws import global_draws_from

_INCEPTIONS: Final = ("googlenet", "inception_v3")
"""They have further classifiers, which only training from nothing needs."""


def _of_torchvision(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    options: dict[str, Any] = {}
    if name in _INCEPTIONS:
        # Their published weights are for another normalisation, which they then make themselves.
        options = {"aux_logits": False, "transform_input": pretrained, "init_weights": True}
    if name.startswith("vit_") and pretrained:
        # A weight for each patch of an image; the published ones are not all of 224 x 224.
        options = {"image_size": side_of_weights(name)}
    network: nn.Module = torchvision.models.get_model(name, num_classes=num_classes, **options)
    return network


def _of_timm(name: str, num_classes: int) -> nn.Module:
    timm, own = in_timm(name)
    network: nn.Module = timm.create_model(own, pretrained=False, num_classes=num_classes)
    return network


def _of_function(name: str, num_classes: int) -> nn.Module:
    _, function = user_function(name)
    try:
        inspect.signature(function).bind(num_classes=num_classes)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--network {name} is called with num_classes={num_classes} alone, which it does not "
            f"take ({error}); wrap it in a function that does."
        ) from error
    network = called(name, function, num_classes=num_classes)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--network {name} gives {type(network).__name__}, not a torch.nn.Module; let it give "
            "one."
        )
    return network


def _make(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    check_name(name)
    if name.startswith(TIMM):
        return _of_timm(name, num_classes)
    if ":" in name:
        return _of_function(name, num_classes)
    return _of_torchvision(name, num_classes, pretrained)


class _Float32(nn.Module):
    """Before a layer's own class: float32 within a network that passes in bfloat16."""

    def forward(self, features: Tensor) -> Tensor:
        """As the layer's own."""
        with torch.autocast(features.device.type, enabled=False):
            passed: Tensor = super().forward(features.float())
        return passed


def _let_pass_in_float32(layer: nn.Module) -> None:
    kind = type(layer)
    layer.__class__ = type(f"Float32{kind.__name__}", (_Float32, kind), {})


class NamedNetwork(WithHead):
    """Normalised images -> logits of any network; passes in bfloat16 if ``mixed``."""

    def __init__(
        self,
        network: nn.Module,
        heads: Sequence[str],
        *,
        mixed: bool = True,
        takes_one_image: bool = True,
    ) -> None:
        """Take a network as it is.

        Args:
            network: images (B, 3, c, c) -> logits (B, C).
            heads: names of its layers that give logits.
            mixed: pass in bfloat16 (autocast), but for the heads.
            takes_one_image: its batch statistics are of two values or more, also with B = 1.
        """
        super().__init__()
        self.network, self.mixed, self._head_names = network, mixed, tuple(heads)
        self.takes_one_image = takes_one_image
        for head in self.heads:
            _let_pass_in_float32(head)

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The layers that give logits."""
        return tuple(self.network.get_submodule(name) for name in self._head_names)

    @property
    def as_published(self) -> tuple[nn.Module, tuple[str, ...]]:
        """The network as it was made."""
        return self.network, tuple(f"{name}." for name in self._head_names)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, c, c), float32 -> logits (B, C), float32.

        Raises:
            UserError: in training the network gives something else than logits.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            logits = self.network(images)
        if not isinstance(logits, Tensor):
            raise UserError(
                f"the network gives {type(logits).__name__} in training; let it give logits alone."
            )
        return logits.float()


def _outputs_of(layer: nn.Module) -> int | None:
    """How many values a layer that can be a head gives for each image."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) else None


def _names_of_heads(
    network: nn.Module, num_classes: int, make: Callable[[int], nn.Module]
) -> list[str]:
    """Of the linear layers and convolutions that have as many outputs as there are classes.

    Networks that are trained by distillation have two. A layer that has C outputs by chance has
    them for other C too, which a second network shows where several have.

    Args:
        network: the network.
        num_classes: C.
        make: makes one for another C.
    """
    found = [name for name, part in network.named_modules() if _outputs_of(part) == num_classes]
    if len(found) < 2:
        return found
    others = dict(make(num_classes + 1).named_modules())
    return [
        name for name in found if name in others and _outputs_of(others[name]) == num_classes + 1
    ]


@contextmanager
def _one_value_seen(network: nn.Module) -> Iterator[list[bool]]:
    """Of each batch normalisation that is passed by one image: has a channel one value?"""
    seen: list[bool] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].numel() == inputs[0].shape[1])

    layers = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _check_pass(name: str, network: nn.Module, crop: int, num_classes: int) -> bool:
    """Refuse a network that does not take such images, or gives something else than logits.

    Returns:
        Whether it can be trained on one image: no batch statistics are of one value.
    """
    was_training = network.training
    try:
        with _one_value_seen(network) as one_value:
            logits = network.eval()(torch.zeros(1, 3, crop, crop))
    except Exception as error:  # Whatever its code raises.
        raise UserError(
            f"--network {name} does not take images of --crop {crop} ({reason_of(error)}); choose "
            "another --crop, or another network."
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"--network {name} gives no logits of {num_classes} classes for each image, but "
            f"{given} for one; let it give a tensor (B, {num_classes})."
        )
    network.train(was_training)
    return not any(one_value)


def make_named_network(
    num_classes: int,
    generator: torch.Generator,
    name: str,
    *,
    crop: int,
    mixed: bool = True,
    pretrained: bool = False,
) -> NamedNetwork:
    """A network with its first weights, which are drawn from ``generator``.

    Args:
        num_classes: C.
        generator: one number is taken from it.
        name: see the module.
        crop: c; one image is passed, to see that the network takes it.
        mixed: pass in bfloat16.
        pretrained: it is to get published weights.

    Raises:
        UserError: there is no such network, or it does not fit.
    """
    make = partial(_make, name, pretrained=pretrained)
    with global_draws_from(generator):
        network = make(num_classes)
        takes_one_image = _check_pass(name, network, crop, num_classes)
        heads = _names_of_heads(network, num_classes, make)
    if not heads:
        raise UserError(
            f"--network {name} has no linear layer of {num_classes} outputs; let it end with one."
        )
    return NamedNetwork(network, heads, mixed=mixed, takes_one_image=takes_one_image)
