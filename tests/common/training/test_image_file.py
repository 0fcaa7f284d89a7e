"""Image files read by Pillow: what is refused, and with which remedy."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from common.errors import UserError
from common.training.image_file import PIXELS_VARIABLE, as_rgb, open_picture, orientation, upright


def read(path: Path) -> Image.Image:
    with open_picture(path) as picture:
        return as_rgb(picture)


def ramp(kind: type[np.generic], scale: float = 1) -> np.ndarray:
    return (np.arange(64).reshape(8, 8) * scale).astype(kind)


@pytest.mark.parametrize(
    "values", [ramp(np.float32, 1 / 64), ramp(np.int32, 2**25), ramp(np.int32), ramp(np.float32)]
)
def test_grey_of_32_bits_is_refused_instead_of_read_as_black(
    tmp_path: Path, values: np.ndarray
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has grey values of 32 bits .* save it with 8 or"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["tif", "png", "pgm"])
def test_grey_of_16_bits_is_read_by_its_upper_8(tmp_path: Path, ending: str) -> None:
    values = ramp(np.uint16, 1024)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    found = np.asarray(read(tmp_path / f"a.{ending}"))
    assert np.array_equal(found, np.repeat((values >> 8)[:, :, None], 3, 2))


@pytest.mark.parametrize("lies", range(1, 9))
def test_a_picture_is_turned_as_pillow_turns_it(lies: int) -> None:
    picture = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    picture.getexif()[0x0112] = lies
    assert orientation(picture) == lies
    turned, size = upright(picture, (50, 40), lies)
    expected = ImageOps.exif_transpose(picture)
    assert np.array_equal(np.asarray(turned), np.asarray(expected))
    assert size == (expected.width * 10, expected.height * 10)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"])
def test_exif_that_is_damaged_or_says_nothing_possible_turns_nothing(
    tmp_path: Path, exif: bytes
) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    with open_picture(tmp_path / "a.jpg") as picture:
        assert orientation(picture) == 1
    odd = Image.new("RGB", (5, 4))
    odd.getexif()[0x0112] = 9
    assert orientation(odd) == 1


def test_the_limit_of_pixels_can_be_set_and_its_message_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (50, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999)
    with pytest.raises(UserError, match=rf"large\.png .*2000 pixels.* set {PIXELS_VARIABLE} to as"):
        read(path)
    monkeypatch.setenv(PIXELS_VARIABLE, "2000")
    assert read(path).size == (50, 40)
    monkeypatch.setenv(PIXELS_VARIABLE, "1997")
    with pytest.raises(UserError, match="2000 pixels"):
        read(path)
    for words in ("many", "0", "-5", "1e6"):
        monkeypatch.setenv(PIXELS_VARIABLE, words)
        with pytest.raises(UserError, match=f"{PIXELS_VARIABLE}={words} is not a number of pixels"):
            read(path)


def test_a_png_with_much_text_is_to_be_saved_again_not_to_be_got_again(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(UserError, match=r"a\.png .*; save it again without its metadata\.$"):
        read(tmp_path / "a.png")
    profile = io.BytesIO()
    Image.new("RGB", (5, 4)).save(profile, "PNG", icc_profile=bytes(2 * 1024**2))
    (tmp_path / "b.png").write_bytes(profile.getvalue())
    with pytest.raises(UserError, match=r"b\.png .*; save it again without its metadata\.$"):
        read(tmp_path / "b.png")
