"""Image files of any kind, read by Pillow as 8-bit RGB."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """The file, opened; what goes wrong with it inside becomes a sentence.

    Raises:
        UserError: it is missing, cut off, damaged or no image.
    """
    try:
        with Image.open(path) as picture:
            yield picture
    except OSError as error:
        # Pillow's word for a damaged file is an OSError without a number.
        raise _unreadable(path, error.strerror or error) from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: object) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} cannot be read as an image ({reason}); get it again.")


def as_rgb(picture: Image.Image) -> Image.Image:
    """8 bits a colour: grey and palette ones spread, CMYK turned, 16 bits cut to the upper 8.

    What is see-through is shown as if it were not, as by torchvision's loader.
    """
    if picture.mode.startswith("I"):
        # 16 bits: Pillow would cut them off at 255.
        upper = (np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    # A palette's transparency, which is dropped, would be warned of.
    picture.info.pop("transparency", None)
    return picture.convert("RGB")
