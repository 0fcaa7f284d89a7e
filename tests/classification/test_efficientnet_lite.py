"""The example of --network package.module:function, with its real ImageNet weights."""

import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from classification.image_augment import DEVIATION, MEAN
from classification.models.efficientnet_lite import (
    _Renormalised,
    efficientnet_lite0,
    efficientnet_lite0_weights,
)
from classification.models.named_network import make_named_network
from classification.models.network_names import normalisation
from classification.models.pretrained import load_pretrained
from classification.preprocessing import Middle

NAME = "classification.models.efficientnet_lite:efficientnet_lite0"
DAISY = 985
BUILDINGS = (442, 698, 832)
"""Of ImageNet's classes bell cote, palace and stupa; scikit-learn's photographs show a flower and a
temple."""


def photograph(name: str) -> Tensor:
    """As a run's predictions take it, (1, 3, 224, 224)."""
    picture = Image.fromarray(load_sample_image(name))
    return Middle(224, 224, True, *normalisation(NAME))(picture)[None]


def test_pixels_reach_the_network_as_its_weights_want_them() -> None:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    grey = torch.tensor([0, 127, 255]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    changed = _Renormalised()((grey / 255 - mean) / deviation)
    torch.testing.assert_close(changed, (grey - 127) / 128)


def test_the_published_weights_know_real_photographs() -> None:
    network = efficientnet_lite0(1000)
    network.load_state_dict(torch.load(efficientnet_lite0_weights(), weights_only=True))
    with torch.inference_mode():
        logits = network.eval()(torch.cat([photograph("flower.jpg"), photograph("china.jpg")]))
    flower, temple = logits.argmax(1).tolist()
    assert flower == DAISY
    assert temple in BUILDINGS


def test_a_run_starts_from_all_published_weights_but_the_heads() -> None:
    network = make_named_network(14, torch.Generator().manual_seed(0), NAME, crop=96)
    (layer,) = network.heads
    head = {name: value.clone() for name, value in layer.state_dict().items()}
    load_pretrained(network, efficientnet_lite0_weights(), "none")
    published = torch.load(efficientnet_lite0_weights(), weights_only=True)
    for name, value in network.network.state_dict().items():
        if not name.startswith("_fc."):
            assert torch.equal(value, published[name]), name
    assert all(torch.equal(value, head[name]) for name, value in layer.state_dict().items())
