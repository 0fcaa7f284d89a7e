"""Generated blocks in Markdown files: text between two comment lines, made from the records.

    <!-- generated: mnist-table-1 -->
    ...
    <!-- end generated -->

A page that holds no such lines is left alone.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from common.errors import UserError
from common.files import write_atomically

Maker = Callable[[], str]

_START: Final = re.compile(r"^<!-- generated: ([a-z0-9-]+) -->$", re.MULTILINE)
_END: Final = "<!-- end generated -->"
_BLOCK: Final = re.compile(rf"{_START.pattern}\n(.*?)^{re.escape(_END)}$", re.MULTILINE | re.DOTALL)
# Where a repository keeps its pages; not below runs or an environment's folder.
_PAGES: Final = ("*.md", "*/README.md", "docs/**/*.md", "results/**/*.md")


def pages(root: Path) -> list[Path]:
    """Markdown files of a repository, sorted."""
    return sorted({path for pattern in _PAGES for path in root.glob(pattern)})


def fill(text: str, makers: Mapping[str, Maker], source: object) -> str:
    """Give ``text`` with every block made anew.

    Args:
        text: a Markdown page.
        makers: for each block's name, what makes its content.
        source: names the page in a message.

    Raises:
        UserError: for a block whose name no maker has, or one without its end line.
    """
    unclosed = len(_START.findall(text)) - len(_BLOCK.findall(text))
    if unclosed:
        raise UserError(
            f"{source} has {unclosed} generated block(s) without an end; put the line "
            f"'{_END}' below each."
        )

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in makers:
            raise UserError(
                f"{source} asks for a generated block {name!r}, which does not exist; name one of "
                f"{', '.join(makers)}."
            )
        return f"<!-- generated: {name} -->\n\n{makers[name]()}\n\n{_END}"

    return _BLOCK.sub(replace, text)


def stale_blocks(text: str, filled: str) -> list[str]:
    """Names of the blocks that differ between a page and the page made anew."""
    before, after = _BLOCK.findall(text), _BLOCK.findall(filled)
    return [name for (name, old), (_, new) in zip(before, after, strict=True) if old != new]


def check_pages(root: Path, makers: Mapping[str, Maker]) -> list[str]:
    """One sentence per block that is not current.

    Raises:
        UserError: as :func:`fill`.
    """
    sentences = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        for name in stale_blocks(text, fill(text, makers, page)):
            sentences.append(
                f"{page}: the block {name} is not what the records give; "
                "run 'python -m analysis.tables --write'."
            )
    return sentences


def write_pages(root: Path, makers: Mapping[str, Maker]) -> list[Path]:
    """Make every block anew; gives the pages that changed.

    Raises:
        UserError: as :func:`fill`, or when a page cannot be written.
    """
    changed = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        filled = fill(text, makers, page)
        if filled != text:
            write_atomically(page, filled.encode())
            changed.append(page)
    return changed
