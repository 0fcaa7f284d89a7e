"""A run from its folder to its record, whatever it trains: checkpoints, log, progress, stopping.

Under torchrun every rank calls the same functions; rank 0 alone writes and shows.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
import tyro

from common.distributed import is_first_rank
from common.errors import UserError
from common.training.folder import RunFolder, differences, has_bfloat16, provenance
from common.training.process_group import local_rank
from common.training.progress import EpochProgress
from common.training.record import COURSES, SCHEMA_VERSION
from common.training.settings import RunConfig, plain
from common.training.signals import StopRequest
from common.training.tensorboard import EpochLog


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where and how a run is carried out.

    Another device, number of threads or number of processes changes its numbers by their last bits,
    which training makes larger; nothing else here changes them.
    """

    out: Path = Path("runs")
    """Folder of all runs; this one is in OUT/GROUP/RUN."""
    group: str | None = None
    """Sub-folder; None: the recipe's name."""
    data: Path | None = None
    """The data set's file or folder; None: its usual place, see data_prep/README.md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: cuda if there is one."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """CPU threads; two runs of one thread beat one run of two. Another number sums in another
    order, so that the results differ slightly, as with another seed."""
    checkpoint_seconds: float = 10.0
    """Least time between two checkpoints; a lost process loses no more than this and an epoch."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, or leads out of ``out``."""
        group = self.group
        if group is not None and (group in ("", ".", "..") or "/" in group or "\0" in group):
            raise UserError(
                f"--group {group!r} must be the name of one folder within --out; name the place of "
                "all runs with --out."
            )
        # Not '< 0': NaN fails every comparison.
        if not self.checkpoint_seconds >= 0:
            raise UserError(
                f"--checkpoint-seconds must be at least 0, not {self.checkpoint_seconds}."
            )


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
    """Wall time of a run over all its starts, and what they were made with; the last checkpoint."""

    def __init__(self, made_with: dict[str, Any]) -> None:
        """Start counting.

        Args:
            made_with: what :func:`common.training.folder.environment` says of this start.
        """
        self.before = 0.0
        self.environments = [{"from_start": 1, **made_with}]
        self.starts = 1
        self._start = self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Seconds, starts and environments so far."""
        return {
            "seconds": self.seconds(), "starts": self.starts, "environments": self.environments
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`: one start more."""
        self.before, self.starts = state["seconds"], int(state["starts"]) + 1
        # A checkpoint of before they were kept has none.
        before, [now] = state.get("environments", []), self.environments
        now = now | {"from_start": self.starts}
        same = bool(before) and not differences(before[-1], now)
        self.environments = before if same else [*before, now]

    def seconds(self) -> float:
        """Wall time of all starts."""
        return self.before + time.monotonic() - self._start

    def provenance(self) -> dict[str, Any]:
        """The record's provenance of a run that has finished now."""
        return provenance(self.seconds(), self.starts, self.environments)

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
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if name == "auto" and processes > 1 and local_rank() == 0:
            print(
                f"no CUDA device is available: the {processes} processes of this run train on the "
                "CPU",
                file=sys.stderr,
            )
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
    _say_changes(clock)


def _say_changes(clock: Clock) -> None:
    """Say at a start what is not as at the one before: the numbers may then be others."""
    now = clock.environments[-1]
    if now["from_start"] != clock.starts or len(clock.environments) < 2 or not is_first_rank():
        return
    changes = [
        f"{name} {there} before, {here} now"
        for name, (there, here) in differences(clock.environments[-2], now).items()
    ]
    print(
        f"goes on with other means than its start before ({'; '.join(changes)}): its numbers may "
        "differ from an undisturbed run's; the record names both",
        file=sys.stderr,
    )


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
    """A result record but for its provenance; see ``common/training/record.py``.

    ``history`` is kept without what :func:`common.training.record.courses` computes from the rest.
    """
    return {
        "schema": SCHEMA_VERSION,
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
