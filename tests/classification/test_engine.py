"""The training loop on CIFAR-like data: state, schedule, batches, what it refuses."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classification.augment import AUGMENTATIONS, CropsAndFlips
from classification.capture import Inputs
from classification.evaluate import measure
from classification.methods.ldam_drw import LdamDrw
from classification.training import Training, _sparing
from common.errors import UserError
from common.losses import focal_weights
from common.training.methods.base import Group
from common.training.schedule import step_schedule
from common.training.signals import StopRequest
from tests.classification.synthetic import (
    CIFAR_COUNTS,
    METHODS,
    SECOND_STAGE_METHODS,
    cifar_training,
    small_cifar,
    to_the_end,
    use_small_resnet,
)
from tests.states import assert_same_state, written_and_read
from tests.stopping import StopAfter

# (recipe, method)
RUNS = [("cifar100-lt", method) for method in METHODS] + [
    (f"cifar100-lt-{classifier}", method)
    for classifier in ("crt", "lws")
    for method in SECOND_STAGE_METHODS
]
SAMPLES, BATCH, STEPS = sum(CIFAR_COUNTS), 24, 3


@pytest.fixture(autouse=True)
def _small_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_resnet(monkeypatch)


def training(recipe: str = "cifar100-lt", **changes: object) -> Training:
    """A run at its first step: three steps an epoch, the last one of 16 samples.

    Deferred weights come into force after the first epoch.
    """
    usual = {"batch_size": BATCH, "epochs": 3, "warmup_epochs": 0.5, "milestones": (1, 2)}
    return cifar_training(None, recipe, **(usual | changes))


def watched(run: Training, watch: Callable[[Inputs, Tensor], object]) -> Training:
    """Let ``watch`` see each step's inputs and loss."""
    step = run.step

    def replacement(inputs: Inputs) -> Tensor:
        loss = step(inputs)
        watch(inputs, loss)
        return loss

    run.step = replacement
    return run


# State.


@pytest.mark.parametrize(("recipe", "method"), RUNS)
def test_a_copy_made_from_the_state_at_any_step_ends_alike_to_the_bit(
    recipe: str, method: str
) -> None:
    """Before the first step, within the first two epochs, and between two epochs."""
    undisturbed = to_the_end(training(recipe, method=method)).state_dict()
    for epochs, steps in ((0, 0), (0, 2), (1, 0), (1, 1)):
        run = training(recipe, method=method)
        for _ in range(epochs):
            assert run.run_epoch(StopRequest())
            run.end_epoch()
        assert not run.run_epoch(StopAfter(steps))
        resumed = training(recipe, method=method)
        resumed.load_state_dict(written_and_read(run.state_dict()))
        assert_same_state(to_the_end(resumed).state_dict(), undisturbed)


@pytest.mark.parametrize("recipe", ["cifar100-lt", "cifar100-lt-crt"])
def test_autoaugment_goes_on_within_an_epoch_with_the_changes_that_were_drawn(recipe: str) -> None:
    settings = {"method": "class-aware", "augmentation": "autoaugment-cutout"}
    run, resumed = training(recipe, **settings), training(recipe, **settings)
    assert not run.run_epoch(StopAfter(1))
    resumed.load_state_dict(written_and_read(run.state_dict()))
    undisturbed = to_the_end(training(recipe, **settings)).state_dict()
    assert_same_state(to_the_end(resumed).state_dict(), undisturbed)


def test_a_state_between_the_last_step_and_the_end_of_the_epoch_is_whole() -> None:
    undisturbed, run, resumed = (training(method="cdb-w-fl") for _ in range(3))
    assert run.run_epoch(StopRequest())
    resumed.load_state_dict(written_and_read(run.state_dict()))
    assert_same_state(to_the_end(resumed).state_dict(), to_the_end(undisturbed).state_dict())


def test_the_global_generator_is_neither_used_nor_needed() -> None:
    for recipe, method in (("cifar100-lt", "meta-weight-net"), ("cifar100-lt-crt", "cdb-s")):
        ends: list[Any] = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            ends.append(to_the_end(training(recipe, method=method, epochs=1)).state_dict())
            assert torch.equal(torch.get_rng_state(), before)
        assert_same_state(ends[0], ends[1])


# What a step is given.


def test_every_step_has_its_samples_and_its_changes_in_the_order_drawn() -> None:
    seen: list[Inputs] = []
    run = watched(training(), lambda inputs, loss: seen.append(inputs))
    drawn = run._drawn = run._begin_epoch()
    order, changes = drawn["order"], drawn["changes"]
    assert run.run_epoch(StopRequest())
    assert [len(inputs["index"]) for inputs in seen] == [24, 24, 16]
    assert torch.equal(torch.cat([inputs["index"] for inputs in seen]), order)
    assert torch.equal(torch.cat([inputs["changes"] for inputs in seen]), changes)
    assert sorted(order.tolist()) == list(range(SAMPLES))


def test_each_epoch_draws_its_samples_and_changes_anew() -> None:
    epochs: list[list[Inputs]] = [[], []]
    run = training(epochs=2)
    watched(run, lambda inputs, loss: epochs[run.epoch].append(inputs))
    to_the_end(run)
    for name in ("index", "changes"):
        first, second = (torch.cat([inputs[name] for inputs in epoch]) for epoch in epochs)
        assert not torch.equal(first, second)


def keep_images(images: list[Tensor], model: nn.Module, inputs: tuple[Tensor]) -> None:
    images.append(inputs[0].clone())


def test_the_network_sees_the_changed_images_and_without_augmentation_the_images() -> None:
    for augmentation, source in AUGMENTATIONS.items():
        run = training(augmentation=augmentation)
        seen: list[Inputs] = []
        images: list[Tensor] = []
        watched(run, lambda inputs, loss, seen=seen: seen.append(inputs))
        run.model.register_forward_pre_hook(partial(keep_images, images))
        assert run.run_epoch(StopRequest())
        whole = run.data.train.images
        for inputs, got in zip(seen, images, strict=True):
            expected = source(whole).take(inputs["index"], inputs.get("changes"))
            assert torch.equal(got, expected)
            assert ("changes" in inputs) is (augmentation != "none")
            assert torch.equal(got, whole[inputs["index"]]) is (augmentation == "none")


# The learning rate.


def test_each_steps_learning_rate_is_that_of_the_schedule() -> None:
    schedule: dict[str, Any] = {"warmup_epochs": 1.5, "milestones": (2, 3)}
    run = training(epochs=4, learning_rate=0.05, lr_decay=0.5, **schedule)
    rates: list[float] = []
    watched(run, lambda inputs, loss: rates.append(float(run.optimizer.param_groups[0]["lr"])))
    to_the_end(run)
    expected = [
        step_schedule(0.05, epoch, (step + 1) / STEPS, decay=0.5, **schedule)
        for epoch in range(4)
        for step in range(STEPS)
    ]
    assert rates == expected
    assert run.history.rows["learning_rate"] == expected[STEPS - 1 :: STEPS]
    assert rates[0] == pytest.approx(0.05 / 4.5)


def test_one_step_is_sgd_with_momentum_and_weight_decay_on_all_parameters() -> None:
    """Beside torch's plain SGD with the learning rate as a number."""
    run = training(warmup_epochs=1.5, learning_rate=0.3)
    model = copy.deepcopy(run.model).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, fused=False, foreach=False
    )
    seen: list[Inputs] = []
    watched(run, lambda inputs, loss: seen.append(inputs))
    assert run.run_epoch(StopRequest())
    for number, inputs in enumerate(seen):
        optimizer.param_groups[0]["lr"] = run.config.learning_rate_at(0, (number + 1) / STEPS)
        images = CropsAndFlips(run.data.train.images).take(inputs["index"], inputs["changes"])
        labels = run.data.train.labels[inputs["index"]]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


# What an epoch leaves.


@pytest.mark.parametrize("method", ["focal", "cdb-w-fl"])
def test_hard_instances_are_the_samples_of_an_epoch_with_a_focal_weight_above_the_bound(
    method: str,
) -> None:
    run = training(method=method, hard_weight=0.9, focal_gamma=2.0)
    expected = torch.zeros(3, len(CIFAR_COUNTS), dtype=torch.int64)
    logits: list[Tensor] = []
    run.model.register_forward_hook(lambda _, __, output: logits.append(output.detach()))

    def count(inputs: Inputs, loss: Tensor) -> None:
        labels = run.data.train.labels[inputs["index"]]
        probabilities = logits[-1].softmax(dim=1)
        for row, label in zip(probabilities, labels.tolist(), strict=True):
            expected[run.epoch, label] += int((1 - row[label]) ** 2 > 0.9)

    to_the_end(watched(run, count))
    assert run.history.rows["hard_instances"] == expected.tolist()
    assert 0 < int(expected.sum()) < 3 * SAMPLES
    assert focal_weights(torch.zeros(1, 2), torch.tensor([0]), 2.0).tolist() == [0.25]


def test_methods_without_a_focal_loss_count_no_hard_instances() -> None:
    for method in ("ce", "cdb-w-ce", "ldam-drw"):
        assert "hard_instances" not in to_the_end(training(method=method, epochs=1)).history.rows


def test_deferred_weights_come_into_force_at_their_epoch() -> None:
    run = training(method="ldam-drw", drw_epoch=1, cb_beta=0.9)
    assert isinstance(run.method, LdamDrw)
    seen: list[list[float]] = []
    for _ in range(3):
        run.run_epoch(StopRequest())
        seen.append(run.method.class_weights.tolist())
        run.end_epoch()
    later = run.method.later_weights.tolist()
    assert seen == [[1.0] * len(CIFAR_COUNTS), later, later]
    assert len(set(later)) > 1


def test_the_log_has_the_accuracy_of_the_groups_that_are_not_empty() -> None:
    counts = (120, 30, 25, *(1,) * 9)
    run = cifar_training(small_cifar(counts), epochs=1, batch_size=100)
    run.run_epoch(StopRequest())
    scalars = run.end_epoch()
    accuracy = run.history.rows["class_accuracy"][0]
    assert scalars["difficulty_set/many_shot"] == accuracy[0]
    assert scalars["difficulty_set/medium_shot"] == pytest.approx(sum(accuracy[1:3]) / 2)
    assert scalars["difficulty_set/few_shot"] == pytest.approx(sum(accuracy[3:]) / 9)
    assert not any(name.startswith("class_accuracy/") for name in scalars)
    few = training(epochs=1)  # At most 13 samples each.
    few.run_epoch(StopRequest())
    groups = {name for name in few.end_epoch() if name.endswith("_shot")}
    assert groups == {"difficulty_set/few_shot"}


@pytest.mark.parametrize("recipe", ["cifar100-lt-crt", "cifar100-lt-lws"])
def test_a_second_stage_measures_difficulty_on_features_as_it_would_on_images(recipe: str) -> None:
    run = training(recipe, method="cdb-w-ce")
    images = small_cifar().difficulty
    assert run._difficulty.images.shape == (len(images.labels), 64)
    assert torch.equal(run._difficulty.labels, images.labels)
    for _ in range(3):
        run.run_epoch(StopRequest())
        run.end_epoch()
        expected = measure(run.model, images, len(CIFAR_COUNTS))
        assert run.history.rows["class_accuracy"][-1] == expected.tolist()


# What is refused.


def test_a_loss_that_is_not_finite_is_named_with_its_epoch_and_step() -> None:
    run = training()
    assert run.run_epoch(StopRequest())
    run.end_epoch()
    step, calls = run.step, []

    def spoiled(inputs: Inputs) -> Tensor:
        calls.append(inputs)
        return step(inputs) * (torch.inf if len(calls) == 2 else 1.0)

    run.step = spoiled
    with pytest.raises(UserError, match=r"^The loss is inf at epoch 2, step 2; lower --learning"):
        run.run_epoch(StopRequest())


def test_weights_that_are_not_finite_after_the_last_step_are_named() -> None:
    run = training(learning_rate=0.05)

    def spoil(inputs: Inputs, loss: Tensor) -> None:
        if len(inputs["index"]) == SAMPLES - 2 * BATCH:
            with torch.no_grad():
                next(run.model.parameters()).fill_(torch.nan)

    with pytest.raises(
        UserError, match=r"^The weights are no longer finite at epoch 1, step 3; .*now 0.05"
    ):
        watched(run, spoil).run_epoch(StopRequest())


def test_a_methods_groups_and_parameters_without_weight_decay_compose() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    (first, first_bias), (second, second_bias) = (layer.parameters() for layer in network)
    groups: list[Group] = [([first, first_bias], 0.1, 1.0), ([second, second_bias], 1.0, 0.5)]
    assert [*_sparing(network, groups, ())] == groups
    split = [*_sparing(network, groups, ("1.bias",))]
    assert [shares for _, *shares in split] == [[0.1, 1.0], [1.0, 0.5], [1.0, 0.0]]
    assert [[id(p) for p in members] for members, *_ in split] == [
        [id(first), id(first_bias)], [id(second)], [id(second_bias)],
    ]  # fmt: skip
