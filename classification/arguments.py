"""What a command line says besides the settings: where and how a run on images is carried out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import tyro

from classification.config import ClassificationConfig
from classification.recipes import group_name, resolved
from common.errors import UserError
from common.training.arguments import RunArguments


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[ClassificationConfig]
    cache: Path | None = None
    """Images in files: folder that keeps them as squares after one pass; None: decode always."""
    workers: int = 0
    """Images in files: for each process that trains, so many others (threads, with a cache) read
    ahead; 0: none. With a GPU as many as there are cores for each."""

    weights: Path | None = None
    """Images in files: of --start pretrained the file, a state dict of torch.save or .safetensors;
    None: torchvision's default weights where its cache has them (nothing is downloaded), or what
    FUNCTION_weights() beside the network's FUNCTION names."""

    def resolved(self) -> Self:
        """With every 'None: as ...' of the settings filled in.

        Raises:
            UserError: an option has no effect, or one's own lists are missing, damaged or others.
        """
        self.config.check_network()
        self._check_effect()
        return replace(self, config=resolved(self.config).with_lists(self.data))

    def _check_effect(self) -> None:
        config = self.config
        of_files = {"--cache": self.cache, "--workers": self.workers, "--weights": self.weights}
        for option, given in of_files.items():
            if given and not config.in_files:
                raise UserError(
                    f"{option} {given} has no effect on {config.dataset}, which is kept in memory; "
                    "leave it out."
                )
        if self.weights is not None and not config.starts_pretrained:
            raise UserError(
                f"--weights {self.weights} has no effect without --start pretrained; leave it out, "
                "or add that."
            )

    def weights_file(self) -> tuple[Path, str] | None:
        """The file that the network starts from, and the remedy without it; None: none.

        Raises:
            UserError: --weights is left out, and nobody knows a file.
        """
        if not self.config.starts_pretrained:
            return None
        if self.weights is not None:
            return self.weights, "name another file with --weights"
        return self.config.usual_weights()

    def first_stage(self) -> Self | None:
        """The resolved first stage of a second one."""
        first = self.config.stage1_config()
        if first is None:
            return None
        group = self.config.stage1_group(self.group or group_name(self.config))
        return replace(self, config=first, group=group)
