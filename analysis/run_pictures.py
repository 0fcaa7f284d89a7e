"""Pictures of predictions beside the ground truth, left in the folders of this machine's runs."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from analysis.records import Record

NAME: Final = "pictures.png"
MOST_PICTURES: Final = 12
MOST_BYTES: Final = 4_000_000
"""Of one picture; the report holds them all."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def _why_not(path: Path, shown: int) -> str:
    """Why a picture that is there is not shown; empty when it can be."""
    if shown == MOST_PICTURES:
        return f"the report shows {MOST_PICTURES} pictures at most"
    if path.stat().st_size > MOST_BYTES:
        return f"it is larger than {MOST_BYTES / 1e6:.0f} MB"
    with path.open("rb") as file:
        return "" if file.read(len(_PNG)) == _PNG else "it is no PNG"


def pictures_of(folder: Path, records: Iterable[Record]) -> tuple[dict[str, str], list[str]]:
    """The pictures ``<group>/<run>/pictures.png`` that runs have, as ``data:`` addresses.

    Args:
        folder: of this machine's runs.
        records: of the runs that are looked at, in the order of what is shown first.

    Returns:
        Addresses by ``<group>/<run>``, and a sentence for each picture that is left out.
    """
    urls: dict[str, str] = {}
    sentences = []
    for record in records:
        name = f"{record['group']}/{record['run']}"
        path = folder / name / NAME
        if not path.is_file():
            continue
        try:
            reason = _why_not(path, len(urls))
            content = b"" if reason else path.read_bytes()
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            sentences.append(f"{path} is left out: {reason}.")
        else:
            urls[name] = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    return urls, sentences
