"""What all settings have in common, and those of CIFAR100-LT: choices, ranges, both stages."""

import json
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest

from classification.config import METHODS, USED_BY, ClassificationConfig, plain
from classification.recipes import (
    CIFAR100_LT,
    CIFAR100_LT_SHORT,
    MNIST_LT,
    RECIPES,
    CifarConfig,
    DecoupledConfig,
    MnistMethod,
    group_name,
    option,
    resolved,
    run_name,
)
from common.errors import UserError

CRT = DecoupledConfig(recipe="cifar100-lt-crt")
FIRST_STAGES = ("ce", "cdb-w-ce", "cdb-s")


def second_stages() -> list[DecoupledConfig]:
    """Every recipe of a second stage with every method of either stage."""
    return [
        replace(recipe, stage1=stage1, method=method)  # type: ignore[arg-type]
        for recipe in RECIPES.values()
        if isinstance(recipe, DecoupledConfig)
        for stage1 in FIRST_STAGES
        for method in ("class-aware", "cdb-w-ce", "cdb-s")
    ]


# The paper's values.


def test_the_papers_settings() -> None:
    """Sec. 4.1.2 and reference.md's values where it is silent (Cui et al. 2019)."""
    assert (CIFAR100_LT.epochs, CIFAR100_LT.batch_size) == (200, 128)
    assert (CIFAR100_LT.learning_rate, CIFAR100_LT.momentum) == (0.1, 0.9)
    assert (CIFAR100_LT.tau_max, CIFAR100_LT.eps) == (5.0, 0.01)
    assert (CIFAR100_LT.warmup_epochs, CIFAR100_LT.milestones) == (5, (160, 180))
    assert CIFAR100_LT.lr_decay == 0.01
    assert CIFAR100_LT.augmentation == "crop-flip"


def test_cao_et_als_settings_of_ldam() -> None:
    assert (CIFAR100_LT.ldam_margin, CIFAR100_LT.ldam_scale, CIFAR100_LT.drw_epoch) == (
        0.5, 30, None,
    )  # fmt: skip


def test_cifar_has_all_methods_of_table_1_and_mnist_nine() -> None:
    assert len(METHODS) == 12
    assert [replace(CIFAR100_LT, method=method).method for method in METHODS] == list(METHODS)
    of_mnist = get_args(MnistMethod)
    assert set(METHODS) - set(of_mnist) == {"ldam-drw", "meta-weight-net", "class-aware"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_found_under_its_own_name(recipe: str) -> None:
    assert RECIPES[recipe].recipe_name == recipe


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


@pytest.mark.parametrize(
    "milestones", [(0,), (-1, 3), (180, 160), (160, 160), (0, 160), (3, 2, 4)]
)
def test_milestones_that_do_not_grow_from_1_up_are_refused(milestones: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="--milestones must be epochs from 1 up in growing order"):
        replace(CIFAR100_LT, milestones=milestones)


@pytest.mark.parametrize("milestones", [(), (1,), (1, 2, 3), (500,)])
def test_milestones_that_grow_are_taken(milestones: tuple[int, ...]) -> None:
    assert replace(CIFAR100_LT, milestones=milestones).milestones == milestones


def test_deferred_weights_need_an_epoch_to_start_at() -> None:
    with pytest.raises(UserError, match="--method ldam-drw without --milestones needs --drw-epoch"):
        replace(CIFAR100_LT, method="ldam-drw", milestones=())
    config = replace(CIFAR100_LT, method="ldam-drw", milestones=(), drw_epoch=0)
    assert config.drw_epoch == 0


@pytest.mark.parametrize("config", [MNIST_LT, CIFAR100_LT, CRT])
def test_an_option_is_refused_with_the_methods_of_its_data_set(
    config: ClassificationConfig,
) -> None:
    """The remedy names no method that the next command would refuse."""
    fitting = get_args(get_type_hints(type(config))["method"])
    names = {field.name for field in fields(config)} & USED_BY.keys()
    for name in names - ({"tau"} if config.method in USED_BY["tau"] else set()):
        with pytest.raises(UserError, match="has no effect") as refusal:
            replace(config, **{name: "2" if name == "tau" else _another(getattr(config, name))})
        remedy = str(refusal.value).partition("; leave it out")[2].removeprefix(", or choose ")
        offered = remedy.removesuffix(".").split(" or ") if remedy != "." else []
        assert offered == [method for method in USED_BY[name] if method in fitting]


def _another(value: Any) -> Any:
    """A value that is in every range: a little less, or the other truth."""
    if value is None:
        return 3
    return not value if isinstance(value, bool) else value + 1 if value >= 1 else value / 2


# What follows from other settings.


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_sum_divides_the_loss_of_ldam_drw_only(method: str) -> None:
    config = replace(CIFAR100_LT, method=method)  # type: ignore[arg-type]
    usual = "weight-sum" if method == "ldam-drw" else "batch-size"
    assert resolved(config).loss_reduction == usual
    for asked in ("batch-size", "weight-sum", "sum"):
        assert resolved(replace(config, loss_reduction=asked)).loss_reduction == asked


def test_on_cifar_the_split_has_its_own_seed() -> None:
    assert resolved(replace(CIFAR100_LT, seed=4)).split_seed == 0
    assert resolved(replace(CIFAR100_LT, seed=4, split_seed=None)).split_seed == 4
    assert resolved(replace(MNIST_LT, seed=4)).split_seed == 4


@pytest.mark.parametrize("recipe", RECIPES)
def test_resolving_twice_changes_nothing_more(recipe: str) -> None:
    once = resolved(RECIPES[recipe])
    assert resolved(once) == once
    for field in fields(once):
        may_be_absent = {"tau", "drw_epoch", "stage1_epochs"}
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


@pytest.mark.parametrize("recipe", RECIPES)
def test_both_stages_stand_in_the_group_of_the_first(recipe: str) -> None:
    group = group_name(RECIPES[recipe])
    expected = {
        "mnist-lt": "mnist-lt",
        "cifar100-lt": "cifar100-lt",
        "cifar100-lt-crt": "cifar100-lt",
        "cifar100-lt-lws": "cifar100-lt",
        "cifar100-lt-short": "cifar100-lt-short",
        "cifar100-lt-short-crt": "cifar100-lt-short",
        "cifar100-lt-short-lws": "cifar100-lt-short",
    }
    assert group == expected[recipe]


def test_the_names_of_the_papers_runs() -> None:
    assert run_name(CIFAR100_LT) == "ce_imbalance-100_seed-0"
    cdb = replace(CIFAR100_LT, method="cdb-w-ce", imbalance=200, seed=2)
    assert run_name(cdb) == "cdb-w-ce_tau-sigmoid_imbalance-200_seed-2"
    assert run_name(replace(CIFAR100_LT, method="ldam-drw")) == "ldam-drw_imbalance-100_seed-0"
    assert run_name(CIFAR100_LT_SHORT) == "ce_imbalance-100_seed-0"
    lws = replace(RECIPES["cifar100-lt-lws"], stage1="cdb-s", method="cdb-w-ce")  # type: ignore[call-arg]
    assert run_name(lws) == "lws+cdb-w-ce_tau-sigmoid_stage1-cdb-s_imbalance-100_seed-0"


def test_a_setting_that_is_a_list_stands_in_the_name() -> None:
    config = replace(CIFAR100_LT, milestones=(20, 30), warmup_epochs=2)
    assert run_name(config) == "ce_imbalance-100_warmup-epochs-2_milestones-20-30_seed-0"


@pytest.mark.parametrize("config", second_stages(), ids=run_name)
def test_a_second_stage_stands_in_table_4_by_its_names(config: DecoupledConfig) -> None:
    classifier = config.recipe[-3:]
    assert config.table_method == f"{classifier}+{config.method}"
    assert config.variant == f"stage1={config.stage1}"
    assert config.dataset == "cifar100-lt"


def test_a_first_stages_variant_is_its_tau() -> None:
    assert CIFAR100_LT.variant == ""
    assert resolved(replace(CIFAR100_LT, method="cdb-s")).variant == "tau=sigmoid"
    assert resolved(replace(CIFAR100_LT, method="cdb-s", tau="1")).variant == "tau=1.0"


# Both stages.


@pytest.mark.parametrize("config", second_stages(), ids=run_name)
def test_the_first_stage_is_the_run_of_table_1(config: DecoupledConfig) -> None:
    """So that a run of Table 1 with the same condition and seed serves as first stage."""
    config = replace(config, imbalance=50, seed=2)
    base = CIFAR100_LT_SHORT if "short" in config.recipe else CIFAR100_LT
    expected = replace(base, method=config.stage1, imbalance=50, seed=2)
    assert config.stage1_config() == resolved(expected)
    assert type(config.stage1_config()) is CifarConfig


def test_the_first_stage_takes_over_what_must_be_the_same_in_both() -> None:
    changed = replace(
        CRT, stage1="cdb-s", stage1_epochs=3, imbalance=20, seed=5, split_seed=6,
        precision="float32", augmentation="none",
        # Of the second stage alone:
        epochs=7, batch_size=9, learning_rate=0.5, milestones=(2,), method="cdb-w-ce", tau="2",
    )  # fmt: skip
    assert changed.stage1_config() == resolved(
        replace(
            CIFAR100_LT, method="cdb-s", epochs=3, imbalance=20, seed=5, split_seed=6,
            precision="float32", augmentation="none",
        )
    )  # fmt: skip


# Every option.

# Another value of every field, and a method that it is for where the usual one will not do.
OTHERS: dict[str, tuple[Any, str | None]] = {
    "method": ("cdb-s", None), "imbalance": (50.0, None), "seed": (1, None),
    "split_seed": (7, None), "tau": ("2", None), "tau_max": (1.0, None),
    "tau_power": (3.0, None), "eps": (0.1, None), "normalize_weights": (False, None),
    "loss_reduction": ("sum", None), "epochs": (3, None), "batch_size": (50, None),
    "learning_rate": (0.2, None), "momentum": (0.5, None), "weight_decay": (0.0, None),
    "warmup_epochs": (2, None), "milestones": ((3, 4), None), "lr_decay": (0.5, None),
    "augmentation": ("none", None), "precision": ("float32", None),
    "focal_gamma": (2.0, "cdb-w-fl"), "cfs_q": (0.25, "cfs"), "cb_beta": (0.9, "ldam-drw"),
    "eql_gamma": (0.5, "eql"), "eql_threshold": (0.1, "eql"), "l2rw_batch_size": (10, "l2rw"),
    "mwn_batch_size": (10, "meta-weight-net"), "mwn_learning_rate": (0.1, "meta-weight-net"),
    "ldam_margin": (0.1, "ldam-drw"), "ldam_scale": (10.0, "ldam-drw"),
    "drw_epoch": (3, "ldam-drw"), "hard_weight": (0.5, "focal"),
    "stage1": ("cdb-s", None), "stage1_epochs": (3, None),
}  # fmt: skip
NO_OPTIONS = {"dataset", "recipe"}
BASES = (
    replace(CIFAR100_LT, method="cdb-w-ce"),
    replace(CIFAR100_LT_SHORT, method="cdb-w-ce"),
    replace(CRT, method="cdb-w-ce"),
    DecoupledConfig(recipe="cifar100-lt-short-lws", method="cdb-w-ce"),
)


def options_of(base: ClassificationConfig) -> list[str]:
    """The options that a method of its data set can use."""
    names = {field.name for field in fields(base)} - NO_OPTIONS
    if isinstance(base, DecoupledConfig):
        names = {name for name in names if name not in USED_BY or "cdb-s" in USED_BY[name]}
    return sorted(names)


def for_option(base: ClassificationConfig, name: str) -> ClassificationConfig:
    """``base`` with a method that the option is for."""
    method = OTHERS[name][1]
    return base if method is None else replace(base, method=method)  # type: ignore[arg-type]


def test_the_list_of_options_is_complete() -> None:
    names = {field.name for base in BASES for field in fields(base)}
    assert OTHERS.keys() == names - NO_OPTIONS


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.recipe)
def test_every_changed_field_gives_another_name_that_a_file_can_have(base: CifarConfig) -> None:
    names = set()
    for name in options_of(base):
        config = for_option(base, name)
        value = OTHERS[name][0]
        assert getattr(config, name) != value
        changed = run_name(replace(config, **{name: value}))
        assert changed != run_name(config)
        assert "/" not in changed
        names.add(changed)
    assert len(names) == len(options_of(base))


# option -> what is taken, what is refused
LIMITS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imbalance": ((1, 450), (0.99, -1)),
    "seed": ((0,), (-1,)),
    "split_seed": ((0,), (-1,)),
    "tau_max": ((0, 9), (-0.1,)),
    "tau_power": ((1,), (0.9,)),
    "eps": ((1e-9, 0.99), (0, 1)),
    "focal_gamma": ((0,), (-0.1,)),
    "cfs_q": ((0, 1), (-0.1,)),
    "cb_beta": ((0, 0.9999), (-0.1, 1)),
    "eql_gamma": ((0, 1), (-0.1, 1.1)),
    "eql_threshold": ((0, 1), (-0.1, 1.1)),
    "l2rw_batch_size": ((1,), (0,)),
    "mwn_batch_size": ((1,), (0,)),
    "mwn_learning_rate": ((1e-9,), (0, -1)),
    "ldam_margin": ((0, 2), (-0.1,)),
    "ldam_scale": ((1e-9, 64), (0, -30)),
    "drw_epoch": ((0, 500), (-1,)),
    "hard_weight": ((0, 1), (-0.1, 1.1)),
    "epochs": ((1,), (0,)),
    "stage1_epochs": ((1,), (0,)),
    "batch_size": ((1,), (0,)),
    "learning_rate": ((1e-9,), (0, -1)),
    "lr_decay": ((1e-9, 1), (0, -0.1, 1.1)),
    "warmup_epochs": ((0, 0.5, 500), (-0.1,)),
    "momentum": ((0, 0.99), (-0.1, 1)),
    "weight_decay": ((0,), (-0.1,)),
}


@pytest.mark.parametrize("base", BASES[::2], ids=lambda base: base.recipe)
@pytest.mark.parametrize("name", LIMITS)
def test_a_value_out_of_range_is_refused_by_its_option(base: CifarConfig, name: str) -> None:
    if name not in options_of(base):
        return
    config, (good, bad) = for_option(base, name), LIMITS[name]
    for value in good:
        assert getattr(replace(config, **{name: value}), name) == value  # type: ignore[arg-type]
    for value in (*bad, float("nan"), float("inf"), float("-inf")):
        with pytest.raises(UserError, match=f"{option(name)} must be .*, not {value}"):
            replace(config, **{name: value})  # type: ignore[arg-type]


def test_every_number_has_a_limit() -> None:
    numbers = {
        field.name
        for field in fields(DecoupledConfig)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    without_default = {"split_seed", "drw_epoch", "stage1_epochs"}
    assert numbers | without_default == LIMITS.keys()


@pytest.mark.parametrize("name", USED_BY)
def test_an_option_reaches_every_method_it_is_for_and_no_other(name: str) -> None:
    value = OTHERS[name][0]
    for method in METHODS:
        config = replace(CIFAR100_LT, method=method)
        if method in USED_BY[name]:
            assert getattr(replace(config, **{name: value}), name) == value
            continue
        with pytest.raises(
            UserError, match=rf"{option(name)} .* has no effect on --method {method};"
        ):
            replace(config, **{name: value})
