import pytest
import torch
from torch import Tensor, nn

from classification.models import LENET_ARCHITECTURES, Initialisation, LenetArchitecture, make_lenet
from classification.models.lenet import HalvingMaxPool

INITIALISATIONS: tuple[Initialisation, ...] = (
    "xavier-uniform", "torch-default", "truncated-normal",
)  # fmt: skip


def lenet(
    architecture: LenetArchitecture = "lenet5",
    classes: int = 2,
    how: Initialisation = "xavier-uniform",
    seed: int = 0,
) -> nn.Module:
    return make_lenet(architecture, classes, how, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", LENET_ARCHITECTURES)
@pytest.mark.parametrize("classes", [2, 10])
def test_images_of_28_by_28_give_a_logit_per_class(
    architecture: LenetArchitecture, classes: int
) -> None:
    assert lenet(architecture, classes)(torch.rand(3, 1, 28, 28)).shape == (3, classes)


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        # 6 (25 + 1) + 16 (6 25 + 1) + 120 (400 + 1) + 84 (120 + 1) + 2 (84 + 1)
        ("lenet5", 156 + 2416 + 48120 + 10164 + 170),
        ("lenet5-1998", 61026),
        # 16 (25 + 1) + 32 (16 25 + 1) + 64 (32 25 + 1) + 100 (1024 + 1) + 2 (100 + 1)
        ("lenet-ren", 416 + 12832 + 51264 + 102500 + 202),
    ],
)
def test_the_number_of_parameters_is_the_one_counted_by_hand(
    architecture: LenetArchitecture, parameters: int
) -> None:
    assert sum(p.numel() for p in lenet(architecture).parameters()) == parameters


@pytest.mark.parametrize("how", INITIALISATIONS)
@pytest.mark.parametrize("architecture", LENET_ARCHITECTURES)
def test_the_initial_weights_depend_on_the_generator_alone(
    architecture: LenetArchitecture, how: Initialisation
) -> None:
    torch.manual_seed(1)
    ours = lenet(architecture, how=how).state_dict()
    torch.manual_seed(2)
    theirs = lenet(architecture, how=how).state_dict()
    others = lenet(architecture, how=how, seed=1).state_dict()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name])
        if name.endswith("weight"):
            assert not torch.equal(weight, others[name])


@pytest.mark.parametrize(
    ("how", "largest", "deviation", "bias"),
    [
        # fan-in 400, fan-out 120: sqrt(6 / 520); 1 / sqrt(400); a normal cut at 2 deviations.
        ("xavier-uniform", 0.10742, 0.10742 / 3**0.5, 0.0),
        ("torch-default", 0.05, 0.05 / 3**0.5, 0.05),
        ("truncated-normal", 0.2, 0.1 * 0.8796, 0.0),
    ],
)
def test_the_initial_weights_are_spread_as_named(
    how: Initialisation, largest: float, deviation: float, bias: float
) -> None:
    hidden = lenet(how=how)[7]  # type: ignore[index]
    assert isinstance(hidden, nn.Linear)
    weight = hidden.weight.detach()
    assert float(weight.abs().max()) == pytest.approx(largest, rel=0.01)
    assert float(weight.std()) == pytest.approx(deviation, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0.0, abs=0.002)
    assert float(hidden.bias.detach().abs().max()) == pytest.approx(bias, rel=0.1)


def test_the_default_initialisation_draws_from_torchs_own_ranges() -> None:
    ours, theirs = lenet(how="torch-default")[7], nn.Linear(400, 120)  # type: ignore[index]
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert float(a.detach().abs().max()) == pytest.approx(
            float(b.detach().abs().max()), rel=0.05
        )


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 7, 5), (5, 6, 28, 28)])
def test_halving_without_gradients_is_max_pooling(shape: tuple[int, ...]) -> None:
    pool, images = HalvingMaxPool(), torch.randn(shape)
    with torch.inference_mode():
        fast = pool(images)
    assert torch.equal(fast, nn.functional.max_pool2d(images, 2))
    assert torch.equal(pool(images), fast)


def test_pooling_of_lenet_ren_is_tensorflows_same() -> None:
    """Output size ceil(n / 2); window i covers 2 i - before ... 2 i - before + 2."""
    pools = [module for module in lenet("lenet-ren").modules() if isinstance(module, nn.MaxPool2d)]
    pads = [
        module for module in lenet("lenet-ren").modules() if isinstance(module, nn.ConstantPad2d)
    ]
    # By TensorFlow's rule: pad = max((ceil(n / 2) - 1) 2 + 3 - n, 0), the smaller half before.
    for size, before, pad, pool in zip((28, 14, 7), (0, 0, 1), pads, pools, strict=True):
        images = -torch.rand(1, 1, size, size) - 1
        pooled = pool(pad(images))
        assert pooled.shape[-2:] == (-(-size // 2),) * 2
        for row in range(pooled.shape[2]):
            for column in range(pooled.shape[3]):
                window = window_of(images, row, column, before)
                assert float(pooled[0, 0, row, column]) == float(window.max())


def window_of(images: Tensor, row: int, column: int, before: int) -> Tensor:
    top, left = 2 * row - before, 2 * column - before
    return images[0, 0, max(top, 0) : top + 3, max(left, 0) : left + 3]


@pytest.mark.parametrize("architecture", LENET_ARCHITECTURES)
def test_every_parameter_gets_a_gradient(architecture: LenetArchitecture) -> None:
    model = lenet(architecture)
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name
