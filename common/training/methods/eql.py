"""The softmax equalization loss (Tan et al. 2020). Shapes: B samples a step, C classes."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Final

from torch import Tensor

from common.errors import UserError
from common.losses import SoftmaxEqualizationLoss
from common.streams import Streams
from common.training.methods.base import LogitMethod
from common.training.settings import MethodSettings, Setting

EQL_THRESHOLD: Final = Setting(
    "eql: lambda, the share of the training samples under which a class is rare.",
    at_least=0,
    at_most=1,
)


@dataclass(frozen=True)
class EqlSettings(MethodSettings):
    """Of the softmax equalization loss."""

    eql_gamma: Annotated[
        float,
        Setting("eql: probability that a rare class's logit is left out.", at_least=0, at_most=1),
    ] = 0.9
    eql_threshold: Annotated[float, EQL_THRESHOLD] = 0.005


class Equalization(LogitMethod):
    """EQL: samples of other classes often do not push a rare class's logit down."""

    Settings = EqlSettings

    def __init__(self, config: Any, data: Any, streams: Streams, rate: Tensor) -> None:
        """Mark the rare classes; see :class:`LogitMethod`.

        Raises:
            UserError: for a threshold under which no or every class falls.
        """
        super().__init__(config, data, streams, rate)
        try:
            self.loss = SoftmaxEqualizationLoss(
                data.train_counts,
                gamma=config.eql_gamma,
                threshold=config.eql_threshold,
                generator=streams["eql"],
            )
        except ValueError as error:
            refused = f"--eql-threshold {config.eql_threshold} is refused: {error}"
            raise UserError(f"{refused}; {_usable_threshold(data.train_counts)}.") from error

    def draw(self, batch_size: int) -> Tensor:
        """Of each sample and class, (B, C)."""
        return self.loss.draw(batch_size)

    def losses(self, logits: Tensor, labels: Tensor, draws: Tensor | None = None) -> Tensor:
        """Cross-entropy without the logits that ``draws`` leave out, (B,)."""
        losses: Tensor = self.loss(logits, labels, draws)
        return losses


def _usable_threshold(counts: Tensor) -> str:
    """Which thresholds make some classes rare and not all; ``counts`` is (C,)."""
    least, most = (counts.aminmax()[end].item() / counts.sum().item() for end in (0, 1))
    if least == most:
        return "all classes have as many images here, so choose another --method"
    between = math.sqrt(least * most)
    return f"give one above {least:.3g} and below {most:.3g}, for example {between:.3g}"
