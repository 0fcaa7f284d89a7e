"""The state of a run between its first step and its last, its step and its epoch, for any task.

Every rank draws the same epoch and takes its share of each step. Nothing here waits for the device
but the end of an epoch. Shapes: S steps an epoch, C classes.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import all_reduce_sum, is_distributed, world_size
from common.streams import Streams
from common.training.batch_norm import synchronize_batch_norm
from common.training.history import History, check_finite
from common.training.methods.base import Method
from common.training.settings import RunConfig
from common.training.signals import StopRequest

Batch = TypeVar("Batch")
Weights = dict[str, Tensor]


def _sharing_tensors(model: nn.Module) -> nn.Module:
    """A copy with the very parameters and buffers of ``model``, whose layers can be replaced."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


class Training(ABC, Generic[Batch]):
    """A run between its first step and its last: everything a checkpoint must hold.

    A task says how an epoch is drawn and read, what the loss is and how difficulty is measured.
    """

    packages: tuple[str, ...] = ()
    """Those whose versions matter to the numbers besides torch's and numpy's."""
    keeps_best = True
    """Whether the weights of the best epoch on the difficulty set are kept."""
    start_digest = ""
    """SHA-256 of the file of weights that the run began with; empty without one, or untold."""

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        method: Method,
        streams: Streams,
        history: History,
    ) -> None:
        """Start at epoch 0.

        Args:
            config: resolved.
            model: with its first weights, on the device to train on.
            method: what the run is about.
            streams: the run's generators.
            history: without any epoch.
        """
        self.config, self.method, self.streams, self.history = config, method, streams, history
        self.device = next(model.parameters()).device
        self.model = self.prepared(model)
        self._trained: nn.Module = self.model
        if is_distributed():
            self._trained = DistributedDataParallel(self.model)
        self.optimizer = self.make_optimizer()
        self.step: Callable[[Batch], Tensor] = self.train_step
        """One update; the loss over all ranks, 0-d. The loop calls it, not what it stands for."""
        self.epoch = 0
        """Complete epochs."""
        self.steps_taken = 0
        """Of the whole run."""
        # The epoch under way: what is random in it, its losses, one a step, and the steps taken.
        self._drawn: dict[str, Any] | None = None
        self._losses = torch.empty(0, device=self.device)
        self._step = 0

    # What a task says.

    @abstractmethod
    def draw_epoch(self) -> dict[str, Any]:
        """What is drawn before an epoch, equal on every rank: tensors on the CPU, plain lists."""

    @abstractmethod
    def count_steps(self, drawn: dict[str, Any]) -> int:
        """S of an epoch that :meth:`draw_epoch` has drawn."""

    @abstractmethod
    def batches(self, drawn: dict[str, Any], first: int) -> Iterator[Batch]:
        """This rank's share of each step from ``first`` on, one when asked, its draws with it."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step, 0-d; its mean over the ranks is that of the whole batch."""

    @abstractmethod
    def performance(self) -> Tensor | None:
        """On the difficulty set, (C,), NaN where not measured; None: nothing is measured now."""

    # What is usual, and a task may say otherwise.

    def prepared(self, model: nn.Module) -> nn.Module:
        """The network as it is trained: its batch statistics are those of all ranks."""
        # What weighs samples of the whole batch is computed by each rank, by itself.
        self._alone = _sharing_tensors(model).train() if is_distributed() else model
        return synchronize_batch_norm(model)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """SGD on all parameters."""
        return torch.optim.SGD(
            self.model.parameters(),
            lr=self.config.learning_rate,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def rate_at(self, progress: float) -> float:
        """The learning rate of a step after which that share of the epoch is done."""
        return self.config.learning_rate_at(self.epoch, progress)

    def set_rate(self, rate: float) -> None:
        """Let the next update have this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def before_update(self) -> None:
        """What becomes of the gradients before an update."""

    def evaluated(self) -> nn.Module:
        """The network as it is measured, kept as the best and tested."""
        return self.model

    def complete(self) -> bool:
        """Whether the epoch before was the last one; the same on every rank."""
        return self.epoch >= self.config.epochs

    def stopped(self) -> None:
        """The epoch has been stopped between two steps: a checkpoint follows; on every rank."""

    def done(self, seconds: float) -> None:
        """The last epoch is over, so many ``seconds`` after the run's start."""

    # The loop.

    def train_step(self, batch: Batch) -> Tensor:
        """One update; the loss over all ranks, 0-d."""
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.before_update()
        self.optimizer.step()
        return all_reduce_sum(loss) / world_size() if is_distributed() else loss.detach()

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete.

        Raises:
            UserError: as :meth:`epoch_steps`.
        """
        steps = self.epoch_steps(stop)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bool(end.value)

    def epoch_steps(self, stop: StopRequest) -> Generator[None, None, bool]:
        """As :meth:`run_epoch`, with a yield after each step.

        Raises:
            UserError: when data cannot be read, or a loss is not finite, naming epoch and step.
        """
        drawn = self._drawn = self._drawn or self._begin_epoch()
        self._trained.train()
        total = len(self._losses)
        batches = self.batches(drawn, self._step)
        # Asked first: a batch made in vain would have drawn its random numbers.
        while self._step < total and not stop.requested():
            batch = next(batches)
            self.set_rate(self.rate_at((self._step + 1) / total))
            self._losses[self._step] = self.step(batch)
            self._step += 1
            self.steps_taken += 1
            yield
        check_finite(self._losses[: self._step], self.model, self.epoch, self.config.learning_rate)
        if self._step < total:
            self.stopped()
        return self._step == total

    def _begin_epoch(self) -> dict[str, Any]:
        self.method.before_epoch(self.epoch)
        drawn = self.draw_epoch()
        self._losses = torch.zeros(self.count_steps(drawn), device=self.device)
        self._step = 0
        return drawn

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty set, update the balancer, keep history and best weights.

        Returns:
            What is worth logging, by name.
        """
        performance = self.performance()
        scalars = self.history.add(
            self.epoch + 1,
            float(self._losses.mean()),
            # Of the last step; not from a tensor, which may be rounded.
            self.config.learning_rate_at(self.epoch, 1.0),
            performance,
            self.method.balancer,
            self.method.row(),
        )
        if performance is not None:
            self.method.after_epoch(performance)
        self.epoch += 1
        self._drawn = None
        if self.keeps_best and performance is not None:
            self.history.keep_best(self.epoch, performance, self.evaluated())
        return scalars

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "streams": self.streams.state_dict(),
            "epoch": self.epoch,
            "steps_taken": self.steps_taken,
            **self.history.state_dict(),
            "drawn": self._drawn,
            "losses": self._losses,
            "step": self._step,
            "start_digest": self.start_digest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.streams.load_state_dict(state["streams"])
        self.epoch, self.steps_taken = state["epoch"], state["steps_taken"]
        self.history.load_state_dict(state)
        self._drawn, self._step = state["drawn"], state["step"]
        self._losses = state["losses"].to(self.device)
        # Older checkpoints of some tasks have none.
        self.start_digest = state.get("start_digest", self.start_digest)
