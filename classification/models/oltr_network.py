"""OLTR's second stage (Liu et al. 2019) on a trained first one: attention, memory, cosines.

Shapes: B batch, C classes, D features, h x w the first stage's last maps.

Where the paper leaves a choice this follows the authors' code (zhmiao/OpenLongTailRecognition-OLTR,
ImageNet-LT configuration, as its results of 2019-12 and later were made), that is:

- The last linear layer is followed by ReLU, and it is new: the first stage has none.
- The layer that gives the memory feature's coefficients (the 'hallucinator') starts as the first
  stage's classifier, though its input is now the output of the new layer.
- The self-attention's last convolution starts at random: the authors' zeros are overwritten by
  their network's initialisation, so attention is not the identity at the start.
- Cross-entropy sends no gradient into the memory; only the centroid loss moves it.

Departures, none of which changes a finite value: a distance of 0 to the nearest centroid counts as
:data:`NEAREST`, an embedding of 0 gives logits of 0 (the authors divide 0 by 0), and D is the width
of the first stage's maps (512 in ResNet-10).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACHABILITY_SCALE = 10.0
COSINE_SCALE = 16.0
NEAREST = 1e-6
"""The least distance that reachability divides by."""


class FirstStage(Protocol):
    """What a second stage needs of the network, an ``nn.Module``, that it goes on from."""

    classifier: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the last maps before pooling, (B, D, h, w)."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """As of every ``nn.Module``."""
        ...


class OltrOutputs(NamedTuple):
    """What the loss needs."""

    logits: Tensor
    """(B, C), float32."""
    direct: Tensor
    """Direct features, (B, D), float32, >= 0."""
    centroids: Tensor
    """The memory, (C, D), which the centroid loss moves."""


def _linear(inputs: int, outputs: int) -> nn.Linear:
    # skip_init: the constructor would draw from the global generator.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    return layer


def _pointwise(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, inputs, outputs, kernel_size=1, bias=bias)
    return layer


class ModulatedAttention(nn.Module):
    """Self-attention between positions, weighed by a learnt share of each position.

    x + s * W softmax(theta(x)' phi(x)) g(x), the non-local block of Wang et al. 2018 (embedded
    Gaussian, half the channels within) times s = softmax over positions of a linear layer that
    sees the whole map.
    """

    def __init__(self, channels: int, side: tuple[int, int]) -> None:
        """Lay out the layers; :func:`initialise_oltr` draws their weights.

        Args:
            channels: D, >= 2.
            side: (h, w); the linear layer sees maps of no other size.
        """
        super().__init__()
        within, positions = channels // 2, side[0] * side[1]
        self.side = side
        self.theta = _pointwise(channels, within)
        self.phi = _pointwise(channels, within)
        self.g = _pointwise(channels, within)
        self.mask = _pointwise(within, channels, bias=False)
        self.spatial = _linear(channels * positions, positions)

    def self_attention(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w): to each position what all others have, by likeness."""
        theta, phi, g = (layer(maps).flatten(2) for layer in (self.theta, self.phi, self.g))
        attention = (theta.transpose(1, 2) @ phi).float().softmax(dim=2)
        gathered = g @ attention.to(g.dtype).transpose(1, 2)
        mask: Tensor = self.mask(gathered.unflatten(2, self.side))
        return mask

    def modulation(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> the share of each position, (B, 1, h, w), float32, sum 1."""
        logits: Tensor = self.spatial(maps.flatten(1))
        shares: Tensor = logits.float().softmax(dim=1).unflatten(1, (1, *self.side))
        return shares

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w).

        Raises:
            ValueError: for maps of another size.
        """
        if tuple(maps.shape[2:]) != self.side:
            raise ValueError(
                f"modulated attention was made for maps of {self.side}, not {tuple(maps.shape[2:])}"
            )
        return maps + self.modulation(maps) * self.self_attention(maps)


def reachability(direct: Tensor, centroids: Tensor) -> Tensor:
    """10 / the distance to the nearest centroid: shapes (B, D), (C, D) -> (B,), > 0.

    The gradient is that of the distance to this one centroid; at distance 0 it is 0.
    """
    with torch.no_grad():
        # Not through a matrix product, which would lose small distances to rounding.
        mode = "donot_use_mm_for_euclid_dist"
        nearest = torch.cdist(direct, centroids, compute_mode=mode).argmin(dim=1)
    gaps = direct - centroids.index_select(0, nearest)
    distances: Tensor = torch.linalg.vector_norm(gaps, dim=1)
    return REACHABILITY_SCALE / distances.clamp_min(NEAREST)


class SquashedCosine(nn.Module):
    """16 cos(x, w_c) |x| / (1 + |x|): (B, D) -> (B, C) in (-16, 16).

    Short vectors, which reachability makes of features far from every centroid, give even logits.
    """

    def __init__(self, features: int, classes: int) -> None:
        """Class vectors; only their directions count."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits; 0 for a vector of zeros."""
        norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        return F.linear(COSINE_SCALE * embeddings / (1.0 + norms), F.normalize(self.weight))


class OltrModel(nn.Module):
    """A first stage, modulated attention, and the meta-embedding with its memory.

    All of it is trained, the first stage's layers included. Attention passes in bfloat16 if
    ``mixed``; what follows it is float32 even under autocast.
    """

    first: FirstStage

    def __init__(
        self, first: FirstStage, side: tuple[int, int] = (7, 7), *, mixed: bool = True
    ) -> None:
        """Lay out the layers; :func:`make_oltr` draws their weights.

        Args:
            first: becomes part of this network, its classifier as the hallucinator: it gives the
                coefficients of the memory feature.
            side: (h, w) of its maps; 224 x 224 images have 7 x 7.
            mixed: pass the attention in bfloat16 (autocast).
        """
        super().__init__()
        self.first = first
        self.mixed = mixed
        features, classes = first.classifier.in_features, first.classifier.out_features
        self.attention = ModulatedAttention(features, side)
        self.direct = _linear(features, features)
        self.selector = _linear(features, features)
        self.cosine = SquashedCosine(features, classes)
        # No number: whoever forgets classification.oltr.fill_memory sees it in the first loss.
        self.centroids = nn.Parameter(torch.full((classes, features), torch.nan))
        """The memory, (C, D)."""

    def load_first_stage(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a finished first stage, its classifier's included."""
        self.first.load_state_dict(weights)

    def direct_features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), as the first stage takes them -> (B, D), float32, >= 0."""
        maps = self.first.features(images)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            maps = self.attention(maps if self.mixed else maps.float())
        with torch.autocast(images.device.type, enabled=False):
            return F.relu(self.direct(maps.float().mean(dim=(2, 3))))

    def classify(self, direct: Tensor) -> Tensor:
        """Direct features (B, D), float32 -> logits (B, C).

        The meta-embedding: reachability * (direct + selector * memory feature).
        """
        with torch.autocast(direct.device.type, enabled=False):
            centroids = self.centroids.detach()
            memory = self.first.classifier(direct).softmax(dim=1) @ centroids
            selector = self.selector(direct).tanh()
            reach = reachability(direct, centroids)
            logits: Tensor = self.cosine(reach[:, None] * (direct + selector * memory))
        return logits

    @overload
    def forward(self, images: Tensor) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, *, for_loss: Literal[True]) -> OltrOutputs: ...

    def forward(self, images: Tensor, *, for_loss: bool = False) -> Tensor | OltrOutputs:
        """Images (B, 3, H, W) -> logits (B, C), float32.

        Args:
            images: as the first stage takes them.
            for_loss: give what :func:`classification.oltr.oltr_loss` needs.
        """
        direct = self.direct_features(images)
        logits = self.classify(direct)
        return OltrOutputs(logits, direct, self.centroids) if for_loss else logits


def _draw_uniform(weight: Tensor, inputs: int, generator: torch.Generator) -> None:
    bound = inputs**-0.5
    nn.init.uniform_(weight, -bound, bound, generator=generator)


def initialise_oltr(model: OltrModel, generator: torch.Generator) -> None:
    """Draw the second stage's own weights; the first stage's and the memory stay as they are.

    Convolutions as He et al. 2015 by fan-out with zero biases, linear layers and class vectors
    uniform in +-1/sqrt(D), as the authors' code.
    """
    attention = model.attention
    for layer in (attention.theta, attention.phi, attention.g, attention.mask):
        nn.init.kaiming_normal_(
            layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
        )
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for linear in (attention.spatial, model.direct, model.selector):
        _draw_uniform(linear.weight, linear.in_features, generator)
        _draw_uniform(linear.bias, linear.in_features, generator)
    _draw_uniform(model.cosine.weight, model.cosine.weight.shape[1], generator)


def make_oltr(
    first: FirstStage,
    generator: torch.Generator,
    *,
    side: tuple[int, int] = (7, 7),
    mixed: bool = True,
) -> OltrModel:
    """A second stage with its initial weights but an empty memory; see :class:`OltrModel`."""
    model = OltrModel(first, side, mixed=mixed)
    initialise_oltr(model, generator)
    return model
