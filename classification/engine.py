"""The training state of a run, its step and its epoch, on one device or several.

Every rank draws the same epoch and takes its share of each batch, so that the batches, and with
synchronised batch statistics the numbers, are the same for any number of ranks. Nothing here waits
for the device but the end of an epoch. Shapes: B samples a step over all ranks, C classes, S
samples an epoch.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from classification.augment import CropsAndFlips, InMemory, PlainImages, TrainingSource
from classification.capture import CapturedStep, Inputs, Step
from classification.config import ClassificationConfig
from classification.data import ImageSet, LabelledImages, LongTailedData
from classification.evaluate import make_model, measure
from classification.image_data import FromFiles, SquareImages
from classification.methods import make_method
from classification.models import OltrModel, SecondStage
from classification.oltr import fill_memory, parameter_groups
from common.difficulty import smoothed_accuracy
from common.distributed import all_reduce_sum, is_distributed, world_size
from common.streams import Streams
from common.training.batch_norm import synchronize_batch_norm
from common.training.history import History, check_finite
from common.training.signals import StopRequest

Weights = dict[str, Tensor]


def _training_source(config: ClassificationConfig, data: LongTailedData) -> TrainingSource:
    if isinstance(data.train, SquareImages):
        return FromFiles(data.train)
    images, labels = data.train.images, data.train.labels
    if config.crops_and_flips:
        return InMemory(CropsAndFlips(images), labels)
    return InMemory(PlainImages(images), labels)


def _network(
    config: ClassificationConfig, num_classes: int, streams: Streams, first_stage: Weights | None
) -> nn.Module:
    """The network at its first step; a second stage has its first stage's weights."""
    model = make_model(config, num_classes, streams)
    if isinstance(model, SecondStage | OltrModel):
        assert first_stage is not None
        model.load_first_stage(first_stage)
    return model


@torch.no_grad()
def _as_features(images: LabelledImages, model: SecondStage) -> LabelledImages:
    """A set as features, which a second stage does not change: measured faster."""
    model.eval()
    features = [model.features(batch) for batch, _ in images.evaluation_batches()]
    return LabelledImages(torch.cat(features), images.labels)


Group = tuple[list[nn.Parameter], float, float]
"""Parameters, and the factors of learning rate and weight decay that they are trained with."""


def _parameter_groups(model: nn.Module, without_decay: tuple[str, ...]) -> list[Group]:
    """What is trained; ``without_decay``: ends of the names of what has no weight decay."""
    if isinstance(model, OltrModel):
        return [(group["params"], group["factor"], 1.0) for group in parameter_groups(model)]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    free = {name for name in trained if name.endswith(without_decay)} if without_decay else set()
    groups: list[Group] = [([p for name, p in trained.items() if name not in free], 1.0, 1.0)]
    if free:
        groups.append(([p for name, p in trained.items() if name in free], 1.0, 0.0))
    return [group for group in groups if group[0]]


def _sharing_tensors(model: nn.Module) -> nn.Module:
    """A copy with the very parameters and buffers of ``model``, whose layers can be replaced."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


class Training:
    """A run between its first step and its last: everything a checkpoint must hold."""

    def __init__(
        self,
        config: ClassificationConfig,
        data: LongTailedData,
        device: torch.device,
        first_stage: Weights | None = None,
    ):
        """Start at epoch 0.

        Args:
            config: resolved.
            data: on ``device``.
            device: where the network lives.
            first_stage: weights of the first stage, for a second one.
        """
        config.check_last_batch(data.train.labels.numel())
        self.config = config
        self.device = device
        self.streams = Streams(config.seed)
        network = _network(config, data.num_classes, self.streams, first_stage).to(device)
        # What computes meta-learned weights of the whole batch, each rank by itself.
        self._alone = _sharing_tensors(network) if is_distributed() else network
        self.model = synchronize_batch_norm(network)
        self._trained: nn.Module = self.model
        if is_distributed():
            self._trained = DistributedDataParallel(self.model)
        # A tensor: a recorded CUDA graph reads it anew in every step. CUDA's fused SGD takes a
        # float32 one, the CPU's rounds only where the weights do.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._rate = torch.tensor(config.learning_rate, dtype=dtype, device=device)
        self.method = make_method(config, data, self.streams, self._rate)
        self.optimizer = self._make_optimizer()
        self._source = _training_source(config, data)
        self.data = data
        self._difficulty: ImageSet = data.difficulty.of_rank()
        if isinstance(self.model, SecondStage) and isinstance(self._difficulty, LabelledImages):
            self._difficulty = _as_features(self._difficulty, self.model)
        self.step: Step = self.train_step
        if device.type == "cuda" and not is_distributed():
            self.step = CapturedStep(self.train_step, self._changed_by_a_step, device)
        self.epoch = 0
        self.history = History(data.description["class_names"], data.train_counts)
        # The epoch under way: its samples (S,), what augmentation does to them (S, ...), its
        # losses, one a step, and the steps taken.
        self._order: Tensor | None = None
        self._changes: Tensor | None = None
        self._losses = torch.empty(0)
        self._step = 0

    def _make_optimizer(self) -> torch.optim.SGD:
        groups = _parameter_groups(self.model, self.config.without_decay)
        # For each group its share of the rate, and the tensor that holds the product.
        self._rates = [(factor, self._rate * factor) for _, factor, _ in groups]
        decay = self.config.weight_decay
        return torch.optim.SGD(
            [
                {"params": parameters, "lr": rate, "weight_decay": decay * share}
                for (parameters, _, share), (_, rate) in zip(groups, self._rates, strict=True)
            ],
            momentum=self.config.momentum,
            fused=True,
        )

    def _changed_by_a_step(self) -> dict[str, Any]:
        """The live tensors that a step changes."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
        }

    def train_step(self, inputs: Inputs) -> Tensor:
        """One update; the loss over all ranks, 0-d.

        Args:
            inputs: of this rank: what its images are made of; ``changes`` (B / W, ...): what
                augmentation does to them; ``draws``: the random numbers of the method's loss.
        """
        images, labels = self._source.take(inputs)
        draws = inputs.get("draws")
        loss = self.method.batch_loss(self._trained, images, labels, draws, self._alone)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return all_reduce_sum(loss) / world_size() if is_distributed() else loss.detach()

    def _begin_epoch(self) -> Tensor:
        if self.epoch == 0 and isinstance(self.model, OltrModel):
            fill_memory(self.model, self.data.train.of_rank().evaluation_batches())
        self.method.before_epoch(self.epoch)
        order = self.method.sampler.draw()
        self._changes = self._source.draw(order.numel(), self.streams["augmentation"])
        steps = -(-order.numel() // self.config.batch_size)
        self._losses = torch.zeros(steps, device=self.device)
        self._step = 0
        return order

    def _batches(self, order: Tensor) -> Iterator[Inputs]:
        """This rank's share of the steps that are left of the epoch."""
        size, share = self.config.batch_size, self.method.share
        batches = order.split(size)[self._step :]
        changes: list[Tensor | None] = [None] * len(batches)
        if self._changes is not None:
            drawn = self._changes.to(self.device).split(size)[self._step :]
            changes = [share(change) for change in drawn]
        made = self._source.batches([share(batch) for batch in batches])
        for whole, inputs, change in zip(batches, made, changes, strict=True):
            inputs |= {} if change is None else {"changes": change}
            if self.method.draw is not None:
                inputs["draws"] = share(self.method.draw(whole.numel()))
            yield {name: v.to(self.device, non_blocking=True) for name, v in inputs.items()}

    def _set_learning_rate(self, steps: int) -> None:
        rate = self.config.learning_rate_at(self.epoch, (self._step + 1) / steps)
        self._rate.fill_(rate)
        for factor, tensor in self._rates:
            tensor.fill_(rate * factor)

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete.

        Raises:
            UserError: when a loss is not finite, naming epoch and step.
        """
        if self._order is None:
            self._order = self._begin_epoch()
        self._trained.train()
        self._alone.train()
        steps = self._losses.numel()
        batches = self._batches(self._order)
        # Asked first: a batch made in vain would have drawn its random numbers.
        while self._step < steps and not stop.requested():
            inputs = next(batches)
            self._set_learning_rate(steps)
            self._losses[self._step] = self.step(inputs)
            self._step += 1
        check_finite(self._losses[: self._step], self.model, self.epoch, self.config.learning_rate)
        return self._step == steps

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty set, update the balancer, keep history and best weights.

        Returns:
            What is worth logging, by name.
        """
        accuracy = measure(self.model, self._difficulty, self.data.num_classes)
        balancer, hard = self.method.balancer, self.method.hard
        scalars = self.history.add(
            self.epoch + 1,
            float(self._losses.mean()),
            # Of the last step; not from the tensor, which may be rounded.
            self.config.learning_rate_at(self.epoch, 1.0),
            accuracy,
            balancer,
            None if hard is None else {"hard_instances": hard.counts.int().tolist()},
        )
        if balancer is not None:
            counts, prior = self.data.description["difficulty"], self.config.difficulty_prior
            balancer.update(smoothed_accuracy(accuracy, counts, prior).to(self.device))
        self.epoch += 1
        self._order = None
        self.history.keep_best(self.epoch, accuracy, self.model)
        return scalars

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "streams": self.streams.state_dict(),
            "epoch": self.epoch,
            **self.history.state_dict(),
            "order": self._order,
            "changes": self._changes,
            "losses": self._losses,
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, (_, rate) in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self.method.load_state_dict(state["method"])
        self.streams.load_state_dict(state["streams"])
        self.epoch = state["epoch"]
        self.history.load_state_dict(state)
        self._order, self._step = state["order"], state["step"]
        self._changes = state["changes"]
        self._losses = state["losses"].to(self.device)
        if isinstance(self.step, CapturedStep):
            self.step.forget()
