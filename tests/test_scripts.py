"""The shell scripts, driven with stand-ins for Python, Slurm and the installer."""

import contextlib
import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from classification import train as classification_train
from classification.arguments import Arguments
from classification.config import ClassificationConfig
from classification.recipes import (
    CIFAR100_LT,
    CifarMethod,
    DecoupledConfig,
    MnistConfig,
    group_name,
    resolved,
    run_name,
)
from common.errors import run_main
from common.training.arguments import RunArguments
from common.training.settings import RunConfig
from common.training.task import Task
from data_prep import cifar100
from detection import recipes as detection_recipes
from detection import train as detection_train
from detection.arguments import Arguments as DetectionArguments
from detection.sets import CONDITIONS
from video import recipes as video_recipes
from video import train as video_train
from video.arguments import Arguments as VideoArguments
from video.data import CONDITION as VIDEO_CONDITION
from video.recipes import VideoConfig

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(ROOT.glob("*/experiments/*.sh"))
RUNNABLE = [ROOT / name for name in ("setup.sh", "run_all.sh", "run_tests.sh", ".ci/run")]
TASK = ROOT / "common/launching/slurm_task.sh"
CLUSTER = ROOT / "tests/slurm/cluster.sh"
VIDEO = {
    name: ROOT / f"video/experiments/{name}.sh"
    for name in ("egtea_tables", "motion_digits", "motion_digits_steadiers")
}
DETECTION = {
    name: ROOT / f"detection/experiments/{name}.sh"
    for name in ("lvis_table5", "lvis_table6", "digit_scenes")
}
IMAGES = {
    name: ROOT / f"classification/experiments/{name}.sh"
    for name in (
        "imagenet_table1",
        "imagenet_table2",
        "imagenet_table3",
        "digit_images",
        "digit_images_steadiers",
        "photo_crops",
    )
}
READINGS = ROOT / "classification/experiments/mnist_readings.sh"
STEADIERS = ROOT / "classification/experiments/mnist_steadiers.sh"
RECIPE = ROOT / "classification/experiments/mnist_recipe.sh"
TABLE1 = ROOT / "classification/experiments/mnist_table1.sh"
TABLE2 = ROOT / "classification/experiments/mnist_table2.sh"
TABLE3 = ROOT / "classification/experiments/mnist_table3.sh"
PRINTED = ROOT / "classification/experiments/mnist_printed.sh"
CIFAR = {
    name: ROOT / f"classification/experiments/cifar100_{name}.sh"
    for name in (
        "table1",
        "table2",
        "table3",
        "table4",
        "figures",
        "short",
        "readings",
        "recipe",
        "steadiers",
        "today",
    )
}

# What would change the scripts.
CHANGES = (
    "SEEDS", "IMBALANCES", "METHODS", "TAUS", "READINGS", "REDUCTIONS", "STAGE1", "STAGE2",
    "STAGE1_EPOCHS", "CLASSIFIERS", "AT_200", "GPUS", "CACHE", "NETWORK", "WORKERS",
    "RFS_THRESHOLD", "PYTHON", "DECAYS", "BRIDGE",
    "AUGMENTATIONS", "AUGMENTED",
    "CONDA_PREFIX", "TASK", "ONE_FRAME", "CDB_CIFAR100", "CDB_EGTEA", "CDB_MOTION_DIGITS",
    "WARNING", "SIZE", "CDB_IMAGENET", "CDB_IMAGENET_LT", "CDB_DIGIT_IMAGES",
    "CDB_KINETICS", "CDB_LVIS", "CDB_COCO", "CDB_DIGIT_SCENES", "CDB_PHOTO_CROPS",
)  # fmt: skip

CHECK = "-m data_prep.cifar100 check"

# Stands in for the environment's Python: runs the launcher, notes everything else. The check of the
# data answers with FAKE_CHECK, its exit code.
FAKE_PYTHON = f"""#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exit 0 ;;
  "-m common.launching.local") exec {shlex.quote(sys.executable)} "$@" ;;
esac
echo "$*" >>"$CALLS"
if [[ $2 == data_prep.* && -n ${{FAKE_CHECK:-}} ]]; then
  echo "error: data/x is missing; fetch it." >&2
  exit "$FAKE_CHECK"
fi
echo "epoch 1/1"
if [[ -n ${{FAKE_FAIL:-}} && "$*" == *"$FAKE_FAIL"* ]]; then exit 3; fi
if [[ -n ${{FAKE_SLEEP:-}} && $2 == classification.train ]]; then exec sleep "$FAKE_SLEEP"; fi
"""

# Takes notes and gives numbers from 12 up; refuses the job called REFUSED.
FAKE_SBATCH = """#!/usr/bin/env bash
if [[ -n ${REFUSED:-} && " $* " == *" --job-name=$REFUSED "* ]]; then
  echo "sbatch: error: a line before" >&2
  echo "sbatch: error: Batch job submission failed: no such partition" >&2
  exit 1
fi
printf '%s\\n' "$@" -- >>"$CALLS"
echo "sbatch: a word of the site" >&2
echo "$((11 + $(grep -c '^--$' "$CALLS")))"
"""

FAKE_SCANCEL = """#!/usr/bin/env bash
echo "scancel $*" >>"$CALLS"
"""

# A cluster whose arrays may have SIZE tasks; as to requeueing, it takes notes.
FAKE_SCONTROL = """#!/usr/bin/env bash
case $* in
  "show config") echo "MaxArraySize            = ${SIZE:-1001}" ;;
  *) echo "scontrol $*" >>"$CALLS" ;;
esac
"""

# Stands in for the system's Python 3.11: makes an environment whose installers only take notes.
FAKE_SYSTEM_PYTHON = """#!/usr/bin/env bash
[[ $1 == -m && $2 == venv ]] || exit 0
mkdir -p "$3/bin"
cat >"$3/bin/python" <<'VENV'
#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
cat >.venv/bin/uv <<'UV'
#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
sleep "${FAKE_SLEEP:-0}"
exit "${FAKE_UV_CODE:-0}"
UV
chmod +x .venv/bin/uv
VENV
chmod +x "$3/bin/python"
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def call(
    script: Path, *arguments: str, cwd: Path | str = ROOT, **environment: str
) -> "subprocess.CompletedProcess[str]":
    clean = {k: v for k, v in os.environ.items() if k not in CHANGES}
    return subprocess.run(
        [str(script), *arguments],
        cwd=cwd,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_one_sentence(result: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


def header(script: Path, name: str) -> str:
    lines = script.read_text().splitlines()
    found = [line.removeprefix(f"# {name}:").strip() for line in lines if f"# {name}:" in line]
    assert len(found) == 1, f"{script.name} needs one header line '# {name}:'"
    return found[0]


# ---- every script


@pytest.mark.parametrize("script", RUNNABLE + EXPERIMENTS, ids=lambda path: path.name)
def test_script_is_executable(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize(
    "script",
    [*RUNNABLE, *EXPERIMENTS, ROOT / "common/launching/experiment.sh", TASK, CLUSTER],
    ids=lambda path: path.name,
)
def test_script_is_valid_bash(script: Path) -> None:
    result = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.name)
def test_experiment_states_what_it_is_and_costs(script: Path) -> None:
    assert header(script, "Experiment").startswith(script.stem + " - ")
    assert header(script, "Paper").startswith(("Table ", "Figure ", "Sec. "))
    assert header(script, "Data")
    cost = header(script, "Cost")
    assert any(character.isdigit() for character in cost), "the cost is a number"


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.name)
def test_experiment_on_data_that_must_be_fetched_has_a_check(script: Path) -> None:
    fetched = "none to fetch" not in header(script, "Data")
    assert ("\n# Check: " in script.read_text()) == fetched


def test_check_of_the_cifar_experiments_refuses_a_missing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {header(script, "Check") for script in CIFAR.values()}
    assert checks == {CHECK.removeprefix("-m ")}
    folder = str(tmp_path / "nothing")
    monkeypatch.setattr(sys, "argv", [*CHECK.split()[1:], "--folder", folder])
    with pytest.raises(SystemExit) as ended:
        run_main(cifar100.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {folder} is missing; ")


# ---- experiments


def dry_run(script: Path, *arguments: str, **environment: str) -> list[list[str]]:
    result = call(script, "--dry-run", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


RUNS = {
    READINGS: 16 * 2 * 3,
    RECIPE: 12 * 5 * 2 * 5,
    STEADIERS: 52 * 2 * 2,
    TABLE1: 9 * 2 * 10,
    TABLE2: 11 * 2 * 10,
    TABLE3: 11 * 2 * 10,
    PRINTED: (7 + 11 * 2) * 2 * 3,
    CIFAR["table1"]: 12 * 2 * 3,
    CIFAR["table2"]: 11 * 5 * 3,
    CIFAR["table3"]: 11 * 5 * 3,
    CIFAR["table4"]: 3 * 2 * 3 + 3 * 2 * 3 * 2 * 3,
    CIFAR["figures"]: 3 * 3,
    CIFAR["short"]: 6 * 2 + 2 + 4 + 2 * 3,
    CIFAR["readings"]: 3 * 2 + 2,
    CIFAR["recipe"]: 39 * 3 + 4,
    CIFAR["steadiers"]: 52 * 3,
    CIFAR["today"]: (10 * 3 + 3 + 6 * 2) * 3,
    IMAGES["imagenet_table1"]: 8 * 3,
    IMAGES["imagenet_table2"]: 11 * 3,
    IMAGES["imagenet_table3"]: 11 * 3,
    IMAGES["digit_images"]: 8,
    IMAGES["digit_images_steadiers"]: 52,
    IMAGES["photo_crops"]: 4 * 3,
    VIDEO["egtea_tables"]: 6 * 3,
    VIDEO["motion_digits"]: 3 + 1,
    VIDEO["motion_digits_steadiers"]: 52,
    DETECTION["lvis_table5"]: (4 + 7) * 3,
    DETECTION["lvis_table6"]: (4 + 4) * 3,
    DETECTION["digit_scenes"]: 3 + 1,
}


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.stem)
def test_dry_run_prints_every_run_once(script: Path) -> None:
    commands = dry_run(script)
    assert len(commands) == len({tuple(words) for words in commands}) == RUNS[script]
    assert {tuple(words[1:3]) for words in commands} == {("-m", f"{task_of(script)}.train")}
    data = "image" if script == IMAGES["photo_crops"] else script.stem.split("_")[0]
    assert {words[3].split("-")[0] for words in commands} == {data}


TASK_OF: dict[str, Task[Any, Any, Any]] = {
    task.name: task for task in (classification_train.TASK, detection_train.TASK, video_train.TASK)
}


def task_of(script: Path) -> str:
    return script.parts[-3]


def smoke_settings(script: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(header(script, "Smoke")))


@cache
def arguments_of(script: Path, *, smoke: bool = False) -> tuple[RunArguments, ...]:
    """The runs of an experiment with seed 0, or of its smoke job, as the trainer reads them."""
    if smoke:
        commands = dry_run(script, "--", "--epochs", "2", **smoke_settings(script))
    else:
        commands = dry_run(script, "--seeds", "0")
    return tuple(TASK_OF[task_of(script)].parse(words[3:]) for words in commands)


def runs_of(script: Path, *, smoke: bool = False) -> list[Arguments]:
    """The same of a classification experiment."""
    runs = arguments_of(script, smoke=smoke)
    return [run for run in runs if isinstance(run, Arguments)]


def configs_of(script: Path, *, smoke: bool = False) -> list[ClassificationConfig]:
    return [resolved(arguments.config) for arguments in runs_of(script, smoke=smoke)]


def place_of(arguments: RunArguments) -> tuple[str, str]:
    """Group and name of a run."""
    if isinstance(arguments, VideoArguments):
        config = arguments.config
        return arguments.group or config.dataset, video_recipes.run_name(config)
    if isinstance(arguments, DetectionArguments):
        detector = arguments.config
        group = arguments.group or detection_recipes.group_name(detector)
        return group, detection_recipes.run_name(detector)
    assert isinstance(arguments, Arguments)
    return arguments.group or group_name(arguments.config), run_name(arguments.config)


def config_of(arguments: RunArguments) -> RunConfig:
    """Its settings, resolved."""
    if isinstance(arguments, VideoArguments):
        return video_recipes.resolved(arguments.config)
    if isinstance(arguments, DetectionArguments):
        return detection_recipes.resolved(arguments.config)
    assert isinstance(arguments, Arguments)
    return resolved(arguments.config)


@pytest.mark.parametrize("smoke", [False, True], ids=["full", "smoke"])
@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_command_is_a_run_of_its_own_to_the_trainer(script: Path, smoke: bool) -> None:
    runs = arguments_of(script, smoke=smoke)
    assert len({place_of(run) for run in runs}) == len(runs)
    assert {run.out for run in runs} == {Path("runs")}
    assert {config_of(run).seed for run in runs} == {0}


@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.stem)
def test_smoke_is_a_few_runs_of_two_epochs_in_both_stages(script: Path) -> None:
    configs = [config_of(run) for run in arguments_of(script, smoke=True)]
    assert 1 <= len(configs) <= (9 if script.stem.startswith("mnist") else 2)
    assert {config.epochs for config in configs} == {2}
    for config in configs:
        if isinstance(config, DecoupledConfig | detection_recipes.ClassifierConfig):
            first = config.stage1_config()
            assert first.epochs == 2
            assert first in configs, "the first stage is one of the smoke job's runs"


def test_smoke_has_every_kind_of_recipe() -> None:
    words = {config_of(run).recipe_name for s in EXPERIMENTS for run in arguments_of(s, smoke=True)}
    assert words >= {"mnist-lt", "cifar100-lt", "cifar100-lt-crt", "cifar100-lt-short"}
    assert "cifar100-lt-code" in words
    assert words >= video_recipes.RECIPES.keys()
    assert words >= {"lvis", "digit-scenes", "digit-scenes-clc"}
    assert any(word.endswith("-lws") for word in words)


def test_table_1_covers_the_methods_imbalances_and_seeds() -> None:
    cells = {
        (option(w, "--method"), option(w, "--imbalance"), option(w, "--seed"))
        for w in dry_run(TABLE1)
    }
    methods = ["ce", "focal", "cfs", "cb", "eql", "l2rw", "cdb-s", "cdb-w-fl", "cdb-w-ce"]
    assert cells == {(m, i, s) for m in methods for i in ("99", "199") for s in "0123456789"}


@pytest.mark.parametrize(
    ("script", "method"),
    [
        (TABLE2, "cdb-w-ce"),
        (TABLE3, "cdb-s"),
        (CIFAR["table2"], "cdb-w-ce"),
        (CIFAR["table3"], "cdb-s"),
    ],
    ids=["mnist-2", "mnist-3", "cifar100-2", "cifar100-3"],
)
def test_tables_2_and_3_sweep_tau(script: Path, method: str) -> None:
    commands = dry_run(script)
    fixed = ["0.5", "1.0", "1.5", "2.0", "5.0"]
    dynamic = ["linear", "polynomial", "logarithmic", "sigmoid", "sigmoid-accv", "sigmoid-code"]
    assert {option(words, "--tau") for words in commands} == {*fixed, *dynamic}
    assert {option(words, "--method") for words in commands} == {method}


OPEN_POINTS = ("--architecture", "--initialisation", "--input-scaling", "--loss-reduction")


def test_readings_name_every_open_point_in_a_group_of_their_own() -> None:
    commands = dry_run(READINGS)
    values = [{option(words, name) for words in commands} for name in OPEN_POINTS]
    assert values == [
        {"lenet5", "lenet5-1998", "lenet-ren"},
        {"torch-default", "xavier-uniform", "truncated-normal"},
        {"raw", "unit", "standardise"},
        {"batch-size", "sum"},
    ]
    assert {option(words, "--group") for words in commands} == {"mnist-lt-readings"}
    assert {option(words, "--method") for words in commands} == {"ce", "cdb-w-ce"}


def test_readings_are_all_different_as_the_trainer_reads_them() -> None:
    configs = [config for config in configs_of(READINGS) if config.imbalance == 99]
    assert len(configs) == 16
    combinations = {
        (c.method, c.architecture, c.initialisation, c.input_scaling, c.loss_reduction)
        for c in configs
        if isinstance(c, MnistConfig)
    }
    assert len(combinations) == 16


def test_readings_can_be_picked_from_the_table() -> None:
    commands = dry_run(READINGS, SEEDS="0", READINGS="lenet-ren|cdb-w-ce")
    assert {(option(w, "--architecture"), option(w, "--method")) for w in commands} == {
        ("lenet-ren", "ce"),
        ("lenet5", "cdb-w-ce"),
    }
    assert len(commands) == 2 * 2


# ---- CIFAR100-LT

Cell = tuple[str, str, str]


def cells(configs: list[ClassificationConfig]) -> set[Cell]:
    """Method, variant and condition, as the record names them."""
    return {(c.table_method, c.variant, f"{c.imbalance:.15g}") for c in configs}


def printed_cells(table: str, dataset: str) -> set[Cell]:
    with (ROOT / "analysis/paper/tables.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == table]
    return {
        (row["method"], row["variant"], row["condition"])
        for row in rows
        if row["dataset"] == dataset
    }


def test_cifar_table_1_runs_the_papers_cells_and_class_aware() -> None:
    printed = printed_cells("1", "cifar100-lt")
    assert len(printed) == 11 * 2
    extra = {("class-aware", "", "10"), ("class-aware", "", "100")}
    assert cells(configs_of(CIFAR["table1"])) == printed | extra
    not_in_the_paper = {
        "balanced-softmax", "logit-adjustment", "logit-adjustment-post-hoc", "tau-normalisation",
        "mixup",
    }  # fmt: skip
    methods = {config.method for config in configs_of(CIFAR["table1"])}
    assert methods == {*get_args(CifarMethod)} - not_in_the_paper


@pytest.mark.parametrize(("table", "method"), [("2", "cdb-w-ce"), ("3", "cdb-s")])
def test_cifar_tables_2_and_3_run_the_papers_cells_and_two_sigmoids(
    table: str, method: str
) -> None:
    printed = printed_cells(table, "cifar100-lt")
    assert len(printed) == 9 * 5
    conditions = ("10", "20", "50", "100", "200")
    sigmoids = ("tau=sigmoid-accv", "tau=sigmoid-code")
    extra = {(method, tau, condition) for tau in sigmoids for condition in conditions}
    assert cells(configs_of(CIFAR[f"table{table}"])) == printed | extra


def test_cifar_today_has_the_written_recipes_runs_where_they_are_and_the_others_apart() -> None:
    commands = dry_run(CIFAR["today"], SEEDS="0")
    configs = configs_of(CIFAR["today"])
    groups = {
        (
            option(w, "--group") if "--group" in w else "cifar100-lt",
            c.weight_decay, c.head_size, c.augmentation,
        )
        for w, c in zip(commands, configs, strict=True)
    }  # fmt: skip
    assert groups == {
        ("cifar100-lt", 1e-4, None, "crop-flip"),
        ("cifar100-lt-recipe", 2e-4, None, "crop-flip"),
        ("cifar100-lt-recipe", 5e-4, None, "crop-flip"),
        ("cifar100-lt-head-500", 2e-4, 500, "crop-flip"),
        ("cifar100-lt-head-500", 5e-4, 500, "crop-flip"),
        ("cifar100-lt-recipe", 5e-4, None, "autoaugment-cutout"),
    }
    augmented = [(c.method, c.tau) for c in configs if c.augmentation != "crop-flip"]
    assert augmented == [
        ("ce", None), ("balanced-softmax", None), ("cdb-w-ce", "sigmoid-accv"),
    ]  # fmt: skip
    assert {c.method for c in configs} - {c.method for c in configs if c.head_size} == {
        "cdb-w-ce", "cdb-s",
    }  # fmt: skip


def test_cifar_table_4_runs_the_papers_cells_after_their_first_stages() -> None:
    configs = configs_of(CIFAR["table4"])
    second = [config for config in configs if isinstance(config, DecoupledConfig)]
    first = configs[: len(configs) - len(second)]
    assert not any(isinstance(config, DecoupledConfig) for config in first)
    assert cells(list(second)) == printed_cells("4", "cifar100-lt")
    order = [first.index(config.stage1_config()) for config in second]
    assert order == sorted(order), "the second stages wait for the first that ends first"
    assert set(order) == set(range(len(first)))


def test_cifar_figures_run_ce_at_100_and_focal_and_cdb_at_200() -> None:
    assert cells(configs_of(CIFAR["figures"])) == {
        ("ce", "", "100"), ("focal", "", "200"), ("cdb-w-ce", "tau=sigmoid", "200"),
    }  # fmt: skip


def test_short_schedule_has_the_methods_the_figures_and_both_second_stages() -> None:
    runs = {
        (option(w, "--method"), option(w, "--imbalance"), option(w, "--seed"))
        for w in dry_run(CIFAR["short"])
        if w[3] == "cifar100-lt-short"
    }
    methods = ("ce", "focal", "cb", "ldam-drw", "cdb-s", "cdb-w-ce")
    figures = {(method, "200", "0") for method in ("focal", "cdb-w-ce")}
    today = {
        (method, "100", "0")
        for method in (
            "balanced-softmax", "logit-adjustment-post-hoc", "tau-normalisation", "mixup",
        )
    }  # fmt: skip
    both_seeds = {(method, "100", seed) for method in methods for seed in "01"}
    assert runs == both_seeds | figures | today
    configs = configs_of(CIFAR["short"])
    second = [config for config in configs if isinstance(config, DecoupledConfig)]
    assert cells(list(second)) == {
        (f"{classifier}+{method}", "stage1=ce", "100")
        for classifier in ("crt", "lws")
        for method in ("class-aware", "cdb-w-ce", "cdb-s")
    }
    assert all(config.stage1_config() in configs for config in second)


def test_cifar_readings_cross_sigmoid_versions_with_reductions_in_their_own_group() -> None:
    runs = runs_of(CIFAR["readings"])
    assert {(run.config.recipe_name, run.group) for run in runs} == {
        ("cifar100-lt-short", "cifar100-lt-short-readings")
    }
    assert {(run.config.tau, run.config.loss_reduction) for run in runs} == {
        (tau, reduction)
        for tau in ("sigmoid", "sigmoid-accv", "sigmoid-code", None)
        for reduction in ("batch-size", "weight-sum")
    }
    assert cells(configs_of(CIFAR["readings"])) == {
        *(("cdb-w-ce", f"tau={t}", "100") for t in ("sigmoid", "sigmoid-accv", "sigmoid-code")),
        ("cb", "", "100"),
    }


def test_the_recipes_second_stages_follow_their_first_in_groups_of_their_own() -> None:
    runs = runs_of(CIFAR["recipe"])
    configs = [resolved(run.config) for run in runs]
    for place, config in enumerate(configs):
        first = config.stage1_config()
        assert first is None or first in configs[:place]
    groups = {(run.config.recipe_name == "cifar100-lt-code", run.group) for run in runs}
    assert groups == {(True, "cifar100-lt-code"), (False, "cifar100-lt-recipe")}
    # What a recipe's own group holds is not run here again.
    assert all(run_name(c) != run_name(replace(CIFAR100_LT, method=c.method)) for c in configs
               if c.recipe_name == "cifar100-lt")  # fmt: skip


def test_stage1_epochs_reach_the_first_stages_and_the_second_stages_alike() -> None:
    settings = {"STAGE1_EPOCHS": "7", "IMBALANCES": "10", "STAGE2": "cdb-s"}
    for words in dry_run(CIFAR["table4"], "--seeds", "0", **settings):
        name = "--stage1-epochs" if "--stage1" in words else "--epochs"
        assert option(words, name) == "7"


# ---- options of an experiment


def test_seeds_folder_and_training_options_reach_every_command(tmp_path: Path) -> None:
    folder = str(tmp_path / "my runs")
    commands = dry_run(TABLE1, "--seeds", "7 8", "--out", folder, "--", "--epochs", "2")
    assert len(commands) == 9 * 2 * 2
    assert {option(words, "--seed") for words in commands} == {"7", "8"}
    assert {option(words, "--out") for words in commands} == {folder}
    assert all(words[-2:] == ["--epochs", "2"] for words in commands)


def test_seeds_may_come_from_the_environment_and_the_option_wins() -> None:
    assert {option(w, "--seed") for w in dry_run(TABLE1, SEEDS="5")} == {"5"}
    assert {option(w, "--seed") for w in dry_run(TABLE1, "--seeds", "6", SEEDS="5")} == {"6"}


def test_relative_folder_is_meant_from_where_the_user_stands(tmp_path: Path) -> None:
    result = call(TABLE1, "--dry-run", "--out", "here", cwd=tmp_path)
    assert option(shlex.split(result.stdout.splitlines()[0]), "--out") == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--sedes", "1"), "did you mean --seeds?"),
        (("--epochs", "2"), "go after --"),
        (("-j", "0"), "-j"),
        (("-j", "two"), "'two'"),
        (("--seeds", "1,2"), "'1,2'"),
        (("--out",), "--out needs a value"),
    ],
)
def test_wrong_option_of_an_experiment_is_one_sentence(
    arguments: tuple[str, ...], part: str
) -> None:
    assert_one_sentence(call(TABLE1, "--dry-run", *arguments), part)


def test_experiment_runs_its_commands_from_any_folder(tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    calls, out = tmp_path / "calls", tmp_path / "out"
    result = call(
        TABLE1, "-j", "4", "--seeds", "3", "--out", str(out),
        cwd=tmp_path, PYTHON=str(python), CALLS=str(calls),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "18 of 18 finished" in result.stdout
    assert len(calls.read_text().splitlines()) == 18
    assert len(list((out / "logs").glob("mnist-lt_*.log"))) == 18


def test_help_tells_what_the_experiment_is_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(ROOT / "classification")
    result = subprocess.run(
        ["here/experiments/mnist_table1.sh", "--help"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    for name in ("Experiment", "Paper", "Data", "Cost"):
        assert header(TABLE1, name) in result.stdout


def test_python_without_the_packages_is_one_sentence(tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", "#!/bin/sh\nexit 1\n")
    assert_one_sentence(call(TABLE1, PYTHON=str(python)), "setup.sh", str(python))


# ---- data that must be fetched


def experiment(
    tmp_path: Path, script: Path, *arguments: str, **environment: str
) -> "tuple[subprocess.CompletedProcess[str], list[str]]":
    """Call a script from ``tmp_path`` with a stand-in for Python; what that was called with."""
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    calls = tmp_path / "calls"
    result = call(
        script, *arguments, "--out", str(tmp_path / "out"),
        cwd=tmp_path, PYTHON=str(python), CALLS=str(calls), **environment,
    )  # fmt: skip
    return result, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize("mode", [(), ("--slurm",)], ids=["launch", "slurm"])
def test_missing_data_is_one_sentence_before_any_run(tmp_path: Path, mode: tuple[str, ...]) -> None:
    write_program(tmp_path / "bin/sbatch", FAKE_SBATCH)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    result, calls = experiment(tmp_path, CIFAR["short"], *mode, PATH=path, FAKE_CHECK="2")
    assert_one_sentence(result, "data/x is missing; fetch it.")
    assert calls == [CHECK]
    assert not (tmp_path / "out").exists()


def test_data_that_is_there_is_checked_once_and_then_trained_on(tmp_path: Path) -> None:
    result, calls = experiment(tmp_path, CIFAR["figures"], "-j", "4")
    assert result.returncode == 0, result.stderr
    assert calls[0] == CHECK
    assert len(calls) == 1 + RUNS[CIFAR["figures"]]


def test_dry_run_asks_for_no_data(tmp_path: Path) -> None:
    result, calls = experiment(tmp_path, CIFAR["short"], "--dry-run", FAKE_CHECK="2")
    assert (result.returncode, calls) == (0, [])
    assert len(result.stdout.splitlines()) == RUNS[CIFAR["short"]]


def test_data_in_the_repository_is_not_checked(tmp_path: Path) -> None:
    result, calls = experiment(tmp_path, TABLE1, "--seeds", "0", "-j", "4", FAKE_CHECK="2")
    assert result.returncode == 0, result.stderr
    assert CHECK not in calls


@pytest.mark.parametrize("form", [("--data", "my data"), ("--data=my data",)])
def test_data_option_reaches_the_check_and_every_run(tmp_path: Path, form: tuple[str, ...]) -> None:
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    calls, folder = tmp_path / "calls", tmp_path / "my data"
    result = call(
        CIFAR["figures"], "-j", "4", "--out", "out", "--", *form, "--epochs", "2",
        cwd=tmp_path, PYTHON=str(python), CALLS=str(calls),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    check, *trained = calls.read_text().splitlines()
    assert check == f"{CHECK} --folder {folder}"
    assert len(trained) == RUNS[CIFAR["figures"]]
    assert all(line.endswith(f" --epochs 2 --data {folder}") for line in trained)


def test_data_option_without_a_value_is_one_sentence() -> None:
    assert_one_sentence(call(CIFAR["figures"], "--", "--data"), "--data needs a value")


# ---- Slurm; tests/slurm has a real one


TASKS: "list[subprocess.Popen[str]]" = []


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a machine with a stand-in for Slurm; no task outlives the test."""
    programs = {"sbatch": FAKE_SBATCH, "scancel": FAKE_SCANCEL, "scontrol": FAKE_SCONTROL}
    for name, text in programs.items():
        write_program(tmp_path / "bin" / name, text)
    yield {
        "PYTHON": str(write_program(tmp_path / "python", FAKE_PYTHON)),
        "CALLS": str(tmp_path / "calls"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    while TASKS:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(TASKS.pop().pid, signal.SIGKILL)


def submitted(tmp_path: Path) -> list[list[str]]:
    """The arguments of each sbatch."""
    calls = (tmp_path / "calls").read_text()
    return [part.splitlines() for part in calls.split("--\n") if "--parsable" in part]


def run_task(
    tmp_path: Path, slurm: dict[str, str], line: str, **environment: str
) -> "tuple[subprocess.Popen[str], Path]":
    """Start a task whose command is this line, and its log."""
    file, log = tmp_path / "commands.txt", tmp_path / "task.log"
    file.write_text(f"exit 1\n{line}\n")
    settings = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "77"}
    process = subprocess.Popen(
        [TASK, file], cwd=ROOT, env=os.environ | slurm | settings | environment,
        stdout=log.open("a"), stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    TASKS.append(process)
    return process, log


def wait_for_words(log: Path, words: str) -> None:
    deadline = time.monotonic() + 30
    while words not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# A run that stops at SIGTERM as ours do.
STOPPING = """exec bash -c 'trap "echo {words}; exit {code}" TERM; echo ready
while :; do sleep 0.05; done'
"""


def stopping(tmp_path: Path, words: str = "stopped after a checkpoint", code: int = 143) -> str:
    program = write_program(tmp_path / "run.sh", STOPPING.format(words=words, code=code))
    return f"bash {program}"


def test_slurm_submits_one_array_whose_task_runs_its_line(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    out = tmp_path / "my runs"
    result = call(TABLE1, "--slurm", "-j", "6", "--seeds", "0 1", "--out", str(out), **slurm)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        f"mnist_table1: job 12, 36 runs; logs in {out}/slurm/mnist_table1-12_*.log\n"
    )
    (arguments,) = submitted(tmp_path)
    assert {
        "--job-name=mnist_table1", "--array=1-36%6", f"--chdir={ROOT}", "--requeue",
        "--open-mode=append", "--signal=B:USR1@120",
        f"--output={out}/slurm/mnist_table1-%A_%a.log",
    } <= set(arguments)  # fmt: skip
    assert not [word for word in arguments if word.startswith("--gres")]
    assert (ROOT / arguments[-2]).samefile(TASK)
    assert (out / "slurm/jobs.txt").read_text() == f"12\tmnist_table1\t{arguments[-1]}\n"

    (tmp_path / "calls").unlink()
    task = os.environ | slurm | {"SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "77"}
    subprocess.run(arguments[-2:], cwd=ROOT, env=task, check=True, capture_output=True)
    expected = dry_run(TABLE1, "--seeds", "0 1", "--out", str(out), **slurm)[1]
    assert (tmp_path / "calls").read_text().strip() == " ".join(expected[1:])


def test_options_for_slurm_reach_sbatch_and_gpus_start_torchrun(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    options = {
        "--partition": "gpu,low", "--gpus": "4", "--time": "1-12:00", "--account": "lab",
        "--qos": "high", "--mem": "64G", "--cpus": "16",
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    script = VIDEO["egtea_tables"]
    result, calls = experiment(
        tmp_path, script, "--slurm", "--seeds", "0", *words, PATH=slurm["PATH"], WARNING="60"
    )
    assert result.returncode == 0, result.stderr
    assert calls[0] == "-m data_prep.egtea check"
    (arguments,) = submitted(tmp_path)
    assert {
        "--partition=gpu,low", "--gres=gpu:4", "--time=1-12:00", "--account=lab", "--qos=high",
        "--mem=64G", "--cpus-per-task=16", "--signal=B:USR1@60", "--array=1-6",
    } <= set(arguments)  # fmt: skip
    for line in Path(arguments[-1]).read_text().splitlines():
        run = shlex.split(line)
        assert option(run, "--nproc-per-node") == "4"
        # Of the task's processors, not of this machine's.
        assert option(run, "--workers") == "4"


def test_dry_run_of_slurm_prints_its_commands_and_the_tasks_without_slurm(tmp_path: Path) -> None:
    out = tmp_path / "my runs"
    words = ("--out", str(out), "--seeds", "0", "mnist_table2", "mnist_table3")
    asked = ("--slurm", "--dry-run", "--no-setup", "--partition=gpu", "-j4", *words)
    result = call(ROOT / "run_all.sh", *asked, PATH="/usr/bin:/bin", PYTHON="/no/python")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    jobs = [shlex.split(line) for line in lines if not line.startswith(" ")]
    assert [job[0] for job in jobs] == ["sbatch"] * 3
    assert all("--partition=gpu" in job for job in jobs)
    assert [[w for w in job if w.startswith("--array")] for job in jobs] == [
        ["--array=1-22%4"], ["--array=1-22%4"], [],
    ]  # fmt: skip
    assert "--dependency=afterany:JOB_mnist_table2:JOB_mnist_table3" in jobs[2]
    runs = [line.removeprefix("  ") for line in lines if line.startswith("  ")]
    local = [
        " ".join(map(shlex.quote, words))
        for script in (TABLE2, TABLE3)
        for words in dry_run(script, "--seeds", "0", "--out", str(out), PYTHON="/no/python")
    ]
    assert [shlex.split(run) for run in runs[:-1]] == [shlex.split(run) for run in local]
    assert shlex.split(runs[-1])[1:] == [
        "-m", "analysis.report", "--runs", str(out), "--out", f"{out}/report",
    ]  # fmt: skip
    assert not out.exists()


def test_arrays_larger_than_the_clusters_are_split_and_keep_their_limit(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    result = call(
        TABLE2, "--slurm", "--seeds", "0", "-j", "3", "--out", str(tmp_path / "out"),
        **slurm, SIZE="11",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    jobs = submitted(tmp_path)
    arrays = [next(word for word in job if word.startswith("--array=")) for job in jobs]
    assert arrays == ["--array=1-10%3", "--array=1-10%3", "--array=1-2%3"]
    after = [[word for word in job if word.startswith("--dependency")] for job in jobs]
    assert after == [[], ["--dependency=afterany:12"], ["--dependency=afterany:13"]]
    lines = [line for job in jobs for line in Path(job[-1]).read_text().splitlines()]
    assert len(set(lines)) == len(lines) == 22


def test_run_all_submits_every_experiment_and_a_report_after_them(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    result, calls = run_all(
        tmp_path,
        "--slurm",
        "--partition",
        "gpu",
        "mnist_table2",
        "mnist_table3",
        PATH=slurm["PATH"],
    )
    assert result.returncode == 0, result.stderr
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == [
        "mnist_table2: job 12", "mnist_table3: job 13", "report: job 14",
    ]  # fmt: skip
    report = submitted(tmp_path)[2]
    assert {"--dependency=afterany:12:13", "--partition=gpu"} <= set(report)
    assert f"--output={tmp_path}/out/slurm/report-%j.log" in report
    words = shlex.split(Path(report[-1]).read_text())
    assert (
        words[1:] == f"-m analysis.report --runs {tmp_path}/out --out {tmp_path}/out/report".split()
    )
    assert not [line for line in calls if line.startswith("-m analysis")]


def test_when_slurm_refuses_one_experiment_none_stays(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    result, calls = run_all(
        tmp_path,
        "--slurm",
        "mnist_table2",
        "mnist_table3",
        PATH=slurm["PATH"],
        REFUSED="mnist_table3",
    )
    assert result.returncode == 2
    assert result.stderr == (
        "error: Slurm refuses mnist_table3 (Batch job submission failed: no such partition); "
        "nothing was submitted.\n"
    )
    assert calls[-1] == "scancel 12"


def test_a_refused_report_leaves_the_runs_and_tells_the_command(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    result, _ = run_all(tmp_path, "--slurm", "mnist_table2", PATH=slurm["PATH"], REFUSED="report")
    assert result.returncode == 0
    assert "Slurm refuses report (" in result.stderr
    assert f"-m analysis.report --runs {tmp_path}/out" in result.stderr
    assert len(submitted(tmp_path)) == 1


@pytest.mark.parametrize("script", [TABLE1, ROOT / "run_all.sh"], ids=["experiment", "run_all"])
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--partition", "gpu"), "--partition=gpu has no effect without --slurm"),
        (("--cpus", "4"), "--cpus=4 has no effect without --slurm"),
        (("--slurm", "--time", "2h"), "--time takes what Slurm takes, such as 2:00:00, not '2h'"),
        (("--slurm", "--mem", "-1"), "--mem takes"),
        (("--slurm", "--account", "a b"), "--account takes"),
        (("--slurm", "--cpus", "0"), "--cpus takes a whole number from 1 up, not '0'"),
        (("--gpus", "two"), "--gpus takes a whole number from 1 up, not 'two'"),
        (("--slurm", "--qos"), "--qos needs a value"),
        (("--slurm", "--parition", "gpu"), "did you mean --partition?"),
    ],
)
def test_wrong_option_for_slurm_is_one_sentence(
    script: Path, arguments: tuple[str, ...], part: str
) -> None:
    assert_one_sentence(call(script, *arguments), part)


def test_warned_run_stops_at_a_checkpoint_and_its_task_is_requeued(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    process, log = run_task(tmp_path, slurm, stopping(tmp_path))
    wait_for_words(log, "\nready\n")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 143
    assert (tmp_path / "calls").read_text() == "scontrol requeue 77\n"
    said = log.read_text()
    assert "stopped after a checkpoint\nstopped after Slurm's warning; requeued\n" in said


def test_run_that_slurm_ends_is_waited_for_and_not_requeued(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    process, log = run_task(tmp_path, slurm, stopping(tmp_path))
    wait_for_words(log, "\nready\n")
    process.send_signal(signal.SIGTERM)  # Slurm sends it to all processes.
    time.sleep(0.2)
    assert process.poll() is None
    os.kill(run_of(process.pid), signal.SIGTERM)
    assert process.wait(30) == 143
    assert log.read_text().endswith("stopped after a checkpoint\nstopped by Slurm\n")
    assert not (tmp_path / "calls").exists()


def run_of(task: int) -> int:
    """The process of a task's run, which is :data:`STOPPING`."""
    children = Path(f"/proc/{task}/task/{task}/children").read_text().split()
    (run,) = [pid for pid in children if b"echo ready" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(run)


def test_a_run_that_slurm_ends_after_its_warning_is_not_requeued(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    slow = "bash -c 'trap \"sleep 1; exit 143\" TERM; echo ready; while :; do sleep 0.05; done'"
    process, log = run_task(tmp_path, slurm, slow)
    wait_for_words(log, "\nready\n")
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert log.read_text().endswith("\nstopped by Slurm\n")
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_run_that_ends_by_itself_is_never_requeued(
    tmp_path: Path, slurm: dict[str, str], code: int
) -> None:
    process, log = run_task(tmp_path, slurm, f"bash -c 'exit {code}'")
    assert process.wait(30) == code
    assert log.read_text().endswith(f"\nended with exit code {code}\n")
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("code", [0, 2])
def test_warned_run_that_finishes_or_meets_a_users_mistake_is_not_requeued(
    tmp_path: Path, slurm: dict[str, str], code: int
) -> None:
    process, log = run_task(tmp_path, slurm, stopping(tmp_path, "done", code))
    wait_for_words(log, "\nready\n")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == code
    assert log.read_text().endswith(f"done\nended with exit code {code}\n")
    assert not (tmp_path / "calls").exists()


def test_torchruns_exit_code_after_a_warning_is_a_stop(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    process, log = run_task(tmp_path, slurm, stopping(tmp_path, code=1))
    wait_for_words(log, "\nready\n")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 1
    assert (tmp_path / "calls").read_text() == "scontrol requeue 77\n"


EARLY = "$ x\nready\nstopped after Slurm's warning; requeued\n"
AT_CHECKPOINT = "$ x\nstopped after a checkpoint\nstopped after Slurm's warning; requeued\n"


@pytest.mark.parametrize(
    ("before", "again"),
    [
        (EARLY * 9, True),
        (EARLY * 10, False),
        (AT_CHECKPOINT + EARLY * 9, True),
        (AT_CHECKPOINT + EARLY * 10, False),
        (AT_CHECKPOINT * 20, True),
        (EARLY * 9 + AT_CHECKPOINT + EARLY * 9, True),
    ],
    ids=["9", "10", "9 after a good one", "10 after a good one", "20 good ones", "9 twice"],
)
def test_run_that_stops_early_ten_times_in_a_row_is_given_up(
    tmp_path: Path, slurm: dict[str, str], before: str, again: bool
) -> None:
    (tmp_path / "task.log").write_text(before)
    restarts = str(before.count("$ x\n"))
    process, log = run_task(
        tmp_path, slurm, stopping(tmp_path, "too early"), SLURM_RESTART_COUNT=restarts
    )
    wait_for_words(log, "run.sh\nready\n")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 143
    assert (tmp_path / "calls").exists() == again
    assert ("ended with exit code 143" in log.read_text()) != again
    assert ("stopped before a checkpoint, 11 times in a row" in log.read_text()) != again


def test_run_that_stops_at_a_checkpoint_is_requeued_however_often_it_did_not(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    (tmp_path / "task.log").write_text(EARLY * 1000)
    process, log = run_task(tmp_path, slurm, stopping(tmp_path), SLURM_RESTART_COUNT="1000")
    wait_for_words(log, "run.sh\nready\n")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 143
    assert (tmp_path / "calls").read_text() == "scontrol requeue 77\n"


def test_run_whose_log_was_removed_is_requeued(tmp_path: Path, slurm: dict[str, str]) -> None:
    process, log = run_task(tmp_path, slurm, stopping(tmp_path, "too early"))
    wait_for_words(log, "run.sh\nready\n")
    log.unlink()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 143
    assert (tmp_path / "calls").read_text() == "scontrol requeue 77\n"


def test_slurm_without_sbatch_is_one_sentence(tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    for name in ("bash", "dirname", "realpath", "basename", "nproc", "env", "sed", "head"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    settings = {"PYTHON": str(python), "PATH": str(tmp_path / "bin"), "CALLS": str(tmp_path / "c")}
    result = call(TABLE1, "--slurm", "--out", str(tmp_path), **settings)
    assert_one_sentence(result, "sbatch", "-j N")


def test_folder_that_slurm_cannot_write_is_one_sentence(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    (tmp_path / "out").write_text("a file in the way")
    result = call(TABLE1, "--slurm", "--out", str(tmp_path / "out"), **slurm)
    assert_one_sentence(result, "--out", str(tmp_path / "out"))


# ---- status


def test_status_asks_for_the_runs_of_every_experiment_named(tmp_path: Path) -> None:
    python = write_program(
        tmp_path / "python", '#!/bin/sh\n[ "$1" = -c ] && exit\necho "$@"\nexec cat\n'
    )
    out = tmp_path / "my runs"
    words = ("--out", str(out), "--seeds", "0")
    result = call(
        ROOT / "run_all.sh", "--status", "--no-setup", *words, "mnist_table2", "mnist_table3",
        "--", "--epochs", "2", PYTHON=str(python),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"-m common.launching.states --out {out}"
    commands = [
        dry_run(script, *words, "--", "--epochs", "2", PYTHON=str(python))
        for script in (TABLE2, TABLE3)
    ]
    assert lines[1] == "# mnist_table2"
    assert lines[24] == "# mnist_table3"
    assert [shlex.split(line) for line in lines[2:24]] == commands[0]
    assert [shlex.split(line) for line in lines[25:]] == commands[1]
    assert not out.exists()


def test_status_of_everything_needs_no_names(tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", '#!/bin/sh\n[ "$1" = -c ] && exit\nexec cat\n')
    result = call(ROOT / "run_all.sh", "--status", "--no-setup", PYTHON=str(python))
    assert result.returncode == 0, result.stderr
    named = [line[2:] for line in result.stdout.splitlines() if line.startswith("# ")]
    assert named == [script.stem for script in EXPERIMENTS]


def test_status_of_a_smoke_job_deletes_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "out/smoke/logs/commands.txt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    for mode in (("--status",), ("--dry-run",), ("--dry-run", "--slurm")):
        result, _ = run_all(tmp_path, "--smoke", *mode, "mnist_table2")
        assert result.returncode == 0, result.stderr
        assert kept.exists()


# ---- run_all.sh


def test_list_names_every_experiment_with_table_data_and_cost() -> None:
    result = call(ROOT / "run_all.sh", "--list")
    assert result.returncode == 0
    named = [line.split(" - ")[0] for line in result.stdout.splitlines() if line[0] != " "]
    assert named == [script.stem for script in EXPERIMENTS]
    for script in EXPERIMENTS:
        for name in ("Experiment", "Paper", "Data", "Cost"):
            assert header(script, name) in result.stdout


def test_help_names_every_option() -> None:
    result = call(ROOT / "run_all.sh", "--help")
    assert result.returncode == 0
    named = {"--list", "--smoke", "--status", "-j", "--seeds", "--slurm", "--out", "--no-setup"}
    slurm = {
        "--gpus",
        "--dry-run",
        "--partition",
        "--account",
        "--qos",
        "--time",
        "--mem",
        "--cpus",
    }
    for name in named | slurm | {"--help"}:
        forms = (f"  {name}", f", {name}", f"also {name}")
        assert any(form in result.stdout for form in forms), name


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--smok",), "did you mean --smoke?"),
        (("mnist_tabel2",), "did you mean mnist_table2?"),
        (("zzz",), "no experiment 'zzz'"),
        (("-j", "-1"), "'-1'"),
        (("--seeds",), "--seeds needs a value"),
    ],
)
def test_wrong_option_of_run_all_is_one_sentence(arguments: tuple[str, ...], part: str) -> None:
    assert_one_sentence(call(ROOT / "run_all.sh", *arguments), part)


def run_all(
    tmp_path: Path, *arguments: str, **environment: str
) -> "tuple[subprocess.CompletedProcess[str], list[str]]":
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    calls = tmp_path / "calls"
    result = call(
        ROOT / "run_all.sh", "--no-setup", "--out", str(tmp_path / "out"), *arguments,
        PYTHON=str(python), CALLS=str(calls), **environment,
    )  # fmt: skip
    return result, calls.read_text().splitlines() if calls.exists() else []


def test_default_job_is_table_1_with_seed_0_then_the_report(tmp_path: Path) -> None:
    result, calls = run_all(tmp_path, OMP_NUM_THREADS="1")
    out = tmp_path / "out"
    assert result.returncode == 0, result.stderr
    assert f"(18 runs, {len(os.sched_getaffinity(0))} at a time)" in result.stdout
    trained, last = calls[:-1], calls[-1]
    expected = dry_run(TABLE1, "--seeds", "0", "--out", str(out))
    assert sorted(trained) == sorted(" ".join(words[1:]) for words in expected)
    assert last == f"-m analysis.report --runs {out} --out {out}/report"


def test_named_experiment_has_its_own_seeds(tmp_path: Path) -> None:
    result, calls = run_all(tmp_path, "mnist_table3", "-j", "4")
    assert result.returncode == 0, result.stderr
    assert len([line for line in calls if "classification.train" in line]) == 220


def test_smoke_runs_every_experiment_shortly_and_anew(tmp_path: Path) -> None:
    left_over = tmp_path / "out/smoke/mnist-lt/x/record.json"
    commands = tmp_path / "out/smoke/logs/commands.txt"
    real = tmp_path / "out/mnist-lt/x/record.json"
    for file in (left_over, commands, real):
        file.parent.mkdir(parents=True)
        file.touch()
    result, calls = run_all(tmp_path, "--smoke", "-j", "4")
    assert result.returncode == 0, result.stderr
    assert not left_over.exists()
    assert real.exists()
    trained = [line for line in calls if "classification.train" in line]
    assert len([line for line in trained if " mnist-lt " in line]) == 2 + 1 + 2 + 9 + 3 + 3 + 3
    assert (
        len([line for line in trained if " cifar100-lt" in line])
        == 2 + 1 + 2 + 1 + 1 + 1 + 1 + 2 + 1 + 2
    )
    assert all(f"--out {tmp_path}/out/smoke --epochs 2" in line for line in trained)
    assert calls.count(CHECK) == 1
    assert calls[-1].startswith("-m analysis.report")


def test_smoke_of_everything_leaves_out_what_has_no_data_and_names_it(tmp_path: Path) -> None:
    result, calls = run_all(tmp_path, "--smoke", "-j", "4", FAKE_CHECK="2")
    assert result.returncode == 0, result.stderr
    words, problem = result.stderr.splitlines()[0].split(", since ")
    assert words.split()[2:] == sorted(script.stem for script in CIFAR.values())
    assert (words.split()[:2], problem) == (["left", "out:"], "data/x is missing; fetch it.")
    trained = [line for line in calls if "classification.train" in line]
    assert len(trained) == 2 + 1 + 2 + 9 + 3 + 3 + 3
    assert all(" mnist-lt " in line for line in trained)


@pytest.mark.parametrize(
    "arguments",
    [
        ("cifar100_short",),
        ("mnist_table1", "cifar100_short", "cifar100_table1"),
        ("--smoke", "cifar100_short"),
    ],
)
def test_named_experiment_without_data_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result, calls = run_all(tmp_path, *arguments, FAKE_CHECK="2")
    assert_one_sentence(result, "data/x is missing; fetch it.")
    assert calls == [CHECK]


def test_check_that_breaks_down_is_no_reason_to_leave_anything_out(tmp_path: Path) -> None:
    result, calls = run_all(tmp_path, "--smoke", FAKE_CHECK="1")
    assert result.returncode == 1
    assert "data/x is missing" in result.stderr
    assert calls == [CHECK]


def test_data_option_of_run_all_reaches_the_check_and_every_run(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    names = ("cifar100_figures", "cifar100_readings")
    result, calls = run_all(tmp_path, "-j", "4", *names, "--", "--data", str(folder))
    assert result.returncode == 0, result.stderr
    assert calls[0] == f"{CHECK} --folder {folder}"
    trained = calls[1:-1]
    assert len(trained) == 9 + 8
    assert all(line.endswith(f" --data {folder}") for line in trained)


def test_data_option_for_two_data_sets_is_one_sentence(tmp_path: Path) -> None:
    result, calls = run_all(tmp_path, "mnist_table1", "cifar100_short", "--", "--data", "x")
    assert_one_sentence(result, "--data", "data_prep/README.md")
    assert calls == []


def test_smoke_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    own = tmp_path / "out/smoke/mine.txt"
    own.parent.mkdir(parents=True)
    own.touch()
    result, calls = run_all(tmp_path, "--smoke")
    assert_one_sentence(result, str(own.parent), "--out")
    assert own.exists()
    assert calls == []


@pytest.mark.parametrize("in_the_way", ["out", "out/logs", "out/logs/commands.txt/folder"])
def test_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).write_text("a file in the way")
    result, calls = run_all(tmp_path)
    assert_one_sentence(result, "--out", str(tmp_path / "out"))
    assert calls == []


def test_experiment_that_cannot_list_its_runs_stops_the_job(tmp_path: Path) -> None:
    for name in ("run_all.sh", "common/launching/experiment.sh"):
        copy = tmp_path / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    experiments = tmp_path / "checkout/classification/experiments"
    write_program(experiments / "bad.sh", "echo 'error: no list' >&2; exit 3\n")
    write_program(experiments / "good.sh", "echo $PYTHON -m classification.train\n")
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    calls = tmp_path / "calls"
    result = call(
        tmp_path / "checkout/run_all.sh", "--no-setup", "bad", "good",
        PYTHON=str(python), CALLS=str(calls),
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "error: no list\n")
    assert not calls.exists()


def test_failed_run_is_reported_after_the_report(tmp_path: Path) -> None:
    result, calls = run_all(tmp_path, FAKE_FAIL="--method focal")
    assert result.returncode == 1
    assert calls[-1].startswith("-m analysis.report")
    assert "16 of 18 finished" in result.stdout
    assert result.stderr.count("failed with exit code 3") == 2


def test_signal_for_run_all_ends_the_runs_and_writes_no_report(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    settings = {"PYTHON": str(python), "CALLS": str(calls), "FAKE_SLEEP": "61.25"}
    process = subprocess.Popen(
        [ROOT / "run_all.sh", "--no-setup", "--out", tmp_path / "out", "-j", "2"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not calls.exists() or len(calls.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert len(calls.read_text().splitlines()) == 2
    assert not processes_with(f"CALLS={calls}")


def processes_with(setting: str) -> list[str]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if setting.encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
        except OSError:
            continue
    return found


def test_a_script_is_called_through_a_link_as_from_its_place(tmp_path: Path) -> None:
    for script in (ROOT / "run_all.sh", TABLE1):
        link = tmp_path / "to" / f"link-{script.name}"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(script)
        result = call(link, "--dry-run", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == call(script, "--dry-run", cwd=tmp_path).stdout != ""


# What bash, and the programs that the scripts call, read from the environment.
OF_THE_SHELL = {
    "CDPATH": "OTHER", "BASH_ENV": "FUNCTIONS", "GLOBIGNORE": "*", "EXECIGNORE": "*",
    "FUNCNEST": "1", "POSIXLY_CORRECT": "1", "SHELLOPTS": "noglob:posix", "TMOUT": "1",
    "BASHOPTS": "nocasematch", "BASH_COMPAT": "3.1", "GIT_DIR": "OTHER", "PYTHONSAFEPATH": "1",
    "BASH_FUNC_cd%%": "() { builtin cd /; }", "BASH_FUNC_printf%%": "() { echo no; }",
    "BASH_FUNC_dirname%%": "() { echo /; }", "BASH_FUNC_realpath%%": "() { echo /x/y; }",
}  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_SHELL)
def test_no_variable_of_the_users_shell_changes_what_a_script_does(
    name: str, tmp_path: Path
) -> None:
    # A script that tells where it is, and what its programs would be told.
    tell = (
        'echo "$PWD ${PYTHONSAFEPATH-no} ${GIT_DIR-no}" */\nprintf "%s\\n" "$(header "$0" Cost)"\n'
    )
    for checkout in ("mine", "OTHER"):
        shared = tmp_path / checkout / "common/launching/experiment.sh"
        shared.parent.mkdir(parents=True)
        shutil.copy(ROOT / "common/launching/experiment.sh", shared)
        script = tmp_path / checkout / "classification/experiments/tell.sh"
        write_program(script, TABLE1.read_text().split("# The slowest")[0] + tell)
    (tmp_path / "FUNCTIONS").write_text("cd() { builtin cd /; }\nset -f\n")
    value = OF_THE_SHELL[name]
    value = str(tmp_path / value) if value.isupper() else value
    words = ["bash", "classification/experiments/tell.sh"]
    run = subprocess.run(
        words, cwd=tmp_path / "mine", env={"PATH": os.environ["PATH"], name: value},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    place, cost = run.stdout.splitlines()
    assert place == f"{tmp_path}/mine no no classification/ common/"
    assert cost.startswith("180 runs of about")


@pytest.mark.parametrize("closed", ["", "2"])
def test_a_closed_output_of_a_script_is_as_one_that_leads_nowhere(closed: str) -> None:
    shell = f'"$@" {closed}>&-'
    call_of = ["bash", "-c", shell, "-", str(ROOT / "run_all.sh"), "--list"]
    run = subprocess.run(call_of, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    run = subprocess.run([*call_of[:-1], "--wrong"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2


def test_processes_without_a_gpu_are_said_before_they_start(tmp_path: Path) -> None:
    python = write_program(
        tmp_path / "python",
        FAKE_PYTHON.replace('"-c "*)', '"-c import sys, torch"*) exit 1 ;;\n  "-c "*)'),
    )
    settings = {"PYTHON": str(python), "CALLS": str(tmp_path / "calls")}
    out = ("--out", str(tmp_path / "out"), "--seeds", "0", "-j", "8")
    for words, said in (
        (("--gpus", "3"), True), (("--gpus", "3", "--", "--device", "cpu"), False),
        (("--gpus", "1"), False),
    ):  # fmt: skip
        result = call(TABLE3, *out, *words, **settings)
        assert result.returncode == 0, result.stderr
        assert ("each run trains in 3 processes on the CPU" in result.stderr) is said


def test_an_unknown_steadier_is_refused_before_anything_runs() -> None:
    result = call(STEADIERS, "--dry-run", STEADIERS="average smooth")
    assert_one_sentence(result, "none, average, prior, both or deferred, not 'smooth'")
    assert not result.stdout


# ---- which Python


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A checkout with a .venv, a conda environment and another Python: each tells its name."""
    for name in ("run_all.sh", "run_tests.sh", ".ci/run", "common/launching/experiment.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    write_program(tmp_path / "classification/experiments/mnist_table1.sh", "echo true\n")
    write_program(tmp_path / "setup.sh", 'echo "set-up" >>"$CALLS"\n')
    write_program(tmp_path / ".venv/bin/uv", "#!/bin/sh\n")
    for name in (".venv", "conda", "own"):
        tell = f'#!/bin/sh\ncase $1 in -c) ;; *) echo "{name} $*" >>"$CALLS" ;; esac\n'
        write_program(tmp_path / name / "bin/python", tell)
    return tmp_path


def used_python(
    pythons: Path, script: str, *arguments: str, own: bool = False, conda: bool = True
) -> set[str]:
    calls = pythons / "calls"
    environment = {"CALLS": str(calls)}
    environment |= {"CONDA_PREFIX": str(pythons / "conda")} if conda else {}
    environment |= {"PYTHON": str(pythons / "own/bin/python")} if own else {}
    result = call(pythons / script, *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return {line.split()[0] for line in calls.read_text().splitlines()}


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh", ".ci/run"])
def test_no_setup_prefers_the_users_python_then_condas_then_venv(
    pythons: Path, script: str
) -> None:
    assert used_python(pythons, script, "--no-setup", conda=False) == {".venv"}
    (pythons / "calls").unlink()
    assert used_python(pythons, script, "--no-setup") == {"conda"}
    (pythons / "calls").unlink()
    assert used_python(pythons, script, "--no-setup", own=True) == {"own"}


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh", ".ci/run"])
def test_with_setup_the_python_is_the_one_set_up(pythons: Path, script: str) -> None:
    assert used_python(pythons, script, own=True) == {"set-up", ".venv"}


def test_tests_get_the_further_arguments(pythons: Path) -> None:
    used_python(pythons, "run_tests.sh", "--no-setup", "-x", "tests/test a.py")
    assert (pythons / "calls").read_text() == "conda -m pytest -n 2 -x tests/test a.py\n"


def test_wrong_option_of_the_checks_is_one_sentence(pythons: Path) -> None:
    assert_one_sentence(call(pythons / ".ci/run", "--no-set-up"), "--no-setup")


# ---- setup.sh


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("setup.sh", "requirements.lock", "requirements-uv.lock"):
        shutil.copy(ROOT / name, folder)
    write_program(tmp_path / "bin/python3.11", FAKE_SYSTEM_PYTHON)
    return folder


def setup_settings(checkout: Path) -> dict[str, str]:
    programs = checkout.parent / "bin"
    return {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(checkout.parent / "calls")}


def set_up(checkout: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = setup_settings(checkout) | environment
    return call(checkout / "setup.sh", cwd=checkout.parent, **settings)


def installer_calls(checkout: Path) -> list[str]:
    calls = checkout.parent / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


def test_setup_installs_both_locks_by_hash(checkout: Path) -> None:
    assert set_up(checkout).returncode == 0
    uv, packages = installer_calls(checkout)
    assert uv.startswith("python -m pip install")
    assert uv.endswith("--require-hashes -r requirements-uv.lock")
    assert packages.startswith("uv pip install")
    assert packages.endswith("--require-hashes -r requirements.lock")


def test_second_setup_does_nothing_and_says_nothing(checkout: Path) -> None:
    set_up(checkout)
    again = set_up(checkout)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(installer_calls(checkout)) == 2


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-uv.lock"])
def test_changed_lock_installs_anew(checkout: Path, lock: str) -> None:
    set_up(checkout)
    with (checkout / lock).open("a") as file:
        file.write("# changed\n")
    assert set_up(checkout).returncode == 0
    assert len(installer_calls(checkout)) == 4
    set_up(checkout)
    assert len(installer_calls(checkout)) == 4


def test_failed_setup_says_so_and_the_next_one_repairs_it(checkout: Path) -> None:
    failed = set_up(checkout, FAKE_UV_CODE="1")
    assert failed.returncode == 2
    assert "could not be installed" in failed.stderr
    assert set_up(checkout).returncode == 0
    assert set_up(checkout).stdout == ""


def test_setup_killed_half_way_is_repaired(checkout: Path) -> None:
    process = subprocess.Popen(
        [checkout / "setup.sh"],
        env=os.environ | setup_settings(checkout) | {"FAKE_SLEEP": "2"},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while len(installer_calls(checkout)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    (checkout / ".venv/half-written").touch()
    assert set_up(checkout).returncode == 0
    assert not (checkout / ".venv/half-written").exists()
    assert set_up(checkout).stdout == ""


def test_two_setups_at_once_install_once(checkout: Path) -> None:
    settings = os.environ | setup_settings(checkout) | {"FAKE_SLEEP": "0.5"}
    both = [subprocess.Popen([checkout / "setup.sh"], env=settings) for _ in range(2)]
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert len(installer_calls(checkout)) == 2


def test_environment_of_the_users_own_is_left_alone(checkout: Path) -> None:
    own = checkout / ".venv/own"
    own.parent.mkdir()
    own.touch()
    result = set_up(checkout)
    assert result.returncode == 2
    assert "was not made by setup.sh" in result.stderr
    assert own.exists()
    assert installer_calls(checkout) == []


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_to_where_there_is_room_stays_a_link(checkout: Path, dangling: bool) -> None:
    scratch = checkout.parent / "scratch/venv"
    (checkout / ".venv").symlink_to(scratch)
    if not dangling:
        scratch.mkdir(parents=True)
    for _ in range(2):
        assert set_up(checkout).returncode == 0
        assert (checkout / ".venv").readlink() == scratch
        assert (scratch / "bin/python").exists()
        (scratch / "left-over").touch()
        with (checkout / "requirements.lock").open("a") as file:
            file.write("# changed\n")
    assert set_up(checkout).returncode == 0
    assert not (scratch / "left-over").exists()


def test_setup_without_locks_says_so_and_goes_on(checkout: Path) -> None:
    # As util-linux' flock on a file system without locks.
    no_locks = "#!/bin/sh\necho 'flock: 9: No locks available' >&2\nexit 71\n"
    write_program(checkout.parent / "bin/flock", no_locks)
    result = set_up(checkout)
    assert (result.returncode, "Another set-up" in result.stdout) == (0, False)
    assert "no lock can be had here (flock: No locks available)" in result.stderr
    assert len(installer_calls(checkout)) == 2


def test_setup_without_the_command_flock_says_so_and_goes_on(checkout: Path) -> None:
    programs = checkout.parent / "programs"
    programs.mkdir()
    for name in os.listdir("/usr/bin"):
        if name != "flock" and not name.startswith("python"):
            (programs / name).symlink_to(Path("/usr/bin") / name)
    result = set_up(checkout, PATH=f"{checkout.parent / 'bin'}:{programs}")
    assert result.returncode == 0, result.stderr
    assert "no lock can be had here (flock: command not found)" in result.stderr
    assert len(installer_calls(checkout)) == 2


def test_no_supported_python_is_one_sentence(checkout: Path) -> None:
    programs = checkout.parent / "few-programs"
    programs.mkdir()
    for name in ("bash", "env", "cat", "sha256sum", "cut", "flock", "dirname", "realpath"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    write_program(programs / "python3", "#!/bin/sh\nexit 1\n")  # as a Python 3.10 would answer
    result = set_up(checkout, PATH=str(programs))
    assert_one_sentence(result, "Python 3.11 or 3.12")
    assert not (checkout / ".venv").exists()


# ---- EGTEA and motion digits


def test_egtea_tables_run_every_method_of_tables_7_and_8() -> None:
    printed = {
        (method, variant, condition)
        for table in "78"
        for method, variant, condition in printed_cells(table, "egtea-verbs")
    }
    ours = set()
    for run in arguments_of(VIDEO["egtea_tables"]):
        config = video_recipes.resolved(video_config(run))
        ours.add((config.table_method, config.variant, VIDEO_CONDITION))
    assert ours == printed


def video_config(run: RunArguments) -> VideoConfig:
    assert isinstance(run, VideoArguments)
    return run.config


def test_several_gpus_are_used_through_torchrun(tmp_path: Path) -> None:
    commands = dry_run(VIDEO["egtea_tables"], "--seeds", "0", GPUS="4", CACHE=str(tmp_path))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    assert all(words[1:6] == start for words in commands)
    # '--': torchrun would take --start for its own --start-method.
    assert all(words[6:10] == ["-m", "--", "video.train", "egtea-verbs"] for words in commands)
    assert {option(words, "--cache") for words in commands} == {str(tmp_path)}


def test_a_small_network_can_be_chosen_for_egtea() -> None:
    small = "--model small-resnext --start random"
    for words in dry_run(VIDEO["egtea_tables"], NETWORK=small):
        config = video_config(video_train.TASK.parse(words[3:]))
        assert (config.model, config.start) == ("small-resnext", "random")


def test_motion_digits_are_rendered_before_the_first_run_and_kept_as_frames() -> None:
    script = VIDEO["motion_digits"]
    assert header(script, "Check") == "data_prep.motion_digits render"
    methods = {option(words, "--method") for words in dry_run(script)}
    assert methods == {"ce", "cdb-s", "cdb-w-ce"}
    assert {option(words, "--cache") for words in dry_run(script)} == {"runs/frame-cache"}


# ---- LVIS and digit scenes


def detection_cells(script: Path) -> set[tuple[str, str]]:
    configs = [config_of(run) for run in arguments_of(script)]
    return {(config.table_method, config.variant) for config in configs}


def test_lvis_table_5_runs_the_papers_cells() -> None:
    printed = {cell[:2] for cell in printed_cells("5", "lvis-v0.5")}
    assert detection_cells(DETECTION["lvis_table5"]) == printed


def test_lvis_table_6_runs_the_papers_methods_with_masks() -> None:
    printed = {cell[0] for cell in printed_cells("6", "lvis-v0.5")}
    ours = {method for method, _ in detection_cells(DETECTION["lvis_table6"])}
    # There the detector of cross-entropy is called by its network, and second stages by their loss.
    named = {method.removesuffix("-clc") for method in ours - {"ce"}} | {"mask-rcnn"}
    assert named == printed
    for run in arguments_of(DETECTION["lvis_table6"]):
        assert isinstance(run, DetectionArguments)
        assert CONDITIONS[run.config.task] == "bbox+segm"


def test_digit_scenes_train_three_detectors_and_a_second_stage_of_one() -> None:
    cells = {cell[0] for cell in detection_cells(DETECTION["digit_scenes"])}
    assert cells == {"ce", "cdb-w-ce", "rfs", "cdb-w-ce-clc"}
