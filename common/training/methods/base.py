"""What a method is: all that the training loop asks of one, and the usual answers.

Shapes: B samples a step, C classes, N training samples.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from common import weights
from common.balancer import ClassDifficultyBalancer
from common.difficulty import smoothed_accuracy
from common.distributed import broadcast_from_first, of_rank
from common.errors import UserError
from common.losses import cross_entropy, weighted_mean
from common.sampler import ClassProbabilitySampler, EpochSampler, InstanceBalancedSampler
from common.streams import Streams
from common.training.settings import DifficultySettings, MethodSettings, RunConfig, Setting

Group = tuple[list[nn.Parameter], float, float]
"""Parameters, and the factors of learning rate and weight decay that they are trained with."""


class Method(nn.Module):
    """What distinguishes one method from another.

    Its state is its buffers, its submodules and its sampler, so that a checkpoint holds it,
    ``.to(device)`` moves it, and a captured step changes it in place. What follows from settings
    and data alone is a buffer with ``persistent=False``. It never keeps the network that is trained
    as an attribute, which would enter its state; random generators are the streams' to save.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    """The settings that count for it; a base of every config that allows the method."""

    sampler: EpochSampler
    """Draws the training samples of an epoch."""

    def __init__(self) -> None:
        """Without a balancer."""
        super().__init__()
        self.balancer: ClassDifficultyBalancer | None = None
        """CDB's; it follows what is measured after an epoch."""

    def before_epoch(self, epoch: int) -> None:
        """Put in force what changes by the epoch; ``epoch`` counts the complete ones."""

    def after_epoch(self, performance: Tensor) -> None:
        """Follow what was measured on the difficulty set, (C,), in [0, 1], NaN where it was not."""
        if self.balancer is not None:
            self.balancer.update(performance)

    def row(self) -> dict[str, Any]:
        """Further columns of an epoch in the record's ``history``, for JSON."""
        return {}

    def get_extra_state(self) -> dict[str, Any]:
        """The sampler's part of ``state_dict()``."""
        return self.sampler.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`get_extra_state`."""
        self.sampler.load_state_dict(state)


def make_balancer(config: RunConfig, num_classes: int) -> ClassDifficultyBalancer:
    """The balancer of a CDB method."""
    return ClassDifficultyBalancer(
        num_classes,
        config.tau or "sigmoid",
        tau_max=config.tau_max,
        eps=config.eps,
        power=config.tau_power,
        normalize=config.normalize_weights,
        reduction=config.loss_reduction or "batch-size",
        average=config.difficulty_average,
        start_epoch=config.weights_from_epoch,
    )


def follow_difficulty(sampler: ClassProbabilitySampler, balancer: ClassDifficultyBalancer) -> None:
    """Before an epoch: CDB-S samples with the probabilities of the last difficulty (Eq. 15).

    While they are deferred it draws every image once, as cross-entropy's sampler does and as DRS
    (Cao et al. 2019).
    """
    if balancer.deferred:
        sampler.set_instance_balanced()
    else:
        sampler.set_class_probabilities(balancer.probabilities)


class LabelledSet(Protocol):
    """What a method knows of a part of the data."""

    @property
    def labels(self) -> Tensor:
        """(N,), 0..C-1."""


class TrainingData(Protocol):
    """What a method of logits knows of the data; those that need images read its parts."""

    @property
    def train(self) -> LabelledSet:
        """The training set."""

    @property
    def train_counts(self) -> Tensor:
        """n_c, (C,), on the CPU."""

    @property
    def num_classes(self) -> int:
        """C."""

    @property
    def description(self) -> dict[str, Any]:
        """The record's ``split``."""


class LogitMethod(Method):
    """A method of networks that give logits (B, C); as it stands cross-entropy, each sample once.

    Whatever is random in a step's loss is drawn beforehand, on the CPU (:meth:`draw`): a step can
    then be captured as a CUDA graph, and draws the same numbers on every device.
    """

    whole_batch: ClassVar[bool] = False
    """Whether the weights of a step's samples depend on each other: every rank then needs all."""
    needs_difficulty: ClassVar[bool] = False
    """Whether it cannot do without images that are held out."""
    cosine: ClassVar[bool] = False
    """Whether it is for a network whose logits are cosines."""

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Make the sampler.

        Args:
            config: the run's :class:`RunConfig`, which has the method's settings.
            data: :class:`TrainingData`.
            streams: gives the sampler and the losses that draw random numbers their generators.
            rate: the learning rate in force, 0-d, changed in place.

        Raises:
            UserError: when the method cannot work on this data.
            ValueError: for a label out of range or a class with no sample.
        """
        super().__init__()
        self.config, self.data, self.streams, self.rate = config, data, streams, rate
        self.sampler = self.make_sampler(data.train.labels, data.num_classes, streams["sampler"])

    def make_sampler(
        self, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> EpochSampler:
        """The sampler; ``labels`` (N,), 0..C-1, ``generator`` is its own."""
        return InstanceBalancedSampler(labels, num_classes, generator)

    def losses(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """The loss of each sample: logits (B, C), labels (B,), :meth:`draw`'s numbers -> (B,)."""
        return cross_entropy(logits, labels)

    def reduce(
        self, losses: Tensor, labels: Tensor, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The loss of a step, 0-d, of losses (B,); divided as ``loss_reduction`` says.

        Its mean over the ranks is that of the whole batch: :func:`common.losses.weighted_mean`.
        """
        each = torch.ones_like(losses) if sample_weights is None else sample_weights
        return weighted_mean(losses, each, self.config.loss_reduction or "batch-size")

    def draw(self, batch_size: int) -> Tensor | None:
        """The random numbers of a step of B samples over all ranks, on the CPU; None: none."""
        return None

    def sample_weights(
        self, model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None
    ) -> Tensor | None:
        """The weight of each sample, (B,), where it is not its class's; None: :meth:`reduce`'s.

        Args:
            model: without talking to other ranks.
            images: (B, ...).
            labels: (B,).
            draws: of :meth:`draw`.
        """
        return None

    def batch_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        draws: Tensor | None = None,
        alone: nn.Module | None = None,
    ) -> Tensor:
        """The loss of a step, 0-d; its mean over the ranks is that of the whole batch.

        Args:
            model: gives logits (B, C).
            images: (B, ...), as :meth:`share` gives them.
            labels: (B,), likewise.
            draws: of :meth:`draw`, likewise.
            alone: ``model``, where that talks to other ranks in each pass, without its doing so.
        """
        each = self.sample_weights(alone or model, images, labels, draws)
        if self.whole_batch and each is not None:
            # Every rank has computed them, perhaps with other rounding.
            each = broadcast_from_first(each)
            images, labels, each = of_rank(images), of_rank(labels), of_rank(each)
        return self.reduce(self.losses(model(images), labels, draws), labels, each)

    def share(self, values: Tensor) -> Tensor:
        """Of a step's samples (B, ...), or of the numbers drawn for each, what this rank needs."""
        return values if self.whole_batch else of_rank(values)

    def parameter_groups(self, model: nn.Module) -> list[Group]:
        """What is trained, with the factors of its learning rate and weight decay."""
        return [([p for p in model.parameters() if p.requires_grad], 1.0, 1.0)]

    def start(self, model: nn.Module, train: Any) -> None:
        """Once a run, before its first epoch is drawn, never when it is resumed.

        Args:
            model: with its first weights.
            train: this rank's share of the training set.
        """

    def for_evaluation(self, model: nn.Module) -> nn.Module:
        """What is measured on the difficulty set, kept as the best, tested and saved.

        Args:
            model: as it is trained; it stays as it is.

        Returns:
            A network of the same layers, so that whoever reads its weights needs to know no more;
            on the same device.
        """
        return model


class PostHocMethod(LogitMethod, ABC):
    """Trained as cross-entropy; what is tested has another classifier."""

    needs_bias = False

    def classifier_of(self, model: nn.Module) -> nn.Linear:
        """The layer that gives the logits: the one that the network names, else its last linear.

        Raises:
            UserError: it is no linear layer, one of several, or has no bias where one is needed.
        """
        linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        heads = getattr(model, "heads", linear[-1:])
        kinds = " and ".join(type(head).__name__.removeprefix("Float32") for head in heads)
        if len(heads) == 1 and isinstance(heads[0], nn.Linear):
            if heads[0].bias is not None or not self.needs_bias:
                return heads[0]
            kinds = "a layer without bias"
        needed = "one linear layer" + (" with a bias" if self.needs_bias else "")
        raise UserError(
            f"--method {self.config.method} changes {needed} that gives the logits, this network "
            f"has {kinds or 'none'}; choose another network, or method."
        )

    def start(self, model: nn.Module, train: Any) -> None:
        """Refuse a network with another classifier, before it is trained."""
        self.classifier_of(model)

    def for_evaluation(self, model: nn.Module) -> nn.Module:
        """A copy with another classifier."""
        changed = copy.deepcopy(model)
        with torch.no_grad():
            self.change(self.classifier_of(changed))
        return changed

    @abstractmethod
    def change(self, classifier: nn.Linear) -> None:
        """Change weight (C, D) and bias (C,), if there is one, in place."""


class ClassWeightedMethod(LogitMethod, ABC):
    """A method that weighs each sample by its class, throughout the run."""

    class_weights: Tensor

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Compute the weights; see :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        values = self.make_class_weights(data.train_counts).to(torch.float32)
        self.register_buffer("class_weights", values, persistent=False)

    @abstractmethod
    def make_class_weights(self, class_counts: Tensor) -> Tensor:
        """w_c, (C,), >= 0, from the training samples n_c of each class, (C,)."""

    def reduce(
        self, losses: Tensor, labels: Tensor, sample_weights: Tensor | None = None
    ) -> Tensor:
        """Weighted by class."""
        return super().reduce(losses, labels, weights.sample_weights(self.class_weights, labels))


@dataclass(frozen=True)
class AccuracySettings(DifficultySettings):
    """CDB's where a class's performance is its accuracy, a number of samples out of some."""

    difficulty_prior: Annotated[
        float,
        Setting(
            "CDB, not in the paper: so many more images of each class of the difficulty set count "
            "as right, and as many as wrong (additive smoothing), so that no class is at 0 or 1; "
            "0: none.",
            at_least=0,
            earlier=0.0,
        ),
    ] = 0.0


class DifficultyMethod(LogitMethod):
    """What the paper's methods share: a balancer that follows the accuracy of each class."""

    Settings: ClassVar[type[MethodSettings]] = AccuracySettings
    needs_difficulty = True
    balancer: ClassDifficultyBalancer

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Start with equal weights; see :class:`LogitMethod`."""
        super().__init__(config, data, streams, rate)
        self.balancer = make_balancer(config, data.num_classes)

    def after_epoch(self, performance: Tensor) -> None:
        """Follow the accuracy, with the prior if one is set."""
        counts, prior = self.data.description["difficulty"], self.config.difficulty_prior
        super().after_epoch(smoothed_accuracy(performance, counts, prior))


def settings_of_methods(methods: Mapping[str, type[Method]]) -> dict[str, type[MethodSettings]]:
    """The settings of each method, by name, as a config's ``method_settings`` has them."""
    return {name: method.Settings for name, method in methods.items()}
