import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from common.training.read_ahead import read_batches
from common.training.signals import StopRequest, end_with_parent

ROOT = Path(__file__).parents[3]


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
from tests.common.training.test_read_ahead import BATCHES, Numbers
from common.training.read_ahead import read_batches
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


# A worker of a data set that never answers: it looks for its parent at no time of its own.
STUCK = """
import time
from torch.utils.data import Dataset
from common.training.read_ahead import read_batches

class Stuck(Dataset):
    def __getitem__(self, number):
        print(number, flush=True)
        time.sleep(60)

next(read_batches(Stuck(), [[0]], 1, list))
"""


def test_a_worker_does_not_outlive_a_killed_program() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline()
        run.kill()
        began = time.monotonic()
        assert run.stdout.read() == b""  # It ends where the worker, which holds it too, has ended.
        assert time.monotonic() - began < 30


def test_a_worker_whose_program_was_killed_before_it_looked_ends_at_once() -> None:
    elsewhere = os.getpid()  # Not the parent of the child's child.
    process = multiprocessing.get_context("fork").Process(target=_start, args=(elsewhere,))
    process.start()
    process.join(30)
    assert process.exitcode == 0


def _start(elsewhere: int) -> None:
    child = multiprocessing.get_context("fork").Process(target=_wait, args=(elsewhere,))
    child.start()
    child.join(20)
    os._exit(0 if child.exitcode == -signal.SIGKILL else 1)


def _wait(parent: int) -> None:
    end_with_parent(parent, signal.SIGKILL)
    time.sleep(60)


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


class Short(Dataset["Tensor | UserError"]):
    """Tensors of 1 MB, of which no file may hold more than 64 KB: as where /dev/shm is short."""

    def __getitem__(self, number: int) -> Tensor | UserError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        return torch.full((2**20,), number, dtype=torch.uint8)


def nested(items: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    return items, {"all": torch.stack(items)}


@pytest.mark.parametrize("together", [torch.stack, list, nested])
def test_too_little_shared_memory_is_said(together: Callable[[list[Tensor]], object]) -> None:
    got = read_batches(Short(), [[1, 2], [3, 4]], 1, together)
    with pytest.raises(UserError, match=r"shared memory.*--workers 0.*--cache.*/dev/shm"):
        next(got)
    assert not multiprocessing.active_children()


class Pictures(Dataset["Tensor | UserError"]):
    def __getitem__(self, number: int) -> Tensor | UserError:
        return torch.full((3,), number)


@pytest.mark.parametrize("workers", [0, 2])
def test_tensors_come_from_workers_in_whatever_holds_them(workers: int) -> None:
    (items, named), last = read_batches(Pictures(), [[1, 2], [3]], workers, nested)
    assert [item.tolist() for item in items] == [[1] * 3, [2] * 3]
    assert named["all"].tolist() == [[1] * 3, [2] * 3]
    assert last[1]["all"].tolist() == [[3] * 3]


class Dying(Dataset["int | UserError"]):
    """The number asked for; for a negative one the process ends by that signal."""

    def __getitem__(self, number: int) -> int | UserError:
        if number < 0:
            time.sleep(0.2)  # What was made before is passed on by then.
            os.kill(os.getpid(), -number)
        return number


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, r"\(Killed\).*fewer --workers.*smaller batch.*continues"),
     (signal.SIGBUS, r"\(Bus error\).*/dev/shm")],
)  # fmt: skip
def test_a_killed_worker_is_said(number: int, words: str) -> None:
    got = read_batches(Dying(), [[1], [-number], [3], [4]], 2, list)
    with pytest.raises(UserError, match=words):
        list(got)
    assert not multiprocessing.active_children()


def test_a_killed_worker_does_not_raise_in_the_midst_of_a_step() -> None:
    got = read_batches(Dying(), [[1], [2], [-signal.SIGKILL], [4]], 1, list)
    assert [next(got), next(got)] == [[1], [2]]
    time.sleep(1)  # A step, in which the worker dies.
    with pytest.raises(UserError, match="Killed"):
        next(got)


@pytest.fixture(autouse=True)
def _no_worker_outlives_its_test() -> Iterator[None]:
    """A worker holds the ends of pipes that other tests wait to see closed."""
    yield
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


class Stuck(Dataset["int | UserError"]):
    def __getitem__(self, number: int) -> int | UserError:
        time.sleep(number)
        return number


def test_a_run_that_waits_for_a_batch_in_vain_ends_after_a_request_to_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("common.training.read_ahead.STOP_SECONDS", 0.1)
    with StopRequest():
        got = read_batches(Stuck(), [[0], [600]], 1, list)
        assert next(got) == [0]
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            next(got)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_a_batch_that_is_only_late_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.training.read_ahead.POLL_SECONDS", 0.1)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        assert list(read_batches(Stuck(), [[1], [0]], 1, list)) == [[1], [0]]
