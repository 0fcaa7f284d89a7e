"""The settings of runs on images in files, and the paper's values for ImageNet-LT (Sec. 4.1.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import tyro

from classification.config import ClassificationConfig, Precision, resolved
from classification.models import ImageNetwork
from common.errors import UserError
from common.losses import Reduction
from common.training.schedule import cosine_schedule, step_schedule
from common.training.settings import checked_milestones

ImageMethod = Literal[
    "ce", "focal", "cfs", "cb", "eql", "class-aware", "cdb-s", "cdb-w-fl", "cdb-w-ce", "oltr"
]
ImageRecipe = Literal[
    "imagenet-lt", "imagenet-lt-oltr", "image-folder", "image-folder-oltr", "digit-images",
    "digit-images-oltr",
]  # fmt: skip
_CONDITIONS: Final = {"imagenet-lt": "256", "digit-images": "80", "image-folder": "lists"}
"""The imbalance of a data set whose lists are fixed."""


@dataclass(frozen=True)
class ImageConfig(ClassificationConfig):
    """One run on images in files, whose lists are given: ImageNet-LT, or a folder of one's own."""

    recipe: tyro.conf.Fixed[ImageRecipe] = "imagenet-lt"
    """The recipe that these settings depart from."""
    dataset: tyro.conf.Fixed[Literal["imagenet-lt", "image-folder", "digit-images"]] = "imagenet-lt"
    """Data set."""
    lists: str | None = None
    """image-folder: digest of the lists that the run belongs to; None: of those that are found."""
    method: ImageMethod = "ce"
    """Loss or sampler; Table 1's names."""
    loss_reduction: Reduction = "weight-sum"
    """Divide the batch's sum of losses by its size, by the sum of its weights (as the authors' code
    for ImageNet-LT), or by nothing."""
    eql_threshold: float = 4.3e-4
    """eql: lambda, the share of the training samples under which a class is rare."""
    epochs: int = 100
    """Passes over as many samples as the training set has."""
    batch_size: int = 512
    """Samples a step, over all processes."""
    learning_rate: float = 0.2
    """Of SGD, at the start."""
    weight_decay: float = 0.0005
    """Of SGD, on all parameters."""
    milestones: tuple[int, ...] = ()
    """After so many epochs each the learning rate is multiplied by lr_decay; none: it follows half
    a cosine to 0."""
    lr_decay: float = 0.1
    """Factor at each milestone."""
    network: ImageNetwork = "resnet10"
    """Network; see classification/models/resnet_image.py."""
    stored_side: int = 256
    """Images are squeezed to squares of so many pixels a side, which crops are taken from."""
    crop: int = 224
    """Side in pixels of what the network sees."""
    flip: float = 0.5
    """Probability that a training image is mirrored."""
    colour_jitter: float = 0.4
    """Brightness, contrast and saturation of a training image are multiplied by factors of up to so
    much above or below 1; 0: they stay as they are."""
    hard_weight: float = 0.8
    """focal, cdb-w-fl: samples of a larger focal weight are counted as hard (Figure 4)."""
    precision: Precision = "bfloat16"
    """Of the network's passes; weights, statistics and losses are always float32. On a processor
    without bfloat16 instructions float32 is several times faster."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        object.__setattr__(self, "milestones", checked_milestones(self.milestones))
        self._check_no_effect()
        if (self.method == "oltr") != self.recipe.endswith("-oltr"):
            name = self.recipe.removesuffix("-oltr")
            raise UserError(
                f"--method {self.method} is not for {self.recipe}; OLTR's recipe is {name}-oltr."
            )

    def _check_no_effect(self) -> None:
        """Refuse what would be named in the run and change nothing."""
        reason = ""
        if self.lists is not None and self.dataset != "image-folder":
            reason = f"--lists {self.lists} has no effect on {self.dataset}, whose lists are fixed"
        elif self.lr_decay != ImageConfig.lr_decay and not self.milestones:
            reason = f"--lr-decay {self.lr_decay} has no effect without --milestones"
        elif self.method == "oltr" and self.loss_reduction != ImageConfig.loss_reduction:
            reason = f"--loss-reduction {self.loss_reduction} has no effect on --method oltr"
        if reason:
            raise UserError(f"{reason}; leave it out.")

    @property
    def recipe_name(self) -> str:
        """The recipe it departs from."""
        return self.recipe

    @property
    def condition(self) -> str:
        """The record's ``condition``: the imbalance, or of one's own folder that lists tell it."""
        return _CONDITIONS[self.dataset]

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """Half a cosine, or steps down; see :mod:`common.training.schedule`."""
        if not self.milestones:
            return cosine_schedule(self.learning_rate, epoch, progress, epochs=self.epochs)
        return step_schedule(
            self.learning_rate,
            epoch,
            progress,
            warmup_epochs=0,
            milestones=self.milestones,
            decay=self.lr_decay,
        )


@dataclass(frozen=True)
class OltrConfig(ImageConfig):
    """OLTR's second stage (Liu et al. 2019), as their code sets it; its first is trained before.

    The first stage is CE, 30 epochs with the learning rate falling after 10 and 20. Its last
    epoch's weights are used.
    """

    recipe: tyro.conf.Fixed[ImageRecipe] = "imagenet-lt-oltr"
    """The recipe that these settings depart from."""
    method: Literal["oltr"] = "oltr"
    """Table 1's name."""
    samples_per_class: int = 4
    """Consecutive samples of a class that class-aware sampling takes."""
    epochs: int = 60
    """Epochs of the second stage."""
    batch_size: int = 128
    """Samples a step, over all processes, of both stages."""
    learning_rate: float = 0.1
    """Of SGD: the classifier's; features and centroids have a tenth of it."""
    milestones: tuple[int, ...] = (20, 40)
    """After so many epochs each the learning rate is multiplied by lr_decay."""
    stage1_epochs: int = 30
    """Epochs of the first stage, whose learning rate falls after each third of them."""

    def stage1_config(self) -> ImageConfig:
        """The resolved configuration of the first stage."""
        recipe = _FIRST_STAGES[self.dataset]
        falls = (round(self.stage1_epochs / 3), round(2 * self.stage1_epochs / 3))
        milestones = tuple(sorted({*falls} - {0, self.stage1_epochs}))
        same = {
            name: getattr(self, name)
            for name in (
                "lists", "seed", "batch_size", "learning_rate", "momentum", "weight_decay",
                "lr_decay", "network", "stored_side", "crop", "flip", "colour_jitter", "precision",
            )
        }  # fmt: skip
        first = replace(recipe, epochs=self.stage1_epochs, milestones=milestones, **same)
        return resolved(first)


IMAGENET_LT = ImageConfig()
"""Sec. 4.1.2; crops, mirroring and colours as the authors' code, see docs/imagenet-lt.md."""

IMAGE_FOLDER = ImageConfig(recipe="image-folder", dataset="image-folder")
"""The same for any folder of images with lists; see docs/imagenet-lt.md."""

DIGIT_IMAGES = ImageConfig(
    recipe="digit-images",
    dataset="digit-images",
    epochs=40,
    batch_size=32,
    learning_rate=0.02,
    stored_side=72,
    crop=64,
    # A mirrored 9 is no 9.
    flip=0.0,
    precision="float32",
)
"""The rendered set that proves the path: data_prep/digit_images.py. The learning rate was chosen
among 0.02 and 0.05 by the accuracy of ce on the difficulty set."""

_FIRST_STAGES: Final = {
    "imagenet-lt": IMAGENET_LT, "image-folder": IMAGE_FOLDER, "digit-images": DIGIT_IMAGES,
}  # fmt: skip

IMAGE_RECIPES: Final[Mapping[str, ClassificationConfig]] = {
    **_FIRST_STAGES,
    "imagenet-lt-oltr": OltrConfig(),
    "image-folder-oltr": OltrConfig(recipe="image-folder-oltr", dataset="image-folder"),
    "digit-images-oltr": OltrConfig(
        recipe="digit-images-oltr",
        dataset="digit-images",
        epochs=40,
        stage1_epochs=40,
        milestones=(13, 27),
        batch_size=32,
        learning_rate=0.02,
        stored_side=72,
        crop=64,
        flip=0.0,
        precision="float32",
    ),
}
