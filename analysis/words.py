"""How names and numbers are written in every table and figure."""

import math
from typing import Final

MISSING: Final = "–"

_METHODS: Final = {
    "focal": "Focal",
    "class-aware": "Class-aware",
    "meta-weight-net": "Meta-Weight-Net",
}
_DATASETS: Final = {
    "mnist-lt": "MNIST-LT",
    "cifar100-lt": "CIFAR100-LT",
    "imagenet-lt": "ImageNet-LT",
}


def method_name(method: str) -> str:
    """The paper's name of a method: ``cdb-w-ce`` is CDB-W-CE."""
    return _METHODS.get(method, method.upper())


def dataset_name(dataset: str) -> str:
    """The paper's name of a dataset."""
    return _DATASETS.get(dataset, dataset)


def run_name(method: str, variant: str) -> str:
    """Method and variant: ``CDB-S (τ sigmoid)``."""
    if not variant:
        return method_name(method)
    return f"{method_name(method)} ({variant_name(variant)})"


def variant_name(variant: str) -> str:
    """A variant in words: ``tau=0.5`` is τ 0.5."""
    return variant.replace("tau=", "τ ").replace("stage1=", "after ")


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
