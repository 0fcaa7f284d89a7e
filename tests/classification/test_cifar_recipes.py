import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from classification.config import ClassificationConfig
from classification.evaluate import config_from, read_config
from classification.recipes import (
    CIFAR100_LT,
    CIFAR100_LT_CODE,
    CIFAR100_LT_SHORT,
    RECIPES,
    CifarConfig,
    DecoupledConfig,
    MnistConfig,
    group_name,
    resolved,
    run_name,
)
from classification.training import Training
from common.errors import UserError
from common.training.settings import option, plain, settings_of
from tests.classification.synthetic import (
    METHODS,
    SECOND_STAGE_METHODS,
    small_cifar,
    trained_cifar,
    use_small_resnet,
)
from tests.settings import used_by

USED_BY = used_by(CifarConfig)

CRT, LWS = RECIPES["cifar100-lt-crt"], RECIPES["cifar100-lt-lws"]
SECOND_STAGES = [name for name, recipe in RECIPES.items() if isinstance(recipe, DecoupledConfig)]

# Another value of every field of CifarConfig.
OTHERS: dict[str, Any] = {
    "method": "cdb-w-fl", "imbalance": 50.0, "seed": 1, "split_seed": 7, "tau": "2", "tau_max": 1.0,
    "tau_power": 3.0, "eps": 0.1, "normalize_weights": False, "loss_reduction": "sum",
    "focal_gamma": 2.0, "cfs_q": 0.25, "cb_beta": 0.9, "eql_gamma": 0.5, "eql_threshold": 0.1,
    "l2rw_batch_size": 10, "epochs": 3, "batch_size": 50, "learning_rate": 0.2, "momentum": 0.5,
    "weight_decay": 0.0, "warmup_epochs": 2.5, "milestones": (2, 3), "lr_decay": 0.5,
    "augmentation": "none", "precision": "float32", "mwn_batch_size": 10,
    "mwn_learning_rate": 0.001, "ldam_margin": 0.25, "ldam_scale": 10.0, "drw_epoch": 3,
    "hard_weight": 0.5, "sampler_unit": "image", "decay_bias": False, "difficulty_per_class": 25,
    "head_size": 500, "mwn_virtual_step": "raw", "la_tau": 1.5, "norm_tau": 0.5, "mixup_alpha": 0.4,
    "difficulty_average": 0.5, "difficulty_prior": 2.0, "weights_from_epoch": 2,
}  # fmt: skip
# Those of DecoupledConfig that its methods can use, and its own.
STAGE2_OTHERS: dict[str, Any] = {
    name: value
    for name, value in OTHERS.items()
    if name not in USED_BY or {"cdb-s", "logit-adjustment"} & {*USED_BY[name]}
} | {"method": "class-aware", "stage1": "cdb-w-ce", "stage1_epochs": 7}  # fmt: skip


def for_option(name: str, recipe: ClassificationConfig = CIFAR100_LT) -> ClassificationConfig:
    """A configuration whose method the option is for; CDB-W-CE where it is for all."""
    # No method of the paper's does without images held out.
    usual = "balanced-softmax" if name == "head_size" else "cdb-w-ce"
    users = USED_BY.get(name, (usual,))
    method = "cdb-w-ce" if "cdb-w-ce" in users else users[0]
    return replace(recipe, method=method)


def changed(config: ClassificationConfig, **changes: object) -> ClassificationConfig:
    return replace(config, **changes)  # type: ignore[arg-type]


# The paper's values.


def test_the_papers_settings() -> None:
    """Sec. 4.1.2, and Cui et al. 2019 for the schedule."""
    recipe = CIFAR100_LT
    assert (recipe.epochs, recipe.batch_size) == (200, 128)
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 0.0001)
    assert (recipe.warmup_epochs, recipe.milestones, recipe.lr_decay) == (5, (160, 180), 0.01)
    assert (recipe.tau_max, recipe.eps, recipe.augmentation) == (5.0, 0.01, "crop-flip")
    assert (recipe.eql_gamma, recipe.eql_threshold) == (0.9, 0.005)
    assert (recipe.split_seed, recipe.hard_weight) == (0, 0.8)


def test_the_short_recipe_differs_in_its_schedule_only() -> None:
    ours, full = plain(CIFAR100_LT_SHORT), plain(CIFAR100_LT)
    differing = {name for name in full if ours[name] != full[name]}
    assert differing == {"recipe", "epochs", "warmup_epochs", "milestones"}


def test_the_recipe_of_the_authors_code_differs_in_what_is_listed_only() -> None:
    ours, written = plain(CIFAR100_LT_CODE), plain(CIFAR100_LT)
    differing = {name: ours[name] for name in ours if ours[name] != written.get(name)}
    assert differing == {
        "recipe": "cifar100-lt-code", "epochs": 240, "warmup_epochs": 0, "milestones": [160, 210],
        "weight_decay": 0.0005, "decay_bias": False, "difficulty_per_class": 25,
    }  # fmt: skip


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_the_second_stages_schedule(name: str) -> None:
    """Zhang et al. 2021's for CIFAR, but without their warm-up of 5 epochs."""
    recipe = RECIPES[name]
    assert isinstance(recipe, DecoupledConfig)
    assert (recipe.epochs, recipe.learning_rate, recipe.warmup_epochs) == (30, 0.1, 0)
    assert (recipe.milestones, recipe.lr_decay) == ((10, 20), 0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_known_by_its_name_and_refuses_nothing_of_its_own(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.recipe_name == name
    assert resolved(recipe) == resolved(resolved(recipe))
    assert type(recipe)(**plain(recipe)) == recipe


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("cifar")])
def test_every_recipe_takes_every_method_of_its_table(name: str) -> None:
    decoupled = isinstance(RECIPES[name], DecoupledConfig)
    for method in SECOND_STAGE_METHODS if decoupled else METHODS:
        config = resolved(changed(RECIPES[name], method=method))
        assert run_name(config).startswith(config.table_method + "_")
        assert config.dataset == "cifar100-lt"


# Names.


def test_the_lists_of_options_are_complete() -> None:
    named = {"dataset", "recipe"}
    assert OTHERS.keys() | named == {field.name for field in fields(CifarConfig)}
    assert STAGE2_OTHERS.keys() | named == {field.name for field in fields(DecoupledConfig)}


@pytest.mark.parametrize(
    ("recipe", "others"),
    [
        (CIFAR100_LT, OTHERS),
        (CIFAR100_LT_SHORT, OTHERS),
        (CRT, STAGE2_OTHERS),
        (LWS, STAGE2_OTHERS),
    ],
)
def test_every_changed_field_gives_another_name(
    recipe: ClassificationConfig, others: dict[str, Any]
) -> None:
    names = {run_name(for_option(name, recipe)) for name in others}
    usual = len(names)
    for name, value in others.items():
        usual_config = for_option(name, recipe)
        assert value != getattr(usual_config, name)
        names.add(run_name(changed(usual_config, **{name: value})))
    assert len(names) == usual + len(others)
    assert not any("/" in name or " " in name for name in names)


def test_the_names_of_the_papers_runs() -> None:
    ldam = replace(CIFAR100_LT, method="ldam-drw", imbalance=10, seed=2)
    assert run_name(CIFAR100_LT) == "ce_imbalance-100_seed-0"
    assert run_name(ldam) == "ldam-drw_imbalance-10_seed-2"
    cdb = replace(CIFAR100_LT_SHORT, method="cdb-w-ce", imbalance=200)
    assert run_name(cdb) == "cdb-w-ce_tau-sigmoid_imbalance-200_seed-0"
    lws = changed(LWS, method="cdb-s", stage1="cdb-w-ce")
    assert run_name(lws) == "lws+cdb-s_tau-sigmoid_stage1-cdb-w-ce_imbalance-100_seed-0"


def test_milestones_and_the_split_are_named_where_they_are_not_the_recipes() -> None:
    name = run_name(replace(CIFAR100_LT, milestones=(80, 90), split_seed=3, seed=3))
    assert name == "ce_imbalance-100_split-seed-3_milestones-80-90_seed-3"
    short = replace(CIFAR100_LT_SHORT, milestones=(160, 180))
    assert "milestones-160-180" in run_name(short)


@pytest.mark.parametrize("name", RECIPES)
def test_both_stages_of_a_recipe_stand_in_one_group(name: str) -> None:
    groups = {
        "mnist-lt", "cifar100-lt", "cifar100-lt-code", "cifar100-lt-short", "imagenet-lt",
        "image-folder", "digit-images",
    }  # fmt: skip
    assert group_name(RECIPES[name]) in groups
    assert name in {group_name(RECIPES[name]) + stage for stage in ("", "-crt", "-lws", "-oltr")}


def test_the_words_of_the_papers_tables() -> None:
    assert (CIFAR100_LT.table_method, CIFAR100_LT.variant) == ("ce", "")
    assert replace(CIFAR100_LT, method="cdb-w-ce", tau="1.5").variant == "tau=1.5"
    crt = changed(CRT, method="cdb-w-ce", stage1="cdb-s")
    assert (crt.table_method, crt.variant) == ("crt+cdb-w-ce", "stage1=cdb-s")
    assert (LWS.table_method, LWS.variant) == ("lws+class-aware", "stage1=ce")
    by_image = replace(CIFAR100_LT, method="cdb-s", tau="1.5", sampler_unit="image")
    assert by_image.variant == "tau=1.5 unit=image"


AUTOAUGMENT = {
    name: "autoaugment-cutout" if name.startswith("cifar100-lt") else "autoaugment"
    for name in RECIPES
    if name != "mnist-lt"
}


@pytest.mark.parametrize(("name", "augmentation"), AUTOAUGMENT.items())
def test_every_recipe_of_colours_has_autoaugment_and_names_it(name: str, augmentation: str) -> None:
    config = changed(RECIPES[name], augmentation=augmentation)
    told = f"_augmentation-{augmentation}"
    assert run_name(config).replace(told, "") == run_name(RECIPES[name])
    assert config_from(json.loads(json.dumps(plain(config)))) == config
    first = config.stage1_config()
    if first is not None:
        assert first.augmentation == augmentation  # type: ignore[attr-defined]
        assert told in run_name(first)


def test_grey_digits_have_no_choice_of_augmentation() -> None:
    assert "augmentation" not in {field.name for field in fields(MnistConfig)}


# What is filled in.


@pytest.mark.parametrize("method", METHODS)
def test_ldam_drw_alone_divides_by_the_sum_of_its_weights(method: Any) -> None:
    usual = resolved(replace(CIFAR100_LT, method=method)).loss_reduction
    assert usual == ("weight-sum" if method == "ldam-drw" else "batch-size")
    said = resolved(replace(CIFAR100_LT, method=method, loss_reduction="sum"))
    assert said.loss_reduction == "sum"


def test_the_split_has_a_seed_of_its_own() -> None:
    assert resolved(replace(CIFAR100_LT, seed=5)).split_seed == 0
    assert resolved(replace(CIFAR100_LT, seed=5, split_seed=None)).split_seed == 5


def test_one_run_has_one_name_however_it_is_spelt() -> None:
    for method in ("ldam-drw", "cdb-w-ce", "ce"):
        config = replace(CIFAR100_LT, method=method)
        assert run_name(config) == run_name(resolved(config))
    ldam = replace(CIFAR100_LT, method="ldam-drw")
    assert run_name(replace(ldam, loss_reduction="weight-sum")) == run_name(ldam)
    assert run_name(replace(CIFAR100_LT, imbalance=50)) == run_name(
        replace(CIFAR100_LT, imbalance=50.0)
    )


# Files.


@pytest.mark.parametrize("name", OTHERS)
def test_settings_survive_a_file(name: str) -> None:
    usual = changed(for_option(name), **{name: OTHERS[name]})
    for config in (usual, resolved(usual)):
        again = config_from(json.loads(json.dumps(plain(config))))
        assert again == config
        assert hash(again) == hash(config)  # Milestones are a tuple again.


@pytest.mark.parametrize("name", STAGE2_OTHERS)
def test_settings_of_a_second_stage_survive_a_file(name: str) -> None:
    config = changed(for_option(name, LWS), **{name: STAGE2_OTHERS[name]})
    assert DecoupledConfig(**json.loads(json.dumps(plain(config)))) == config


@pytest.mark.parametrize("name", RECIPES)
def test_a_folders_settings_are_read_as_what_they_were(name: str, tmp_path: Path) -> None:
    config = resolved(replace(RECIPES[name], seed=3, epochs=5))
    (tmp_path / "config.json").write_text(json.dumps(plain(config)))
    read = read_config(tmp_path)
    assert type(read) is type(RECIPES[name])
    assert read == config


def test_settings_from_before_there_was_a_choice_of_virtual_step_are_those_of_the_raw_one() -> None:
    raw = resolved(replace(CIFAR100_LT, method="meta-weight-net", mwn_virtual_step="raw"))
    later = {name for name, said in settings_of(CifarConfig).items() if said.came_later}
    old = {name: value for name, value in asdict(raw).items() if name not in later}
    read = config_from(json.loads(json.dumps(old)))
    assert read == raw
    assert run_name(read) == "meta-weight-net_imbalance-100_seed-0"
    # Its folder and record are found again.
    assert plain(read).items() <= json.loads(json.dumps(old)).items()


def test_the_default_virtual_step_is_recorded_and_named() -> None:
    config = resolved(replace(CIFAR100_LT, method="meta-weight-net"))
    assert plain(config)["mwn_virtual_step"] == "normalised"
    name = "meta-weight-net_imbalance-100_mwn-virtual-step-normalised_seed-0"
    assert run_name(config) == name
    assert config_from(plain(config)) == config


@pytest.mark.parametrize("method", [method for method in METHODS if method != "meta-weight-net"])
def test_the_virtual_step_is_neither_recorded_nor_named_for_other_methods(method: Any) -> None:
    config = resolved(replace(CIFAR100_LT, method=method))
    assert "mwn_virtual_step" not in plain(config)
    assert "virtual" not in run_name(config)
    assert config_from(plain(config)) == config


@pytest.mark.parametrize(
    "changes",
    [{"recipe": "cifar10-lt"}, {"recipe": None}, {"warp": 9}, {"precision": "float8"},
     {"milestones": [3, 2]}, {"milestones": 3}, {"recipe": "cifar100-lt-crt", "method": "ce"}],
)  # fmt: skip
def test_a_folder_of_other_settings_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(plain(CIFAR100_LT) | changes))
    with pytest.raises(UserError):
        read_config(tmp_path)


# What is refused.

LIMITS: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
    ("warmup_epochs", (0, 0.75, 300), (-0.1,)),
    ("lr_decay", (1e-9, 1), (0, -1, 1.1)),
    ("mwn_batch_size", (1,), (0,)),
    ("mwn_learning_rate", (1e-9,), (0, -1)),
    ("ldam_margin", (0, 0.5), (-0.1,)),
    ("ldam_scale", (1e-9, 30), (0, -1)),
    ("drw_epoch", (0, 160), (-1,)),
    ("hard_weight", (0, 1), (-0.1, 1.1)),
    ("split_seed", (0,), (-1,)),
    ("difficulty_per_class", (1, 25), (0,)),
    ("head_size", (1, 500), (0, 501)),
]


@pytest.mark.parametrize(("name", "good", "bad"), LIMITS)
def test_a_value_out_of_range_is_refused_by_its_option(
    name: str, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    for value in good:
        assert getattr(changed(for_option(name), **{name: value}), name) == value
    for value in (*bad, math.nan, math.inf, -math.inf):
        with pytest.raises(UserError, match=f"{option(name)} must be .*, not {value}"):
            changed(for_option(name), **{name: value})


def test_a_first_stage_has_at_least_one_epoch() -> None:
    first = changed(CRT, stage1_epochs=1).stage1_config()
    assert first is not None
    assert first.epochs == 1
    for value in (0, -1):
        with pytest.raises(UserError, match=f"--stage1-epochs must be at least 1, not {value}"):
            changed(CRT, stage1_epochs=value)


def test_every_number_of_its_own_has_a_limit() -> None:
    own = {f.name for f in fields(CifarConfig)} - {f.name for f in fields(MnistConfig)}
    numbers = {
        field.name
        for field in fields(CifarConfig)
        if field.name in own and type(field.default) in (int, float)
    }
    optional = {"split_seed", "drw_epoch", "difficulty_per_class", "head_size"}
    assert numbers | optional == {name for name, _, _ in LIMITS}


@pytest.mark.parametrize(
    ("recipe", "change", "words"),
    [
        ("cifar100-lt", {"method": "cdb-w-ce"}, "holds no images out, which cdb-w-ce needs"),
        ("cifar100-lt", {"method": "cdb-s"}, "holds no images out, which cdb-s needs"),
        ("cifar100-lt", {"method": "cdb-w-fl"}, "holds no images out, which cdb-w-fl needs"),
        ("cifar100-lt", {"method": "l2rw"}, "holds no images out, which l2rw needs"),
        ("cifar100-lt", {"method": "meta-weight-net"}, "out, which meta-weight-net needs"),
        ("cifar100-lt-crt", {"stage1": "cdb-w-ce"}, "holds no images out, which cdb-w-ce needs"),
        ("cifar100-lt", {"difficulty_per_class": 25}, "contradicts --difficulty-per-class 25"),
    ],
)
def test_a_head_size_is_refused_where_images_must_be_held_out(
    recipe: str, change: dict[str, Any], words: str
) -> None:
    usual = changed(RECIPES[recipe], **change)
    with pytest.raises(UserError, match=f"^--head-size 500 .*{words}; leave one of them out.$"):
        changed(usual, head_size=500)


def test_the_methods_that_need_no_images_held_out_take_a_head_size() -> None:
    needing = {"cdb-s", "cdb-w-fl", "cdb-w-ce", "l2rw", "meta-weight-net"}
    for method in {*METHODS} - needing:
        config = changed(CIFAR100_LT, method=method, head_size=500)
        assert run_name(config) == run_name(replace(config, head_size=None)).replace(
            "_seed-0", "_head-size-500_seed-0"
        )


@pytest.mark.parametrize("bad", [(0, 5), (-1,), (5, 5), (6, 5), (1, 3, 2)])
def test_milestones_that_do_not_grow_are_refused(bad: tuple[int, ...]) -> None:
    for recipe in (CIFAR100_LT, CRT):
        with pytest.raises(UserError, match="--milestones must be epochs from 1 up in growing"):
            changed(recipe, milestones=bad)


@pytest.mark.parametrize("good", [(), (1,), (1, 2, 3), (500,)])
def test_milestones_that_grow_are_taken(good: tuple[int, ...]) -> None:
    assert replace(CIFAR100_LT, milestones=good).milestones == good


def test_ldam_drw_needs_an_epoch_to_change_at() -> None:
    with pytest.raises(UserError, match="--method ldam-drw without --milestones needs --drw-epoch"):
        replace(CIFAR100_LT, method="ldam-drw", milestones=())
    given = replace(CIFAR100_LT, method="ldam-drw", milestones=(), drw_epoch=3)
    assert given.drw_epoch == 3


@pytest.mark.parametrize("name", ["method", "augmentation", "precision", "stage1"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=rf"--{name} cbd-s is not one of \w"):
        changed(CRT, **{name: "cbd-s"})
    with pytest.raises(UserError, match=r"--method cbd-s is not one of ce, focal, .*cdb-w-ce\."):
        changed(CIFAR100_LT, method="cbd-s")


@pytest.mark.parametrize("method", ["ce", "focal", "ldam-drw", "meta-weight-net", "cdb-w-fl"])
def test_a_second_stage_refuses_a_method_that_table_4_has_not(method: str) -> None:
    with pytest.raises(UserError, match=f"--method {method} is not one of class-aware, bal"):
        changed(CRT, method=method)


@pytest.mark.parametrize("name", USED_BY)
def test_an_option_is_refused_where_it_has_no_effect(name: str) -> None:
    for method in METHODS:
        config = replace(CIFAR100_LT, method=method)
        if method in USED_BY[name]:
            assert getattr(changed(config, **{name: OTHERS[name]}), name) == OTHERS[name]
            continue
        with pytest.raises(
            UserError, match=rf"{option(name)} .* has no effect on --method {method};"
        ):
            changed(config, **{name: OTHERS[name]})


# Decoupled learning's first stage.


@pytest.mark.parametrize("name", SECOND_STAGES)
@pytest.mark.parametrize("stage1", ["ce", "cdb-w-ce", "cdb-s"])
def test_the_usual_first_stage_is_the_run_of_its_recipe(name: str, stage1: str) -> None:
    config = changed(RECIPES[name], stage1=stage1)
    assert isinstance(config, DecoupledConfig)
    first = config.stage1_config()
    recipe = RECIPES[name.removesuffix("-crt").removesuffix("-lws")]
    assert type(first) is CifarConfig
    assert first == resolved(changed(recipe, method=stage1))
    assert group_name(first) == group_name(config)


# What each stage has for itself.
EACH = {
    "method", "epochs", "warmup_epochs", "milestones", "lr_decay", "stage1", "stage1_epochs",
    "weights_from_epoch",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(STAGE2_OTHERS.keys() - EACH - {"la_tau", "head_size"}))
@pytest.mark.parametrize("method", ["class-aware", "cdb-s"])
def test_a_first_stage_has_every_setting_of_the_second_that_its_method_can_use(
    name: str, method: str
) -> None:
    value = STAGE2_OTHERS[name]
    second = changed(CRT, method=method, stage1="cdb-s", **{name: value})
    usual = replace(CIFAR100_LT, method="cdb-s")
    assert second.stage1_config() == resolved(changed(usual, **{name: value}))


def test_a_first_stage_has_the_head_of_the_second() -> None:
    first = changed(CRT, head_size=500).stage1_config()
    assert first == resolved(replace(CIFAR100_LT, head_size=500))


@pytest.mark.parametrize("name", sorted(name for name in STAGE2_OTHERS if name in USED_BY))
def test_a_first_stage_has_no_setting_that_is_for_the_seconds_method_alone(name: str) -> None:
    method = "logit-adjustment" if name == "la_tau" else "cdb-s"
    second = changed(CRT, method=method, stage1="ce", **{name: STAGE2_OTHERS[name]})
    assert second.stage1_config() == resolved(CIFAR100_LT)


@pytest.mark.parametrize("name", sorted(EACH - {"method", "stage1", "stage1_epochs"}))
def test_the_schedule_of_a_second_stage_leaves_the_first_as_it_is(name: str) -> None:
    usual = changed(CRT, method="cdb-w-ce", stage1="cdb-w-ce")
    other = changed(usual, **{name: OTHERS[name]})
    assert other.stage1_config() == usual.stage1_config()


def test_a_first_stage_has_as_many_epochs_as_asked_for() -> None:
    first = changed(CRT, stage1_epochs=9).stage1_config()
    assert first == resolved(replace(CIFAR100_LT, epochs=9))


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
    "cb_beta": ("cb", {}, 0.5),
    "la_tau": ("logit-adjustment", {}, 0.5),
    "mixup_alpha": ("mixup", {}, 0.1),
    "eql_gamma": ("eql", {}, 0.1),
    "eql_threshold": ("eql", {}, 0.1),
    "l2rw_batch_size": ("l2rw", {}, 5),
    "epochs": ("ce", {}, 1),
    "batch_size": ("ce", {}, 16),
    "learning_rate": ("ce", {}, 0.01),
    "momentum": ("ce", {}, 0.5),
    "weight_decay": ("ce", {}, 0.1),
    "warmup_epochs": ("ce", {}, 0.5),
    "milestones": ("ce", {}, ()),
    "lr_decay": ("ce", {}, 0.1),
    "augmentation": ("ce", {}, "none"),
    "precision": ("ce", {}, "bfloat16"),
    "mwn_batch_size": ("meta-weight-net", {}, 5),
    "mwn_learning_rate": ("meta-weight-net", {}, 10.0),
    "mwn_virtual_step": ("meta-weight-net", {"mwn_learning_rate": 10.0}, "raw"),
    "ldam_margin": ("ldam-drw", {}, 0.1),
    "ldam_scale": ("ldam-drw", {}, 10.0),
    "drw_epoch": ("ldam-drw", {}, 0),
    "sampler_unit": ("cdb-s", {}, "image"),
    "difficulty_prior": ("cdb-w-ce", {}, 2.0),
    "weights_from_epoch": ("cdb-s", {}, 1),
    "decay_bias": ("ce", {"weight_decay": 0.1}, False),
}
MORE_CHANGES: list[tuple[str, str, dict[str, object], object]] = [
    ("focal_gamma", "cdb-w-fl", {}, 2.0),
    ("tau", "cdb-s", {}, "0.5"),
    ("method", "ce", {}, "class-aware"),
    ("method", "ce", {}, "balanced-softmax"),
    ("method", "cdb-w-ce", {}, "cdb-w-fl"),
    ("augmentation", "ce", {}, "autoaugment-cutout"),
    ("augmentation", "mixup", {}, "autoaugment-cutout"),
    ("cb_beta", "ldam-drw", {}, 0.5),
    ("loss_reduction", "ldam-drw", {}, "batch-size"),
]
# The loader's (imbalance, split_seed, ..., head_size); of what is recorded and not of the
# weights (hard_weight); of accuracies that change (difficulty_average: test_steadiers.py); of what
# is tested alone (norm_tau: methods/test_post_hoc.py).
ELSEWHERE = {
    "dataset", "recipe", "imbalance", "split_seed", "difficulty_per_class", "head_size",
    "hard_weight",
    "difficulty_average", "norm_tau",
}  # fmt: skip


def test_every_option_is_changed_somewhere() -> None:
    assert CHANGES.keys() | ELSEWHERE == {field.name for field in fields(CifarConfig)}


@cache
def _unchanged(run: Callable[..., Training], *settings: tuple[str, object]) -> Training:
    return run(**dict(settings))


def two_epochs(**changes: object) -> Training:
    """Two epochs of two steps each."""
    usual = {"epochs": 2, "batch_size": 32, "warmup_epochs": 1.5, "milestones": (1,)}
    return trained_cifar(small_cifar(), **(usual | changes))  # type: ignore[arg-type]


def trained_weights(run: Training) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in run.model.parameters()]


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies at which no law of tau is at an end of its range."""
    accuracy = torch.linspace(0.9, 0.5, 12, dtype=torch.float64)
    monkeypatch.setattr("classification.training.measure", lambda *arguments: accuracy)
    use_small_resnet(monkeypatch)


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize(
    ("name", "method", "others", "value"),
    [(name, *change) for name, change in CHANGES.items()] + MORE_CHANGES,
)
def test_every_option_changes_the_weights(
    name: str, method: str, others: dict[str, object], value: object
) -> None:
    usual = {"method": method, **others}
    before = trained_weights(_unchanged(two_epochs, *usual.items()))
    after = trained_weights(two_epochs(**(usual | {name: value})))
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize("recipe", ["cifar100-lt", "cifar100-lt-crt"])
def test_the_classifiers_bias_alone_can_be_spared_weight_decay(recipe: str) -> None:
    method = "class-aware"
    run = two_epochs(recipe=recipe, method=method, weight_decay=0.25, decay_bias=False)
    decayed, spared = run.optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.25, 0.0)
    assert [tuple(p.shape) for p in spared["params"]] == [(12,)]
    trained = [p for p in run.model.parameters() if p.requires_grad]
    assert len(decayed["params"]) == len(trained) - 1


@pytest.mark.usefixtures("_measured")
def test_a_run_of_the_same_settings_has_the_same_weights() -> None:
    """Without this the test above would pass for a run that is never alike."""
    before, after = trained_weights(two_epochs(method="ce")), trained_weights(two_epochs())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.usefixtures("_measured")
def test_hard_weight_changes_what_is_counted_and_nothing_else() -> None:
    low, high = (two_epochs(method="focal", hard_weight=bound) for bound in (0.5, 0.99))
    for a, b in zip(trained_weights(low), trained_weights(high), strict=True):
        assert torch.equal(a, b)
    assert low.history.rows["hard_instances"] != high.history.rows["hard_instances"]
    assert sum(low.history.rows["hard_instances"][0]) > sum(high.history.rows["hard_instances"][0])


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize("recipe", ["cifar100-lt-crt", "cifar100-lt-lws"])
def test_a_second_stages_method_changes_what_it_trains(recipe: str) -> None:
    # Its usual factor would make it balanced-softmax.
    own = {"logit-adjustment": {"la_tau": 0.5}}
    runs = [
        two_epochs(recipe=recipe, method=method, **own.get(method, {}))
        for method in SECOND_STAGE_METHODS
    ]
    trained = [
        torch.cat([p.detach().flatten() for p in run.model.parameters() if p.requires_grad])
        for run in runs
    ]
    shapes = {"cifar100-lt-crt": 65 * 12, "cifar100-lt-lws": 12}
    assert {len(weights) for weights in trained} == {shapes[recipe]}
    for i, weights in enumerate(trained):
        assert not any(torch.equal(weights, other) for other in trained[:i])
