"""What a method of detectors is: all that training asks of one, and the usual answers.

Shapes: B images a step, C categories, N training images, P pairs of an image and a category in it,
S steps an epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from torch import Tensor

from common.balancer import ClassDifficultyBalancer
from common.distributed import world_size
from common.errors import UserError
from common.sampler import EpochSampler, InstanceBalancedSampler
from common.streams import Streams
from common.training.methods.base import Method, make_balancer
from common.training.settings import DifficultySettings, MethodSettings, Setting
from detection.heads import ClassificationHead, SoftmaxHead

Measure = Literal["ap", "proposals"]
NO_REDUCTION: Final = ("loss_reduction",)
"""Settings without effect on a head that is not the softmax: its loss is divided in its own way."""


@dataclass(frozen=True)
class CategoryCounts:
    """What a head may be made from, besides settings."""

    num_classes: int
    """C."""
    instances: Tensor | None = None
    """Training instances of each category, (C,)."""
    image_share: Tensor | None = None
    """Share of the training images with each category, (C,)."""

    def of(self, name: Literal["instances", "image_share"]) -> Tensor:
        """The counts of that name, (C,).

        Raises:
            ValueError: where they were not given.
        """
        counts: Tensor | None = getattr(self, name)
        if counts is None:
            raise ValueError(f"this head is made from {name} of the categories; give them")
        return counts


class DetectionMethod(Method):
    """A method of detectors; as it stands cross-entropy, each image once an epoch."""

    counted: ClassVar[bool] = False
    """Whether its head is made from counts of categories."""
    second_stage_suffix: ClassVar[str] = "-clc"
    """What the paper's tables put behind its name where only the class layer is trained."""
    trained_with: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Settings of a second stage's optimizer in place of the first stage's."""

    def __init__(self, config: Any, sets: Any, streams: Streams) -> None:
        """Make the sampler of images.

        Args:
            config: the run's ``DetectionConfig``, which has the method's settings.
            sets: ``DetectionSets``: its training set and number of categories are used.
            streams: gives the sampler and the head their generators.
        """
        super().__init__()
        self.config, self.sets, self.streams = config, sets, streams
        self.sampler = self.make_sampler(streams["sampler"])

    # What is learnt from a proposal.

    @staticmethod
    def make_head(
        settings: Any, counts: CategoryCounts, generator: torch.Generator
    ) -> ClassificationHead:
        """The classification head, for any engine.

        Args:
            settings: has those of the method, and ``loss_reduction``.
            counts: of the training set, where :attr:`counted`.
            generator: a CPU generator of the head's own.

        Raises:
            ValueError: for settings or counts that the head refuses.
        """
        return SoftmaxHead(counts.num_classes, reduction=settings.loss_reduction or "batch-size")

    def head(self) -> ClassificationHead:
        """The head of the run; what it learns from the difficulty it asks the balancer."""
        train = self.sets.train.annotations
        counts = CategoryCounts(
            self.sets.num_classes,
            torch.from_numpy(train.instance_count),
            torch.from_numpy(train.image_count / train.num_images),
        )
        return self.make_head(self.config, counts, self.streams["head"])

    def add_classifier(self, model: Any, head: ClassificationHead) -> None:
        """Give the first stage's detector what a second stage trains: a new class layer."""
        from detection.models import replace_classifier

        replace_classifier(model, head, generator=self.streams["classifier"])

    # Which images are shown.

    def make_sampler(self, generator: torch.Generator) -> EpochSampler:
        """The sampler of images; ``generator`` is its own."""
        images = torch.zeros(len(self.sets.train), dtype=torch.int64)
        return InstanceBalancedSampler(images, 1, generator)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Image index (P,) and category index (P,) of each pair, int64."""
        image, category = self.sets.train.annotations.image_categories
        return torch.from_numpy(image), torch.from_numpy(category)

    @property
    def step_size(self) -> int:
        """B, over all ranks."""
        size: int = self.config.batch_size
        return size

    def check_step(self) -> None:
        """Refuse steps that the ranks cannot share alike, or that the images cannot fill.

        Raises:
            UserError: naming the option.
        """
        size, images = self.step_size, len(self.sets.train)
        if size % world_size():
            raise UserError(
                f"--batch-size {size} cannot be shared by {world_size()} processes; make it a "
                "multiple of their number."
            )
        if size > images:
            raise UserError(
                f"--batch-size {size} is more than the {images} training images; lower it."
            )

    def draw_images(self) -> tuple[Tensor, list[int]]:
        """Images of an epoch, (S B,), and the category that each was drawn for, if for one."""
        order = self.sampler.draw()
        return order[: len(order) // self.step_size * self.step_size], []


@dataclass(frozen=True)
class CategoryDifficultySettings(DifficultySettings):
    """CDB's, and how a category's performance is measured."""

    difficulty: Annotated[
        Measure,
        Setting(
            "CDB: a category's performance is its AP on the difficulty images, or the share of its "
            "proposals in training that are classified right."
        ),
    ] = "ap"
    difficulty_period: Annotated[
        int, Setting("CDB by ap: t, epochs between two measurements.", at_least=1)
    ] = 1


class DifficultyMethod(DetectionMethod):
    """What the paper's methods share: a balancer that follows the performance of each category."""

    Settings: ClassVar[type[MethodSettings]] = CategoryDifficultySettings
    balancer: ClassDifficultyBalancer

    def __init__(self, config: Any, sets: Any, streams: Streams) -> None:
        """Start with equal weights; see :class:`DetectionMethod`."""
        super().__init__(config, sets, streams)
        self.balancer = make_balancer(config, sets.num_classes)
