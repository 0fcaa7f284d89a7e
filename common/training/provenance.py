"""Where and with what a run is made, over all its starts: machine, versions, commit, time."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from common.distributed import world_size


def _processor_field(field: str) -> str | None:
    """What Linux tells about the first processor, such as ``model name``."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split(":", 1)[1].strip() for line in lines if line.startswith(field)]
    return values[0] if values else None


def _processor_name() -> str:
    return _processor_field("model name") or platform.processor()


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; also where it cannot be found out."""
    flags = _processor_field("flags")
    return flags is None or bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


def _root() -> Path:
    """Of the checkout."""
    return Path(__file__).resolve().parents[2]


def _git(*words: str) -> str:
    """What git says of this checkout, whatever the shell's variables tell git.

    Raises:
        OSError: there is no git.
        subprocess.CalledProcessError: git refuses.
    """
    told = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    root = _root()
    asked = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, env=told
    )
    return asked.stdout.strip()


def _imported_packages() -> Iterator[str]:
    """Packages of this checkout that the process has imported."""
    root = str(_root()) + os.sep
    for name, module in list(sys.modules.items()):
        if "." not in name and (getattr(module, "__file__", None) or "").startswith(root):
            yield name


def _commit() -> str | None:
    """The checkout's commit, with '+changes' if the code differs from it; None outside git.

    Also where the checkout lies in a repository that is not its own: below its folder, or in it
    without having been committed.
    """
    own = Path(__file__).resolve().relative_to(_root()).as_posix()
    # Of what this run has imported, not of what only reads its results.
    code = sorted({"common", *_imported_packages()})
    try:
        if _git("rev-parse", "--show-prefix"):
            return None
        _git("cat-file", "-e", f"HEAD:{own}")
        head = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=normal", "--", *code)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changes else head


def environment(device: torch.device, packages: Sequence[str] = ()) -> dict[str, Any]:
    """With what this start of a run is made: ``versions`` and ``hardware``.

    Args:
        device: what it trains on.
        packages: whose versions matter besides torch's and numpy's.
    """
    hardware: dict[str, Any] = {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    if world_size() > 1:
        hardware["processes"] = world_size()
    if device.type == "cuda":
        hardware["device"] = torch.cuda.get_device_name(device)
    versions = {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "numpy", *packages)},
    }
    commit = _commit()
    if commit is not None:
        versions["commit"] = commit
    return {"versions": versions, "hardware": hardware}


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two environments have of different value, by name; 'none' for what one lacks."""
    flat = [{**there["hardware"], **there["versions"]} for there in (before, now)]
    names = [name for name in {**flat[0], **flat[1]} if name != "cores"]  # It changes no bit.
    pairs = {name: (flat[0].get(name, "none"), flat[1].get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def provenance(
    seconds: float, starts: int, environments: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Where and with what a run was made; the only part of a record that may differ by machine.

    Args:
        seconds: wall time of the run over all its starts.
        starts: how often it was started or continued.
        environments: what :func:`environment` said, and ``from_start``, the first start (from 1)
            that it holds for; a further one for each start that differed from the one before. The
            last one's versions and hardware are the record's; all are kept if there are several.
    """
    last = environments[-1]
    several = {"environments": list(environments)} if len(environments) > 1 else {}
    return {
        "seconds": round(seconds, 1),
        "starts": starts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": dict(last["versions"]),
        "hardware": dict(last["hardware"]),
        **several,
    }


class Clock:
    """Wall time of a run over all its starts, and what they were made with; the last checkpoint."""

    def __init__(self, made_with: dict[str, Any]) -> None:
        """Start counting.

        Args:
            made_with: what :func:`environment` says of this start.
        """
        self.before = 0.0
        self.environments = [{"from_start": 1, **made_with}]
        self.starts = 1
        self._start = self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Seconds, starts and environments so far."""
        return {
            "seconds": self.seconds(), "starts": self.starts, "environments": self.environments
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`: one start more."""
        self.before, self.starts = state["seconds"], int(state["starts"]) + 1
        # A checkpoint of before they were kept has none.
        before, [now] = state.get("environments", []), self.environments
        now = now | {"from_start": self.starts}
        same = bool(before) and not differences(before[-1], now)
        self.environments = before if same else [*before, now]

    def seconds(self) -> float:
        """Wall time of all starts."""
        return self.before + time.monotonic() - self._start

    def provenance(self) -> dict[str, Any]:
        """The record's provenance of a run that has finished now."""
        return provenance(self.seconds(), self.starts, self.environments)

    def due(self, interval: float) -> bool:
        """Whether ``interval`` seconds have passed since this last was true."""
        if time.monotonic() - self._last_save < interval:
            return False
        self._last_save = time.monotonic()
        return True
