import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from common.errors import UserError
from common.training.methods import LOGIT_METHODS
from common.training.settings import option, plain
from tests.settings import used_by
from video.arguments import Arguments
from video.recipes import (
    EGTEA_VERBS,
    MOTION_DIGITS,
    RECIPES,
    VerbMethod,
    VideoConfig,
    resolved,
    run_name,
)
from video.train import TASK

METHODS = get_args(VerbMethod)
USED_BY = used_by(VideoConfig)
CDB = replace(EGTEA_VERBS, method="cdb-w-ce")
# Another value of every field, for a method that it is for.
OTHERS: dict[str, Any] = {
    "method": "cdb-s", "seed": 1, "tau": "2", "tau_max": 1.0, "tau_power": 3.0, "eps": 0.1,
    "normalize_weights": False, "loss_reduction": "sum", "focal_gamma": 2.0, "cfs_q": 0.25,
    "sampler_unit": "image", "la_tau": 1.5, "norm_tau": 0.5,
    "difficulty_average": 0.5, "difficulty_prior": 2.0,
    "weights_from_epoch": 2,
    "cb_beta": 0.9, "epochs": 3, "batch_size": 8, "learning_rate": 0.1, "momentum": 0.5,
    "weight_decay": 0.0, "milestones": (5, 7), "lr_decay": 0.5, "model": "small-resnext",
    "start": "random", "frames": 4, "frame_height": 230, "frame_width": 250, "crop": 100,
    "max_angle": 0.0, "flip": 0.25, "precision": "bfloat16",
}  # fmt: skip


def for_option(name: str) -> VideoConfig:
    """A configuration that the option can be changed in."""
    users = USED_BY.get(name, (CDB.method,))
    config = CDB if CDB.method in users else replace(CDB, method=users[0])  # type: ignore[arg-type]
    # The pretrained weights are of one model.
    return replace(config, start="random") if name == "model" else config


# The paper's values.


def test_the_papers_settings() -> None:
    """Sec. 4.3.2."""
    assert (EGTEA_VERBS.epochs, EGTEA_VERBS.batch_size) == (100, 32)
    assert (EGTEA_VERBS.learning_rate, EGTEA_VERBS.momentum) == (0.001, 0.9)
    assert EGTEA_VERBS.weight_decay == 0.0005
    assert EGTEA_VERBS.frames == 10
    assert (EGTEA_VERBS.model, EGTEA_VERBS.start) == ("resnext101", "kinetics")
    assert (EGTEA_VERBS.crop, EGTEA_VERBS.frame_height, EGTEA_VERBS.frame_width) == (224, 224, 299)
    assert (CDB.tau_max, CDB.eps, resolved(CDB).tau) == (5.0, 0.01, "sigmoid")


def test_the_learning_rate_falls_to_a_tenth_after_60_epochs() -> None:
    rates = [EGTEA_VERBS.learning_rate_at(epoch, 1.0) for epoch in range(100)]
    assert rates[:60] == [0.001] * 60
    assert rates[60:] == pytest.approx([0.0001] * 40)


def test_the_methods_are_those_of_table_7_and_four_that_are_not_in_the_paper() -> None:
    table_7 = ("ce", "focal", "cb", "cfs", "cdb-s", "cdb-w-ce")
    ours = ("balanced-softmax", "logit-adjustment", "logit-adjustment-post-hoc")
    assert {*METHODS} == {*table_7, *ours, "tau-normalisation"}


@pytest.mark.parametrize("method", METHODS)
def test_each_name_of_a_method_is_registered_and_its_settings_are_there(method: str) -> None:
    assert issubclass(VideoConfig, LOGIT_METHODS[method].Settings)
    assert VideoConfig.method_settings[method] is LOGIT_METHODS[method].Settings


def test_the_demo_mirrors_no_clip_as_a_mirror_image_is_another_verb() -> None:
    assert MOTION_DIGITS.flip == 0.0


# Names.


def test_every_changed_field_gives_another_name() -> None:
    assert OTHERS.keys() == {field.name for field in fields(VideoConfig)} - {"dataset"}
    names = set()
    for name, value in OTHERS.items():
        config = for_option(name)
        assert value != getattr(config, name)
        changed = run_name(replace(config, **{name: value}))
        assert changed != run_name(config)
        names.add(changed)
    assert len(names) == len(OTHERS)
    assert not any("/" in name or " " in name for name in names)


def test_one_run_has_one_name_however_it_is_spelt() -> None:
    assert run_name(replace(CDB, tau="2")) == run_name(replace(CDB, tau="2.0"))
    assert run_name(CDB) == run_name(replace(CDB, tau="sigmoid")) == run_name(resolved(CDB))


def test_the_names_of_the_papers_runs() -> None:
    assert run_name(EGTEA_VERBS) == "ce_seed-0"
    assert run_name(CDB) == "cdb-w-ce_tau-sigmoid_seed-0"
    changed = replace(MOTION_DIGITS, method="cdb-s", tau="0.5", milestones=(2, 3), seed=2)
    assert run_name(changed) == "cdb-s_tau-0.5_milestones-2-3_seed-2"


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_come_back_from_json_as_they_were(recipe: str) -> None:
    for method in METHODS:
        for config in (c := replace(RECIPES[recipe], method=method), resolved(c)):
            read = VideoConfig(**json.loads(json.dumps(plain(config))))
            assert read == config
            assert hash(read) == hash(config)
            assert run_name(read) == run_name(config)


@pytest.mark.parametrize("recipe", RECIPES)
def test_resolving_fills_in_tau_for_cdb_alone_and_twice_changes_nothing_more(recipe: str) -> None:
    for method in METHODS:
        once = resolved(replace(RECIPES[recipe], method=method))
        assert once.tau == ("sigmoid" if method in ("cdb-s", "cdb-w-ce") else None)
        assert once.loss_reduction == "batch-size"
        assert resolved(once) == once


# What is refused.


@pytest.mark.parametrize("name", [name for name in USED_BY if name in OTHERS])
def test_an_option_is_refused_where_it_has_no_effect(name: str) -> None:
    for method in METHODS:
        config = replace(EGTEA_VERBS, method=method)
        if method in USED_BY[name]:
            assert getattr(replace(config, **{name: OTHERS[name]}), name) == OTHERS[name]
            continue
        with pytest.raises(UserError, match=rf"{option(name)} .* no effect on --method {method};"):
            replace(config, **{name: OTHERS[name]})


LIMITS: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
    ("seed", (0,), (-1,)),
    ("tau_max", (0, 9), (-0.1,)),
    ("tau_power", (1,), (0.9,)),
    ("eps", (1e-9, 0.99), (0, -1, 1)),
    ("difficulty_average", (0, 0.99), (-0.1, 1)),
    ("difficulty_prior", (0, 0.5), (-0.1,)),
    ("weights_from_epoch", (0, 2), (-1,)),
    ("focal_gamma", (0,), (-0.1,)),
    ("cfs_q", (0, 1), (-0.1,)),
    ("cb_beta", (0, 0.9999), (-0.1, 1)),
    ("la_tau", (0, 2.5), (-0.1,)),
    ("norm_tau", (0, 2.5), (-0.1,)),
    ("epochs", (1,), (0,)),
    ("batch_size", (1,), (0,)),
    ("learning_rate", (1e-9,), (0, -1)),
    ("momentum", (0, 0.99), (-0.1, 1)),
    ("weight_decay", (0,), (-0.1,)),
    ("lr_decay", (0.01, 1), (0, -1, 1.1)),
    ("frames", (1,), (0,)),
    ("frame_height", (224,), (7, 0)),
    ("frame_width", (224,), (7, 0)),
    ("crop", (8, 224), (7, 0)),
    ("max_angle", (0, 180), (-1, 181)),
    ("flip", (0, 1), (-0.1, 1.1)),
]


@pytest.mark.parametrize(("name", "good", "bad"), LIMITS)
def test_a_value_out_of_range_is_refused_by_its_option(
    name: str, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    def changed(value: float) -> VideoConfig:
        return replace(for_option(name), **{name: value})  # type: ignore[arg-type]

    for value in good:
        assert getattr(changed(value), name) == value
    for value in (*bad, float("nan"), float("inf"), float("-inf")):
        with pytest.raises(UserError, match=f"{option(name)} must be .*, not {value}"):
            changed(value)


def test_every_number_has_a_limit() -> None:
    numbers = {
        field.name
        for field in fields(VideoConfig)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers == {name for name, _, _ in LIMITS}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "small-resnext"}, "--start kinetics has no weights for --model small-resnext"),
        ({"crop": 225}, "--crop 225 is larger than a frame of 224 x 299; lower it"),
        ({"frame_width": 200}, "--crop 224 is larger than a frame of 224 x 200"),
        ({"milestones": (5, 3)}, "--milestones must be .* in growing order, not .5, 3."),
        ({"milestones": (5, 5)}, "--milestones must be .* in growing order"),
        ({"milestones": (0,)}, "--milestones must be epochs from 1 up"),
        ({"method": "cdb-w-fl"}, "--method cdb-w-fl is not one of ce, focal"),
        ({"method": "ldam-drw"}, "--method ldam-drw is not one of ce, focal"),
        ({"dataset": "kinetics"}, "--dataset kinetics is not one of egtea-verbs, motion-digits"),
        ({"model": "vgg"}, "--model vgg is not one of resnext101, small-resnext"),
        ({"start": "imagenet"}, "--start imagenet is not one of kinetics, random"),
        ({"precision": "float16"}, "--precision float16 is not one of float32, bfloat16"),
        ({"method": "cdb-s", "tau": "quadratic"}, "--tau quadratic is refused"),
        ({"method": "cdb-s", "tau": "-1"}, "--tau -1 is refused"),
        ({"method": "cdb-s", "tau": "nan"}, "--tau nan is refused"),
    ],
)
def test_a_contradiction_is_refused_by_its_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(EGTEA_VERBS, **change)


# The command line.


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipes_name_alone_is_its_run(recipe: str) -> None:
    assert TASK.parse([recipe]) == Arguments(config=RECIPES[recipe])
    assert RECIPES[recipe].dataset == recipe


def test_the_command_line_departs_from_the_recipe() -> None:
    words = "egtea-verbs --method cdb-s --tau linear --milestones 3 4 --no-normalize-weights "
    words += "--workers 2 --reader decord --cache there --precision bfloat16 --kinetics w.pth"
    arguments = TASK.parse(words.split())
    expected = replace(
        EGTEA_VERBS, method="cdb-s", tau="linear", milestones=(3, 4), normalize_weights=False,
        precision="bfloat16",
    )  # fmt: skip
    assert arguments.config == expected
    assert (arguments.workers, arguments.reader) == (2, "decord")
    assert (str(arguments.cache), str(arguments.kinetics)) == ("there", "w.pth")


@pytest.mark.parametrize("name", OTHERS)
def test_every_setting_is_an_option(name: str) -> None:
    config, value = for_option(name), OTHERS[name]
    words = ["egtea-verbs", "--method", config.method, "--start", config.start, option(name)]
    if isinstance(value, bool):
        words[-1] = f"--no-{name.replace('_', '-')}"
    else:
        words += map(str, value) if isinstance(value, tuple) else [str(value)]
    assert getattr(TASK.parse(words).config, name) == value


def refusal(parse: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="2"):
        parse()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["--learning-rte", "0.1"], "--learning-rate"),
        (["--mile-stones", "5"], "--milestones"),
        (["--frame-hight", "100"], "--frame-height"),
        (["--method", "cdb"], "cdb-w-ce"),
        (["--imbalance", "100"], "--imbalance"),
        (["--epochs", "ten"], "--epochs"),
        (["--reader", "opencv"], "decord"),
    ],
)
def test_an_unknown_option_or_choice_is_answered_with_the_nearest(
    words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nearest in refusal(lambda: TASK.parse(["egtea-verbs", *words]), capsys)


@pytest.mark.parametrize("words", [[], ["egtea"], ["mnist-lt"], ["--method", "ce"]])
def test_an_unknown_recipe_is_refused_with_the_known_ones(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"first argument .* one of: egtea-verbs, motion-digits\."):
        TASK.parse(words)


def test_help_names_the_recipes_and_then_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--help"], list(RECIPES)),
        (["egtea-verbs", "--help"], [*map(option, OTHERS), "--cache", "--reader", "--workers"]),
    ):
        with pytest.raises(SystemExit, match="0"):
            TASK.parse(words)
        text = capsys.readouterr().out
        assert [word for word in expected if word not in text] == []
