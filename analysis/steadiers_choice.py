"""The rule of docs/choosing-tau.md that recommends a setting: two rounds, decided without the test.

Errors and gains are in points of the balanced error on the difficulty set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import pandas as pd

from analysis.steadiers import (
    GROUPS,
    LAWS,
    Setting,
    gains,
    law_of,
    mean_change,
    steadied_runs,
    steadier_of,
)
from analysis.summary import summarize
from analysis.words import method_name, number, signed

METHODS: Final = ("cdb-w-ce", "cdb-s")
_RIVAL: Final = ("balanced-softmax", "")
_PRINTED: Final = "tau=sigmoid"
_SETTINGS: Final = 25
_DIVERGED: Final = {("cdb-s", f"tau={law} from-epoch") for law in LAWS}
"""On MNIST-LT the loss of one of their runs becomes NaN, which leaves no record."""
_SHORTLISTED: Final = 3

# Of each set, the block that names its group, and the seeds of the first round and of the second.
SETS: Final = {
    "MNIST-LT": ("steadiers-mnist", 2, 10),
    "digit images": ("steadiers-images", 1, 3),
    "motion digits": ("steadiers-clips", 1, 3),
}


@dataclass(frozen=True)
class Gain:
    """A setting's mean error minus cross-entropy's, over the sets; negative is better.

    Attributes:
        mean: over the sets, each of which counts alike.
        error: its standard error over the seeds; NaN with one seed.
        change: mean change of a class's accuracy from epoch to epoch, in points.
    """

    mean: float
    error: float
    change: float


def _set_gain(
    runs: pd.DataFrame, setting: Setting, seeds: int
) -> tuple[float, float, float] | None:
    """Mean, squared standard error and change on one set; None while a seed is missing.

    Conditions count alike: MNIST-LT has two imbalances.
    """
    method, variant = setting
    conditions = sorted(set(runs.loc[runs["method"] == "ce", "condition"]))
    wanted = runs[runs["seed"] < seeds]
    means, squares = [], []
    for condition in conditions:
        pairs = summarize(list(gains(wanted, setting, condition)))
        if pairs.n < seeds:
            return None
        means.append(pairs.mean)
        squares.append(pairs.std**2 / pairs.n)
    if not conditions:
        return None
    same = wanted[(wanted["method"] == method) & (wanted["variant"] == variant)]
    change = fmean(mean_change(record) for record in same["record"])
    return fmean(means), sum(squares) / len(squares) ** 2, change


def _gain(sets: Mapping[str, pd.DataFrame], setting: Setting, place: int) -> Gain | None:
    """Over all sets, with the seeds of a round; None while one of them is missing."""
    found = [_set_gain(sets[name], setting, seeds[place]) for name, (_, *seeds) in SETS.items()]
    complete = [gain for gain in found if gain is not None]
    if len(complete) < len(SETS):
        return None
    means, squares, changes = zip(*complete, strict=True)
    return Gain(fmean(means), math.sqrt(sum(squares)) / len(SETS), fmean(changes))


def _gains(
    sets: Mapping[str, pd.DataFrame], settings: Sequence[Setting], place: int
) -> dict[Setting, Gain]:
    """Of the settings that have all runs of a round, the lowest first."""
    found = {setting: _gain(sets, setting, place) for setting in settings}
    known = {setting: gain for setting, gain in found.items() if gain is not None}
    return dict(sorted(known.items(), key=lambda item: item[1].mean))


def _settings(sets: Mapping[str, pd.DataFrame], method: str) -> list[Setting]:
    """Those of a method that have any run, and whose runs all end."""
    variants = {v for runs in sets.values() for v in runs.loc[runs["method"] == method, "variant"]}
    found = [(method, variant) for variant in sorted(variants)]
    return [setting for setting in found if setting not in _DIVERGED]


def _of_set(frame: pd.DataFrame, block: str) -> pd.DataFrame:
    """A set's runs; a deferred setting has one name on all sets, whatever its epoch there."""
    runs = steadied_runs(frame, GROUPS[block])
    return runs.assign(
        variant=runs["variant"].str.replace(r"from-epoch=\d+", "from-epoch", regex=True)
    )


def _words(setting: Setting) -> str:
    """``CDB-S, τ 1.0, average``; of a method without tau its name."""
    method, variant = setting
    parts = (law_of(variant), steadier_of(variant)) if variant else ()
    return ", ".join([method_name(method), *parts])


def _told(setting: Setting, gain: Gain) -> str:
    return f"{_words(setting)}: {signed(gain.mean)} ± {number(gain.error)}"


def recommended(gains: Mapping[Setting, Gain]) -> Setting:
    """The steadiest of the settings within one standard error of the lowest gain.

    Args:
        gains: of the second round, at least one.
    """
    lowest = min(gains.values(), key=lambda gain: gain.mean)
    equal = {s: g for s, g in gains.items() if g.mean <= lowest.mean + lowest.error}
    return min(equal, key=lambda setting: equal[setting].change)


def _sentences(sets: Mapping[str, pd.DataFrame], method: str) -> list[str]:
    """What the rule says of a method so far."""
    name = method_name(method)
    first = _gains(sets, _settings(sets, method), 0)
    wanted = _SETTINGS - sum(diverged == method for diverged, _ in _DIVERGED)
    if len(first) < wanted:
        return [f"{name}: {len(first)} of {wanted} settings have the runs of the first round."]
    asked = list(dict.fromkeys([*list(first)[:_SHORTLISTED], (method, _PRINTED)]))
    second = _gains(sets, asked, 1)
    if len(second) < len(asked):
        missing = "; ".join(_words(setting) for setting in asked if setting not in second)
        return [f"{name}: the second round has yet to run {missing}."]
    told = "; ".join(_told(setting, gain) for setting, gain in second.items())
    return [
        f"Gain over cross-entropy in points, ± its standard error: {told}.",
        f"**By the rule: {_words(recommended(second))}.**",
    ]


def _rival_sentence(sets: Mapping[str, pd.DataFrame]) -> list[str]:
    """Balanced Softmax beside them, once it has every seed."""
    gain = _gain(sets, _RIVAL, 1)
    return [] if gain is None else [f"Beside them {_told(_RIVAL, gain)}."]


def choice_sentences(frame: pd.DataFrame) -> str:
    """A Markdown list: what the rule recommends, or which runs it waits for.

    Args:
        frame: runs.
    """
    sets = {name: _of_set(frame, block) for name, (block, *_) in SETS.items()}
    lines = [line for method in METHODS for line in _sentences(sets, method)]
    return "\n".join(f"- {line}" for line in [*lines, *_rival_sentence(sets)])
