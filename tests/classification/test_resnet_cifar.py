import copy
import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.models import CifarResNet, SecondStage, make_resnet
from classification.models.resnet_cifar import (
    CIFAR100_MEAN,
    CIFAR100_STD,
    BasicBlock,
    CosineLinear,
    PixelScaling,
    initialise_resnet,
)

CLASSES = 7
Layer = TypeVar("Layer", bound=nn.Module)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(number: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.randint(256, (number, 3, side, side), dtype=torch.uint8, generator=generator(seed))


def small_resnet(**options: Any) -> CifarResNet:
    """ResNet-8 in float32, with running statistics that are not those of the start."""
    network = make_resnet(CLASSES, generator(), **{"blocks": 1, "mixed": False} | options)
    network(random_images(16, 16))
    return network


def random_block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    """With scales and shifts of batch normalisation that are not those of the start."""
    block = BasicBlock(inputs, outputs, stride)
    initialise_resnet(block, generator())
    for norm in (block.bn1, block.bn2):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator(1))
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator(2))
    return block


def linear(network: CifarResNet) -> tuple[Tensor, Tensor]:
    """Weight (C, 64) and bias (C,) of its classifier."""
    assert isinstance(network.classifier, nn.Linear)
    return network.classifier.weight, network.classifier.bias


def layers_of(network: nn.Module, kind: type[Layer]) -> list[Layer]:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


# Layout.


def test_resnet_32_has_the_parameters_counted_by_hand() -> None:
    stage1 = 3 * 3 * (3 * 16 + 10 * 16 * 16)
    stage2 = 3 * 3 * (16 * 32 + 9 * 32 * 32)
    stage3 = 3 * 3 * (32 * 64 + 9 * 64 * 64)
    scales_and_shifts = 2 * (11 * 16 + 10 * 32 + 10 * 64)
    expected = stage1 + stage2 + stage3 + scales_and_shifts + 64 * 10 + 10
    assert expected == 464_154  # The 0.46 M of He et al. 2016, Table 6.
    network = make_resnet(10, generator())
    assert sum(p.numel() for p in network.parameters()) == expected
    assert sum(p.numel() for p in make_resnet(100, generator()).parameters()) == 470_004


def test_resnet_32_has_31_convolutions_and_one_linear_layer() -> None:
    network = make_resnet(100, generator())
    assert len(layers_of(network, nn.Conv2d)) == 31
    assert len(layers_of(network, nn.BatchNorm2d)) == 31
    assert len(layers_of(network, nn.Linear)) == 1
    assert all(layer.bias is None for layer in layers_of(network, nn.Conv2d))


def test_height_and_width_are_halved_where_channels_are_doubled() -> None:
    network = make_resnet(CLASSES, generator()).eval()
    shapes = []
    for layer in layers_of(network, BasicBlock):
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    assert network(random_images(2)).shape == (2, CLASSES)
    assert network.features(random_images(2)).shape == (2, 64)
    assert shapes[:15] == [(2, 16, 32, 32)] * 5 + [(2, 32, 16, 16)] * 5 + [(2, 64, 8, 8)] * 5


# Its parts, beside what they are defined as.


def test_pixels_are_scaled_to_mean_0_and_deviation_1() -> None:
    images = random_images(4, 5)
    scaled = PixelScaling(CIFAR100_MEAN, CIFAR100_STD)(images)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (CIFAR100_MEAN, CIFAR100_STD))
    expected = (images / 255.0 - mean[:, None, None]) / std[:, None, None]
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, expected.float(), rtol=1e-5, atol=1e-6)


def test_bytes_and_the_same_numbers_as_floats_are_scaled_alike() -> None:
    scaling, images = PixelScaling((0.5, 0.5, 0.5), (0.25, 0.5, 1.0)), random_images(2, 3)
    assert torch.equal(scaling(images), scaling(images.double()))
    colour = torch.tensor([255, 0, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert scaling(colour).flatten().tolist() == [2.0, -1.0, 0.5]


def literal_shortcut(x: Tensor, outputs: int, stride: int) -> Tensor:
    """Option A: every ``stride``-th pixel, and zeros for the new channels, half before, half after.

    He et al. 2016, Sec. 4.2; which side the zeros stand on they leave open.
    """
    images, inputs, height, width = x.shape
    y = torch.zeros(images, outputs, -(-height // stride), -(-width // stride))
    before = (outputs - inputs) // 2
    for row, column in itertools.product(range(y.shape[2]), range(y.shape[3])):
        y[:, before : before + inputs, row, column] = x[:, :, row * stride, column * stride]
    return y


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2), (4, 4, 2)])
def test_the_shortcut_of_a_block_is_option_a(inputs: int, outputs: int, stride: int) -> None:
    block = random_block(inputs, outputs, stride)
    for parameter in (block.bn2.weight, block.bn2.bias):
        nn.init.zeros_(parameter)  # The other branch gives 0.
    x = torch.randn(3, inputs, 6, 6, generator=generator())
    assert torch.equal(block(x), literal_shortcut(x, outputs, stride).relu())


def literal_block(block: BasicBlock, x: Tensor) -> Tensor:
    """ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut), the running statistics left alone."""

    def normalised(maps: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        variance = maps.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
        scaled = (maps - mean) / (variance + norm.eps).sqrt()
        return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]

    y = F.conv2d(x, block.conv1.weight, stride=block.stride, padding=1)
    y = normalised(y, block.bn1).relu()
    y = normalised(F.conv2d(y, block.conv2.weight, padding=1), block.bn2)
    return (y + literal_shortcut(x, y.shape[1], block.stride)).relu()


@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (8, 2)])
def test_a_block_is_two_convolutions_and_a_shortcut(outputs: int, stride: int) -> None:
    block = random_block(4, outputs, stride)
    x = torch.randn(5, 4, 6, 6, generator=generator())
    expected = literal_block(block, x.clone())
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_a_block_leaves_its_input_as_it_was() -> None:
    x = torch.randn(2, 4, 6, 6, generator=generator())
    before = x.clone()
    random_block(4, 4, 1)(x)
    assert torch.equal(x, before)


def test_the_cosine_classifier_gives_cosines() -> None:
    classifier = CosineLinear(3, 2)
    vectors = torch.tensor([[3.0, 0.0, 4.0], [0.0, -2.0, 0.0]])
    with torch.no_grad():
        classifier.weight.copy_(vectors)
    features = torch.tensor([[6.0, 0.0, 8.0], [1.0, 1.0, 0.0], [0.0, 5.0, 0.0]])
    expected = torch.tensor([[1.0, 0.0], [0.6 / 2**0.5, -(0.5**0.5)], [0.0, -1.0]])
    torch.testing.assert_close(classifier(features), expected)
    assert torch.equal(classifier(torch.zeros(1, 3)), torch.zeros(1, 2))


def test_the_network_is_its_parts_in_a_row() -> None:
    network = small_resnet()
    images = random_images(5, 16)
    maps = PixelScaling(CIFAR100_MEAN, CIFAR100_STD)(images)
    first, norm = network.layers[0], network.layers[1]
    assert isinstance(first, nn.Conv2d)
    maps = F.relu(norm(F.conv2d(maps, first.weight, padding=1)))
    for block in layers_of(network, BasicBlock):
        maps = literal_block(block, maps)
    weight, bias = linear(network)
    expected = maps.mean(dim=3).mean(dim=2) @ weight.T + bias
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


# Precision.


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("cosine", [False, True])
def test_logits_features_and_gradients_are_float32(mixed: bool, cosine: bool) -> None:
    network = small_resnet(mixed=mixed, cosine=cosine)
    images = random_images(3, 16)
    logits = network(images)
    logits.square().sum().backward()
    assert logits.dtype == network.features(images).dtype == torch.float32
    for parameter in network.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
    assert {buffer.dtype for buffer in network.buffers()} == {torch.float32, torch.int64}


def test_bfloat16_logits_are_near_those_of_float32_and_not_the_same() -> None:
    images = random_images(32)
    exact, rounded = (
        make_resnet(CLASSES, generator(), mixed=mixed)(images).detach() for mixed in (False, True)
    )
    error = (exact - rounded).square().mean().sqrt() / exact.std()
    assert 0 < float(error) < 0.05


def test_the_passes_themselves_are_in_bfloat16_only_if_asked_for() -> None:
    for mixed, expected in ((False, torch.float32), (True, torch.bfloat16)):
        network, seen = small_resnet(mixed=mixed), set[torch.dtype]()
        for layer in layers_of(network, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output, seen=seen: seen.add(output.dtype))
        network(random_images(2, 16))
        assert seen == {expected}


# Initial weights.


@pytest.mark.parametrize("cosine", [False, True])
def test_initial_weights_come_from_the_generator_alone(cosine: bool) -> None:
    one, again, other = (
        make_resnet(CLASSES, generator(seed), blocks=1, cosine=cosine) for seed in (3, 3, 4)
    )
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    for name, parameter in one.named_parameters():
        drawn = "bn" not in name and "layers.1." not in name
        assert torch.equal(parameter, other.state_dict()[name]) is not drawn, name


def test_making_a_network_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    for cosine in (False, True):
        first = make_resnet(CLASSES, generator(), blocks=1, cosine=cosine)
        SecondStage(first, CLASSES, rescale=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_convolutions_start_with_hes_deviation_and_classifiers_with_torchs_bounds() -> None:
    network = make_resnet(100, generator())
    for layer in layers_of(network, nn.Conv2d):
        fan_in = layer.weight[0].numel()
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    for parameter in linear(network):
        assert 0.9 / 8 < float(parameter.detach().abs().max()) <= 1 / 8
    cosine = make_resnet(100, generator(), cosine=True).classifier
    assert isinstance(cosine, CosineLinear)
    torch.testing.assert_close(cosine.weight.norm(dim=1), torch.ones(100))


# Second stages.


def trained_first_stage(seed: int = 1) -> dict[str, Tensor]:
    first = make_resnet(CLASSES, generator(seed), blocks=1, mixed=False)
    first(random_images(16, 16, seed))
    return first.state_dict()


def second_stage(rescale: bool, weights: dict[str, Tensor] | None = None) -> SecondStage:
    first = make_resnet(CLASSES, generator(0), blocks=1, mixed=False)
    model = SecondStage(first, CLASSES, rescale=rescale)
    model.load_first_stage(trained_first_stage() if weights is None else weights)
    return model


def first_stage_features(images: Tensor) -> Tensor:
    """Of the trained first stage in evaluation mode."""
    first = make_resnet(CLASSES, generator(0), blocks=1, mixed=False)
    first.load_state_dict(trained_first_stage())
    return first.eval().features(images).detach()


def test_lws_scales_the_logits_of_the_first_stage() -> None:
    model, images = second_stage(rescale=True), random_images(5, 16)
    scales = torch.linspace(-1, 2, CLASSES)
    assert model.scales is not None
    assert torch.equal(model.scales, torch.ones(CLASSES))
    with torch.no_grad():
        model.scales.copy_(scales)
    weights = trained_first_stage()
    logits = first_stage_features(images) @ weights["classifier.weight"].T
    expected = scales * (logits + weights["classifier.bias"])
    torch.testing.assert_close(model(images), expected)


def test_crt_puts_a_new_classifier_on_the_features_of_the_first_stage() -> None:
    model, images = second_stage(rescale=False), random_images(5, 16)
    weight, bias = linear(make_resnet(CLASSES, generator(0), blocks=1))
    assert model.scales is None
    expected = first_stage_features(images) @ weight.T + bias
    torch.testing.assert_close(model(images), expected)
    assert not torch.equal(weight, trained_first_stage()["classifier.weight"])


def test_the_weights_of_the_first_stage_are_copied_and_not_shared() -> None:
    weights = trained_first_stage()
    before = copy.deepcopy(weights)
    for rescale in (False, True):
        model = second_stage(rescale, weights)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
    assert weights.keys() == before.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, before[name])


LEARNS = {True: {"scales"}, False: {"first.classifier.weight", "first.classifier.bias"}}


def steps(model: SecondStage, number: int = 3) -> Iterator[None]:
    """SGD with momentum and weight decay on all that requires a gradient."""
    learns = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learns, lr=0.1, momentum=0.9, weight_decay=0.01)
    model.train()
    for step in range(number):
        labels = torch.randint(CLASSES, (8,), generator=generator(step))
        F.cross_entropy(model(random_images(8, 16, step)), labels).backward()
        yield
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("rescale", [False, True])
def test_only_the_classifier_gets_a_gradient_and_changes(rescale: bool) -> None:
    model = second_stage(rescale)
    before = copy.deepcopy(model.state_dict())
    for _ in steps(model):
        got = {name for name, p in model.named_parameters() if p.grad is not None}
        assert got == LEARNS[rescale]
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    # Running statistics and their counters are in the state too.
    assert changed == LEARNS[rescale]


@pytest.mark.parametrize("rescale", [False, True])
def test_training_and_evaluation_mode_give_the_same_logits(rescale: bool) -> None:
    model, images = second_stage(rescale), random_images(6, 16)
    in_training = model.train()(images)
    assert model.training
    assert not any(layer.training for layer in layers_of(model, nn.BatchNorm2d))
    assert torch.equal(in_training, model.eval()(images))
    assert not model.training


@pytest.mark.parametrize("rescale", [False, True])
def test_features_may_be_given_in_place_of_their_images(rescale: bool) -> None:
    model, images = second_stage(rescale), random_images(6, 16)
    features = model.features(images)
    assert features.shape == (6, 64)
    assert not features.requires_grad
    assert torch.equal(model(features), model(images))
