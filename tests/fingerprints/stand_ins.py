"""What stands in place of large data, large networks and a GPU, in the process of a run.

A change of the Python beneath the command line may ask this module alone to be adapted: a stand-in
fails where what it stands for is gone.
"""

import importlib
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from tests.fingerprints.cases import CIFAR_TEST, CIFAR_TRAIN
from tests.fingerprints.data import DIGESTS


def use_small_data(task: str, data: Path) -> None:
    """Small parts of MNIST, and small sets in place of those that are verified."""
    if task == "classification":
        _replace("data_prep.mnist", TRAIN_SIZE=400, DIFFICULTY_PER_CLASS=20, TEST_PER_CLASS=20)
        if (data / "cifar100").is_dir():
            _use_small_cifar(json.loads((data / "cifar100" / DIGESTS).read_bytes()))
        folder = importlib.import_module("data_prep.image_folder")
        _replace("data_prep.imagenet_lt", load_imagenet_lt=folder.load_image_folder)
    elif task == "video" and (data / "verbs").is_dir():
        digests = json.loads((data / "verbs" / DIGESTS).read_bytes())
        _replace("data_prep.egtea", SPLIT_FOLDER=data / "verbs" / "splits", SHA256=digests)


def _replace(module: str, **values: object) -> None:
    namespace = vars(importlib.import_module(module))
    missing = values.keys() - namespace.keys()
    assert not missing, f"{module} has no {', '.join(sorted(missing))}"
    namespace.update(values)


def _use_small_cifar(digests: dict[str, str]) -> None:
    """The tiny CIFAR-100 is the original one; four training images of its head class are used."""
    cifar: Any = importlib.import_module("data_prep.cifar100")
    _replace("data_prep.cifar100", DIFFICULTY_PER_CLASS=CIFAR_TRAIN - 4, HEAD_SIZE=4)
    small = {
        "train_per_class": CIFAR_TRAIN, "test_per_class": CIFAR_TEST,
        "train_sha256": digests["train"], "test_sha256": digests["test"],
    }  # fmt: skip
    for name, value in small.items():
        assert hasattr(cifar.ORIGINAL, name), name
        # In place: whoever has it already has this one.
        object.__setattr__(cifar.ORIGINAL, name, value)
    _set_default(cifar.training_sizes, "head", 4)


def use_small_networks(task: str) -> None:
    """ResNet-8 in place of ResNet-32: the same blocks, one a stage."""
    if task == "classification":
        models: Any = importlib.import_module("classification.models")
        _set_default(models.make_resnet, "blocks", 1)


def _set_default(function: Callable[..., object], name: str, value: object) -> None:
    """Another default of an argument, for whoever has imported the function, too."""
    code, positional = function.__code__, list(function.__defaults__ or ())
    if function.__kwdefaults__ and name in function.__kwdefaults__:
        function.__kwdefaults__[name] = value
        return
    names = code.co_varnames[: code.co_argcount]
    positional[names.index(name) - len(names)] = value
    function.__defaults__ = tuple(positional)


def use_captured_steps() -> None:
    """The tape of tests/classification in place of CUDA graphs, whatever the device."""
    from tests.classification.tape import captured

    training: Any = importlib.import_module("classification.train").Training
    begin = training.__init__

    @wraps(begin)
    def begin_captured(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        captured(self)

    training.__init__ = begin_captured
