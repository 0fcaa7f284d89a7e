import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from classification.methods.meta_weight_net import (
    VIRTUAL_STEPS,
    MetaReweighter,
    VirtualStep,
    WeightingNetwork,
    normalised_factors,
)
from tests.classification.methods.test_l2rw import (
    NETS,
    Batch,
    NothingWaits,
    batch_norm_net,
    byte_batch,
    image_batch,
    plain_net,
    untouched,
)

ETA = 0.3


def reweighter(seed: int = 0, **options: Any) -> MetaReweighter:
    """A large eta: a wrong gradient of Theta then shows in the weights."""
    generator = torch.Generator().manual_seed(seed)
    return MetaReweighter(generator, **{"learning_rate": ETA} | options).double()


def literal_net(theta: list[Tensor], losses: Tensor) -> Tensor:
    hidden = torch.relu(losses[:, None] @ theta[0].T + theta[1])
    return torch.sigmoid(hidden @ theta[2].T + theta[3])[:, 0]


class LiteralReweighter:
    """Shu et al.'s algorithm as written, by second-order autograd and torch.optim.SGD.

    Normalised as in their code, nothing detached; or raw as in their paper, losses as data.
    """

    def __init__(self, start: MetaReweighter, virtual_step: VirtualStep = "normalised") -> None:
        self.virtual_step = virtual_step
        self.theta = [p.detach().clone().requires_grad_() for p in start.net.parameters()]
        self.optimizer = torch.optim.SGD(
            self.theta, lr=ETA, momentum=0.9, nesterov=True, weight_decay=5e-4
        )

    def weights(self, model: nn.Module, batch: Batch, balanced: Batch, alpha: float) -> Tensor:
        model = copy.deepcopy(model)
        names, parameters = zip(*model.named_parameters(), strict=True)
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        if self.virtual_step == "normalised":
            values = literal_net(self.theta, losses)
            total = values.sum()
            weighted = (losses * (values / total if total != 0 else values)).sum()
        else:
            weighted = (literal_net(self.theta, losses.detach()) * losses).sum() / len(losses)
        gradients = torch.autograd.grad(weighted, parameters, create_graph=True)
        steps = zip(names, parameters, gradients, strict=True)
        virtual = {name: parameter - alpha * gradient for name, parameter, gradient in steps}
        logits = functional_call(model, virtual, (balanced[0],))
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(logits, balanced[1]).backward(inputs=self.theta)
        self.optimizer.step()
        with torch.no_grad():
            weights = literal_net(self.theta, losses)
            return weights / weights.sum() if weights.sum() > 0 else weights


@pytest.mark.parametrize("virtual_step", VIRTUAL_STEPS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_weights_and_theta_equal_those_of_the_algorithm_as_written(
    net: Callable[[int], nn.Module], seed: int, virtual_step: VirtualStep
) -> None:
    model, ours = net(seed), reweighter(seed, virtual_step=virtual_step)
    literal = LiteralReweighter(ours, virtual_step)
    for step in range(4):  # Momentum and weight decay of Theta count from the second step on.
        batch, balanced = image_batch(16, 2 * step), image_batch(9, 2 * step + 1)
        alpha = 0.5 / (step + 1)
        weights = ours.weights(model, *batch, balanced, alpha)
        expected = literal.weights(model, batch, balanced, alpha)
        torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-14)
    for parameter, wanted in zip(ours.net.parameters(), literal.theta, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted.detach(), rtol=1e-10, atol=1e-12)


def test_normalised_factors_worked_by_hand() -> None:
    # V(l) = l: F = sum l^2 / sum l = 10 / 4, dF/dl_i = (2 l_i - F) / 4 = -1/8, 7/8; B = 2.
    factors = normalised_factors(lambda losses: losses, torch.tensor([1.0, 3.0]))
    assert factors.tolist() == [-0.25, 1.75]


def test_factors_of_equal_weights_are_one_where_nothing_depends_on_the_loss() -> None:
    factors = normalised_factors(lambda losses: torch.full_like(losses, 0.2), torch.rand(5))
    torch.testing.assert_close(factors, torch.ones(5))


def test_an_unknown_virtual_step_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of normalised, raw, not 'detached'"):
        reweighter(virtual_step="detached")


@pytest.mark.parametrize("virtual_step", VIRTUAL_STEPS)
def test_a_meta_step_lowers_the_loss_after_the_virtual_step(virtual_step: VirtualStep) -> None:
    model = batch_norm_net(0)
    ours = reweighter(0, learning_rate=1.0, virtual_step=virtual_step)
    batch, balanced = image_batch(16, 0), image_batch(9, 1)

    def balanced_loss_after_a_step() -> float:
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        if virtual_step == "normalised":
            weights = ours.net(losses)
            weighted = (weights / weights.sum() * losses).sum()
        else:
            weighted = (ours.net(losses.detach()) * losses).mean()
        gradients = torch.autograd.grad(weighted, list(model.parameters()))
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, gradient in zip(moved.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
            return float(nn.functional.cross_entropy(moved(balanced[0]), balanced[1]))

    before = balanced_loss_after_a_step()
    for _ in range(10):
        ours.weights(model, *batch, balanced, 0.1)
    assert balanced_loss_after_a_step() < before


@pytest.mark.parametrize("net", NETS)
def test_the_model_is_left_as_it_was(net: Callable[[int], nn.Module]) -> None:
    model, ours = net(0), reweighter()
    with untouched(model):
        weights = ours.weights(model, *image_batch(16, 0), image_batch(9, 1), 0.5)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert bool((weights > 0).all())
    assert not weights.requires_grad
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_a_tensor_as_learning_rate_is_the_same_as_a_number() -> None:
    batch, balanced = image_batch(16, 0), image_batch(9, 1)
    alphas: list[float | Tensor] = [0.5, torch.tensor(0.5, dtype=torch.float64), 0.1]
    number, tensor, other = (
        reweighter().weights(plain_net(0), *batch, balanced, alpha) for alpha in alphas
    )
    assert torch.equal(number, tensor)
    assert not torch.equal(number, other)


def test_nothing_waits_for_the_device() -> None:
    alpha = torch.tensor(0.5, dtype=torch.float64)
    with NothingWaits():
        reweighter().weights(batch_norm_net(0), *image_batch(16, 0), image_batch(9, 1), alpha)


def test_another_balanced_batch_gives_other_weights() -> None:
    batch = image_batch(16, 0)
    one, other = (
        reweighter().weights(batch_norm_net(0), *batch, image_batch(9, seed), 0.5)
        for seed in (1, 2)
    )
    assert not torch.equal(one, other)


CHANGED: dict[str, Any] = {
    "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.1, "hidden": 7, "virtual_step": "raw",
}  # fmt: skip


@pytest.mark.parametrize("option", CHANGED)
def test_each_option_changes_the_weights(option: str) -> None:
    batch, balanced = image_batch(16, 0), image_batch(9, 1)
    results = []
    for ours in (reweighter(), reweighter(**{option: CHANGED[option]})):
        for _ in range(2):
            weights = ours.weights(plain_net(0), *batch, balanced, 0.5)
        results.append(weights)
    assert not torch.equal(*results)


def test_without_a_slope_only_weight_decay_moves_theta() -> None:
    model, ours = plain_net(0), reweighter(learning_rate=0.1, weight_decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # Logits 0 everywhere; one of each class cancels the gradient of the balanced batch.
    images = torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    before = [p.detach().clone() for p in ours.net.parameters()]
    ours.weights(model, images, torch.arange(3), (images, torch.arange(3)), 0.5)
    for parameter, start in zip(ours.net.parameters(), before, strict=True):
        # Nesterov's first step is 1 + 0.9 times the gradient 0.5 theta.
        torch.testing.assert_close(parameter.detach(), start * (1 - 0.1 * 1.9 * 0.5))


@pytest.mark.parametrize("virtual_step", VIRTUAL_STEPS)
def test_if_every_weight_underflows_all_are_zero_and_not_nan(virtual_step: VirtualStep) -> None:
    ours = reweighter(virtual_step=virtual_step)
    with torch.no_grad():
        ours.net.output.bias.fill_(-1e4)
    weights = ours.weights(plain_net(0), *image_batch(4, 0), image_batch(9, 1), 0.5)
    assert weights.tolist() == [0.0] * 4
    assert all(bool(parameter.isfinite().all()) for parameter in ours.net.parameters())


@pytest.mark.parametrize("net", NETS)
def test_a_single_sample_has_weight_one(net: Callable[[int], nn.Module]) -> None:
    weights = reweighter().weights(net(0), *image_batch(1, 0), image_batch(9, 1), 0.5)
    assert weights.tolist() == [1.0]


def test_images_can_be_bytes_that_the_model_normalises() -> None:
    model = batch_norm_net(0)
    batch, balanced = byte_batch(16, 0), byte_batch(9, 1)
    one = reweighter().weights(model, *batch, balanced, 0.5)
    literal = LiteralReweighter(reweighter()).weights(model, batch, balanced, 0.5)
    torch.testing.assert_close(one, literal, rtol=1e-10, atol=1e-14)


def test_the_passes_run_under_autocast_near_the_weights_in_full_precision() -> None:
    model = batch_norm_net(0).float()
    batch, balanced = byte_batch(16, 0), byte_batch(9, 1)
    exact = reweighter().float().weights(model, *batch, balanced, 0.5)
    with torch.autocast("cpu", torch.bfloat16), untouched(model):
        rounded = reweighter().float().weights(model, *batch, balanced, 0.5)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=1e-3)


def test_a_restored_reweighter_goes_on_bit_for_bit() -> None:
    model, whole = batch_norm_net(0), reweighter(0)
    whole.weights(model, *image_batch(16, 0), image_batch(9, 1), 0.5)
    saved = copy.deepcopy(whole.state_dict())
    expected = [whole.weights(model, *image_batch(16, 2), image_batch(9, 3), 0.5) for _ in "ab"]
    resumed = reweighter(1)
    places = [value.data_ptr() for value in resumed.state_dict().values()]
    resumed.load_state_dict(saved)
    # In place: what a captured CUDA graph points at is what was restored.
    assert [value.data_ptr() for value in resumed.state_dict().values()] == places
    got = [resumed.weights(model, *image_batch(16, 2), image_batch(9, 3), 0.5) for _ in "ab"]
    assert all(map(torch.equal, got, expected))
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])


def test_the_network_is_drawn_from_its_own_generator_with_torchs_bounds() -> None:
    before = torch.get_rng_state()
    net, again = (WeightingNetwork(torch.Generator().manual_seed(3)) for _ in range(2))
    other = WeightingNetwork(torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, again.state_dict()[name])
        assert not torch.equal(parameter, other.state_dict()[name])
    assert [tuple(p.shape) for p in net.parameters()] == [(100, 1), (100,), (1, 100), (1,)]
    assert 0.9 < float(net.hidden.weight.detach().abs().max()) <= 1.0
    assert 0.09 < float(net.output.weight.detach().abs().max()) <= 0.1


def test_the_network_maps_a_loss_through_relu_and_sigmoid() -> None:
    net = WeightingNetwork(torch.Generator(), hidden=2)
    values = ([[1.0], [-1.0]], [-1.0, 0.0], [[2.0, 5.0]], [-1.0])
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    # Hidden units relu(l - 1) and relu(-l); logit 2 relu(l - 1) + 5 relu(-l) - 1.
    expected = torch.tensor([-1.0, -1.0, 1.0]).sigmoid()
    torch.testing.assert_close(net(torch.tensor([0.0, 1.0, 2.0])), expected)
