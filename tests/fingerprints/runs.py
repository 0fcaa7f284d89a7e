"""Commands in processes of their own, without the seconds of imports: forked, as torchrun does.

Each is ``python -m TASK.train WORDS``: sys.argv is set and the module is run as the main one.
"""

import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.fingerprints import digests
from tests.fingerprints.cases import Case
from tests.fingerprints.stand_ins import (
    use_captured_steps,
    use_small_data,
    use_small_networks,
)

STOPPED = 128 + signal.SIGTERM
DATA_MISSING = 2


class FailedError(Exception):
    """A command has not ended as it must; what it said."""


def load(task: str) -> None:
    """Import what its commands import, and what a first step does."""
    torch.set_num_threads(1)
    importlib.import_module(f"{task}.train")
    parameter = torch.zeros(1, requires_grad=True)
    torch.optim.SGD([parameter], lr=1.0)
    torch.func.jvp(torch.sin, (parameter,), (parameter,))


def fingerprint(case: Case, data: Path, scratch: Path) -> digests.Kept:
    """Carry a case out and keep what came of it.

    Args:
        case: what is to be done.
        data: folder of the tiny data.
        scratch: an empty folder, which is removed.

    Raises:
        FailedError: a command ended otherwise than it must.
    """
    try:
        return _trained(case, data, scratch) if case.stop_after else _named(case, data, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _named(case: Case, data: Path, scratch: Path) -> digests.Kept:
    """Names and configurations of the folders that are there when the data is looked for."""
    out = scratch / "named"
    _run(case, data, out, expected=DATA_MISSING)
    kept: digests.Kept = {}
    for path in sorted(out.glob("*/*/config.json")):
        kept |= _of_folder(path.parent, out, len(kept))
    if not kept:
        raise FailedError("no run has a configuration yet when it looks for its data")
    return kept


def _of_folder(run: Path, out: Path, already: int) -> digests.Kept:
    config = json.loads((run / "config.json").read_bytes())
    before = "" if not already else "other stage/"
    settings = {f"{before}config/{k}": v for k, v in digests.of_config(config).items()}
    return {f"{before}name": str(run.relative_to(out)), **settings}


def _trained(case: Case, data: Path, scratch: Path) -> digests.Kept:
    """A run from its start to its end; the same stopped; and gone on with."""
    whole, parts = scratch / "whole", scratch / "parts"
    _run(case, data, whole)
    # The last one written: a first stage's is there before.
    records = sorted(whole.glob("*/*/record.json"), key=lambda path: path.stat().st_mtime_ns)
    *first, last = (path.parent.relative_to(whole) for path in records)
    kept = {"name": str(last), **_finished(whole / last, "")}
    for run in first:
        kept |= {"first/name": str(run), **_finished(whole / run, "first/")}
    shutil.rmtree(whole / last)
    whole.rename(parts)
    _run(case, data, parts, stop_after=case.stop_after, expected=STOPPED)
    (checkpoint,) = parts.rglob("checkpoint.pt")
    kept["checkpoint"] = digests.of_checkpoint(checkpoint)
    _run(case, data, parts)
    kept |= _finished(parts / last, "resumed/")
    return kept


def _finished(run: Path, before: str) -> digests.Kept:
    record = json.loads((run / "record.json").read_bytes())
    parts = {
        "weights": digests.of_weights(run / "weights.pt"),
        "record": digests.of_record(record),
        "config": digests.of_config(record["config"]),
    }
    return {f"{before}{part}/{k}": v for part, kept in parts.items() for k, v in kept.items()}


def _run(case: Case, data: Path, out: Path, *, stop_after: int = 0, expected: int = 0) -> None:
    """Carry out the command in as many processes as it has ranks."""
    out.mkdir(parents=True, exist_ok=True)
    log, port = out / "log", _free_port() if case.ranks > 1 else 0
    words = [word.format(data=data, out=out) for word in case.words]
    usual = ["--out", str(out), "--device", "cpu", "--threads", "1"]
    words += [*usual, "--checkpoint-seconds", "3600"]
    processes = []
    for rank in range(case.ranks):
        process = os.fork()
        if not process:
            _be_the_run(case, data, words, log, rank, port, stop_after)
        processes.append(process)
    codes = {os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes}
    said = log.read_text(errors="replace")
    log.unlink()
    if codes != {expected}:
        end = "\n".join(said.splitlines()[-12:])
        raise FailedError(f"ended with {sorted(codes)}, not {expected}: {' '.join(words)}\n{end}")


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
    return port


def _be_the_run(
    case: Case, data: Path, words: list[str], log: Path, rank: int, port: int, stop_after: int
) -> None:
    """What the forked process does; it does not return."""
    code = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if case.ranks > 1:
            _join(rank, case.ranks, port)
        use_small_data(case.task, data)
        use_small_networks(case.task)
        if case.captured:
            use_captured_steps()
        if stop_after and not rank:
            _stop_after(stop_after)
        code = _main(case.task, words)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _join(rank: int, ranks: int, port: int) -> None:
    """The variables that torchrun sets."""
    of_rank = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ.update({name: str(value) for name, value in (of_rank | place).items()})


def _stop_after(steps: int) -> None:
    """SIGTERM, as a user or Slurm sends it, when so many steps of an optimizer are taken."""
    taken = 0

    def count(*_: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == steps:
            signal.raise_signal(signal.SIGTERM)

    register_optimizer_step_post_hook(count)


def _main(task: str, words: list[str]) -> int:
    """As ``python -m TASK.train WORDS``; the exit code."""
    sys.argv = [f"{task}.train", *words]
    del sys.modules[f"{task}.train"]  # Else it is warned that it runs twice.
    warnings.simplefilter("ignore", RuntimeWarning)
    try:
        runpy.run_module(f"{task}.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
