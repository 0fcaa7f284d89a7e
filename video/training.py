"""What is drawn, read and learnt in a run on clips, on one device or several.

Every rank draws the same epoch and reads its share of each batch, so that the batches, and with
synchronised batch statistics the numbers, are the same for any number of ranks. Shapes: B clips a
step over all ranks, W ranks, S steps an epoch, T frames a clip, C classes.
"""

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from common.distributed import barrier, world_size
from common.errors import UserError
from common.streams import Streams
from common.training import loop
from common.training.history import History
from common.training.methods import LOGIT_METHODS
from common.training.methods.base import LogitMethod
from common.training.process_group import say
from common.training.task import Results
from video.arguments import Arguments
from video.augment import ClipAugmentation
from video.cache import FrameCache
from video.data import (
    CONDITION,
    FrameSource,
    VerbData,
    describe_data,
    evaluation_batches,
    load_batches,
    load_data,
)
from video.evaluate import describe, evaluate, make_model, measure
from video.models import load_kinetics
from video.reading import training_positions
from video.recipes import VideoConfig

Batch = dict[str, Tensor]
"""``frames`` (B / W, T, h, w, 3), uint8, ``changes`` (B / W, 4) and ``labels`` (B / W,); ``draws``
of a method that has some."""


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


class Training(loop.Training[Batch]):
    """A run between its first step and its last."""

    packages = ("av",)
    config: VideoConfig
    method: LogitMethod

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
        self.data, self.source, self._workers = data, source, workers
        device = next(model.parameters()).device
        self._rate = torch.tensor(config.learning_rate, dtype=torch.float64)
        method = LOGIT_METHODS[config.method](config, data, streams, self._rate).to(device)
        history = History(data.description["class_names"], data.train_counts)
        super().__init__(config, model, method, streams, history)
        self._augment = ClipAugmentation(config.crop, config.max_angle, config.flip)
        own = data.difficulty.of_rank()
        read = [frames for frames, _ in evaluation_batches(own, source, config, workers)]
        self._difficulty_labels = own.labels
        self._difficulty_frames = torch.cat(read) if read else torch.empty(0)

    @property
    def steps(self) -> int:
        """S: whole batches in as many clips as the training set has."""
        return len(self.data.train) // self.config.batch_size

    def set_rate(self, rate: float) -> None:
        """Let the next update have this learning rate, and the method know it."""
        super().set_rate(rate)
        self._rate.fill_(rate)

    def draw_epoch(self) -> dict[str, Any]:
        """Clips, their frames and what augmentation does to them.

        ``order``: (S B,); ``positions``: of the frames, (S B, T), in [0, 1); ``changes``: (S B, 4).
        """
        number = self.steps * self.config.batch_size
        order = self.method.sampler.draw()[:number]
        draws = torch.rand(number, self.config.frames, generator=self.streams["frames"])
        changes = self._augment.draw(number, self.streams["augmentation"])
        return {"order": order, "positions": training_positions(draws), "changes": changes}

    def count_steps(self, drawn: dict[str, Any]) -> int:
        """The last, smaller batch is left out."""
        return self.steps

    def batches(self, drawn: dict[str, Any], first: int) -> Iterator[Batch]:
        """This rank's clips of each step, what augmentation does to them, and a step's draws."""
        size, share = self.config.batch_size, self.method.share
        steps = {name: values.split(size) for name, values in drawn.items()}
        own = [
            {name: share(values[step]) for name, values in steps.items()}
            for step in range(first, self.steps)
        ]
        requests = [
            list(zip(part["order"].tolist(), part["positions"].tolist(), strict=True))
            for part in own
        ]
        read = load_batches(self.data.train, self.source, requests, self._workers)
        for part, frames in zip(own, read, strict=True):
            labels = self.data.train.labels[part["order"]]
            batch = {"frames": frames, "changes": part["changes"], "labels": labels}
            if (draws := self.method.draw(size)) is not None:
                batch["draws"] = share(draws)
            yield {name: v.to(self.device, non_blocking=True) for name, v in batch.items()}

    def loss(self, batch: Batch) -> Tensor:
        """The loss of the method, 0-d."""
        clips = self._augment.apply(batch["frames"], batch["changes"])
        draws = batch.get("draws")
        return self.method.batch_loss(self._trained, clips, batch["labels"], draws, self._alone)

    def evaluated(self) -> nn.Module:
        """The network as the method has it tested."""
        return self.method.for_evaluation(self.model)

    def performance(self) -> Tensor:
        """Accuracy per class, (C,), float64."""
        return measure(
            self.evaluated(),
            self._difficulty_frames,
            self._difficulty_labels,
            self.data.num_classes,
            max(1, self.config.batch_size // world_size()),
        )


def _source(arguments: Arguments, data: VerbData) -> FrameSource:
    """Where frames come from; with a cache, after it has been filled."""
    config = arguments.config
    cache = None
    if arguments.cache is not None:
        cache = FrameCache(arguments.cache, config.frame_height, config.frame_width)
        threads = max(arguments.workers, arguments.threads)
        data.fill_cache(cache, config.frames, arguments.reader, threads)
        barrier()
    return FrameSource(config.frame_height, config.frame_width, arguments.reader, cache)


def begin(arguments: Arguments, device: torch.device) -> Training:
    """The run at its first step; says what data it has.

    Raises:
        UserError: when the data, the pretrained weights or a setting does not allow it.
        ValueError: when the data cannot be trained on.
    """
    config = arguments.config
    data = load_data(config, arguments.data)
    say(f"{config.dataset}: {describe_data(data)}")
    streams = Streams(config.seed)
    model = make_model(config, data.num_classes, streams)
    pretrained = arguments.kinetics_file()
    if pretrained is not None:
        load_kinetics(model, pretrained)
    source = _source(arguments, data)
    training = Training(config, data, model.to(device), source, streams, arguments.workers)
    if pretrained is not None:
        training.start_digest = hashlib.sha256(pretrained.read_bytes()).hexdigest()
    return training


def results(training: Training, workers: int) -> Results:
    """Weights and test metrics of the last epoch and of the best on the difficulty set."""
    network = training.evaluated()
    weights = training.history.evaluated_weights(network)
    models = {name: copy.deepcopy(network) for name in weights}
    for name, model in models.items():
        model.load_state_dict(weights[name])
    data, digest = training.data, training.start_digest
    batches = evaluation_batches(data.test.of_rank(), training.source, training.config, workers)
    tested = evaluate(models, batches, data.num_classes, data.head)
    measured = training.history.measured()
    metrics = {name: measured[name] | tested[name] for name in weights}
    return Results(
        weights,
        metrics,
        split=data.description,
        condition=CONDITION,
        summary=describe(metrics["last"]),
        versions={"kinetics_weights_sha256": digest} if digest else {},
    )
