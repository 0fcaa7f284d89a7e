"""Whole runs on CIFAR-like data: what each method leaves, and what decides the numbers.

Twelve classes, 64 training images of 8 x 8 pixels, ResNet-8, three epochs.
"""

import copy
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from classification.data import LabelledImages, LongTailedData, load_data
from classification.evaluate import make_model
from classification.methods.meta_weight_net import MetaReweighter
from classification.models import SecondStage
from classification.recipes import CifarConfig, DecoupledConfig
from classification.training import Training
from common.streams import Streams
from tests.classification.small_cifar import STAND_INS
from tests.classification.synthetic import (
    CIFAR_COUNTS,
    METHODS,
    SECOND_STAGE_METHODS,
    cifar_config,
    cifar_training,
    same_weights,
    small_cifar,
    trained_cifar,
    use_small_resnet,
)
from tests.settings import used_by

USED_BY = used_by(CifarConfig)

C = len(CIFAR_COUNTS)
STEPS = -(-sum(CIFAR_COUNTS) // 16)
# Accuracies at which no law of tau is at an end of its range.
ACCURACY = [0.9, 0.85, 0.8, 0.75, 0.7, 0.75, 0.7, 0.65, 0.6, 0.65, 0.6, 0.6]
# Warm-up, both milestones and both phases of LDAM-DRW in three epochs.
SHORT: dict[str, Any] = {"epochs": 3, "warmup_epochs": 0.5, "milestones": (1, 2)}
SECOND_STAGES = [
    (recipe, method)
    for recipe in ("cifar100-lt-crt", "cifar100-lt-lws")
    for method in SECOND_STAGE_METHODS
]
RUNS = [("cifar100-lt", method) for method in METHODS] + SECOND_STAGES


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_resnet(monkeypatch)


def trained(recipe: str, data: LongTailedData | None = None, **changes: object) -> Training:
    """A run of three epochs."""
    return trained_cifar(data, recipe, **(SHORT | changes))


@cache
def undisturbed(recipe: str, method: str) -> Training:
    """The usual run, trained once; not to be changed."""
    return trained(recipe, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_lowers_its_loss(method: str) -> None:
    losses = undisturbed("cifar100-lt", method).history.rows["loss"]
    assert min(losses[1:]) < 0.98 * losses[0]


@pytest.mark.parametrize(("recipe", "method"), SECOND_STAGES)
def test_each_second_stage_beats_chance(recipe: str, method: str) -> None:
    """Not its loss: cdb-s goes on to draw what is difficult."""
    assert undisturbed(recipe, method).history.best["accuracy"] > 2 / C


@pytest.mark.parametrize(("recipe", "method"), RUNS)
def test_the_history_holds_what_the_method_has(recipe: str, method: str) -> None:
    history = undisturbed(recipe, method).history.rows
    expected = {"epoch", "loss", "learning_rate", "class_accuracy"}
    if method.startswith("cdb"):
        expected |= {"difficulty", "bias", "tau", "class_weights"}
    if method in ("focal", "cdb-w-fl"):
        expected |= {"hard_instances"}
    assert history.keys() == expected
    assert {len(column) for column in history.values()} == {3}


@pytest.mark.parametrize(("recipe", "method"), RUNS)
def test_neither_the_test_set_nor_a_global_generator_decides_anything(
    recipe: str, method: str
) -> None:
    data = small_cifar()
    order = torch.randperm(2 * C, generator=torch.Generator().manual_seed(1))
    other = LabelledImages(255 - data.test.images, data.test.labels[order])
    torch.manual_seed(1234)
    ours = trained(recipe, replace(data, test=other), method=method)
    assert same_weights(ours, undisturbed(recipe, method))
    assert ours.history.rows == undisturbed(recipe, method).history.rows
    assert ours.history.best["epoch"] == undisturbed(recipe, method).history.best["epoch"]


@pytest.mark.parametrize(("recipe", "method"), SECOND_STAGES)
def test_a_second_stage_trains_its_classifier_and_nothing_else(recipe: str, method: str) -> None:
    start, end = cifar_training(None, recipe, method=method), undisturbed(recipe, method)
    assert isinstance(end.model, SecondStage)
    before = start.model.state_dict()
    changed = {
        name for name, w in end.model.state_dict().items() if not torch.equal(w, before[name])
    }
    crt = {"first.classifier.weight", "first.classifier.bias"}
    assert changed == (crt if recipe.endswith("crt") else {"scales"})


@pytest.mark.parametrize("method", METHODS)
def test_only_ldam_has_a_cosine_classifier(method: str) -> None:
    network = make_model(cifar_config(method=method), C, Streams(0))
    images = small_cifar().train.images[:8]
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        scaled.get_parameter("classifier.weight").mul_(2.0)
    same = torch.allclose(network.eval()(images), scaled.eval()(images), atol=1e-6)
    assert same is (method == "ldam-drw")


def test_the_virtual_step_is_as_long_as_the_schedule_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    original = MetaReweighter.weights

    def remember(self: MetaReweighter, *arguments: Any) -> Tensor:
        rates.append(float(arguments[-1]))
        return original(self, *arguments)

    monkeypatch.setattr(MetaReweighter, "weights", remember)
    run = trained_cifar(method="meta-weight-net", epochs=2, warmup_epochs=1, milestones=(1,))
    assert run.history.rows["learning_rate"] == [0.05, 0.025]
    warm = [0.05 * step / STEPS for step in range(1, STEPS + 1)]
    assert rates == pytest.approx([*warm, *[0.025] * STEPS], rel=1e-12)


# Every option of a second stage changes something; test_cifar_recipes.py has the first one's.

# option -> (method of the second stage, other settings, another value)
CHANGES: dict[str, tuple[str, dict[str, object], object]] = {
    "method": ("class-aware", {}, "cdb-s"),
    "seed": ("class-aware", {}, 1),
    "tau": ("cdb-w-ce", {}, "2"),
    "tau_max": ("cdb-w-ce", {}, 1.0),
    "tau_power": ("cdb-w-ce", {"tau": "polynomial"}, 5.0),
    "eps": ("cdb-w-ce", {"tau": "linear"}, 0.5),
    "normalize_weights": ("cdb-w-ce", {}, False),
    "loss_reduction": ("cdb-w-ce", {}, "weight-sum"),
    "epochs": ("class-aware", {}, 2),
    "batch_size": ("class-aware", {}, 8),
    "learning_rate": ("class-aware", {}, 0.1),
    "momentum": ("class-aware", {}, 0.5),
    "weight_decay": ("class-aware", {}, 0.1),
    "warmup_epochs": ("class-aware", {}, 1.5),
    "milestones": ("class-aware", {}, (1,)),
    "lr_decay": ("class-aware", {}, 0.1),
    "augmentation": ("class-aware", {}, "none"),
    "precision": ("class-aware", {}, "bfloat16"),
    "sampler_unit": ("cdb-s", {}, "image"),
    "la_tau": ("logit-adjustment", {}, 1.5),
    "difficulty_prior": ("cdb-w-ce", {}, 2.0),
    "weights_from_epoch": ("cdb-w-ce", {}, 2),
}
MORE_CHANGES: list[tuple[str, str, dict[str, object], object]] = [
    ("tau", "cdb-s", {}, "0.5"),
    ("method", "cdb-s", {}, "cdb-w-ce"),
    ("augmentation", "class-aware", {}, "autoaugment-cutout"),
]
OF_THE_DATA = {
    "dataset",
    "recipe",
    "imbalance",
    "split_seed",
    "difficulty_per_class",
    "head_size",
}  # See the test but one below.
OF_THE_FIRST_STAGE = {"stage1", "stage1_epochs"}  # See test_cifar_recipes.py.
OF_CHANGING_ACCURACIES = {"difficulty_average"}  # See test_steadiers.py.
OF_ONE_CLASSIFIER = {"decay_bias"}  # LWS trains no bias; see test_cifar_recipes.py.


def test_the_list_of_options_is_complete() -> None:
    """But for those that no method of a second stage uses, which are refused."""
    methods = {*SECOND_STAGE_METHODS}
    usable = {
        field.name
        for field in fields(DecoupledConfig)
        if field.name not in USED_BY or methods & set(USED_BY[field.name])
    }
    elsewhere = OF_THE_DATA | OF_THE_FIRST_STAGE | OF_ONE_CLASSIFIER | OF_CHANGING_ACCURACIES
    assert CHANGES.keys() | elsewhere == usable


def with_given_accuracies(recipe: str, settings: dict[str, Any]) -> Training:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "classification.training.measure",
            lambda *arguments: torch.tensor(ACCURACY, dtype=torch.float64),
        )
        return trained(recipe, **settings)


@cache
def _usual(recipe: str, settings: tuple[tuple[str, object], ...]) -> Training:
    return with_given_accuracies(recipe, dict(settings))


@pytest.mark.parametrize("recipe", ["cifar100-lt-crt", "cifar100-lt-lws"])
@pytest.mark.parametrize(
    ("name", "method", "others", "value"),
    [(name, *change) for name, change in CHANGES.items()] + MORE_CHANGES,
)
def test_every_option_changes_the_weights(
    recipe: str, name: str, method: str, others: dict[str, object], value: object
) -> None:
    usual = {"method": method, **others}
    changed = with_given_accuracies(recipe, usual | {name: value})
    assert not same_weights(_usual(recipe, tuple(usual.items())), changed)


def test_every_option_of_the_data_changes_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in STAND_INS:
        monkeypatch.setattr(module, name, value)

    def digest(**changes: Any) -> str:
        config = cifar_config(**{"imbalance": 4.0} | changes)
        data = load_data(config, torch.device("cpu"))
        said: str = data.description["digest"]
        return said

    usual = digest()
    assert digest(imbalance=8.0) != usual
    assert digest(split_seed=1) != usual
    assert digest(difficulty_per_class=3) != usual
    assert digest(head_size=28) != usual
    assert digest(seed=1) == usual  # The split has its own seed.
    assert digest(split_seed=None, seed=1) == digest(split_seed=1)
    assert digest(recipe="cifar100-lt-crt") == usual


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-w-fl"])
def test_a_fixed_tau_of_zero_is_the_loss_alone(method: str) -> None:
    usual = undisturbed("cifar100-lt", {"cdb-w-ce": "ce", "cdb-w-fl": "focal"}[method])
    assert same_weights(trained("cifar100-lt", method=method, tau="0"), usual)
