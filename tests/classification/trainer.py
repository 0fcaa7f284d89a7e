"""Training processes to be killed, and what an undisturbed run gives."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from classification.recipes import RECIPES
from classification.train import TASK
from common.training.folder import load_tensors
from common.training.task import Task

ROOT = Path(__file__).parents[2]


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str


@contextmanager
def fork_server(package: str) -> Iterator["subprocess.Popen[str]"]:
    """The server of fork_server.py for ``package``."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GOMP_SPINCOUNT": "0",
        "PYTHONPATH": str(ROOT),
    }
    script = Path(__file__).with_name("fork_server.py")
    with subprocess.Popen(
        [sys.executable, str(script), package],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@dataclass
class Trainer:
    """Starts ``classification.train`` in processes that can be killed."""

    server: "subprocess.Popen[str]"
    folder: Path
    task: Task[Any, Any, Any] = TASK
    logs: dict[int, tuple[Path, Path]] = field(default_factory=dict)
    undisturbed: dict[tuple[str, ...], Path] = field(default_factory=dict)

    def command_line(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """The words of a run, but for ``--out``."""
        return with_recipe(arguments)

    def run_folder(self, out: Path, *arguments: str) -> Path:
        """The folder of a run below ``out``."""
        return self.task.folder_of([*self.command_line(arguments), "--out", str(out)])

    def _ask(self, **order: Any) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, out: Path, *arguments: str, **job: Any) -> int:
        """Start the run; its process id.

        ``arguments`` may begin with a recipe, else it is mnist-lt; ``job``: see fork_server.py.
        """
        number = len(self.logs)
        logs = (self.folder / f"{number}.out", self.folder / f"{number}.err")
        words = [*self.command_line(arguments), "--out", str(out)]
        job |= {"arguments": words, "stdout": str(logs[0]), "stderr": str(logs[1])}
        process = self._ask(start=job)
        self.logs[process] = logs
        return process

    def output(self, process: int) -> str:
        """What the process has written to standard output so far."""
        path = self.logs[process][0]
        return path.read_text() if path.exists() else ""

    def wait(self, process: int) -> Ended:
        """Wait for its end."""
        code = self._ask(wait=process)
        return Ended(code, *(path.read_text() for path in self.logs[process]))

    def run(self, out: Path, *arguments: str, **job: Any) -> Ended:
        """Start it and wait for its end."""
        return self.wait(self.start(out, *arguments, **job))

    def reference(self, *arguments: str, whole: bool = False) -> Path:
        """The folder of an undisturbed run, trained once a session."""
        if arguments not in self.undisturbed:
            out = self.folder / f"reference-{len(self.undisturbed)}"
            ended = self.run(out, *arguments, whole=whole)
            assert ended.code == 0, ended
            self.undisturbed[arguments] = self.run_folder(out, *arguments)
        return self.undisturbed[arguments]


def with_recipe(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """``arguments`` behind the name of their recipe."""
    return arguments if arguments and arguments[0] in RECIPES else ("mnist-lt", *arguments)


def run_folder(out: Path, *arguments: str) -> Path:
    """The folder of a run below ``out``, by its arguments."""
    return TASK.folder_of([*with_recipe(arguments), "--out", str(out)])


def first_stage_folder(out: Path, *arguments: str) -> Path:
    """The folder of the first stage of a second one, by the arguments of the second."""
    first = TASK.first_stage(TASK.resolve(TASK.parse([*arguments, "--out", str(out)])))
    assert first is not None
    return TASK.folder(first)


def only_run(out: Path, group: str = "mnist-lt") -> Path:
    """The folder of the one run of ``group`` below ``out``."""
    (path,) = (out / group).iterdir()
    return path


def read_record(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "record.json").read_text())
    return record


def assert_same_run(run: Path, reference: Path) -> None:
    """Weights, history and record are equal to the bit; only ``provenance`` may differ."""
    ours, theirs = load_tensors(run / "weights.pt"), load_tensors(reference / "weights.pt")
    assert ours.keys() == theirs.keys()
    for epoch, weights in theirs.items():
        assert ours[epoch].keys() == weights.keys()
        for name, weight in weights.items():
            assert torch.equal(ours[epoch][name], weight), f"{name} of the {epoch} epoch"
    records = read_record(run), read_record(reference)
    for record in records:
        del record["provenance"]
    assert json.dumps(records[0], sort_keys=True) == json.dumps(records[1], sort_keys=True)
    # What a task leaves besides, as detection's pictures.
    for path in reference.glob("*.png"):
        assert (run / path.name).read_bytes() == path.read_bytes()


def assert_nothing_left_over(run: Path) -> None:
    """A finished run holds its results and no checkpoint or temporary file."""
    names = {path.name for path in run.iterdir()}
    results = {"record.json", "weights.pt", "pictures.png"} & names
    assert results >= {"record.json", "weights.pt"}
    assert names == results | {"config.json", "lock", "tensorboard"}


def sentence(ended: Ended) -> str:
    """What the user reads; fails unless it is one sentence, alone, with exit code 2."""
    assert ended.code == 2, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: ")
    assert lines[0].endswith((".", ".)"))
    assert "Traceback" not in ended.out
    return lines[0]


def assert_says(ended: Ended, *words: str) -> None:
    """One sentence, alone, with exit code 2, which has these words."""
    said = sentence(ended)
    for word in words:
        assert word in said, said


def assert_nothing_trained(out: Path) -> None:
    """No tensor is kept, and nothing half-written."""
    assert not [path for path in out.rglob("*") if path.suffix == ".pt" or "partial" in path.name]
