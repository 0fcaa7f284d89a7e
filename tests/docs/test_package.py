"""What ``pip install .`` gives: one package, the core, beside a ``common/`` of the user's own."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import common

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "common").glob("*.py"))
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What README's snippet leaves to the reader.
GIVEN = """
import torch
model, epochs = torch.nn.Linear(4, 100), 2
loader = difficulty_loader = [(torch.rand(100, 4), torch.arange(100))]
"""
# After all that a user runs: where the package is, and what of this project's needs was loaded.
TOLD = """
import sys, cdb_longtail
print(cdb_longtail.__file__)
print(*sorted(sys.modules.keys() & {"common", "tyro", "rich", "jsonschema", "matplotlib"}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what pip installs, built offline from a copy of the sources."""
    folder = tmp_path_factory.mktemp("package")
    source, target = folder / "source", folder / "site-packages"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "common", source / "common", ignore=left_out)
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else [ROOT / ".venv/bin/uv", "pip"]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", target]
    subprocess.run([*pip, "install", *options, source], check=True, timeout=120)
    return target


def run_in_a_project(installed: Path, project: Path, code: str) -> list[str]:
    """Lines that ``code`` prints in a project with folders of its own of the checkout's names."""
    for name in ("common", "classification", "data_prep"):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("raise AssertionError('the project\\'s own')")
    (project / "program.py").write_text(code)
    said = subprocess.run(
        [sys.executable, "program.py"], cwd=project, env={"PYTHONPATH": str(installed)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return said.stdout.splitlines()


def test_one_package_is_installed_with_the_core_and_no_more(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"cdb_longtail"}
    files = {path.name for path in (installed / "cdb_longtail").iterdir()} - {"__pycache__"}
    assert files == {path.name for path in CORE} | {"py.typed"}
    (metadata,) = installed.glob("*.dist-info/METADATA")
    needed = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata.read_text(), re.M)
    assert sorted(needed) == ["numpy", "torch"]


def test_the_readmes_lines_run_beside_a_common_of_the_projects_own(
    installed: Path, tmp_path: Path
) -> None:
    (snippet,) = _PYTHON.findall((ROOT / "README.md").read_text())
    said = run_in_a_project(installed, tmp_path, GIVEN + snippet + TOLD)
    assert said == [str(installed / "cdb_longtail/__init__.py"), ""]


def test_the_page_of_the_core_runs_from_the_package(installed: Path, tmp_path: Path) -> None:
    blocks = _PYTHON.findall((ROOT / "docs/using-the-core.md").read_text())
    said = run_in_a_project(installed, tmp_path, "\n".join([*blocks, TOLD]))
    assert said[-2:] == [str(installed / "cdb_longtail/__init__.py"), ""]


def test_the_package_and_the_checkout_in_one_process_are_two_registries(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    import cdb_longtail

    assert cdb_longtail.ClassDifficultyBalancer is not common.ClassDifficultyBalancer
    law = cdb_longtail.tau_law("of-the-package")(lambda ratio, options: ratio.new_ones(()))
    assert "of-the-package" not in common.TAU_LAWS
    # A function is none of either's.
    assert float(common.tau_from_performance(law, torch.tensor([0.5, 0.1]))) == 1


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_cores_files_name_each_other_relatively(path: Path) -> None:
    """Doctests and references too: installed, the package has another name."""
    assert re.findall(r"\bcommon[./]\w+|\b(?:from|import) common\b", path.read_text()) == []


def test_importing_the_core_loads_no_torch_and_every_name_is_there() -> None:
    code = "import sys, common; print('torch' in sys.modules)"
    code += "; [getattr(common, name) for name in common.__all__]"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        _ = common.no_such
