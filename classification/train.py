"""Train one run: python -m classification.train mnist-lt --method cdb-w-ce --imbalance 99 --seed 0.

A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from classification.config import ClassificationConfig, plain
from classification.data import describe_split, load_data
from classification.engine import Training, Weights
from classification.evaluate import evaluate, load_weights, make_model
from classification.recipes import RECIPES, DecoupledConfig, group_name, resolved, run_name
from common.errors import UserError, run_main
from common.progress import EpochProgress
from common.run import RunFolder, has_bfloat16, provenance
from common.signals import StopRequest
from common.streams import Streams
from common.tensorboard import EpochLog


@dataclass(frozen=True)
class Arguments:
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[ClassificationConfig]
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


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _advise(config: ClassificationConfig, device: torch.device) -> None:
    """Say when the precision makes this processor several times slower."""
    mixed = getattr(config, "precision", "float32") == "bfloat16"
    if mixed and device.type == "cpu" and not has_bfloat16():
        print(
            "this processor has no bfloat16 instructions: --precision float32 is several times "
            "faster here",
            file=sys.stderr,
        )


def _set_threads(number: int) -> None:
    if number < 1:
        raise UserError(f"--threads must be at least 1, not {number}.")
    torch.set_num_threads(number)


class _Clock:
    """Wall time of a run over all its starts, and of the last checkpoint."""

    def __init__(self) -> None:
        self.before = 0.0
        self.starts = 1
        self._start = self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds(), "starts": self.starts}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before, self.starts = state["seconds"], int(state["starts"]) + 1

    def seconds(self) -> float:
        return self.before + time.monotonic() - self._start

    def due(self, interval: float) -> bool:
        if time.monotonic() - self._last_save < interval:
            return False
        self._last_save = time.monotonic()
        return True


def _folder(arguments: Arguments) -> Path:
    config = arguments.config
    return arguments.out / (arguments.group or group_name(config)) / run_name(config)


def _first_stage(arguments: Arguments) -> Weights | None:
    """The last epoch's weights of a second stage's first stage, trained now if need be.

    Raises:
        UserError: as :func:`train`, or when its weights are gone, damaged or of another network.
    """
    if not isinstance(arguments.config, DecoupledConfig):
        return None
    first = replace(arguments, config=arguments.config.stage1_config())
    record, _ = _train(first)
    folder = _folder(first)
    print(f"first stage: {folder}", flush=True)
    path = folder / "weights.pt"
    if not path.exists():
        raise UserError(
            f"{path} is missing, though its run has finished; delete that folder and start the "
            "same command again: the first stage is then trained anew."
        )
    network = make_model(first.config, len(record["split"]["class_names"]), Streams(0))
    weights: Weights = load_weights(folder, network)["last"]
    return weights


def _begin(arguments: Arguments, device: torch.device) -> Training:
    """The run at its first step.

    Raises:
        UserError: when the data or a setting does not allow it.
    """
    config = arguments.config
    first_stage = _first_stage(arguments)
    try:
        training = Training(config, load_data(config, device, arguments.data), device, first_stage)
    except ValueError as error:
        raise UserError(f"{config.dataset} cannot be trained on as it is: {error}.") from error
    print(f"{config.dataset}: {describe_split(training.data, config.imbalance)}", flush=True)
    return training


def _continue(training: Training, folder: RunFolder, clock: _Clock) -> None:
    """Go on from the folder's checkpoint, if it has one."""
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


def _fit(training: Training, folder: RunFolder, clock: _Clock, interval: float) -> None:
    """Train to the last epoch, with checkpoints; a stop request saves and exits."""
    config = training.config
    with (
        StopRequest() as stop,
        EpochLog(folder.path / "tensorboard", training.epoch + 1) as log,
        EpochProgress(folder.path.name, training.epoch, config.epochs) as progress,
    ):
        while training.epoch < config.epochs:
            if training.run_epoch(stop):
                scalars = training.end_epoch()
                log.write(training.epoch, scalars)
                accuracy = scalars["difficulty_set/balanced_accuracy"]
                words = f"loss {scalars['train/loss']:.4f}  difficulty-set accuracy {accuracy:.4f}"
                progress.show(training.epoch, words)
            if stop.requested() or clock.due(interval):
                folder.save_checkpoint({"training": training.state_dict()} | clock.state_dict())
            if stop.signal is not None:
                print("stopped after a checkpoint; the same command goes on", file=sys.stderr)
                sys.exit(128 + stop.signal)


def _results(training: Training) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and test metrics of the last epoch and of the best on the difficulty set."""
    last = {name: w.clone() for name, w in training.model.state_dict().items()}
    best = training.best["weights"]
    accuracies = training.history["class_accuracy"]
    metrics = {}
    for name, epoch, weights in (
        ("best", training.best["epoch"], best),
        ("last", training.epoch, last),
    ):
        training.model.load_state_dict(weights)
        measured = [a for a in accuracies[epoch - 1] if a is not None]
        metrics[name] = {
            "epoch": epoch,
            "difficulty_set_accuracy": sum(measured) / len(measured),
            **evaluate(training.model, training.data),
        }
    return {"last": last, "best": best}, metrics


def _record(arguments: Arguments, training: Training, metrics: dict[str, Any]) -> dict[str, Any]:
    config = training.config
    return {
        "schema": 1,
        "run": run_name(config),
        "group": arguments.group or group_name(config),
        "task": "classification",
        "dataset": config.dataset,
        "method": config.table_method,
        "variant": config.variant,
        "condition": f"{config.imbalance:.15g}",
        "seed": config.seed,
        "config": plain(config),
        "split": training.data.description,
        "metrics": metrics,
        "history": training.history,
    }


def _train(arguments: Arguments) -> tuple[dict[str, Any], bool]:
    """A resolved run's record, and whether it was there already; see :func:`train`."""
    config = arguments.config
    with RunFolder(_folder(arguments), plain(config)) as folder:
        record = folder.finished_record()
        if record is not None:
            return record, True
        device = _device(arguments.device)
        _advise(config, device)
        training = _begin(arguments, device)
        clock = _Clock()
        _continue(training, folder, clock)
        _fit(training, folder, clock, arguments.checkpoint_seconds)
        weights, metrics = _results(training)
        record = _record(arguments, training, metrics)
        record["provenance"] = provenance(clock.seconds(), clock.starts, device)
        folder.finish(weights, record)
        return record, False


def train(arguments: Arguments) -> dict[str, Any]:
    """Carry out a run, or go on with it, or find it finished.

    Returns:
        The result record.

    Raises:
        UserError: for any mistake a user can mend; a checkpoint that was there is still there.
    """
    _set_threads(arguments.threads)
    arguments = replace(arguments, config=resolved(arguments.config))
    record, already = _train(arguments)
    path = _folder(arguments) / "record.json"
    if already:
        print(f"finished already: {path}")
        return record
    errors = {name: f"{values['error']:.2f} %" for name, values in record["metrics"].items()}
    print(f"error {errors['last']} (best epoch {errors['best']})  {path}")
    return record


def parse_arguments(words: list[str]) -> Arguments:
    """Arguments from a command line: a recipe's name, then options that depart from it."""
    if not words or words[0] not in RECIPES:
        names = ", ".join(RECIPES)
        if words and words[0] in ("-h", "--help"):
            print(
                f"usage: python -m classification.train {{{names}}} [options]; "
                "python -m classification.train mnist-lt --help tells the options of a recipe"
            )
            sys.exit(0)
        raise UserError(f"the first argument names the recipe, one of: {names}.")
    default = Arguments(config=RECIPES[words[0]])
    return tyro.cli(
        Arguments, default=default, args=words[1:], prog=f"classification.train {words[0]}"
    )


def main() -> None:
    """Command line."""
    train(parse_arguments(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
