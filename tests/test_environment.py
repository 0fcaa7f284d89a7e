import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-uv.lock")
# One entry: the pinned line, its continuation lines with hashes.
_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(.*(?:\n .*)*)", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> dict[str, str]:
    return {normal(name): version for name, version, _ in _entries(lock)}


def _entries(lock: str) -> list[tuple[str, str, str]]:
    return _ENTRY.findall((ROOT / lock).read_text())


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = project["dependencies"] + [line for extra in extras for line in extra]
    return [Requirement(line) for line in lines]


def conda_packages() -> dict[str, str]:
    text = (ROOT / "environment.yml").read_text()
    pairs = re.findall(r"^      - ([^\s=]+)==([^\s;]+)(?:; .+)?$", text, re.MULTILINE)
    assert text.count("\n      - ") == len(pairs), "every pip line must pin a version with =="
    return {normal(name): version for name, version in pairs}


def test_environment_yml_has_the_versions_of_the_lock() -> None:
    lock = locked("requirements.lock")
    assert conda_packages() == {name: lock.get(name) for name in conda_packages()}


def test_environment_yml_lists_every_direct_dependency() -> None:
    assert set(conda_packages()) == {normal(requirement.name) for requirement in declared()}


def test_environment_yml_asks_for_a_supported_python() -> None:
    text = (ROOT / "environment.yml").read_text()
    assert re.search(r"^  - python=3\.11$", text, re.MULTILINE)


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_lock_satisfies_pyproject(requirement: Requirement) -> None:
    version = locked("requirements.lock").get(normal(requirement.name))
    assert version is not None, "not in the lock; make it again by the command in its header"
    assert requirement.specifier.contains(version)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes_and_one_version(lock: str) -> None:
    entries = _entries(lock)
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line[:1] not in ("#", " ")]
    assert len(entries) == len(lines) == len({normal(name) for name, _, _ in entries})
    for name, _, rest in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest), name


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_index_and_no_machine(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.findall(r"://|index-url|find-links|^-", text, re.MULTILINE)
    assert not re.findall(r"(?:^|\s)/\w+", text)


def test_torch_is_the_build_the_index_serves() -> None:
    lock = locked("requirements.lock")
    assert "+" not in lock["torch"]
    assert "+" not in lock["torchvision"]


# The core is for others' programs too, whose threads are their own.
PACKAGES = sorted(
    {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("*/__init__.py")}
    - {"common"}
    | {"common.training", "common.launching"}
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_quiets_openmp_before_torch_is_loaded(package: str) -> None:
    """``python -m package.module`` imports the package first, so this comes before any module."""
    code = f"import {package}, os, sys; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    unset = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=unset,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "False 0\n"
