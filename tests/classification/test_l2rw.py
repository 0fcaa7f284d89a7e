import pytest
import torch
from torch import Tensor, nn

from classification.data import LabelledImages
from classification.l2rw import BalancedBatches, reweight


def small_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def random_batch(size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 4, dtype=torch.float64, generator=generator)
    return images, torch.randint(3, (size,), generator=generator)


def slow_reweight(
    model: nn.Module, images: Tensor, labels: Tensor, balanced: tuple[Tensor, Tensor]
) -> Tensor:
    """Ren et al.'s algorithm as written: a virtual SGD step, then backward through it to eps."""
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


@pytest.mark.parametrize("seed", range(5))
def test_the_weights_equal_those_of_the_algorithm_as_written(seed: int) -> None:
    model = small_net(seed)
    batch, balanced = random_batch(16, seed), random_batch(9, seed + 100)
    weights = reweight(model, *batch, balanced)
    expected = slow_reweight(model, *batch, balanced)
    assert 0 < int((expected > 0).sum()) < 16
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-14)


def test_the_weights_sum_to_one_and_carry_no_gradient() -> None:
    model = small_net(0)
    weights = reweight(model, *random_batch(16, 0), random_batch(9, 1))
    assert float(weights.sum()) == pytest.approx(1.0)
    assert bool((weights >= 0).all())
    assert not weights.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_helpful_sample_all_weights_are_zero() -> None:
    model = small_net(0)
    images, labels = random_batch(1, 0)
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
    model = small_net(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # Zero weights give logits 0 everywhere; one of each class cancels the bias's gradient.
    images = torch.zeros(3, 4, dtype=torch.float64)
    weights = reweight(model, images, torch.arange(3), (images, torch.arange(3)))
    assert weights.tolist() == [0.0, 0.0, 0.0]


def test_balanced_batches_are_drawn_with_replacement_from_their_own_generator() -> None:
    data = LabelledImages(torch.arange(4.0).view(4, 1), torch.arange(4))
    torch.manual_seed(0)
    batches = BalancedBatches(data, 400, torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    images, labels = batches.draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images[:, 0], labels.to(torch.float32))
    # 400 draws of 4: 100 of each, standard deviation 9.
    assert all(60 < count < 140 for count in torch.bincount(labels).tolist())
    again = BalancedBatches(data, 400, torch.Generator().manual_seed(3))
    assert torch.equal(again.draw()[1], labels)
    assert not torch.equal(again.draw()[1], labels)
