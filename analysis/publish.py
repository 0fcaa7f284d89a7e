"""Copy the records of finished runs to the published ones.

    python -m analysis.publish --group mnist-lt

runs/<group>/<run>/record.json becomes results/<group>/<run>.json. A published record is never
overwritten by one with other numbers unless --replace is given; one with the same numbers stays.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tyro

from analysis.records import RESULTS, RUNS, Record
from analysis.reproduction import IDENTICAL, outcome
from common.errors import UserError, describe_os_error, run_main
from common.files import write_atomically
from common.training.record import read_record


@dataclass(frozen=True)
class Options:
    """Copy the records of finished runs to the published ones."""

    runs: Path = RUNS
    """Folder of this machine's runs."""
    results: Path = RESULTS
    """Folder of the published records."""
    group: tuple[str, ...] = ()
    """Groups to publish; none given: all."""
    replace: bool = False
    """Overwrite published records that differ."""


@dataclass(frozen=True)
class Publication:
    """One finished run: where its record is, where it goes, and how the two compare."""

    source: Path
    target: Path
    outcome: str | None
    """As :func:`analysis.reproduction.outcome` says; None when nothing is published yet."""

    @property
    def differs(self) -> bool:
        """Whether a record with other numbers is published."""
        return self.outcome not in (None, IDENTICAL)


def _own_record(path: Path) -> Record:
    """Read ``<group>/<run>/record.json`` and check that it lies in its own folder."""
    record = read_record(path)
    name = f"{record['group']}/{record['run']}"
    if path.parts[-3:-1] != (record["group"], record["run"]):
        raise UserError(f"{path} is the record of {name}; move it to a folder of that name.")
    return record


def _compare(source: Path, results: Path) -> Publication:
    record = _own_record(source)
    target = results / record["group"] / f"{record['run']}.json"
    known = outcome(record, read_record(target)) if target.exists() else None
    return Publication(source, target, known)


def find(runs: Path, results: Path, groups: Iterable[str] = ()) -> list[Publication]:
    """Every finished run of ``groups`` (none: all) beside its published record.

    Raises:
        UserError: for a group without a finished run, or a record that is damaged or misplaced.
    """
    found: list[Publication] = []
    for group in list(groups) or ["*"]:
        sources = sorted(runs.glob(f"{group}/*/record.json"))
        if not sources:
            raise UserError(
                f"{runs / group} has no finished run; run its experiment first, or give --runs "
                "and --group a folder and a group that exist."
            )
        found += [_compare(source, results) for source in sources]
    return found


def publish(found: Iterable[Publication]) -> None:
    """Copy what is new or differs, each file whole or not at all.

    Raises:
        UserError: when a record cannot be read or written.
    """
    for item in found:
        if item.outcome != IDENTICAL:
            try:
                item.target.parent.mkdir(parents=True, exist_ok=True)
                content = item.source.read_bytes()
            except OSError as error:
                raise describe_os_error(error, item.target) from error
            write_atomically(item.target, content)


def _counts(found: list[Publication]) -> str:
    new = sum(item.outcome is None for item in found)
    different = sum(item.differs for item in found)
    return f"{new} new, {len(found) - new - different} identical, {different} different"


def _refuse(found: list[Publication]) -> None:
    """Stop before anything is written when a published record would change."""
    changed = [f"{item.target} ({item.outcome})" for item in found if item.differs]
    if changed:
        raise UserError(
            f"Nothing was published ({_counts(found)}): the published "
            f"{', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''} would be overwritten; "
            "move those runs elsewhere, or give --replace."
        )


def main(options: Options) -> None:
    """Publish, and say how many records were new, identical or different.

    Raises:
        UserError: when a published record would change, or as :func:`find` and :func:`publish`.
    """
    found = find(options.runs, options.results, options.group)
    if not options.replace:
        _refuse(found)
    publish(found)
    print(f"{options.results}: {_counts(found)}")


if __name__ == "__main__":
    run_main(lambda: main(tyro.cli(Options, description=__doc__)))
