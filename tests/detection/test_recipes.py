import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from common.errors import UserError
from common.training.settings import DifficultySettings, option, plain
from detection.arguments import Arguments
from detection.evaluate import config_from
from detection.methods import METHODS
from detection.recipes import (
    DIGIT_SCENES,
    LVIS,
    RECIPES,
    ClassifierConfig,
    DetectionConfig,
    DetectionRecipe,
    DetectorConfig,
    group_name,
    resolved,
    run_name,
)
from detection.train import TASK
from tests.detection.runs import FIRST, SECOND
from tests.settings import used_by

PUBLISHED = sorted((Path(__file__).parents[2] / "results" / "digit-scenes").glob("*.json"))
CDB = replace(LVIS, method="cdb-w-ce")
USED_BY = used_by(DetectionConfig, "loss_reduction", "batch_size")
CLC: Any = RECIPES["lvis-clc"]
# Another value of every field, for a method that it is for.
OTHERS: dict[str, Any] = {
    "method": "cdb-s", "task": "mask", "seed": 1, "tau": "2", "tau_max": 1.0, "tau_power": 3.0,
    "eps": 0.1, "normalize_weights": False, "loss_reduction": "sum", "difficulty": "proposals",
    "difficulty_period": 2, "rfs_threshold": 0.01, "eql_threshold": 0.01, "epochs": 3,
    "batch_size": 16, "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.0,
    "milestones": (5, 7), "lr_decay": 0.5, "warmup_steps": 10, "gradient_clip": 1.0,
    "backbone": "small", "start": "imagenet", "min_size": (600, 800), "max_size": 1000,
    "flip": 0.25, "detections": 100, "score_threshold": 0.05, "precision": "bfloat16",
    "difficulty_average": 0.5, "weights_from_epoch": 2,
}  # fmt: skip
OTHERS_OF_SECOND: dict[str, Any] = OTHERS | {
    "method": "bags", "stage1": "cdb-w-ce", "stage1_epochs": 3, "focal_gamma": 1.0,
    "focal_alpha": 0.5, "bags_beta": 4.0, "calibration_threshold": 10,
}  # fmt: skip
# Of methods that these recipes do not have; their name and data set are the recipe's.
NO_OPTION = {"recipe", "dataset"}


def for_option(name: str, recipe: Any = LVIS) -> Any:
    """A configuration that the option can be changed in."""
    users = USED_BY.get(name, ("cdb-w-ce",))
    known = SECOND if isinstance(recipe, ClassifierConfig) else FIRST
    method = "cdb-w-ce" if "cdb-w-ce" in users else next(m for m in users if m in known)
    config = replace(recipe, method=method)
    return replace(config, start="random") if name == "backbone" else config


CASES = [("lvis", name) for name in OTHERS] + [
    ("lvis-clc", name)
    for name in OTHERS_OF_SECOND
    if name not in ("rfs_threshold", "eql_threshold")
]


def changed(recipe: str, name: str) -> tuple[Any, Any]:
    """A configuration and the same with another value of one field."""
    config = for_option(name, RECIPES[recipe])
    others = OTHERS if recipe == "lvis" else OTHERS_OF_SECOND
    return config, replace(config, **{name: others[name]})


# The paper's values.


def test_the_papers_settings() -> None:
    """Sec. 4.2.2: 12 epochs, steps after 8 and 11, 300 detections of any score for LVIS."""
    assert (LVIS.epochs, LVIS.milestones, LVIS.lr_decay) == (12, (8, 11), 0.1)
    assert (LVIS.learning_rate, LVIS.batch_size) == (0.01, 8)
    assert (LVIS.momentum, LVIS.weight_decay) == (0.9, 0.0001)
    assert (LVIS.warmup_steps, LVIS.gradient_clip) == (500, 35.0)
    assert (LVIS.detections, LVIS.score_threshold) == (300, 0.0)
    assert (LVIS.backbone, LVIS.start) == ("resnet50-fpn", "coco")
    # Of Li et al. 2020, whom the paper follows.
    assert (LVIS.min_size, LVIS.max_size, LVIS.flip) == ((800,), 1333, 0.5)
    assert (CDB.tau_max, CDB.eps, CDB.difficulty_period, resolved(CDB).tau) == (
        5.0, 0.01, 1, "sigmoid",
    )  # fmt: skip


def test_the_learning_rate_falls_to_a_tenth_after_8_and_after_11_epochs() -> None:
    rates = [LVIS.learning_rate_at(epoch, 1.0) for epoch in range(12)]
    assert rates == pytest.approx([0.01] * 8 + [0.001] * 3 + [0.0001])


@pytest.mark.parametrize(("batch", "rate"), [(1, 0.00125), (4, 0.005), (8, 0.01), (32, 0.04)])
def test_the_learning_rate_grows_with_the_batch(batch: int, rate: float) -> None:
    assert replace(LVIS, batch_size=batch).learning_rate_at(0, 1.0) == pytest.approx(rate)


def test_the_warm_up_grows_in_500_steps_from_a_third_to_the_whole() -> None:
    assert LVIS.warm_up(0) == pytest.approx(1 / 3)
    assert LVIS.warm_up(250) == pytest.approx(2 / 3)
    assert LVIS.warm_up(499) == pytest.approx(1 / 3 + 2 / 3 * 499 / 500)
    assert [LVIS.warm_up(step) for step in (500, 501, 10**6)] == [1.0] * 3
    assert replace(LVIS, warmup_steps=0).warm_up(0) == 1.0


def test_the_methods_are_those_of_tables_5_and_6() -> None:
    first = [replace(RECIPES["lvis"], method=m).table_method for m in FIRST]
    assert first == ["ce", "rfs", "eql", "cdb-s", "cdb-w-ce"]
    second = [replace(CLC, method=m).table_method for m in SECOND]
    assert second == ["focal-clc", "lrw-clc", "bags-clc", "cdb-w-ce-clc", "simcal", "calib"]
    assert set(FIRST) | set(SECOND) == set(METHODS)


def test_the_variant_tells_what_the_weights_began_as() -> None:
    assert LVIS.variant == "pretrained=coco"
    assert replace(LVIS, start="imagenet").variant == "pretrained=imagenet"
    assert CLC.variant == "pretrained=lvis-ce"
    assert replace(CLC, stage1="cdb-w-ce").variant == "pretrained=lvis-cdb-w-ce"
    assert RECIPES["digit-scenes-clc"].variant == "pretrained=digit-scenes-ce"
    steadied = {"difficulty_average": 0.9, "weights_from_epoch": 8}
    assert replace(CDB, **steadied).variant == "pretrained=coco average=0.9 from-epoch=8"
    assert replace(CLC, **steadied).variant == "pretrained=lvis-ce average=0.9 from-epoch=8"


def test_the_rendered_scenes_are_not_mirrored_as_a_mirrored_digit_is_another() -> None:
    assert DIGIT_SCENES.flip == RECIPES["digit-scenes-clc"].flip == 0.0


# Second stages.


def first_of(config: DetectionConfig) -> DetectorConfig:
    assert isinstance(config, ClassifierConfig)
    return config.stage1_config()


def test_the_first_stage_is_the_recipes_run_of_the_same_task_seed_and_network() -> None:
    assert first_of(CLC) == resolved(LVIS)
    own: dict[str, Any] = {"task": "mask", "seed": 3, "start": "imagenet", "min_size": (600,)}
    second = replace(CLC, method="bags", epochs=2, learning_rate=0.5, stage1="cdb-w-ce", **own)
    assert first_of(second) == resolved(replace(LVIS, method="cdb-w-ce", **own))
    assert first_of(replace(CLC, stage1_epochs=2)) == resolved(replace(LVIS, epochs=2))


@pytest.mark.parametrize("recipe", ["lvis", "digit-scenes"])
def test_a_second_stage_has_its_first_stages_values(recipe: str) -> None:
    first, second = (plain(resolved(RECIPES[name])) for name in (recipe, f"{recipe}-clc"))
    differing = {name for name, value in first.items() if second[name] != value}
    assert differing == {"recipe", "method"}


@pytest.mark.parametrize("recipe", ["lvis-clc", "digit-scenes-clc"])
@pytest.mark.parametrize("method", ["simcal", "calib"])
def test_a_calibration_is_plain_sgd_whose_rate_falls_at_the_start_of_epochs_8_and_11(
    recipe: str, method: Any
) -> None:
    config = resolved(replace(RECIPES[recipe], method=method))
    assert (config.momentum, config.weight_decay, config.gradient_clip) == (0.0, 0.0, 0.0)
    assert config.warm_up(0) == 1.0
    rate = RECIPES[recipe].learning_rate
    epochs = [config.learning_rate_at(epoch, 1.0) / rate for epoch in range(12)]
    assert epochs == pytest.approx([1.0] * 7 + [0.1] * 3 + [0.01] * 2)
    own = replace(RECIPES[recipe], method=method, momentum=0.9, milestones=(8, 11))
    assert (resolved(own).momentum, resolved(own).milestones) == (0.9, (8, 11))
    assert "momentum-0.9" in run_name(own)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_runs_settings_are_still_those_of_its_name(path: Path) -> None:
    record = json.loads(path.read_bytes())
    config = config_from(record["config"])
    assert resolved(config) == config
    assert config_from(plain(config)) == config
    assert plain(config).items() <= record["config"].items()
    assert run_name(config) == record["run"]
    options = ("method", "task", "seed", "tau", "rfs_threshold")
    changed_options = {name: getattr(config, name) for name in options if hasattr(config, name)}
    assert resolved(replace(RECIPES[config.recipe], **changed_options)) == config


# Names.


@pytest.mark.parametrize("recipe", ["lvis", "lvis-clc"])
def test_every_changed_field_gives_another_name(recipe: str) -> None:
    names = set()
    cases = [name for own, name in CASES if own == recipe]
    for name in cases:
        usual, other = changed(recipe, name)
        assert getattr(usual, name) != getattr(other, name)
        assert run_name(other) != run_name(usual)
        names.add(run_name(other))
    assert len(names) == len(cases)


def test_every_field_is_tried() -> None:
    assert OTHERS.keys() == {field.name for field in fields(DetectorConfig)} - NO_OPTION
    tried = {name for recipe, name in CASES if recipe == "lvis-clc"}
    assert tried == {field.name for field in fields(ClassifierConfig)} - NO_OPTION


def test_runs_of_different_methods_stages_and_tasks_have_different_names() -> None:
    runs = [
        replace(RECIPES[recipe], method=method, task=task)
        for recipe, methods in (("lvis", FIRST), ("lvis-clc", SECOND))
        for method in methods
        for task in ("box", "mask")
    ]
    assert len({run_name(run) for run in runs}) == len(runs) == 2 * (len(FIRST) + len(SECOND))
    assert {group_name(run) for run in runs} == {"lvis-v0.5"}


def test_a_default_that_is_spelled_out_gives_the_same_name() -> None:
    assert run_name(replace(CDB, tau="sigmoid")) == run_name(CDB)
    assert run_name(replace(CDB, tau="2")) == run_name(replace(CDB, tau="2.0"))


@pytest.mark.parametrize(("recipe", "name"), CASES)
def test_a_configuration_is_the_same_after_json(recipe: str, name: str) -> None:
    config = changed(recipe, name)[1]
    assert type(config)(**json.loads(json.dumps(plain(config)))) == config


# What is refused.


@pytest.mark.parametrize("recipe", ["lvis", "lvis-clc"])
def test_an_option_of_another_method_is_refused_by_name(recipe: str) -> None:
    others = OTHERS if recipe == "lvis" else OTHERS_OF_SECOND
    config = RECIPES[recipe]
    tried = 0
    for method in FIRST if recipe == "lvis" else SECOND:
        for name, users in USED_BY.items():
            if not hasattr(config, name) or method in users:
                continue
            with pytest.raises(
                UserError, match=f"{option(name)} .* no effect on --method {method}"
            ):
                replace(config, **{"method": method, name: others[name]})
            tried += 1
    assert tried > 20


def test_the_options_of_the_balancer_are_those_of_the_papers_methods() -> None:
    users = {name for name, methods in USED_BY.items() if "cdb-w-ce" in methods}
    assert users >= {
        "tau",
        "tau_max",
        "eps",
        "normalize_weights",
        "difficulty",
        "difficulty_period",
    }
    following = [name for name, m in METHODS.items() if issubclass(m.Settings, DifficultySettings)]
    assert following == ["cdb-s", "cdb-w-ce"]


INF = float("inf")
LIMITS: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
    ("seed", (0,), (-1,)), ("tau_max", (0.0,), (-0.1,)), ("tau_power", (1.0,), (0.9,)),
    ("eps", (0.001, 0.999), (0.0, 1.0)), ("difficulty_period", (1,), (0,)),
    ("difficulty_average", (0.0, 0.99), (-0.1, 1.0)), ("weights_from_epoch", (0, 2), (-1,)),
    ("rfs_threshold", (1e-9, 1.0), (0.0, 1.1)), ("eql_threshold", (1e-9, 1.0), (0.0, 1.1)),
    ("epochs", (1,), (0,)), ("batch_size", (1,), (0,)), ("learning_rate", (1e-9,), (0.0,)),
    ("momentum", (0.0, 0.99), (-0.1, 1.0)), ("weight_decay", (0.0,), (-0.1,)),
    ("lr_decay", (1e-9, 1.0), (0.0, 1.1)), ("warmup_steps", (0,), (-1,)),
    ("gradient_clip", (0.0,), (-0.1,)), ("max_size", (800,), (31,)),
    ("flip", (0.0, 1.0), (-0.1, 1.1)),
    ("detections", (1,), (0,)), ("score_threshold", (0.0, 0.99), (-0.1, 1.0)),
    ("stage1_epochs", (1,), (0,)), ("focal_gamma", (0.0,), (-0.1,)),
    ("focal_alpha", (0.0, 1.0), (-0.1, 1.1)), ("bags_beta", (0.0,), (-0.1,)),
    ("calibration_threshold", (0,), (-1,)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "good", "bad"), LIMITS)
def test_a_number_out_of_its_range_is_refused_by_its_option(
    name: str, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    recipe = LVIS if name in OTHERS else CLC

    def with_value(value: float) -> DetectionConfig:
        return replace(for_option(name, recipe), **{name: value})

    for value in good:
        assert getattr(with_value(value), name) == value
    for value in (*bad, float("nan"), INF, -INF):
        with pytest.raises(UserError, match=f"{option(name)} must be .*, not {value}"):
            with_value(value)


def test_every_number_has_a_limit() -> None:
    numbers = {
        field.name
        for of in (DetectorConfig, ClassifierConfig)
        for field in fields(of)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers | {"stage1_epochs"} == {name for name, _, _ in LIMITS}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "small"}, "--start coco has no weights for --backbone small; use --start"),
        ({"milestones": (11, 8)}, "--milestones must be .* in growing order, not .11, 8."),
        ({"milestones": (0, 8)}, "--milestones must be epochs from 1 up"),
        ({"min_size": ()}, r"--min-size \(\) must be pixels from 32 to --max-size 1333"),
        ({"min_size": (31, 800)}, "--min-size .31, 800. must be pixels from 32"),
        ({"min_size": (800, 1334)}, "to --max-size 1333"),
        ({"max_size": 700}, "--min-size .* must be pixels from 32 to --max-size 700"),
        ({"method": "cdb-s", "difficulty": "proposals", "difficulty_period": 2},
         "--difficulty-period 2 has no effect on --difficulty proposals"),
        ({"method": "cdb-s", "weights_from_epoch": 3, "difficulty_period": 2},
         "--weights-from-epoch 3 counts measurements; use it with --difficulty-period 1, not 2"),
        ({"method": "bags"}, "--method bags is not one of ce, rfs, eql, cdb-s, cdb-w-ce"),
        ({"method": "cdb-w-fl"}, "--method cdb-w-fl is not one of"),
        ({"dataset": "coco"}, "--dataset coco is not one of lvis-v0.5, digit-scenes"),
        ({"task": "keypoint"}, "--task keypoint is not one of box, mask"),
        ({"backbone": "vgg"}, "--backbone vgg is not one of resnet50-fpn, small"),
        ({"start": "kinetics"}, "--start kinetics is not one of coco, imagenet, random"),
        ({"precision": "float16"}, "--precision float16 is not one of float32, bfloat16"),
        ({"method": "cdb-s", "difficulty": "loss"}, "--difficulty loss is not one of ap"),
        ({"method": "cdb-s", "tau": "quadratic"}, "--tau quadratic is refused"),
        ({"method": "cdb-s", "tau": "-1"}, "--tau -1 is refused"),
        ({"loss_reduction": "sum", "method": "eql"}, "--loss-reduction sum has no effect"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_by_its_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(LVIS, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "ce"}, "--method ce is not one of focal, lrw, bags, cdb-w-ce, simcal, calib"),
        ({"stage1": "rfs"}, "--stage1 rfs is not one of ce, cdb-w-ce"),
        ({"method": "simcal", "batch_size": 4}, "--batch-size 4 has no effect on --method simcal"),
        ({"method": "lrw", "focal_alpha": 0.5}, "--focal-alpha 0.5 .* out, or choose focal"),
    ],
)  # fmt: skip
def test_a_contradiction_of_a_second_stage_is_refused_by_its_name(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        replace(CLC, **change)


# The command line.


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipes_name_alone_is_its_run(recipe: str) -> None:
    assert TASK.parse([recipe]) == Arguments(config=RECIPES[recipe])
    assert RECIPES[recipe].recipe == recipe
    assert recipe in get_args(DetectionRecipe)


@pytest.mark.parametrize(("recipe", "name"), CASES)
def test_every_setting_is_an_option(recipe: str, name: str) -> None:
    usual, other = changed(recipe, name)
    value = getattr(other, name)
    words = [recipe, "--method", usual.method, "--start", usual.start, option(name)]
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
        (["--dificulty", "ap"], "--difficulty"),
        (["--method", "cdb"], "cdb-w-ce"),
        (["--epochs", "ten"], "--epochs"),
        (["--recipe", "lvis-clc"], "--recipe"),
        # AP has no number of samples.
        (["--difficulty-prior", "1"], "--difficulty-prior"),
    ],
)
def test_an_unknown_option_or_choice_is_answered_with_the_nearest(
    words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nearest in refusal(lambda: TASK.parse(["lvis", *words]), capsys)


@pytest.mark.parametrize("words", [[], ["coco"], ["egtea-verbs"], ["--method", "ce"]])
def test_an_unknown_recipe_is_refused_with_the_known_ones(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"first argument .* one of: lvis, lvis-clc, digit"):
        TASK.parse(words)
