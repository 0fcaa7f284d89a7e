"""What the settings of all data sets have in common: choices, remedies, files, names."""

import json
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest

from classification.config import ClassificationConfig
from classification.recipes import (
    CIFAR100_LT,
    CIFAR100_LT_SHORT,
    MNIST_LT,
    RECIPES,
    DecoupledConfig,
    MnistMethod,
    group_name,
    resolved,
    run_name,
)
from common.errors import UserError
from common.training.settings import plain
from tests.classification.synthetic import METHODS, SECOND_STAGE_METHODS
from tests.settings import used_by

USED_BY = used_by(ClassificationConfig)

CRT = DecoupledConfig(recipe="cifar100-lt-crt")
FIRST_STAGES = ("ce", "cdb-w-ce", "cdb-s")


def second_stages() -> list[DecoupledConfig]:
    """Every recipe of a second stage with every method of either stage."""
    return [
        replace(recipe, stage1=stage1, method=method)  # type: ignore[arg-type]
        for recipe in RECIPES.values()
        if isinstance(recipe, DecoupledConfig)
        for stage1 in FIRST_STAGES
        for method in SECOND_STAGE_METHODS
    ]


# The paper's values.


def test_cao_et_als_settings_of_ldam() -> None:
    assert (CIFAR100_LT.ldam_margin, CIFAR100_LT.ldam_scale, CIFAR100_LT.drw_epoch) == (
        0.5, 30, None,
    )  # fmt: skip


NOT_IN_THE_PAPER = {
    "balanced-softmax", "logit-adjustment", "logit-adjustment-post-hoc", "tau-normalisation",
    "mixup",
}  # fmt: skip


def test_cifar_has_all_methods_of_table_1_and_mnist_nine_and_those_that_are_not_in_the_paper() -> (
    None
):
    assert len({*METHODS} - NOT_IN_THE_PAPER) == 12
    assert {*METHODS} > NOT_IN_THE_PAPER
    assert [replace(CIFAR100_LT, method=method).method for method in METHODS] == list(METHODS)
    of_mnist = get_args(MnistMethod)
    assert set(METHODS) - set(of_mnist) == {"ldam-drw", "meta-weight-net", "class-aware"}


# Choices and contradictions.


@pytest.mark.parametrize(
    ("recipe", "change", "words"),
    [
        ("mnist-lt", {"method": "ldam-drw"}, "--method ldam-drw is not one of ce, "),
        ("mnist-lt", {"architecture": "vgg"}, "--architecture vgg is not one of lenet5"),
        ("mnist-lt", {"dataset": "cifar100-lt"}, "--dataset cifar100-lt is not one of mnist-lt"),
        ("cifar100-lt", {"method": "crt"}, "--method crt is not one of ce, "),
        ("cifar100-lt", {"precision": "float16"}, "--precision float16 is not one of bfloat16"),
        ("cifar100-lt", {"augmentation": "all"}, "--augmentation all is not one of crop-flip"),
        ("cifar100-lt", {"recipe": "cifar10"}, "--recipe cifar10 is not one of cifar100-lt"),
        ("cifar100-lt-crt", {"method": "ce"}, "--method ce is not one of class-aware"),
        ("cifar100-lt-lws", {"stage1": "focal"}, "--stage1 focal is not one of ce"),
    ],
)
def test_a_name_that_the_data_set_does_not_know_is_refused(
    recipe: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        replace(RECIPES[recipe], **change)


@pytest.mark.parametrize("config", [MNIST_LT, CIFAR100_LT, CRT])
def test_an_option_is_refused_with_the_methods_of_its_data_set(
    config: ClassificationConfig,
) -> None:
    """The remedy names no method that the next command would refuse."""
    fitting = get_args(get_type_hints(type(config))["method"])
    names = {field.name for field in fields(config)} & USED_BY.keys()
    for name in names - ({"tau"} if config.method in USED_BY["tau"] else set()):
        change: dict[str, Any] = {name: _another(name, getattr(config, name))}
        with pytest.raises(UserError, match="has no effect") as refusal:
            replace(config, **change)
        remedy = str(refusal.value).partition("; leave it out")[2].removeprefix(", or choose ")
        offered = remedy.removesuffix(".").split(" or ") if remedy != "." else []
        assert offered == [method for method in USED_BY[name] if method in fitting]


def _another(name: str, value: Any) -> Any:
    """A value that is in every range: a little less, or the other truth or name."""
    if value is None:
        return "2" if name == "tau" else 3
    if isinstance(value, str):
        return "image" if name == "sampler_unit" else "raw"
    if value == 0 and not isinstance(value, bool):
        return 2 if isinstance(value, int) else 0.5
    return not value if isinstance(value, bool) else value + 1 if value >= 1 else value / 2


# What follows from other settings.


@pytest.mark.parametrize("recipe", RECIPES)
def test_resolving_twice_changes_nothing_more(recipe: str) -> None:
    once = resolved(RECIPES[recipe])
    assert resolved(once) == once
    for field in fields(once):
        may_be_absent = {
            "tau",
            "drw_epoch",
            "stage1_epochs",
            "lists",
            "difficulty_per_class",
            "head_size",
        }
        assert getattr(once, field.name) is not None or field.name in may_be_absent


def configurations() -> list[ClassificationConfig]:
    usual = [
        replace(recipe, method=method)
        for recipe in (CIFAR100_LT, CIFAR100_LT_SHORT)
        for method in METHODS
    ]
    mnist = [replace(MNIST_LT, method=method) for method in get_args(MnistMethod)]
    changed = [
        replace(CIFAR100_LT, milestones=(), warmup_epochs=0.5, split_seed=None),
        replace(CIFAR100_LT, method="ldam-drw", drw_epoch=3, loss_reduction="sum"),
        replace(CIFAR100_LT, method="cdb-s", tau="0.25", imbalance=12.5),
        replace(CRT, stage1_epochs=3, milestones=(1,), method="cdb-s", tau="2"),
    ]
    return [*usual, *mnist, *changed, *second_stages()]


def test_settings_come_back_from_json_as_they_were() -> None:
    for config in configurations():
        for settings in (config, resolved(config)):
            read = type(settings)(**json.loads(json.dumps(plain(settings))))
            assert read == settings
            assert hash(read) == hash(settings)
            assert plain(read) == plain(settings)
            assert run_name(read) == run_name(settings)


# Names.


def test_no_two_runs_of_a_group_share_a_name() -> None:
    configs = configurations()
    names = {(group_name(config), run_name(config)) for config in configs}
    assert len(names) == len(configs)


@pytest.mark.parametrize("config", second_stages(), ids=run_name)
def test_a_second_stage_stands_in_table_4_by_its_names(config: DecoupledConfig) -> None:
    classifier = config.recipe[-3:]
    assert config.table_method == f"{classifier}+{config.method}"
    assert config.variant == f"stage1={config.stage1}"
    assert config.dataset == "cifar100-lt"


def test_a_first_stages_variant_is_its_tau() -> None:
    assert CIFAR100_LT.variant == ""
    for method in ("logit-adjustment", "logit-adjustment-post-hoc"):
        adjusted = resolved(replace(CIFAR100_LT, method=method))
        assert (adjusted.variant, replace(adjusted, la_tau=2).variant) == ("", "tau=2.0")
    normalised = resolved(replace(CIFAR100_LT, method="tau-normalisation"))
    assert (normalised.variant, replace(normalised, norm_tau=0.5).variant) == ("", "tau=0.5")
    assert resolved(replace(CIFAR100_LT, method="cdb-s")).variant == "tau=sigmoid"
    assert resolved(replace(CIFAR100_LT, method="cdb-s", tau="1")).variant == "tau=1.0"
