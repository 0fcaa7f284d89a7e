"""Each method on CIFAR-like data beside a slow reference: one sample, one class at a time."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classification.methods import make_method
from classification.methods.meta_weight_net import MetaReweighter
from classification.models.resnet_cifar import CosineLinear
from common.losses import focal_weights
from common.sampler import ClassProbabilitySampler, InstanceBalancedSampler
from common.streams import Streams, stream_seed
from common.training.methods.base import LogitMethod
from common.training.methods.focal import Focal
from tests.classification.synthetic import CIFAR_COUNTS, METHODS, cifar_config, small_cifar

COUNTS = CIFAR_COUNTS
CLASSES = len(COUNTS)
DATA = small_cifar()
BATCH = 24
ACCURACY = [0.9, 0.7, 0.8, 0.5, 0.6, 0.4, 0.35, 0.3, 0.45, 0.2, 0.1, 0.15]


class Linear(nn.Module):
    """A float64 classifier of the pixels; wrong by much on some samples, by little on others."""

    def __init__(self, cosine: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        classifier = CosineLinear(192, CLASSES) if cosine else nn.Linear(192, CLASSES, bias=False)
        self.classifier: nn.Module = classifier.double()
        weight = torch.randn(CLASSES, 192, generator=generator, dtype=torch.float64)
        self.classifier.load_state_dict({"weight": 0.5 * weight})

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images.double().flatten(1) / 255 - 0.5)
        return logits


def built(method: str, streams: Streams | None = None, **changes: Any) -> LogitMethod:
    config = cifar_config(method=method, **changes)
    rate = torch.tensor(config.learning_rate, dtype=torch.float64)
    return make_method(config, DATA, streams or Streams(0), rate)


def loss_of(
    run: LogitMethod, batch: tuple[Tensor, Tensor], model: nn.Module | None = None
) -> Tensor:
    """Of a step with draws of its own, as the training loop makes it."""
    draws = run.draw(len(batch[1]))
    return run.batch_loss(model or Linear(run.cosine), *batch, draws).detach()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """One sample of every class, then others."""
    labels = DATA.train.labels
    first = [labels.tolist().index(c) for c in range(CLASSES)]
    others = [i for i in range(len(labels)) if i not in first]
    return DATA.train.take(torch.tensor((first + others)[:BATCH]))


# The references, on lists of numbers.


def rows_of(images: Tensor) -> list[list[float]]:
    """The logits of :class:`Linear`."""
    rows: list[list[float]] = Linear()(images).tolist()
    return rows


def probability(row: list[float], label: int, left_out: set[int] | None = None) -> float:
    kept = [math.exp(z) for k, z in enumerate(row) if k not in (left_out or set())]
    return math.exp(row[label]) / sum(kept)


def ce(row: list[float], label: int) -> float:
    return -math.log(probability(row, label))


def focal(row: list[float], label: int, gamma: float) -> float:
    p = probability(row, label)
    return -math.pow(1 - p, gamma) * math.log(p)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def effective_number_weights(beta: float) -> list[float]:
    """Cui et al. 2019, scaled to sum to the number of classes."""
    inverse = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return [CLASSES * w / sum(inverse) for w in inverse]


def cdb_weights(accuracy: list[float]) -> list[float]:
    """Eqs. 2-5 and 10 with T_M = 5 and epsilon = 0.01, scaled to sum to the number of classes."""
    bias = max(max(accuracy) / (min(accuracy) + 0.01) - 1, 0)
    tau = 2 * 5 / (1 + math.exp(-bias)) - 5
    powers = [(1 - a) ** tau for a in accuracy]
    return [CLASSES * w / sum(powers) for w in powers]


def pairs_of(batch: tuple[Tensor, Tensor]) -> list[tuple[list[float], int]]:
    images, labels = batch
    return list(zip(rows_of(images), labels.tolist(), strict=True))


# Losses.


@pytest.mark.parametrize("method", ["ce", "cfs", "class-aware", "cdb-s"])
def test_ce_and_the_samplers_take_the_mean_cross_entropy(
    method: str, batch: tuple[Tensor, Tensor]
) -> None:
    expected = mean([ce(row, y) for row, y in pairs_of(batch)])
    assert float(loss_of(built(method), batch)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_takes_the_mean_focal_loss(gamma: float, batch: tuple[Tensor, Tensor]) -> None:
    expected = mean([focal(row, y, gamma) for row, y in pairs_of(batch)])
    loss = loss_of(built("focal", focal_gamma=gamma), batch)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_cb_weights_by_the_effective_number_of_samples(batch: tuple[Tensor, Tensor]) -> None:
    weights = effective_number_weights(0.99)
    expected = mean([weights[y] * ce(row, y) for row, y in pairs_of(batch)])
    loss = loss_of(built("cb", cb_beta=0.99), batch)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "changes", "tau"),
    [("balanced-softmax", {}, 1.0), ("logit-adjustment", {}, 1.0),
     ("logit-adjustment", {"la_tau": 1.5}, 1.5)],
)  # fmt: skip
def test_adjusted_logits_hold_the_shares_of_the_training_set(
    method: str, changes: dict[str, float], tau: float, batch: tuple[Tensor, Tensor]
) -> None:
    shares = [n / sum(COUNTS) for n in COUNTS]
    adjusted = [
        ([z + tau * math.log(share) for z, share in zip(row, shares, strict=True)], y)
        for row, y in pairs_of(batch)
    ]
    expected = mean([ce(row, y) for row, y in adjusted])
    loss = loss_of(built(method, **changes), batch)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_eql_leaves_rare_other_classes_out_of_the_softmax(batch: tuple[Tensor, Tensor]) -> None:
    draws = torch.rand(BATCH, CLASSES, generator=torch.Generator().manual_seed(5))
    expected, left_out = [], 0
    for i, (row, y) in enumerate(pairs_of(batch)):
        ignored = {
            k
            for k in range(CLASSES)
            if k != y and COUNTS[k] / sum(COUNTS) < 0.05 and float(draws[i, k]) < 0.7
        }
        left_out += len(ignored)
        expected.append(-math.log(probability(row, y, ignored)))
    method = built("eql", eql_threshold=0.05, eql_gamma=0.7)
    loss = method.batch_loss(Linear(), *batch, draws)
    assert float(loss.detach()) == pytest.approx(mean(expected), rel=1e-12)
    assert 0 < left_out < 5 * BATCH  # Of five rare classes.


def test_eql_draws_from_its_own_generator(batch: tuple[Tensor, Tensor]) -> None:
    own = torch.Generator().manual_seed(stream_seed(0, "eql"))
    given = built("eql").batch_loss(Linear(), *batch, torch.rand(BATCH, CLASSES, generator=own))
    assert torch.equal(loss_of(built("eql"), batch), given.detach())


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def ldam_losses(batch: tuple[Tensor, Tensor], max_margin: float, scale: float) -> list[float]:
    """Cao et al. 2019: margins n^(-1/4), the largest of them ``max_margin``."""
    images, labels = batch
    classes = Linear(cosine=True).classifier.state_dict()["weight"].tolist()
    rarest = max(n**-0.25 for n in COUNTS)
    losses = []
    for image, y in zip(
        (images.double() / 255 - 0.5).flatten(1).tolist(), labels.tolist(), strict=True
    ):
        row = [cosine(image, direction) for direction in classes]
        row[y] -= max_margin * COUNTS[y] ** -0.25 / rarest
        losses.append(ce([scale * z for z in row], y))
    return losses


@pytest.mark.parametrize(
    ("drw_epoch", "start"), [(None, 2), (3, 3), (0, 0)]
)  # None: the first milestone, 2.
def test_ldam_drw_before_and_after_its_epoch(
    drw_epoch: int | None, start: int, batch: tuple[Tensor, Tensor]
) -> None:
    method = built("ldam-drw", drw_epoch=drw_epoch, ldam_margin=0.4, ldam_scale=20.0, cb_beta=0.99)
    losses, labels = ldam_losses(batch, 0.4, 20.0), batch[1].tolist()
    later = [effective_number_weights(0.99)[y] for y in labels]
    for epoch in range(5):
        method.before_epoch(epoch)
        weights = later if epoch >= start else [1.0] * BATCH
        weighted = sum(w * loss for w, loss in zip(weights, losses, strict=True))
        loss = float(loss_of(method, batch))
        # The margins are float32 numbers, times a scale of 20.
        assert loss == pytest.approx(weighted / sum(weights), rel=1e-5)
    assert sum(later) != pytest.approx(BATCH, rel=0.01)  # Another reduction would be seen.


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-w-fl"])
def test_cdb_w_before_and_after_an_update(method: str, batch: tuple[Tensor, Tensor]) -> None:
    run = built(method, focal_gamma=2.0) if method == "cdb-w-fl" else built(method)
    assert run.balancer is not None
    losses = [
        ce(row, y) if method == "cdb-w-ce" else focal(row, y, 2.0) for row, y in pairs_of(batch)
    ]
    assert float(loss_of(run, batch)) == pytest.approx(mean(losses))
    run.balancer.update(torch.tensor(ACCURACY, dtype=torch.float64))
    run.before_epoch(1)
    weights = cdb_weights(ACCURACY)
    expected = mean([weights[y] * loss for loss, y in zip(losses, batch[1].tolist(), strict=True)])
    assert float(loss_of(run, batch)) == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(mean(losses), rel=0.01)


@pytest.mark.parametrize(
    "method",
    ["ce", "focal", "cb", "eql", "ldam-drw", "mixup", "balanced-softmax", "cdb-w-fl", "cdb-w-ce"],
)
def test_the_gradient_of_a_step_is_the_slope_of_its_loss(
    method: str, batch: tuple[Tensor, Tensor]
) -> None:
    """Along one direction, by a central difference: no factor of the loss is without gradient."""
    run = built(method)
    model = Linear(run.cosine)
    if run.balancer is not None:
        run.balancer.update(torch.tensor(ACCURACY, dtype=torch.float64))
    draws = run.draw(BATCH)
    weight = model.get_parameter("classifier.weight")
    (gradient,) = torch.autograd.grad(run.batch_loss(model, *batch, draws), [weight])
    generator = torch.Generator().manual_seed(4)
    direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    losses = []
    for step in (1e-5, -2e-5):  # From the start to one side, from there to the other.
        with torch.no_grad():
            weight.add_(step * direction)
            losses.append(float(run.batch_loss(model, *batch, draws).detach()))
    slope = (losses[0] - losses[1]) / 2e-5
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5)


# Samplers.


def shares_drawn(method: LogitMethod) -> list[float]:
    """Of 200 epochs, 12,800 samples: the standard deviation of a share is below 0.0045."""
    drawn = torch.cat([DATA.train.labels[method.sampler.draw()] for _ in range(200)])
    shares: list[float] = (torch.bincount(drawn, minlength=CLASSES) / len(drawn)).tolist()
    return shares


@pytest.mark.parametrize("q", [0.5, 0.0, 1.0])
def test_cfs_draws_classes_by_a_power_of_their_counts(q: float) -> None:
    powers = [n**q for n in COUNTS]
    expected = [power / sum(powers) for power in powers]
    method = built("cfs", cfs_q=q)
    method.before_epoch(0)
    assert isinstance(method.sampler, ClassProbabilitySampler)
    assert method.sampler.probabilities.tolist() == pytest.approx(expected, rel=1e-12)
    assert shares_drawn(method) == pytest.approx(expected, abs=0.02)


def test_cdb_s_draws_classes_by_their_difficulty() -> None:
    method = built("cdb-s")
    assert method.balancer is not None
    method.before_epoch(0)
    assert shares_drawn(method) == pytest.approx([1 / CLASSES] * CLASSES, abs=0.02)
    method.balancer.update(torch.tensor(ACCURACY, dtype=torch.float64))
    method.before_epoch(1)
    expected = [w / CLASSES for w in cdb_weights(ACCURACY)]
    assert isinstance(method.sampler, ClassProbabilitySampler)
    assert method.sampler.probabilities.tolist() == pytest.approx(expected, rel=1e-12)
    assert shares_drawn(method) == pytest.approx(expected, abs=0.02)


def test_class_aware_draws_every_class_once_a_round() -> None:
    method = built("class-aware")
    for _ in range(3):
        order = DATA.train.labels[method.sampler.draw()].tolist()
        assert len(order) == sum(COUNTS)
        for start in range(0, len(order), CLASSES):
            round_ = order[start : start + CLASSES]
            assert len(set(round_)) == len(round_)


@pytest.mark.parametrize(
    "method",
    [
        "ce", "focal", "cb", "eql", "l2rw", "meta-weight-net", "ldam-drw", "balanced-softmax",
        "logit-adjustment", "logit-adjustment-post-hoc", "tau-normalisation", "mixup", "cdb-w-ce",
        "cdb-w-fl",
    ],
)  # fmt: skip
def test_the_other_methods_see_every_sample_once_an_epoch(method: str) -> None:
    sampler = built(method).sampler
    assert isinstance(sampler, InstanceBalancedSampler)
    assert sorted(sampler.draw().tolist()) == list(range(sum(COUNTS)))


# The same random numbers, one sample at a time.


def slow_draw_by_class(probabilities: list[float], labels: list[int]) -> list[int]:
    """A class with its probability, then one of its samples, each as likely (Eq. 15)."""
    draws = torch.rand(2, len(labels), dtype=torch.float64, generator=Streams(0)["sampler"])
    drawn = []
    for of_class, of_sample in draws.T.tolist():
        c, reached = 0, probabilities[0]
        while of_class >= reached:
            c += 1
            reached += probabilities[c]
        members = [i for i, label in enumerate(labels) if label == c]
        drawn.append(members[int(of_sample * len(members))])
    return drawn


def test_cfs_equals_its_literal_reference() -> None:
    powers = []
    for n in COUNTS:
        powers.append(n**0.25)
    probabilities = [power / sum(powers) for power in powers]
    drawn = built("cfs", cfs_q=0.25).sampler.draw().tolist()
    assert drawn == slow_draw_by_class(probabilities, DATA.train.labels.tolist())


def test_cdb_s_equals_its_literal_reference_after_each_measurement() -> None:
    labels = DATA.train.labels.tolist()
    ours = built("cdb-s")
    ours.before_epoch(0)
    assert ours.sampler.draw().tolist() == slow_draw_by_class([1 / CLASSES] * CLASSES, labels)
    ours = built("cdb-s")
    assert ours.balancer is not None
    ours.balancer.update(torch.tensor(ACCURACY, dtype=torch.float64))
    ours.before_epoch(1)
    probabilities = [weight / CLASSES for weight in cdb_weights(ACCURACY)]
    assert ours.sampler.draw().tolist() == slow_draw_by_class(probabilities, labels)


def slow_class_aware_draw(labels: list[int], epochs: int) -> list[list[int]]:
    """Shen et al. 2016: rounds over the classes in random order, one sample of each.

    A class's samples come in random order, and in another one when all have come.
    """
    generator = Streams(0)["sampler"]

    def shuffled(values: list[int]) -> list[int]:
        keys = torch.rand(len(values), generator=generator).tolist()
        return [value for _, value in sorted(zip(keys, values, strict=True))]

    left: list[list[int]] = [[] for _ in range(CLASSES)]
    drawn = []
    for _ in range(epochs):
        rounds = math.ceil(len(labels) / CLASSES)
        taken: list[list[int]] = []
        for c in range(CLASSES):
            while len(left[c]) < rounds:
                left[c] += shuffled([i for i, label in enumerate(labels) if label == c])
            taken.append(left[c][:rounds])
            left[c] = left[c][rounds:]
        epoch = []
        for number in range(rounds):
            for c in shuffled(list(range(CLASSES))):
                epoch.append(taken[c][number])
        drawn.append(epoch[: len(labels)])
    return drawn


def test_class_aware_sampling_equals_its_literal_reference() -> None:
    ours = built("class-aware").sampler
    labels = DATA.train.labels.tolist()
    assert [ours.draw().tolist() for _ in range(3)] == slow_class_aware_draw(labels, epochs=3)


# Hard instances.


@pytest.mark.parametrize("method", ["focal", "cdb-w-fl"])
@pytest.mark.parametrize(("gamma", "bound"), [(1.0, 0.8), (2.0, 0.5)])
def test_hard_instances_are_the_samples_of_a_large_focal_weight(
    method: str, gamma: float, bound: float
) -> None:
    run = built(method, focal_gamma=gamma, hard_weight=bound)
    assert isinstance(run, Focal)
    assert run.hard_instances is not None
    expected = [0] * CLASSES
    for row, y in pairs_of((DATA.train.images, DATA.train.labels)):
        expected[y] += (1 - probability(row, y)) ** gamma > bound
    assert 0 < sum(expected) < sum(COUNTS)
    for epoch in range(2):  # Each counts anew.
        run.before_epoch(epoch)
        assert run.hard_instances.tolist() == [0] * CLASSES
        for part in DATA.train.batches(BATCH):
            loss_of(run, part)
        assert run.hard_instances.tolist() == expected
        assert run.row() == {"hard_instances": expected}


def test_a_weight_equal_to_the_bound_is_not_hard() -> None:
    logits = torch.full((1, CLASSES), -math.inf, dtype=torch.float64)
    logits[0, :2] = 0.0  # Two classes of probability 1/2.
    weight = float(focal_weights(logits, torch.tensor([0]), 1.0))
    for bound, hard in ((weight, 0), (math.nextafter(weight, 0), 1)):
        run = built("focal", hard_weight=bound)
        run.losses(logits, torch.tensor([0]))
        assert run.row()["hard_instances"] == [hard] + [0] * (CLASSES - 1)


def test_only_focal_losses_count_hard_instances() -> None:
    assert {method for method in METHODS if built(method).row()} == {"focal", "cdb-w-fl"}


# The meta-learning methods.

META = {"l2rw": ("l2rw", "l2rw_batch_size"), "meta-weight-net": ("meta-batches", "mwn_batch_size")}


class Seen:
    """Stands in for the meta step: keeps what it is given, and gives weights of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.balanced: list[tuple[Tensor, Tensor]] = []
        self.rates: list[Tensor] = []
        generator = torch.Generator().manual_seed(9)
        drawn = torch.rand(BATCH, generator=generator, dtype=torch.float64)
        self.given = drawn / drawn.sum()

        def l2rw(model: nn.Module, images: Tensor, labels: Tensor, balanced: Any) -> Tensor:
            self.balanced.append(balanced)
            return self.given

        def weights(
            _: object, model: nn.Module, images: Tensor, labels: Tensor, balanced: Any, rate: Tensor
        ) -> Tensor:
            self.rates.append(rate)
            return l2rw(model, images, labels, balanced)

        monkeypatch.setattr("classification.methods.l2rw.reweight", l2rw)
        monkeypatch.setattr(MetaReweighter, "weights", weights)


@pytest.mark.parametrize("method", META)
def test_the_meta_step_takes_images_of_the_difficulty_set_with_replacement(
    method: str, monkeypatch: pytest.MonkeyPatch, batch: tuple[Tensor, Tensor]
) -> None:
    stream, size = META[method]
    seen, own = Seen(monkeypatch), torch.Generator().manual_seed(stream_seed(0, stream))
    number = len(DATA.difficulty.labels)
    streams = Streams(0)
    run = built(method, streams, **{size: 2 * number})
    expected = []
    for _ in range(2):
        run.sampler.draw()  # Another generator's numbers between the steps change nothing.
        loss_of(run, batch)
        expected.append(torch.randint(number, (2 * number,), generator=own))
    for (images, labels), index in zip(seen.balanced, expected, strict=True):
        assert torch.equal(images, torch.stack([DATA.difficulty.images[i] for i in index.tolist()]))
        assert torch.equal(
            labels, torch.tensor([DATA.difficulty.labels[i] for i in index.tolist()])
        )
    assert not torch.equal(expected[0], expected[1])
    assert torch.equal(streams[stream].get_state(), own.get_state())


@pytest.mark.parametrize("method", META)
def test_given_draws_are_the_images_taken(
    method: str, monkeypatch: pytest.MonkeyPatch, batch: tuple[Tensor, Tensor]
) -> None:
    seen, index = Seen(monkeypatch), torch.tensor([3, 0, 3, 35])
    built(method).batch_loss(Linear(), *batch, index)
    images, labels = seen.balanced[0]
    assert torch.equal(images, DATA.difficulty.images[index])
    assert torch.equal(labels, DATA.difficulty.labels[index])


@pytest.mark.parametrize("method", META)
def test_the_loss_of_a_meta_learner_is_the_sum_of_its_weighted_losses(
    method: str, monkeypatch: pytest.MonkeyPatch, batch: tuple[Tensor, Tensor]
) -> None:
    seen = Seen(monkeypatch)
    weights = seen.given.tolist()
    expected = sum(w * ce(row, y) for w, (row, y) in zip(weights, pairs_of(batch), strict=True))
    loss = loss_of(built(method), batch)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_meta_weight_net_is_given_the_learning_rate_in_force(
    monkeypatch: pytest.MonkeyPatch, batch: tuple[Tensor, Tensor]
) -> None:
    seen, rate = Seen(monkeypatch), torch.tensor(0.1, dtype=torch.float64)
    method = make_method(cifar_config(method="meta-weight-net"), DATA, Streams(0), rate)
    loss_of(method, batch)
    rate.fill_(0.025)
    loss_of(method, batch)
    assert [float(r) for r in seen.rates] == [0.025, 0.025]  # One tensor, read when it is used.
    assert all(r is rate for r in seen.rates)


@pytest.mark.parametrize("method", META)
def test_the_network_and_its_state_are_left_as_they_are(
    method: str, batch: tuple[Tensor, Tensor]
) -> None:
    model = Linear()
    before = copy.deepcopy(model.state_dict())
    loss_of(built(method), batch, model)
    assert torch.equal(model.state_dict()["classifier.weight"], before["classifier.weight"])
    assert model.classifier.weight.grad is None


# State.


def flat(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state
    return [] if state is None else [tensor for value in values for tensor in flat(value)]


def alike(a: Any, b: Any) -> bool:
    ours, theirs = flat(a), flat(b)
    return len(ours) == len(theirs) and all(
        x.shape == y.shape and torch.equal(x, y) for x, y in zip(ours, theirs, strict=True)
    )


def of_part(state: dict[str, Any], part: str) -> list[Any]:
    found = [value for name, value in state.items() if name.startswith(part)]
    assert found
    return found


def go_on(run: LogitMethod, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """What the rest of an epoch depends on."""
    losses = [loss_of(run, batch) for _ in range(2)]
    return [*losses, run.sampler.draw(), *copy.deepcopy(flat(run.state_dict()))]


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("meta-weight-net", "meta.net."), ("meta-weight-net", "meta.momentum_buffers."),
        ("focal", "hard_instances"), ("cdb-w-fl", "hard_instances"), ("ldam-drw", "class_weights"),
        ("class-aware", "_extra_state"), ("cdb-s", "_extra_state"), ("cdb-s", "balancer."),
        ("cdb-w-ce", "balancer."),
    ],
)  # fmt: skip
def test_a_state_gives_back_what_the_rest_depends_on(
    method: str, part: str, batch: tuple[Tensor, Tensor]
) -> None:
    streams = Streams(0)
    run = built(method, streams)
    if run.balancer is not None:
        run.balancer.update(torch.tensor(ACCURACY, dtype=torch.float64))
    run.before_epoch(2)
    go_on(run, batch)
    state, generators = copy.deepcopy(run.state_dict()), copy.deepcopy(streams.state_dict())
    other_streams = Streams(0)
    restored = built(method, other_streams)
    assert not alike(of_part(restored.state_dict(), part), of_part(state, part))
    restored.load_state_dict(copy.deepcopy(state))
    other_streams.load_state_dict(generators)
    assert alike(restored.state_dict(), state)
    assert alike(go_on(restored, batch), go_on(run, batch))


def test_restored_class_weights_are_those_the_loss_reads(batch: tuple[Tensor, Tensor]) -> None:
    """In place: a loss, or a recorded graph, keeps the tensor it was made with."""
    for method in ("ldam-drw", "cdb-w-ce"):
        run, fresh = built(method), built(method)
        if run.balancer is not None:
            run.balancer.update(torch.tensor(ACCURACY, dtype=torch.float64))
        run.before_epoch(2)
        expected = float(loss_of(run, batch))
        assert float(loss_of(fresh, batch)) != expected
        kept = list(fresh.buffers())
        fresh.load_state_dict(copy.deepcopy(run.state_dict()))
        assert all(a is b for a, b in zip(kept, fresh.buffers(), strict=True))
        assert float(loss_of(fresh, batch)) == expected
