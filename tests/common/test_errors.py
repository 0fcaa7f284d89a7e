"""The end of a command: what is written where, and its exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
from pathlib import Path
from common.errors import UserError, run_main
def main():
    print("a word", sys.stdout.isatty())
    print("another", file=sys.stderr)
    Path(sys.argv[1]).write_text("of a file")
    if sys.argv[2] == "wrong":
        raise UserError("this is wrong.")
run_main(main)
"""


def ended(
    redirected: str, *words: str, script: str = SCRIPT, **variables: str
) -> "subprocess.CompletedProcess[bytes]":
    """``script`` run by a shell that redirects its streams."""
    command = ["bash", "-c", f'exec "$@" {redirected}', "-", sys.executable, "-c", script, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, capture_output=True, env=environment, timeout=60)


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/null"])
@pytest.mark.parametrize(("how", "code"), [("right", 0), ("wrong", 2)])
def test_a_closed_stream_is_as_one_that_leads_nowhere(
    redirected: str, how: str, code: int, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    run = ended(redirected, str(file), how)
    assert run.returncode == code
    # Nothing is printed into a file that has got the closed stream's number.
    assert file.read_text() == "of a file"
    if "2>&-" not in redirected:
        words = b"another\n" + (b"error: this is wrong.\n" if how == "wrong" else b"")
        assert run.stderr == words


def test_what_a_terminal_cannot_show_is_written_as_its_number() -> None:
    script = "from common.errors import run_main\nrun_main(lambda: print('chat 猫 é'))\n"
    run = ended("", script=script, PYTHONIOENCODING="ascii")
    assert (run.returncode, run.stdout) == (0, b"chat \\u732b \\xe9\n")
    run = ended("", script=script, PYTHONIOENCODING="latin-1")
    assert (run.returncode, run.stdout) == (0, b"chat \\u732b \xe9\n")
