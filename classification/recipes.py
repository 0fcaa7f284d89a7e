"""The settings of each data set, and the paper's values for them.

A recipe is a value; a variant is ``replace(recipe, ...)``. The command line is made from the
recipe's class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import tyro

from classification.config import ClassificationConfig, Method, Precision, SubsampledConfig
from classification.config import resolved as resolved
from classification.image_recipes import IMAGE_RECIPES
from classification.meta_weight_net import VirtualStep
from classification.models import Initialisation, LenetArchitecture
from common.errors import UserError
from common.losses import Reduction
from common.training.schedule import step_schedule
from common.training.settings import changed_settings, checked_milestones, handed_on

MnistMethod = Literal[
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "balanced-softmax", "logit-adjustment",
    "cdb-s", "cdb-w-fl", "cdb-w-ce",
]  # fmt: skip
SecondStageMethod = Literal[
    "class-aware", "balanced-softmax", "logit-adjustment", "cdb-w-ce", "cdb-s"
]
InputScaling = Literal["standardise", "unit", "raw"]
Augmentation = Literal["crop-flip", "none"]
CifarRecipe = Literal[
    "cifar100-lt", "cifar100-lt-crt", "cifar100-lt-lws",
    "cifar100-lt-code", "cifar100-lt-code-crt", "cifar100-lt-code-lws",
    "cifar100-lt-short", "cifar100-lt-short-crt", "cifar100-lt-short-lws",
]  # fmt: skip


@dataclass(frozen=True)
class MnistConfig(SubsampledConfig):
    """One run on MNIST-LT."""

    dataset: Literal["mnist-lt"] = "mnist-lt"
    """Data set."""
    method: MnistMethod = "ce"
    """Loss or sampler; Table 1's names, and two that are not in the paper: balanced-softmax (Ren et
    al. 2020) and logit-adjustment (Menon et al. 2021)."""
    imbalance: float = 99
    """Samples of the head class over those of the tail, >= 1."""
    loss_reduction: Reduction = "batch-size"
    """Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing."""
    eql_threshold: float = 0.03
    """eql: lambda, the share of the training samples under which a class is rare."""
    architecture: LenetArchitecture = "lenet5"
    """Network; see classification/models/lenet.py."""
    initialisation: Initialisation = "torch-default"
    """How the weights start."""
    input_scaling: InputScaling = "raw"
    """Pixels with mean 0 and standard deviation 1 (MNIST's constants), in [0, 1] (unit), or as
    stored, in [0, 255] (raw)."""


@dataclass(frozen=True)
class CifarConfig(SubsampledConfig):
    """One run on CIFAR100-LT."""

    recipe: tyro.conf.Fixed[CifarRecipe] = "cifar100-lt"
    """The recipe that these settings depart from."""
    dataset: Literal["cifar100-lt"] = "cifar100-lt"
    """Data set."""
    method: Method = "ce"
    """Loss or sampler; Table 1's names, and two that are not in the paper: balanced-softmax (Ren et
    al. 2020) and logit-adjustment (Menon et al. 2021)."""
    split_seed: int | None = 0
    """Seed of the training and difficulty subsets; fixed, apart from the training seed."""
    loss_reduction: Reduction | None = None
    """Divide the batch's sum of losses by its size, by the sum of its weights, or by nothing; None:
    by its size, with ldam-drw by the sum of its weights as Cao et al."""
    epochs: int = 200
    """Passes over as many samples as the training set has."""
    batch_size: int = 128
    """Samples a step, over all processes."""
    learning_rate: float = 0.1
    """Of SGD, after the warm-up."""
    weight_decay: float = 0.0001
    """Of SGD, on all parameters."""
    warmup_epochs: float = 5
    """The learning rate grows linearly, step by step, over so many epochs."""
    milestones: tuple[int, ...] = (160, 180)
    """After so many epochs each the learning rate is multiplied by lr_decay."""
    lr_decay: float = 0.01
    """Factor at each milestone."""
    augmentation: Augmentation = "crop-flip"
    """Random crops of 32 x 32 pixels after padding by 4, and random mirroring; or none."""
    precision: Precision = "bfloat16"
    """Of the network's passes; weights, statistics and losses are always float32. On a processor
    without bfloat16 instructions float32 is several times faster."""

    mwn_batch_size: int = 100
    """meta-weight-net: images of the difficulty set in each meta step."""
    mwn_learning_rate: float = 1e-5
    """meta-weight-net: of the weighting network's SGD."""
    ldam_margin: float = 0.5
    """ldam-drw: margin of the rarest class."""
    ldam_scale: float = 30.0
    """ldam-drw: s, which the cosines are multiplied by."""
    drw_epoch: int | None = None
    """ldam-drw: class weights from after this epoch on; None: the first milestone."""
    hard_weight: float = 0.8
    """focal, cdb-w-fl: samples of a larger focal weight are counted as hard (Figure 4)."""
    decay_bias: bool = True
    """Weight decay of the classifier's bias too."""
    difficulty_per_class: int | None = None
    """Images of each class that are held out for its difficulty; None: 50 (Sec. 4.1.1). The most
    frequent class has the rest of its 500."""
    mwn_virtual_step: VirtualStep = "normalised"
    """meta-weight-net: weights in the virtual step that sum to 1 and depend on the classifier, as
    the code behind the row of Table 1, or weights as they are that count as data (raw), as Shu et
    al. print it."""

    earlier: ClassVar[Mapping[str, Any]] = {
        **SubsampledConfig.earlier,
        "decay_bias": True,
        "difficulty_per_class": None,
        "mwn_virtual_step": "raw",
    }
    """Settings that older records lack, and what these were made with."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or make no sense."""
        super().__post_init__()
        object.__setattr__(self, "milestones", checked_milestones(self.milestones))
        if self.method == "ldam-drw" and self.drw_epoch is None and not self.milestones:
            raise UserError("--method ldam-drw without --milestones needs --drw-epoch.")

    @property
    def recipe_name(self) -> str:
        """The recipe it departs from."""
        return self.recipe

    @property
    def without_decay(self) -> tuple[str, ...]:
        """Ends of the names of parameters that have no weight decay."""
        return () if self.decay_bias else ("classifier.bias",)

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """Warm-up, then steps down; see :func:`step_schedule`."""
        return step_schedule(
            self.learning_rate,
            epoch,
            progress,
            warmup_epochs=self.warmup_epochs,
            milestones=self.milestones,
            decay=self.lr_decay,
        )


@dataclass(frozen=True)
class DecoupledConfig(CifarConfig):
    """The second stage of decoupled learning: the classifier of a finished run, balanced anew.

    The first stage is the run of the recipe without -crt or -lws that has the same settings, but
    for the method and what each stage has for itself: epochs, warm-up, milestones and decay. It is
    trained first if it has not finished. Its last epoch's weights are used.

    Epochs, learning rate and milestones are Zhang et al. 2021's for CIFAR; weight decay and warm-up
    are not: they have --weight-decay 0.0005 --warmup-epochs 5.
    """

    recipe: tyro.conf.Fixed[CifarRecipe] = "cifar100-lt-crt"
    """The recipe that these settings depart from."""
    stage1: Literal["ce", "cdb-w-ce", "cdb-s"] = "ce"
    """The method of the first stage."""
    stage1_epochs: int | None = None
    """Epochs of the first stage; None: its recipe's."""
    method: SecondStageMethod = "class-aware"
    """The method of the second stage; balanced-softmax (Ren et al. 2020) and logit-adjustment
    (Menon et al. 2021) are not in the paper."""
    epochs: int = 30
    """Epochs of the second stage."""
    warmup_epochs: float = 0
    """The learning rate grows linearly, step by step, over so many epochs."""
    milestones: tuple[int, ...] = (10, 20)
    """After so many epochs each the learning rate is multiplied by lr_decay."""
    lr_decay: float = 0.1
    """Factor at each milestone."""

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
        recipe = RECIPES[self.recipe.removesuffix(f"-{self.classifier}")]
        assert isinstance(recipe, CifarConfig)
        epochs = self.stage1_epochs or recipe.epochs
        first = replace(recipe, method=self.stage1, epochs=epochs)
        return resolved(replace(first, **handed_on(self, first, _OF_EACH_STAGE)))


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


def group_name(config: ClassificationConfig) -> str:
    """The folder of the experiment that a run belongs to: both stages stand in one."""
    name = config.recipe_name
    for stage in ("-crt", "-lws", "-oltr"):
        name = name.removesuffix(stage)
    return name


_NAMED = {"recipe", "dataset", "method", "imbalance", "seed", "tau", "stage1"}


def run_name(config: ClassificationConfig) -> str:
    """The run's name: method, tau, imbalance, seed, then every setting that is not the recipe's.

    >>> run_name(replace(MNIST_LT, method="cdb-s", tau="2", imbalance=199, epochs=3))
    'cdb-s_tau-2.0_imbalance-199_epochs-3_seed-0'
    >>> run_name(RECIPES["cifar100-lt-crt"])
    'crt+class-aware_stage1-ce_imbalance-100_seed-0'
    >>> run_name(replace(RECIPES["imagenet-lt"], method="cdb-w-ce", epochs=90))
    'cdb-w-ce_tau-sigmoid_epochs-90_seed-0'
    """
    config = resolved(config)
    recipe = RECIPES[config.recipe_name]
    usual = resolved(replace(recipe, seed=config.seed, method=config.method))
    parts: list[str] = [config.table_method]
    parts += [f"tau-{config.tau}"] if config.tau is not None else []
    parts += [f"stage1-{config.stage1}"] if isinstance(config, DecoupledConfig) else []
    if isinstance(config, SubsampledConfig):
        parts += [f"imbalance-{config.imbalance:.15g}"]
    parts += changed_settings(config, usual, _NAMED)
    return "_".join([*parts, f"seed-{config.seed}"])
