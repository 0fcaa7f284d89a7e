"""Tau-normalisation (Kang et al. 2020, Sec. 4.2), which is not in the paper."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from common.training.methods.base import PostHocMethod
from common.training.settings import MethodSettings, Setting


@dataclass(frozen=True)
class TauNormalisationSettings(MethodSettings):
    """Of tau-normalisation."""

    norm_tau: Annotated[
        float,
        Setting(
            "tau-normalisation: power of a class vector's length that it is divided by, between 0 "
            "(lengths as trained) and 1 (all 1) in Kang et al. 2020, who choose it by held-out "
            "images.",
            at_least=0,
        ),
    ] = 1.0


class TauNormalisation(PostHocMethod):
    """Cross-entropy; what is tested has the class vectors w_c / |w_c|^tau, and no bias."""

    Settings = TauNormalisationSettings

    def change(self, classifier: nn.Linear) -> None:
        """Rows of the weights are divided; the bias is left out, as Kang et al. do."""
        lengths = torch.linalg.vector_norm(classifier.weight, dim=1, keepdim=True)
        classifier.weight.div_(lengths**self.config.norm_tau)
        if classifier.bias is not None:
            classifier.bias.zero_()
