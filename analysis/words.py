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
    "balanced-softmax": "Balanced Softmax",
    "logit-adjustment": "Logit adjustment",
    "logit-adjustment-post-hoc": "Logit adjustment post hoc",
    "tau-normalisation": "τ-normalisation",
    "mixup": "Mixup",
    "meta-weight-net": "Meta-Weight-Net",
    "mask-rcnn": "Mask R-CNN",
    "simcal": "SimCal",
    "calib": "Calib",
}
_METRICS: Final = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
}
_STAGES: Final = {
    "crt": "cRT", "lws": "LWS", "clc": "-clc", "simcal": "SimCal", "calib": "Calib", "oltr": "OLTR",
}  # fmt: skip
_DATASETS: Final = {
    "mnist-lt": "MNIST-LT",
    "cifar100-lt": "CIFAR100-LT",
    "imagenet-lt": "ImageNet-LT",
    "egtea-verbs": "EGTEA verbs",
    "motion-digits": "motion digits",
    "lvis-v0.5": "LVIS v0.5",
    "digit-scenes": "digit scenes",
    "digit-images": "digit images",
    "image-folder": "own images",
}
_DEMOS: Final = ("motion-digits", "digit-scenes", "digit-images")
_COMPARED: Final = {"bbox": "box", "segm": "mask"}
_CONDITIONS: Final = {
    "bbox": "boxes",
    "bbox+segm": "boxes and masks",
    "lists": "lists of one's own",
}
# What a detector's weights began as, and the data set of a first stage.
_STARTS: Final = {"coco": "COCO", "imagenet": "ImageNet", "random": "random weights"}
_FIRST_STAGES: Final = {"lvis": "LVIS", "digit-scenes": "digit scenes"}


def method_name(method: str) -> str:
    """The paper's name of a method: ``cdb-w-ce`` is CDB-W-CE, ``crt+cdb-s`` cRT + CDB-S.

    ``bags-clc`` is BAGS-clc.
    """
    second_stage, plus, balancing = method.partition("+")
    if plus:
        return f"{stage_name(second_stage)} + {method_name(balancing)}"
    if method.endswith("-clc"):
        return f"{method_name(method.removesuffix('-clc'))}-clc"
    return _METHODS.get(method, method.upper())


def stage_name(second_stage: str) -> str:
    """The usual name of a second stage, by what it trains: ``crt`` is cRT."""
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
    """A measure of Tables 5 to 8 in words: ``head_recall`` head recall, ``bbox_APr`` box AP_r."""
    kind, _, average = metric.partition("_")
    if kind in _COMPARED:
        return f"{_COMPARED[kind]} {average_name(average)}"
    return _METRICS.get(metric, metric.replace("_", " "))


def average_name(average: str) -> str:
    """The paper's name of an average of AP: ``APr`` is AP_r."""
    return average if average == "AP" else f"AP_{average.removeprefix('AP')}"


def is_demo(group: str) -> bool:
    """Whether the runs of a group, or their readings, are on data that we render."""
    return group.removesuffix("-readings").endswith(_DEMOS)


def off_paper(group: str) -> str:
    """Why a group's numbers may not stand beside the paper's; empty when they may."""
    if is_demo(group):
        return "rendered demo"
    return "short schedule" if is_short(group) else ""


def condition_name(condition: str) -> str:
    """A condition in words: ``100`` is imbalance 100, ``split1`` split 1, ``bbox`` boxes."""
    if condition in _CONDITIONS:
        return _CONDITIONS[condition]
    if condition.startswith("split"):
        return condition.replace("split", "split ")
    return f"imbalance {condition}"


def run_name(method: str, variant: str) -> str:
    """Method and variant: ``CDB-S (τ sigmoid)``."""
    if not variant:
        return method_name(method)
    return f"{method_name(method)} ({variant_name(variant)})"


def variant_name(variant: str) -> str:
    """A variant in words: ``tau=0.5`` is τ 0.5, ``stage1=cdb-s`` after CDB-S.

    ``pretrained=coco`` is from COCO, ``pretrained=lvis-ce`` from CE on LVIS.
    """
    variant, *more = variant.split(" ")
    return ", ".join([_first_of_variant(variant), *map(_further, more)])


def _first_of_variant(variant: str) -> str:
    name, equals, value = variant.partition("=")
    if name == "stage1" and equals:
        return f"after {method_name(value)}"
    if name == "pretrained" and equals:
        return f"from {_start_name(value)}"
    return variant.replace("tau=", "τ ")


def _further(part: str) -> str:
    """What follows in a variant: ``unit=image`` by image, ``average=0.9`` average 0.9.

    ``from-epoch=160``: weights from epoch 160.
    """
    if part == "unit=image":
        return "by image"
    return part.replace("from-epoch=", "weights from epoch ").replace("=", " ")


def _start_name(start: str) -> str:
    """What a detector began with: ``lvis-ce`` is CE on LVIS."""
    for key, dataset in _FIRST_STAGES.items():
        if start.startswith(f"{key}-"):
            return f"{method_name(start.removeprefix(f'{key}-'))} on {dataset}"
    return _STARTS.get(start, start)


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed count of digits and a true minus; NaN is missing, never 0."""
    if math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def scientific(value: float) -> str:
    """With one digit, as weight decays are written.

    >>> scientific(0.0005)
    '5e-4'
    """
    return f"{value:.0e}".replace("e-0", "e-")


def value_text(value: object) -> str:
    """A recorded value as text; 2.0, which some programs make of 2, is 2."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def signed(value: float, digits: int = 2) -> str:
    """A difference, with its sign; NaN is missing."""
    text = number(value, digits)
    return text if math.isnan(value) or text.startswith("−") or not float(text) else f"+{text}"
