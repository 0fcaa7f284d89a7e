"""Settings that every task has, on a made-up data set."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

import pytest

from classification.recipes import CIFAR100_LT, MNIST_LT
from classification.recipes import RECIPES as CLASSIFIERS
from common.errors import UserError
from common.training.settings import (
    DATASET,
    LONGEST_NAME,
    METHOD,
    NAME_ORDER,
    DifficultySettings,
    MethodSettings,
    RunConfig,
    Setting,
    SteppedConfig,
    as_today,
    changed_settings,
    option,
    plain,
    read_config,
    resolved,
    run_name,
    settings_of,
)
from detection.recipes import DIGIT_SCENES
from detection.recipes import RECIPES as DETECTORS
from video.recipes import RECIPES as VERBS

ROOT = Path(__file__).parents[3]
ALL_RECIPES: dict[str, RunConfig] = {**CLASSIFIERS, **DETECTORS, **VERBS}


@dataclass(frozen=True)
class FocalSettings(MethodSettings):
    share: Annotated[float, Setting("A share.", at_least=0.25)] = 0.5


@dataclass(frozen=True)
class HingeSettings(MethodSettings):
    unused: ClassVar[tuple[str, ...]] = ("batch_size",)


@dataclass(frozen=True, kw_only=True)
class Made(FocalSettings, RunConfig):
    dataset: Annotated[Literal["made"], DATASET] = "made"
    method: Annotated[Literal["ce", "focal", "hinge", "cdb-s"], METHOD] = "ce"
    places: Annotated[tuple[int, ...], Setting("Places.")] = (1, 2)
    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = {
        "focal": FocalSettings,
        "hinge": HingeSettings,
        "cdb-s": DifficultySettings,
    }


Made.recipes = {"made": Made()}


def test_the_range_of_a_setting_is_that_of_its_annotation() -> None:
    with pytest.raises(UserError, match=r"^--share must be at least 0.25, not 0.2\.$"):
        Made(method="focal", share=0.2)
    with pytest.raises(UserError, match=r"^--momentum must be below 1, not 1\.$"):
        Made(momentum=1)


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_every_setting_has_its_help_and_every_number_its_range(name: str) -> None:
    recipe = ALL_RECIPES[name]
    said = settings_of(type(recipe))
    assert said.keys() == {field.name for field in fields(recipe)}
    for field, setting in said.items():
        assert setting.documentation.endswith(".")
        value = getattr(recipe, field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            limits = (setting.at_least, setting.at_most, setting.above, setting.below)
            assert any(limit is not None for limit in limits), field


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_a_recipe_has_a_methods_setting_where_one_of_its_methods_uses_it(name: str) -> None:
    recipe = ALL_RECIPES[name]
    methods = get_args(get_type_hints(type(recipe))["method"])
    wanted = {field for m in methods for field in settings_of(recipe.method_settings[m])}
    declared = {field for m in recipe.method_settings.values() for field in settings_of(m)}
    of_every_task = settings_of(DifficultySettings).keys()
    assert settings_of(type(recipe)).keys() & declared - of_every_task == wanted - of_every_task


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    for name in ("learning_rate", "weight_decay", "momentum"):
        with pytest.raises(UserError, match=f"^{option(name)} must be .*, not {value}"):
            Made(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "cb"}, "--method cb is not one of ce, focal, hinge, cdb-s."),
        ({"dataset": "other"}, "--dataset other is not one of made."),
        (
            {"tau": "1"},
            "--tau 1 has no effect on --method ce; leave it out, or choose cdb-s.",
        ),
        (
            {"share": 0.75},
            "--share 0.75 has no effect on --method ce; leave it out, or choose focal.",
        ),
        (
            {"method": "hinge", "batch_size": 3},
            "--batch-size 3 has no effect on --method hinge; leave it out, or choose focal or ",
        ),
        ({"method": "cdb-s", "tau": "steep"}, "--tau steep is refused: tau must be a number"),
    ],
)
def test_a_contradiction_is_refused_with_the_option_and_the_remedy(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as refusal:
        Made(**change)
    assert str(refusal.value).startswith(words)


def test_a_run_uses_difficulty_where_its_methods_settings_are_cdbs() -> None:
    using = [m for m in ("ce", "focal", "hinge", "cdb-s") if Made(method=m).uses_difficulty]
    assert using == ["cdb-s"]


def test_tau_is_recorded_in_one_spelling() -> None:
    cdb = Made(method="cdb-s")
    assert resolved(cdb).tau == "sigmoid"
    assert resolved(replace(cdb, tau="2")) == resolved(replace(cdb, tau="2.00"))
    assert resolved(replace(cdb, tau="2")).tau == "2.0"
    assert resolved(replace(cdb, tau="linear")).tau == "linear"
    assert resolved(Made()).tau is None
    assert (cdb.variant, replace(cdb, tau="2.0").variant) == ("", "tau=2.0")


# Records.


def test_a_record_names_the_settings_that_count_for_its_run_as_json_gives_them_back() -> None:
    settings = plain(Made())
    assert settings["places"] == [1, 2]
    assert not settings.keys() & {"tau", "tau_max", "share"}
    assert plain(Made(method="cdb-s")).keys() - settings.keys() == {
        "tau", "tau_max", "tau_power", "eps", "normalize_weights",
    }  # fmt: skip
    assert plain(Made(method="focal")).keys() - settings.keys() == {"share"}
    assert settings.keys() - plain(Made(method="hinge")).keys() == {"batch_size"}
    assert Made(**(settings | {"places": (1, 2)})) == Made()


def test_settings_without_effect_that_an_older_record_names_are_not_looked_at() -> None:
    config = Made(method="focal", share=0.75)
    older = plain(config) | {"tau": None, "tau_max": 4.0, "focal_gamma": 2.0, "places": (1, 2)}
    assert read_config(older, Made.recipes) == config
    assert as_today(older, Made.recipes) == plain(config)
    for wrong in ({"warp": 9}, {"dataset": "other"}, {"share": 0.1}, {"method": ["ce"]}):
        with pytest.raises((TypeError, UserError, ValueError)):
            read_config(plain(config) | wrong, Made.recipes)
        assert as_today(plain(config) | wrong, Made.recipes) == plain(config) | wrong


@dataclass(frozen=True, kw_only=True)
class Later(Made):
    """Its share came after records of focal had been made with 0.75."""

    share: Annotated[float, Setting("A share.", at_least=0.25, earlier=0.75)] = 0.5


Later.recipes = {"made": Later()}


@pytest.mark.parametrize(
    ("changes", "recorded", "name"),
    [
        ({}, {}, []),
        ({"method": "focal", "share": 0.75}, {}, []),
        ({"method": "focal"}, {"share": 0.5}, ["share-0.5"]),
    ],
)
def test_a_later_setting_is_recorded_and_named_where_a_run_differs_from_the_earlier_ones(
    changes: dict[str, Any], recorded: dict[str, float], name: list[str]
) -> None:
    config = Later(**changes)
    settings = plain(config)
    assert {key: settings[key] for key in settings.keys() & {"share"}} == recorded
    assert changed_settings(config, Later(method=config.method)) == name
    assert read_config(settings | {"places": (1, 2)}, Later.recipes) == config


# Names.


def test_a_name_tells_the_settings_that_are_not_the_usual_ones() -> None:
    usual = Made()
    changed = replace(usual, places=(3, 5), batch_size=7, seed=2)
    assert changed_settings(changed, usual) == ["batch-size-7", "places-3-5"]
    assert changed_settings(usual, usual) == []
    assert run_name(changed) == "ce_batch-size-7_places-3-5_seed-2"


def test_names_tell_two_changed_settings_in_the_order_that_they_always_had() -> None:
    def name(config: RunConfig, method: str, **changes: object) -> str:
        changed: Any = {"method": method, **changes}
        return run_name(replace(config, **changed)).partition("_imbalance-")[2]

    assert name(MNIST_LT, "cb", cb_beta=0.9, epochs=3) == "99_cb-beta-0.9_epochs-3_seed-0"
    eql = name(MNIST_LT, "eql", eql_gamma=0.5, batch_size=64)
    assert eql == "99_batch-size-64_eql-gamma-0.5_seed-0"
    l2rw = name(CIFAR100_LT, "l2rw", epochs=3, l2rw_batch_size=50, warmup_epochs=1.0)
    assert l2rw == "100_epochs-3_l2rw-batch-size-50_warmup-epochs-1.0_seed-0"
    focal = name(CIFAR100_LT, "focal", hard_weight=0.5, precision="float32")
    assert focal == "100_precision-float32_hard-weight-0.5_seed-0"
    images = replace(
        CLASSIFIERS["digit-images"], method="focal", hard_weight=0.5, precision="bfloat16"
    )  # type: ignore[call-arg]
    assert run_name(images) == "focal_hard-weight-0.5_precision-bfloat16_seed-0"
    scenes = replace(DIGIT_SCENES, method="rfs", rfs_threshold=0.1, epochs=3, flip=0.5)
    assert run_name(scenes) == "rfs_box_epochs-3_rfs-threshold-0.1_flip-0.5_seed-0"


def test_the_order_of_names_has_every_setting_of_today_once() -> None:
    names = {name for recipe in ALL_RECIPES.values() for name in settings_of(type(recipe))}
    always = {"recipe", "dataset", "method", "seed", "tau", "stage1", "imbalance", "task"}
    assert {*NAME_ORDER} == names - always
    assert len(NAME_ORDER) == len({*NAME_ORDER})


def long(**changes: object) -> RunConfig:
    """A run with 17 changed settings."""
    settings: Any = {
        "method": "cdb-s", "tau": "2", "imbalance": 101.0, "tau_max": 3.75, "tau_power": 1.5,
        "eps": 0.0075, "normalize_weights": False, "sampler_unit": "image", "epochs": 201,
        "loss_reduction": "sum", "batch_size": 129, "learning_rate": 0.075, "momentum": 0.5,
        "weight_decay": 0.25, "split_seed": 7, "warmup_epochs": 6, "milestones": (2, 3),
    }  # fmt: skip
    return replace(CIFAR100_LT, **(settings | changes))


def test_a_long_name_ends_with_a_hash_of_the_settings_before_the_seed() -> None:
    name = run_name(long())
    assert len(name) <= LONGEST_NAME
    assert re.fullmatch(
        r"cdb-s_tau-2.0_imbalance-101_tau-max-3.75_.*_and-[0-9a-f]{12}_seed-0", name
    )
    assert name == run_name(resolved(long()))
    assert run_name(long(seed=3)) == name.removesuffix("0") + "3"
    others = {run_name(long(milestones=(2, 4))), run_name(long(warmup_epochs=7)), name}
    assert len(others) == 3
    groups = [path.name for path in (ROOT / "results").iterdir() if path.is_dir()]
    longest = max(len(f"course_{group}_.png") for group in groups)
    assert longest + LONGEST_NAME <= 255


def test_a_name_that_fits_is_whole() -> None:
    config = long(weight_decay=0.0001, split_seed=0, warmup_epochs=5, momentum=0.9, eps=0.01)
    assert 150 < len(run_name(config)) <= LONGEST_NAME
    assert "_and-" not in run_name(config)


# The learning rate.


@dataclass(frozen=True, kw_only=True)
class Stepped(SteppedConfig):
    dataset: Annotated[Literal["made"], DATASET] = "made"


def test_the_learning_rate_falls_at_the_milestones_of_a_stepped_run() -> None:
    rates = [Stepped(milestones=(1, 2)).learning_rate_at(epoch, 0.5) for epoch in range(3)]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-5])
    with pytest.raises(UserError, match="--milestones must be epochs from 1 up"):
        Stepped(milestones=(2, 1))


def test_no_run_but_a_detectors_warms_up_by_steps() -> None:
    factors = {name: resolved(recipe).warm_up(0) for name, recipe in ALL_RECIPES.items()}
    assert {name for name, factor in factors.items() if factor != 1} == DETECTORS.keys()


def test_the_learning_rate_is_constant_where_a_task_says_nothing_else() -> None:
    assert {Made().learning_rate_at(epoch, 0.5) for epoch in range(3)} == {0.001}
    assert option("learning_rate") == "--learning-rate"
    assert (Made().recipe_name, Made().table_method) == ("made", "ce")
