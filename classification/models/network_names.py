"""Names of networks for images in files: where each is found, and what its weights want.

mobilenet_v3_small        of torchvision.models
timm:NAME                 of timm, where that is installed
package.module:function   called with num_classes=C; gives an nn.Module, images -> logits
"""

import importlib
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import torch
import torchvision

from classification.image_augment import DEVIATION, MEAN
from classification.models import ImageNetwork
from common.errors import UserError

Colours = tuple[float, ...]
"""A number for red, green and blue."""
TIMM: Final = "timm:"
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
    if name.startswith(TIMM) or _FUNCTION.fullmatch(name):
        return
    # Some are in both.
    known = dict.fromkeys((*get_args(ImageNetwork), *_torchvision_names()))
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


def in_timm(name: str) -> tuple[Any, str]:
    """timm, and its own name of ``timm:NAME``.

    Raises:
        UserError: timm is not installed, or has no such network or no such weights of it.
    """
    timm, own = _timm(), name.removeprefix(TIMM)
    known = timm.list_models()
    if own.partition(".")[0] not in known:
        near = get_close_matches(own, known, n=3)
        raise UserError(
            f"--network {name}: timm has no {own}; "
            + (f"did you mean {' or '.join(near)}?" if near else "see timm.list_models().")
        )
    try:
        timm.get_pretrained_cfg(own)
    except RuntimeError as error:
        network, _, tag = own.partition(".")
        raise UserError(
            f"--network {name}: timm has no weights {tag} of {network}; leave .{tag} out, or see "
            f"timm.list_pretrained('{network}.*')."
        ) from error
    return timm, own


def reason_of(error: Exception) -> str:
    """What an error says, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def user_function(name: str) -> tuple[Any, Callable[..., Any]]:
    """Module and function of ``package.module:function``.

    Raises:
        UserError: one of them is not there.
    """
    place, _, function = name.partition(":")
    try:
        module = importlib.import_module(place)
    except Exception as error:  # Whatever its code raises.
        raise UserError(
            f"--network {name}: {place} cannot be imported ({reason_of(error)}); check its name "
            "and PYTHONPATH, install what it needs, or mend it."
        ) from error
    made = getattr(module, function, None)
    if not callable(made):
        raise UserError(f"--network {name}: {place} has no function {function}; check its name.")
    return module, made


def called(name: str, function: Callable[..., Any], **arguments: Any) -> Any:
    """What a function gives, of ``--network name``.

    Raises:
        UserError: it raised something.
    """
    try:
        return function(**arguments)
    except UserError:
        raise
    except Exception as error:  # Whatever its code raises.
        raise UserError(
            f"--network {name}: {getattr(function, '__name__', 'it')} fails ({reason_of(error)}); "
            "install what it needs, or mend it."
        ) from error


# What belongs to a network's published weights.


def _torchvision_weights(name: str) -> Any:
    """The default weights of a network of torchvision; None: it is none of its networks."""
    if name not in _torchvision_names():
        return None
    return torchvision.models.get_model_weights(name).DEFAULT


def side_of_weights(name: str) -> int:
    """Of a network of torchvision the side in pixels of images that its default weights take."""
    _, side = _torchvision_weights(name).meta["min_size"]
    return int(side)


def normalisation(name: str) -> tuple[Colours, Colours]:
    """Mean and standard deviation, in [0, 1], of what a network was pretrained on.

    Of torchvision's networks those of its default weights, of timm's those that it names, of
    others ImageNet's.
    """
    if name.startswith(TIMM):
        timm, own = in_timm(name)
        told = timm.get_pretrained_cfg(own)
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
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(weights.url)).name
        return (
            file,
            f"put torchvision's {file.name} ({weights}) there, or name its place with --weights",
        )
    if _FUNCTION.fullmatch(name) and not name.startswith(TIMM):
        module, _ = user_function(name)
        told = getattr(module, f"{name.partition(':')[2]}_weights", None)
        if callable(told):
            file = Path(called(name, told))
            return file, "install its package again, or name a file with --weights"
    if name.startswith(TIMM):
        in_timm(name)  # What is not installed is told before anything else.
    raise UserError(
        f"--start pretrained: no file of weights is known for --network {name}; name one with "
        "--weights."
    )
