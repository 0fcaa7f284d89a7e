"""Follows docs/adding-a-method.md literally."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()
FILE, REGISTRY, CONFIG = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SCRIPT,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(PLACE,) = re.findall(r"^`(common/\S+\.py)`:$", PAGE, re.MULTILINE)
(EXPERIMENT,) = re.findall(r"^`(classification/\S+\.sh)`;", PAGE, re.MULTILINE)
(TRAIN,) = re.findall(r"`python (-m classification\.train [^`]*)`", PAGE)
OPTIONS = ["--epochs", "2", "--out", "runs"]
# The same command that is asked to stop within its second epoch.
STOPPED = """
import contextlib, sys
from classification.train import TASK
from common.training.run import steps
from common.training.signals import StopRequest

class Stop(StopRequest):
    asked = 0
    def requested(self):
        self.asked += 1
        return self.asked > 60

class Silent:
    show = staticmethod(lambda *shown: None)

silent = lambda *told: contextlib.nullcontext(Silent)
taken = len(list(steps(TASK, TASK.parse(sys.argv[1:]), Stop(), silent)))
assert 50 < taken < 100, taken
"""


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout to which the page has been done."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("common", "classification"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "run_all.sh", folder)
    for name in ("analysis", "data_prep", "detection", "video"):
        (folder / name).symlink_to(ROOT / name)
    (folder / PLACE).write_text(FILE)
    registry = (folder / PLACE).with_name("__init__.py")
    recipes = folder / "classification/recipes.py"
    method, settings = re.findall(r"class (\w+)\(", FILE)[::-1]
    module = PLACE.removesuffix(".py").replace("/", ".")
    (name,) = re.findall('"(.*?)"', REGISTRY)
    after = "from common.training.settings import"
    edit(registry, after, f"from {module} import {method}\n{after}")
    edit(registry, '    "ce": CrossEntropy,\n', '    "ce": CrossEntropy,\n' + REGISTRY)
    edit(recipes, "MnistMethod = Literal[", f'MnistMethod = Literal["{name}",')
    bases = "MixupSettings, L2rwSettings, EqlSettings, UsualSettings, SubsampledConfig"
    edit(recipes, f"class MnistConfig({bases}):\n", CONFIG)
    after = "from classification.methods import METHODS\n"
    edit(recipes, after, f"from {module} import {settings}\n{after}")
    script = folder / EXPERIMENT
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return folder


def run(checkout: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def record_of(checkout: Path, out: str) -> dict[str, Any]:
    (path,) = checkout.glob(f"{out}/mnist-lt/*/record.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


@pytest.fixture(scope="module")
def record(checkout: Path) -> dict[str, Any]:
    """The record of the page's command, of two epochs."""
    run(checkout, sys.executable, *TRAIN.split(), *OPTIONS)
    return record_of(checkout, "runs")


def test_the_class_weighs_as_the_page_says() -> None:
    made: dict[str, Any] = {}
    exec(FILE, made)
    method = SimpleNamespace(config=SimpleNamespace(frequency_power=0.5))
    weights = made["InverseFrequency"].make_class_weights(method, torch.tensor([100, 4]))
    assert weights.tolist() == pytest.approx([0.1 / 0.3, 0.5 / 0.3])


def test_the_pages_command_trains_and_its_record_names_method_and_setting(
    record: dict[str, Any],
) -> None:
    assert record["method"] == "inverse-frequency"
    assert record["config"]["frequency_power"] == 0.5
    assert record["run"].startswith("inverse-frequency_imbalance-99_epochs-2_frequency-power-0.5_")
    losses = record["history"]["loss"]
    assert losses[-1] < losses[0]


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    checkout: Path, record: dict[str, Any]
) -> None:
    command = [*TRAIN.split()[2:], *OPTIONS[:3], "again"]
    run(checkout, sys.executable, "-c", STOPPED, *command)
    run(checkout, sys.executable, "-m", "classification.train", *command)
    again = record_of(checkout, "again")
    assert again["provenance"]["starts"] == 2
    assert again["history"] == record["history"]
    assert again["metrics"] == record["metrics"]


def test_its_setting_is_refused_for_another_method(checkout: Path) -> None:
    words = [sys.executable, *TRAIN.replace("--method inverse-frequency", "--method ce").split()]
    said = run(checkout, *words, code=2)
    assert "--frequency-power 0.5 has no effect on --method ce" in said
    assert "choose inverse-frequency" in said


def test_the_report_has_the_method_in_its_tables(checkout: Path, record: dict[str, Any]) -> None:
    (checkout / "none").mkdir(exist_ok=True)
    words = ("-m", "analysis.report", "--runs", "runs", "--results", "none", "--out", "page")
    run(checkout, sys.executable, *words)
    page = (checkout / "page/index.html").read_text()
    error = f"{record['metrics']['last']['error']:.2f}"
    assert re.search(rf"<t[dh][^>]*>INVERSE-FREQUENCY</t[dh]>.*{error}", page, re.DOTALL)


def test_the_experiment_is_listed_and_its_commands_are_the_pages(checkout: Path) -> None:
    name = Path(EXPERIMENT).stem
    assert name in run(checkout, "./run_all.sh", "--list")
    said = run(checkout, "bash", EXPERIMENT, "--dry-run")
    commands = [line for line in said.splitlines() if "classification.train" in line]
    assert len(commands) == 12
    assert all("--method inverse-frequency --frequency-power" in line for line in commands)
