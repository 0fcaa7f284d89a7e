"""The training state of a detection run, its step and its epoch, on one device or several.

Shapes: B images a step over all ranks, W ranks, S steps an epoch, C categories.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common.balancer import ClassDifficultyBalancer
from common.distributed import all_reduce_sum, is_distributed, is_first_rank, rank, world_size
from common.errors import UserError
from common.sampler import EpochSampler, InstanceBalancedSampler
from common.streams import Streams
from common.training.history import History, check_finite
from common.training.methods import follow_difficulty
from common.training.signals import StopRequest
from detection.data import DetectionData, Request, draw_requests, image_categories, load_batches
from detection.evaluate import measure_ap
from detection.methods import CALIBRATIONS, RfsSettings
from detection.models import ProposalAccuracy, Rcnn, total_loss
from detection.models.drawing import global_draws_from
from detection.recipes import DetectionConfig
from detection.samplers import ImageDifficultySampler, RepeatFactorSampler, draw_episodes
from detection.sets import DetectionSets

EPISODE = 16
"""Categories of an episode, and images a step of simcal and calib (Wang et al. 2020)."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """What is random in an epoch but for the proposals, drawn before it; the same on every rank."""

    requests: list[Request]
    """Training images, (S B,)."""
    drawn_for: list[int]
    """simcal, calib: the category each was drawn for, (S B,); else empty."""

    def of_rank(self, step: int, size: int) -> slice:
        """This rank's part of a step of ``size`` images: every W-th of them."""
        return slice(step * size + rank(), (step + 1) * size, world_size())


def _each_once(
    config: DetectionConfig, sets: DetectionSets, generator: torch.Generator
) -> EpochSampler:
    return InstanceBalancedSampler(torch.zeros(len(sets.train), dtype=torch.int64), 1, generator)


def _by_repeat_factor(
    config: RfsSettings, sets: DetectionSets, generator: torch.Generator
) -> EpochSampler:
    pairs = image_categories(sets.train.annotations)
    return RepeatFactorSampler(*pairs, len(sets.train), generator, config.rfs_threshold)


def _by_difficulty(
    config: DetectionConfig, sets: DetectionSets, generator: torch.Generator
) -> EpochSampler:
    pairs = image_categories(sets.train.annotations)
    return ImageDifficultySampler(*pairs, len(sets.train), sets.num_classes, generator)


_IMAGE_SAMPLERS: Mapping[str, Callable[[Any, DetectionSets, torch.Generator], EpochSampler]] = {
    "rfs": _by_repeat_factor,
    "cdb-s": _by_difficulty,
}
"""Of the methods that do not show every image once an epoch."""


def make_image_sampler(
    config: DetectionConfig, sets: DetectionSets, generator: torch.Generator
) -> EpochSampler:
    """The sampler of images of the method; cdb-s starts with equal category probabilities."""
    make = _IMAGE_SAMPLERS.get(config.method, _each_once)
    return make(config, sets, generator)


def _check_batch_size(config: DetectionConfig, images: int) -> None:
    """Refuse batches that the ranks cannot share alike, or that the images cannot fill."""
    if config.method in CALIBRATIONS:
        if EPISODE % world_size():
            raise UserError(
                f"--method {config.method} has {EPISODE} images a step, which {world_size()} "
                "processes cannot share alike; start 2, 4, 8 or 16 of them."
            )
        return
    size = config.batch_size
    if size % world_size():
        raise UserError(
            f"--batch-size {size} cannot be shared by {world_size()} processes; make it a multiple "
            "of their number."
        )
    if size > images:
        raise UserError(f"--batch-size {size} is more than the {images} training images; lower it.")


def _check_measurable(difficulty: DetectionData) -> None:
    """Refuse a difficulty set without any instance: every category would stay as it began."""
    annotations = difficulty.annotations
    if not annotations.num_instances:
        raise UserError(
            f"{annotations.source} has no annotation, so that no category's difficulty can be "
            "measured; hold other images out, or use --difficulty proposals."
        )


class Training:
    """A run between its first step and its last: everything a checkpoint must hold."""

    def __init__(
        self,
        config: DetectionConfig,
        sets: DetectionSets,
        model: Rcnn,
        streams: Streams,
        balancer: ClassDifficultyBalancer | None,
        workers: int = 0,
    ) -> None:
        """Start at epoch 0.

        Args:
            config: resolved.
            sets: the images.
            model: with its first weights, on the device to train on.
            streams: the run's generators.
            balancer: of a CDB method.
            workers: processes of this rank that read ahead.

        Raises:
            UserError: when the batch size does not fit, or no difficulty can be measured.
        """
        self.size = EPISODE if config.method in CALIBRATIONS else config.batch_size
        _check_batch_size(config, len(sets.train))
        if balancer is not None and config.difficulty == "ap":
            _check_measurable(sets.difficulty)
        self.config, self.sets, self.model, self.streams = config, sets, model, streams
        self.balancer, self._workers = balancer, workers
        self.device = next(model.parameters()).device
        if balancer is not None and config.difficulty == "proposals":
            model.roi_heads.proposal_accuracy = ProposalAccuracy(sets.num_classes, self.device)
        self._trained: Callable[..., Any] = model
        if is_distributed():
            self._trained = DistributedDataParallel(model)
        self.sampler = make_image_sampler(config, sets, streams["sampler"])
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        train = sets.train.annotations
        self.history = History(train.names, torch.from_numpy(train.image_count))
        self.epoch = 0
        self.steps_taken = 0
        self.difficulty_seconds = 0.0
        # The epoch under way: its losses, one a step, and the steps taken.
        self._drawn: Epoch | None = None
        self._losses = torch.empty(0, device=self.device)
        self._step = 0

    def _draw_epoch(self) -> Epoch:
        follow_difficulty(self.sampler, self.balancer)
        if self.config.method in CALIBRATIONS:
            pairs = image_categories(self.sets.train.annotations)
            steps = max(1, len(self.sets.train) // self.size)
            images, wanted = draw_episodes(*pairs, steps, self.streams["sampler"], EPISODE)
            order, drawn_for = images.flatten(), wanted.flatten().tolist()
        else:
            order, drawn_for = self.sampler.draw(), []
            order = order[: len(order) // self.size * self.size]
        requests = draw_requests(order, self.streams["flips"], (0,), self.config.flip)
        steps = len(requests) // self.size
        self._losses, self._step = torch.zeros(steps, device=self.device), 0
        return Epoch(requests, drawn_for)

    def _set_learning_rate(self) -> None:
        warm = self.config.warm_up(self.steps_taken)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.epoch, 1.0) * warm

    def train_step(self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> Tensor:
        """One update; the loss over all ranks, 0-d.

        Args:
            images: this rank's, (3, H, W) each.
            targets: boxes, labels and so on of each, on the device.
        """
        self._set_learning_rate()
        generator = self.streams["proposals"]
        with global_draws_from(generator, self.device, per_rank=True), self._precision():
            losses = self._trained([image.to(self.device) for image in images], targets)
        loss = total_loss(losses)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.gradient_clip:
            parameters = self.optimizer.param_groups[0]["params"]
            torch.nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        self.optimizer.step()
        self.steps_taken += 1
        return all_reduce_sum(loss) / world_size()

    def _precision(self) -> torch.autocast:
        mixed = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def _on_device(self, targets: Sequence[Any], drawn_for: list[int]) -> list[dict[str, Tensor]]:
        names = ("boxes", "labels", "masks")
        moved = [
            {name: target[name].to(self.device) for name in names if name in target}
            for target in targets
        ]
        for target, category in zip(moved, drawn_for, strict=False):
            target["drawn_for"] = torch.tensor(category, device=self.device)
        return moved

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete.

        Raises:
            UserError: when an image cannot be read, or a loss is not finite, naming the step.
        """
        if self._drawn is None:
            self._drawn = self._draw_epoch()
        cast(torch.nn.Module, self._trained).train()
        drawn, total = self._drawn, len(self._losses)
        parts = [drawn.of_rank(step, self.size) for step in range(self._step, total)]
        batches = load_batches(
            self.sets.train, [drawn.requests[part] for part in parts], self._workers
        )
        for part, (images, targets) in zip(parts, batches, strict=True):
            if stop.requested():
                break
            moved = self._on_device(targets, drawn.drawn_for[part])
            self._losses[self._step] = self.train_step(images, moved)
            self._step += 1
        losses = self._losses[: self._step]
        check_finite(losses, self.model, self.epoch, self.config.learning_rate)
        if self._step < total and self.model.roi_heads.proposal_accuracy is not None:
            self.model.roi_heads.proposal_accuracy.pool()  # A checkpoint is to follow.
        return self._step == total

    def _measures(self) -> bool:
        """Whether the difficulty is measured at the end of the epoch under way."""
        every = 1 if self.config.difficulty == "proposals" else self.config.difficulty_period
        return self.balancer is not None and (self.epoch + 1) % every == 0

    def _performance(self) -> Tensor:
        """Performance per category for the balancer, (C,), NaN where not measured."""
        if not self._measures():
            return torch.full((self.sets.num_classes,), math.nan, dtype=torch.float64)
        if self.config.difficulty == "proposals":
            counts = self.model.roi_heads.proposal_accuracy
            assert counts is not None
            measured = counts.compute().cpu()
            counts.reset()
            return measured
        results = measure_ap(self.model, self.sets.difficulty, masks=False, workers=self._workers)
        return torch.from_numpy(results["bbox"].category_ap)

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty, update the balancer, keep the history.

        Returns:
            What is worth logging, by name.
        """
        started = time.monotonic()
        performance = self._performance()
        self.difficulty_seconds += time.monotonic() - started
        scalars = self.history.add(
            self.epoch + 1,
            float(self._losses.mean()),
            self.config.learning_rate_at(self.epoch, 1.0),
            performance,
            self.balancer,
        )
        # Every rank holds the same numbers. An epoch that measured nothing changes nothing.
        if self.balancer is not None and not bool(performance.isnan().all()):
            self.balancer.update(performance.to(self.device))
        self.epoch += 1
        self._drawn = None
        return scalars

    def say_cost(self, seconds: float) -> None:
        """Print what measuring the difficulty cost, of a whole run of so many ``seconds``."""
        if self.balancer is not None and is_first_rank():
            share = 100 * self.difficulty_seconds / max(seconds, 1e-9)
            print(
                f"difficulty by {self.config.difficulty}: {self.difficulty_seconds:.1f} s of "
                f"{seconds:.0f} s, {share:.1f} %",
                flush=True,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""
        counts = self.model.roi_heads.proposal_accuracy
        drawn = self._drawn
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "balancer": None if self.balancer is None else self.balancer.state_dict(),
            "proposal_accuracy": None if counts is None else counts.state_dict(),
            "streams": self.streams.state_dict(),
            "epoch": self.epoch,
            "steps_taken": self.steps_taken,
            "difficulty_seconds": self.difficulty_seconds,
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
        if self.model.roi_heads.proposal_accuracy is not None:
            self.model.roi_heads.proposal_accuracy.load_state_dict(state["proposal_accuracy"])
        self.streams.load_state_dict(state["streams"])
        self.epoch, self.steps_taken = state["epoch"], state["steps_taken"]
        self.difficulty_seconds = state["difficulty_seconds"]
        self.history.load_state_dict(state)
        self._drawn = None if state["drawn"] is None else Epoch(**state["drawn"])
        self._losses, self._step = state["losses"].to(self.device), state["step"]
