"""Tiny runs: a set under the names of LVIS's files, its images of 40 x 56 pixels, two epochs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.streams import Streams
from common.training.signals import StopRequest
from data_prep.lvis import DIFFICULTY_FILE, REST_FILE, VAL_FILE
from detection.methods import METHODS
from detection.networks import Weights, make_model
from detection.recipes import RECIPES, ClassifierConfig, DetectionConfig, resolved
from detection.sets import DetectionSets, load_sets
from detection.training import Training
from tests.detection.synthetic import entries, write_entries, write_set

C = 5
TRAIN, DIFFICULTY, VAL = 8, 3, 3
"""Images; the first training image has no annotation, the last category no instance."""
EPOCHS, BATCH = 2, 2
STEPS = TRAIN // BATCH
CHANGES: dict[str, Any] = {
    "backbone": "small", "start": "random", "min_size": (40,), "max_size": 64, "epochs": EPOCHS,
    "batch_size": BATCH, "learning_rate": 0.04, "warmup_steps": 3, "milestones": (1,),
}  # fmt: skip
"""What a tiny run changes of a recipe of LVIS."""
OF_METHOD: dict[str, dict[str, Any]] = {
    "rfs": {"rfs_threshold": 0.5},
    "eql": {"eql_threshold": 0.3},
}
FIRST = ("ce", "rfs", "eql", "cdb-s", "cdb-w-ce")
SECOND = ("focal", "lrw", "bags", "cdb-w-ce", "simcal", "calib")
GROUP = "lvis-v0.5"


def write_lvis(folder: Path) -> Path:
    """Write the tiny set: what ``data_prep.lvis split`` leaves, and the images below ``folder``."""
    write_set(folder)
    whole = entries("train")
    ids = [image["id"] for image in whole["images"]]
    difficulty = ids[TRAIN : TRAIN + DIFFICULTY]
    for name, part in ((REST_FILE, ids[:TRAIN]), (DIFFICULTY_FILE, difficulty)):
        write_entries(only(whole, set(part)), folder / name)
    val = entries("val")
    of_val = {image["id"] for image in val["images"][:VAL]}
    write_entries(only(val, of_val), folder / VAL_FILE)
    return folder


def only(said: dict[str, Any], ids: set[int]) -> dict[str, Any]:
    """The annotation file of some of the images."""
    of_ids = {"images": "id", "annotations": "image_id"}
    return said | {
        key: [entry for entry in said[key] if entry[name] in ids] for key, name in of_ids.items()
    }


def changes_of(method: str, second: bool = False, **changes: Any) -> dict[str, Any]:
    """What the tiny run of a method changes of its recipe."""
    own = CHANGES | OF_METHOD.get(method, {}) | ({"stage1_epochs": EPOCHS} if second else {})
    if method in ("simcal", "calib"):
        del own["batch_size"]
    return own | changes


def config_of(method: str, *, second: bool = False, **changes: Any) -> Any:
    """The tiny run of a method, resolved."""
    recipe = RECIPES["lvis-clc" if second else "lvis"]
    changed: dict[str, Any] = {"method": method} | changes_of(method, second, **changes)
    return resolved(replace(recipe, **changed))


def options(
    method: str = "ce", *more: str, second: bool = False, **changes: Any
) -> tuple[str, ...]:
    """The command line of the tiny run of a method."""
    words = ["lvis-clc" if second else "lvis", "--method", method]
    for name, value in changes_of(method, second, **changes).items():
        words.append("--" + name.replace("_", "-"))
        words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return (*words, *more)


def first_weights(config: ClassifierConfig, sets: DetectionSets) -> Weights:
    """Those of a first stage that has not been trained."""
    first = config.stage1_config()
    model = make_model(first, METHODS[first.method](first, sets, Streams(first.seed)))
    weights: Weights = model.state_dict()
    return weights


def training_of(
    config: DetectionConfig, sets: DetectionSets, workers: int = 0, first: Weights | None = None
) -> Training:
    """A run at its first step, as ``detection.train`` begins it."""
    method = METHODS[config.method](config, sets, Streams(config.seed))
    if isinstance(config, ClassifierConfig) and first is None:
        first = first_weights(config, sets)
    model = make_model(config, method, first_stage=first)
    return Training(config, method, model, workers)


def make_training(
    folder: Path, method: str = "ce", *, second: bool = False, workers: int = 0, **changes: Any
) -> Training:
    """The tiny run of a method at its first step."""
    config = config_of(method, second=second, **changes)
    return training_of(config, load_sets(config, folder, folder), workers)


def epochs_of(run: Training) -> Iterator[int]:
    """Train to the end; gives the number of each epoch, from 1, when it is complete."""
    while run.epoch < run.config.epochs:
        assert run.run_epoch(StopRequest())
        run.end_epoch()
        yield run.epoch


def to_the_end(run: Training) -> Training:
    """Train all epochs."""
    assert list(epochs_of(run))
    return run
