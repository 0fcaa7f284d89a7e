"""Every published record is whole, in its place, named by its configuration, and repeatable."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classification.evaluate
import classification.record
import detection.evaluate
import detection.recipes
import detection.record
import video.recipes
import video.record
from classification import recipes as classification_recipes
from classification.data import load_data
from classification.training import Training
from common.training.record import config_differences, read_record
from common.training.settings import RunConfig, as_today, plain, read_config
from common.training.signals import StopRequest
from data_prep import digit_images, digit_scenes, image_example, motion_digits, photo_crops
from data_prep.cifar100 import CLASS_NAMES, Cifar100
from data_prep.digit_plan import Scene
from data_prep.digit_plan import Settings as SceneSettings
from detection.sets import CONDITIONS, load_sets
from video.data import CONDITION
from video.data import load_data as load_verbs

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted((ROOT / "results").rglob("*.json"))
OWN = "image-folder"
CPU = torch.device("cpu")


@pytest.fixture(
    scope="module", params=PUBLISHED, ids=lambda path: str(path.relative_to(ROOT / "results"))
)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture(scope="module")
def record(path: Path) -> dict[str, Any]:
    """Reading checks the schema."""
    return read_record(path)


@dataclass(frozen=True)
class Task:
    """What a task says of a configuration that a record holds."""

    read: Callable[[dict[str, Any]], Any]
    resolved: Callable[[Any], RunConfig]
    run_name: Callable[[Any], str]
    group: Callable[[Any], str]
    condition: Callable[[Any], str]


TASKS = {
    classification.record.TASK: Task(
        classification.evaluate.config_from,
        classification_recipes.resolved,
        classification_recipes.run_name,
        classification_recipes.group_name,
        lambda config: str(config.condition),
    ),
    detection.record.TASK: Task(
        detection.evaluate.config_from,
        detection.recipes.resolved,
        detection.recipes.run_name,
        detection.recipes.group_name,
        lambda config: CONDITIONS[config.task],
    ),
    video.record.TASK: Task(
        partial(read_config, recipes=video.recipes.RECIPES),
        video.recipes.resolved,
        video.recipes.run_name,
        lambda config: str(config.dataset),
        lambda config: CONDITION,
    ),
}


# The splits, of data sets that are not there: from what they are drawn from.


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The rendered sets, planned as they are published; the files of pictures are empty."""
    folder = tmp_path_factory.mktemp("planned")
    names = ("digit-images", "digit-scenes", "motion-digits")
    found = {name: folder / name for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_example, "_content", lambda image, digits: b"")
        digit_images.render(found["digit-images"])
        patch.setattr(digit_scenes, "_render_file", _plan_scene)
        digit_scenes.render_set(found["digit-scenes"], SceneSettings(), workers=1)
        patch.setattr(motion_digits, "_render_file", _plan_clip)
        motion_digits.render_set(found["motion-digits"], motion_digits.Settings(), workers=1)
        if photo_crops.PHOTOGRAPHS_VARIABLE in os.environ:
            found[OWN] = folder / "photo-crops"
            patch.setattr(photo_crops, "write_crops", _name_crops)
            photo_crops.prepare(found[OWN])
        patch.setattr("classification.data.load_cifar100", lambda _: cifar100_in_one_colour())
        yield found


def _name_crops(crops: Sequence[photo_crops.Crop], out: Path) -> None:
    for crop in crops:
        (out / crop.category).mkdir(parents=True, exist_ok=True)
        (out / crop.category / crop.name).touch()


def _plan_scene(scene: Scene, folder: Path, seed: int, digits: object) -> dict[str, Any]:
    """Its annotations, as if each digit showed one pixel."""
    (folder / scene.file).touch()
    top = np.full((digit_scenes.HEIGHT, digit_scenes.WIDTH), digit_scenes.GROUND, np.int64)
    top[0, : len(scene.instances)] = range(len(scene.instances))
    nothing = np.zeros((*top.shape, 3), np.uint8)
    return digit_scenes.annotate(scene, digit_scenes.Picture(nothing, top), seed)


def _plan_clip(clip: motion_digits.Clip, folder: Path, seed: int, digits: object) -> None:
    (folder / clip.file).touch()


def cifar100_in_one_colour() -> Cifar100:
    """In the order that it is read in, by class: a split is drawn by labels alone."""
    train, test = (torch.arange(100).repeat_interleave(number) for number in (500, 100))
    pixel = torch.zeros((), dtype=torch.uint8)
    return Cifar100(
        pixel.expand(50_000, 3, 1, 1), train, pixel.expand(10_000, 3, 1, 1), test, CLASS_NAMES
    )


SPLIT_SETTINGS = ("imbalance", "head_size", "split_seed", "lists")


@dataclass
class Splits:
    """What records are to say of their splits, each drawn once."""

    folders: dict[str, Path]
    drawn: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def of(self, task: str, config: Any) -> dict[str, Any]:
        """The record's ``split``."""
        drawn_from = [getattr(config, name, None) for name in SPLIT_SETTINGS]
        key = (config.dataset, *drawn_from)
        if key not in self.drawn:
            folder = self.folders.get(config.dataset)
            own = folder and folder / f"split-{config.seed}"
            self.drawn[key] = self._draw(task, config, own if config.dataset == OWN else folder)
        return self.drawn[key]

    def _draw(self, task: str, config: Any, folder: Path | None) -> dict[str, Any]:
        match task:
            case "detection":
                return load_sets(config, folder).description
            case "video":
                return load_verbs(config, folder).description
            case _:
                return load_data(config, CPU, folder).description


@pytest.fixture(scope="module")
def splits(folders: dict[str, Path]) -> Splits:
    return Splits(folders)


# What every record is.


def test_there_are_published_records_of_every_task() -> None:
    assert {json.loads(path.read_bytes())["task"] for path in PUBLISHED} == TASKS.keys()


def test_record_lies_in_its_group_under_its_run_name(path: Path, record: dict[str, Any]) -> None:
    assert path.relative_to(ROOT / "results").parts == (record["group"], f"{record['run']}.json")


def test_run_name_is_the_one_its_configuration_gives(record: dict[str, Any]) -> None:
    task = TASKS[record["task"]]
    assert record["run"] == task.run_name(task.read(record["config"]))


def test_configuration_is_whole_and_says_what_the_record_says(record: dict[str, Any]) -> None:
    """The same command today has this very configuration, and so repeats the run."""
    task = TASKS[record["task"]]
    config = task.read(record["config"])
    settings = plain(config)
    assert task.resolved(config) == config
    # It names what counts for the run, the record perhaps more.
    assert settings.items() <= record["config"].items()
    assert task.read(settings) == config
    assert as_today(record["config"], config.recipes) == settings
    assert not config_differences(record["config"], settings)
    said = (config.dataset, config.table_method, config.variant, config.seed)
    assert said == tuple(record[name] for name in ("dataset", "method", "variant", "seed"))
    assert record["condition"] == task.condition(config)
    group = task.group(config)
    assert record["group"] in {
        group, f"{group}-readings", f"{group}-recipe", f"{group}-printed", f"{group}-one-frame",
        f"{group}-head-500", f"{group}-steadiers",
        *(["photo-crops"] if group == OWN else []),
    }  # fmt: skip


def test_split_is_the_one_its_configuration_draws_today(
    record: dict[str, Any], splits: Splits
) -> None:
    config = TASKS[record["task"]].read(record["config"])
    if config.dataset == OWN and OWN not in splits.folders:
        # Without the photographs: the lists that the record describes are those that it names.
        assert record["split"]["digest"].startswith(config.lists)
    else:
        assert splits.of(record["task"], config) == record["split"]


@pytest.mark.parametrize("run", ["ce", "eql", "l2rw", "cdb-s_tau-sigmoid"])
def test_first_epoch_of_a_published_mnist_run_comes_out_again(run: str) -> None:
    """To the bit on the machine that made the record; another one may round otherwise."""
    path = ROOT / "results" / "mnist-lt" / f"{run}_imbalance-99_seed-0.json"
    record = read_record(path)
    config = classification.evaluate.config_from(record["config"])
    data = load_data(config, CPU)
    training = Training(config, data, CPU)
    training.run_epoch(StopRequest())
    training.end_epoch()
    (loss,) = training.history.rows["loss"]
    assert loss == pytest.approx(record["history"]["loss"][0], rel=0.02)
    (accuracy,) = training.history.rows["class_accuracy"]
    assert accuracy == pytest.approx(record["history"]["class_accuracy"][0], abs=0.02)
