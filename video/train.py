"""Train one run: python -m video.train egtea-verbs --method cdb-w-ce --seed 0.

On several GPUs: torchrun --nproc-per-node 8 -m -- video.train egtea-verbs --method cdb-w-ce.
A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import copy
import hashlib
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import tyro
from torch import nn

from common.distributed import barrier, is_first_rank
from common.errors import UserError, run_main
from common.files import chosen_path
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
from video.cache import FrameCache
from video.data import (
    CONDITION,
    FrameSource,
    VerbData,
    describe_data,
    evaluation_batches,
    load_data,
)
from video.engine import Training
from video.evaluate import describe, evaluate, make_model
from video.models import load_kinetics
from video.reading import Reader
from video.recipes import RECIPES, VideoConfig, resolved, run_name
from video.record import TASK

KINETICS_VARIABLE: Final = "CDB_KINETICS"
DEFAULT_KINETICS: Final = Path("data/resnext-101-kinetics.pth")

as_written_today = partial(as_today, recipes=RECIPES)
"""The settings of a run's folder, perhaps of an older version, as they would be written today."""


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[VideoConfig]
    kinetics: Path | None = None
    """Weights pretrained on Kinetics (resnext-101-kinetics.pth of Hara et al.); None: the file that
    CDB_KINETICS names, else data/resnext-101-kinetics.pth."""
    reader: Reader = "pyav"
    """What decodes videos; both give the same frames."""
    cache: Path | None = None
    """Folder that keeps the frames of all clips after one pass over them; None: decode always."""
    workers: int = 0
    """Processes, for each that trains, which read clips ahead; 0: none. With GPUs as many as there
    are cores for each."""


def _kinetics_file(arguments: Arguments) -> Path:
    return chosen_path(arguments.kinetics, KINETICS_VARIABLE, DEFAULT_KINETICS)


def _model(
    arguments: Arguments, num_classes: int, streams: Streams, device: torch.device
) -> nn.Module:
    """The network with its first weights."""
    config = arguments.config
    model = make_model(config, num_classes, streams)
    if config.start == "kinetics":
        load_kinetics(model, _kinetics_file(arguments))
    return model.to(device)


def _source(arguments: Arguments, data: VerbData) -> FrameSource:
    """Where frames come from; with a cache, after it has been filled."""
    config = arguments.config
    cache = None
    if arguments.cache is not None:
        cache = FrameCache(arguments.cache, config.frame_height, config.frame_width)
        threads = max(arguments.workers, arguments.threads)
        data.fill_cache(cache, config.frames, arguments.reader, threads)
        barrier()
    return FrameSource(config.frame_height, config.frame_width, arguments.reader, cache)


def _begin(arguments: Arguments, device: torch.device) -> Training:
    """The run at its first step.

    Raises:
        UserError: when the data, the pretrained weights or a setting does not allow it.
    """
    config = arguments.config
    data = load_data(config, arguments.data)
    _say(f"{config.dataset}: {describe_data(data)}")
    streams = Streams(config.seed)
    model = _model(arguments, data.num_classes, streams, device)
    source = _source(arguments, data)
    try:
        training = Training(config, data, model, source, streams, arguments.workers)
    except ValueError as error:
        raise UserError(f"{config.dataset} cannot be trained on as it is: {error}.") from error
    if config.start == "kinetics":
        training.start_digest = hashlib.sha256(_kinetics_file(arguments).read_bytes()).hexdigest()
    return training


def _results(arguments: Arguments, training: Training) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and test metrics of the last epoch and of the best on the difficulty set."""
    weights = training.history.evaluated_weights(training.model)
    models = {name: copy.deepcopy(training.model) for name in weights}
    for name, model in models.items():
        model.load_state_dict(weights[name])
    data = training.data
    clips = data.test.of_rank()
    batches = evaluation_batches(clips, training.source, training.config, arguments.workers)
    tested = evaluate(models, batches, data.num_classes, data.head)
    measured = training.history.measured()
    return weights, {name: measured[name] | tested[name] for name in weights}


def _group(arguments: Arguments) -> str:
    return arguments.group or arguments.config.dataset


def _folder(arguments: Arguments) -> Path:
    return arguments.out / _group(arguments) / run_name(arguments.config)


def _say(words: str) -> None:
    """One line, from one process."""
    if is_first_rank():
        print(printable(words), flush=True)


def _trained(arguments: Arguments, folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """The record of a run that has not finished; it is written with the weights."""
    config = arguments.config
    training = _begin(arguments, device)
    clock = Clock(environment(device, packages=("av",)))
    go_on(training, folder, clock)
    fit(training, folder, clock, arguments.checkpoint_seconds)
    weights, metrics = _results(arguments, training)
    record = record_of(
        TASK,
        config,
        run=run_name(config),
        group=_group(arguments),
        condition=CONDITION,
        split=training.data.description,
        metrics=metrics,
        history=training.history.rows,
    )
    record["provenance"] = clock.provenance()
    if training.start_digest:
        record["provenance"]["versions"]["kinetics_weights_sha256"] = training.start_digest
    folder.finish(weights, record)
    return record


def train(arguments: Arguments) -> dict[str, Any]:
    """Carry out a run, or go on with it, or find it finished.

    Returns:
        The result record.

    Raises:
        UserError: for any mistake a user can mend; a checkpoint that was there is still there.
    """
    set_threads(arguments.threads)
    if arguments.workers < 0:
        raise UserError(f"--workers must be at least 0, not {arguments.workers}.")
    arguments = replace(arguments, config=resolved(arguments.config))
    config = arguments.config
    if config.start == "random" and arguments.kinetics is not None:
        raise UserError("--kinetics has no effect on --start random; leave one of them out.")
    path = _folder(arguments)
    device = choose_device(arguments.device)
    with process_group(device), RunFolder(path, plain(config), as_written_today) as folder:
        record = folder.finished_record()
        if record is not None:
            _say(f"finished already: {folder.record_path}")
            return record
        advise_on_precision(config, device)
        record = _trained(arguments, folder, device)
        _say(f"{describe(record['metrics']['last'])}  {folder.record_path}")
        return record


def parse_arguments(words: list[str]) -> Arguments:
    """Arguments from a command line: a recipe's name, then options that depart from it."""
    return parse_command_line(words, "video.train", RECIPES, Arguments)


def run_folder(words: list[str]) -> Path:
    """The folder of a command line's run, there or not yet.

    Raises:
        UserError: when the settings contradict each other.
    """
    arguments = parse_arguments(words)
    return _folder(replace(arguments, config=resolved(arguments.config)))


def main() -> None:
    """Command line."""
    train(parse_arguments(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
