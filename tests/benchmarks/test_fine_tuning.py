import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from analysis.measured import read_measured
from benchmarks import fine_tuning, plain_images, timing
from benchmarks.fine_tuning import CLASSES, main, make_jobs, our_training, render_folder, report
from benchmarks.plain_images import Recipe, plain_epochs, plain_loader
from classification.image_augment import DEVIATION, MEAN
from data_prep.image_folder import load_image_folder

CPU = torch.device("cpu")
RECIPE = Recipe("squeezenet1_1", crop=32, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_folder(tmp_path_factory.mktemp("rendered") / "images", 9, 60, 45)


def test_every_class_trains_on_as_many_images_and_holds_two_out(folder: Path) -> None:
    split = load_image_folder(folder)
    # 9 by 4 classes, rounded up.
    assert split.train_counts == (3,) * CLASSES
    assert split.difficulty_counts == split.test_counts == (1,) * CLASSES


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_of_the_plain_loop_has_the_training_images_once(
    folder: Path, workers: int
) -> None:
    split = load_image_folder(folder)
    batches = list(plain_loader(split, RECIPE, workers))
    labels = torch.cat([labels for _, labels in batches])
    assert [len(images) for images, _ in batches] == [4, 4, 4]
    assert labels.bincount().tolist() == list(split.train_counts)
    images = torch.cat([images for images, _ in batches])
    assert images.shape == (12, 3, 32, 32)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    pixels = images * deviation + mean
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6


def test_both_loops_train_as_many_weights_at_one_rate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.SGD] = []
    kind = torch.optim.SGD

    def sgd(*arguments: object, **options: object) -> torch.optim.SGD:
        made.append(kind(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(torch.optim, "SGD", sgd)
    for network in ("squeezenet1_1", "resnet18"):
        made.clear()
        recipe = Recipe(network, 64, 4, learning_rate=0.03, momentum=0.8, weight_decay=0.02)
        our_training(folder, recipe, "float32", tmp_path / "cache", CPU)
        plain_epochs(load_image_folder(folder), recipe, 0, CPU)
        ours, plain = (optimizer.param_groups for optimizer in made)
        assert sum(p.numel() for group in ours for p in group["params"]) == sum(
            p.numel() for p in plain[0]["params"]
        )
        for name in ("momentum", "weight_decay", "nesterov"):
            assert {group[name] for group in ours} == {plain[0][name]}
        assert {float(group["lr"]) for group in ours} == {plain[0]["lr"]}


def worked(work: Callable[[], object], device: torch.device) -> float:
    """As if it had taken 24 s."""
    work()
    return 24.0


def test_every_job_trains_and_gives_its_seconds_an_image(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(fine_tuning, "WORKERS", (0, 1))
    monkeypatch.setattr(fine_tuning, "has_bfloat16", lambda: False)
    for module in (fine_tuning, plain_images):
        monkeypatch.setattr(module, "seconds", worked)
    step = nn.CrossEntropyLoss.forward

    def counted(self: nn.CrossEntropyLoss, logits: Tensor, labels: Tensor) -> Tensor:
        steps.append(len(labels))
        return step(self, logits, labels)

    monkeypatch.setattr(nn.CrossEntropyLoss, "forward", counted)
    jobs = make_jobs(folder, RECIPE, tmp_path / "cache", CPU)
    assert list(jobs) == ["plain, 0 workers", "plain, 1 workers", "ours, float32"]
    assert [job() for job in jobs.values()] == [2.0] * 3
    # Ours has another loss function.
    assert steps == [4] * 6


def test_the_report_sets_ours_beside_the_faster_plain_loop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = {
        "plain, 0 workers": [0.1, 0.2],
        "plain, 2 workers": [0.05, 0.4],
        "ours, x": [0.025, 0.1],
    }
    report(Recipe("net", 96), times)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "net, 96 x 96: plain, 0 workers 7.50 (5.00 .. 10.00) images/s",
        "net, 96 x 96: plain, 2 workers 11.25 (2.50 .. 20.00) images/s",
        "net, 96 x 96: ours, x 25.00 (10.00 .. 40.00) images/s",
        "net, 96 x 96: ours, x, over the faster plain loop 2.00 (2.00 .. 2.00) times",
    ]


def test_the_command_writes_a_file_of_measurements(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"--folder {folder} --networks squeezenet1_1 --crops 32 --rounds 1"
    out = tmp_path / "measured.json"
    monkeypatch.setattr(timing, "_shown", [])
    monkeypatch.setattr(sys, "argv", ["fine_tuning", *words.split(), "--out", str(out)])
    threads = torch.get_num_threads()
    main()
    torch.set_num_threads(threads)
    measured = read_measured(out)
    assert measured.command == "python -m benchmarks.fine_tuning"
    assert [row.unit for row in measured.rows[:2]] == ["images/s"] * 2
    assert measured.rows[-1].unit == "times"
    assert all(math.isfinite(row.value) and row.value > 0 for row in measured.rows)
