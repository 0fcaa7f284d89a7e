"""A run from its folder to its record, whatever it trains: stages, checkpoints, log, stopping.

Under torchrun every rank calls the same functions; rank 0 alone writes and shows. What belongs to
the process, signals and the terminal, is :func:`run`'s; :func:`steps` leaves it alone, so that a
process can have several runs in hand.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch

from common.distributed import barrier, is_first_rank
from common.errors import UserError
from common.training.arguments import RunArguments
from common.training.folder import ForeignWeightsError, RunFolder, load_tensors
from common.training.loop import Training, Weights
from common.training.process_group import choose_device, process_group, say
from common.training.progress import EpochProgress
from common.training.provenance import Clock, differences, environment, has_bfloat16
from common.training.record import COURSES, SCHEMA_VERSION
from common.training.settings import RunConfig, plain
from common.training.signals import StopRequest
from common.training.task import Results, Task
from common.training.tensorboard import EpochLog


class Shown(Protocol):
    """What shows the epochs of a run."""

    def show(self, epoch: int, words: str) -> None:
        """Show that ``epoch`` epochs are finished."""


Display = Callable[[str, int, int], AbstractContextManager[Shown]]
"""A run's name, its finished epochs, and all of them -> what shows it while it is trained."""
Outcome = dict[str, Any] | None
"""A run's record; None: it was stopped, after a checkpoint."""


def run(task: Task[Any, Any, Any], arguments: RunArguments) -> dict[str, Any]:
    """Carry out a run, or go on with it, or find it finished.

    Returns:
        The result record.

    Raises:
        UserError: for any mistake a user can mend; a checkpoint that was there is still there.
        SystemExit: it was asked to stop, and has saved its state.
    """
    stop = StopRequest()
    under_way = steps(task, arguments, stop, EpochProgress)
    while True:
        try:
            next(under_way)
        except StopIteration as end:
            record: Outcome = end.value
            break
    if record is None:
        print("stopped after a checkpoint; the same command goes on", file=sys.stderr)
        sys.exit(128 + (stop.signal or 0))
    return record


def steps(
    task: Task[Any, Any, Any], arguments: RunArguments, stop: StopRequest, display: Display
) -> Generator[None, None, Outcome]:
    """A run with a yield after each step, of a first stage too; its record, or None.

    Of several such runs of a process each goes on when it is asked. A first stage that they share
    must have finished: what another of them holds is refused, since it is never let go of.

    Args:
        task: what is trained.
        arguments: not resolved.
        stop: entered while there is something to save; runs may share it.
        display: shows the epochs, on the first rank.

    Raises:
        UserError: as :func:`run`.
    """
    torch.set_num_threads(arguments.threads)
    arguments = task.resolve(arguments)
    device = choose_device(arguments.device)
    with process_group(device):
        record, already = yield from _stage(task, arguments, device, stop, display)
        if already:
            say(f"finished already: {task.folder(arguments) / 'record.json'}")
        return record


def _stage(
    task: Task[Any, Any, Any],
    arguments: RunArguments,
    device: torch.device,
    stop: StopRequest,
    display: Display,
) -> Generator[None, None, tuple[Outcome, bool]]:
    """A resolved run's outcome, and whether it was there already."""
    config = arguments.config
    with RunFolder(task.folder(arguments), plain(config), task.as_today) as folder:
        record = folder.finished_record()
        if record is not None:
            return record, True
        advise_on_precision(config, device)
        first = task.first_stage(arguments)
        weights = None
        if first is not None:
            outcome, _ = yield from _stage(task, first, device, stop, display)
            if outcome is None:
                return None, False
            weights = _first_weights(task.folder(first))
        training = _begin(task, arguments, device, weights)
        clock = Clock(environment(device, training.packages))
        resume(training, folder, clock)
        if not (yield from _train(training, folder, clock, arguments, stop, display)):
            return None, False
        training.done(clock.seconds())
        results = task.results(training, arguments, folder.path)
        record = record_of(task, arguments, results, training.history.rows, clock)
        folder.finish(dict(results.weights), record)
    say(f"{results.summary}  {folder.record_path}")
    return record, False


def _first_weights(folder: Path) -> Weights:
    """The last weights of a second stage's first, which has finished.

    Raises:
        UserError: when they are gone or damaged.
    """
    barrier()  # The first rank writes the weights after the others have ended.
    say(f"first stage: {folder}")
    path = folder / "weights.pt"
    if not path.exists():
        raise UserError(
            f"{path} is missing, though its run has finished; move that folder elsewhere and "
            "start the same command again: the first stage is then trained anew."
        )
    weights = load_tensors(path, _train_again(folder)).get("last")
    if not isinstance(weights, dict):
        raise UserError(_foreign(folder))
    return weights


def _train_again(folder: Path) -> str:
    return f"move {folder} elsewhere and train the run again"


def _foreign(folder: Path) -> str:
    return f"{folder / 'weights.pt'} holds the weights of another network; {_train_again(folder)}."


def _begin(
    task: Task[Any, Any, Any], arguments: RunArguments, device: torch.device, first: Weights | None
) -> Training[Any]:
    """The run at its first step.

    Raises:
        UserError: when data, weights or a setting does not allow it.
    """
    try:
        training: Training[Any] = task.begin(arguments, device, first)
    except ForeignWeightsError as error:
        of_first = task.first_stage(arguments)
        if of_first is None:
            raise
        raise UserError(_foreign(task.folder(of_first))) from error
    except ValueError as error:
        name = arguments.config.dataset
        raise UserError(f"{name} cannot be trained on as it is: {error}.") from error
    return training


def advise_on_precision(config: RunConfig, device: torch.device) -> None:
    """Say when the precision makes this processor several times slower."""
    mixed = getattr(config, "precision", "float32") == "bfloat16"
    if mixed and device.type == "cpu" and not has_bfloat16():
        print(
            "this processor has no bfloat16 instructions: --precision float32 is several times "
            "faster here",
            file=sys.stderr,
        )


def resume(training: Training[Any], folder: RunFolder, clock: Clock) -> None:
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
            f"{folder.checkpoint_path} does not fit this version of the program; move it "
            "elsewhere and start the same command again: the run then starts at its first epoch."
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


class _Course:
    """TensorBoard log and progress of a run; nothing on the ranks behind the first."""

    def __init__(
        self, stack: ExitStack, folder: Path, training: Training[Any], display: Display
    ) -> None:
        self._log: EpochLog | None = None
        if is_first_rank():
            self._log = stack.enter_context(EpochLog(folder / "tensorboard", training.epoch + 1))
            total = training.config.epochs
            self._shown = stack.enter_context(display(folder.name, training.epoch, total))

    def epoch(self, number: int, scalars: dict[str, float]) -> None:
        if self._log is not None:
            self._log.write(number, scalars)
            words = f"loss {scalars['train/loss']:.4f}"
            # A detector is not measured after every epoch.
            if (accuracy := scalars.get("difficulty_set/balanced_accuracy")) is not None:
                words += f"  difficulty-set accuracy {accuracy:.4f}"
            self._shown.show(number, words)


def _train(
    training: Training[Any],
    folder: RunFolder,
    clock: Clock,
    arguments: RunArguments,
    stop: StopRequest,
    display: Display,
) -> Generator[None, None, bool]:
    """Train to the last epoch, with checkpoints; False: a stop request came, the state is saved."""
    with stop, ExitStack() as stack:
        course = _Course(stack, folder.path, training, display)
        while not training.complete():
            if (yield from training.epoch_steps(stop)):
                scalars = training.end_epoch()
                course.epoch(training.epoch, scalars)
            asked = stop.requested()
            if asked or clock.due(arguments.checkpoint_seconds):
                folder.save_checkpoint({"training": training.state_dict()} | clock.state_dict())
            if asked:
                return False
    return True


def record_of(
    task: Task[Any, Any, Any],
    arguments: RunArguments,
    results: Results,
    history: dict[str, Any],
    clock: Clock,
) -> dict[str, Any]:
    """A result record; see ``common/training/record.py``.

    ``history`` is kept without what :func:`common.training.record.courses` computes from the rest.
    """
    config, folder = arguments.config, task.folder(arguments)
    made = clock.provenance()
    made["versions"] |= results.versions
    return {
        "schema": SCHEMA_VERSION,
        "run": folder.name,
        "group": folder.parent.name,
        "task": task.name,
        "dataset": config.dataset,
        "method": config.table_method,
        "variant": config.variant,
        "condition": results.condition,
        "seed": config.seed,
        "config": plain(config),
        "split": results.split,
        "metrics": results.metrics,
        "history": {name: rows for name, rows in history.items() if name not in COURSES},
        "provenance": made,
    }
