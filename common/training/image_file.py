"""Image files of any kind, read by Pillow as 8-bit RGB."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ExifTags, Image

from common.errors import UserError

PIXELS_VARIABLE: Final = "CDB_MAX_PIXELS"
"""Environment variable: images of more pixels are refused; else Pillow's limit, 178,956,970."""

_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes pixels upright, by EXIF's orientation."""
_ON_THEIR_SIDE: Final = 5
"""From this orientation on width and height change places."""


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """The file, opened; what goes wrong with it inside becomes a sentence.

    Raises:
        UserError: it is missing, cut off, damaged or no image; it has more pixels than are read, or
            grey values of 32 bits.
    """
    _set_limit()
    try:
        with Image.open(path) as picture:
            check_depth(picture, path)
            yield picture
    except OSError as error:
        # Pillow's word for a damaged file is an OSError without a number.
        raise _unreadable(path, error.strerror or error) from error
    except Image.DecompressionBombError as error:
        remedy = f"set {PIXELS_VARIABLE} to as many pixels as it has if you trust it"
        raise _unreadable(path, error, remedy) from error
    except (ValueError, SyntaxError) as error:
        # A PNG's limit on texts and colour profiles that unpack to very much.
        whole = "_TEXT_" in str(error)
        remedy = "save it again without its metadata" if whole else "get it again"
        raise _unreadable(path, error, remedy) from error


def _set_limit() -> None:
    """Tell Pillow the limit that the environment names; what has twice Pillow's, it refuses."""
    words = os.environ.get(PIXELS_VARIABLE)
    if not words:
        return
    if not _NUMBER.fullmatch(words) or int(words) < 1:
        raise UserError(
            f"{PIXELS_VARIABLE}={words} is not a number of pixels; give a whole number of at "
            "least 1."
        )
    Image.MAX_IMAGE_PIXELS = -(-int(words) // 2)


def check_depth(picture: Image.Image, name: object) -> None:
    """Refuse grey values of 32 bits: what is white differs from file to file.

    Raises:
        UserError: with the picture's ``name``.
    """
    # A PGM of more than 8 bits has 32 in Pillow, which scales its values to 16.
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PPM"):
        raise UserError(
            f"{name} has grey values of 32 bits or with a sign (Pillow's mode {picture.mode}), of "
            "which nothing says what is white; save it with 8 or 16 bits without a sign."
        )


def _unreadable(path: Path, error: object, remedy: str = "get it again") -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} cannot be read as an image ({reason}); {remedy}.")


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


def orientation(picture: Image.Image) -> int:
    """How the pixels lie by EXIF, 1 to 8; 1: upright, or nothing is said.

    Args:
        picture: after its pixels were read: a TIFF's are turned by Pillow, which then says 1.
    """
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Damaged EXIF raises almost anything; the pixels are whole.
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def upright(
    picture: Image.Image, size: tuple[int, int], lies: int
) -> tuple[Image.Image, tuple[int, int]]:
    """A picture and the (width, height) of its file, both turned.

    Args:
        picture: the file's, scaled in any way.
        size: of the file's, in pixels.
        lies: see :func:`orientation`.
    """
    if lies not in _TURNS:
        return picture, size
    width, height = size
    return picture.transpose(_TURNS[lies]), (
        (height, width) if lies >= _ON_THEIR_SIDE else (width, height)
    )
