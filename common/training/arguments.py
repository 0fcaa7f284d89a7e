"""The command line of a task: a recipe's name, then options that depart from it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import tyro

from common.errors import UserError
from common.training.settings import RunConfig, resolved


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where and how a run is carried out.

    Another device, number of threads or number of processes changes its numbers by their last bits,
    which training makes larger; nothing else here changes them.
    """

    out: Path = Path("runs")
    """Folder of all runs; this one is in OUT/GROUP/RUN."""
    group: str | None = None
    """Sub-folder; None: the recipe's name."""
    data: Path | None = None
    """The data set's file or folder; None: its usual place, see data_prep/README.md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: cuda if there is one."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """CPU threads; two runs of one thread beat one run of two. Another number sums in another
    order, so that the results differ slightly, as with another seed."""
    checkpoint_seconds: float = 10.0
    """Least time between two checkpoints; a lost process loses no more than this and an epoch."""
    config: tyro.conf.OmitArgPrefixes[RunConfig]
    """The settings that the run's name and record tell."""
    workers: int = 0
    """Processes, for each that trains, which read ahead; 0: none."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, or leads out of ``out``."""
        group = self.group
        if group is not None and (group in ("", ".", "..") or "/" in group or "\0" in group):
            raise UserError(
                f"--group {group!r} must be the name of one folder within --out; name the place of "
                "all runs with --out."
            )
        # Not '< 0': NaN fails every comparison.
        if not self.checkpoint_seconds >= 0:
            raise UserError(
                f"--checkpoint-seconds must be at least 0, not {self.checkpoint_seconds}."
            )
        if self.threads < 1:
            raise UserError(f"--threads must be at least 1, not {self.threads}.")
        if self.workers < 0:
            raise UserError(f"--workers must be at least 0, not {self.workers}.")

    def resolved(self) -> Self:
        """With every 'None: as ...' of the settings filled in.

        Raises:
            UserError: an option has no effect.
        """
        return replace(self, config=resolved(self.config))

    def first_stage(self) -> Self | None:
        """Of a resolved second stage the resolved first; None: it is no second stage."""
        return None


Arguments = TypeVar("Arguments", bound=RunArguments)


def parse_command_line(
    words: Sequence[str],
    program: str,
    recipes: Mapping[str, RunConfig],
    make: Callable[..., Arguments],
) -> Arguments:
    """Arguments from a command line: a recipe's name, then options that depart from it.

    Args:
        words: of the command line.
        program: the module's name, such as ``video.train``.
        recipes: by name.
        make: a class with a field ``config``.

    Raises:
        UserError: when the first word is not a recipe.
    """
    if words and words[0] in recipes:
        default = make(config=recipes[words[0]])
        name = f"{program} {words[0]}"
        return tyro.cli(type(default), default=default, args=words[1:], prog=name)
    names, first = ", ".join(recipes), next(iter(recipes))
    if words and words[0] in ("-h", "--help"):
        print(
            f"usage: python -m {program} {{{names}}} [options]; "
            f"python -m {program} {first} --help tells the options of a recipe"
        )
        sys.exit(0)
    raise UserError(f"the first argument names the recipe, one of: {names}.")
