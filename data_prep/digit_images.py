"""Digit images: the example of ``data_prep.image_example``, split, as a data set to train on.

Use: ``python -m data_prep.digit_images render``. Ten looks of handwritten digits, long-tailed, in
files: what proves that training on a folder of images learns, where ImageNet is not at hand.
"""

import shlex
from pathlib import Path
from typing import Final

import torch
import tyro

from common.errors import UserError, run_main
from common.files import chosen_path
from data_prep.image_example import EXAMPLE_WORDS, make_example
from data_prep.image_folder import HELD_OUT, LIST_FILES, load_image_folder, split_tree
from data_prep.image_folder import write_lists as write_split
from data_prep.image_list import ImageSplit
from data_prep.image_tree import scan_tree

FOLDER_VARIABLE: Final = "CDB_DIGIT_IMAGES"
DEFAULT_FOLDER: Final = Path("data/digit-images")
_SPLIT_SEED: Final = 0
REMEDY: Final = "render them with: python -m data_prep.digit_images render"


def default_folder() -> Path:
    """The folder that is read when none is named: $CDB_DIGIT_IMAGES, else data/digit-images."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def load_digit_images(folder: Path | None = None) -> ImageSplit:
    """The split of the rendered folder; see :func:`data_prep.image_folder.load_image_folder`.

    Raises:
        UserError: it has not been rendered, or a list is damaged.
    """
    folder = default_folder() if folder is None else folder
    if not all((folder / name).is_file() for name in LIST_FILES.values()):
        # Only what is not there yet is named as the place to write to.
        place = "<a new folder>" if folder.exists() else shlex.quote(str(folder))
        raise UserError(f"{folder} holds no digit images; {REMEDY} --folder {place}.")
    return load_image_folder(folder)


def render(folder: Path | None = None) -> None:
    """Render the images and write their lists; what is there already stays as it is.

    Args:
        folder: where to; else CDB_DIGIT_IMAGES, else data/digit-images.
    """
    folder = default_folder() if folder is None else folder
    torch.set_num_threads(1)  # Images of this size are made faster by one thread.
    count = make_example(folder)
    tree = scan_tree(folder)
    write_split(folder, tree.class_names, split_tree(tree, HELD_OUT, HELD_OUT, _SPLIT_SEED), False)
    print(f"{folder}: {count} images, {EXAMPLE_WORDS}")


def main() -> None:
    """Run the ``render`` command."""
    tyro.extras.subcommand_cli_from_dict({"render": render}, prog="data_prep.digit_images")


if __name__ == "__main__":
    run_main(main)
