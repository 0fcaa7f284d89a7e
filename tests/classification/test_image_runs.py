"""Runs on a folder of images: from files to records, and what decides their numbers."""

import signal
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from classification import evaluate
from classification.data import load_data
from classification.image_recipes import (
    IMAGE_FOLDER,
    IMAGE_RECIPES,
    IMAGENET_LT,
    ImageConfig,
    ImageMethod,
    ImageStage,
    OltrConfig,
)
from classification.methods.oltr import class_means
from classification.models import OltrModel
from classification.reading import Reading
from classification.recipes import RECIPES, resolved, run_name
from classification.training import Training
from common.errors import UserError
from common.training.record import courses
from tests.classification import small_images
from tests.classification.small_images import CLASSES, COUNTS, settings, small_run, write_images
from tests.classification.synthetic import same_weights, to_the_end
from tests.classification.trainer import (
    Trainer,
    assert_nothing_left_over,
    assert_same_run,
    read_record,
    run_folder,
)
from tests.settings import used_by

METHODS = get_args(ImageMethod)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def small_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in small_images.STAND_INS:
            patch.setattr(f"{module}.{name}", value)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "set")


def config_of(method: str, **changes: Any) -> ImageStage:
    recipe = IMAGE_RECIPES["image-folder-oltr" if method == "oltr" else "image-folder"]
    config = resolved(replace(recipe, **settings(method, **changes)))
    assert isinstance(config, ImageStage)
    return config


def make_training(
    images: Path, method: str, reading: Reading | None = None, **changes: Any
) -> Training:
    """A run at its first step; a second stage's first is trained before."""
    config = config_of(method, **changes)
    data = load_data(config, CPU, images, reading or Reading())
    stage1 = config.stage1_config()
    if stage1 is None:
        return Training(config, data, CPU)
    first = to_the_end(Training(stage1, data, CPU))
    return Training(config, data, CPU, first.model.state_dict())


def trained(images: Path, method: str = "ce", **changes: Any) -> Training:
    return to_the_end(make_training(images, method, **changes))


# Records.


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_to_its_record(trainer: Trainer, images: Path, method: str) -> None:
    run = small_run(method, "--data", str(images))
    path = trainer.reference(*run)
    record = read_record(path)
    assert (record["run"], record["method"]) == (path.name, method)
    assert (record["dataset"], record["group"]) == ("image-folder", "image-folder")
    assert record["condition"] == "lists"
    assert record["variant"] == ("tau=sigmoid" if method.startswith("cdb") else "")
    assert {part: tuple(record["split"][part]) for part in COUNTS} == COUNTS
    assert record["split"]["imbalance"] == 14
    assert ("class_weights" in courses(record)) == method.startswith("cdb")
    assert ("hard_instances" in record["history"]) == (method in ("focal", "cdb-w-fl"))
    assert_nothing_left_over(path)


def test_runs_learn_the_classes_colours(images: Path) -> None:
    run = trained(images, epochs=12, colour_jitter=0.0)
    assert run.history.best["accuracy"] > 2.5 / CLASSES


def test_oltr_goes_on_from_the_last_epoch_of_its_first_stage(
    trainer: Trainer, images: Path
) -> None:
    path = trainer.reference(*small_run("oltr", "--data", str(images)))
    (first,) = (path.parents[1] / "image-folder-stage1").iterdir()
    record = read_record(first)
    assert record["method"] == "ce"
    assert record["config"]["epochs"] == 2
    assert record["config"]["milestones"] == [1]
    config = config_of("oltr").with_lists(images)
    stage1 = config.stage1_config()
    assert stage1 is not None
    assert run_name(stage1) == first.name


def test_oltrs_memory_starts_with_the_class_means_of_the_training_images(images: Path) -> None:
    run = make_training(images, "oltr")
    assert isinstance(run.model, OltrModel)
    assert run.model.centroids.isnan().all()
    expected = class_means(run.model, run.data.train.evaluation_batches())
    run._begin_epoch()
    assert torch.equal(run.model.centroids.detach(), expected)


def test_oltr_trains_each_group_at_its_share_of_the_rate(images: Path) -> None:
    run = make_training(images, "oltr")
    run.set_rate(run.rate_at(1 / 4))
    rates = [float(group["lr"]) for group in run.optimizer.param_groups]
    assert rates == pytest.approx([0.005, 0.05, 0.005])
    run.load_state_dict(run.state_dict())
    run.epoch = 2
    run.set_rate(run.rate_at(1 / 4))
    rates = [float(group["lr"]) for group in run.optimizer.param_groups]
    assert rates == pytest.approx([0.0005, 0.005, 0.0005])


def test_oltr_takes_four_samples_of_a_class_in_a_row(images: Path) -> None:
    run = make_training(images, "oltr")
    labels = run.data.train.labels[run.method.sampler.draw()]
    for four in labels[:36].split(4):
        assert four.unique().numel() == 1


# Files, workers, cache.


def test_the_cache_and_workers_change_no_number(images: Path, tmp_path: Path) -> None:
    plain = trained(images, "cdb-s")
    for reading in (Reading(workers=2), Reading(tmp_path, 0), Reading(tmp_path, 2)):
        other = to_the_end(make_training(images, "cdb-s", reading))
        assert same_weights(other, plain)
        assert other.history.rows == plain.history.rows
    assert {path.name for path in tmp_path.iterdir()} == {"train", "difficulty", "test"}


@pytest.mark.parametrize("method", ["cdb-s", "oltr"])
def test_killed_within_an_epoch_the_run_ends_as_the_undisturbed_one(
    trainer: Trainer, images: Path, tmp_path: Path, method: str
) -> None:
    run = small_run(method, "--data", str(images))
    path = run_folder(tmp_path, *run)
    # In an OLTR run the 10th step is of the second stage.
    for what, step in (("kill", 7), ("terminate", 6)):
        ended = trainer.run(
            tmp_path, *run, "--checkpoint-seconds", "0", "--workers", "1", at=("step", step),
            what=what,
        )  # fmt: skip
        assert ended.code in (-signal.SIGKILL, 128 + signal.SIGTERM), ended
    assert trainer.run(tmp_path, *run).code == 0
    assert_same_run(path, trainer.reference(*run))
    assert_nothing_left_over(path)


# Options.

CHANGES: dict[str, Any] = {
    "flip": 0.0, "colour_jitter": 0.0, "crop": 64, "stored_side": 44, "batch_size": 8,
    "learning_rate": 0.04, "milestones": (1,), "momentum": 0.5, "weight_decay": 0.01,
    "epochs": 2, "seed": 1, "precision": "bfloat16", "optimizer": "adamw",
    "augmentation": "autoaugment",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_weights(images: Path, name: str) -> None:
    usual = trained(images, "ce")
    assert not same_weights(trained(images, "ce", **{name: CHANGES[name]}), usual)


def test_lr_decay_and_oltrs_own_options_change_the_weights(images: Path) -> None:
    usual = trained(images, "ce", milestones=(1,))
    assert not same_weights(trained(images, "ce", milestones=(1,), lr_decay=0.5), usual)
    oltr = trained(images, "oltr")
    for changes in ({"samples_per_class": 1}, {"stage1_epochs": 1}):
        assert not same_weights(trained(images, "oltr", **changes), oltr)


def test_no_option_is_left_out_of_these_tests() -> None:
    own = {f.name for f in fields(ImageConfig)} | {f.name for f in fields(OltrConfig)}
    of_methods = set(used_by(ImageConfig))
    elsewhere = {
        "dataset", "recipe", "method", "lr_decay", "samples_per_class", "stage1_epochs",
        "loss_reduction", "network", "lists", "start", "trained", "patience",
    }  # fmt: skip
    assert own - of_methods - elsewhere == set(CHANGES)


def test_the_rate_follows_half_a_cosine_to_zero_or_falls_in_steps() -> None:
    rates = [IMAGENET_LT.learning_rate_at(epoch, 1.0) for epoch in (0, 24, 49, 74, 99)]
    assert rates == pytest.approx([0.19995, 0.170711, 0.1, 0.029289, 0.0], abs=1e-5)
    steps = replace(IMAGENET_LT, milestones=(30, 60))
    assert [steps.learning_rate_at(e, 0.5) for e in (0, 29, 30, 60)] == pytest.approx(
        [0.2, 0.2, 0.02, 0.002]
    )


def test_the_recipe_is_the_papers() -> None:
    """Sec. 4.1.2, and Liu et al.'s code for OLTR."""
    c = IMAGENET_LT
    assert (c.network, c.epochs, c.batch_size, c.learning_rate) == ("resnet10", 100, 512, 0.2)
    assert (c.momentum, c.weight_decay, c.milestones) == (0.9, 0.0005, ())
    assert (c.eql_gamma, c.eql_threshold) == (0.9, 4.3e-4)
    assert c.condition == "256"
    oltr = RECIPES["imagenet-lt-oltr"]
    assert (oltr.epochs, oltr.batch_size, oltr.learning_rate) == (60, 128, 0.1)
    stage1 = oltr.stage1_config()
    assert isinstance(stage1, ImageConfig)
    assert (stage1.epochs, stage1.batch_size, stage1.milestones) == (30, 128, (10, 20))
    assert stage1.recipe == "imagenet-lt"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "oltr"}, "--method oltr is not one of ce, focal"),
        ({"milestones": (5, 3)}, "--milestones must be .* in growing order"),
        ({"crop": 7}, "--crop must be at least 8"),
        ({"stored_side": 1}, "--stored-side must be at least 2"),
        ({"flip": 1.5}, "--flip must be at most 1"),
        ({"colour_jitter": -0.1}, "--colour-jitter must be at least 0"),
        ({"lr_decay": 0.5}, "--lr-decay 0.5 has no effect without --milestones; leave it out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(IMAGE_FOLDER, **changes)


def test_settings_without_effect_are_refused() -> None:
    with pytest.raises(UserError, match="--lists ab has no effect on imagenet-lt"):
        replace(IMAGENET_LT, lists="ab")
    oltr = IMAGE_RECIPES["image-folder-oltr"]
    with pytest.raises(UserError, match="--loss-reduction sum has no effect on --method oltr"):
        replace(oltr, loss_reduction="sum")


# What a user can get wrong.


def test_one_image_alone_in_a_batch_is_refused_where_it_has_no_statistics(images: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 9 leaves one of the 37 training images"):
        make_training(images, "ce", batch_size=9)
    with pytest.raises(UserError, match=r"--batch-size 1 is too few .* or a larger --crop"):
        make_training(images, "ce", batch_size=1)
    for size in (1, 9):
        make_training(images, "ce", batch_size=size, crop=33)


def test_a_threshold_of_eql_that_suits_the_folder_is_named(images: Path) -> None:
    with pytest.raises(UserError) as refused:
        make_training(images, "eql", eql_threshold=0.00043)
    # 14, 10, 6, 4, 2 and 1 of 37 images.
    said = "give one above 0.027 and below 0.378, for example 0.101."
    assert str(refused.value).endswith(said)
    make_training(images, "eql", eql_threshold=0.101)


def test_an_evaluation_refuses_lists_that_the_run_was_not_trained_on(
    trainer: Trainer, tmp_path: Path
) -> None:
    own = write_images(tmp_path / "own")
    run = trainer.reference(*small_run("ce", "--data", str(own), "--seed", "5"))
    lines = (own / "test.txt").read_text().splitlines(keepends=True)
    (own / "test.txt").write_text("".join(lines[1:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evaluate", str(run), "--data", str(own)])
        with pytest.raises(UserError, match=r"--lists \w+: the lists in .*own are others"):
            evaluate.main()


def assert_refused(trainer: Trainer, out: Path, words: tuple[str, ...], *run: str) -> None:
    ended = trainer.run(out, *run)
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    message = ended.err.splitlines()[-1]
    for word in words:
        assert word in message


def test_other_lists_are_another_run(trainer: Trainer, images: Path, tmp_path: Path) -> None:
    run = small_run("ce", "--data", str(images))
    other = write_images(tmp_path / "other")
    lines = (other / "train.txt").read_text().splitlines(keepends=True)
    (other / "train.txt").write_text("".join(lines[::-1]))
    moved = write_images(tmp_path / "moved")
    folder = run_folder(tmp_path, *run)
    assert run_folder(tmp_path, *small_run("ce", "--data", str(moved))) == folder
    assert run_folder(tmp_path, *small_run("ce", "--data", str(other))) != folder
    digest = read_record(trainer.reference(*run))["config"]["lists"]
    assert f"lists-{digest}" in folder.name
    words = (f"--lists {digest}", "are others")
    again = small_run("ce", "--data", str(other), "--lists", digest)
    assert_refused(trainer, tmp_path, words, *again)


def copied(images: Path, folder: Path) -> Path:
    return write_images(folder / "copy")


def test_a_missing_image_is_named_before_training(
    trainer: Trainer, images: Path, tmp_path: Path
) -> None:
    broken = copied(images, tmp_path)
    (broken / "train/0 0.png").unlink()
    words = ("1 of 67 images are missing, such as train/0 0.png",)
    assert_refused(trainer, tmp_path, words, *small_run("ce", "--data", str(broken)))


@pytest.mark.parametrize("cache", [(), ("--cache", "kept")])
def test_an_unreadable_image_stops_the_run_which_goes_on_when_it_is_back(
    trainer: Trainer, images: Path, tmp_path: Path, cache: tuple[str, ...]
) -> None:
    broken = copied(images, tmp_path)
    path = broken / "train/0 1.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    options = [str(tmp_path / word) if word == "kept" else word for word in cache]
    run = small_run("ce", "--data", str(broken), "--workers", "1")
    assert_refused(trainer, tmp_path, (str(path), "cannot be read"), *run, *options)
    path.write_bytes(content)
    assert trainer.run(tmp_path, *run, *options).code == 0
    same = trainer.reference(*small_run("ce", "--data", str(images)))
    assert_same_run(run_folder(tmp_path, *run), same)


def test_an_image_that_changed_since_the_cache_was_made_is_read_anew(
    images: Path, tmp_path: Path
) -> None:
    folder = copied(images, tmp_path)
    kept = Reading(tmp_path / "cache", 0)
    before = to_the_end(make_training(folder, "ce", kept))
    pixels = np.zeros((30, 30, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "train/0 0.png")
    cached, plain = (to_the_end(make_training(folder, "ce", reading)) for reading in (kept, None))
    assert same_weights(cached, plain)
    assert not same_weights(cached, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "-1"), ("--workers must be at least 0, not -1",)),
        (("--data", "nowhere"), ("nowhere is missing", "CDB_IMAGE_FOLDER")),
    ],
)
def test_wrong_options_are_refused(
    trainer: Trainer, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_refused(trainer, tmp_path, words, *small_run("ce"), *options)


@pytest.mark.parametrize("options", [("--cache", "x"), ("--workers", "1"), ("--weights", "x")])
def test_reading_options_are_refused_where_nothing_is_read_from_files(
    trainer: Trainer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    words = (f"{' '.join(options)} has no effect on mnist-lt",)
    assert_refused(trainer, tmp_path, words, "mnist-lt", "--epochs", "1", *options)


def test_autoaugment_moves_in_the_colour_that_images_are_normalised_by(images: Path) -> None:
    run = make_training(images, "ce", augmentation="autoaugment")
    augmentation = run.data.train.augmentation  # type: ignore[union-attr]
    assert augmentation.policy is not None
    assert augmentation.policy._fill.tolist() == [round(255 * mean) for mean in augmentation.mean]
    assert run._begin_epoch()["changes"].shape == (37, 28)


def first_images(run: Training) -> Tensor:
    images, _ = next(iter(run.data.difficulty.evaluation_batches()))
    return images


def test_evaluation_sees_the_middle_whatever_the_augmentation(images: Path) -> None:
    usual, other = (make_training(images, "ce", flip=flip, colour_jitter=0.4 * flip)
                    for flip in (0.0, 1.0))  # fmt: skip
    assert torch.equal(first_images(usual), first_images(other))
