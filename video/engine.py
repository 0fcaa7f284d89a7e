"""The training state of a video run, its step and its epoch, on one device or several.

Every rank draws the same epoch and reads its share of each batch, so that the batches, and with
synchronised batch statistics the numbers, are the same for any number of ranks. Shapes: B clips a
step over all ranks, W ranks, S steps an epoch, T frames a clip, C classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.difficulty import smoothed_accuracy
from common.distributed import all_reduce_sum, is_distributed, rank, world_size
from common.errors import UserError
from common.streams import Streams
from common.training.batch_norm import synchronize_batch_norm
from common.training.history import History, check_finite
from common.training.methods import (
    follow_difficulty,
    make_balancer,
    make_loss,
    make_reduction,
    make_sampler,
)
from common.training.signals import StopRequest
from video.augment import ClipAugmentation
from video.data import FrameSource, VerbData, evaluation_batches, load_batches
from video.evaluate import measure
from video.reading import training_positions
from video.recipes import VideoConfig


@dataclass(frozen=True, eq=False)
class Epoch:
    """What is random in an epoch, drawn before it; the same on every rank."""

    order: Tensor
    """Training clips, (S B,)."""
    positions: Tensor
    """Of the frames of each, (S B, T), in [0, 1)."""
    changes: Tensor
    """What augmentation does to each, (S B, 4)."""

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's part of a step of ``size`` clips: every W-th of them."""
        mine = slice(step * size + rank(), (step + 1) * size, world_size())
        return self.order[mine], self.positions[mine], self.changes[mine]


def _check_batch_size(config: VideoConfig, clips: int) -> None:
    """Refuse batches that the ranks cannot share alike, or that the clips cannot fill."""
    if config.batch_size % world_size():
        raise UserError(
            f"--batch-size {config.batch_size} cannot be shared by {world_size()} processes; "
            "make it a multiple of their number."
        )
    if config.batch_size > clips:
        raise UserError(
            f"--batch-size {config.batch_size} is more than the {clips} training clips; lower it."
        )


class Training:
    """A run between its first step and its last: everything a checkpoint must hold."""

    def __init__(
        self,
        config: VideoConfig,
        data: VerbData,
        model: nn.Module,
        source: FrameSource,
        streams: Streams,
        workers: int = 0,
    ) -> None:
        """Start at epoch 0; reads the difficulty clips, which stay in memory.

        Args:
            config: resolved.
            data: the clips.
            model: with its first weights, on the device to train on.
            source: reads frames.
            streams: the run's generators.
            workers: processes of this rank that read ahead.

        Raises:
            UserError: when a clip cannot be read, or the batch size does not fit.
        """
        _check_batch_size(config, len(data.train))
        self.config, self.data, self.source, self._workers = config, data, source, workers
        self.device = next(model.parameters()).device
        self.streams = streams
        self.model = synchronize_batch_norm(model)
        self._trained: nn.Module = self.model
        if is_distributed():
            self._trained = DistributedDataParallel(self.model)
        self.sampler = make_sampler(config, data.train.labels, data.num_classes, streams["sampler"])
        self.balancer = make_balancer(config, data.num_classes, self.device)
        self._reduce = make_reduction(config, data.train_counts, self.balancer, self.device)
        self._loss = make_loss(config, data.train_counts, self.device)
        self._augment = ClipAugmentation(config.crop, config.max_angle, config.flip)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        own = data.difficulty.of_rank()
        read = [frames for frames, _ in evaluation_batches(own, source, config, workers)]
        self._difficulty_labels = own.labels
        self._difficulty_frames = torch.cat(read) if read else torch.empty(0)
        self.history = History(data.description["class_names"], data.train_counts)
        self.epoch = 0
        self.start_digest = ""
        """sha256 of the file that the first weights are from; empty for random ones."""
        # The epoch under way: its losses, one a step, and the steps taken.
        self._drawn: Epoch | None = None
        self._losses = torch.zeros(self.steps, device=self.device)
        self._step = 0

    @property
    def steps(self) -> int:
        """S: whole batches in as many clips as the training set has."""
        return len(self.data.train) // self.config.batch_size

    def _draw_epoch(self) -> Epoch:
        follow_difficulty(self.sampler, self.balancer)
        number = self.steps * self.config.batch_size
        order = self.sampler.draw()[:number]
        draws = torch.rand(number, self.config.frames, generator=self.streams["frames"])
        changes = self._augment.draw(number, self.streams["augmentation"])
        self._losses, self._step = torch.zeros(self.steps, device=self.device), 0
        return Epoch(order, training_positions(draws), changes)

    def train_step(self, frames: Tensor, changes: Tensor, labels: Tensor) -> Tensor:
        """One update; the loss over all ranks, 0-d.

        Args:
            frames: this rank's, (B / W, T, h, w, 3), uint8.
            changes: what augmentation does to each clip, (B / W, 4).
            labels: (B / W,).
        """
        frames, changes, labels = (
            values.to(self.device, non_blocking=True) for values in (frames, changes, labels)
        )
        logits = self._trained(self._augment.apply(frames, changes))
        loss = self._reduce(self._loss(logits, labels), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return all_reduce_sum(loss) / world_size()

    def _set_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.epoch, 1.0)

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete.

        Raises:
            UserError: when a clip cannot be read, or a loss is not finite, naming epoch and step.
        """
        if self._drawn is None:
            self._drawn = self._draw_epoch()
        self._trained.train()
        self._set_learning_rate()
        size = self.config.batch_size
        batches = [self._drawn.batch(step, size) for step in range(self._step, self.steps)]
        requests = [
            list(zip(order.tolist(), positions.tolist(), strict=True))
            for order, positions, _ in batches
        ]
        frames = load_batches(self.data.train, self.source, requests, self._workers)
        for (order, _, changes), clips in zip(batches, frames, strict=True):
            if stop.requested():
                break
            labels = self.data.train.labels[order]
            self._losses[self._step] = self.train_step(clips, changes, labels)
            self._step += 1
        losses = self._losses[: self._step]
        check_finite(losses, self.model, self.epoch, self.config.learning_rate)
        return self._step == self.steps

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty set, update the balancer, keep history and best weights.

        Returns:
            What is worth logging, by name.
        """
        accuracy = measure(
            self.model,
            self._difficulty_frames,
            self._difficulty_labels,
            self.data.num_classes,
            max(1, self.config.batch_size // world_size()),
        )
        scalars = self.history.add(
            self.epoch + 1,
            float(self._losses.mean()),
            self.config.learning_rate_at(self.epoch, 1.0),
            accuracy,
            self.balancer,
        )
        if self.balancer is not None:
            counts, prior = self.data.description["difficulty"], self.config.difficulty_prior
            self.balancer.update(smoothed_accuracy(accuracy, counts, prior).to(self.device))
        self.epoch += 1
        self._drawn = None
        self.history.keep_best(self.epoch, accuracy, self.model)
        return scalars

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""
        drawn = self._drawn
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "balancer": None if self.balancer is None else self.balancer.state_dict(),
            "streams": self.streams.state_dict(),
            "epoch": self.epoch,
            "start_digest": self.start_digest,
            **self.history.state_dict(),
            "drawn": None if drawn is None else vars(drawn),
            "losses": self._losses,
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        if self.balancer is not None:
            self.balancer.load_state_dict(state["balancer"])
        self.streams.load_state_dict(state["streams"])
        self.epoch, self.start_digest = state["epoch"], state["start_digest"]
        self.history.load_state_dict(state)
        self._drawn = None if state["drawn"] is None else Epoch(**state["drawn"])
        self._losses, self._step = state["losses"].to(self.device), state["step"]
