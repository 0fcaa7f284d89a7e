"""The training state of a run, its step and its epoch.

Images stay in memory as one tensor on the device; a batch is an index into it. Nothing here waits
for the device but the end of an epoch. Shapes: B batch, C classes, S samples an epoch.
"""

from typing import Any

import torch
from torch import Tensor

from classification.data import LongTailedData
from classification.evaluate import make_model, measure, plain_numbers
from classification.methods import make_method
from classification.recipes import ClassificationConfig
from common.errors import UserError
from common.metrics import balanced_accuracy
from common.signals import StopRequest
from common.streams import Streams


class Training:
    """A run between its first step and its last: everything a checkpoint must hold."""

    def __init__(self, config: ClassificationConfig, data: LongTailedData, device: torch.device):
        """Start at epoch 0.

        Args:
            config: resolved.
            data: on ``device``.
            device: where the network lives.
        """
        self.config = config
        self.data = data
        self.device = device
        self.streams = Streams(config.seed)
        self.model = make_model(config, data.num_classes, self.streams).to(device)
        self.method = make_method(config, data, self.streams)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.epoch = 0
        self.history: dict[str, list[Any]] = {}
        self.best: dict[str, Any] = {"epoch": 0, "accuracy": -1.0, "weights": {}}
        # The epoch under way: its samples (S,), its losses, one a step, and the steps taken.
        self._order: Tensor | None = None
        self._losses = torch.empty(0)
        self._step = 0

    def train_step(self, index: Tensor) -> Tensor:
        """One update on the training samples ``index``, shape (B,); its loss, 0-d."""
        # index_select: on a CPU three times as fast as indexing.
        images = self.data.train.images.index_select(0, index)
        labels = self.data.train.labels.index_select(0, index)
        loss = self.method.batch_loss(self.model, images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _begin_epoch(self) -> Tensor:
        self.method.before_epoch()
        order = self.method.sampler.draw_for_rank()
        steps = -(-order.numel() // self.config.batch_size)
        self._losses = torch.zeros(steps, device=self.device)
        self._step = 0
        return order

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete.

        Raises:
            UserError: when a loss is not finite, naming epoch and step.
        """
        if self._order is None:
            self._order = self._begin_epoch()
        self.model.train()
        batches = self._order.to(self.device).split(self.config.batch_size)
        while self._step < len(batches) and not stop.requested():
            self._losses[self._step] = self.train_step(batches[self._step])
            self._step += 1
        self._check_losses()
        return self._step == len(batches)

    def _check_losses(self) -> None:
        """Refuse to go on after a loss, or the last update, that was not finite."""
        wrong = (~self._losses.isfinite()).nonzero()
        if wrong.numel():
            step = int(wrong[0])
            raise self._diverged(f"The loss is {float(self._losses[step])}", step + 1)
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self._diverged("The weights are no longer finite", self._step)

    def _diverged(self, what: str, step: int) -> UserError:
        return UserError(
            f"{what} at epoch {self.epoch + 1}, step {step}; lower --learning-rate (now "
            f"{self.config.learning_rate}) or check the images. Nothing after the last good "
            "checkpoint was saved."
        )

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty set, update the balancer, keep history and best weights.

        Returns:
            What is worth logging, by name.
        """
        accuracy = measure(self.model, self.data.difficulty, self.data.num_classes)
        scalars = self._remember(accuracy)
        if self.method.balancer is not None:
            self.method.balancer.update(accuracy.to(self.device))
        self.epoch += 1
        self._order = None
        if scalars["difficulty_set/balanced_accuracy"] > self.best["accuracy"]:
            self.best = {
                "epoch": self.epoch,
                "accuracy": scalars["difficulty_set/balanced_accuracy"],
                "weights": {name: w.clone() for name, w in self.model.state_dict().items()},
            }
        return scalars

    def _remember(self, accuracy: Tensor) -> dict[str, float]:
        """Append the epoch to the history: the balancer's numbers are those it trained with."""
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": float(self._losses.mean()),
            "learning_rate": self.config.learning_rate,
            "class_accuracy": plain_numbers(accuracy),
        }
        scalars = {
            "train/loss": row["loss"],
            "difficulty_set/balanced_accuracy": balanced_accuracy(accuracy),
        }
        if (balancer := self.method.balancer) is not None:
            row |= {
                "difficulty": balancer.difficulty.tolist(),
                "bias": float(balancer.bias),
                "tau": float(balancer.tau),
                "class_weights": balancer.class_weights.tolist(),
            }
            scalars |= {"cdb/bias": row["bias"], "cdb/tau": row["tau"]}
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        return scalars | self._class_scalars(row)

    def _class_scalars(self, row: dict[str, Any]) -> dict[str, float]:
        """Per-class numbers by class name, for data sets of up to ten classes."""
        names = self.data.description["class_names"]
        if len(names) > 10:
            return {}
        return {
            f"{group}/{name}": value
            for group in ("class_accuracy", "difficulty", "class_weights")
            for name, value in zip(names, row.get(group, []), strict=False)
            if value is not None
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""
        balancer = self.method.balancer
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balancer": None if balancer is None else balancer.state_dict(),
            "sampler": self.method.sampler.state_dict(),
            "streams": self.streams.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
            "order": self._order,
            "losses": self._losses,
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.method.balancer is not None:
            self.method.balancer.load_state_dict(state["balancer"])
        self.method.sampler.load_state_dict(state["sampler"])
        self.streams.load_state_dict(state["streams"])
        self.epoch, self.history, self.best = state["epoch"], state["history"], state["best"]
        self._order, self._step = state["order"], state["step"]
        self._losses = state["losses"].to(self.device)
