"""Small folders of photographs, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth colours, other ones for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def write_images(folder: Path, number: int) -> list[str]:
    """JPEGs of various sizes in folders of their own: their names."""
    names = [f"class{i % 3}/image{i}.JPEG" for i in range(number)]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(20 + i, 30 - i % 7, seed=i).save(folder / name, quality=90)
    return names
