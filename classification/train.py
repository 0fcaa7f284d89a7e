"""Train one run: python -m classification.train mnist-lt --method cdb-w-ce --imbalance 99 --seed 0.

On several GPUs: torchrun --nproc-per-node 4 -m -- classification.train cifar100-lt --method cdb-s.
A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from classification.config import ClassificationConfig
from classification.data import describe_split, load_data
from classification.engine import Training, Weights
from classification.evaluate import evaluate, load_weights, make_model
from classification.image_data import Reading
from classification.recipes import RECIPES, group_name, resolved, run_name
from classification.record import TASK
from common.distributed import barrier, is_first_rank
from common.errors import UserError, run_main
from common.streams import Streams
from common.terminal import printable
from common.training.fit import (
    Clock,
    RunArguments,
    advise_on_precision,
    choose_device,
    fit,
    go_on,
    parse_command_line,
    record_of,
    set_threads,
)
from common.training.folder import RunFolder, environment
from common.training.process_group import process_group
from common.training.settings import as_today, plain

as_written_today = partial(as_today, recipes=RECIPES)
"""The settings of a run's folder, perhaps of an older version, as they would be written today."""


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[ClassificationConfig]
    cache: Path | None = None
    """Images in files: folder that keeps them as squares after one pass; None: decode always."""
    workers: int = 0
    """Images in files: for each process that trains, so many others (threads, with a cache) read
    ahead; 0: none. With a GPU as many as there are cores for each."""


def _folder(arguments: Arguments) -> Path:
    config = arguments.config
    return arguments.out / (arguments.group or group_name(config)) / run_name(config)


def _say(words: str) -> None:
    """One line, from one process."""
    if is_first_rank():
        print(printable(words), flush=True)


def _first_stage(arguments: Arguments, device: torch.device) -> Weights | None:
    """The last epoch's weights of a second stage's first stage, trained now if need be.

    Raises:
        UserError: as :func:`train`, or when its weights are gone, damaged or of another network.
    """
    stage1 = arguments.config.stage1_config()
    if stage1 is None:
        return None
    group = arguments.group or group_name(arguments.config)
    group = arguments.config.stage1_group(group)
    first = replace(arguments, config=stage1, group=group)
    record, _ = _train(first, device)
    barrier()  # The first rank writes the weights after the others have ended.
    folder = _folder(first)
    _say(f"first stage: {folder}")
    path = folder / "weights.pt"
    if not path.exists():
        raise UserError(
            f"{path} is missing, though its run has finished; move that folder elsewhere and "
            "start the same command again: the first stage is then trained anew."
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
    first_stage = _first_stage(arguments, device)
    reading = Reading(arguments.cache, arguments.workers)
    try:
        data = load_data(config, device, arguments.data, reading)
        training = Training(config, data, device, first_stage)
    except ValueError as error:
        raise UserError(f"{config.dataset} cannot be trained on as it is: {error}.") from error
    _say(f"{config.dataset}: {describe_split(data, config.wanted_imbalance)}")
    return training


def _results(training: Training) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and test metrics of the last epoch and of the best on the difficulty set."""
    weights, metrics = training.history.evaluated_weights(training.model), {}
    for name, measured in training.history.measured().items():
        training.model.load_state_dict(weights[name])
        metrics[name] = measured | evaluate(training.model, training.data)
    return weights, metrics


def _record(arguments: Arguments, training: Training, metrics: dict[str, Any]) -> dict[str, Any]:
    config = training.config
    return record_of(
        TASK,
        config,
        run=run_name(config),
        group=arguments.group or group_name(config),
        condition=config.condition,
        split=training.data.description,
        metrics=metrics,
        history=training.history.rows,
    )


def _train(arguments: Arguments, device: torch.device) -> tuple[dict[str, Any], bool]:
    """A resolved run's record, and whether it was there already; see :func:`train`."""
    config = arguments.config
    with RunFolder(_folder(arguments), plain(config), as_written_today) as folder:
        record = folder.finished_record()
        if record is not None:
            return record, True
        advise_on_precision(config, device)
        training = _begin(arguments, device)
        clock = Clock(environment(device, config.packages))
        go_on(training, folder, clock)
        fit(training, folder, clock, arguments.checkpoint_seconds)
        weights, metrics = _results(training)
        record = _record(arguments, training, metrics)
        record["provenance"] = clock.provenance()
        folder.finish(weights, record)
        return record, False


def _resolved(arguments: Arguments) -> Arguments:
    config = resolved(arguments.config).with_lists(arguments.data)
    return replace(arguments, config=config)


def _check_reading(arguments: Arguments) -> None:
    """Refuse settings of the reading of files where there are none."""
    if arguments.workers < 0:
        raise UserError(f"--workers must be at least 0, not {arguments.workers}.")
    if arguments.config.in_files:
        return
    for option, given in (("--cache", arguments.cache), ("--workers", arguments.workers)):
        if given:
            raise UserError(
                f"{option} {given} has no effect on {arguments.config.dataset}, which is kept in "
                "memory; leave it out."
            )


def train(arguments: Arguments) -> dict[str, Any]:
    """Carry out a run, or go on with it, or find it finished.

    Returns:
        The result record.

    Raises:
        UserError: for any mistake a user can mend; a checkpoint that was there is still there.
    """
    set_threads(arguments.threads)
    _check_reading(arguments)
    arguments = _resolved(arguments)
    device = choose_device(arguments.device)
    with process_group(device):
        record, already = _train(arguments, device)
        path = _folder(arguments) / "record.json"
        if already:
            _say(f"finished already: {path}")
            return record
        errors = {name: f"{values['error']:.2f} %" for name, values in record["metrics"].items()}
        _say(f"error {errors['last']} (best epoch {errors['best']})  {path}")
        return record


def parse_arguments(words: list[str]) -> Arguments:
    """Arguments from a command line: a recipe's name, then options that depart from it."""
    return parse_command_line(words, "classification.train", RECIPES, Arguments)


def run_folder(words: list[str]) -> Path:
    """The folder of a command line's run, there or not yet.

    Raises:
        UserError: when the settings contradict each other, or lists cannot be read.
    """
    return _folder(_resolved(parse_arguments(words)))


def main() -> None:
    """Command line."""
    train(parse_arguments(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
