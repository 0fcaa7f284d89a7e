"""What the soak test found, as a table and as JSON."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psutil
import torch

from common.training.provenance import environment
from tests.soak.kills import Course

COLUMNS = ("Fault", "Run", "Tried", "Runs", "Ended equal", "Data lost")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        fault: what was done.
        run: to which run.
        tried: how often.
        runs: on so many runs from their first start to their end.
        equal: of them so many ended equal to the undisturbed run.
        lost: so often something was lost.
    """

    fault: str
    run: str
    tried: int
    runs: int
    equal: int
    lost: int


def make_rows(courses: Sequence[tuple[str, Course]]) -> list[Row]:
    """A row for each fault and run, in the order of their first course."""
    groups: dict[tuple[str, str], list[Course]] = {}
    for fault, course in courses:
        if course.faults:
            groups.setdefault((fault, course.subject), []).append(course)
    return [
        Row(
            *key,
            tried=sum(len(course.faults) for course in group),
            runs=len(group),
            equal=sum(course.equal for course in group),
            lost=sum(len(course.lost) for course in group),
        )
        for key, group in groups.items()
    ]


def total(rows: Sequence[Row]) -> Row:
    """The sum of all rows."""
    sums = [sum(getattr(row, name) for row in rows) for name in ("tried", "runs", "equal", "lost")]
    return Row("all", "", *sums)


def show_table(rows: Sequence[Row]) -> str:
    """The rows and their sum in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| :-- | :-- | --: | --: | --: | --: |"]
    for row in [*rows, total(rows)]:
        cells = [*map(str, asdict(row).values())]
        cells[-1] = "none" if row.lost == 0 else cells[-1]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def show_moments(courses: Sequence[tuple[str, Course]]) -> str:
    """Where the kills fell, in a sentence."""
    killed = [course for _, course in courses if course.phases]
    phases = [phase for course in killed for phase in course.phases]
    counts = {name: phases.count(name) for name in ("starting", "training", "ending")}
    return (
        f"Of {len(phases)} kills {counts['starting']} fell before the first epoch line of a start, "
        f"{counts['training']} into the epochs and {counts['ending']} after the last one; "
        f"{sum(course.partial for course in killed)} left a file half-written."
    )


def show_changed(changed: dict[str, dict[str, int]]) -> str:
    """What became of images with a changed byte, in a sentence."""
    said = [
        f"of {sum(counts.values())} {name} files {counts['refused']} were refused, "
        f"{counts['same']} gave the same pixels and {counts['other']} gave others"
        for name, counts in (("JPEG", changed["jpg"]), ("PNG", changed["png"]))
    ]
    return "; ".join(said)


def as_json(
    courses: Sequence[tuple[str, Course]],
    changed: dict[str, dict[str, int]],
    *,
    seed: int,
    seconds: float,
    disk: str,
) -> dict[str, Any]:
    """Everything that was tried, with the machine and the date.

    Args:
        courses: by fault.
        changed: images with a changed byte, see :func:`tests.soak.faults.decode_changed`.
        seed: of the moments and places.
        seconds: that it all took.
        disk: how full disks were made.
    """
    where = environment(torch.device("cpu"))
    return {
        "seed": seed,
        "disk": disk,
        "seconds": round(seconds),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": where["versions"] | {"psutil": psutil.__version__},
        "hardware": {
            "processor": where["hardware"]["processor"],
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
        "rows": [asdict(row) for row in make_rows([*courses])],
        "images_with_a_changed_byte": changed,
        "courses": [{"fault": fault} | asdict(course) for fault, course in courses],
    }
