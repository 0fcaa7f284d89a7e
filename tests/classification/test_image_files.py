import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from classification.image_files import ImageFiles, ImageReader, read_square
from common.errors import UserError
from tests.classification.image_trees import picture, write_images

SIDE = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    folder = tmp_path_factory.mktemp("images")
    return ImageFiles(folder, write_images(folder, 13), SIDE)


# One file


@pytest.mark.parametrize("size", [(50, 37), (16, 16), (5, 90), (1, 1)])
def test_an_image_is_squeezed_whole_and_its_size_remembered(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    image = picture(*size)
    image.save(tmp_path / "a.png")
    square, found = read_square(tmp_path / "a.png", SIDE)
    assert found == size
    assert square.shape == (SIDE, SIDE, 3)
    wanted = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.array_equal(square.numpy(), wanted)


def test_a_large_jpeg_decoded_at_less_size_is_nearly_the_same(tmp_path: Path) -> None:
    image = picture(331, 259)
    image.save(tmp_path / "a.jpg", quality=95)
    square, size = read_square(tmp_path / "a.jpg", SIDE)
    assert size == (331, 259)
    wanted = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.int16)
    assert np.abs(square.numpy() - wanted).max() <= 4


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png")],
)
def test_other_kinds_of_images_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    image = picture(40, 30, mode=mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    square, _ = read_square(path, SIDE)
    wanted = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.abs(square.numpy() - np.asarray(wanted, np.int16)).max() <= 12


def test_of_16_bits_the_upper_8_stay(tmp_path: Path) -> None:
    grey = np.asarray(picture(40, 30, mode="L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey).save(tmp_path / "flat.png")
    deep, flat = (read_square(tmp_path / f"{name}.png", SIDE)[0] for name in ("deep", "flat"))
    assert torch.equal(deep, flat)


def test_transparency_is_dropped_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    image = picture(40, 30, mode="P")
    image.save(tmp_path / "clear.png", transparency=bytes(range(256)))
    image.save(tmp_path / "solid.png")
    clear, solid = (read_square(tmp_path / f"{name}.png", SIDE)[0] for name in ("clear", "solid"))
    assert torch.equal(clear, solid)
    assert not len(recwarn)


@pytest.mark.parametrize("lies", [2, 3, 6, 7])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_says_where_asked_for(
    tmp_path: Path, lies: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = lies
    # Large enough for a JPEG to be decoded at half its size.
    image = picture(51, 39)
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    square, size = read_square(tmp_path / f"a.{suffix}", SIDE, turn=True)
    image.getexif()[0x0112] = lies
    expected = ImageOps.exif_transpose(image)
    assert size == expected.size == ((51, 39) if lies < 5 else (39, 51))
    wanted = np.asarray(expected.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.int16)
    assert np.abs(square.numpy() - wanted).mean() < 3
    files = ImageFiles(tmp_path, [f"a.{suffix}"], SIDE, turn=True)
    assert torch.equal(files.read(0)[0], square)


def test_exif_s_orientation_is_ignored_where_not_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture(40, 30).save(tmp_path / "turned.jpg", exif=exif)
    picture(40, 30).save(tmp_path / "plain.jpg")
    turned, plain = (read_square(tmp_path / f"{name}.jpg", SIDE) for name in ("turned", "plain"))
    assert turned[1] == plain[1] == (40, 30)
    assert torch.equal(turned[0], plain[0])


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text("no image")


@pytest.mark.parametrize("kind", ["missing", "cut off", "empty", "folder", "text"])
@pytest.mark.parametrize("suffix", ["JPEG", "png"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"n01440764_1.{suffix}"
    picture(40, 30).save(path)
    damage(path, kind)
    with pytest.raises(UserError, match=rf"n01440764_1\.{suffix} cannot be read as an image \(.+"):
        read_square(path, SIDE)


# A list of them


def test_what_is_wrong_with_a_file_is_returned_by_the_list(tmp_path: Path) -> None:
    names = write_images(tmp_path, 2)
    damage(tmp_path / names[1], "cut off")
    files = ImageFiles(tmp_path, names, SIDE)
    assert len(files) == 2
    assert not isinstance(files[0], UserError)
    assert isinstance(files[1], UserError)


def test_a_side_of_no_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="side"):
        ImageFiles(tmp_path, [], 0)


def test_a_list_can_be_sent_to_a_worker_process(files: ImageFiles) -> None:
    sent = pickle.loads(pickle.dumps(files))
    assert torch.equal(sent.read(3)[0], files.read(3)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_order_asked_for(files: ImageFiles, workers: int) -> None:
    indices = [torch.tensor([5, 0, 5]), torch.tensor([12]), torch.tensor([1, 2, 3, 4])]
    batches = list(ImageReader(files).batches(indices, workers))
    assert len(batches) == 3
    for index, (squares, sizes) in zip(indices, batches, strict=True):
        assert squares.dtype == torch.uint8
        assert squares.is_contiguous()
        assert sizes.dtype == torch.float32
        for number, square, size in zip(index.tolist(), squares, sizes.tolist(), strict=True):
            pixels, wanted = files.read(number)
            assert torch.equal(square, pixels)
            assert tuple(size) == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_ends_the_batches_with_its_name(tmp_path: Path, workers: int) -> None:
    names = write_images(tmp_path, 4)
    damage(tmp_path / names[2], "cut off")
    reader = ImageReader(ImageFiles(tmp_path, names, SIDE))
    batches = reader.batches(list(torch.arange(4).split(2)), workers)
    next(batches)
    with pytest.raises(UserError, match=r"image2\.JPEG cannot be read"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_no_images_is_empty(files: ImageFiles, workers: int) -> None:
    """A rank's share of the last batch may be."""
    none, one = torch.empty(0, dtype=torch.int64), torch.tensor([3])
    batches = list(ImageReader(files).batches([one, none, one], workers))
    assert [len(squares) for squares, _ in batches] == [1, 0, 1]
    squares, sizes = batches[1]
    assert (squares.shape, squares.dtype) == ((0, SIDE, SIDE, 3), torch.uint8)
    assert (sizes.shape, sizes.dtype) == ((0, 2), torch.float32)
