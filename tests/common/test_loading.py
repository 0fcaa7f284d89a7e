import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from common.errors import UserError
from common.loading import read_batches

ROOT = Path(__file__).parents[2]


class Numbers(Dataset["tuple[int, int] | UserError"]):
    """The number asked for and the process that answers; an error for a negative number."""

    def __getitem__(self, number: int) -> tuple[int, int] | UserError:
        time.sleep(0.01)
        return (number, os.getpid()) if number >= 0 else UserError(f"{number} is negative.")


BATCHES = [[first, first + 1] for first in range(0, 40, 2)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_whatever_the_number_of_workers(workers: int) -> None:
    got = list(read_batches(Numbers(), BATCHES, workers, list))
    assert [[number for number, _ in batch] for batch in got] == BATCHES
    processes = {process for batch in got for _, process in batch}
    assert len(processes) == max(1, workers)
    assert (os.getpid() in processes) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_cannot_be_read_ends_the_batches(workers: int) -> None:
    got = read_batches(Numbers(), [[1, 2], [3, -4], [5, 6]], workers, list)
    assert [number for number, _ in next(got)] == [1, 2]
    with pytest.raises(UserError, match="-4 is negative") as caught:
        next(got)
    # Also while the error, and what it has passed through, is still there.
    assert caught.value is not None
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_outlive_a_request_to_stop(number: int) -> None:
    # torchrun, Slurm and a terminal send it to the workers too.
    got = read_batches(Numbers(), BATCHES, 1, list)
    (_, worker), _ = next(got)
    os.kill(worker, number)
    assert [[number for number, _ in batch] for batch in got] == BATCHES[1:]


def test_workers_end_with_the_last_batch() -> None:
    got = list(read_batches(Numbers(), BATCHES, 2, list))
    for process in {process for batch in got for _, process in batch}:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


KEPT = """
import sys
from tests.common.test_loading import BATCHES, Numbers
from common.loading import read_batches
sys.kept = read_batches(Numbers(), BATCHES, 2, list)
print(*(process for _, process in next(sys.kept) + next(sys.kept)))
"""


def test_a_program_ends_though_batches_are_left_unread() -> None:
    run = subprocess.run(
        [sys.executable, "-c", KEPT], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    for process in {int(word) for word in run.stdout.split()}:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_signal_while_workers_start_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        got = read_batches(Numbers(), [[1], [2]], 0, list)
        os.kill(os.getpid(), signal.SIGTERM)
        next(got)
        assert seen == [signal.SIGTERM]
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, set()) & {signal.SIGTERM}
    finally:
        signal.signal(signal.SIGTERM, before)
