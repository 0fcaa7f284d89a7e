"""How names and numbers are written in every table and figure."""

import math
from typing import Final

MISSING: Final = "–"
"""Not run."""
NOT_APPLICABLE: Final = "n/a"
"""Run, but there is no such value."""

_METHODS: Final = {
    "focal": "Focal",
    "class-aware": "Class-aware",
    "meta-weight-net": "Meta-Weight-Net",
}
_METRICS: Final = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
}
_STAGES: Final = {"crt": "cRT", "lws": "LWS"}
_DATASETS: Final = {
    "mnist-lt": "MNIST-LT",
    "cifar100-lt": "CIFAR100-LT",
    "imagenet-lt": "ImageNet-LT",
    "egtea-verbs": "EGTEA verbs",
    "motion-digits": "motion digits",
}


def method_name(method: str) -> str:
    """The paper's name of a method: ``cdb-w-ce`` is CDB-W-CE, ``crt+cdb-s`` cRT + CDB-S."""
    second_stage, plus, balancing = method.partition("+")
    if plus:
        return f"{stage_name(second_stage)} + {method_name(balancing)}"
    return _METHODS.get(method, method.upper())


def stage_name(second_stage: str) -> str:
    """The usual name of what the second stage of decoupled learning trains: ``crt`` is cRT."""
    return _STAGES.get(second_stage, second_stage)


def dataset_name(dataset: str) -> str:
    """The paper's name of a dataset."""
    return _DATASETS.get(dataset, dataset)


def schedule_name(group: str, dataset: str) -> str:
    """The data set, and that a group is on the short schedule: CIFAR100-LT, short schedule."""
    return dataset_name(dataset) + (", short schedule" if is_short(group) else "")


def is_short(group: str) -> bool:
    """Whether the runs of a group, or their readings, are on a shortened schedule."""
    return group.removesuffix("-readings").endswith("-short")


def metric_name(metric: str) -> str:
    """A measure of Tables 7 and 8 in words: ``head_recall`` is head recall."""
    return _METRICS.get(metric, metric.replace("_", " "))


def is_demo(group: str) -> bool:
    """Whether the runs of a group, or their readings, are on data that we render."""
    return group.removesuffix("-readings").endswith("motion-digits")


def off_paper(group: str) -> str:
    """Why a group's numbers may not stand beside the paper's; empty when they may."""
    if is_demo(group):
        return "rendered demo"
    return "short schedule" if is_short(group) else ""


def condition_name(condition: str) -> str:
    """A condition in words: ``100`` is imbalance 100, ``split1`` split 1."""
    if condition.startswith("split"):
        return condition.replace("split", "split ")
    return f"imbalance {condition}"


def run_name(method: str, variant: str) -> str:
    """Method and variant: ``CDB-S (τ sigmoid)``."""
    if not variant:
        return method_name(method)
    return f"{method_name(method)} ({variant_name(variant)})"


def variant_name(variant: str) -> str:
    """A variant in words: ``tau=0.5`` is τ 0.5, ``stage1=cdb-s`` after CDB-S."""
    name, equals, value = variant.partition("=")
    if name == "stage1" and equals:
        return f"after {method_name(value)}"
    return variant.replace("tau=", "τ ")


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed count of digits and a true minus; NaN is missing, never 0."""
    if math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def signed(value: float, digits: int = 2) -> str:
    """A difference, with its sign; NaN is missing."""
    text = number(value, digits)
    return text if math.isnan(value) or text.startswith("−") or not float(text) else f"+{text}"
