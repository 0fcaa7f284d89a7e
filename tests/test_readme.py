"""What README.md promises: its commands, its code, and the links of all pages."""

import math
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from common.difficulty import class_accuracy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("docs/*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE_COMMAND = re.compile(r"`(\./run_[^`]+)`")
_MODULE = re.compile(r"(?:python|torchrun [^`\n]*) -m (?:-- )?([a-z_][a-z_.0-9]*[a-z0-9])")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands(text: str) -> list[str]:
    """Every call of ``./run_...`` in a code block or between backticks."""
    blocks = [code for language, code in _BLOCK.findall(text) if not language]
    lines = [line for code in blocks for line in code.splitlines() if line.startswith("./run_")]
    return lines + _INLINE_COMMAND.findall(_BLOCK.sub("", text))


def modules(text: str) -> set[str]:
    """What a page calls with ``python -m`` or through torchrun, of this repository."""
    called = _MODULE.findall(text)
    return {name for name in called if name.partition(".")[0] not in ("torch", "pip", "venv")}


def links(page: Path) -> list[str]:
    """The page's links to files of the repository, without what follows ``#``."""
    found = _LINK.findall(_BLOCK.sub("", page.read_text()))
    return [link.split("#")[0] for link in found if not re.match(r"#|\w+:", link)]


# ---- commands

Dry = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def dry(tmp_path: Path) -> Dry:
    """Runs a command of the page with a Python and a Slurm that do nothing."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python", "sbatch"):
        (programs / name).write_text("#!/bin/sh\necho 1\n")
        (programs / name).chmod(0o755)
    changes = {"PYTHON": str(programs / "python"), "PATH": f"{programs}:{os.environ['PATH']}"}

    def run(command: str) -> "subprocess.CompletedProcess[str]":
        script, *arguments = shlex.split(command, comments=True)
        added = {"./run_all.sh": ["--no-setup", "--out", str(tmp_path / "out")]}
        words = [script, *added.get(script, ["--no-setup"]), *arguments]
        return subprocess.run(
            words, cwd=ROOT, env=os.environ | changes, capture_output=True, text=True, timeout=60
        )

    return run


EVERY_COMMAND = sorted({command for page in PAGES for command in commands(page.read_text())})


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_command_of_a_page_has_only_options_and_experiments_that_exist(
    dry: Dry, command: str
) -> None:
    result = dry(command)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", ["./run_all.sh --fast", "./run_all.sh mnist_table9"])
def test_command_with_something_that_does_not_exist_is_found(dry: Dry, command: str) -> None:
    assert dry(command).returncode == 2


def test_the_two_commands_are_among_those_tried() -> None:
    first = [shlex.split(command, comments=True) for command in commands(README)]
    assert ["./run_all.sh"] in first
    assert ["./run_tests.sh"] in first


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_calls_exist(page: Path) -> None:
    assert [name for name in modules(page.read_text()) if find_spec(name) is None] == []


def test_modules_are_found() -> None:
    text = (
        "`python -m analysis.tables --write`\ntorchrun --nproc-per-node 2 -m -- video.train egtea\n"
    )
    assert modules(text) == {"analysis.tables", "video.train"}


# ---- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


def test_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](a.md#part) [b](https://b.c) [c](#c)\n```\nx[0](d)\n```\n![e](e/e.png)\n")
    assert links(page) == ["a.md", "e/e.png"]
    assert len(links(ROOT / "README.md")) > 3


# ---- what a reader meets


def test_the_readme_is_one_that_is_read() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_a_page_says_what_it_is_and_ends_with_where_to_go_next(page: Path) -> None:
    title, empty, purpose, *_, last = page.read_text().splitlines()
    assert title.startswith("# ")
    assert empty == ""
    assert purpose
    assert not purpose.startswith(("#", "```", "|"))
    assert last.startswith("Next: [")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_of_docs_is_found_from_the_readme(page: Path) -> None:
    if page.parent.name == "docs":
        assert f"docs/{page.name}" in links(ROOT / "README.md")


# ---- the code


def test_python_of_the_readme_trains_with_the_names_that_it_leaves_to_the_reader() -> None:
    (code,) = [text for language, text in _BLOCK.findall(README) if language == "python"]
    images, labels = torch.rand(100, 4), torch.arange(100)
    model = torch.nn.Linear(4, 100)
    batches = [(images, labels)]
    names: dict[str, Any] = {
        "F": F, "model": model, "epochs": 2, "loader": batches, "difficulty_loader": batches,
    }  # fmt: skip
    # In this checkout the package is called common.
    exec(compile(code.replace("cdb_longtail", "common"), "README.md", "exec"), names)
    assert names["loss"].requires_grad
    assert math.isfinite(names["loss"].item())
    expected = 1 - class_accuracy(model, batches, num_classes=100)
    torch.testing.assert_close(names["balancer"].difficulty, expected)
