"""EGTEA Gaze+ verbs, split 1 as the paper's authors divided it (Sec. 4.3.1).

The repository carries the lists of clips, not the clips, which are for research use.

    python -m data_prep.egtea show
    python -m data_prep.egtea check --folder data/egtea
"""

import hashlib
from pathlib import Path
from typing import Final

import tyro

from common.errors import UserError, describe_os_error, run_main
from common.files import chosen_path
from data_prep.clips import (
    PART_FILES,
    VERB_FILE,
    VerbSplit,
    check_folder,
    print_split,
    read_splits,
)

FOLDER_VARIABLE: Final = "CDB_EGTEA"
DEFAULT_FOLDER: Final = Path("data/egtea")
SPLIT_FOLDER: Final = Path(__file__).with_name("egtea_splits")
SHA256: Final = {
    PART_FILES["train"]: "d6bfde5d077611770179020c9ce5964356191b2738216df4840e9d0b5cccc37c",
    PART_FILES["difficulty"]: "879bddc517b7db65f89c559bb9f8a629166d08217e4c742ade1ff0bdaf4f8abd",
    PART_FILES["test"]: "aae8f661562de66b47cf1e06e9ca9749aff8bd9e86d4946c8cd4e92d5cdde0f3",
    VERB_FILE: "e4778d7a0efd31c8df4e16ab4a7da6a34e98c14230c6f9aa541a9c6212ec66d7",
}

# Sec. 4.3.1: average number of clips of the 5 most frequent verbs, and of the rest.
PAPER_AVERAGES: Final = {"head": 1216.0, "tail": 158.5}


def remedy(option: str) -> str:
    """How to name the folder of the clips, to a command that has this option for it."""
    return (
        "name the folder of EGTEA's trimmed clips (cropped_clips as the archive unpacks) with "
        f"{option}, or set {FOLDER_VARIABLE}, or put it in {DEFAULT_FOLDER}"
    )


def load_egtea_splits() -> VerbSplit:
    """The splits the repository carries: 6,372 + 1,927 + 2,022 clips of 19 verbs.

    Raises:
        UserError: a file is missing or is not the original one.
    """
    for name, expected in SHA256.items():
        _verify(SPLIT_FOLDER / name, expected)
    return read_splits(SPLIT_FOLDER)


def default_folder() -> Path:
    """The folder of the clips that is read when none is named: $CDB_EGTEA, else data/egtea."""
    return chosen_path(None, FOLDER_VARIABLE, DEFAULT_FOLDER)


def _verify(path: Path, expected: str) -> None:
    restore = "restore it with: git checkout -- data_prep/egtea_splits"
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {restore}.") from error
    except OSError as error:
        raise describe_os_error(error, path) from error
    if found != expected:
        raise UserError(
            f"{path} is not the original list (sha256 {found[:12]}..., expected "
            f"{expected[:12]}...); {restore}."
        )


# Command line.


def show() -> None:
    """Print clips per verb in each part, head and tail verbs, and the paper's averages."""
    split = load_egtea_splits()
    print_split(split)
    for name, labels in (("head", split.head), ("tail", split.tail)):
        print(
            f"{name}: {len(labels)} verbs with {split.average_frequency(labels):g} clips on "
            f"average in train + difficulty (paper: {PAPER_AVERAGES[name]:g})"
        )


def check(
    folder: Path | None = None, threads: int | None = None, report: Path | None = None
) -> None:
    """Check that every clip is there and all of its pictures can be read, before any training.

    Args:
        folder: the trimmed clips, flat or in sub-folders; else CDB_EGTEA, else data/egtea.
        threads: how many clips are read at a time; else one for each core.
        report: a file to write the name of every missing or unreadable clip into.
    """
    chosen = default_folder() if folder is None else folder
    check_folder(load_egtea_splits(), chosen, threads, report, remedy("--folder"))


def main() -> None:
    """Run the ``show`` or the ``check`` command."""
    tyro.extras.subcommand_cli_from_dict({"show": show, "check": check}, prog="data_prep.egtea")


if __name__ == "__main__":
    run_main(main)
