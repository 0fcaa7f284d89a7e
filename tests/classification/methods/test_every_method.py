"""What holds for every method: what its state is, and by which names it is asked for."""

import contextlib
import copy
import io
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from classification.config import ClassificationConfig
from classification.data import LabelledImages
from classification.image_recipes import IMAGE_RECIPES
from classification.methods import METHODS, make_method
from classification.methods.oltr import Oltr
from classification.recipes import RECIPES, resolved
from common.errors import UserError
from common.streams import Streams
from common.training.methods import LOGIT_METHODS
from common.training.methods.base import LogitMethod
from common.training.settings import RunConfig
from tests.classification.synthetic import CIFAR_COUNTS, cifar_config, small_cifar
from tests.states import assert_same_state, written_and_read

CLASSES = len(CIFAR_COUNTS)
DATA = small_cifar()
EPOCHS = 3


def made(name: str, streams: Streams) -> LogitMethod:
    oltr = resolved(IMAGE_RECIPES["image-folder-oltr"])
    config = oltr if name == "oltr" else cifar_config(method=name)
    return make_method(config, DATA, streams, torch.tensor(0.1, dtype=torch.float64))


class Network(nn.Module):
    """Logits of the mean colour, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.utils.skip_init(nn.Linear, 3, CLASSES, bias=False).double()
        nn.init.normal_(self.classifier.weight, generator=torch.Generator().manual_seed(3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images.double().mean(dim=(2, 3)) / 255 - 0.5)
        return logits


def samples(index: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(DATA.train, LabelledImages)
    return DATA.train.take(index)


def moments(method: LogitMethod) -> Iterator[None]:
    """Use it as a run of some epochs does; stops at the start, and after each step and epoch."""
    yield
    for epoch in range(EPOCHS):
        method.before_epoch(epoch)
        steps = method.sampler.draw().split(24)
        # OLTR's loss is of a network of its own, and leaves nothing in the method.
        for index in () if isinstance(method, Oltr) else steps:
            method.batch_loss(Network(), *samples(index), method.draw(len(index)))
            yield
        # Another accuracy in each epoch.
        method.after_epoch(torch.linspace(0.9, 0.1 + 0.1 * epoch, CLASSES, dtype=torch.float64))
        yield


def used(method: LogitMethod) -> LogitMethod:
    for _ in moments(method):
        pass
    method.before_epoch(EPOCHS)
    return method


# State.


@pytest.mark.parametrize("name", METHODS)
def test_a_fresh_method_goes_on_from_what_a_checkpoint_holds(name: str) -> None:
    streams, others = Streams(0), Streams(1)
    run, fresh = used(made(name, streams)), made(name, others)
    fresh.load_state_dict(written_and_read(run.state_dict()))
    others.load_state_dict(copy.deepcopy(streams.state_dict()))
    assert_same_state(dict(fresh.state_dict()), dict(run.state_dict()))
    # With what is not saved.
    assert_same_state(dict(fresh.named_buffers()), dict(run.named_buffers()))
    for _ in range(2):
        assert torch.equal(fresh.sampler.draw(), run.sampler.draw())


@pytest.mark.parametrize("name", METHODS)
def test_what_follows_from_settings_and_data_is_no_state(name: str) -> None:
    """Every saved tensor changes in a run. A sampler's state is its own."""
    method = made(name, Streams(0))
    state = method.state_dict()
    start = {key: value.clone() for key, value in state.items() if key != "_extra_state"}
    constant = {*start}
    for _ in moments(method):
        constant -= {
            key for key in constant if not torch.equal(method.state_dict()[key], start[key])
        }
    assert constant == set()


class Finder(pickle.Pickler):
    """Walks through whatever a value holds, and keeps what only a module would move."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found: list[object] = []

    def persistent_id(self, value: object) -> str | None:
        if isinstance(value, Tensor | nn.Module):
            self.found.append(value)
        return "a leaf" if isinstance(value, Tensor | nn.Module | torch.Generator) else None


def left_behind(method: LogitMethod) -> set[str]:
    """Attributes of the method and of its modules whose tensors ``.to(device)`` does not move."""
    moved = {"_parameters", "_buffers", "_modules"}
    not_its_own = {"config", "data", "streams", "rate", "sampler"}
    found = set()
    for path, module in method.named_modules():
        for name in vars(module).keys() - moved - (set() if path else not_its_own):
            finder = Finder()
            finder.dump(getattr(module, name))
            if finder.found:
                found.add(f"{path}.{name}" if path else name)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_tensor_of_a_method_moves_with_it(name: str) -> None:
    method = made(name, Streams(0))
    assert left_behind(method) == set()
    assert left_behind(used(method)) == set()


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2), [torch.ones(2)], {"of": (torch.ones(2),)}, partial(torch.add, torch.ones(2)),
        nn.Linear(1, 1).forward, [nn.Linear(1, 1)],
    ],
)  # fmt: skip
def test_a_tensor_that_would_not_move_is_noticed(value: object) -> None:
    method = made("cdb-w-ce", Streams(0))
    assert method.balancer is not None
    method.balancer.hidden = value  # type: ignore[assignment]
    assert left_behind(method) == {"balancer.hidden"}


def test_a_buffer_and_a_module_are_moved() -> None:
    method = made("ce", Streams(0))
    method.part = nn.Linear(1, 1)
    method.register_buffer("kept", torch.ones(2), persistent=False)
    assert left_behind(method) == set()


# Names.


def names_of(kind: type[RunConfig], field: str = "method") -> set[str]:
    """Those that a field of a configuration can have."""
    choice = get_type_hints(kind).get(field)
    return {name for part in get_args(choice) for name in get_args(part) or (part,)}


def taken_by(recipe: ClassificationConfig) -> set[str]:
    """The names of the methods that a recipe does not refuse."""
    taken: set[str] = set()
    for name in names_of(type(recipe)):
        with contextlib.suppress(UserError):
            taken.add(replace(recipe, method=name).method)
    return taken


def test_each_name_of_a_method_is_registered_and_each_registered_one_is_taken_by_a_recipe() -> None:
    for recipe in RECIPES.values():
        assert names_of(type(recipe)) <= METHODS.keys()
        assert names_of(type(recipe), "stage1") <= METHODS.keys()
    assert {name for recipe in RECIPES.values() for name in taken_by(recipe)} == METHODS.keys()


def test_the_methods_of_every_task_with_logits_are_classifications_too() -> None:
    assert METHODS.items() > LOGIT_METHODS.items()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_the_settings_of_each_of_its_methods(recipe: str) -> None:
    config = RECIPES[recipe]
    assert taken_by(config)
    for name in taken_by(config):
        assert isinstance(config, METHODS[name].Settings)
        assert issubclass(config.method_settings[name], METHODS[name].Settings)
