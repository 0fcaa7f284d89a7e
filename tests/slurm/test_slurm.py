"""Experiments on a real Slurm of this machine: cluster.sh starts and stops one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "tests/slurm/cluster.sh"
EXPERIMENT = ROOT / "classification/experiments/mnist_table2.sh"
GROUP = "mnist-lt"
LIMIT = 300.0  # seconds, for a machine with much else to do
TRAINING = ("--", "--epochs", "30", "--checkpoint-seconds", "0")

MISSING = subprocess.run([CLUSTER, "missing"], capture_output=True, text=True).stdout.split()
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{MISSING[:1]} is not installed; apt-get install slurm-wlm munge"
)


class Slurm:
    """The programs of a cluster, called with its settings."""

    def __init__(self, folder: Path) -> None:
        # Two runs at a time, whose classes of the third are too few: it fails.
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"), "PYTHON": sys.executable,
            "IMBALANCES": "99 199 1000000", "TAUS": "1.0", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.environment.pop("CONDA_PREFIX", None)

    def __call__(self, *words: object, code: int = 0) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(words, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL)

    def run_all(self, *words: object) -> str:
        return self(ROOT / "run_all.sh", "--no-setup", "--seeds", "0", *words, *TRAINING)

    def status(self, out: Path) -> tuple[dict[str, int], str]:
        """Runs in each state, and everything that was printed."""
        said = self.run_all("--status", "--out", out, "mnist_table2")
        states, counts = (line.split() for line in said.splitlines()[:2])
        numbers = (0 if count == "-" else int(count) for count in counts[1:])
        return {k: n for k, n in zip(states, numbers, strict=True) if n}, said

    def queue(self) -> list[str]:
        return self("squeue", "--noheader", "--array", "--format=%F_%K").split()


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    # Sockets have short names.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        subprocess.run([CLUSTER, "start", folder, str(os.getpid())], check=True, timeout=LIMIT)
        yield Slurm(folder)
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True, timeout=LIMIT)
        assert not folder.exists()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def run_folder(out: Path, imbalance: int) -> Path:
    return out / GROUP / f"cdb-w-ce_tau-1.0_imbalance-{imbalance}_epochs-30_seed-0"


def record(out: Path, imbalance: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder(out, imbalance) / "record.json").read_text())
    return found


def attempts(log: Path) -> list[str]:
    return log.read_text().split("\n$ ") if log.exists() else []


def job_of(said: str, name: str) -> str:
    line = next(line for line in said.splitlines() if line.startswith(f"{name}: job "))
    return line.removeprefix(f"{name}: job ").split(",")[0]


def test_runs_that_are_preempted_and_warned_end_as_undisturbed_ones_and_a_report_follows(
    slurm: Slurm, tmp_path: Path
) -> None:
    out, apart = tmp_path / "my runs", tmp_path / "apart"
    assert "--dependency=afterany:JOB_mnist_table2" in slurm.run_all(
        "--slurm", "--dry-run", "--out", out, "mnist_table2"
    )
    assert not out.exists()
    assert slurm.queue() == []

    # Two processors: the third run waits.
    said = slurm.run_all("--slurm", "--partition", "low", "--out", out, "mnist_table2")
    job = job_of(said, "mnist_table2")
    logs = [out / f"slurm/mnist_table2-{job}_{task}.log" for task in (1, 2, 3)]
    wait_until(lambda: all((run_folder(out, i) / "checkpoint.pt").exists() for i in (99, 199)))
    counts, said = slurm.status(out)
    assert counts == {"runs": 3, "running": 2, "queued": 1}
    assert f"running: {GROUP}/{run_folder(out, 99).name}: epoch " in said

    command = slurm(EXPERIMENT, "--seeds", "0", "--out", apart, "--dry-run", *TRAINING)
    reference = slurm.start("bash", "-c", command.splitlines()[0])

    # A more important job takes both processors: Slurm ends both runs and requeues them.
    slurm("sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")
    wait_until(lambda: all("\nstopped by Slurm\n" in log.read_text() for log in logs[:2]))
    # The warning before a time limit, to the second start of one of them.
    wait_until(lambda: len(attempts(logs[0])) == 2 and "\nepoch " in attempts(logs[0])[1])
    slurm("scancel", "--signal=USR1", "--batch", f"{job}_1")
    wait_until(lambda: "\nstopped after Slurm's warning; requeued\n" in logs[0].read_text())

    wait_until(lambda: slurm.queue() == [])
    assert reference.wait(LIMIT) == 0

    disturbed, undisturbed = record(out, 99), record(apart, 99)
    assert disturbed.pop("provenance")["starts"] == 3
    assert undisturbed.pop("provenance")["starts"] == 1
    assert disturbed == undisturbed
    assert record(out, 199)["provenance"]["starts"] == 2
    # An error is not tried again, unless the preemption has met it.
    assert attempts(logs[2])[-1].endswith("\nended with exit code 2\n")
    counts, said = slurm.status(out)
    assert counts == {"runs": 3, "finished": 2, "failed": 1}
    assert ": --imbalance 1e+06 leaves class 9 with no training image" in said
    assert said.endswith(f"    log: {logs[2]}\n")
    page = (out / "report/index.html").read_text()
    assert "2 recorded runs of MNIST-LT, 30" in " ".join(page.split())


def test_a_run_that_was_cancelled_keeps_its_checkpoint_and_does_not_come_back(
    slurm: Slurm, tmp_path: Path
) -> None:
    slurm.environment["IMBALANCES"] = "99"
    said = slurm(EXPERIMENT, "--slurm", "--seeds", "0", "--out", tmp_path, *TRAINING)
    job = job_of(said, "mnist_table2")
    wait_until(lambda: (run_folder(tmp_path, 99) / "checkpoint.pt").exists())
    slurm("scancel", job)
    wait_until(lambda: slurm.queue() == [])
    time.sleep(7)  # As long as a requeued job waits, and more.
    assert slurm.queue() == []
    log = tmp_path / f"slurm/mnist_table2-{job}_1.log"
    assert len(attempts(log)) == 1
    assert "\nstopped after a checkpoint" in log.read_text()
    counts, said = slurm.status(tmp_path)
    assert counts == {"runs": 1, "stopped": 1}
    assert ": epoch " in said


def test_what_slurm_refuses_is_one_sentence_and_leaves_no_job(slurm: Slurm, tmp_path: Path) -> None:
    words = ("--slurm", "--no-setup", "--seeds", "0", "--out", str(tmp_path), "--partition", "none")
    done = subprocess.run(
        [ROOT / "run_all.sh", *words, "mnist_table2", "mnist_table3"],
        env=slurm.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Slurm refuses mnist_table2 (")
    assert done.stderr.endswith("Invalid partition name specified); nothing was submitted.\n")
    assert slurm.queue() == []


def test_more_runs_than_an_array_may_have_become_several_arrays(
    slurm: Slurm, tmp_path: Path
) -> None:
    # Four tasks at most.
    slurm.environment["IMBALANCES"] = "99 199"
    slurm.environment["TAUS"] = "0.5 1.0 2.0"
    words = ("--seeds", "0", "-j", "1", "--out", tmp_path)
    said = slurm(EXPERIMENT, "--slurm", *words, *TRAINING)
    assert [line.split(", ")[1].split(";")[0] for line in said.splitlines()] == ["4 runs", "2 runs"]
    assert len(slurm.queue()) == 6
    files = [line.split("\t")[2] for line in (tmp_path / "slurm/jobs.txt").read_text().splitlines()]
    given = [line for file in files for line in Path(file).read_text().splitlines()]
    local = slurm(EXPERIMENT, "--dry-run", *words, *TRAINING)
    assert given == local.splitlines()
