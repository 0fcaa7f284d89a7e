"""What the settings of every classification run have in common.

The settings of one data set are a subclass in ``recipes.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import torch
from torch import Tensor, nn

from classification.methods import METHODS
from common.losses import Reduction
from common.training.methods import LogitConfig
from common.training.methods.base import settings_of_methods
from common.training.methods.cdb_w_fl import CountedCdbWFlSettings
from common.training.methods.focal import HardInstanceSettings
from common.training.settings import METHOD, REDUCTION, MethodSettings, Setting

Precision = Literal["bfloat16", "float32"]

OF_TABLE_1: Final = replace(
    METHOD,
    documentation="Loss or sampler; Table 1's names, and what is not in the paper: "
    "balanced-softmax (Ren et al. 2020), logit-adjustment and logit-adjustment-post-hoc (Menon et "
    "al. 2021), tau-normalisation (Kang et al. 2020), mixup (Zhang et al. 2018).",
)
REDUCTION_BY_METHOD: Final = replace(
    REDUCTION,
    documentation=f"{REDUCTION.documentation[:-1]}; None: by its size, with ldam-drw by the sum of "
    "its weights as Cao et al.",
)
PRECISION: Final = Setting(
    "Of the network's passes; weights, statistics and losses are always float32. On a processor "
    "without bfloat16 instructions float32 is several times faster."
)


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(LogitConfig, ABC):
    """One training run. Two runs of equal configurations give the same numbers."""

    method: Annotated[str, OF_TABLE_1] = "ce"
    loss_reduction: Annotated[Reduction | None, REDUCTION_BY_METHOD] = "batch-size"

    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = settings_of_methods(METHODS)
    in_files: ClassVar[bool] = False
    """Whether the images are read from files in training, rather than kept in memory."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Whose versions matter to the numbers besides torch's and numpy's."""

    @property
    @abstractmethod
    def condition(self) -> str:
        """The record's ``condition``: the imbalance, as the paper's tables name it."""

    @property
    def wanted_imbalance(self) -> float | None:
        """The imbalance asked for, where the training images are cut to one."""
        return None

    @property
    def without_decay(self) -> tuple[str, ...]:
        """Ends of the names of parameters that have no weight decay."""
        return ()

    @property
    def draws_in_passes(self) -> bool:
        """Whether the network draws random numbers in a step's passes (dropout)."""
        return False

    @property
    def starts_pretrained(self) -> bool:
        """Whether the network begins with published weights."""
        return False

    @property
    def trains_head_alone(self) -> bool:
        """Whether all but the network's last layer stays as it is at the start."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether AdamW is the optimizer, in place of SGD."""
        return False

    @property
    def epochs_without_gain(self) -> int:
        """The run ends after so many epochs that do not beat the best one; 0: it does not."""
        return 0

    def check_network(self) -> None:
        """Refuse a network that there is not."""

    def usual_weights(self) -> tuple[Path, str] | None:
        """Of a run that starts pretrained the file, there or not, and what to do without it."""
        return None

    def with_lists(self, folder: Path | None) -> Self:
        """The configuration with what belongs to it of the lists in ``folder``, if it has lists."""
        return self

    def check_last_batch(self, samples: int, network: nn.Module) -> None:
        """Refuse a batch size that leaves the network too few of so many samples at last."""

    def stage1_config(self) -> "ClassificationConfig | None":
        """The resolved configuration of the first stage, if this run is a second one."""
        return None

    def stage1_group(self, group: str) -> str:
        """The folder of the first stage's experiment, the second stage's being ``group``."""
        return group

    # What reads data and makes networks is imported when a recipe is chosen, not for its names.

    @abstractmethod
    def load_data(self, device: torch.device, source: Path | None, reading: Any) -> Any:
        """The data set on ``device``, as :func:`classification.data.load_data` is asked for it."""

    def image_source(self, images: Tensor) -> Any:
        """What changes training images in memory, (N, ...): :class:`augment.ImageSource`."""
        from classification.augment import PlainImages

        return PlainImages(images)

    @abstractmethod
    def make_preprocessing(self) -> Any:
        """What makes the network's input of one picture: :mod:`classification.preprocessing`."""

    @abstractmethod
    def make_network(self, num_classes: int, generator: torch.Generator) -> nn.Module:
        """The network with its initial weights."""


@dataclass(frozen=True)
class HardInstancesCounted(CountedCdbWFlSettings):
    """Of a configuration whose focal losses count hard instances."""

    method_settings: ClassVar[Mapping[str, type[MethodSettings]]] = {
        **ClassificationConfig.method_settings,
        "focal": HardInstanceSettings,
        "cdb-w-fl": CountedCdbWFlSettings,
    }


@dataclass(frozen=True, kw_only=True)
class SubsampledConfig(ClassificationConfig):
    """A run on a balanced data set whose training images are cut to an imbalance."""

    imbalance: Annotated[
        float,
        Setting("Samples of the most frequent class over those of the rarest, >= 1.", at_least=1),
    ] = 100
    split_seed: Annotated[
        int | None,
        Setting(
            "Seed of the training, difficulty and test subsets; None: the same number as seed.",
            at_least=0,
        ),
    ] = None

    @property
    def condition(self) -> str:
        """The record's ``condition``: the imbalance asked for."""
        return f"{self.imbalance:.15g}"

    @property
    def wanted_imbalance(self) -> float | None:
        """The imbalance asked for."""
        return self.imbalance

    def filled_in(self) -> dict[str, Any]:
        """Every 'None: as ...' that is filled in, by its name."""
        seed = self.seed if self.split_seed is None else self.split_seed
        return super().filled_in() | {"split_seed": seed, "imbalance": float(self.imbalance)}
