"""A table of text, and its three forms: Markdown, terminal, and HTML (in the report's template)."""

from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text

from common.terminal import printable

# In this order: what a replacement brings in is not replaced again.
_MARKUP: Final = {"\\": "\\\\", "&": "&amp;", "<": "&lt;", "|": "\\|", "\n": "<br>"}


def _markdown(cell: str) -> str:
    for character, words in _MARKUP.items():
        cell = cell.replace(character, words)
    return cell


def _plain(words: str, style: str = "") -> Text:
    """Words for the terminal, in which nothing is markup."""
    return Text(printable(words), style=style)


@dataclass(frozen=True)
class Grid:
    """A finished table.

    Attributes:
        name: names the generated block in Markdown files.
        title: one line above it.
        header: the columns' names.
        rows: cells as text, each row as long as ``header``; a cell may have several lines.
        note: what the numbers are, one paragraph below it.
        words: indices of the columns that hold words; the others hold numbers, set to the right.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: tuple[int, ...] = (0,)

    def to_markdown(self) -> str:
        """A GitHub table and the note, without a line break at the end; without rows the note."""
        if not self.rows:
            return self.note
        rule = [":--" if i in self.words else "--:" for i in range(len(self.header))]
        lines = [
            "| " + " | ".join(_markdown(cell) for cell in row) + " |"
            for row in (self.header, tuple(rule), *self.rows)
        ]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")

    def to_terminal(self) -> Table:
        """A rich table with the title above and the note below."""
        long = any("\n" in cell for row in self.rows for cell in row)
        caption = _plain(self.note, "table.caption") if self.note else None
        table = Table(title=_plain(self.title, "bold"), caption=caption, title_justify="left",
                      caption_justify="left", show_lines=long)  # fmt: skip
        for index, name in enumerate(self.header):
            word = index in self.words
            table.add_column(_plain(name), justify="left" if word else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(_plain, row))
        return table
