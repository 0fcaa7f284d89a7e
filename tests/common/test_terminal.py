"""What is printed shows in any coding and steers no terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.terminal import printable

ROOT = Path(__file__).parents[2]


def _run(code: str, coding: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": coding, "PYTHONUTF8": "0"}
    return subprocess.run(
        [sys.executable, "-c", f"from common.errors import *\n{code}"], cwd=ROOT,
        env=environment, capture_output=True, encoding=coding,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("coding", "shown"),
    [
        ("latin-1", "\\u03c4 ± \\u732b"),
        ("ascii", "\\u03c4 \\xb1 \\u732b"),
    ],
)
def test_what_standard_output_cannot_show_is_replaced(coding: str, shown: str) -> None:
    done = _run(r"run_main(lambda: print('\u03c4 \xb1 \u732b'))", coding)
    assert (done.returncode, done.stdout) == (0, shown + "\n")


def test_a_file_name_that_is_no_unicode_is_shown() -> None:
    done = _run(r"run_main(lambda: print('a\udcff'))", "utf-8")
    assert (done.returncode, done.stdout) == (0, "a\\udcff\n")


def test_an_error_that_holds_a_name_steers_no_terminal() -> None:
    code = "def fail():\n raise UserError('class \\x1b[31m\\u732b')\nrun_main(fail)"
    done = _run(code, "latin-1")
    assert (done.returncode, done.stderr) == (2, "error: class \\ufffd[31m\\u732b\n")


def test_only_controls_are_replaced() -> None:
    assert printable("a\tb\nτ 猫 \x1b\x9b\x07\r") == "a\tb\nτ 猫 " + "\N{REPLACEMENT CHARACTER}" * 4
