"""How images in files are read, as a run is told; what does so is ``image_data.py``."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """How files are read; nothing here changes a number."""

    cache: Path | None = None
    """Folder of squares made before; None: every image is decoded each time."""
    workers: int = 0
    """That read ahead, for each process that trains."""
