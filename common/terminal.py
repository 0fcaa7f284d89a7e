"""What is printed steers no terminal."""

import unicodedata
from typing import Final

# Controls, and what stands for a byte that was no Unicode.
_HIDDEN: Final = ("Cc", "Cs")


def printable(text: str) -> str:
    """``text`` without characters that steer a terminal, but for tabs and ends of lines."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _HIDDEN and c not in "\n\t" else c
        for c in text
    )
