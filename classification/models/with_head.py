"""What a network for images in files can do besides its passes: train its heads alone.

Shapes: B batch, C classes.
"""

from abc import ABC, abstractmethod
from typing import Self

from torch import nn


class WithHead(nn.Module, ABC):
    """A network whose last layer, the head, gives the logits; some have several, and average."""

    _head_alone = False

    @property
    @abstractmethod
    def heads(self) -> tuple[nn.Module, ...]:
        """The layers that give logits (B, C)."""

    @property
    @abstractmethod
    def as_published(self) -> tuple[nn.Module, tuple[str, ...]]:
        """What has the names of published weights, and how those of the heads begin there."""

    def train_head_alone(self) -> None:
        """From now on all other weights, and their batch statistics, stay as they are."""
        self.requires_grad_(False)
        for head in self.heads:
            head.requires_grad_(True)
        self._head_alone = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As torch's; what is not trained stays in evaluation mode."""
        super().train(mode and not self._head_alone)
        for head in self.heads:
            head.train(mode)
        return self
