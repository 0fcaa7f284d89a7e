"""Follows docs/adding-a-tau-law.md literally."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-tau-law.md"
LAW, LOOP = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
TRAIN = "-m classification.train mnist-lt --method cdb-w-ce --tau square-root --epochs 2"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose common/tau.py has the page's function, too."""
    shutil.copytree(ROOT / "common", tmp_path / "common")
    for name in ("classification", "data_prep"):
        (tmp_path / name).symlink_to(ROOT / name)
    with (tmp_path / "common/tau.py").open("a") as file:
        file.write("\n\n" + LAW[LAW.index("@tau_law") :])
    return tmp_path


def test_the_function_in_its_place_is_all_that_a_run_needs(checkout: Path) -> None:
    words = [sys.executable, *TRAIN.split(), "--tau-max", "4", "--out", "runs"]
    subprocess.run(words, cwd=checkout, check=True, capture_output=True, timeout=120)
    (path,) = checkout.glob("runs/mnist-lt/*/record.json")
    assert path.parent.name.startswith("cdb-w-ce_tau-square-root_")
    record = json.loads(path.read_text())
    assert record["variant"] == "tau=square-root"
    show = "import json, sys; from common.training.record import courses\n"
    show += "print(*courses(json.load(open(sys.argv[1])))['tau'])"
    said = subprocess.run(
        [sys.executable, "-c", show, path], cwd=checkout, check=True, capture_output=True, text=True
    )
    low, high = sorted(record["history"]["class_accuracy"][0])
    bias = max(high / (low + 0.01) - 1, 0)
    assert [float(tau) for tau in said.stdout.split()] == pytest.approx([0, 4 * (bias / 99) ** 0.5])


def test_the_balancer_takes_the_function_and_gives_what_the_page_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Not registered: that would be for all tests of this process.
    exec(LAW.replace('@tau_law("square-root")\n', "") + LOOP, {})
    (told,) = re.findall(r"# (\d\.\d+):", LOOP)
    assert capsys.readouterr().out == f"{told}\n"
