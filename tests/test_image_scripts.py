"""The experiments on images in files: ImageNet-LT's tables, and the rendered digit images."""

import importlib
import inspect
import shlex
from pathlib import Path

import pytest

from classification.config import ClassificationConfig
from classification.image_recipes import IMAGE_RECIPES, OltrConfig
from classification.train import TASK
from tests.test_scripts import (
    FAKE_PYTHON,
    ROOT,
    Cell,
    call,
    configs_of,
    dry_run,
    header,
    option,
    printed_cells,
    runs_of,
    write_program,
)

FOLDER = ROOT / "classification/experiments"
TABLES = {number: FOLDER / f"imagenet_table{number}.sh" for number in "123"}
DIGITS = FOLDER / "digit_images.sh"
CROPS = FOLDER / "photo_crops.sh"
SCRIPTS = [*TABLES.values(), DIGITS, CROPS]
TABLE_1 = ("ce", "focal", "eql", "oltr", "class-aware", "cdb-s", "cdb-w-fl", "cdb-w-ce")


def cells(configs: list[ClassificationConfig]) -> set[Cell]:
    """Method, variant and condition, as the record names them."""
    return {(c.table_method, c.variant, c.condition) for c in configs}


def test_imagenet_table_1_runs_the_papers_cells() -> None:
    printed = printed_cells("1", "imagenet-lt")
    assert len(printed) == 8
    configs = configs_of(TABLES["1"])
    assert cells(configs) == printed
    assert len(configs) == len(printed)


@pytest.mark.parametrize(("table", "method"), [("2", "cdb-w-ce"), ("3", "cdb-s")])
def test_imagenet_tables_2_and_3_run_the_papers_cells_and_two_sigmoids(
    table: str, method: str
) -> None:
    printed = printed_cells(table, "imagenet-lt")
    assert len(printed) == 9
    extra = {(method, f"tau={tau}", "256") for tau in ("sigmoid-accv", "sigmoid-code")}
    assert cells(configs_of(TABLES[table])) == printed | extra


@pytest.mark.parametrize("script", TABLES.values(), ids=lambda path: path.stem)
def test_imagenet_runs_are_the_recipes_settings_with_three_seeds(script: Path) -> None:
    for config in configs_of(script):
        recipe = IMAGE_RECIPES[config.recipe_name]
        assert (config.epochs, config.batch_size) == (recipe.epochs, recipe.batch_size)
        assert (config.recipe_name == "imagenet-lt-oltr") == (config.method == "oltr")
    assert {option(words, "--seed") for words in dry_run(script)} == {"0", "1", "2"}
    assert "not measured" in header(script, "Cost")
    assert header(script, "Check") == "data_prep.imagenet_lt check"


def test_table_1_says_that_its_ce_runs_make_figure_1() -> None:
    assert "Figure 1" in header(TABLES["1"], "Paper")
    (ce,) = [config for config in configs_of(TABLES["1"]) if config.method == "ce"]
    assert ce.condition == "256"


@pytest.mark.parametrize("script", TABLES.values(), ids=lambda path: path.stem)
def test_cache_workers_and_size_reach_every_imagenet_run(script: Path, tmp_path: Path) -> None:
    cache, size = str(tmp_path / "my squares"), "--stored-side 72 --crop 64"
    commands = dry_run(script, "--seeds", "0", CACHE=cache, WORKERS="3", SIZE=size)
    for words in commands:
        assert (option(words, "--cache"), option(words, "--workers")) == (cache, "3")
        assert (option(words, "--stored-side"), option(words, "--crop")) == ("72", "64")
    plain = dry_run(script, "--seeds", "0")
    assert all("--cache" not in words and "--crop" not in words for words in plain)
    assert all(int(option(words, "--workers")) >= 1 for words in plain)


@pytest.mark.parametrize("script", TABLES.values(), ids=lambda path: path.stem)
def test_imagenet_on_several_gpus_goes_through_torchrun(script: Path) -> None:
    for words in dry_run(script, "--gpus", "4", "--seeds", "0", WORKERS="1"):
        assert option(words, "--nproc-per-node") == "4"
        assert words[words.index("--") + 1] == "classification.train"


@pytest.mark.parametrize("script", [TABLES["1"], DIGITS], ids=["imagenet", "digits"])
def test_oltrs_first_stage_can_be_shortened(script: Path) -> None:
    (words,) = dry_run(script, METHODS="oltr", SEEDS="0", STAGE1_EPOCHS="7")
    config = TASK.parse(words[3:]).config
    assert isinstance(config, OltrConfig)
    assert config.stage1_config().epochs == 7


def test_smoke_of_digit_images_has_both_stages_of_oltr_short() -> None:
    weighted, oltr = configs_of(DIGITS, smoke=True)
    assert weighted.method == "cdb-w-ce"
    assert isinstance(oltr, OltrConfig)
    assert (oltr.epochs, oltr.stage1_config().epochs) == (2, 2)


def test_smoke_of_imagenet_is_of_small_images() -> None:
    for script in TABLES.values():
        (run,) = runs_of(script, smoke=True)
        assert (run.config.epochs, getattr(run.config, "crop", None)) == (2, 32)


def test_digit_images_run_every_method_of_table_1_from_one_cache() -> None:
    configs = configs_of(DIGITS)
    assert {config.method for config in configs} == set(TABLE_1)
    assert {config.condition for config in configs} == {"80"}
    assert {config.dataset for config in configs} == {"digit-images"}
    commands = dry_run(DIGITS)
    assert len(commands) == len(TABLE_1)
    assert {option(words, "--cache") for words in commands} == {"runs/image-cache"}


def test_cache_of_digit_images_lies_where_the_runs_go_or_is_named(tmp_path: Path) -> None:
    commands = dry_run(DIGITS, "--out", str(tmp_path))
    assert {option(words, "--cache") for words in commands} == {str(tmp_path / "image-cache")}
    for cache, place in ((None, "runs/image-cache"), ("mine", str(tmp_path / "mine"))):
        settings = {} if cache is None else {"CACHE": cache}
        result = call(DIGITS, "--dry-run", cwd=tmp_path, METHODS="ce", **settings)
        assert option(shlex.split(result.stdout), "--cache") == place


@pytest.mark.parametrize("mode", [(), ("--slurm",)], ids=["launch", "slurm"])
def test_relative_cache_is_meant_from_where_run_all_was_called(
    tmp_path: Path, mode: tuple[str, ...]
) -> None:
    words = ("--dry-run", "--no-setup", *mode, "--seeds", "0", "--out", "here", "imagenet_table1")
    result = call(ROOT / "run_all.sh", *words, cwd=tmp_path, CACHE="squares")
    assert result.returncode == 0, result.stderr
    runs = [shlex.split(line) for line in result.stdout.splitlines() if "--cache" in line]
    assert len(runs) == len(TABLE_1)
    assert {option(words, "--cache") for words in runs} == {str(tmp_path / "squares")}
    assert {option(words, "--out") for words in runs} == {str(tmp_path / "here")}


def test_taus_of_digit_images_are_swept_for_the_methods_that_have_one() -> None:
    commands = dry_run(DIGITS, METHODS="ce cdb-s", TAUS="1.0 sigmoid")
    with_tau = [option(words, "--tau") for words in commands if "--tau" in words]
    assert (len(commands), with_tau) == (3, ["1.0", "sigmoid"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_check_is_a_command_with_a_folder(script: Path) -> None:
    module, command = header(script, "Check").split()
    function = getattr(importlib.import_module(module), command)
    assert "folder" in inspect.signature(function).parameters


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_data_is_checked_before_the_first_run(script: Path, tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    calls = tmp_path / "calls"
    result = call(
        script, "--seeds", "0", "-j", "4", "--out", str(tmp_path / "out"), "--", "--data", "/d",
        PYTHON=str(python), CALLS=str(calls), WORKERS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first, *trained = calls.read_text().splitlines()
    assert shlex.split(first) == ["-m", *header(script, "Check").split(), "--folder", "/d"]
    assert len(trained) == len(dry_run(script, "--seeds", "0"))
    if script == CROPS:
        assert {option(shlex.split(line), "--data") for line in trained} == {"/d/split-0"}
    else:
        assert all(line.endswith(" --data /d") for line in trained)


def test_each_seed_of_photo_crops_has_lists_and_squares_of_its_own() -> None:
    for place, settings, more in (
        ("data/photo-crops", {}, ()),
        ("/mine", {"CDB_PHOTO_CROPS": "/mine"}, ()),
        ("/d", {"CDB_PHOTO_CROPS": "/mine"}, ("--", "--data", "/d", "--patience", "5")),
    ):
        commands = dry_run(CROPS, *more, **settings)
        for words in commands:
            lists = f"{place}/split-{option(words, '--seed')}"
            assert words.count("--data") == 1
            assert (option(words, "--data"), option(words, "--cache")) == (
                lists,
                f"{lists}/squares",
            )
            assert ("--patience" in words) == bool(more)


def test_photo_crops_compares_four_methods_in_one_group() -> None:
    configs = configs_of(CROPS)
    assert [config.method for config in configs] == [
        "ce", "balanced-softmax", "cdb-s", "cdb-w-ce",
    ]  # fmt: skip
    assert {run.group for run in runs_of(CROPS)} == {"photo-crops"}
    assert {config.starts_pretrained for config in configs} == {True}
