"""Commands of the pages, as a reader would type them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    """What stands below a heading of a page, up to the next one."""
    text = (ROOT / page).read_text()
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def python_blocks(text: str) -> list[str]:
    """The blocks of Python, in order."""
    return [code for language, code in _BLOCK.findall(text) if language == "python"]


def module_calls(text: str, module: str) -> list[list[str]]:
    """The words behind ``python -m MODULE`` of each command, the shell's variables put in."""
    calls, values = [], {}
    blocks = [code for language, code in _BLOCK.findall(text) if not language]
    for written in "".join(blocks).splitlines():
        line = re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), written)
        if name := re.match(r'(\w+)="(.*)"', line):
            values[name[1]] = name[2]
        elif line.startswith(f"python -m {module} "):
            calls.append(shlex.split(line, comments=True)[3:])
    return calls
