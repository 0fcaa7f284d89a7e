import math
import multiprocessing
import pickle
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import cifar100, plain_cifar
from benchmarks.cifar100 import (
    cuda_jobs,
    find_data,
    images_per_second_together,
    main,
    new_training,
    random_data,
    run_seconds,
    show_cdb,
    show_epochs,
    show_shared,
    show_steps,
    show_throughput,
    show_whole_run,
    step_seconds,
)
from benchmarks.plain_cifar import PilImages, plain_loop, plain_network
from classification.data import LabelledImages, LongTailedData
from classification.models.resnet_cifar import CIFAR100_MEAN, CIFAR100_STD, make_resnet
from classification.training import Training
from common.errors import UserError
from data_prep.cifar100 import FOLDER_VARIABLE
from tests.benchmarks.stand_in import EPOCH_SECONDS, IMAGES, sleeping_run

CPU = torch.device("cpu")
# 5 batches of 8 and one of 3.
COUNTS = (23, 20)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> LongTailedData:
    """Two classes, and steps of 8 images in place of 128."""
    few = replace(cifar100.CIFAR100_LT, batch_size=8)
    monkeypatch.setattr(cifar100, "CIFAR100_LT", few)
    for module in (cifar100, plain_cifar):
        monkeypatch.setattr(module, "BATCH", 8)
    return random_data(COUNTS, 5, CPU)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def label(line: str) -> str:
    """What stands before the median."""
    return re.split(r" -?\d+\.\d\d \(", line)[0]


# ---- the plain loop


def test_a_plain_image_is_a_crop_of_the_padded_image_perhaps_mirrored() -> None:
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    dataset = PilImages(LabelledImages(images, torch.tensor([4, 0, 7])))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CIFAR100_MEAN, CIFAR100_STD))
    padded = (F.pad(images[1] / 255.0, (4,) * 4) - mean) / std
    crops = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    choices = torch.stack(crops + [crop.flip(2) for crop in crops])
    seen = set()
    for _ in range(20):
        image, label = dataset[1]
        distance = (choices - image).abs().amax(dim=(1, 2, 3))
        assert float(distance.min()) < 1e-5
        assert label == 0
        seen.add(int(distance.argmin()))
    assert len(seen) > 5


def test_the_plain_network_is_ours_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    ours = make_resnet(10, torch.Generator().manual_seed(0), mixed=False).eval()
    scaled = ours.scaling(images).contiguous()
    torch.testing.assert_close(plain_network(10).eval()(scaled), ours(images), rtol=1e-5, atol=1e-4)


def test_a_plain_loop_takes_the_steps_asked_for_and_one_before(
    data: LongTailedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    zero_grad = torch.optim.SGD.zero_grad

    def counted(self: torch.optim.SGD) -> None:
        taken.append(1)
        zero_grad(self)

    monkeypatch.setattr(torch.optim.SGD, "zero_grad", counted)
    job = plain_loop(data.train, 2, workers=0, steps=2)
    assert job() > 0
    assert len(taken) == 3


# ---- our engine


def recorded(training: Training) -> list[int]:
    """Batch sizes of the steps that ``training`` takes, which do nothing."""
    sizes: list[int] = []

    def step(inputs: dict[str, Tensor]) -> Tensor:
        sizes.append(len(inputs["index"]))
        return torch.zeros(())

    training.step = step
    return sizes


def test_steps_are_timed_over_whole_batches_of_one_epoch(data: LongTailedData) -> None:
    training = new_training(data, "ce", "float32")
    sizes = recorded(training)
    for _ in range(3):
        assert step_seconds(training, 2) > 0
    # The third pair would have reached over the smaller batch, which is finished first.
    assert sizes == [8, 8, 8, 8, 8, 3, 8, 8]
    assert training.epoch == 1


def test_a_stand_in_has_the_numbers_of_images_of_cifar100_lt() -> None:
    data = random_data(cifar100.training_sizes(100), 50, CPU)
    assert data.train.images.shape == (9754, 3, 32, 32)
    assert data.train.images.dtype == torch.uint8
    assert torch.equal(torch.bincount(data.train.labels), data.train_counts)
    assert torch.equal(torch.bincount(data.difficulty.labels), torch.full((100,), 50))


def test_without_cifar100_the_images_are_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nothing"))
    assert "digest" not in find_data(None, CPU).description


def test_a_folder_without_cifar100_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="holds no CIFAR-100"):
        find_data(tmp_path, CPU)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="holds no CIFAR-100"):
        find_data(None, CPU)


def test_options_that_cannot_be_met_are_refused(
    data: LongTailedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar100, "find_data", lambda folder, device: data)
    with pytest.raises(UserError, match="--steps 5 is more than the 4 that fit"):
        main(["--steps", "5", "--device", "cpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: no CUDA device"):
        main(["--device", "cuda"])
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])


def test_the_benchmark_runs_from_end_to_end(
    data: LongTailedData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cifar100, "find_data", lambda folder, device: data)
    monkeypatch.setattr(cifar100, "has_bfloat16", lambda: True)
    main(["--rounds", "1", "--steps", "1", "--device", "cpu"])
    said = lines(capsys)
    assert said[0].endswith("1 torch thread")
    assert said[1].startswith("random images (no CIFAR-100 found), imbalance 100, 43 images")
    labels = [label(line) for line in said[3:]]
    assert labels == [
        "DataLoader loop, float32, 0 workers",
        "DataLoader loop, float32, 2 workers",
        "ours, float32",
        "ours, float32, over the faster DataLoader loop",
        "ours, bfloat16",
        "ours, bfloat16, over the faster DataLoader loop",
        "PIL transforms alone",
        "our augmentation alone",
        "our augmentation over the PIL transforms",
        "an epoch of ce, put together from its parts",
        "a run of 200 such epochs",
        "difficulty pass in it, which every method makes",
        "once an epoch, cdb-w-ce over ce: tau, weights, draw",
        "once an epoch, cdb-s over ce: tau, weights, draw",
        "an epoch of cdb-w-ce over one of ce",
        "an epoch of cdb-s over one of ce",
        "a step of L2RW over one of ce, bfloat16",
        "a step of Meta-Weight-Net over one of ce, bfloat16",
        "a step of the second stage, cRT, over one of ce, bfloat16",
    ]
    assert "nan" not in " ".join(said)


def test_the_jobs_of_a_cuda_device_run(data: LongTailedData) -> None:
    times = {name: job() for name, job in cuda_jobs(data, 1).items()}
    assert list(times) == ["eager", "epoch ce", "epoch cdb-w-ce", "epoch cdb-s"]
    assert all(math.isfinite(t) and t > 0 for t in times.values())


# ---- a whole run, and several at once


def given(epochs: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar100, "epoch_seconds", lambda training: epochs.pop(0))


def test_a_whole_run_is_extrapolated_from_all_but_its_first_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given([10.0, 2.0, 4.0, 3.0], monkeypatch)
    assert run_seconds(sleeping_run(), measured=4, epochs=200) == 10 + 9 + 196 * 3
    given([10.0, 2.0, 4.0, 3.0], monkeypatch)
    assert run_seconds(sleeping_run(), measured=4, epochs=4) == 19


@pytest.mark.parametrize(("full", "epochs"), [(False, 5), (True, 200)])
def test_a_run_says_whether_it_was_measured_whole(
    full: bool,
    epochs: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = [0.5] * epochs
    given(left, monkeypatch)
    show_whole_run(sleeping_run, full)
    assert left == []
    how = "measured" if full else "extrapolated from 5"
    assert lines(capsys)[0].startswith(f"a run of 200 epochs, {how} 100.00 (100.00")


def test_runs_at_once_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Forked, not started anew: without a CUDA device they may be, and need not load torch again.
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)
    together = images_per_second_together(2, sleeping_run, epochs=2)
    alone = IMAGES / EPOCH_SECONDS
    # Twice one run's, less what starting them apart costs; no more.
    assert alone < together <= 2 * alone


def test_a_run_that_fails_lets_no_other_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2)
    monkeypatch.setattr(cifar100, "_barrier", barrier)

    def fails() -> Training:
        raise MemoryError

    with pytest.raises(MemoryError):
        cifar100._epochs_together(fails, epochs=1)
    assert barrier.broken


def test_of_several_runs_the_one_that_failed_by_itself_is_reported() -> None:
    waited, failed, well = Future[int](), Future[int](), Future[int]()
    waited.set_exception(threading.BrokenBarrierError())
    failed.set_exception(MemoryError())
    well.set_result(3)
    with pytest.raises(MemoryError):
        cifar100.results([well, waited, failed])
    assert cifar100.results([well, well]) == [3, 3]


def test_a_run_of_its_own_process_can_be_sent_there() -> None:
    make = partial(cifar100.shared_training, Path("folder"), "bfloat16", CPU)
    assert pickle.loads(pickle.dumps(make)).args == make.args


def test_runs_at_once_are_set_beside_the_first_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(processes: int, make: Callable[[], Training], epochs: int) -> float:
        return {1: 100.0, 4: 300.0}[processes]

    monkeypatch.setattr(cifar100, "images_per_second_together", measured)
    show_shared([1, 4], sleeping_run, epochs=1)
    assert lines(capsys)[2:] == [
        "runs at once: 4, together 300.00 (300.00 .. 300.00) img/s",
        "runs at once: 4, over 1 3.00 (3.00 .. 3.00) times",
    ]


# ---- what is printed


def test_ours_is_set_beside_the_faster_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    times = {"plain 0": [4.0], "plain 2": [2.0], "float32": [1.0], "ce": [0.5]}
    show_throughput(times, torch.device("cuda"), "bfloat16")
    said = lines(capsys)
    assert said[1].startswith("DataLoader loop, float32, 2 workers 64.00 ")
    assert "ours, float32, over the faster DataLoader loop 2.00 " in said[3]
    assert "ours, bfloat16, over the faster DataLoader loop 4.00 " in said[5]
    assert said[5].endswith("(target: at least 15)")
    del times["float32"]
    show_throughput(times, CPU, "float32")
    said = lines(capsys)
    assert len(said) == 4
    assert "ours, float32, over the faster DataLoader loop 4.00 " in said[3]
    assert said[3].endswith("(target: at least 1.3)")


PARTS = {
    "ce": [1.0], "cdb-w-ce": [1.0], "pass": [19.0],
    "once ce": [1.0], "once cdb-w-ce": [3.0], "once cdb-s": [6.0],
}  # fmt: skip


def test_an_epoch_is_its_steps_its_difficulty_pass_and_its_draw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_epochs(PARTS, steps=80)
    said = lines(capsys)
    assert said == [
        "an epoch of ce, put together from its parts 100.00 (100.00 .. 100.00) s",
        "a run of 200 such epochs 5.56 (5.56 .. 5.56) h",
        "difficulty pass in it, which every method makes 19.00 (19.00 .. 19.00) %",
        "once an epoch, cdb-w-ce over ce: tau, weights, draw 2000.00 (2000.00 .. 2000.00) ms",
        "once an epoch, cdb-s over ce: tau, weights, draw 5000.00 (5000.00 .. 5000.00) ms",
    ]


def test_the_cost_of_cdb_is_taken_from_whole_epochs_where_they_were_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_cdb(PARTS, steps=80)
    assert [line.split(" (")[0] for line in lines(capsys)] == [
        "an epoch of cdb-w-ce over one of ce 2.00",
        "an epoch of cdb-s over one of ce 5.00",
    ]
    whole = {"epoch ce": [2.0], "epoch cdb-w-ce": [2.5], "epoch cdb-s": [2.0]}
    show_cdb(PARTS | whole, steps=80)
    said = lines(capsys)
    assert said[0].startswith("an epoch of cdb-w-ce over one of ce 25.00")
    assert said[1].startswith("an epoch of cdb-s over one of ce 0.00")
    assert said[0].endswith("(target: at most 3)")


def test_steps_are_set_beside_one_of_cross_entropy(capsys: pytest.CaptureFixture[str]) -> None:
    times = {"ce": [2.0], "l2rw": [8.0], "meta-weight-net": [10.0], "crt": [0.5], "eager": [6.0]}
    show_steps(times, "bfloat16")
    medians = [line.removeprefix(label(line)).split()[0] for line in lines(capsys)]
    assert medians == ["4.00", "5.00", "0.25", "3.00"]
