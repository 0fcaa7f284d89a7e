"""What a run remembers of its epochs: a row for each, and the best epoch's weights.

The best epoch is the one with the best balanced accuracy on the difficulty set, never on the test
set. Shapes: C classes, S steps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.balancer import ClassDifficultyBalancer
from common.errors import UserError
from common.metrics import balanced_accuracy, shot_accuracy

_MOST_CLASSES_BY_NAME = 10


def plain_numbers(values: Tensor) -> list[float | None]:
    """Numbers of a tensor (C,) for JSON, which has no NaN: a class not measured is None."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def check_finite(losses: Tensor, model: nn.Module, epoch: int, learning_rate: float) -> None:
    """Refuse to go on after a loss, or the last update, that was not finite.

    Args:
        losses: of the steps taken in this epoch, (S,).
        model: after the last of them.
        epoch: complete epochs before this one.
        learning_rate: as configured, for the message.

    Raises:
        UserError: naming epoch and step.
    """
    wrong = (~losses.isfinite()).nonzero()
    if wrong.numel():
        step = int(wrong[0])
        what = f"The loss is {float(losses[step])}"
    elif not all(bool(p.isfinite().all()) for p in model.parameters()):
        what, step = "The weights are no longer finite", losses.numel() - 1
    else:
        return
    raise UserError(
        f"{what} at epoch {epoch + 1}, step {step + 1}; lower --learning-rate (now "
        f"{learning_rate}) or check the data. Nothing after the last good checkpoint was saved."
    )


class History:
    """The rows of a record's ``history``, and the best weights so far."""

    def __init__(self, class_names: Sequence[str], train_counts: Tensor) -> None:
        """No epoch yet.

        Args:
            class_names: C names, for the log.
            train_counts: n_c, (C,).
        """
        self._names, self._counts = class_names, train_counts
        self.rows: dict[str, list[Any]] = {}
        self.best: dict[str, Any] = {"epoch": 0, "accuracy": -1.0, "weights": {}}

    def add(
        self,
        epoch: int,
        loss: float,
        learning_rate: float,
        accuracy: Tensor | None,
        balancer: ClassDifficultyBalancer | None,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """Remember an epoch: the balancer's numbers are those it trained with.

        Args:
            epoch: from 1.
            loss: mean over its steps.
            learning_rate: of its last step.
            accuracy: per class on the difficulty set, (C,), NaN where not measured; None: nowhere.
            balancer: before its update, if the method has one.
            more: further columns of the record, by name, for JSON.

        Returns:
            What is worth logging, by name.
        """
        if accuracy is None:
            accuracy = torch.full(self._counts.shape, math.nan, dtype=torch.float64)
        row: dict[str, Any] = {
            "epoch": epoch,
            "loss": loss,
            "learning_rate": learning_rate,
            "class_accuracy": plain_numbers(accuracy),
        }
        scalars = {"train/loss": loss}
        if not math.isnan(balanced := balanced_accuracy(accuracy)):
            scalars["difficulty_set/balanced_accuracy"] = balanced
        if balancer is not None:
            row |= {
                "difficulty": balancer.difficulty.tolist(),
                "bias": float(balancer.bias),
                "tau": float(balancer.tau),
                "class_weights": balancer.class_weights.tolist(),
            }
            scalars |= {"cdb/bias": row["bias"], "cdb/tau": row["tau"]}
        row |= more or {}
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)
        return scalars | self._class_scalars(row, accuracy)

    def _class_scalars(self, row: dict[str, Any], accuracy: Tensor) -> dict[str, float]:
        """Per-class numbers by class name; by shot group where there are many classes."""
        if len(self._names) > _MOST_CLASSES_BY_NAME:
            groups = shot_accuracy(accuracy, self._counts)
            return {f"difficulty_set/{name}_shot": value for name, value in groups.items()}
        return {
            f"{group}/{name}": value
            for group in ("class_accuracy", "difficulty", "class_weights")
            for name, value in zip(self._names, row.get(group, []), strict=False)
            if value is not None
        }

    def keep_best(self, epoch: int, accuracy: Tensor, model: nn.Module) -> None:
        """Copy the weights if no epoch before had such a balanced accuracy (arguments as add)."""
        balanced = balanced_accuracy(accuracy)
        if balanced > self.best["accuracy"]:
            weights = {name: w.clone() for name, w in model.state_dict().items()}
            self.best = {"epoch": epoch, "accuracy": balanced, "weights": weights}

    def evaluated_weights(self, model: nn.Module) -> dict[str, dict[str, Tensor]]:
        """Weights of the best epoch and of the last, which a finished run is tested with.

        Of the last alone where no epoch was measured.
        """
        last = {name: w.clone() for name, w in model.state_dict().items()}
        best = {"best": self.best["weights"]} if self.best["epoch"] else {}
        return best | {"last": last}

    def measured(self) -> dict[str, dict[str, Any]]:
        """For 'best' and 'last' the number of the epoch and its difficulty-set accuracy.

        For 'last' the number alone where no epoch was measured.
        """
        if not self.best["epoch"]:
            return {"last": {"epoch": self.rows["epoch"][-1]}}
        epochs = {"best": self.best["epoch"], "last": self.rows["epoch"][-1]}
        return {
            name: {"epoch": epoch, "difficulty_set_accuracy": self._mean_accuracy(epoch)}
            for name, epoch in epochs.items()
        }

    def _mean_accuracy(self, epoch: int) -> float:
        measured: list[float] = [a for a in self.rows["class_accuracy"][epoch - 1] if a is not None]
        return sum(measured) / len(measured)

    def state_dict(self) -> dict[str, Any]:
        """The rows and the best weights."""
        return {"history": self.rows, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.rows, self.best = state["history"], state["best"]
