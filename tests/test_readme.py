"""What README.md promises: its commands, its code, and the links of all pages."""

import math
import os
import re
import shlex
import subprocess
from collections import Counter
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
# Not what a tool leaves in a hidden folder.
PAGES = [
    ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/README.md")), *sorted(ROOT.glob("docs/*.md")),
]  # fmt: skip

COLUMN = 107
"""Letters of code in 980 pixels."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# With what is put into its environment: CACHE=FOLDER ./run_all.sh ...
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*\./run_")
_INLINE_COMMAND = re.compile(r"`((?:[A-Z_]+=\S+ )*\./run_[^`]+)`")
_MODULE = re.compile(
    r"(?:python|torchrun [^`\n]*) -m (?:-- )?(?:\\\n +)?([a-z_][a-z_.0-9]*[a-z0-9])"
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def commands(text: str) -> list[str]:
    """Every call of ``./run_...`` in a code block or between backticks, with its environment."""
    blocks = [code for language, code in _BLOCK.findall(text) if not language]
    lines = [line for code in blocks for line in code.splitlines() if _COMMAND.match(line)]
    return lines + _INLINE_COMMAND.findall(_BLOCK.sub("", text))


def modules(text: str) -> set[str]:
    """What a page calls with ``python -m`` or through torchrun, of this repository."""
    called = _MODULE.findall(text)
    return {name for name in called if name.partition(".")[0] not in ("torch", "pip", "venv")}


def links(page: Path) -> list[str]:
    """The page's links to files of the repository, without what follows ``#``."""
    found = _LINK.findall(_BLOCK.sub("", page.read_text()))
    return [link.split("#")[0] for link in found if not re.match(r"#|\w+:", link)]


def anchors(text: str) -> set[str]:
    """What may follow ``#`` in a link to a page: its headings by GitHub's rule.

    Small letters, without punctuation, a hyphen for each blank; of equal ones the second gets
    ``-1``, the third ``-2``.
    """
    counts: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(_BLOCK.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w -]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{counts[anchor]}" if counts[anchor] else anchor)
        counts[anchor] += 1
    return found


def anchored_links(page: Path) -> list[tuple[Path, str]]:
    """The page's links to a heading: the page that has it, and what follows ``#``."""
    found = _LINK.findall(_BLOCK.sub("", page.read_text()))
    parts = [link.partition("#") for link in found if "#" in link and not re.match(r"\w+:", link)]
    return [(page.parent / name if name else page, anchor) for name, _, anchor in parts]


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
        said = shlex.split(command, comments=True)
        first = next(i for i, word in enumerate(said) if word.startswith("./"))
        set_there = dict(word.split("=", 1) for word in said[:first])
        script, *arguments = said[first:]
        added = {"./run_all.sh": ["--no-setup", "--out", str(tmp_path / "out")]}
        words = [script, *added.get(script, ["--no-setup"]), *arguments]
        environment = os.environ | changes | set_there
        return subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
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


def test_commands_are_found_with_their_environment() -> None:
    block = "```\nA=b C=/d ./run_all.sh x\n./run_all.sh y\necho ./run_all.sh\n```\n"
    text = f"{block}and `E=f ./run_all.sh z`\n"
    assert commands(text) == ["A=b C=/d ./run_all.sh x", "./run_all.sh y", "E=f ./run_all.sh z"]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_a_part_of_a_page_lead_to_its_heading(page: Path) -> None:
    lost = [
        f"{other.name}#{anchor}"
        for other, anchor in anchored_links(page)
        if other.suffix == ".md" and anchor not in anchors(other.read_text())
    ]
    assert lost == []


def test_anchors_follow_the_rule_of_github() -> None:
    text = """# Which `tau`?
## How Sec. 4.1 is read
## Stop, and go on (below)
## [A page](page.md) of_its own
## The split
```
# no heading
```
## The split
"""
    assert anchors(text) == {
        "which-tau", "how-sec-41-is-read", "stop-and-go-on-below", "a-page-of_its-own", "the-split",
        "the-split-1",
    }  # fmt: skip


def test_links_to_a_part_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](a.md#part) [b](https://b.c#d) [c](#c) [e](e.md)\n```\nx[0](d#e)\n```\n")
    assert anchored_links(page) == [(tmp_path / "a.md", "part"), (page, "c")]


# ---- what a reader meets


def test_the_readme_is_one_that_is_read() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_not_wider_than_the_column_that_github_gives_a_page(page: Path) -> None:
    lines = [line for _, code in _BLOCK.findall(page.read_text()) for line in code.splitlines()]
    assert [line for line in lines if len(line) > COLUMN] == []


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
