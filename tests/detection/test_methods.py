"""The methods of detectors: which recipe has which, what their state is, what they draw."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from common.sampler import InstanceBalancedSampler
from common.streams import Streams
from detection.methods import METHODS
from detection.methods.base import DetectionMethod
from detection.recipes import ClassifierConfig, DetectorConfig, MethodName
from detection.samplers import ImageDifficultySampler, RepeatFactorSampler
from detection.sets import DetectionSets, load_sets
from tests.detection.runs import FIRST, TRAIN, C, config_of
from tests.detection.synthetic import CATEGORIES, instances_of
from tests.states import written_and_read

PERFORMANCE = torch.linspace(0.1, 0.9, C, dtype=torch.float64)


@pytest.fixture(scope="module")
def sets(shapes: Path) -> DetectionSets:
    return load_sets(config_of("ce"), shapes, shapes)


def made(name: str, sets: DetectionSets) -> DetectionMethod:
    config = config_of(name, second=name not in FIRST)
    return METHODS[name](config, sets, Streams(0))


def test_every_method_has_a_recipe_and_every_name_a_method() -> None:
    names = [get_type_hints(kind)["method"] for kind in (DetectorConfig, ClassifierConfig)]
    allowed = {name for literal in names for name in get_args(literal)}
    assert allowed == set(METHODS) == set(get_args(MethodName))


def test_pairs_of_images_and_categories_are_those_of_the_shapes(sets: DetectionSets) -> None:
    image, category = made("ce", sets).pairs
    expected = [
        (number, list(CATEGORIES).index(one))
        for number in range(TRAIN)
        for one, _ in instances_of(number)
    ]
    assert list(zip(image.tolist(), category.tolist(), strict=True)) == expected


@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_on_from_its_state_and_the_streams(name: str, sets: DetectionSets) -> None:
    ours, theirs = made(name, sets), made(name, sets)
    if ours.balancer is not None:
        ours.after_epoch(PERFORMANCE)
    ours.before_epoch(1)
    ours.draw_images()
    theirs.load_state_dict(written_and_read(ours.state_dict()))
    theirs.streams.load_state_dict(ours.streams.state_dict())
    (order, wanted), (again, as_wanted) = ours.draw_images(), theirs.draw_images()
    assert torch.equal(order, again)
    assert wanted == as_wanted


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_state_is_its_balancer_and_its_sampler(name: str, sets: DetectionSets) -> None:
    method = made(name, sets)
    names = {key.partition(".")[0] for key in method.state_dict()}
    assert names == {"_extra_state"} | ({"balancer"} if method.balancer is not None else set())


@pytest.mark.parametrize("name", METHODS)
def test_a_head_keeps_no_balancer(name: str, sets: DetectionSets) -> None:
    head = made(name, sets).head()
    assert isinstance(head, nn.Module)
    assert not head.state_dict()


def test_each_method_shows_the_images_that_are_its_own(sets: DetectionSets) -> None:
    own = {"rfs": RepeatFactorSampler, "cdb-s": ImageDifficultySampler}
    for name in METHODS:
        method = made(name, sets)
        assert type(method.sampler) is own.get(name, InstanceBalancedSampler)
        order, wanted = method.draw_images()
        assert len(order) % method.step_size == 0
        assert len(wanted) == (len(order) if name in ("simcal", "calib") else 0)
