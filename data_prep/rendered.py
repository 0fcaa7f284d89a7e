"""What rendered data sets share: a folder that belongs to one set of settings, and its remedy."""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, describe_os_error
from common.files import remove_partial_files, write_atomically

Settings = Mapping[str, float]


@dataclass(frozen=True)
class RenderedSet:
    """One kind of rendered set.

    Attributes:
        words: what it is called, e.g. 'digit scenes'.
        module: whose ``render`` command makes it.
        settings_file: name of the file that says with which settings a folder was made.
        version: another number when another program would render other things from the same
            settings.
        contents: names that lie in a folder of this kind, beside the settings.
    """

    words: str
    module: str
    settings_file: str
    version: int
    contents: tuple[str, ...]

    def claim(self, folder: Path, settings: Settings) -> None:
        """Make ``folder`` one of these settings, or see that it is.

        Raises:
            UserError: it holds a set of other settings, or files of another origin.
        """
        path = folder / self.settings_file
        wanted = {"version": self.version, **settings}
        if not path.exists():
            self._check_empty(folder)
            make_folders([folder])
            write_atomically(path, (json.dumps(wanted, indent=2) + "\n").encode())
        elif difference := self._difference(_read_text(path), wanted):
            raise UserError(
                f"{folder} holds {self.words} of other settings ({difference}); "
                "give the same options or another --folder, or delete it."
            )

    def remedy(self, folder: Path, default: Settings) -> str:
        """The command that makes what is missing, with the options the folder was made with."""
        words = [f"python -m {self.module} render --folder", shlex.quote(str(folder))]
        path = folder / self.settings_file
        if path.is_file():
            words += _given_options(_read_text(path), default)
        return f"render what is missing with: {' '.join(words)}"

    def _check_empty(self, folder: Path) -> None:
        taken = [name for name in self.contents if (folder / name).exists()]
        if taken:
            raise UserError(
                f"{folder / taken[0]} was not made by this command; give an empty --folder."
            )

    def _difference(self, text: str, wanted: Settings) -> str:
        """The settings that differ, in words; empty if there are none."""
        try:
            found = json.loads(text)
            changed = [name for name in wanted if found[name] != wanted[name]]
            return ", ".join(f"{name} {found[name]:g}, not {wanted[name]:g}" for name in changed)
        except (ValueError, KeyError, TypeError):
            return f"{self.settings_file} is damaged"


def make_folders(folders: Iterable[Path]) -> None:
    """Make folders, and clear them of files that a killed process left half-written.

    Raises:
        UserError: one cannot be made.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise describe_os_error(error, folder) from error
        remove_partial_files(folder)


def _given_options(text: str, default: Settings) -> list[str]:
    """The options that are not the default ones in a file of settings."""
    try:
        found = json.loads(text)
        changed = {name: found[name] for name in default if found[name] != default[name]}
        return [f"--{name.replace('_', '-')} {value:g}" for name, value in changed.items()]
    except (ValueError, KeyError, TypeError):
        return []  # The file is damaged, which render will say.


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise describe_os_error(error, path) from error
