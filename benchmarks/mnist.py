"""MNIST-LT training speed: python -m benchmarks.mnist.

Prints, from interleaved measurements in one process of one thread, medians and the spread:

* steps/s of our engine beside a plain loop of the same network, batch and optimizer: a
  ``torch.utils.data.DataLoader`` that makes each sample as ``torchvision.datasets.MNIST`` does, a
  PIL image through ``ToTensor`` and ``Normalize``;
* the cost of an epoch with CDB-W-CE and CDB-S over cross-entropy;
* the share of the difficulty pass in an epoch;
* the speed of each of two runs side by side over one alone, and both together over the plain loop
  with torch's usual number of threads: what the machine does in either way.
"""

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import (
    Job,
    Times,
    add_out,
    at_least,
    interleaved,
    ratios,
    seconds,
    show,
    write_shown,
)
from classification.data import load_data
from classification.evaluate import measure
from classification.recipes import MNIST_LT, MnistMethod, resolved
from classification.training import Training
from common.training.signals import StopRequest
from data_prep.mnist import load_digits, split_mnist_lt


class PilDigits(Dataset[tuple[torch.Tensor, int]]):
    """The MNIST-LT training images, read as torchvision's MNIST data set reads its own."""

    def __init__(self) -> None:
        """Imbalance 99, split seed 0."""
        digits = load_digits()
        index = split_mnist_lt(digits, 99, 0).train_index
        self._images, self._labels = digits.train_images[index], digits.train_labels[index]
        self._transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        )

    def __len__(self) -> int:
        """N."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Image (1, 28, 28) and label."""
        image = Image.fromarray(self._images[index].numpy())
        return self._transform(image), int(self._labels[index])


def plain_network() -> nn.Module:
    """LeNet-5 as one writes it down."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2)),
    )


def plain_epoch() -> Callable[[], None]:
    """One epoch of the plain loop."""
    loader = DataLoader(PilDigits(), batch_size=100, shuffle=True)
    model, loss = plain_network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def epoch() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()

    return epoch


def new_training(method: MnistMethod) -> Training:
    """A run of ours at its start, imbalance 99, seed 0."""
    config = resolved(replace(MNIST_LT, method=method))
    device = torch.device("cpu")
    return Training(config, load_data(config, device), device)


def epoch_seconds(rounds: int) -> float:
    """Median time of an epoch of cross-entropy in a process of one thread."""
    torch.set_num_threads(1)
    training, stop = new_training("ce"), StopRequest()
    training.run_epoch(stop)
    training.end_epoch()
    return statistics.median(
        seconds(lambda: (training.run_epoch(stop), training.end_epoch())) for _ in range(rounds)
    )


def side_by_side(rounds: int) -> list[float]:
    """Speed of each of two processes over that of one alone, in percent."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        alone = pool.apply(epoch_seconds, (rounds,))
        return [100 * alone / t for t in pool.map(epoch_seconds, [rounds] * 2, chunksize=1)]


def make_jobs(usual_threads: int) -> dict[str, Job]:
    """What is timed, by name: an epoch of 50 steps each, and the difficulty pass."""
    stop = StopRequest()
    ce, cdb_w, cdb_s = (new_training(m) for m in ("ce", "cdb-w-ce", "cdb-s"))
    plain = plain_epoch()

    def plain_with_usual_threads() -> None:
        torch.set_num_threads(usual_threads)
        plain()
        torch.set_num_threads(1)

    def whole_epoch(training: Training) -> None:
        training.run_epoch(stop)
        training.end_epoch()

    def steps_alone(training: Training) -> None:
        for index in training.method.sampler.draw().split(MNIST_LT.batch_size):
            training.step({"index": index})

    return {
        "plain": lambda: seconds(plain),
        "plain, usual threads": lambda: seconds(plain_with_usual_threads),
        "steps": lambda: seconds(lambda: steps_alone(ce)),
        "ce": lambda: seconds(lambda: whole_epoch(ce)),
        "cdb-w-ce": lambda: seconds(lambda: whole_epoch(cdb_w)),
        "cdb-s": lambda: seconds(lambda: whole_epoch(cdb_s)),
        "pass": lambda: seconds(lambda: measure(ce.model, ce.data.difficulty, 2)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=7, help="measurements, interleaved")
    add_out(parser)
    options = parser.parse_args()
    rounds = options.rounds
    usual_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = interleaved(make_jobs(usual_threads), rounds)
    report(times)
    together = side_by_side(rounds)
    show("each of two runs side by side, of one alone", together, "%")
    speedup = ratios(times["plain, usual threads"], times["ce"])
    both = [sum(together) / 100 * ratio for ratio in speedup]
    show(f"two of ours over one plain loop of {usual_threads} threads", both, "times")
    write_shown(options.out, "python -m benchmarks.mnist", rounds, torch.device("cpu"))


def report(times: Times) -> None:
    """Print the figures; every ratio is taken round by round."""
    steps = 50
    for name in ("plain", "plain, usual threads"):
        show(f"DataLoader loop, {name}", [steps / t for t in times[name]], "steps/s")
    show("ours", [steps / t for t in times["steps"]], "steps/s")
    gain = ratios(times["plain"], times["steps"])
    show("ours over the plain loop", gain, "times", "(target: at least 2)")
    for name in ("cdb-w-ce", "cdb-s"):
        cost = [100 * (r - 1) for r in ratios(times[name], times["ce"])]
        show(f"an epoch of {name} over one of ce", cost, "%", "(target: at most 8)")
    share = [100 * r for r in ratios(times["pass"], times["ce"])]
    show("difficulty pass in an epoch", share, "%", "(target: at most 5)")


if __name__ == "__main__":
    main()
