"""Class-balanced weights (Cui et al. 2019). Shapes: C classes."""

from dataclasses import dataclass
from typing import Annotated, Final

from torch import Tensor

from common.training.methods.base import ClassWeightedMethod
from common.training.settings import MethodSettings, Setting
from common.weights import class_balanced_weights

CB_BETA: Final = Setting("cb: beta of the effective number of samples.", at_least=0, below=1)


@dataclass(frozen=True)
class CbSettings(MethodSettings):
    """Of class-balanced weights."""

    cb_beta: Annotated[float, CB_BETA] = 0.9999


class ClassBalanced(ClassWeightedMethod):
    """Cross-entropy, each sample weighted by the inverse effective number of its class's."""

    Settings = CbSettings

    def make_class_weights(self, class_counts: Tensor) -> Tensor:
        """See :func:`common.weights.class_balanced_weights`."""
        return class_balanced_weights(class_counts, self.config.cb_beta)
