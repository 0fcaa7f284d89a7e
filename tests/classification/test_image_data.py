from collections import namedtuple
from pathlib import Path

import pytest
import torch
from PIL import Image

from classification.image_data import load_parts, load_split
from classification.image_recipes import DIGIT_IMAGES, IMAGE_FOLDER, ImageConfig
from classification.reading import Reading
from common.errors import UserError
from tests.classification.small_images import write_images


@pytest.mark.parametrize(("config", "turned"), [(IMAGE_FOLDER, True), (DIGIT_IMAGES, False)])
def test_images_of_ones_own_and_only_these_are_turned_as_exif_says(
    tmp_path: Path, config: ImageConfig, turned: bool
) -> None:
    folder = write_images(tmp_path / "images")
    split = load_split(config, folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / split.train.paths[0], exif=exif)
    parts = load_parts(config, split, torch.device("cpu"), Reading())
    _, size = parts["train"].reader.files.read(0)
    assert size == ((20, 40) if turned else (40, 20))


def test_a_link_to_a_training_image_is_no_test_image(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    (folder / "test/0 0.png").unlink()
    (folder / "test/0 0.png").symlink_to(folder / "train/0 0.png")
    with pytest.raises(UserError, match=r"test/0 0\.png of the test part and train/0 0\.png of"):
        load_split(IMAGE_FOLDER, folder)


def test_room_is_checked_for_all_parts_before_the_first_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split = load_split(IMAGE_FOLDER, write_images(tmp_path / "images"))
    most = max(len(images) for images in split.parts.values())
    usage = namedtuple("usage", "total used free")
    # Enough for any one of the parts, with its tables.
    free = most * (3 * IMAGE_FOLDER.stored_side**2 + 100)
    reading = Reading(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(0, 0, free))
        with pytest.raises(UserError, match=rf"The image cache {reading.cache} needs"):
            load_parts(IMAGE_FOLDER, split, torch.device("cpu"), reading)
    assert not list(tmp_path.rglob("*.npy"))
    parts = load_parts(IMAGE_FOLDER, split, torch.device("cpu"), reading)
    assert capsys.readouterr().out.startswith("67 of 67 images are to be decoded")
    for name, part in parts.items():
        assert part.reader.cache is not None
        assert part.reader.cache.folder == tmp_path / "cache" / name
        assert len(part.numbers) == len(part.reader.files) == len(split.parts[name])
