"""Input mixup beside a literal reference: one pair of images at a time."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classification.methods import make_method
from classification.methods.mixup import Mixup, mixed
from common.losses import REDUCTIONS, Reduction
from common.streams import Streams
from tests.classification.synthetic import CIFAR_COUNTS, cifar_config, small_cifar

CLASSES = len(CIFAR_COUNTS)
DATA = small_cifar()
BATCH = 10


class Classifier(nn.Module):
    """Of the pixels, in float64; not linear, so that mixed images are not mixed logits."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(CLASSES, 192, generator=generator).double())

    def forward(self, images: Tensor) -> Tensor:
        return (images.double().flatten(1) / 255 - 0.5).tanh() @ self.weight.T


def made(**changes: object) -> Mixup:
    settings = cifar_config(method="mixup", **changes)
    method = make_method(settings, DATA, Streams(0), torch.tensor(0.1))
    assert isinstance(method, Mixup)
    return method


def batch() -> tuple[Tensor, Tensor]:
    return DATA.train.images[:BATCH], DATA.train.labels[:BATCH]


# Draws.


def test_partners_are_a_permutation_and_the_share_is_the_batchs() -> None:
    method = made()
    for _ in range(5):
        partners, shares = method.draw(BATCH).unbind(1)
        assert sorted(partners.tolist()) == list(range(BATCH))
        assert len(set(shares.tolist())) == 1
        assert 0 < float(shares[0]) < 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_moments_of_beta(alpha: float) -> None:
    method = made(mixup_alpha=alpha)
    shares = torch.tensor([float(method.draw(1)[0, 1]) for _ in range(4000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert float(shares.var()) == pytest.approx(variance, rel=0.15)


def test_draws_follow_from_the_seed_alone() -> None:
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        drawn.append(made().draw(BATCH))
    assert torch.equal(*drawn)


# Losses.


def test_bytes_are_mixed_as_numbers() -> None:
    own, partners = torch.tensor([[200, 0], [10, 255]]).byte(), torch.tensor([[100, 255]]).byte()
    got = mixed(own, partners.expand(2, -1), torch.tensor([0.25, 1.0]).double())
    assert got.dtype == torch.float32
    assert got.tolist() == [[125.0, 191.25], [10.0, 255.0]]


def cross_entropy(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(z) for z in logits)) - logits[label]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_is_the_literal_one(reduction: Reduction) -> None:
    method, model = made(loss_reduction=reduction), Classifier()
    images, labels = batch()
    draws = method.draw(BATCH)
    losses = []
    for i in range(BATCH):
        j, share = int(draws[i, 0]), float(draws[i, 1])
        image = share * images[i].double() + (1 - share) * images[j].double()
        logits = model(image[None])[0].tolist()
        losses.append(
            share * cross_entropy(logits, int(labels[i]))
            + (1 - share) * cross_entropy(logits, int(labels[j]))
        )
    expected = sum(losses) / (1 if reduction == "sum" else BATCH)
    loss = float(method.batch_loss(model, images, labels, draws).detach())
    # The pixels are mixed in float32.
    assert loss == pytest.approx(expected, rel=1e-5)
    plain = [cross_entropy(z, y) for z, y in zip(model(images).tolist(), labels, strict=True)]
    assert expected != pytest.approx(sum(plain) / (1 if reduction == "sum" else BATCH), rel=1e-2)


def test_a_share_of_one_is_cross_entropy() -> None:
    """And so is half of each with a partner that is the image itself."""
    model, (images, labels) = Classifier(), batch()
    method = made()
    plain = make_method(cifar_config(method="ce"), DATA, Streams(0), torch.tensor(0.1))
    expected = float(plain.batch_loss(model, images, labels).detach())
    alone = torch.stack([method.draw(BATCH)[:, 0], torch.ones(BATCH)], dim=1)
    with_itself = torch.stack([torch.arange(BATCH), torch.full((BATCH,), 0.5)], dim=1)
    for draws in (alone, with_itself.double()):
        loss = float(method.batch_loss(model, images, labels, draws).detach())
        assert loss == pytest.approx(expected, rel=1e-6)
