"""The class-difficulty core: difficulty, tau, weights, samplers, losses, and the balancer.

Installed (``pip install .``) it is the package ``cdb_longtail``; in a checkout ``common`` is the
same core, beside what trains the experiments. It needs torch and numpy alone, and each name is
imported when it is first asked for: the package alone loads neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .balancer import ClassDifficultyBalancer
    from .difficulty import (
        ClassAccuracy,
        averaged_performance,
        class_accuracy,
        count_per_class,
        difficulty_from_performance,
        performance_from_error,
        smoothed_accuracy,
    )
    from .losses import (
        LdamLoss,
        SoftmaxEqualizationLoss,
        balanced_softmax_loss,
        cross_entropy,
        focal_loss,
        hinge_loss,
        logit_adjusted_loss,
        squared_error,
        weighted_mean,
    )
    from .metrics import balanced_accuracy, shot_accuracy
    from .sampler import (
        ClassAwareSampler,
        ClassProbabilitySampler,
        EpochSampler,
        ImageWeightSampler,
        InstanceBalancedSampler,
        frequency_probabilities,
    )
    from .shots import shot_groups
    from .streams import Streams
    from .tau import (
        TAU_LAWS,
        LawOptions,
        bias_bound,
        performance_bias,
        tau_from_performance,
        tau_law,
    )
    from .weights import (
        class_balanced_weights,
        difficulty_weights,
        normalize_weights,
        sample_weights,
    )

__all__ = [
    "ClassDifficultyBalancer",
    "ClassAccuracy",
    "averaged_performance",
    "class_accuracy",
    "count_per_class",
    "difficulty_from_performance",
    "performance_from_error",
    "smoothed_accuracy",
    "LdamLoss",
    "SoftmaxEqualizationLoss",
    "balanced_softmax_loss",
    "cross_entropy",
    "focal_loss",
    "hinge_loss",
    "logit_adjusted_loss",
    "squared_error",
    "weighted_mean",
    "balanced_accuracy",
    "shot_accuracy",
    "shot_groups",
    "ClassAwareSampler",
    "ClassProbabilitySampler",
    "EpochSampler",
    "ImageWeightSampler",
    "InstanceBalancedSampler",
    "frequency_probabilities",
    "Streams",
    "TAU_LAWS",
    "LawOptions",
    "bias_bound",
    "performance_bias",
    "tau_from_performance",
    "tau_law",
    "class_balanced_weights",
    "difficulty_weights",
    "normalize_weights",
    "sample_weights",
]
_MODULES: Final = (
    "balancer", "difficulty", "losses", "metrics", "sampler", "shots", "streams", "tau", "weights"
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = import_module(f".{module}", __name__)
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
