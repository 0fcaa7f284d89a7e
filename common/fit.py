"""A run from its folder to its record, whatever it trains: checkpoints, log, progress, stopping.

Under torchrun every rank calls the same functions; rank 0 alone writes and shows.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
import tyro

from common.config import RunConfig, plain
from common.distributed import is_first_rank, local_rank
from common.errors import UserError
from common.progress import EpochProgress
from common.record import COURSES
from common.run import RunFolder, has_bfloat16
from common.signals import StopRequest
from common.tensorboard import EpochLog


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where and how a run is carried out; nothing here changes its numbers on one device."""

    out: Path = Path("runs")
    """Folder of all runs; this one is in OUT/GROUP/RUN."""
    group: str | None = None
    """Sub-folder; None: the recipe's name."""
    data: Path | None = None
    """The data set's file or folder; None: its usual place, see data_prep/README.md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: cuda if there is one."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """CPU threads; two runs of one thread beat one run of two."""
    checkpoint_seconds: float = 10.0
    """Least time between two checkpoints; a lost process loses no more than this and an epoch."""


Arguments = TypeVar("Arguments", bound=RunArguments)


def parse_command_line(
    words: Sequence[str],
    program: str,
    recipes: Mapping[str, RunConfig],
    make: Callable[..., Arguments],
) -> Arguments:
    """Arguments from a command line: a recipe's name, then options that depart from it.

    Args:
        words: of the command line.
        program: the module's name, such as ``video.train``.
        recipes: by name.
        make: a class with a field ``config``.

    Raises:
        UserError: when the first word is not a recipe.
    """
    if words and words[0] in recipes:
        default = make(config=recipes[words[0]])
        name = f"{program} {words[0]}"
        return tyro.cli(type(default), default=default, args=words[1:], prog=name)
    names, first = ", ".join(recipes), next(iter(recipes))
    if words and words[0] in ("-h", "--help"):
        print(
            f"usage: python -m {program} {{{names}}} [options]; "
            f"python -m {program} {first} --help tells the options of a recipe"
        )
        sys.exit(0)
    raise UserError(f"the first argument names the recipe, one of: {names}.")


class Trainable(Protocol):
    """A run between its first step and its last."""

    @property
    def config(self) -> RunConfig:
        """Its settings, resolved."""

    @property
    def epoch(self) -> int:
        """Complete epochs."""

    def run_epoch(self, stop: StopRequest) -> bool:
        """Train the epoch under way to its end, or to a stop request; whether it is complete."""

    def end_epoch(self) -> dict[str, float]:
        """Measure the difficulty set and so on; what is worth logging, by name."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""


class Clock:
    """Wall time of a run over all its starts, and of the last checkpoint."""

    def __init__(self) -> None:
        """Start counting."""
        self.before = 0.0
        self.starts = 1
        self._start = self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, float]:
        """Seconds and starts so far."""
        return {"seconds": self.seconds(), "starts": self.starts}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from :meth:`state_dict`: one start more."""
        self.before, self.starts = state["seconds"], int(state["starts"]) + 1

    def seconds(self) -> float:
        """Wall time of all starts."""
        return self.before + time.monotonic() - self._start

    def due(self, interval: float) -> bool:
        """Whether ``interval`` seconds have passed since this last was true."""
        if time.monotonic() - self._last_save < interval:
            return False
        self._last_save = time.monotonic()
        return True


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu or cuda; under torchrun each rank has a GPU of its own.

    Raises:
        UserError: when there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu.")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"torchrun started {local_rank() + 1} or more processes here, but there are "
            f"{torch.cuda.device_count()} GPUs; give it --nproc-per-node "
            f"{torch.cuda.device_count()}, or use --device cpu."
        )
    if local_rank():
        torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank()) if local_rank() else torch.device("cuda")


def set_threads(number: int) -> None:
    """Use so many CPU threads.

    Raises:
        UserError: for a number below 1.
    """
    if number < 1:
        raise UserError(f"--threads must be at least 1, not {number}.")
    torch.set_num_threads(number)


def advise_on_precision(config: RunConfig, device: torch.device) -> None:
    """Say when the precision makes this processor several times slower."""
    mixed = getattr(config, "precision", "float32") == "bfloat16"
    if mixed and device.type == "cpu" and not has_bfloat16():
        print(
            "this processor has no bfloat16 instructions: --precision float32 is several times "
            "faster here",
            file=sys.stderr,
        )


def go_on(training: Trainable, folder: RunFolder, clock: Clock) -> None:
    """Go on from the folder's checkpoint, if it has one.

    Raises:
        UserError: when it is damaged, or of another configuration or version.
    """
    state = folder.load_checkpoint()
    if state is None:
        return
    try:
        training.load_state_dict(state["training"])
        clock.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        # Its configuration and checksum fit: another version of this program wrote it.
        raise UserError(
            f"{folder.checkpoint_path} does not fit this version of the program; delete it and "
            "start the same command again: the run then starts at its first epoch."
        ) from error


class _Shown:
    """TensorBoard log and progress of a run; nothing on the ranks behind the first."""

    def __init__(self, stack: ExitStack, folder: RunFolder, training: Trainable) -> None:
        self._log: EpochLog | None = None
        if is_first_rank():
            name, total = folder.path.name, training.config.epochs
            self._log = stack.enter_context(
                EpochLog(folder.path / "tensorboard", training.epoch + 1)
            )
            self._progress = stack.enter_context(EpochProgress(name, training.epoch, total))

    def epoch(self, number: int, scalars: dict[str, float]) -> None:
        if self._log is not None:
            self._log.write(number, scalars)
            words = f"loss {scalars['train/loss']:.4f}"
            # A detector is not measured after every epoch.
            if (accuracy := scalars.get("difficulty_set/balanced_accuracy")) is not None:
                words += f"  difficulty-set accuracy {accuracy:.4f}"
            self._progress.show(number, words)


def fit(training: Trainable, folder: RunFolder, clock: Clock, interval: float) -> None:
    """Train to the last epoch, with checkpoints; a stop request saves and exits.

    Args:
        training: at its first step or where a checkpoint left it.
        folder: entered.
        clock: of the run.
        interval: least seconds between two checkpoints.
    """
    with StopRequest() as stop, ExitStack() as stack:
        shown = _Shown(stack, folder, training)
        while training.epoch < training.config.epochs:
            if training.run_epoch(stop):
                scalars = training.end_epoch()
                shown.epoch(training.epoch, scalars)
            if stop.requested() or clock.due(interval):
                folder.save_checkpoint({"training": training.state_dict()} | clock.state_dict())
            if stop.signal is not None:
                print("stopped after a checkpoint; the same command goes on", file=sys.stderr)
                sys.exit(128 + stop.signal)


def record_of(
    task: str,
    config: RunConfig,
    *,
    run: str,
    group: str,
    condition: str,
    split: dict[str, Any],
    metrics: dict[str, Any],
    history: dict[str, Any],
) -> dict[str, Any]:
    """A result record but for its provenance; see ``common/record.py``.

    ``history`` is kept without what :func:`common.record.courses` computes from the rest.
    """
    return {
        "schema": 1,
        "run": run,
        "group": group,
        "task": task,
        "dataset": config.dataset,
        "method": config.table_method,
        "variant": config.variant,
        "condition": condition,
        "seed": config.seed,
        "config": plain(config),
        "split": split,
        "metrics": metrics,
        "history": {name: rows for name, rows in history.items() if name not in COURSES},
    }
