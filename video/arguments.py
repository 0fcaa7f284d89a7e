"""What a command line says besides the settings: where and how a run on clips is carried out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import tyro

from common.errors import UserError
from common.files import chosen_path
from common.training.arguments import RunArguments
from video.reading import Reader
from video.recipes import VideoConfig, resolved

KINETICS_VARIABLE: Final = "CDB_KINETICS"
DEFAULT_KINETICS: Final = Path("data/resnext-101-kinetics.pth")


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[VideoConfig]
    kinetics: Path | None = None
    """Weights pretrained on Kinetics (resnext-101-kinetics.pth of Hara et al.); None: the file that
    CDB_KINETICS names, else data/resnext-101-kinetics.pth."""
    reader: Reader = "pyav"
    """What decodes videos; both give the same frames."""
    cache: Path | None = None
    """Folder that keeps the frames of all clips after one pass over them; None: decode always."""
    workers: int = 0
    """Processes, for each that trains, which read clips ahead; 0: none. With GPUs as many as there
    are cores for each."""

    def resolved(self) -> Self:
        """With every 'None: as ...' of the settings filled in.

        Raises:
            UserError: an option has no effect.
        """
        if self.config.start == "random" and self.kinetics is not None:
            raise UserError("--kinetics has no effect on --start random; leave one of them out.")
        return replace(self, config=resolved(self.config))

    def kinetics_file(self) -> Path | None:
        """The file that the network starts from; None: random weights."""
        if self.config.start == "random":
            return None
        return chosen_path(self.kinetics, KINETICS_VARIABLE, DEFAULT_KINETICS)
