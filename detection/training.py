"""What is drawn, read and learnt in a run on scenes, on one device or several.

Shapes: B images a step over all ranks, W ranks, S steps an epoch, C categories.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.distributed import is_first_rank, rank, world_size
from common.errors import UserError
from common.streams import Streams
from common.training import loop
from common.training.history import History
from common.training.loop import Weights
from common.training.process_group import say
from common.training.random_draws import global_draws_from
from common.training.task import Results
from detection.arguments import Arguments
from detection.data import DetectionData, draw_requests, load_batches
from detection.evaluate import describe, measure_ap, metrics_of
from detection.methods import METHODS
from detection.methods.base import DetectionMethod
from detection.models import ProposalAccuracy, Rcnn, total_loss
from detection.networks import make_model
from detection.prediction_pictures import write_pictures
from detection.recipes import DetectionConfig
from detection.sets import CONDITIONS, DetectionSets

Batch = tuple[Sequence[Tensor], Sequence[dict[str, Tensor]]]
"""This rank's images, (3, H, W) each, and the boxes, labels and so on of each, on the device."""


def _check_measurable(difficulty: DetectionData) -> None:
    """Refuse a difficulty set without any instance: every category would stay as it began."""
    annotations = difficulty.annotations
    if not annotations.num_instances:
        raise UserError(
            f"{annotations.source} has no annotation, so that no category's difficulty can be "
            "measured; hold other images out, or use --difficulty proposals."
        )


class Training(loop.Training[Batch]):
    """A run between its first step and its last."""

    packages = ("torchvision",)
    keeps_best = False
    config: DetectionConfig
    method: DetectionMethod
    model: Rcnn

    def __init__(
        self,
        config: DetectionConfig,
        method: DetectionMethod,
        model: Rcnn,
        workers: int = 0,
    ) -> None:
        """Start at epoch 0.

        Args:
            config: resolved.
            method: has the images and the run's generators.
            model: with its first weights, on the device to train on.
            workers: processes of this rank that read ahead.

        Raises:
            UserError: when the batch size does not fit, or no difficulty can be measured.
        """
        sets = method.sets
        method.check_step()
        if method.balancer is not None and config.difficulty == "ap":
            _check_measurable(sets.difficulty)
        self.size, self.sets, self._workers = method.step_size, sets, workers
        if method.balancer is not None and config.difficulty == "proposals":
            device = next(model.parameters()).device
            model.roi_heads.proposal_accuracy = ProposalAccuracy(sets.num_classes, device)
        train = sets.train.annotations
        history = History(train.names, torch.from_numpy(train.image_count))
        super().__init__(config, model, method, method.streams, history)
        self.difficulty_seconds = 0.0

    def prepared(self, model: nn.Module) -> nn.Module:
        """The network as it is: its batch statistics are fixed or each image's own."""
        return model

    def make_optimizer(self) -> torch.optim.SGD:
        """SGD on what the stage trains."""
        return torch.optim.SGD(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=self.config.learning_rate,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )

    def rate_at(self, progress: float) -> float:
        """The learning rate, times what the warm-up leaves of it."""
        return super().rate_at(progress) * self.config.warm_up(self.steps_taken)

    def before_update(self) -> None:
        """Clip the gradient of all that is trained."""
        if self.config.gradient_clip:
            parameters = self.optimizer.param_groups[0]["params"]
            nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)

    def draw_epoch(self) -> dict[str, Any]:
        """What is random in an epoch but for the proposals, which each step draws.

        ``requests``: training images, (S B,); ``drawn_for``: the category that each was drawn for
        by simcal and calib, (S B,), else empty.
        """
        order, drawn_for = self.method.draw_images()
        requests = draw_requests(order, self.streams["flips"], (0,), self.config.flip)
        return {"requests": requests, "drawn_for": drawn_for}

    def count_steps(self, drawn: dict[str, Any]) -> int:
        """The last, smaller batch is left out."""
        return len(drawn["requests"]) // self.size

    def batches(self, drawn: dict[str, Any], first: int) -> Iterator[Batch]:
        """This rank's part of each step: every W-th of its images."""
        parts = [
            slice(step * self.size + rank(), (step + 1) * self.size, world_size())
            for step in range(first, self.count_steps(drawn))
        ]
        requests = [drawn["requests"][part] for part in parts]
        read = load_batches(self.sets.train, requests, self._workers)
        for part, (images, targets) in zip(parts, read, strict=True):
            yield images, self._on_device(targets, drawn["drawn_for"][part])

    def _on_device(self, targets: Sequence[Any], drawn_for: list[int]) -> list[dict[str, Tensor]]:
        names = ("boxes", "labels", "masks")
        moved = [
            {name: target[name].to(self.device) for name in names if name in target}
            for target in targets
        ]
        for target, category in zip(moved, drawn_for, strict=False):
            target["drawn_for"] = torch.tensor(category, device=self.device)
        return moved

    def loss(self, batch: Batch) -> Tensor:
        """The sum of the detector's losses, 0-d; draws the proposals that are learnt from."""
        images, targets = batch
        generator = self.streams["proposals"]
        with global_draws_from(generator, self.device, per_rank=True), self._precision():
            losses = self._trained([image.to(self.device) for image in images], targets)
        return total_loss(losses)

    def _precision(self) -> torch.autocast:
        mixed = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def stopped(self) -> None:
        """Put the ranks' counts of proposals together."""
        if self.model.roi_heads.proposal_accuracy is not None:
            self.model.roi_heads.proposal_accuracy.pool()

    def _measures(self) -> bool:
        """Whether the difficulty is measured at the end of the epoch under way."""
        every = 1 if self.config.difficulty == "proposals" else self.config.difficulty_period
        return self.method.balancer is not None and (self.epoch + 1) % every == 0

    def performance(self) -> Tensor | None:
        """Performance per category, (C,), NaN where not measured; None: nowhere, or not now."""
        if not self._measures():
            return None
        started = time.monotonic()
        measured = self._measured()
        self.difficulty_seconds += time.monotonic() - started
        # Every rank holds the same numbers. An epoch that measured nothing changes nothing.
        return None if bool(measured.isnan().all()) else measured

    def _measured(self) -> Tensor:
        if self.config.difficulty == "proposals":
            counts = self.model.roi_heads.proposal_accuracy
            assert counts is not None
            measured = counts.compute().cpu()
            counts.reset()
            return measured
        results = measure_ap(self.model, self.sets.difficulty, masks=False, workers=self._workers)
        return torch.from_numpy(results["bbox"].category_ap)

    def done(self, seconds: float) -> None:
        """Print what measuring the difficulty cost."""
        if self.method.balancer is not None:
            share = 100 * self.difficulty_seconds / max(seconds, 1e-9)
            say(
                f"difficulty by {self.config.difficulty}: {self.difficulty_seconds:.1f} s of "
                f"{seconds:.0f} s, {share:.1f} %"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""
        counts = self.model.roi_heads.proposal_accuracy
        return super().state_dict() | {
            "proposal_accuracy": None if counts is None else counts.state_dict(),
            "difficulty_seconds": self.difficulty_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        if self.model.roi_heads.proposal_accuracy is not None:
            self.model.roi_heads.proposal_accuracy.load_state_dict(state["proposal_accuracy"])
        self.difficulty_seconds = state["difficulty_seconds"]


def _describe(sets: DetectionSets) -> str:
    said = sets.description
    letters = said["frequency"]
    groups = "/".join(str(letters.count(letter)) for letter in "rcf")
    return "\n".join([
        f"{len(sets.train)} training, {len(sets.difficulty)} difficulty and {len(sets.val)} val "
        f"images of {sets.num_classes} categories, rare/common/frequent {groups}",
        *said["notes"],
    ])  # fmt: skip


def begin(arguments: Arguments, device: torch.device, first_stage: Weights | None) -> Training:
    """The run at its first step; says what data it has.

    Raises:
        UserError: when the data, published weights or a setting does not allow it.
        ValueError: when the data cannot be trained on.
    """
    config = arguments.config
    sets: DetectionSets = config.load_data(arguments.data, arguments.images)
    say(f"{config.dataset}: {_describe(sets)}")
    method = METHODS[config.method](config, sets, Streams(config.seed)).to(device)
    published = None if first_stage is not None else arguments.published()
    model = make_model(config, method, published=published, first_stage=first_stage).to(device)
    return Training(config, method, model, arguments.workers)


def results(training: Training, workers: int, folder: Path) -> Results:
    """Weights and AP of the last epoch, and a picture of what is found."""
    config, sets = training.config, training.sets
    masks = config.task == "mask"
    metrics = metrics_of(measure_ap(training.model, sets.val, masks=masks, workers=workers))
    if is_first_rank():
        write_pictures(training.model, sets.val, folder / "pictures.png")
    return Results(
        {"last": training.model.state_dict()},
        {"last": {"epoch": training.epoch, **metrics}},
        split=sets.description,
        condition=CONDITIONS[config.task],
        summary=describe(metrics),
    )
