"""The settings of each data set, and the paper's values for them.

A recipe is a value; a variant is ``replace(recipe, ...)``. The command line is made from the
recipe's class.

>>> run_name(replace(MNIST_LT, method="cdb-s", tau="2", imbalance=199, epochs=3))
'cdb-s_tau-2.0_imbalance-199_epochs-3_seed-0'
>>> run_name(RECIPES["cifar100-lt-crt"])
'crt+class-aware_stage1-ce_imbalance-100_seed-0'
>>> run_name(replace(RECIPES["imagenet-lt"], method="cdb-w-ce", epochs=90))
'cdb-w-ce_tau-sigmoid_epochs-90_seed-0'
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
import tyro
from torch import Tensor, nn

from classification.config import (
    OF_TABLE_1,
    PRECISION,
    REDUCTION_BY_METHOD,
    ClassificationConfig,
    HardInstancesCounted,
    Precision,
    SubsampledConfig,
)
from classification.image_recipes import IMAGE_RECIPES
from classification.methods import METHODS
from classification.methods.l2rw import L2rwSettings
from classification.methods.ldam_drw import LdamSettings
from classification.methods.meta_weight_net import MetaWeightNetSettings
from classification.methods.mixup import MixupSettings
from classification.models import Initialisation, LenetArchitecture
from common.errors import UserError
from common.losses import Reduction
from common.training.methods import UsualSettings
from common.training.methods.cdb_s import CdbSSettings
from common.training.methods.eql import EQL_THRESHOLD, EqlSettings
from common.training.methods.logit_adjustment import LogitAdjustmentSettings
from common.training.settings import (
    BATCH_SIZE,
    DATASET,
    EPOCHS,
    LEARNING_RATE,
    LR_DECAY,
    METHOD,
    MILESTONES,
    RECIPE,
    REDUCTION,
    STAGE1_EPOCHS,
    STAGE1_METHOD,
    WEIGHT_DECAY,
    Setting,
    SteppedConfig,
    handed_on,
)
from common.training.settings import resolved as resolved
from common.training.settings import run_name as run_name

MnistMethod = Literal[
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "balanced-softmax", "logit-adjustment",
    "logit-adjustment-post-hoc", "tau-normalisation", "mixup", "cdb-s", "cdb-w-fl", "cdb-w-ce",
]  # fmt: skip
CifarMethod = Literal[
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "meta-weight-net", "ldam-drw", "class-aware",
    "balanced-softmax", "logit-adjustment", "logit-adjustment-post-hoc", "tau-normalisation",
    "mixup", "cdb-s", "cdb-w-fl", "cdb-w-ce",
]  # fmt: skip
SecondStageMethod = Literal[
    "class-aware", "balanced-softmax", "logit-adjustment", "cdb-w-ce", "cdb-s"
]
InputScaling = Literal["standardise", "unit", "raw"]
Augmentation = Literal["crop-flip", "none", "autoaugment-cutout"]
CifarRecipe = Literal[
    "cifar100-lt", "cifar100-lt-crt", "cifar100-lt-lws",
    "cifar100-lt-code", "cifar100-lt-code-crt", "cifar100-lt-code-lws",
    "cifar100-lt-short", "cifar100-lt-short-crt", "cifar100-lt-short-lws",
]  # fmt: skip
WARMUP_EPOCHS: Final = Setting(
    "The learning rate grows linearly, step by step, over so many epochs.", at_least=0
)


_OF_MNIST: Final = replace(
    REDUCTION,
    documentation=f"{REDUCTION.documentation[:-1]}; None: by its size, with cb by the sum of its "
    "weights (docs/mnist-readings.md).",
)


@dataclass(frozen=True, kw_only=True)
class MnistConfig(MixupSettings, L2rwSettings, EqlSettings, UsualSettings, SubsampledConfig):
    """One run on MNIST-LT.

    Where the paper is silent, and in the learning rate, which it prints as 0.001, the values are
    those that a rule took by the baselines alone: docs/mnist-readings.md.
    """

    dataset: Annotated[Literal["mnist-lt"], DATASET] = "mnist-lt"
    method: Annotated[MnistMethod, OF_TABLE_1] = "ce"
    imbalance: Annotated[
        float, Setting("Samples of the head class over those of the tail, >= 1.", at_least=1)
    ] = 99
    loss_reduction: Annotated[Reduction | None, _OF_MNIST] = None
    learning_rate: Annotated[float, LEARNING_RATE] = 0.01
    eql_threshold: Annotated[float, EQL_THRESHOLD] = 0.03
    architecture: Annotated[
        LenetArchitecture, Setting("Network; see classification/models/lenet.py.")
    ] = "lenet5"
    initialisation: Annotated[Initialisation, Setting("How the weights start.")] = "torch-default"
    input_scaling: Annotated[
        InputScaling,
        Setting(
            "Pixels with mean 0 and standard deviation 1 (MNIST's constants), in [0, 1] (unit), or "
            "as stored, in [0, 255] (raw)."
        ),
    ] = "standardise"

    def filled_in(self) -> dict[str, Any]:
        """As every run; CB divides by the sum of its weights where nothing else is asked for."""
        filled = super().filled_in()
        if self.method == "cb" and self.loss_reduction is None:
            filled["loss_reduction"] = "weight-sum"
        return filled

    def load_data(self, device: torch.device, source: Path | None, reading: Any) -> Any:
        """MNIST-LT."""
        from classification.data import load_mnist_lt

        return load_mnist_lt(self, device, source)

    def make_preprocessing(self) -> Any:
        """28 x 28 grey values, scaled."""
        from classification.preprocessing import GreyDigit

        return GreyDigit(self.input_scaling)

    def make_network(self, num_classes: int, generator: torch.Generator) -> nn.Module:
        """LeNet."""
        from classification.models.lenet import make_lenet

        return make_lenet(self.architecture, num_classes, self.initialisation, generator)


@dataclass(frozen=True, kw_only=True)
class CifarStage(SteppedConfig, SubsampledConfig):
    """What the runs of both stages on CIFAR100-LT set."""

    recipe: Annotated[tyro.conf.Fixed[CifarRecipe], RECIPE] = "cifar100-lt"
    dataset: Annotated[Literal["cifar100-lt"], DATASET] = "cifar100-lt"
    split_seed: Annotated[
        int | None,
        Setting(
            "Seed of the training and difficulty subsets; fixed, apart from the training seed.",
            at_least=0,
        ),
    ] = 0
    epochs: Annotated[int, EPOCHS] = 200
    batch_size: Annotated[int, BATCH_SIZE] = 128
    learning_rate: Annotated[float, replace(LEARNING_RATE, documentation="After the warm-up.")] = (
        0.1
    )
    weight_decay: Annotated[float, WEIGHT_DECAY] = 0.0001
    warmup_epochs: Annotated[float, WARMUP_EPOCHS] = 5
    milestones: Annotated[tuple[int, ...], MILESTONES] = (160, 180)
    lr_decay: Annotated[float, LR_DECAY] = 0.01
    augmentation: Annotated[
        Augmentation,
        Setting(
            "Random crops of 32 x 32 pixels after padding by 4, and random mirroring; or none; or, "
            "not in the paper, after these AutoAugment's policy for CIFAR (Cubuk et al. 2019) and "
            "Cutout of 16 x 16 pixels (DeVries and Taylor 2017)."
        ),
    ] = "crop-flip"
    precision: Annotated[Precision, PRECISION] = "bfloat16"
    decay_bias: Annotated[
        bool, Setting("Weight decay of the classifier's bias too.", earlier=True)
    ] = True
    difficulty_per_class: Annotated[
        int | None,
        Setting(
            "Images of each class that are held out for its difficulty; None: 50 (Sec. 4.1.1). The "
            "most frequent class has the rest of its 500.",
            at_least=1,
            earlier=None,
        ),
    ] = None
    head_size: Annotated[
        int | None,
        Setting(
            "Training images of the most frequent class, of which none are held out: at 500 the "
            "split of Cui et al. 2019 and Cao et al. 2019. There is then no difficulty and no best "
            "epoch. None: as the paper.",
            at_least=1,
            at_most=500,
            earlier=None,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        if self.head_size is not None:
            self._check_nothing_is_held_out(self.head_size)

    def _check_nothing_is_held_out(self, head_size: int) -> None:
        """Refuse what needs a difficulty set, or asks for one."""
        needing = [method for method in self.methods if METHODS[method].needs_difficulty]
        reason = ""
        if needing:
            reason = f"holds no images out, which {needing[0]} needs"
        elif self.difficulty_per_class is not None:
            reason = f"contradicts --difficulty-per-class {self.difficulty_per_class}"
        if reason:
            raise UserError(f"--head-size {head_size} {reason}; leave one of them out.")

    @property
    def recipe_name(self) -> str:
        """The recipe it departs from."""
        return self.recipe

    @property
    def without_decay(self) -> tuple[str, ...]:
        """Ends of the names of parameters that have no weight decay."""
        return () if self.decay_bias else ("classifier.bias",)

    @property
    def growing_epochs(self) -> float:
        """Epochs over which the learning rate grows, step by step."""
        return self.warmup_epochs

    def load_data(self, device: torch.device, source: Path | None, reading: Any) -> Any:
        """CIFAR100-LT."""
        from classification.data import load_cifar100_lt

        return load_cifar100_lt(self, device, source)

    def image_source(self, images: Tensor) -> Any:
        """As its augmentation has it."""
        from classification.augment import AUGMENTATIONS

        return AUGMENTATIONS[self.augmentation](images)

    def make_preprocessing(self) -> Any:
        """32 x 32 pixels, which the network scales."""
        from classification.preprocessing import SmallColour

        return SmallColour()


@dataclass(frozen=True, kw_only=True)
class CifarConfig(
    MixupSettings,
    LdamSettings,
    MetaWeightNetSettings,
    L2rwSettings,
    EqlSettings,
    HardInstancesCounted,
    UsualSettings,
    CifarStage,
):
    """One run on CIFAR100-LT."""

    method: Annotated[CifarMethod, OF_TABLE_1] = "ce"
    loss_reduction: Annotated[Reduction | None, REDUCTION_BY_METHOD] = None

    def make_network(self, num_classes: int, generator: torch.Generator) -> nn.Module:
        """ResNet-32; LDAM's has a cosine classifier."""
        from classification.models.resnet_cifar import make_resnet

        cosine, mixed = METHODS[self.method].cosine, self.precision == "bfloat16"
        return make_resnet(num_classes, generator, cosine=cosine, mixed=mixed)


@dataclass(frozen=True, kw_only=True)
class DecoupledConfig(CdbSSettings, LogitAdjustmentSettings, CifarStage):
    """The second stage of decoupled learning: the classifier of a finished run, balanced anew.

    The first stage is the run of the recipe without -crt or -lws that has the same settings, but
    for the method and what each stage has for itself: epochs, warm-up, milestones and decay. It is
    trained first if it has not finished. Its last epoch's weights are used.

    Epochs, learning rate and milestones are Zhang et al. 2021's for CIFAR; weight decay and warm-up
    are not: they have --weight-decay 0.0005 --warmup-epochs 5.
    """

    recipe: Annotated[tyro.conf.Fixed[CifarRecipe], RECIPE] = "cifar100-lt-crt"
    stage1: Annotated[Literal["ce", "cdb-w-ce", "cdb-s"], STAGE1_METHOD] = "ce"
    stage1_epochs: Annotated[int | None, STAGE1_EPOCHS] = None
    method: Annotated[
        SecondStageMethod,
        replace(
            METHOD,
            documentation="The method of the second stage; balanced-softmax (Ren et al. 2020) and "
            "logit-adjustment (Menon et al. 2021) are not in the paper.",
        ),
    ] = "class-aware"
    loss_reduction: Annotated[
        Reduction | None,
        replace(REDUCTION, documentation=f"{REDUCTION.documentation[:-1]}; None: by its size."),
    ] = None
    epochs: Annotated[int, replace(EPOCHS, documentation="Epochs of the second stage.")] = 30
    warmup_epochs: Annotated[float, WARMUP_EPOCHS] = 0
    milestones: Annotated[tuple[int, ...], MILESTONES] = (10, 20)
    lr_decay: Annotated[float, LR_DECAY] = 0.1

    @property
    def classifier(self) -> Literal["crt", "lws"]:
        """Classifier retraining, or learnable weight scaling (Kang et al. 2020)."""
        return "lws" if self.recipe.endswith("lws") else "crt"

    @property
    def table_method(self) -> str:
        """The record's ``method``, as Table 4's rows."""
        return f"{self.classifier}+{self.method}"

    @property
    def variant(self) -> str:
        """The record's ``variant``, as Table 4's columns."""
        return f"stage1={self.stage1}{self.steadied}"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of both stages."""
        return (self.method, self.stage1)

    def stage1_config(self) -> CifarConfig:
        """The resolved configuration of the first stage."""
        recipe = _FIRST_STAGES[self.recipe.removesuffix(f"-{self.classifier}")]
        epochs = self.stage1_epochs or recipe.epochs
        first = replace(recipe, method=self.stage1, epochs=epochs)
        return resolved(replace(first, **handed_on(self, first, _OF_EACH_STAGE)))

    def make_network(self, num_classes: int, generator: torch.Generator) -> nn.Module:
        """A frozen ResNet-32 with a new classifier, or scales of the old one."""
        from classification.models.resnet_cifar import SecondStage, make_resnet

        first = make_resnet(num_classes, generator, mixed=self.precision == "bfloat16")
        return SecondStage(first, num_classes, rescale=self.classifier == "lws")


_OF_EACH_STAGE = {
    "recipe", "method", "epochs", "warmup_epochs", "milestones", "lr_decay", "weights_from_epoch",
}  # fmt: skip

MNIST_LT = MnistConfig()
"""Sec. 4.1.2. Architecture, initialisation, input scaling and reduction are our reading of what it
leaves open: docs/mnist-readings.md."""

CIFAR100_LT = CifarConfig()
"""Sec. 4.1.2 and Cui et al. 2019, whom it follows."""

AS_IN_CODE: dict[str, Any] = {
    "weight_decay": 0.0005,
    "decay_bias": False,
    "difficulty_per_class": 25,
}
CIFAR100_LT_CODE = replace(
    CIFAR100_LT,
    recipe="cifar100-lt-code",
    epochs=240,
    warmup_epochs=0,
    milestones=(160, 210),
    **AS_IN_CODE,
)
"""As the authors' public code has it where it differs from the paper: docs/cifar100.md lists file
and line of each setting, and what is not followed."""

CIFAR100_LT_SHORT = replace(
    CIFAR100_LT, recipe="cifar100-lt-short", epochs=30, warmup_epochs=0.75, milestones=(24, 27)
)
"""The same shape in 30 of 200 epochs, for machines without a GPU: not the paper's experiment."""

_FIRST_STAGES: Final = {
    "cifar100-lt": CIFAR100_LT,
    "cifar100-lt-code": CIFAR100_LT_CODE,
    "cifar100-lt-short": CIFAR100_LT_SHORT,
}
RECIPES: dict[str, ClassificationConfig] = {
    "mnist-lt": MNIST_LT,
    "cifar100-lt": CIFAR100_LT,
    "cifar100-lt-crt": DecoupledConfig(recipe="cifar100-lt-crt"),
    "cifar100-lt-lws": DecoupledConfig(recipe="cifar100-lt-lws"),
    "cifar100-lt-code": CIFAR100_LT_CODE,
    "cifar100-lt-code-crt": DecoupledConfig(recipe="cifar100-lt-code-crt", **AS_IN_CODE),
    "cifar100-lt-code-lws": DecoupledConfig(recipe="cifar100-lt-code-lws", **AS_IN_CODE),
    "cifar100-lt-short": CIFAR100_LT_SHORT,
    "cifar100-lt-short-crt": DecoupledConfig(recipe="cifar100-lt-short-crt"),
    "cifar100-lt-short-lws": DecoupledConfig(recipe="cifar100-lt-short-lws"),
    **IMAGE_RECIPES,
}
ClassificationConfig.recipes = RECIPES


def group_name(config: ClassificationConfig) -> str:
    """The folder of the experiment that a run belongs to: both stages stand in one."""
    name = config.recipe_name
    for stage in ("-crt", "-lws", "-oltr"):
        name = name.removesuffix(stage)
    return name
