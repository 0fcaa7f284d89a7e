import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from classification.methods.l2rw import reweight

Batch = tuple[Tensor, Tensor]
"""Images (B, 2, 4, 4), labels (B,) in 0..2."""


class Normalise(nn.Module):
    """Images of any type, bytes too, to roughly standard values, with constants in buffers."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([[[0.25]], [[-0.25]]]))

    def forward(self, images: Tensor) -> Tensor:
        images = images / 128.0 - 1.0 if images.dtype == torch.uint8 else images
        return images.to(self.mean.dtype) - self.mean


def plain_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        Normalise(), nn.Flatten(), nn.Linear(32, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()


def batch_norm_net(seed: int) -> nn.Module:
    """In training mode, with statistics and scales that are not those of the start."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        Normalise(),
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    ).double()
    for layer in (net[2], net[5]):
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.uniform_(layer.bias, -0.5, 0.5)
    net(image_batch(20, seed)[0])
    return net


NETS = [plain_net, batch_norm_net]


def image_batch(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 2, 4, 4, dtype=torch.float64, generator=generator)
    return images, torch.randint(3, (size,), generator=generator)


def byte_batch(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 2, 4, 4), dtype=torch.uint8, generator=generator)
    return images, torch.randint(3, (size,), generator=generator)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Parameters, running statistics and their counter stay, and no gradient is left behind."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def slow_reweight(model: nn.Module, images: Tensor, labels: Tensor, balanced: Batch) -> Tensor:
    """Ren et al.'s algorithm as written: a virtual SGD step, then backward through it to eps."""
    model = copy.deepcopy(model)
    eps = torch.zeros(len(labels), dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*model.named_parameters(), strict=True)
    losses = nn.functional.cross_entropy(model(images), labels, reduction="none")
    gradients = torch.autograd.grad((eps * losses).sum(), parameters, create_graph=True)
    virtual = {
        name: parameter - 0.1 * gradient
        for name, parameter, gradient in zip(names, parameters, gradients, strict=True)
    }
    logits = torch.func.functional_call(model, virtual, (balanced[0],))
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(logits, balanced[1]), eps)
    useful = (-slope).clamp_min(0.0)
    return useful / useful.sum() if useful.sum() > 0 else useful


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", range(5))
def test_the_weights_equal_those_of_the_algorithm_as_written(
    net: Callable[[int], nn.Module], seed: int
) -> None:
    model = net(seed)
    batch, balanced = image_batch(16, seed), image_batch(9, seed + 100)
    weights = reweight(model, *batch, balanced)
    expected = slow_reweight(model, *batch, balanced)
    assert 0 < int((expected > 0).sum()) < 16
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("net", NETS)
def test_the_model_is_left_as_it_was(net: Callable[[int], nn.Module]) -> None:
    model = net(0)
    with untouched(model):
        weights = reweight(model, *image_batch(16, 0), image_batch(9, 1))
    assert float(weights.sum()) == pytest.approx(1.0)
    assert bool((weights >= 0).all())
    assert not weights.requires_grad


def test_batch_norm_uses_the_statistics_of_the_batch_in_training_only() -> None:
    model = batch_norm_net(0)
    batch, balanced = image_batch(16, 0), image_batch(9, 1)
    in_training = reweight(model, *batch, balanced)
    in_evaluation = reweight(model.eval(), *batch, balanced)
    torch.testing.assert_close(
        in_evaluation, slow_reweight(model, *batch, balanced), rtol=1e-10, atol=1e-14
    )
    assert not torch.allclose(in_training, in_evaluation)


def test_another_balanced_batch_gives_other_weights() -> None:
    model, batch = batch_norm_net(0), image_batch(16, 0)
    one, other = (reweight(model, *batch, image_batch(9, seed)) for seed in (1, 2))
    assert not torch.equal(one, other)


def test_images_can_be_bytes_that_the_model_normalises() -> None:
    model = batch_norm_net(0)
    batch, balanced = byte_batch(16, 0), byte_batch(9, 1)
    torch.testing.assert_close(
        reweight(model, *batch, balanced),
        slow_reweight(model, *batch, balanced),
        rtol=1e-10,
        atol=1e-14,
    )


def test_the_passes_run_under_autocast_near_the_weights_in_full_precision() -> None:
    model = batch_norm_net(0).float()
    batch, balanced = byte_batch(16, 0), byte_batch(9, 1)
    exact = reweight(model, *batch, balanced)
    with torch.autocast("cpu", torch.bfloat16), untouched(model):
        rounded = reweight(model, *batch, balanced)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.2, atol=0.02)


class Mixed(nn.Module):
    """Passes in bfloat16 whatever surrounds the call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = self.net(images)
        return logits


def test_autocast_inside_the_model_is_the_same_as_around_the_call() -> None:
    model = batch_norm_net(0).float()
    batch, balanced = byte_batch(16, 0), byte_batch(9, 1)
    inside = reweight(Mixed(model), *batch, balanced)
    with torch.autocast("cpu", torch.bfloat16):
        around = reweight(model, *batch, balanced)
    assert torch.equal(inside, around)


class NothingWaits(TorchDispatchMode):
    """Fails where a tensor's value is read: there a GPU would have to be waited for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        assert func is not torch.ops.aten.nonzero.default
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device() -> None:
    model = batch_norm_net(0)
    with pytest.raises(AssertionError), NothingWaits():
        bool(torch.ones(2).any())
    with NothingWaits():
        reweight(model, *image_batch(16, 0), image_batch(9, 1))


@pytest.mark.parametrize("net", NETS)
def test_a_single_sample_that_helps_has_weight_one(net: Callable[[int], nn.Module]) -> None:
    images, labels = image_batch(1, 0)
    # Its own loss is what the balanced batch measures.
    assert reweight(net(0), images, labels, (images, labels)).tolist() == [1.0]


def test_without_a_helpful_sample_all_weights_are_zero() -> None:
    model = plain_net(0)
    images, labels = image_batch(1, 0)
    # The same image under another label: what lowers one loss raises the other.
    for other in ((labels + 1) % 3, (labels + 2) % 3):
        weights = reweight(model, images, other, (images, labels))
        expected = slow_reweight(model, images, other, (images, labels))
        assert torch.equal(weights, expected)
        if not bool(expected.any()):
            assert weights.tolist() == [0.0]
            return
    pytest.fail("one of the two labels should not have helped")


def test_without_a_gradient_the_weights_are_zero_and_not_nan() -> None:
    model = plain_net(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # Zero weights give logits 0 everywhere; one of each class cancels the bias's gradient.
    images = torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    weights = reweight(model, images, torch.arange(3), (images, torch.arange(3)))
    assert weights.tolist() == [0.0, 0.0, 0.0]
