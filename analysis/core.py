"""What only the core can tell, computed where torch is: in a process of its own.

torch takes twice the memory of all else that a report needs, and seconds to load. So whoever reads
records does without: one process, started at the first question or by :func:`start`, answers all of
them and ends with its parent. A program that has torch loaded anyway computes for itself.

Shapes: E epochs, C classes.
"""

import atexit
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import numpy as np

from common.errors import UserError

Record = dict[str, Any]
Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


class _Process:
    """The process that has torch; it takes a function's name and arguments, and gives its value."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        folders = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        # In a group of its own: Ctrl-C is its parent's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "analysis.core"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        )  # fmt: skip
        atexit.register(self._end)

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The value of this module's function.

        Raises:
            UserError: when the process has ended.
            Exception: what the function raises.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((name, arguments, named), self._process.stdin)
            self._process.stdin.flush()
            is_value, answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            raise UserError(
                f"The process that computes with torch has ended (exit code {code}); see what it "
                "said above, whether torch is installed and memory is left."
            ) from error
        if not is_value:
            raise answer
        return answer


_process = cache(_Process)


def _has_torch() -> bool:
    return "torch" in sys.modules


def start() -> None:
    """Begin to load torch, for questions that are sure to come."""
    if not _has_torch():
        _process()


def _asked(function: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Have a function computed where torch is."""

    @wraps(function)
    def ask(*arguments: Parameters.args, **named: Parameters.kwargs) -> Answer:
        if _has_torch():
            return function(*arguments, **named)
        answer: Answer = _process().ask(function.__name__, arguments, named)
        return answer

    return ask


def courses(record: Record) -> dict[str, list[Any]]:
    """What a CDB run trained with in each epoch: :func:`common.training.record.courses`."""
    # What it is computed from alone: the rest of a record is much to send.
    measured = {"class_accuracy": record["history"]["class_accuracy"]}
    split = {"difficulty": record["split"]["difficulty"]}
    return _courses({"config": record["config"], "history": measured, "split": split})


@_asked
def _courses(record: Record) -> dict[str, list[Any]]:
    from common.training import record as core

    return core.courses(record)


@_asked
def weights_over_accuracy(tau: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Class accuracies from 0 to 1 and their weights (1 - A)^tau (Eq. 4), of shape (points,)."""
    import torch

    from common.weights import difficulty_weights

    accuracy = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    return accuracy.numpy(), difficulty_weights(1.0 - accuracy, tau).numpy()


@_asked
def tau_over_bias(law: str, tau_max: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Biases from 0 to 1/eps - 1 = 99 and the tau of a law, of shape (points,).

    Args:
        law: its name in :data:`common.tau.TAU_LAWS`.
        tau_max: T_M.
        points: how many.
    """
    import torch

    from common.tau import TAU_LAWS, LawOptions, bias_bound

    bias = torch.linspace(0.0, bias_bound(), points, dtype=torch.float64)
    # A law takes the fraction of Eq. 5, which is bias + 1.
    return bias.numpy(), TAU_LAWS[law](bias + 1.0, LawOptions(tau_max)).numpy()


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the parent has ended."""
    import torch  # noqa: F401  (before the first question comes)

    while True:
        try:
            name, arguments, named = pickle.load(questions)
        except EOFError:
            return
        try:
            answer = True, globals()[name](*arguments, **named)
        except Exception as error:
            answer = False, error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    # What a library prints is no answer.
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, own)
