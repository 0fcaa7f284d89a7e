from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from video.models import ResNeXt3d, make_resnext101, make_small_resnext
from video.models.resnext3d import Bottleneck, initialise_resnext

CLASSES = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_clips(number: int = 2, frames: int = 10, side: int = 24, seed: int = 0) -> Tensor:
    return 255 * torch.rand(number, 3, frames, side, side, generator=generator(seed))


@pytest.fixture(scope="module")
def large() -> ResNeXt3d:
    """3D-ResNeXt-101 for Kinetics, without memory or weights."""
    return ResNeXt3d(400).to("meta")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Layout.


def test_parameters_of_the_101_layers_are_those_worked_out_by_hand(large: ResNeXt3d) -> None:
    expected = {"conv1": 3 * 64 * 343, "bn1": 2 * 64, "fc": 2048 * 400 + 400}
    inputs = 64
    for i, (planes, blocks) in enumerate(((128, 3), (256, 4), (512, 23), (1024, 3)), start=1):
        # 32 groups, each from planes / 32 to planes / 32 channels with 27 weights.
        grouped = 32 * (planes // 32) ** 2 * 27
        norms = 2 * planes + 2 * planes + 2 * (2 * planes)
        first = inputs * planes + grouped + planes * 2 * planes + norms
        shortcut = inputs * 2 * planes + 2 * (2 * planes)
        other = 2 * planes * planes + grouped + planes * 2 * planes + norms
        expected[f"layer{i}"] = first + shortcut + (blocks - 1) * other
        inputs = 2 * planes
    assert {
        name: parameters(part) for name, part in large.named_children() if parameters(part)
    } == (expected)
    assert parameters(large) == 48_340_816  # 47.5 million and a classifier of 0.8 million


def test_a_clip_of_10_frames_of_224_pixels_costs_58_gflop(large: ResNeXt3d) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = large.eval()(torch.empty(1, 3, 10, 224, 224, device="meta"))
    assert logits.shape == (1, 400)
    assert counter.get_total_flops() == pytest.approx(58.2e9, rel=1e-3)


def test_names_are_those_of_the_published_weights(large: ResNeXt3d) -> None:
    names = {name for name in large.state_dict() if not name.endswith("num_batches_tracked")}
    norm = ("weight", "bias", "running_mean", "running_var")
    expected = {"conv1.weight", *(f"bn1.{n}" for n in norm), "fc.weight", "fc.bias"}
    for i, blocks in enumerate((3, 4, 23, 3), start=1):
        for block in range(blocks):
            for j in (1, 2, 3):
                prefix = f"layer{i}.{block}."
                expected |= {f"{prefix}conv{j}.weight", *(f"{prefix}bn{j}.{n}" for n in norm)}
        prefix = f"layer{i}.0.downsample."
        expected |= {f"{prefix}0.weight", *(f"{prefix}1.{n}" for n in norm)}
    assert names == expected


def test_101_layers_lie_on_the_longest_path(large: ResNeXt3d) -> None:
    layers = [m for n, m in large.named_modules() if isinstance(m, nn.Conv3d | nn.Linear)
              and "downsample" not in n]  # fmt: skip
    assert len(layers) == 101


def test_shapes_of_the_stages_are_hara_s(large: ResNeXt3d) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    names = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    hooks = [
        large.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
        for name in names
    ]
    large.eval()(torch.empty(1, 3, 16, 112, 112, device="meta"))
    for hook in hooks:
        hook.remove()
    assert shapes == {
        "conv1": (64, 16, 56, 56), "maxpool": (64, 8, 28, 28), "layer1": (256, 8, 28, 28),
        "layer2": (512, 4, 14, 14), "layer3": (1024, 2, 7, 7), "layer4": (2048, 1, 4, 4),
    }  # fmt: skip


def test_the_paper_s_network_scales_pixels_as_for_the_published_weights(large: ResNeXt3d) -> None:
    scaling = ResNeXt3d(2, (1,), width=16).scaling
    clips = torch.tensor([114.7748, 107.7354, 255.0]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2)
    expected = torch.tensor([0.0, 0.0, 155.525]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2)
    torch.testing.assert_close(scaling(clips), expected)
    assert not any("scaling" in name for name in large.state_dict())


@pytest.mark.parametrize("width", [0, 8, 24])
def test_a_width_with_fractions_of_channels_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 16, not {width}"):
        ResNeXt3d(CLASSES, width=width)


# The bottleneck.


def literal_bottleneck(block: Bottleneck, x: Tensor, groups: int, stride: int) -> Tensor:
    """In evaluation: each group's convolution by itself."""

    def normalised(y: Tensor, norm: nn.Module) -> Tensor:
        mean, variance, weight, bias = (
            getattr(norm, n).view(1, -1, 1, 1, 1)
            for n in ("running_mean", "running_var", "weight", "bias")
        )
        result: Tensor = (y - mean) / (variance + 1e-5).sqrt() * weight + bias
        return result

    def pointwise(y: Tensor, layer: nn.Conv3d) -> Tensor:
        return torch.einsum("bcthw,oc->bothw", y, layer.weight.flatten(1))

    y = normalised(pointwise(x, block.conv1), block.bn1).relu()
    parts = zip(y.chunk(groups, 1), block.conv2.weight.chunk(groups), strict=True)
    y = torch.cat([F.conv3d(part, weight, padding=1) for part, weight in parts], 1)
    y = normalised(y[:, :, ::stride, ::stride, ::stride], block.bn2).relu()
    y = normalised(pointwise(y, block.conv3), block.bn3)
    if block.downsample is not None:
        projection, norm = block.downsample
        assert isinstance(projection, nn.Conv3d)
        x = normalised(pointwise(x[:, :, ::stride, ::stride, ::stride], projection), norm)
    return (y + x).relu()


@pytest.mark.parametrize(
    ("inputs", "stride", "projects"), [(128, 1, False), (128, 2, True), (32, 1, True)]
)
def test_a_bottleneck_equals_its_definition(inputs: int, stride: int, projects: bool) -> None:
    block = Bottleneck(inputs, planes=64, cardinality=8, stride=stride).double()
    initialise_resnext(block, generator())
    for name, tensor in block.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            tensor.copy_(1 + tensor.double().uniform_(-0.5, 0.5, generator=generator()))
    x = torch.randn(2, inputs, 5, 6, 7, generator=generator(), dtype=torch.float64)
    found = block.eval()(x)
    assert (block.downsample is not None) == projects
    assert block.conv2.weight.shape == (16, 2, 3, 3, 3)
    torch.testing.assert_close(found, literal_bottleneck(block, x, 8, stride))


# Weights.


def test_weights_depend_on_the_generator_only() -> None:
    torch.manual_seed(1)
    first = make_small_resnext(CLASSES, generator()).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = make_small_resnext(CLASSES, generator()).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    other = make_small_resnext(CLASSES, generator(1)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_initial_weights_have_the_spread_of_their_definition() -> None:
    network = make_small_resnext(CLASSES, generator())
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            outputs = layer.out_channels * layer.weight[0, 0].numel()
            spread = float(layer.weight.detach().std()) / (2 / outputs) ** 0.5
            assert spread == pytest.approx(1, abs=5 / layer.weight.numel() ** 0.5)
        elif isinstance(layer, nn.BatchNorm3d):
            assert set(layer.weight.tolist()) == {1.0}
            assert set(layer.bias.tolist()) == {0.0}
    bound = network.fc.in_features**-0.5
    assert 0.99 * bound < float(network.fc.weight.detach().abs().max()) <= bound
    assert 0 < float(network.fc.bias.detach().abs().max()) <= bound


def test_the_large_network_is_made_with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[nn.Module] = []
    monkeypatch.setattr(
        "video.models.resnext3d.initialise_resnext", lambda network, _: drawn.append(network)
    )
    network = make_resnext101(19, generator(), mixed=True)
    assert drawn == [network]
    assert network.fc.weight.shape == (19, 2048)
    assert network.mixed


# The small network.


def small_resnet(**options: Any) -> ResNeXt3d:
    return make_small_resnext(CLASSES, generator(), **options)


def test_the_small_network_is_small_and_keeps_every_frame_until_its_second_stage() -> None:
    network = small_resnet()
    assert 20_000 < parameters(network) < 300_000
    lengths: list[int] = []
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output: lengths.append(output.shape[2])
        )
    network(random_clips())
    assert lengths == [10, 10, 10, 5, 3]


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (10, 48, 32), (7, 33, 21)])
def test_clips_of_any_length_and_size_fit(frames: int, height: int, width: int) -> None:
    clips = 255 * torch.rand(2, 3, frames, height, width, generator=generator())
    before = clips.clone()
    assert small_resnet().eval()(clips).shape == (2, CLASSES)
    assert torch.equal(clips, before)


def test_bytes_and_any_memory_format_give_the_same_logits() -> None:
    network = small_resnet().eval()
    clips = random_clips().round()
    expected = network(clips)
    assert torch.equal(network(clips.byte()), expected)
    last = clips.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(network(last), expected)
    network.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(network(last), expected)


def test_logits_are_the_classifier_of_the_mean_over_time_and_space() -> None:
    network = small_resnet().eval()
    maps: list[Tensor] = []
    network.get_submodule("layer3").register_forward_hook(lambda _, __, output: maps.append(output))
    logits = network(random_clips())
    expected = maps[0].flatten(2).mean(2) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(logits, expected)


def test_mixed_precision_passes_in_bfloat16_and_gives_float32_logits_and_gradients() -> None:
    exact, mixed = small_resnet().eval(), small_resnet(mixed=True).eval()
    kinds: list[torch.dtype] = []
    mixed.get_submodule("layer2").register_forward_hook(lambda _, __, y: kinds.append(y.dtype))
    expected, logits = exact(random_clips()), mixed(random_clips())
    assert (kinds, logits.dtype) == ([torch.bfloat16], torch.float32)
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in mixed.parameters())


def moving_squares(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A white square that goes right (0) or left (1); no single frame tells which."""
    labels = torch.randint(2, (number,), generator=generator)
    start = torch.randint(32, (number, 1), generator=generator)
    steps = 4 * torch.arange(8) * (1 - 2 * labels.view(-1, 1))
    # What leaves on one side comes in on the other.
    columns = (torch.arange(32) - (start + steps).unsqueeze(2)) % 32
    bars = (columns < 6).float()
    clips = 255 * bars.view(number, 1, 8, 1, 32).expand(number, 3, 8, 16, 32).clone()
    clips[..., :5, :] = clips[..., 11:, :] = 0
    return clips, labels


def test_the_small_network_learns_to_tell_a_movement_from_its_reverse() -> None:
    network, source = small_resnet(), generator(7)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        clips, labels = moving_squares(16, source)
        optimizer.zero_grad()
        F.cross_entropy(network(clips), labels).backward()
        optimizer.step()
    clips, labels = moving_squares(64, source)
    predicted = network.eval()(clips).argmax(1)
    assert 20 < int(labels.sum()) < 44
    assert float((predicted == labels).double().mean()) > 0.9
