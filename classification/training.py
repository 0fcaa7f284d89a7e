"""What is drawn, read and learnt in a run on images, on one device or several.

Every rank draws the same epoch and takes its share of each batch, so that the batches, and with
synchronised batch statistics the numbers, are the same for any number of ranks. Shapes: B samples a
step over all ranks, C classes, S samples an epoch.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classification.arguments import Arguments
from classification.augment import InMemory, TrainingSource
from classification.capture import CapturedStep, Inputs
from classification.config import ClassificationConfig
from classification.data import ImageSet, LabelledImages, LongTailedData, describe_split, load_data
from classification.evaluate import evaluate, make_model, measure
from classification.methods import make_method
from classification.models import SecondStage
from classification.reading import Reading
from common.distributed import is_distributed
from common.streams import Streams
from common.training import loop
from common.training.folder import ForeignWeightsError
from common.training.history import History
from common.training.loop import Weights
from common.training.methods.base import Group, LogitMethod
from common.training.process_group import say
from common.training.published_weights import check_there
from common.training.random_draws import global_draws_from
from common.training.task import Results


def _training_source(config: ClassificationConfig, data: LongTailedData) -> TrainingSource:
    if not isinstance(data.train, LabelledImages):
        from classification.image_data import FromFiles

        return FromFiles(data.train)
    return InMemory(config.image_source(data.train.images), data.train.labels)


def _network(
    config: ClassificationConfig,
    num_classes: int,
    streams: Streams,
    first_stage: Weights | None,
    pretrained: tuple[Path, str] | None,
) -> nn.Module:
    """The network at its first step, with its first stage's or pretrained weights."""
    model: Any = make_model(config, num_classes, streams)
    if config.stage1_config() is not None:
        assert first_stage is not None
        try:
            model.load_first_stage(first_stage)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ForeignWeightsError(f"the weights are another network's: {error}.") from error
    if pretrained is not None:
        from classification.models.pretrained import load_pretrained

        load_pretrained(model, *pretrained)
    if config.trains_head_alone:
        model.train_head_alone()
    network: nn.Module = model
    return network


def _with_own_draws(
    step: Callable[[Inputs], Tensor], generator: torch.Generator, device: torch.device
) -> Callable[[Inputs], Tensor]:
    """A step whose passes draw (dropout) from the run's own stream, other numbers on each rank."""

    def drawn(inputs: Inputs) -> Tensor:
        with global_draws_from(generator, device, per_rank=True):
            return step(inputs)

    return drawn


@torch.no_grad()
def _as_features(images: LabelledImages, model: SecondStage) -> LabelledImages:
    """A set as features, which a second stage does not change: measured faster."""
    model.eval()
    features = [model.features(batch) for batch, _ in images.evaluation_batches()]
    return LabelledImages(torch.cat(features), images.labels)


def _sparing(model: nn.Module, groups: list[Group], ends: tuple[str, ...]) -> Iterator[Group]:
    """Groups in which parameters whose names end so have no weight decay; none is empty."""
    free = {id(p) for name, p in model.named_parameters() if name.endswith(ends)}
    for parameters, rate, decay in groups:
        for members, share in (
            ([p for p in parameters if id(p) not in free], decay),
            ([p for p in parameters if id(p) in free], 0.0),
        ):
            if members:
                yield members, rate, share


class Training(loop.Training[Inputs]):
    """A run between its first step and its last."""

    config: ClassificationConfig
    method: LogitMethod

    def __init__(
        self,
        config: ClassificationConfig,
        data: LongTailedData,
        device: torch.device,
        first_stage: Weights | None = None,
        pretrained: tuple[Path, str] | None = None,
    ):
        """Start at epoch 0.

        Args:
            config: resolved.
            data: on ``device``.
            device: where the network lives.
            first_stage: weights of the first stage, for a second one.
            pretrained: file of the first weights of all but the head, and the remedy without it.

        Raises:
            UserError: when the batch size or the file does not fit.
            ForeignWeightsError: ``first_stage`` is another network's.
        """
        streams = Streams(config.seed)
        network = _network(config, data.num_classes, streams, first_stage, pretrained).to(device)
        config.check_last_batch(data.train.labels.numel(), network)
        # A tensor: a recorded CUDA graph reads it anew in every step. CUDA's fused SGD takes a
        # float32 one, the CPU's rounds only where the weights do.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._rate = torch.tensor(config.learning_rate, dtype=dtype, device=device)
        method = make_method(config, data, streams, self._rate)
        history = History(data.description["class_names"], data.train_counts)
        super().__init__(config, network, method, streams, history)
        self._source = _training_source(config, data)
        self.packages = config.packages
        self.data = data
        self._measures = len(data.difficulty.labels) > 0
        self._difficulty: ImageSet = data.difficulty.of_rank()
        if isinstance(self.model, SecondStage) and isinstance(self._difficulty, LabelledImages):
            self._difficulty = _as_features(self._difficulty, self.model)
        self.captured: CapturedStep | None = None
        if device.type == "cuda" and not is_distributed():
            self.step = self.captured = CapturedStep(
                self.train_step, self._changed_by_a_step, device
            )
        if config.draws_in_passes:
            self.step = _with_own_draws(self.step, streams["network"], device)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD or AdamW, with a share of learning rate and weight decay for each group."""
        of_method = self.method.parameter_groups(self.model)
        groups = [*_sparing(self.model, of_method, self.config.without_decay)]
        # For each group its share of the rate, and the tensor that holds the product.
        self._rates = [(factor, self._rate * factor) for _, factor, _ in groups]
        decay, momentum = self.config.weight_decay, self.config.momentum
        each = [
            {"params": parameters, "lr": rate, "weight_decay": decay * share}
            for (parameters, _, share), (_, rate) in zip(groups, self._rates, strict=True)
        ]
        if self.config.adaptive:
            # Only a step count on the device can be part of a recorded step.
            on_device = self.device.type == "cuda"
            return torch.optim.AdamW(
                each, betas=(momentum, 0.999), fused=True, capturable=on_device
            )
        return torch.optim.SGD(each, momentum=momentum, fused=True)

    def set_rate(self, rate: float) -> None:
        """Change the tensors in place."""
        self._rate.fill_(rate)
        for factor, tensor in self._rates:
            tensor.fill_(rate * factor)

    def complete(self) -> bool:
        """After the last epoch, or when patience is at its end."""
        patience, best = self.config.epochs_without_gain, self.history.best["epoch"]
        return super().complete() or 0 < patience <= self.epoch - best

    def _changed_by_a_step(self) -> dict[str, Any]:
        """The live tensors that a step changes."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
        }

    def draw_epoch(self) -> dict[str, Any]:
        """``order``: the samples, (S,); ``changes``: what augmentation does to them, (S, ...)."""
        if self.epoch == 0:
            self.method.start(self.model, self.data.train.of_rank())
        order = self.method.sampler.draw()
        changes = self._source.draw(order.numel(), self.streams["augmentation"])
        return {"order": order, "changes": changes}

    def count_steps(self, drawn: dict[str, Any]) -> int:
        """The last one may be smaller."""
        return -(-len(drawn["order"]) // self.config.batch_size)

    def batches(self, drawn: dict[str, Any], first: int) -> Iterator[Inputs]:
        """What this rank's images of each step are made of, ``changes`` and ``draws`` with it."""
        size, share = self.config.batch_size, self.method.share
        batches = drawn["order"].split(size)[first:]
        changes: list[Tensor | None] = [None] * len(batches)
        if drawn["changes"] is not None:
            whole_epoch = drawn["changes"].to(self.device).split(size)[first:]
            changes = [share(change) for change in whole_epoch]
        made = self._source.batches([share(batch) for batch in batches])
        for whole, inputs, change in zip(batches, made, changes, strict=True):
            inputs |= {} if change is None else {"changes": change}
            if (draws := self.method.draw(whole.numel())) is not None:
                inputs["draws"] = share(draws)
            yield {name: v.to(self.device, non_blocking=True) for name, v in inputs.items()}

    def loss(self, batch: Inputs) -> Tensor:
        """The loss of the method; ``draws``: the random numbers that it needs."""
        images, labels = self._source.take(batch)
        draws = batch.get("draws")
        return self.method.batch_loss(self._trained, images, labels, draws, self._alone)

    def evaluated(self) -> nn.Module:
        """The network as the method has it tested."""
        return self.method.for_evaluation(self.model)

    def performance(self) -> Tensor | None:
        """Accuracy per class, (C,), float64; None where no images are held out."""
        if not self._measures:
            return None
        return measure(self.evaluated(), self._difficulty, self.data.num_classes)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        for group, (_, rate) in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        if self.captured is not None:
            self.captured.forget()


def begin(arguments: Arguments, device: torch.device, first_stage: Weights | None) -> Training:
    """A run at its first step; says what data it has.

    Raises:
        UserError: when data, weights or a setting does not allow it.
        ValueError: when the data cannot be trained on.
    """
    config, reading = arguments.config, Reading(arguments.cache, arguments.workers)
    pretrained = arguments.weights_file()
    if pretrained is not None:
        check_there(*pretrained)  # Before a set is read, which may take long.
    data = load_data(config, device, arguments.data, reading)
    training = Training(config, data, device, first_stage, pretrained)
    if pretrained is not None:
        training.start_digest = hashlib.sha256(pretrained[0].read_bytes()).hexdigest()
    say(f"{config.dataset}: {describe_split(data, config.wanted_imbalance)}")
    return training


def results(training: Training) -> Results:
    """Weights and test metrics of the last epoch and of the best on the difficulty set, if any."""
    network = training.evaluated()
    weights, metrics = training.history.evaluated_weights(network), {}
    for name, measured in training.history.measured().items():
        network.load_state_dict(weights[name])
        metrics[name] = measured | evaluate(network, training.data)
    digest = training.start_digest
    errors = {name: f"{values['error']:.2f} %" for name, values in metrics.items()}
    best = f" (best epoch {errors['best']})" if "best" in errors else ""
    return Results(
        weights,
        metrics,
        split=training.data.description,
        condition=training.config.condition,
        versions={"pretrained_weights_sha256": digest} if digest else {},
        summary=f"error {errors['last']}{best}",
    )
