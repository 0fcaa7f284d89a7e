"""The settings of runs on images in files, and the paper's values for ImageNet-LT (Sec. 4.1.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, cast, get_args

import torch
import tyro
from torch import nn

from classification.config import (
    OF_TABLE_1,
    PRECISION,
    ClassificationConfig,
    HardInstancesCounted,
    Precision,
)
from classification.methods.mixup import MixupSettings
from classification.methods.oltr import OltrSettings
from classification.models import STRIDE, ImageNetwork
from common.errors import UserError
from common.losses import Reduction
from common.training.methods import UsualSettings
from common.training.methods.eql import EQL_THRESHOLD, EqlSettings
from common.training.schedule import cosine_schedule
from common.training.settings import (
    BATCH_SIZE,
    DATASET,
    EPOCHS,
    LEARNING_RATE,
    LR_DECAY,
    METHOD,
    MILESTONES,
    NAME_ORDER,
    RECIPE,
    REDUCTION,
    STAGE1_EPOCHS,
    WEIGHT_DECAY,
    Setting,
    SteppedConfig,
    resolved,
)

if TYPE_CHECKING:
    from classification.models.named_network import NamedNetwork

ImageMethod = Literal[
    "ce", "focal", "cfs", "cb", "eql", "class-aware", "balanced-softmax", "logit-adjustment",
    "logit-adjustment-post-hoc", "tau-normalisation", "mixup", "cdb-s", "cdb-w-fl", "cdb-w-ce",
]  # fmt: skip
Start = Literal["random", "pretrained"]
Trained = Literal["all", "head"]
Optimizer = Literal["sgd", "adamw"]
ImageAugmentation = Literal["crop-flip-colour", "autoaugment"]
ImageRecipe = Literal[
    "imagenet-lt", "imagenet-lt-oltr", "image-folder", "image-folder-oltr", "digit-images",
    "digit-images-oltr",
]  # fmt: skip
_RESNET: Final = Setting("Network; see classification/models/resnet_image.py.")
_RESNETS: Final = get_args(ImageNetwork)
_ADAPTIVE_AT_MOST: Final = 0.1
"""Of the learning rate of AdamW; a weight moves by about the rate in a step."""
_CONDITIONS: Final = {"imagenet-lt": "256", "digit-images": "80", "image-folder": "lists"}
"""The imbalance of a data set whose lists are fixed."""


@dataclass(frozen=True, kw_only=True)
class ImageStage(SteppedConfig, ClassificationConfig):
    """What the runs of both stages on images in files set, whose lists are given."""

    recipe: Annotated[tyro.conf.Fixed[ImageRecipe], RECIPE] = "imagenet-lt"
    dataset: Annotated[
        tyro.conf.Fixed[Literal["imagenet-lt", "image-folder", "digit-images"]], DATASET
    ] = "imagenet-lt"
    lists: Annotated[
        str | None,
        Setting(
            "image-folder: digest of the lists that the run belongs to; None: of those that are "
            "found."
        ),
    ] = None
    loss_reduction: Annotated[
        Reduction,
        replace(
            REDUCTION,
            documentation="Divide the batch's sum of losses by its size, by the sum of its weights "
            "(as the authors' code for ImageNet-LT), or by nothing.",
        ),
    ] = "weight-sum"
    epochs: Annotated[int, EPOCHS] = 100
    batch_size: Annotated[int, BATCH_SIZE] = 512
    learning_rate: Annotated[float, replace(LEARNING_RATE, documentation="At the start.")] = 0.2
    weight_decay: Annotated[float, WEIGHT_DECAY] = 0.0005
    milestones: Annotated[
        tuple[int, ...],
        replace(
            MILESTONES,
            documentation=f"{MILESTONES.documentation[:-1]}; none: it follows half a cosine to 0.",
        ),
    ] = ()
    lr_decay: Annotated[float, LR_DECAY] = 0.1
    network: Annotated[str, _RESNET] = "resnet10"
    stored_side: Annotated[
        int,
        Setting(
            "Images are squeezed to squares of so many pixels a side, which crops are taken from.",
            at_least=2,
        ),
    ] = 256
    crop: Annotated[int, Setting("Side in pixels of what the network sees.", at_least=8)] = 224
    flip: Annotated[
        float,
        Setting("Probability that a training image is mirrored.", at_least=0, at_most=1),
    ] = 0.5
    colour_jitter: Annotated[
        float,
        Setting(
            "Brightness, contrast and saturation of a training image are multiplied by factors of "
            "up to so much above or below 1; 0: they stay as they are.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.4
    augmentation: Annotated[
        ImageAugmentation,
        Setting(
            "Random crops, mirroring and colours, as --crop, --flip and --colour-jitter say; or, "
            "not in the paper, after these AutoAugment's policy for ImageNet (Cubuk et al. 2019).",
            earlier="crop-flip-colour",
        ),
    ] = "crop-flip-colour"
    precision: Annotated[Precision, PRECISION] = "bfloat16"

    in_files: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("pillow", "torchvision")
    # Names of its runs tell the weight of hard instances before the precision.
    name_order: ClassVar[tuple[str, ...]] = (
        *NAME_ORDER[: NAME_ORDER.index("precision")],
        "hard_weight",
        *NAME_ORDER[NAME_ORDER.index("precision") :],
    )

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        self._check_no_effect()

    def _check_no_effect(self) -> None:
        """Refuse what would be named in the run and change nothing."""
        reason = ""
        if self.lists is not None and self.dataset != "image-folder":
            reason = f"--lists {self.lists} has no effect on {self.dataset}, whose lists are fixed"
        elif self.lr_decay != ImageStage.lr_decay and not self.milestones:
            reason = f"--lr-decay {self.lr_decay} has no effect without --milestones"
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
        return super().learning_rate_at(epoch, progress)

    def with_lists(self, folder: Path | None) -> Self:
        """The configuration with the digest of one's own lists: other lists are another run.

        Raises:
            UserError: a list is missing or damaged, or is not the one that is named.
        """
        from classification.image_data import lists_digest

        digest = lists_digest(self, folder)
        return self if digest is None else replace(self, lists=digest)

    def takes_one_image(self, network: nn.Module) -> bool:
        """Whether the network can be trained on one image: no map of it has one value."""
        return self.crop > STRIDE

    def check_last_batch(self, samples: int, network: nn.Module) -> None:
        """Refuse a last batch of one image whose last maps have one value: no batch statistics."""
        if self.takes_one_image(network):
            return
        if self.batch_size == 1:
            raise UserError(
                f"--batch-size 1 is too few for batch statistics at --crop {self.crop}; give at "
                "least 2, or a larger --crop."
            )
        if samples % self.batch_size == 1:
            raise UserError(
                f"--batch-size {self.batch_size} leaves one of the {samples} training images for "
                f"the last batch, too few for batch statistics at --crop {self.crop}; choose "
                "another batch size."
            )

    def load_data(self, device: torch.device, source: Path | None, reading: Any) -> Any:
        """The images of the lists."""
        from classification.data import load_image_files

        return load_image_files(self, device, source, reading)

    @property
    def turns(self) -> bool:
        """Whether images are made upright, as their EXIF says: one's own are."""
        return self.dataset == "image-folder"

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of colours, in [0, 1], that an image is normalised by."""
        from classification.image_augment import DEVIATION, MEAN

        return MEAN, DEVIATION

    def make_preprocessing(self) -> Any:
        """The middle of the image, normalised, as in evaluation."""
        from classification.preprocessing import Middle

        return Middle(self.stored_side, self.crop, self.turns, *self.normalisation)


@dataclass(frozen=True, kw_only=True)
class ImageConfig(MixupSettings, EqlSettings, HardInstancesCounted, UsualSettings, ImageStage):
    """One run on images in files: ImageNet-LT, or a folder of one's own."""

    method: Annotated[ImageMethod, OF_TABLE_1] = "ce"
    eql_threshold: Annotated[float, EQL_THRESHOLD] = 4.3e-4
    network: Annotated[
        str,
        Setting(
            "resnet10, resnet18, resnet50 (classification/models/resnet_image.py), any "
            "classification network of torchvision by its name, timm:NAME, or "
            "package.module:function, which is called with num_classes=C."
        ),
    ] = "resnet10"
    start: Annotated[
        Start,
        Setting(
            "First weights: random, or pretrained, from --weights, with a new head, and images "
            "normalised as these weights want them. A function of one's own makes its first "
            "weights itself.",
            earlier="random",
        ),
    ] = "random"
    trained: Annotated[
        Trained,
        Setting(
            "All weights, or the head alone, the rest being frozen and in evaluation mode.",
            earlier="all",
        ),
    ] = "all"
    optimizer: Annotated[
        Optimizer,
        Setting(
            "SGD with momentum, or AdamW (its beta_1 is --momentum), which wants a much smaller "
            "--learning-rate, such as 0.001.",
            earlier="sgd",
        ),
    ] = "sgd"
    patience: Annotated[
        int,
        Setting(
            "End the run after so many epochs without a better balanced accuracy on the "
            "difficulty set; 0: never before --epochs, which the learning rate follows.",
            at_least=0,
            earlier=0,
        ),
    ] = 0

    def _check_no_effect(self) -> None:
        super()._check_no_effect()
        if self.trained == "head" and self.start == "random" and ":" not in self.network:
            raise UserError(
                "--trained head leaves the random weights of --start random as they are; add "
                "--start pretrained, or leave it out."
            )
        if self.adaptive and self.learning_rate > _ADAPTIVE_AT_MOST:
            raise UserError(
                f"--optimizer adamw at --learning-rate {self.learning_rate:g} moves every weight "
                "by about that much in each step; name a much smaller rate, such as 0.001."
            )
        if self.patience >= self.epochs:
            raise UserError(
                f"--patience {self.patience} has no effect on {self.epochs} epochs; lower it, or "
                "leave it out."
            )

    @property
    def draws_in_passes(self) -> bool:
        """Networks by a name may have dropout."""
        return self.network not in _RESNETS

    @property
    def starts_pretrained(self) -> bool:
        """Whether the network begins with published weights."""
        return self.start == "pretrained"

    @property
    def trains_head_alone(self) -> bool:
        """Whether all but the network's last layer stays as it is at the start."""
        return self.trained == "head"

    @property
    def adaptive(self) -> bool:
        """Whether AdamW is the optimizer, in place of SGD."""
        return self.optimizer == "adamw"

    @property
    def epochs_without_gain(self) -> int:
        """The patience."""
        return self.patience

    # The networks by a name, and torchvision with them, are imported where one is asked for.

    def check_network(self) -> None:
        """Refuse a network that there is not."""
        if self.network in _RESNETS:
            return
        from classification.models.network_names import check_name

        check_name(self.network)

    def usual_weights(self) -> tuple[Path, str]:
        """torchvision's, in its cache; see :func:`network_names.usual_weights`."""
        from classification.models.network_names import usual_weights

        return usual_weights(self.network)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """ImageNet's; of pretrained weights their own."""
        if not self.starts_pretrained:
            return super().normalisation
        from classification.models.network_names import normalisation

        return normalisation(self.network)

    def takes_one_image(self, network: nn.Module) -> bool:
        """Networks by a name say it themselves."""
        if self.network in _RESNETS:
            return super().takes_one_image(network)
        return cast("NamedNetwork", network).takes_one_image

    def make_network(self, num_classes: int, generator: torch.Generator) -> nn.Module:
        """A ResNet for images, or a network by its name."""
        mixed = self.precision == "bfloat16"
        if self.network in _RESNETS:
            from classification.models.resnet_image import make_image_resnet

            resnet = cast(ImageNetwork, self.network)
            return make_image_resnet(num_classes, generator, resnet, mixed=mixed)
        from classification.models.named_network import make_named_network

        return make_named_network(
            num_classes,
            generator,
            self.network,
            crop=self.crop,
            mixed=mixed,
            pretrained=self.starts_pretrained,
        )


@dataclass(frozen=True, kw_only=True)
class OltrConfig(OltrSettings, ImageStage):
    """OLTR's second stage (Liu et al. 2019), as their code sets it; its first is trained before.

    The first stage is CE, 30 epochs with the learning rate falling after 10 and 20. Its last
    epoch's weights are used.
    """

    recipe: Annotated[tyro.conf.Fixed[ImageRecipe], RECIPE] = "imagenet-lt-oltr"
    network: Annotated[ImageNetwork, _RESNET] = "resnet10"
    method: Annotated[Literal["oltr"], replace(METHOD, documentation="Table 1's name.")] = "oltr"
    epochs: Annotated[int, replace(EPOCHS, documentation="Epochs of the second stage.")] = 60
    batch_size: Annotated[
        int,
        replace(BATCH_SIZE, documentation="Samples a step, over all processes, of both stages."),
    ] = 128
    learning_rate: Annotated[
        float,
        replace(
            LEARNING_RATE,
            documentation="Of SGD: the classifier's; features and centroids have a tenth of it.",
        ),
    ] = 0.1
    milestones: Annotated[tuple[int, ...], MILESTONES] = (20, 40)
    stage1_epochs: Annotated[
        int,
        replace(
            STAGE1_EPOCHS,
            documentation="Epochs of the first stage, whose learning rate falls after each third "
            "of them.",
        ),
    ] = 30

    def stage1_config(self) -> ImageConfig:
        """The resolved configuration of the first stage."""
        recipe = _FIRST_STAGES[self.dataset]
        falls = (round(self.stage1_epochs / 3), round(2 * self.stage1_epochs / 3))
        milestones = tuple(sorted({*falls} - {0, self.stage1_epochs}))
        same = {
            name: getattr(self, name)
            for name in (
                "lists", "seed", "batch_size", "learning_rate", "momentum", "weight_decay",
                "lr_decay", "network", "stored_side", "crop", "flip", "colour_jitter",
                "augmentation", "precision",
            )
        }  # fmt: skip
        first = replace(recipe, epochs=self.stage1_epochs, milestones=milestones, **same)
        return resolved(first)

    def stage1_group(self, group: str) -> str:
        """It is CE in another setting: not one of the experiment's runs."""
        return f"{group}-stage1"

    def make_network(self, num_classes: int, generator: torch.Generator) -> nn.Module:
        """The first stage's network with centroids and a memory."""
        from classification.models.oltr_network import make_oltr
        from classification.models.resnet_image import make_image_resnet

        side, mixed = -(-self.crop // STRIDE), self.precision == "bfloat16"
        first = make_image_resnet(num_classes, generator, self.network, mixed=mixed)
        return make_oltr(first, generator, side=(side, side), mixed=mixed)


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
