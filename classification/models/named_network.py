"""Networks for images in files by a name: torchvision's, timm's, or a function of one's own.

    mobilenet_v3_small        of torchvision.models
    timm:NAME                 of timm, where that is installed
    package.module:function   called with num_classes=C; gives an nn.Module, images -> logits

Shapes: B batch, C classes, c x c pixels of an image.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import torch
import torchvision
from torch import Tensor, nn

from classification.image_augment import DEVIATION, MEAN
from classification.models import ImageNetwork
from classification.models.with_head import WithHead
from common.errors import UserError
from common.training.random_draws import global_draws_from

Colours = tuple[float, ...]
"""A number for red, green and blue."""
_TIMM: Final = "timm:"
_FUNCTION: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_WORDS: Final = (
    "one of torchvision's classification networks, timm:NAME, or package.module:function"
)


# Names.


@cache
def _torchvision_names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


def check_name(name: str) -> None:
    """Refuse a name that cannot be a network's; timm and functions are not looked for.

    Raises:
        UserError: with near names.
    """
    if name.startswith(_TIMM) or _FUNCTION.fullmatch(name):
        return
    known = (*get_args(ImageNetwork), *_torchvision_names())
    if name in known:
        return
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    raise UserError(
        f"--network {name} is not known; "
        + (f"did you mean {' or '.join(near)}?" if near else f"name {_WORDS}.")
    )


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UserError(
            f"--network timm:NAME needs the package timm ({error}); install it, or choose a "
            "network of torchvision."
        ) from error


def _import(name: str) -> tuple[Any, Callable[..., Any]]:
    """Module and function of ``package.module:function``."""
    place, _, function = name.partition(":")
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        raise UserError(
            f"--network {name}: {place} cannot be imported ({error}); check its name and "
            "PYTHONPATH, or install what it needs."
        ) from error
    made = getattr(module, function, None)
    if not callable(made):
        raise UserError(f"--network {name}: {place} has no function {function}; check its name.")
    return module, made


# Networks.


def _of_torchvision(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    network: Any = torchvision.models.get_model(name, num_classes=num_classes)
    if getattr(network, "aux_logits", False):
        # The further classifiers of GoogLeNet and Inception v3, for training from nothing.
        network.aux_logits = False
        for layer in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, layer):
                setattr(network, layer, None)
    if hasattr(network, "transform_input"):
        # Their published weights are for another normalisation, which they then make themselves.
        network.transform_input = pretrained
    made: nn.Module = network
    return made


def _of_timm(name: str, num_classes: int) -> nn.Module:
    timm, own = _timm(), name.removeprefix(_TIMM)
    known = timm.list_models()
    if own.partition(".")[0] not in known:
        near = get_close_matches(own, known, n=3)
        raise UserError(
            f"--network {name}: timm has no {own}; "
            + (f"did you mean {' or '.join(near)}?" if near else "see timm.list_models().")
        )
    network: nn.Module = timm.create_model(own, pretrained=False, num_classes=num_classes)
    return network


def _of_function(name: str, num_classes: int) -> nn.Module:
    _, function = _import(name)
    try:
        inspect.signature(function).bind(num_classes=num_classes)
    except TypeError as error:
        raise UserError(
            f"--network {name} is called with num_classes={num_classes} alone, which it does not "
            f"take ({error}); wrap it in a function that does."
        ) from error
    network = function(num_classes=num_classes)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--network {name} gives a {type(network).__name__}; let it give a torch.nn.Module."
        )
    return network


def _make(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    check_name(name)
    if name.startswith(_TIMM):
        return _of_timm(name, num_classes)
    if ":" in name:
        return _of_function(name, num_classes)
    return _of_torchvision(name, num_classes, pretrained)


class _Float32Linear(nn.Linear):
    """One whose logits are float32 within a network that passes in bfloat16."""

    @classmethod
    def like(cls, layer: nn.Linear) -> "_Float32Linear":
        """One with the very parameters of ``layer``."""
        copy: _Float32Linear = nn.utils.skip_init(
            cls, layer.in_features, layer.out_features, bias=layer.bias is not None
        )
        copy._parameters = layer._parameters
        return copy

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def _name_of_head(network: nn.Module, num_classes: int) -> str | None:
    """Of the last linear layer with C outputs, else of the last such convolution."""
    layers = [*network.named_modules()]
    linear = [n for n, m in layers if isinstance(m, nn.Linear) and m.out_features == num_classes]
    others = [n for n, m in layers if isinstance(m, nn.Conv2d) and m.out_channels == num_classes]
    return next(reversed(linear or others), None)


class NamedNetwork(WithHead):
    """Normalised images -> logits of any network; passes in bfloat16 if ``mixed``."""

    def __init__(self, network: nn.Module, head: str, *, mixed: bool = True) -> None:
        """Take a network as it is.

        Args:
            network: images (B, 3, c, c) -> logits (B, C).
            head: name of its layer that gives the logits.
            mixed: pass in bfloat16 (autocast), but for a linear head.
        """
        super().__init__()
        self.network, self.mixed, self._head_name = network, mixed, head
        last = network.get_submodule(head)
        if type(last) is nn.Linear:
            network.set_submodule(head, _Float32Linear.like(last))

    @property
    def head(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.network.get_submodule(self._head_name)

    @property
    def as_published(self) -> tuple[nn.Module, str]:
        """The network as it was made."""
        return self.network, f"{self._head_name}."

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, c, c), float32 -> logits (B, C), float32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            logits: Tensor = self.network(images)
        return logits.float()


@torch.no_grad()
def _check_pass(name: str, network: nn.Module, crop: int, num_classes: int) -> None:
    """Refuse a network that does not take such images, or gives something else than logits."""
    was_training = network.training
    try:
        logits = network.eval()(torch.zeros(1, 3, crop, crop))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--network {name} does not take images of --crop {crop} ({reason}); choose another "
            "--crop, or another network."
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        raise UserError(
            f"--network {name} gives no logits of {num_classes} classes for each image; let it "
            f"give a tensor (B, {num_classes})."
        )
    network.train(was_training)


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
    with global_draws_from(generator):
        network = _make(name, num_classes, pretrained)
        _check_pass(name, network, crop, num_classes)
    head = _name_of_head(network, num_classes)
    if head is None:
        raise UserError(
            f"--network {name} has no linear layer of {num_classes} outputs; let it end with one."
        )
    return NamedNetwork(network, head, mixed=mixed)


# What belongs to a network's published weights.


def _torchvision_weights(name: str) -> Any:
    """The default weights of a network of torchvision; None: it is none of its networks."""
    if name not in _torchvision_names():
        return None
    return torchvision.models.get_model_weights(name).DEFAULT


def normalisation(name: str) -> tuple[Colours, Colours]:
    """Mean and standard deviation, in [0, 1], of what a network was pretrained on.

    Of torchvision's networks those of its default weights, of timm's those that it names, of
    others ImageNet's.
    """
    if name.startswith(_TIMM):
        told = _timm().get_pretrained_cfg(name.removeprefix(_TIMM))
        return (MEAN, DEVIATION) if told is None else (tuple(told.mean), tuple(told.std))
    weights = _torchvision_weights(name)
    if weights is None:
        return MEAN, DEVIATION
    transforms = weights.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def usual_weights(name: str) -> tuple[Path, str]:
    """The file of a network's default weights, there or not, and what to do where it is not.

    Of torchvision's networks it lies in torchvision's cache. ``package.module:function`` has one
    where the module has ``function_weights()``, which gives its path.

    Raises:
        UserError: nobody knows one.
    """
    weights = _torchvision_weights(name)
    if weights is not None:
        file = Path(str(weights.url)).name
        return (
            Path(torch.hub.get_dir()) / "checkpoints" / file,
            f"put torchvision's {file} ({weights}) there, or name its place with --weights",
        )
    if _FUNCTION.fullmatch(name) and not name.startswith(_TIMM):
        module, _ = _import(name)
        told = getattr(module, f"{name.partition(':')[2]}_weights", None)
        if callable(told):
            return Path(told()), "install its package again, or name a file with --weights"
    raise UserError(
        f"--start pretrained: no file of weights is known for --network {name}; name one with "
        "--weights."
    )
