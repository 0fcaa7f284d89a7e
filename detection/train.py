"""Train one run: python -m detection.train digit-scenes --method cdb-w-ce --seed 0.

On several GPUs: torchrun --nproc-per-node 4 -m -- detection.train lvis --method cdb-w-ce --seed 0.
A run that has finished is skipped; one that was interrupted goes on where it was.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

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
from common.training.methods import make_balancer
from common.training.process_group import process_group
from common.training.settings import as_today, plain
from detection.engine import Training
from detection.evaluate import describe, measure_ap, metrics_of, read_weights
from detection.networks import Weights, make_model
from detection.pictures import write_pictures
from detection.recipes import (
    RECIPES,
    DetectionConfig,
    group_name,
    resolved,
    run_name,
)
from detection.record import TASK
from detection.sets import CONDITIONS, DetectionSets, load_sets

as_written_today = partial(as_today, recipes=RECIPES)
"""The settings of a run's folder, perhaps of an older version, as they would be written today."""


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """A run, and where and how it is carried out."""

    config: tyro.conf.OmitArgPrefixes[DetectionConfig]
    images: Path | None = None
    """Folder of COCO's images; None: its usual place, see data_prep/README.md."""
    weights: Path | None = None
    """File of the published weights that --start coco or imagenet begins with."""
    workers: int = 0
    """Processes, for each that trains, which read images ahead; 0: none."""


def _say(words: str) -> None:
    """One line, from one process."""
    if is_first_rank():
        print(printable(words), flush=True)


def _folder(arguments: Arguments) -> Path:
    config = arguments.config
    return arguments.out / (arguments.group or group_name(config)) / run_name(config)


def _published(arguments: Arguments) -> Path | None:
    """The file that a first stage starts from.

    Raises:
        UserError: when it is needed and not named, or named and of no use.
    """
    config = arguments.config
    if config.start == "random" and arguments.weights is not None:
        raise UserError("--weights has no effect on --start random; leave one of them out.")
    if config.start != "random" and arguments.weights is None:
        raise UserError(
            f"--start {config.start} needs --weights, the file of the published weights (see "
            "detection/README.md); or use --start random."
        )
    return arguments.weights


def _first_stage(arguments: Arguments, device: torch.device) -> Weights | None:
    """The last weights of a second stage's first stage, trained now if need be.

    Raises:
        UserError: as :func:`train`, or when its weights are gone or damaged.
    """
    stage1 = arguments.config.stage1_config()
    if stage1 is None:
        return None
    first = replace(arguments, config=stage1)
    folder = _folder(first)
    _train(first, device)
    barrier()  # The first rank draws the picture before it writes the weights.
    _say(f"first stage: {folder}")
    if not (folder / "weights.pt").exists():
        raise UserError(
            f"{folder / 'weights.pt'} is missing, though its run has finished; move that folder "
            "elsewhere and start the same command again: the first stage is then trained anew."
        )
    return read_weights(folder)


def _begin(arguments: Arguments, sets: DetectionSets, device: torch.device) -> Training:
    """The run at its first step.

    Raises:
        UserError: when the data, published weights or a setting does not allow it.
    """
    config, streams = arguments.config, Streams(arguments.config.seed)
    first_stage = _first_stage(arguments, device)
    published = None if first_stage is not None else _published(arguments)
    try:
        balancer = make_balancer(config, sets.num_classes, device)
        model = make_model(
            config,
            sets,
            streams,
            reduce=balancer and partial(balancer.weighted_mean, background_weight=1.0),
            published=published,
            first_stage=first_stage,
        ).to(device)
        return Training(config, sets, model, streams, balancer, arguments.workers)
    except ValueError as error:
        raise UserError(f"{config.dataset} cannot be trained on as it is: {error}.") from error


def _describe(sets: DetectionSets) -> str:
    said = sets.description
    letters = said["frequency"]
    groups = "/".join(str(letters.count(letter)) for letter in "rcf")
    return "\n".join([
        f"{len(sets.train)} training, {len(sets.difficulty)} difficulty and {len(sets.val)} val "
        f"images of {sets.num_classes} categories, rare/common/frequent {groups}",
        *said["notes"],
    ])  # fmt: skip


def _trained(arguments: Arguments, folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """The record of a run that has not finished; it is written with the weights."""
    config = arguments.config
    sets = load_sets(config, arguments.data, arguments.images)
    _say(f"{config.dataset}: {_describe(sets)}")
    training = _begin(arguments, sets, device)
    clock = Clock(environment(device, packages=("torchvision",)))
    go_on(training, folder, clock)
    fit(training, folder, clock, arguments.checkpoint_seconds)
    training.say_cost(clock.seconds())
    masks = config.task == "mask"
    results = measure_ap(training.model, sets.val, masks=masks, workers=arguments.workers)
    metrics = metrics_of(results)
    record = record_of(
        TASK,
        config,
        run=run_name(config),
        group=arguments.group or group_name(config),
        condition=CONDITIONS[config.task],
        split=sets.description,
        metrics={"last": {"epoch": training.epoch, **metrics}},
        history=training.history.rows,
    )
    record["provenance"] = clock.provenance()
    if is_first_rank():
        write_pictures(training.model, sets.val, folder.path / "pictures.png")
    folder.finish({"last": training.model.state_dict()}, record)
    _say(f"{describe(metrics)}  {folder.record_path}")
    return record


def _train(arguments: Arguments, device: torch.device) -> tuple[dict[str, Any], bool]:
    """The record, and whether it was there already."""
    config = arguments.config
    with RunFolder(_folder(arguments), plain(config), as_written_today) as folder:
        record = folder.finished_record()
        if record is not None:
            return record, True
        advise_on_precision(config, device)
        return _trained(arguments, folder, device), False


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
    device = choose_device(arguments.device)
    with process_group(device):
        record, already = _train(arguments, device)
        if already:
            _say(f"finished already: {_folder(arguments) / 'record.json'}")
        return record


def parse_arguments(words: list[str]) -> Arguments:
    """Arguments from a command line: a recipe's name, then options that depart from it."""
    return parse_command_line(words, "detection.train", RECIPES, Arguments)


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
