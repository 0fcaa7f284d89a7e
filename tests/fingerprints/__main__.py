"""Fingerprints of what training gives, before and after a change that must not change it.

    python -m tests.fingerprints make FOLDER        at the commit before
    python -m tests.fingerprints compare FOLDER     at the commit after, on the same machine

``make`` trains two epochs of every recipe, and of every method of one recipe of each kind, on tiny
data through the command line, so that it outlives any change of the Python beneath: whole, stopped
by a signal after some steps, and gone on with; in one process and in two; with the stand-in for
captured steps. The data is written once, into FOLDER/data, and FOLDER/fingerprints.json keeps of
each case

    name               GROUP/RUN of its folder
    config/...         the settings that count for the method
    weights/...        sha256 of each tensor of weights.pt
    record/...         each value of record.json, without provenance and configuration
    checkpoint         the tensors of the stopped run's checkpoint, wherever they stand in it
    resumed/..., first/...    the same of the run that was gone on with, and of a first stage

and of every recipe and method, with two settings changed and nothing trained, name and config.

``compare`` makes all of it again and names what differs; it ends with code 1 if anything does. What
is to differ is left out by ``--ignore``, a pattern for the last parts of a place:
``--ignore history/tau --ignore 'config/*'``. Bits differ between processors, so this is no test of
the suite: it is run by hand before and after a change of shape. About ten minutes on two cores.
"""

import argparse
import hashlib
import json
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.fingerprints.cases import WHOLE, Case, all_cases
from tests.fingerprints.comparison import differences
from tests.fingerprints.making import Made, apart, make_cases

FORMAT = 1
_GONE = {"failed": "there is no such case any more"}


def _data_of(folder: Path) -> Path:
    return (folder / "data").resolve()


def _kept_in(folder: Path) -> Path:
    return folder / "fingerprints.json"


def make(folder: Path, only: str, jobs: int) -> int:
    """Write the fingerprints of the chosen cases beside those that are there; the exit code."""
    chosen, failed = _chosen(only), 0
    folder.mkdir(parents=True, exist_ok=True)
    missing = _missing_data(folder, chosen)
    if missing and apart(_write_data, folder, missing):
        sys.exit(f"the tiny data could not be written to {_data_of(folder)}.")
    cases = _read(folder)["cases"] if _kept_in(folder).exists() else {}
    for made in _make(chosen, folder, jobs):
        whole = {name: kept for name, kept in made.items() if "failed" not in kept}
        cases |= whole
        failed += len(made) - len(whole)
        content = {"format": FORMAT, "machine": _machine(), "cases": cases}
        _kept_in(folder).write_text(json.dumps(content, indent=0, sort_keys=True) + "\n")
    print(f"{len(chosen) - failed} of {len(chosen)} cases made")
    return int(failed > 0)


def compare(folder: Path, only: str, jobs: int, ignored: list[str]) -> int:
    """Make the chosen cases again and print what differs; the exit code."""
    before = _read(folder)
    if missing := _missing_data(folder, _chosen(only)):
        sys.exit(f"{_data_of(folder)} has no {', '.join(missing)}; make the fingerprints anew.")
    if before["machine"] != _machine():
        print(f"made on another machine or with other packages: {before['machine']}")
    kept = {name: case for name, case in before["cases"].items() if re.search(only, name)}
    chosen = _chosen(only)
    different = _report(dict.fromkeys(kept.keys() - {c.name for c in chosen}, _GONE), kept, [])
    for made in _make([case for case in chosen if case.name in kept], folder, jobs):
        different += _report(made, kept, ignored)
    new = [case.name for case in chosen if case.name not in kept]
    if new:
        print(f"not compared, since they were not made: {', '.join(new)}")
    print(f"{len(kept) - different} of {len(kept)} cases are equal")
    return int(different > 0)


def _report(made: Made, kept: Made, ignored: list[str]) -> int:
    """Print what differs from what is kept; the number of cases that do."""
    different = 0
    for name, now in sorted(made.items()):
        found = [now["failed"]] if "failed" in now else differences(kept[name], now, ignored)
        different += bool(found)
        for line in found:
            print(f"{name}: {line}", flush=True)
    return different


def _chosen(only: str) -> list[Case]:
    return [case for case in all_cases() if re.search(only, case.name)]


def _missing_data(folder: Path, cases: list[Case]) -> list[str]:
    """The sets that cases read and that are not there to their end."""
    names = {name for case in cases for name in case.data}
    return sorted(name for name in names if not (_data_of(folder) / f"{name}.{WHOLE}").exists())


def _read(folder: Path) -> dict[str, Any]:
    if not _kept_in(folder).exists():
        sys.exit(f"{_kept_in(folder)} is missing; make it at the commit to compare with.")
    content: dict[str, Any] = json.loads(_kept_in(folder).read_bytes())
    if content["format"] != FORMAT:
        sys.exit(f"{_kept_in(folder)} is of another version of these tests; make it anew.")
    return content


def _write_data(folder: Path, names: list[str]) -> None:
    from tests.fingerprints.data import write_data

    write_data(_data_of(folder), names)


def _make(cases: list[Case], folder: Path, jobs: int) -> Iterator[Made]:
    with tempfile.TemporaryDirectory(prefix="fingerprints-") as scratch:
        yield from make_cases(cases, _data_of(folder), Path(scratch), jobs)


def _machine() -> dict[str, str]:
    """What bits depend on."""
    names = ("torch", "torchvision", "numpy", "pillow", "av")
    versions = {name: metadata.version(name) for name in names}
    # Of the first processor: the name alone does not tell which instructions it has.
    fields = dict(
        line.partition(":")[::2] for line in Path("/proc/cpuinfo").read_text().splitlines()[:40]
    )
    known = {name.strip(): value.strip() for name, value in fields.items()}
    instructions = hashlib.sha256(known.get("flags", "").encode()).hexdigest()[:16]
    return {
        "processor": known.get("model name", ""),
        "instructions": instructions,
        "python": platform.python_version(),
        **versions,
    }


def _parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fingerprints", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("make", "compare"))
    parser.add_argument("folder", type=Path, help="of the tiny data and of fingerprints.json")
    parser.add_argument("--only", default="", help="regular expression for the names of cases")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--ignore", action="append", default=[], help="what is to differ")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Command line; the exit code."""
    options = _parse_arguments(words)
    started = time.monotonic()
    if options.what == "make":
        code = make(options.folder, options.only, options.jobs)
    else:
        code = compare(options.folder, options.only, options.jobs, options.ignore)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return code


if __name__ == "__main__":
    sys.exit(main())
