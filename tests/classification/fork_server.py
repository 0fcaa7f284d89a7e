"""Runs training commands in forked processes: real processes, without three seconds of imports.

Use: python fork_server.py PACKAGE, whose train.py is to run: classification or video. Reads one
JSON job a line: {"start": {...}} answers with the process, {"wait": process} with its exit code.
A job: arguments (of the program), stdout, stderr (files), and optionally

    limit: bytes that a file may have (RLIMIT_FSIZE)
    at: [name of a function in _HOOKS, number of the call]
    what: "kill" (SIGKILL), "terminate" (SIGTERM), "no room" (ENOSPC) or "nan": happens there
    whole: of classification: true for all images of the data set; else every tenth of MNIST and the
        small stand-in for CIFAR-100 with its ResNet-8, which are as good here
"""

import common.training  # noqa: F401, I001  (before torch)

import errno
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

import classification.image_data  # (imported when a run on images begins)
import classification.models.resnet_image
import classification.train
import classification.training
from classification.data import LabelledImages, LongTailedData, load_data
from classification.recipes import MnistConfig
from common.difficulty import count_per_class
from common.errors import run_main
from common.training.loop import Training
from tests.classification import small_images
from tests.classification.small_cifar import STAND_INS

# Collected for doctests it has other arguments.
_PACKAGE = sys.argv[1] if __name__ == "__main__" else "classification"
_TRAIN = importlib.import_module(f"{_PACKAGE}.train")
_HOOKS: dict[str, tuple[Any, str]] = {
    "step": (Training, "train_step"),
    "fsync": (os, "fsync"),
}


def _happen(what: str, result: Any) -> Any:
    if what == "nan":
        return result * float("nan")
    if what == "no room":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)
    return result


def _hook(name: str, number: int, what: str) -> None:
    """Let ``what`` happen at call ``number``, counted from 1: before it, or to its result."""
    owner, attribute = _HOOKS[name]
    original: Callable[..., Any] = getattr(owner, attribute)
    calls = 0

    def replacement(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and what != "nan":
            _happen(what, None)
        result = original(*arguments, **options)
        return _happen(what, result) if calls == number and what == "nan" else result

    setattr(owner, attribute, replacement)


def _every_tenth(*arguments: Any) -> LongTailedData:
    data = load_data(*arguments)
    if not isinstance(arguments[0], MnistConfig):
        return data

    def some(part: LabelledImages) -> LabelledImages:
        return LabelledImages(part.images[::10], part.labels[::10])

    def counts(part: LabelledImages) -> torch.Tensor:
        return count_per_class(part.labels, data.num_classes).to(torch.int64)

    train, test = some(data.train), some(data.test)
    return LongTailedData(
        train, some(data.difficulty), test, counts(train), counts(test), data.description
    )


def use_small_data(put: Callable[[Any, str, Any], None]) -> None:
    """Put them in place: in an object, by a name, a value."""
    put(classification.training, "load_data", _every_tenth)
    for module, name, value in STAND_INS:
        put(module, name, value)
    for module_name, name, value in small_images.STAND_INS:
        put(sys.modules[module_name], name, value)


def _redirect(path: str, descriptor: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, descriptor)
    os.close(file)


def _carry_out(job: dict[str, Any]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _redirect(job["stdout"], 1)
    _redirect(job["stderr"], 2)
    if "limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    if _PACKAGE == "classification" and not job.get("whole", False):
        use_small_data(setattr)
    if "at" in job:
        name, number = job["at"]
        _hook(name, number, job["what"])
    sys.argv = [f"{_PACKAGE}.train", *job["arguments"]]
    try:
        run_main(_TRAIN.main)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _start(job: dict[str, Any]) -> int:
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        code = _carry_out(job)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _warm_up() -> None:
    """Import what the first optimizer and the first L2RW step import: seconds a process."""
    parameter = torch.zeros(1, requires_grad=True)
    torch.optim.SGD([parameter], lr=1.0)
    torch.func.jvp(torch.sin, (parameter,), (parameter,))


def main() -> None:
    _warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = _start(order["start"])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        print(answer, flush=True)


if __name__ == "__main__":
    main()
