import copy
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from classification.data import LabelledImages, load_data
from classification.methods import make_method
from classification.recipes import MnistConfig, MnistMethod
from classification.training import Training
from common.difficulty import class_accuracy
from common.errors import UserError
from common.losses import cross_entropy, focal_loss
from common.streams import Streams
from common.training.signals import StopRequest
from common.weights import class_balanced_weights
from tests.classification.synthetic import (
    COUNTS,
    config,
    same_weights,
    small_data,
    trained,
    training,
)
from tests.states import written_and_read
from tests.stopping import StopAfter

MNIST_METHODS = get_args(MnistMethod)
RATE = torch.tensor(0.1)


def logits_of(images: Tensor) -> Tensor:
    """A 'network' whose logits are the first pixels of an image."""
    return images[:, 0, 0, :3]


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return logits_of(images)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    data = small_data().train
    return data.images[:8], data.labels[:8]


def batch_loss(method: str, batch: tuple[Tensor, Tensor], **changes: object) -> float:
    built = make_method(config(method=method, **changes), small_data(), Streams(0), RATE)
    return float(built.batch_loss(Pixels(), *batch))


# Each method's loss and sampler.


@pytest.mark.parametrize("method", MNIST_METHODS)
def test_each_method_learns(method: str) -> None:
    run = trained(method=method, epochs=10)
    losses = run.history.rows["loss"]
    assert min(losses[-3:]) < 0.5 * losses[0]
    assert run.history.best["accuracy"] > 0.9
    assert all(weight.isfinite().all() for weight in run.model.state_dict().values())


@pytest.mark.parametrize("method", ["ce", "cfs", "cdb-s"])
def test_ce_and_the_samplers_take_the_mean_cross_entropy(
    method: str, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    expected = nn.functional.cross_entropy(logits_of(images), labels)
    assert batch_loss(method, batch) == pytest.approx(float(expected))


def test_focal_takes_the_mean_focal_loss(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    expected = focal_loss(logits_of(images), labels, gamma=2.0).mean()
    assert batch_loss("focal", batch, focal_gamma=2.0) == pytest.approx(float(expected))


def test_cb_weights_by_the_effective_number_of_samples(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    weights = class_balanced_weights(torch.tensor(COUNTS), 0.9)[labels]
    losses = weights * cross_entropy(logits_of(images), labels)
    by_size = batch_loss("cb", batch, cb_beta=0.9, loss_reduction="batch-size")
    assert by_size == pytest.approx(float(losses.mean()))
    # MNIST's reading divides by the sum of the weights.
    assert batch_loss("cb", batch, cb_beta=0.9) == pytest.approx(
        float(losses.sum() / weights.sum())
    )


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-w-fl"])
def test_cdb_w_weights_each_sample_by_its_class(method: str, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    built = make_method(config(method=method, tau="1"), small_data(), Streams(0), RATE)
    assert built.balancer is not None
    built.balancer.update(torch.tensor([0.9, 0.6, 0.5]))
    weights = 3 * torch.tensor([0.1, 0.4, 0.5])
    loss = cross_entropy if method == "cdb-w-ce" else focal_loss
    expected = (weights[labels] * loss(logits_of(images), labels)).mean()
    assert float(built.batch_loss(Pixels(), images, labels)) == pytest.approx(float(expected))


def test_cdb_s_samples_with_the_balancers_probabilities() -> None:
    built = make_method(config(method="cdb-s", tau="2"), small_data(), Streams(0), RATE)
    assert built.balancer is not None
    built.balancer.update(torch.tensor([1.0, 0.9, 0.8]))
    built.before_epoch(1)
    labels = small_data().train.labels
    drawn = torch.cat([labels[built.sampler.draw()] for _ in range(200)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    # 0.1^2 to 0.2^2; the standard deviation of a share is 0.0035.
    assert shares.tolist() == pytest.approx([0.0, 0.2, 0.8], abs=0.015)


def test_cfs_samples_by_the_root_of_the_class_counts() -> None:
    built = make_method(config(method="cfs"), small_data((40, 10, 10)), Streams(0), RATE)
    labels = small_data((40, 10, 10)).train.labels
    drawn = torch.cat([labels[built.sampler.draw()] for _ in range(200)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert shares.tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.015)


def test_the_other_methods_see_every_sample_once_an_epoch() -> None:
    for method in {*MNIST_METHODS} - {"cfs", "cdb-s"}:
        built = make_method(config(method=method), small_data(), Streams(0), RATE)
        assert sorted(built.sampler.draw().tolist()) == list(range(sum(COUNTS)))


def test_a_threshold_without_a_rare_class_is_refused_by_its_option() -> None:
    with pytest.raises(UserError, match=r"--eql-threshold 0.01 is refused: .*"):
        training(method="eql", eql_threshold=0.01)


# What an epoch leaves.


def test_the_history_holds_the_values_in_force_during_the_epoch() -> None:
    run = training(method="cdb-w-ce", tau="logarithmic", epochs=4)
    assert run.method.balancer is not None
    in_force: dict[str, list[Any]] = {"tau": [], "bias": [], "difficulty": [], "class_weights": []}
    while run.epoch < 4:
        balancer = copy.deepcopy(run.method.balancer)
        run.run_epoch(StopRequest())
        run.end_epoch()
        for name, values in in_force.items():
            values.append(getattr(balancer, name).tolist())
        accuracy = torch.tensor(run.history.rows["class_accuracy"][-1], dtype=torch.float64)
        assert torch.equal(run.method.balancer.difficulty, 1 - accuracy)
    assert {name: run.history.rows[name] for name in in_force} == in_force
    assert run.history.rows["class_weights"][0] == [1.0, 1.0, 1.0]
    assert run.history.rows["class_weights"][1] != [1.0, 1.0, 1.0]
    assert run.history.rows["epoch"] == [1, 2, 3, 4]


def test_class_accuracy_of_the_history_is_of_the_difficulty_set_after_the_epoch() -> None:
    run = training()
    for _ in range(2):
        run.run_epoch(StopRequest())
        run.end_epoch()
        data = run.data.difficulty
        expected = class_accuracy(run.model, [(data.images, data.labels)], 3)
        assert run.history.rows["class_accuracy"][-1] == expected.tolist()


def test_the_loss_of_the_history_is_the_mean_over_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, losses = training(), []
    step = run.step

    def remember(inputs: dict[str, Tensor]) -> Tensor:
        losses.append(step(inputs))
        return losses[-1]

    monkeypatch.setattr(run, "step", remember)
    run.run_epoch(StopRequest())
    run.end_epoch()
    assert len(losses) == 6
    assert run.history.rows["loss"] == [float(torch.stack(losses).mean())]


def test_a_class_that_is_not_measured_is_none_and_keeps_its_weight() -> None:
    data = small_data()
    keep = data.difficulty.labels != 2
    part = LabelledImages(data.difficulty.images[keep], data.difficulty.labels[keep])
    run = trained(replace(data, difficulty=part), method="cdb-s")
    assert [row[2] for row in run.history.rows["class_accuracy"]] == [None] * 3
    assert [row[2] for row in run.history.rows["difficulty"]] == [1.0] * 3


def test_best_is_the_first_epoch_with_the_highest_balanced_accuracy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = iter([[0.5, 0.1, 0.3], [0.2, 0.9, 0.7], [0.9, 0.2, 0.7], [1.0, 0.5, 0.0]])
    monkeypatch.setattr(
        "classification.training.measure",
        lambda *arguments: torch.tensor(next(measured), dtype=torch.float64),
    )
    run = training(epochs=4)
    weights = []
    for _ in range(4):
        run.run_epoch(StopRequest())
        run.end_epoch()
        weights.append(copy.deepcopy(run.model.state_dict()))
    assert run.history.best["epoch"] == 2
    assert run.history.best["accuracy"] == pytest.approx(0.6)
    for name, weight in run.history.best["weights"].items():
        assert torch.equal(weight, weights[1][name])
    assert not torch.equal(weights[1]["0.weight"], weights[3]["0.weight"])


@pytest.mark.parametrize("method", MNIST_METHODS)
def test_the_test_set_decides_nothing(method: str) -> None:
    data = small_data()
    order = torch.randperm(21, generator=torch.Generator().manual_seed(1))
    other = LabelledImages(1 - 2 * data.test.images, data.test.labels[order])
    ours, theirs = trained(data, method=method), trained(replace(data, test=other), method=method)
    assert same_weights(ours, theirs)
    assert ours.history.best["epoch"] == theirs.history.best["epoch"]
    assert ours.history.rows == theirs.history.rows


# State.


@pytest.mark.parametrize("method", MNIST_METHODS)
def test_a_copy_made_from_the_state_at_any_step_continues_alike(method: str) -> None:
    undisturbed = trained(method=method)
    for steps in (0, 1, 5, 6, 7, 12, 17):  # Of three epochs of six steps.
        run = training(method=method)
        advance(run, steps)
        resumed = training(method=method)
        resumed.load_state_dict(written_and_read(run.state_dict()))
        finish(resumed)
        assert same_weights(resumed, undisturbed)
        assert resumed.history.rows == undisturbed.history.rows
        assert resumed.history.best["epoch"] == undisturbed.history.best["epoch"]


def advance(run: Training, steps: int) -> None:
    """Train ``steps`` steps, with the end of each whole epoch."""
    for _ in range(steps // 6):
        assert run.run_epoch(StopRequest())
        run.end_epoch()
    assert not run.run_epoch(StopAfter(steps % 6))
    assert (run.epoch, run.state_dict()["step"]) == divmod(steps, 6)


def finish(run: Training) -> None:
    while run.epoch < run.config.epochs:
        run.run_epoch(StopRequest())
        run.end_epoch()


@pytest.mark.parametrize("method", MNIST_METHODS)
def test_a_run_depends_on_its_seed_and_no_global_generator(method: str) -> None:
    torch.manual_seed(1)
    ours = trained(method=method, epochs=1)
    torch.manual_seed(2)
    torch.rand(5)
    theirs = trained(method=method, epochs=1)
    assert same_weights(ours, theirs)
    assert not same_weights(ours, trained(method=method, epochs=1, seed=1))


# Every option changes something.

# field -> (a method it is for, other settings, another value)
CHANGES: dict[str, tuple[str, dict[str, object], object]] = {
    "method": ("ce", {}, "focal"),
    "seed": ("ce", {}, 1),
    "tau": ("cdb-w-ce", {}, "2"),
    "tau_max": ("cdb-w-ce", {}, 1.0),
    "tau_power": ("cdb-w-ce", {"tau": "polynomial"}, 5.0),
    "eps": ("cdb-w-ce", {"tau": "linear"}, 0.5),
    "normalize_weights": ("cdb-w-ce", {}, False),
    "loss_reduction": ("cdb-w-ce", {}, "weight-sum"),
    "focal_gamma": ("focal", {}, 2.0),
    "cfs_q": ("cfs", {}, 0.0),
    "cb_beta": ("cb", {}, 0.9),
    "la_tau": ("logit-adjustment", {}, 1.5),
    "mixup_alpha": ("mixup", {}, 0.1),
    "eql_gamma": ("eql", {}, 0.1),
    "eql_threshold": ("eql", {}, 0.4),
    "l2rw_batch_size": ("l2rw", {}, 5),
    "architecture": ("ce", {}, "lenet5-1998"),
    "initialisation": ("ce", {}, "torch-default"),
    "epochs": ("ce", {}, 2),
    "batch_size": ("ce", {}, 8),
    "learning_rate": ("ce", {}, 0.01),
    "momentum": ("ce", {}, 0.5),
    "weight_decay": ("ce", {}, 0.1),
    "sampler_unit": ("cdb-s", {}, "image"),
    "difficulty_prior": ("cdb-w-ce", {}, 2.0),
    "weights_from_epoch": ("cdb-w-fl", {}, 2),
}
MORE_CHANGES: list[tuple[str, str, dict[str, object], object]] = [
    ("focal_gamma", "cdb-w-fl", {}, 2.0),
    ("method", "ce", {}, "balanced-softmax"),
    ("tau", "cdb-s", {}, "0.5"),
    ("tau_max", "cdb-s", {}, 1.0),
    ("loss_reduction", "ce", {}, "sum"),
    ("loss_reduction", "l2rw", {}, "sum"),
    ("loss_reduction", "cb", {}, "batch-size"),
    ("architecture", "ce", {}, "lenet-ren"),
    ("initialisation", "ce", {}, "truncated-normal"),
]
# Used by the loader, not by the methods: see the next test but one.
OF_THE_DATA = {"dataset", "imbalance", "split_seed", "input_scaling"}
OF_CHANGING_ACCURACIES = {"difficulty_average"}  # See test_steadiers.py.
OF_WHAT_IS_TESTED = {"norm_tau"}  # See methods/test_post_hoc.py.


def test_the_list_of_options_is_complete() -> None:
    elsewhere = OF_THE_DATA | OF_CHANGING_ACCURACIES | OF_WHAT_IS_TESTED
    assert CHANGES.keys() | elsewhere == {field.name for field in fields(MnistConfig)}


@pytest.mark.parametrize(
    ("name", "method", "others", "value"),
    [(name, *change) for name, change in CHANGES.items()] + MORE_CHANGES,
)
def test_every_option_changes_the_weights(
    name: str,
    method: str,
    others: dict[str, object],
    value: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Accuracies at which no law of tau is at an end of its range.
    measured = torch.tensor([0.9, 0.7, 0.6], dtype=torch.float64)
    monkeypatch.setattr("classification.training.measure", lambda *arguments: measured)
    usual = {"method": method, **others}
    changed = usual | {name: value}
    assert not same_weights(trained(None, **usual), trained(None, **changed))


def test_every_option_of_the_data_changes_the_data() -> None:
    usual = config(imbalance=99, seed=0)

    def first_images(**changes: object) -> tuple[str, Tensor]:
        data = load_data(replace(usual, **changes), torch.device("cpu"))  # type: ignore[arg-type]
        return data.description["digest"], data.train.images[:50]

    digest, images = first_images()
    assert first_images(imbalance=199.0)[0] != digest
    assert first_images(split_seed=1)[0] != digest
    assert first_images(seed=1)[0] == digest  # The split has its own seed.
    scaled_digest, scaled = first_images(input_scaling="standardise")
    assert scaled_digest == digest
    assert torch.allclose(scaled, (images - 0.1307) / 0.3081)


def test_a_fixed_tau_of_zero_is_cross_entropy() -> None:
    assert same_weights(trained(method="cdb-w-ce", tau="0"), trained(method="ce"))
