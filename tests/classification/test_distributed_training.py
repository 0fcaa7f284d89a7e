"""Two and three processes, each with its share of every batch, against one with the whole of it."""

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from classification.data import load_data
from classification.evaluate import evaluate, make_model
from classification.image_recipes import IMAGE_RECIPES, OltrConfig
from classification.recipes import resolved
from classification.training import Training
from common.streams import Streams
from common.training.folder import load_tensors
from tests.classification import small_images
from tests.classification.synthetic import (
    cifar_training,
    first_stage_weights,
    to_the_end,
    training,
    use_small_resnet,
)
from tests.classification.trainer import assert_nothing_left_over, read_record, run_folder
from tests.ranks import on_ranks
from tests.torchrun import ended_at_last, torchrun

CPU, NOWHERE = torch.device("cpu"), Path("nowhere")
# A float32 network's rounding grows from step to step; so few and small steps are compared.
EPOCHS = 2

MNIST: dict[str, dict[str, Any]] = {
    "ce": {"method": "ce"},
    "cdb-s": {"method": "cdb-s"},
    "cdb-w-ce": {"method": "cdb-w-ce", "loss_reduction": "weight-sum"},
    "eql": {"method": "eql"},
    "logit-adjustment": {"method": "logit-adjustment", "la_tau": 1.5},
    "logit-adjustment-post-hoc": {"method": "logit-adjustment-post-hoc"},
    "mixup": {"method": "mixup"},
    "l2rw": {"method": "l2rw"},
    "sum": {"method": "cb", "loss_reduction": "sum", "learning_rate": 0.001},
}
CIFAR: dict[str, dict[str, Any]] = {
    "cifar ce": {"method": "ce"},
    "cifar cdb-s": {"method": "cdb-s"},
    "cifar cdb-w-fl": {"method": "cdb-w-fl", "hard_weight": 0.5},
    "cifar eql": {"method": "eql"},
    "cifar class-aware": {"method": "class-aware"},
    "cifar autoaugment": {"method": "ce", "augmentation": "autoaugment-cutout"},
    "cifar mixup": {"method": "mixup", "mixup_alpha": 0.5},
    "cifar tau-normalisation": {"method": "tau-normalisation"},
    "cifar ldam-drw": {"method": "ldam-drw"},
    "cifar l2rw": {"method": "l2rw"},
    "cifar meta-weight-net": {"method": "meta-weight-net"},
    "crt": {"recipe": "cifar100-lt-crt", "method": "cdb-s"},
    "lws": {"recipe": "cifar100-lt-lws", "method": "cdb-w-ce"},
}
IMAGES: dict[str, dict[str, Any]] = {
    # Two images are left for the last batch: nothing for a third rank.
    "images cdb-s": {
        "method": "cdb-s",
        "epochs": EPOCHS,
        "learning_rate": 0.01,
        "batch_size": 35,
    },
    "images mixup": {
        "method": "mixup",
        "epochs": EPOCHS,
        "learning_rate": 0.01,
        "batch_size": 35,
    },
    "images autoaugment": {
        "method": "ce",
        "augmentation": "autoaugment",
        "epochs": EPOCHS,
        "learning_rate": 0.01,
        "batch_size": 35,
    },
    "images oltr": {"method": "oltr", "epochs": EPOCHS, "milestones": (1,), "learning_rate": 0.01},
}
NAMES = [*MNIST, *CIFAR, *IMAGES]


def make_from_files(name: str, folder: Path) -> Training:
    settings = small_images.settings(**IMAGES[name])
    recipe = "image-folder-oltr" if settings["method"] == "oltr" else "image-folder"
    config = resolved(replace(IMAGE_RECIPES[recipe], **settings))
    data = load_data(config, CPU, folder)
    first = None
    if isinstance(config, OltrConfig):
        # Random weights stand for a first stage's: the same on all ranks.
        stage1 = config.stage1_config()
        first = make_model(stage1, data.num_classes, Streams(0)).state_dict()
    return Training(config, data, CPU, first)


def make(name: str, folder: Path) -> Training:
    """A run at its first step; ``folder`` holds images in files."""
    if name in IMAGES:
        return make_from_files(name, folder)
    if name in MNIST:
        return training(**({"epochs": EPOCHS, "batch_size": 16} | MNIST[name]))
    # 64 samples: a last batch of two.
    usual: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": 31,
        "learning_rate": 0.01,
        "milestones": (1,),
    }
    return cifar_training(**(usual | {"warmup_epochs": 0.5} | CIFAR[name]))


def use_small_networks(patch: pytest.MonkeyPatch) -> None:
    use_small_resnet(patch)
    for module, name, value in small_images.STAND_INS:
        patch.setattr(f"{module}.{name}", value)


def end_of(run: Training) -> dict[str, Any]:
    """Weights, history and test metrics."""
    metrics = evaluate(run.evaluated(), run.data)
    return {"weights": run.model.state_dict(), "rows": run.history.rows, "metrics": metrics}


def ends(images: Path) -> dict[str, Any]:
    """What this rank's runs come to."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        return {name: end_of(to_the_end(make(name, images))) for name in NAMES}


def before_the_group() -> None:
    """Train the second stages' first: by one process, as where there is no other."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_resnet(patch)
        first_stage_weights()  # Kept from here on.


Results = list[dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def small_networks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_images.write_images(tmp_path_factory.mktemp("one") / "images")


@pytest.fixture(scope="module")
def alone(small_networks: None, images: Path) -> dict[str, Any]:
    return {name: end_of(to_the_end(make(name, images))) for name in NAMES}


@pytest.fixture(scope="module", params=[2, 3])
def several(
    request: pytest.FixtureRequest, small_networks: None, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    folder = tmp_path_factory.mktemp("ranks")
    images = small_images.write_images(folder / "images")
    return on_ranks(request.param, folder, ends, images, before=before_the_group)


def assert_close_weights(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float, atol: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=rtol, atol=atol, msg=name)


def assert_same_end(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """To the rounding of float32; the difficulty set's accuracies, which tau follows, exactly."""
    assert_close_weights(ours["weights"], theirs["weights"], rtol=1e-3, atol=1e-4)
    assert ours["metrics"] == theirs["metrics"]
    assert ours["rows"].keys() == theirs["rows"].keys()
    for name, values in theirs["rows"].items():
        if name in ("loss", "class_weights", "hard_instances"):
            torch.testing.assert_close(ours["rows"][name], values, rtol=1e-4, atol=1e-5)
        else:
            assert ours["rows"][name] == values, name


@pytest.mark.parametrize("name", NAMES)
def test_several_processes_train_as_one(several: Results, alone: dict[str, Any], name: str) -> None:
    for result in several:
        assert_same_end(result[name], alone[name])


@pytest.mark.parametrize("name", NAMES)
def test_all_ranks_hold_the_same_bits(several: Results, name: str) -> None:
    first, *others = (result[name] for result in several)
    for other in others:
        assert first["rows"] == other["rows"]
        assert first["metrics"] == other["metrics"]
        assert_close_weights(first["weights"], other["weights"], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "left"), [("ce", 10), ("cifar ce", 2)])
def test_ranks_share_a_last_batch_unevenly_even_with_nothing_for_some(name: str, left: int) -> None:
    run = make(name, NOWHERE)
    assert len(run.method.sampler.draw()) % run.config.batch_size == left


# torchrun itself.


def test_a_command_under_torchrun_stops_at_sigterm_and_one_process_goes_on(tmp_path: Path) -> None:
    run = ("mnist-lt", "--method", "cdb-s", "--epochs", "5")
    path = run_folder(tmp_path, *run)
    begun = (*run, "--out", str(tmp_path), "--checkpoint-seconds", "0")
    with ended_at_last(torchrun("classification.train", 2, *begun)) as process:
        end = time.monotonic() + 120
        while not (path / "checkpoint.pt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped after a checkpoint; the same command goes on" in err
    assert out.count("5000 training, 1000 difficulty and 1600 test images") == 1
    state = load_tensors(path / "checkpoint.pt")["state"]["training"]
    assert 0 < state["epoch"] < 5
    with ended_at_last(torchrun("classification.train", 2, *begun)) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    record = read_record(path)
    assert record["provenance"]["starts"] == 2
    assert record["provenance"]["hardware"]["processes"] == 2
    assert record["history"]["epoch"] == [1, 2, 3, 4, 5]
    assert_nothing_left_over(path)


def test_the_processes_end_at_a_checkpoint_when_torchrun_is_killed(tmp_path: Path) -> None:
    run = ("mnist-lt", "--method", "cdb-s", "--epochs", "50")
    path = run_folder(tmp_path, *run)
    begun = (*run, "--out", str(tmp_path), "--checkpoint-seconds", "0")
    with ended_at_last(torchrun("classification.train", 2, *begun)) as process:
        end = time.monotonic() + 120
        while not (path / "checkpoint.pt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        ranks = psutil.Process(process.pid).children()
        assert len(ranks) == 2
        process.kill()
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert not alive
    assert 0 < load_tensors(path / "checkpoint.pt")["state"]["training"]["epoch"] < 50
    assert not (path / "failure.json").exists()
