import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from classification.image_recipes import IMAGE_RECIPES
from classification.methods.oltr import (
    Oltr,
    attraction,
    centroid_pull,
    class_means,
    fill_memory,
    negative_distances,
    oltr_loss,
    repulsion,
)
from classification.models.oltr_network import (
    NEAREST,
    ModulatedAttention,
    OltrModel,
    OltrOutputs,
    SquashedCosine,
    make_oltr,
    reachability,
)
from common.distributed import rank
from common.errors import UserError
from common.streams import Streams
from common.training.methods.base import Group
from tests.common.training.made import MadeData
from tests.ranks import on_ranks

B, C, D = 6, 5, 8
SIDE = (3, 2)


class TinyFirstStage(nn.Module):
    """Images (B, 3, 6, 4) -> maps (B, 8, 3, 2), with batch normalisation."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, D, kernel_size=2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(D)
        self.classifier = nn.Linear(D, classes)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def first_stage(classes: int = C) -> TinyFirstStage:
    first = TinyFirstStage(classes)
    for number, parameter in enumerate(first.parameters()):
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator(number))
    nn.init.ones_(first.norm.weight)
    return first


def empty_model(classes: int = C, **options: Any) -> OltrModel:
    return make_oltr(first_stage(classes), generator(), side=SIDE, **{"mixed": False} | options)


def some_images(number: int = B, seed: int = 0) -> Tensor:
    return randn(number, 3, 6, 4, seed=seed)


def some_labels(number: int = B, classes: int = C) -> Tensor:
    return torch.arange(number) % classes


def model_with_memory(classes: int = C, **options: Any) -> OltrModel:
    model = empty_model(classes, **options)
    with torch.no_grad():
        model.centroids.copy_(randn(classes, D, seed=3))
    return model


# Modulated attention.


def attention_layer(channels: int = D) -> ModulatedAttention:
    """With weights so large that the softmaxes are far from even."""
    layer = ModulatedAttention(channels, SIDE)
    for number, parameter in enumerate(layer.parameters()):
        nn.init.normal_(parameter, std=0.7, generator=generator(number))
    return layer


def affine(layer: nn.Conv2d | nn.Linear, vector: Tensor) -> Tensor:
    weight = layer.weight.reshape(layer.weight.shape[0], -1)
    result = weight @ vector
    return result if layer.bias is None else result + layer.bias


def attention_by_loops(layer: ModulatedAttention, x: Tensor) -> Tensor:
    """One image (D, h, w), one position after another."""
    positions = [(i, j) for i in range(SIDE[0]) for j in range(SIDE[1])]
    shares = affine(layer.spatial, x.reshape(-1)).softmax(dim=0)
    result = x.clone()
    for number, (i, j) in enumerate(positions):
        theta = affine(layer.theta, x[:, i, j])
        likeness = torch.stack([theta @ affine(layer.phi, x[:, k, m]) for k, m in positions])
        weights = likeness.exp() / likeness.exp().sum()
        gathered = sum(
            (w * affine(layer.g, x[:, k, m]) for w, (k, m) in zip(weights, positions, strict=True)),
            torch.zeros(layer.g.out_channels),
        )
        result[:, i, j] += shares[number] * affine(layer.mask, gathered)
    return result


@torch.no_grad()
def test_modulated_attention_is_that_of_loops() -> None:
    layer, maps = attention_layer(), randn(B, D, *SIDE)
    expected = torch.stack([attention_by_loops(layer, image) for image in maps])
    torch.testing.assert_close(layer(maps), expected)
    channels_last = maps.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(channels_last), expected)


@torch.no_grad()
def test_the_shares_of_the_positions_add_up_to_1() -> None:
    shares = attention_layer().modulation(randn(B, D, *SIDE))
    assert shares.shape == (B, 1, *SIDE)
    torch.testing.assert_close(shares.sum(dim=(1, 2, 3)), torch.ones(B))


@torch.no_grad()
def test_even_maps_get_the_same_from_every_position() -> None:
    layer = attention_layer()
    one = randn(1, D, 1, 1)
    mask = layer.self_attention(one.expand(1, D, *SIDE))
    expected = affine(layer.mask, affine(layer.g, one.flatten()))
    torch.testing.assert_close(mask, expected[None, :, None, None].expand_as(mask))


@torch.no_grad()
def test_attention_without_its_last_convolution_is_the_identity() -> None:
    layer, maps = attention_layer(), randn(B, D, *SIDE)
    assert not torch.allclose(layer(maps), maps)
    nn.init.zeros_(layer.mask.weight)
    torch.testing.assert_close(layer(maps), maps, rtol=0, atol=0)


def test_maps_of_another_size_are_refused() -> None:
    # As many positions: only the shape tells.
    with pytest.raises(ValueError, match=r"made for maps of \(3, 2\), not \(2, 3\)"):
        attention_layer()(randn(1, D, 2, 3))


# Reachability and the cosine classifier.


def test_reachability_by_hand() -> None:
    centroids = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    direct = torch.tensor([[3.0, 4.0], [10.0, 2.0]])
    torch.testing.assert_close(reachability(direct, centroids), torch.tensor([2.0, 5.0]))


def reachability_by_loops(direct: Tensor, centroids: Tensor) -> Tensor:
    return torch.stack(
        [10 / torch.stack([(v - c).square().sum().sqrt() for c in centroids]).min() for v in direct]
    )


def test_reachability_and_its_gradient_are_those_of_loops() -> None:
    centroids = randn(C, D, seed=1)
    for_loops, direct = (randn(B, D).requires_grad_() for _ in range(2))
    expected, found = reachability_by_loops(for_loops, centroids), reachability(direct, centroids)
    torch.testing.assert_close(found, expected)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(direct.grad, for_loops.grad)


def test_small_distances_far_from_the_origin_are_not_lost_to_rounding() -> None:
    """Many and long vectors: torch would take a matrix product, and find the wrong centroid."""
    centroids = 1000 * torch.ones(40, D)
    centroids[:, 0] += 0.5 * torch.arange(40)
    direct = centroids.clone()
    direct[:, 1] += 0.125
    torch.testing.assert_close(reachability(direct, centroids), torch.full((40,), 80.0))


def test_a_feature_on_a_centroid_has_finite_reachability_and_gradient() -> None:
    direct = randn(1, D).requires_grad_()
    reach = reachability(direct, direct.detach().clone())
    reach.sum().backward()
    torch.testing.assert_close(reach.detach(), torch.tensor([10.0 / NEAREST]))
    assert direct.grad is not None
    assert not direct.grad.any()


def cosine_layer() -> SquashedCosine:
    layer = SquashedCosine(D, C)
    nn.init.normal_(layer.weight, generator=generator(1))
    return layer


@torch.no_grad()
def test_the_cosine_classifier_is_that_of_loops() -> None:
    layer, x = cosine_layer(), randn(B, D)
    for i in range(B):
        length = float(x[i].norm())
        for c in range(C):
            cosine = float(x[i] @ layer.weight[c]) / length / float(layer.weight[c].norm())
            expected = 16 * length / (1 + length) * cosine
            assert float(layer(x)[i, c]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@torch.no_grad()
def test_only_the_direction_of_a_class_vector_counts() -> None:
    layer, x = cosine_layer(), randn(B, D)
    before = layer(x)
    layer.weight.mul_(torch.linspace(0.1, 9, C)[:, None])
    torch.testing.assert_close(layer(x), before)


@given(st.floats(0, 1e6, width=32), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_logits_stay_within_16(length: float, seed: int) -> None:
    logits = cosine_layer()(length * F.normalize(randn(2, D, seed=seed)))
    assert bool((logits.abs() <= 16 * length / (1 + length) * (1 + 1e-5) + 1e-30).all())


# The meta-embedding.


def classify_by_loops(model: OltrModel, direct: Tensor) -> Tensor:
    result = []
    for v in direct:
        coefficients = affine(model.first.classifier, v).softmax(dim=0)
        memory = torch.zeros(D)
        for c in range(C):
            memory = memory + coefficients[c] * model.centroids[c]
        selector = torch.tanh(affine(model.selector, v))
        reach = 10 / min(float((v - c).norm()) for c in model.centroids)
        embedding = torch.tensor([reach * float(v[d] + selector[d] * memory[d]) for d in range(D)])
        length = embedding.norm()
        cosines = [embedding @ w / length / w.norm() for w in model.cosine.weight]
        result.append(16 * length / (1 + length) * torch.stack(cosines))
    return torch.stack(result)


@torch.no_grad()
def test_the_meta_embedding_is_that_of_loops() -> None:
    model = model_with_memory()
    direct = randn(B, D).relu()
    torch.testing.assert_close(model.classify(direct), classify_by_loops(model, direct))


@torch.no_grad()
def test_direct_features_are_the_rectified_new_layer_on_the_mean_of_the_attended_maps() -> None:
    model = model_with_memory()
    outputs = model(some_images(), for_loss=True)
    maps = model.first.features(some_images())
    for image, direct in zip(maps, outputs.direct, strict=True):
        attended = attention_by_loops(model.attention, image)
        expected = affine(model.direct, attended.mean(dim=(1, 2))).clamp_min(0)
        torch.testing.assert_close(direct, expected)
    torch.testing.assert_close(outputs.logits, model.classify(outputs.direct))
    torch.testing.assert_close(model(some_images()), outputs.logits)


def test_a_zero_feature_has_finite_logits_and_gradients() -> None:
    model = model_with_memory()
    with torch.no_grad():  # Then the meta-embedding is zero, too.
        model.selector.bias.zero_()
    direct = torch.zeros(2, D, requires_grad=True)
    logits = model.classify(direct)
    assert not logits.any()
    oltr_loss(OltrOutputs(logits, direct, model.centroids), torch.tensor([0, 1])).backward()
    assert direct.grad is not None
    assert bool(direct.grad.isfinite().all())
    for parameter in model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_cross_entropy_moves_all_but_the_memory() -> None:
    model = model_with_memory()
    F.cross_entropy(model(some_images()), some_labels()).backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # phi's bias shifts the scores of all positions alike, which changes no softmax.
    assert still - {"attention.phi.bias"} == {"centroids"}


# The network as a whole.


def test_the_same_generator_gives_the_same_network_whatever_the_global_one() -> None:
    first = first_stage()
    torch.manual_seed(1)
    one = make_oltr(copy.deepcopy(first), generator(7), side=SIDE)
    state = torch.get_rng_state()
    two = make_oltr(copy.deepcopy(first), generator(7), side=SIDE)
    assert torch.equal(torch.get_rng_state(), state)
    other = make_oltr(copy.deepcopy(first), generator(8), side=SIDE)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]) or name == "centroids"
    assert not torch.equal(one.selector.weight, other.selector.weight)
    for name, value in first.state_dict().items():
        assert torch.equal(one.state_dict()[f"first.{name}"], value)


@torch.no_grad()
def test_initial_weights_have_the_spread_of_the_authors_code() -> None:
    first = first_stage()
    first.classifier = nn.Linear(64, C)
    model = make_oltr(first, generator(), side=(4, 4))
    attention = model.attention
    for layer, outputs in ((attention.theta, 32), (attention.g, 32), (attention.mask, 64)):
        assert float(layer.weight.std()) == pytest.approx((2 / outputs) ** 0.5, rel=0.1)
    assert not attention.phi.bias.any()
    for weight, inputs in (
        (model.direct.weight, 64), (model.direct.bias, 64), (model.cosine.weight, 64),
        (attention.spatial.weight, 64 * 16),
    ):  # fmt: skip
        largest = float(weight.abs().max())
        assert 0.9 * inputs**-0.5 < largest <= inputs**-0.5


def test_the_first_stages_weights_are_taken_its_classifier_as_hallucinator() -> None:
    trained, model = first_stage(), empty_model()
    for parameter in trained.parameters():
        nn.init.normal_(parameter, generator=generator(9))
    model.load_first_stage(trained.state_dict())
    assert torch.equal(model.first.classifier.weight, trained.classifier.weight)
    assert torch.equal(model.state_dict()["first.conv.weight"], trained.conv.weight)


def test_a_state_dict_brings_back_the_network_with_its_memory() -> None:
    model, other = model_with_memory(), empty_model()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(some_images()), model.eval()(some_images()))


def test_an_empty_memory_shows_in_the_loss() -> None:
    assert bool(oltr_loss(empty_model()(some_images(), for_loss=True), some_labels()).isnan())


@pytest.mark.parametrize("mixed", [True, False])
def test_distances_and_logits_are_float32_under_autocast(mixed: bool) -> None:
    model = model_with_memory(mixed=mixed).eval()
    plain = model(some_images(), for_loss=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(some_images(), for_loss=True)
        again = model.classify(plain.direct)
        loss = oltr_loss(model(some_images(), for_loss=True), some_labels())
    assert {outputs.logits.dtype, outputs.direct.dtype, loss.dtype} == {torch.float32}
    # From the same direct features the same to the bit: nothing was rounded on the way.
    assert torch.equal(again, plain.logits)
    torch.testing.assert_close(outputs.direct, plain.direct, rtol=0.05, atol=0.05)


def test_mixed_precision_changes_the_attention() -> None:
    exact, mixed = model_with_memory(mixed=False), model_with_memory(mixed=True)
    one, two = (model.direct_features(some_images()) for model in (exact, mixed))
    assert not torch.equal(one, two)
    torch.testing.assert_close(one, two, rtol=0.05, atol=0.05)


# The loss.


def double_samples(classes: int = C) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, D), labels (B,) with class 0 three times and the last never, centroids."""
    labels = torch.tensor([0, 1, 0, 0, 1, min(2, classes - 1)])
    return randn(B, D).double(), labels, randn(classes, D, seed=1).double()


def negative_distance_by_loops(direct: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for v, y in zip(direct, labels.tolist(), strict=True):
        for j, c in enumerate(centroids):
            if j != y:
                total = total + ((v - c) ** 2).sum()
    return total / (len(direct) * len(centroids))


@pytest.mark.parametrize("classes", [2, C])
def test_the_mean_negative_distance_and_its_gradients_are_those_of_loops(classes: int) -> None:
    direct, labels, centroids = double_samples(classes)
    inputs = (direct.requires_grad_(), centroids.requires_grad_())
    expected = negative_distance_by_loops(direct, labels, centroids)
    found = negative_distances(direct, labels, centroids).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)
    )


def test_the_centroid_loss_by_hand() -> None:
    direct, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    centroids = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    # Own: 1 and 1. Others: 1 + 1 and 4, over 2 samples times 2 classes.
    assert attraction(direct, labels, centroids).tolist() == [0.5, 0.5]
    assert negative_distances(direct, labels, centroids).tolist() == [1.0, 2.0]
    assert float(repulsion(direct, labels, centroids)) == pytest.approx(10 - (2 + 4) / 4)
    assert float(repulsion(direct + 9, labels, centroids)) == 0.0
    outputs = OltrOutputs(torch.zeros(2, 2), direct, centroids)
    expected = torch.tensor(2.0).log() + 0.01 * (0.5 + 0.01 * 8.5)
    torch.testing.assert_close(oltr_loss(outputs, labels), expected)


def gradients_by_loops(
    direct: Tensor, labels: Tensor, centroids: Tensor, margin: float = 10.0
) -> tuple[Tensor, Tensor]:
    """Of 0.01 (A + 0.01 R) in the features, and the centroids' update, by the written formulas."""
    near = float(negative_distance_by_loops(direct, labels, centroids)) < margin
    to_direct, to_centroids = torch.zeros_like(direct), torch.zeros_like(centroids)
    number, classes = len(direct), len(centroids)
    counts = [int((labels == j).sum()) for j in range(classes)]
    for i, y in enumerate(labels.tolist()):
        to_direct[i] += 0.01 * (direct[i] - centroids[y]) / number
        to_centroids[y] += (centroids[y] - direct[i]) / (1 + counts[y]) / number
        for j in range(classes):
            if j != y and near:
                push = 0.01 * 0.01 * 2 * (direct[i] - centroids[j]) / (number * classes)
                to_direct[i] -= push
                to_centroids[j] += push
    return to_direct, to_centroids


@pytest.mark.parametrize("scale", [0.1, 3.0])  # Nearer and farther than the margin.
def test_the_gradients_of_the_centroid_loss_are_those_of_the_formulas(scale: float) -> None:
    direct, labels, centroids = double_samples()
    direct, centroids = scale * direct, scale * centroids
    assert (float(repulsion(direct, labels, centroids)) > 0) == (scale < 1)
    expected = gradients_by_loops(direct, labels, centroids)
    inputs = (direct.requires_grad_(), centroids.requires_grad_())
    constant = torch.zeros(B, C, dtype=torch.float64)
    loss = oltr_loss(OltrOutputs(constant, direct, centroids), labels)
    torch.testing.assert_close(torch.autograd.grad(loss, inputs), expected)


def test_a_centroid_without_sample_in_the_batch_is_only_repelled() -> None:
    direct, labels, centroids = double_samples()
    centroids.requires_grad_()
    pull = centroid_pull(direct, labels, centroids).sum()
    (gradient,) = torch.autograd.grad(pull, centroids)
    present = torch.tensor([True, True, True, False, False])
    assert torch.equal(gradient.any(dim=1), present)


def test_the_pull_on_the_centroids_has_no_value_and_does_not_reach_the_features() -> None:
    direct, labels, centroids = double_samples()
    pull = centroid_pull(direct.requires_grad_(), labels, centroids.requires_grad_())
    assert not pull.any()
    gradient, _ = torch.autograd.grad(pull.sum(), (direct, centroids), allow_unused=True)
    assert gradient is None


@given(st.integers(0, 1000), st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_moving_features_and_centroids_together_changes_no_distance(seed: int, by: float) -> None:
    direct, labels, centroids = double_samples()
    direct = direct + randn(B, D, seed=seed)
    for loss in (attraction, negative_distances):
        moved = loss(direct + by, labels, centroids + by)
        torch.testing.assert_close(moved, loss(direct, labels, centroids))
        assert bool((moved >= 0).all())


# The memory.


def memory_samples(classes: int = C, number: int = 23) -> tuple[Tensor, Tensor]:
    return some_images(number), torch.arange(number).square() % classes


def batches_of(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(size), labels.split(size), strict=True))


@torch.no_grad()
def test_the_memory_starts_as_the_class_means_of_the_direct_features() -> None:
    images, labels = some_images(11), torch.tensor([0, 1, 2, 3, 4, 0, 0, 2, 4, 4, 4])
    model = empty_model()
    model(some_images(50, seed=4))  # Running statistics that are not those of the start.
    model.eval()
    direct = [model.direct_features(image[None])[0] for image in images]
    model.train()
    before = copy.deepcopy(model.state_dict())
    fill_memory(model, batches_of(images, labels, 4))
    for c in range(C):
        own = [v for v, y in zip(direct, labels.tolist(), strict=True) if y == c]
        torch.testing.assert_close(model.centroids[c], sum(own, torch.zeros(D)) / len(own))
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) or name == "centroids"
    assert model.centroids.requires_grad


def test_the_order_of_the_samples_does_not_change_the_class_means() -> None:
    images, labels = some_images(23), some_labels(23)
    model, order = empty_model(), torch.randperm(23, generator=generator())
    straight = class_means(model, batches_of(images, labels, 23))
    shuffled = class_means(model, batches_of(images[order], labels[order], 5))
    torch.testing.assert_close(shuffled, straight, rtol=1e-6, atol=1e-7)


def test_a_class_without_sample_is_refused_by_name() -> None:
    model = empty_model()
    with pytest.raises(
        UserError, match=r"no training sample of class 1, 3: .* leave the class out"
    ):
        fill_memory(model, [(some_images(3), torch.tensor([0, 2, 4]))])
    assert bool(model.centroids.isnan().all())


# Training.


def groups_of(model: OltrModel) -> list[Group]:
    config, rate = IMAGE_RECIPES["image-folder-oltr"], torch.tensor(0.1)
    return Oltr(config, MadeData(torch.full((C,), 4)), Streams(0), rate).parameter_groups(model)


def test_the_groups_hold_every_parameter_once_with_the_authors_factors() -> None:
    model = model_with_memory()
    groups = groups_of(model)
    assert [factors for _, *factors in groups] == [[0.1, 1.0], [1.0, 1.0], [0.1, 1.0]]
    names = {id(p): name for name, p in model.named_parameters()}
    features, classifier, centroids = ([names[id(p)] for p in group] for group, _, _ in groups)
    assert sorted(features + classifier + centroids) == sorted(names.values())
    assert centroids == ["centroids"]
    assert {name.rpartition(".")[0] for name in classifier} == {
        "first.classifier", "selector", "cosine",
    }  # fmt: skip
    assert "first.conv.weight" in features


def optimizer_of(model: OltrModel, rate: float) -> torch.optim.SGD:
    groups = [{"params": group, "lr": rate * factor} for group, factor, _ in groups_of(model)]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=5e-4)


def losses_of_training(model: OltrModel, images: Tensor, labels: Tensor, steps: int) -> list[float]:
    optimizer = optimizer_of(model, rate=0.05)
    losses = []
    for _ in range(steps):
        loss = oltr_loss(model(images, for_loss=True), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("classes", [2, C])
def test_training_lowers_the_loss_and_moves_every_parameter(classes: int) -> None:
    images, labels = some_images(20), some_labels(20, classes)
    images = images + labels[:, None, None, None] / classes
    model = empty_model(classes)
    fill_memory(model, [(images, labels)])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = losses_of_training(model, images, labels, 15)
    assert losses[-1] < 0.7 * losses[0]
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]) or name.startswith("attention.phi.bias")


def test_one_sample_of_each_class_starts_at_distance_0_and_trains() -> None:
    images, labels = some_images(C), some_labels(C)
    model = empty_model().eval()  # So that the features are those of the memory, to the bit.
    fill_memory(model, batches_of(images, labels, C))
    own = attraction(model.direct_features(images), labels, model.centroids)
    assert float(own.detach().max()) < 1e-10
    losses = losses_of_training(model, images, labels, 10)
    assert losses[-1] < losses[0]


# Several ranks.

SHARES = {"even": (4, 4), "uneven": (5, 3), "one empty": (8, 0)}
SCALES = (0.1, 1.0)


def far_features() -> Tensor:
    """The first four samples are near all centroids, the others far."""
    return randn(8, D) * torch.tensor([0.1] * 4 + [3.0] * 4)[:, None]


def loss_results(scale: float, rows: slice) -> dict[str, Tensor]:
    """Loss and gradients of a rank's part of eight samples, in features and centroids."""
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 2, 3])[rows]
    direct = (scale * far_features()[rows]).requires_grad_()
    centroids = (scale * randn(C, D, seed=3)).requires_grad_()
    logits = direct @ randn(D, C, seed=5)
    loss = oltr_loss(OltrOutputs(logits, direct, centroids), labels)
    loss.backward()
    assert direct.grad is not None
    assert centroids.grad is not None
    own = negative_distances(direct, labels, centroids).detach()
    return {"loss": loss.detach(), "direct": direct.grad, "centroids": centroids.grad, "own": own}


def model_results(rows: slice) -> dict[str, Any]:
    """Class means, and the gradients of the network as a whole."""
    model = model_with_memory().eval()
    images, labels = some_images(8)[rows], some_labels(8)[rows]
    means = class_means(model, [(images, labels)])
    trained = DistributedDataParallel(model) if dist.is_initialized() else model
    oltr_loss(trained(images, for_loss=True), labels).backward()
    return {"means": means, "gradients": {n: p.grad for n, p in model.named_parameters()}}


def rank_results() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for share, (first, _) in SHARES.items():
        rows = slice(first, 8) if rank() else slice(first)
        results[share] = {scale: loss_results(scale, rows) for scale in SCALES}
        results[share]["model"] = model_results(rows)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(2, tmp_path_factory.mktemp("ranks"), rank_results)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("scale", SCALES)
def test_the_mean_of_two_ranks_is_the_whole_batch(
    ranks: list[dict[str, Any]], scale: float, share: str
) -> None:
    whole = loss_results(scale, slice(8))
    zero, one = (results[share][scale] for results in ranks)
    torch.testing.assert_close((zero["loss"] + one["loss"]) / 2, whole["loss"])
    torch.testing.assert_close((zero["centroids"] + one["centroids"]) / 2, whole["centroids"])
    torch.testing.assert_close(torch.cat([zero["direct"], one["direct"]]) / 2, whole["direct"])
    if (scale, share) == (1.0, "even"):
        # Rank 0 alone would be within the margin, all together are not.
        assert zero["own"].mean() < 10 < whole["own"].mean()


@pytest.mark.parametrize("share", SHARES)
def test_two_ranks_train_the_network_and_fill_its_memory_as_one(
    ranks: list[dict[str, Any]], share: str
) -> None:
    whole = model_results(slice(8))
    for results in ranks:
        torch.testing.assert_close(results[share]["model"], whole)
