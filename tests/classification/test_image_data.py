from collections import namedtuple
from pathlib import Path

import pytest
import torch

from classification.image_data import Reading, load_parts, load_split
from classification.image_recipes import IMAGE_FOLDER
from common.errors import UserError
from tests.classification.small_images import write_images


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
