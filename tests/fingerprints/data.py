"""The tiny data: written once, and kept, so that what writes it may change."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np

from common.files import write_atomically
from data_prep import digit_scenes
from data_prep.cifar100 import CLASS_NAMES, NPZ_TEST, NPZ_TRAIN, canonical_order
from data_prep.clips import PART_FILES, VERB_FILE
from data_prep.lvis import DIFFICULTY_FILE, REST_FILE, VAL_FILE
from tests.classification.small_images import write_images
from tests.detection.runs import write_lvis
from tests.fingerprints.cases import CIFAR_TEST, CIFAR_TRAIN, WHOLE
from tests.video.synthetic import write_set

DIGESTS: Final = "digests.json"


def write_data(folder: Path, names: Iterable[str]) -> None:
    """Write the sets of these names, and beside each a file that says it is whole."""
    writers: dict[str, Callable[[Path], object]] = {
        "cifar100": _write_cifar, "images": write_images, "lists": _write_lists,
        "lvis": write_lvis, "scenes": _write_scenes, "verbs": _write_verbs,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        writers[name](folder / name)
        (folder / f"{name}.{WHOLE}").touch()


def _write_cifar(folder: Path) -> None:
    """CIFAR-100's numpy layout, of few images: noise on a colour of the class's own."""
    folder.mkdir()
    draw, digests = np.random.default_rng(0), {}
    for part, per_class in (("train", CIFAR_TRAIN), ("test", CIFAR_TEST)):
        labels = draw.permutation(np.repeat(np.arange(len(CLASS_NAMES)), per_class))
        colours = np.stack([labels % 5, labels // 5 % 5, labels // 25], axis=1) * 40 + 30
        noise = draw.integers(-30, 30, (len(labels), 32, 32, 3))
        images = (colours[:, None, None] + noise).astype(np.uint8)
        files = NPZ_TRAIN if part == "train" else (NPZ_TEST,)
        for number, name in enumerate(files):
            some = slice(number, None, len(files))
            np.savez(
                folder / name, images=images[some], labels=labels[some], class_names=CLASS_NAMES
            )
        _, digests[part] = canonical_order(images.transpose(0, 3, 1, 2).copy(), labels)
    write_atomically(folder / DIGESTS, json.dumps(digests).encode())


def _write_lists(folder: Path) -> None:
    """The lists of images that are missing."""
    images = write_images(folder / "images")
    for path in images.glob("*.txt"):
        path.rename(folder / path.name)
    shutil.rmtree(images)


def _write_scenes(folder: Path) -> None:
    """The set of LVIS under the names of the digit scenes."""
    write_lvis(folder)
    names = {"train": REST_FILE, "difficulty": DIFFICULTY_FILE, "val": VAL_FILE}
    contents = {part: (folder / name).read_bytes() for part, name in names.items()}
    for part, content in contents.items():
        (folder / digit_scenes.FILES[part]).write_bytes(content)
    (folder / digit_scenes.SETTINGS_FILE).write_text("{}")


def _write_verbs(folder: Path) -> None:
    """The set of verbs; and what EGTEA's splits are verified by."""
    write_set(folder)
    splits = folder / "splits"
    found = {
        name: hashlib.sha256((splits / name).read_bytes()).hexdigest()
        for name in (*PART_FILES.values(), VERB_FILE)
    }
    write_atomically(folder / DIGESTS, json.dumps(found).encode())
