"""Published weights of a network for images in files, without those of its head.

The head, the last layer (or the heads), is for the classes of another data set; everything else is
taken.
"""

import re
from pathlib import Path
from typing import Final

from classification.models.with_head import WithHead
from common.errors import UserError
from common.training.published_weights import differences, read_state

# DenseNets were published when a layer's parts could have points in their names.
_OLD_DENSENET: Final = re.compile(r"(denselayer\d+\.\w+)\.([12]\.)")
_AUXILIARY: Final = re.compile(r"(aux1|aux2|AuxLogits)\.")
"""Further classifiers of GoogLeNet and Inception v3, which only training from nothing has."""


def load_pretrained(model: WithHead, path: Path, remedy: str) -> None:
    """Take every weight but the head's from a file; the head keeps the weights that it has.

    Args:
        model: unchanged when the file is refused.
        path: of a state dict, or of a dictionary that has one under ``state_dict``.
        remedy: what the user can do when it is another file.

    Raises:
        UserError: when the file is missing, no checkpoint, or of another network; it names the
            first differing keys.
    """
    network, heads = model.as_published
    ours = network.state_dict()
    theirs = {
        _OLD_DENSENET.sub(r"\1\2", name): value for name, value in read_state(path, remedy).items()
    }
    theirs = {
        name: value
        for name, value in theirs.items()
        if not name.startswith(heads) and (name in ours or not _AUXILIARY.match(name))
    }
    body = {name: value for name, value in ours.items() if not name.startswith(heads)}
    if found := differences(body, theirs):
        raise UserError(f"{path} does not fit: it {'; it '.join(found)}; {remedy}.")
    # Into our own, which knows the version of its layout.
    ours.update(theirs)
    network.load_state_dict(ours)
