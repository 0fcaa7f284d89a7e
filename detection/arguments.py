"""What a command line says besides the settings: where and how a run on scenes is carried out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import tyro

from common.errors import UserError
from common.training.arguments import RunArguments
from detection.recipes import DetectionConfig


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[DetectionConfig]
    images: Path | None = None
    """Folder of COCO's images; None: its usual place, see data_prep/README.md."""
    weights: Path | None = None
    """File of the published weights that --start coco or imagenet begins with."""
    workers: int = 0
    """Processes, for each that trains, which read images ahead; 0: none."""

    def first_stage(self) -> Self | None:
        """The resolved first stage of a second one."""
        first = self.config.stage1_config()
        return None if first is None else replace(self, config=first)

    def published(self) -> Path | None:
        """The file that a first stage starts from.

        Raises:
            UserError: when it is needed and not named, or named and of no use.
        """
        if self.config.start == "random" and self.weights is not None:
            raise UserError("--weights has no effect on --start random; leave one of them out.")
        if self.config.start != "random" and self.weights is None:
            raise UserError(
                f"--start {self.config.start} needs --weights, the file of the published weights "
                "(see detection/README.md); or use --start random."
            )
        return self.weights
