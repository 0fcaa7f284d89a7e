"""The training state of a run, its step and its epoch.

Images stay in memory as one tensor on the device; a batch is an index into it. Nothing here waits
for the device but the end of an epoch. Shapes: B batch, C classes, S samples an epoch.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from classification.augment import CropsAndFlips, ImageSource, PlainImages
from classification.capture import CapturedStep, Inputs, Step
from classification.config import ClassificationConfig
from classification.data import LabelledImages, LongTailedData
from classification.evaluate import EVALUATION_BATCH, make_model, measure
from classification.methods import make_method
from classification.models import SecondStage
from classification.recipes import CifarConfig
from common.history import History, check_finite
from common.signals import StopRequest
from common.streams import Streams

Weights = dict[str, Tensor]


def _image_source(config: ClassificationConfig, data: LongTailedData) -> ImageSource:
    if isinstance(config, CifarConfig) and config.augmentation == "crop-flip":
        return CropsAndFlips(data.train.images)
    return PlainImages(data.train.images)


def _network(
    config: ClassificationConfig, num_classes: int, streams: Streams, first_stage: Weights | None
) -> nn.Module:
    """The network at its first step; a second stage has its first stage's weights."""
    model = make_model(config, num_classes, streams)
    if isinstance(model, SecondStage):
        assert first_stage is not None
        model.load_first_stage(first_stage)
    return model


@torch.no_grad()
def _with_features(data: LongTailedData, model: SecondStage) -> LongTailedData:
    """The difficulty set as features, which a second stage does not change: measured faster."""
    model.eval()
    batches = data.difficulty.batches(EVALUATION_BATCH)
    features = torch.cat([model.features(images) for images, _ in batches])
    return replace(data, difficulty=LabelledImages(features, data.difficulty.labels))


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
        self.config = config
        self.device = device
        self.streams = Streams(config.seed)
        self.model = _network(config, data.num_classes, self.streams, first_stage).to(device)
        # A tensor: a recorded CUDA graph reads it anew in every step. CUDA's fused SGD takes a
        # float32 one, the CPU's rounds only where the weights do.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._rate = torch.tensor(config.learning_rate, dtype=dtype, device=device)
        self.method = make_method(config, data, self.streams, self._rate)
        self.optimizer = torch.optim.SGD(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=self._rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._source = _image_source(config, data)
        if isinstance(self.model, SecondStage):
            data = _with_features(data, self.model)
        self.data = data
        self.step: Step = self.train_step
        if device.type == "cuda":
            self.step = CapturedStep(self.train_step, self._changed_by_a_step, device)
        self.epoch = 0
        self.history = History(data.description["class_names"], data.train_counts)
        # The epoch under way: its samples (S,), what augmentation does to them (S, ...), its
        # losses, one a step, and the steps taken.
        self._order: Tensor | None = None
        self._changes: Tensor | None = None
        self._losses = torch.empty(0)
        self._step = 0

    def _changed_by_a_step(self) -> dict[str, Any]:
        """The live tensors that a step changes."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
        }

    def train_step(self, inputs: Inputs) -> Tensor:
        """One update; its loss, 0-d.

        Args:
            inputs: ``index`` (B,): training samples; ``changes`` (B, ...): what augmentation does
                to them; ``draws``: the random numbers of the method's loss.
        """
        index = inputs["index"]
        images = self._source.take(index, inputs.get("changes"))
        labels = self.data.train.labels.index_select(0, index)
        loss = self.method.batch_loss(self.model, images, labels, inputs.get("draws"))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _begin_epoch(self) -> Tensor:
        self.method.before_epoch(self.epoch)
        order = self.method.sampler.draw_for_rank()
        self._changes = self._source.draw(order.numel(), self.streams["augmentation"])
        steps = -(-order.numel() // self.config.batch_size)
        self._losses = torch.zeros(steps, device=self.device)
        self._step = 0
        return order

    def _batches(self, order: Tensor) -> list[Inputs]:
        """The epoch's steps, without what the method draws for each."""
        size = self.config.batch_size
        batches = [{"index": index} for index in order.to(self.device).split(size)]
        if self._changes is not None:
            changes = self._changes.to(self.device).split(size)
            for batch, change in zip(batches, changes, strict=True):
                batch["changes"] = change
        return batches

    def _set_learning_rate(self, steps: int) -> None:
        rate = self.config.learning_rate_at(self.epoch, (self._step + 1) / steps)
        self._rate.fill_(rate)

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete.

        Raises:
            UserError: when a loss is not finite, naming epoch and step.
        """
        if self._order is None:
            self._order = self._begin_epoch()
        self.model.train()
        batches = self._batches(self._order)
        while self._step < len(batches) and not stop.requested():
            batch = batches[self._step]
            if self.method.draw is not None:
                draws = self.method.draw(batch["index"].numel())
                batch["draws"] = draws.to(self.device, non_blocking=True)
            self._set_learning_rate(len(batches))
            self._losses[self._step] = self.step(batch)
            self._step += 1
        check_finite(self._losses[: self._step], self.model, self.epoch, self.config.learning_rate)
        return self._step == len(batches)

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty set, update the balancer, keep history and best weights.

        Returns:
            What is worth logging, by name.
        """
        accuracy = measure(self.model, self.data.difficulty, self.data.num_classes)
        balancer, hard = self.method.balancer, self.method.hard
        scalars = self.history.add(
            self.epoch + 1,
            float(self._losses.mean()),
            # Of the last step; not from the tensor, which may be rounded.
            self.config.learning_rate_at(self.epoch, 1.0),
            accuracy,
            balancer,
            None if hard is None else hard.counts,
        )
        if balancer is not None:
            balancer.update(accuracy.to(self.device))
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
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate
        self.method.load_state_dict(state["method"])
        self.streams.load_state_dict(state["streams"])
        self.epoch = state["epoch"]
        self.history.load_state_dict(state)
        self._order, self._step = state["order"], state["step"]
        self._changes = state["changes"]
        self._losses = state["losses"].to(self.device)
        if isinstance(self.step, CapturedStep):
            self.step.forget()
