"""What differs between two fingerprints of a case, in words."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

_SHOWN = 6
_ABSENT = "absent"


def is_ignored(key: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern is of this place, from any of its parts on.

    >>> is_ignored("resumed/record/history/tau", ["history/tau"])
    True
    """
    return any(fnmatchcase(f"/{key}", f"*/{pattern}") for pattern in patterns)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], ignored: Iterable[str] = ()
) -> list[str]:
    """A line for each part that differs, such as 'record/history/loss: was ..., is ...'.

    Of weights the first few are named, and the number of all; of a checkpoint's tensors those that
    are no longer there and those that are new.
    """
    patterns = list(ignored)
    keys = [key for key in {**before, **now} if not is_ignored(key, patterns)]
    different = [k for k in keys if before.get(k, _ABSENT) != now.get(k, _ABSENT)]
    of_weights = [key for key in different if _is_weight(key)]
    lines = [
        line
        for key in different
        if key not in of_weights
        for line in _lines(key, before.get(key, _ABSENT), now.get(key, _ABSENT))
    ]
    return lines + list(_summaries(of_weights, keys))


def _is_weight(key: str) -> bool:
    return key.removeprefix("first/").removeprefix("resumed/").startswith("weights/")


def _lines(key: str, before: Any, now: Any) -> Iterator[str]:
    of_tensors = key.endswith("checkpoint") and isinstance(before, list) and isinstance(now, list)
    if not of_tensors:
        yield f"{key}: was {before}, is {now}"
        return
    tensors_before, tensors_now = Counter(before), Counter(now)
    changes = {"no longer there": tensors_before - tensors_now, "new": tensors_now - tensors_before}
    for what, counted in changes.items():
        if tensors := [*counted.elements()]:
            yield f"{key}: {len(tensors)} tensors {what}: {_some(tensors)}"


def _summaries(different: list[str], keys: list[str]) -> Iterator[str]:
    """A line for the weights of each run."""
    for part, group in groupby(sorted(different), key=lambda k: k.partition("weights/")[0]):
        names = [key.partition("weights/")[2] for key in group]
        total = sum(_is_weight(key) and key.partition("weights/")[0] == part for key in keys)
        yield f"{part}weights: {len(names)} of {total} tensors: {_some(names)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
