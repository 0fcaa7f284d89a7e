"""What MNIST-LT says, in sentences whose numbers are made from the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Final

import pandas as pd

from analysis.comparison import paper_summary
from analysis.readings import readings_group
from analysis.records import paper_runs
from analysis.summary import Summary, summarize
from analysis.words import MISSING, number, signed

DATASET: Final = "mnist-lt"
CONDITIONS: Final = ("99", "199")
NEAR: Final = {"CE": ("ce", ""), "CFS": ("cfs", ""), "CB": ("cb", ""), "focal": ("focal", "")}
"""The baselines that the reading was chosen by."""
OTHERS: Final = {"EQL": ("eql", ""), "L2RW": ("l2rw", "")}
PRINTED: Final = {"CDB-W-CE": ("cdb-w-ce", "tau=sigmoid"), "CDB-S": ("cdb-s", "tau=sigmoid")}
"""The paper's own methods, as printed: Eq. 10."""
_TWO: Final = "tau=2.0"
_SWEEPS: Final = {"cdb-w-ce": 2, "cdb-s": 3}
"""The tables with every law of tau."""
_ONE_ANSWER: Final = 50.0
"""Test error in % of a network that always gives one answer."""


def span(values: Sequence[float], digits: int = 0) -> str:
    """``18 to 31``; one number where there is one."""
    ends = dict.fromkeys(number(end(values), digits) for end in (min, max)) if values else [MISSING]
    return " to ".join(ends)


@dataclass(frozen=True)
class Findings:
    """The runs that the sentences are about, and what is asked of them."""

    frame: pd.DataFrame

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Those beside the paper's rows."""
        return paper_runs(self.frame, DATASET)

    def error(self, run: tuple[str, str], condition: str, epoch: str = "last") -> Summary:
        """Mean test error of one cell."""
        runs = self.runs
        same = (runs["method"] == run[0]) & (runs["variant"] == run[1])
        return summarize(list(runs[same & (runs["condition"] == condition)][f"error_{epoch}"]))

    def paper(self, run: tuple[str, str], condition: str) -> float:
        """The paper's error; NaN where it has none."""
        table = _SWEEPS[run[0]] if run[1] == _TWO else 1
        return paper_summary(table, DATASET, (*run, condition)).mean

    def papers(self, run: tuple[str, str]) -> str:
        """``the paper 2.39 at 99 and 3.71 at 199``."""
        return f"the paper {_both([number(self.paper(run, c)) for c in CONDITIONS])}"

    def averaged(self, variant: str) -> str:
        """Both methods with a law of tau and the average, and the paper's without it."""
        texts = []
        for name, (method, _) in PRINTED.items():
            errors = self.errors((method, f"{variant} average=0.9"))
            texts.append(f"{name} {errors} ({self.papers((method, variant))})")
        return ", ".join(texts)

    def gaps(self, named: dict[str, tuple[str, str]]) -> str:
        """Ours at the last epoch minus the paper's: ``CE −0.2 at 99 and −0.1 at 199, ...``."""
        texts = []
        for name, run in named.items():
            far = [self.error(run, c).mean - self.paper(run, c) for c in CONDITIONS]
            texts.append(f"{name} {_both([signed(points, 1) for points in far])}")
        return ", ".join(texts)

    def errors(self, run: tuple[str, str], epoch: str = "last") -> str:
        """``6.21 ± 1.96 (5) at 99 and 8.84 ± 2.67 (5) at 199``."""
        return _both([self.error(run, condition, epoch).with_n() for condition in CONDITIONS])

    def fallen(self, method: str) -> str:
        """Of a method's runs without a steadier, those whose network always gives one answer."""
        counts = []
        for condition in CONDITIONS:
            runs = self.runs[self.runs["method"] == method]
            # A variant of one word names the law of tau alone.
            plain = ~runs["variant"].str.contains(" ")
            runs = runs[plain & (runs["condition"] == condition)]
            counts.append(f"{(runs['error_last'] == _ONE_ANSWER).sum()} of {len(runs)}")
        return _both(counts)

    def readings(self, condition: str, **settings: str) -> list[float]:
        """Errors on the difficulty set of CE's readings with these settings, each its mean."""
        runs = self.frame[self.frame["group"] == readings_group(DATASET)]
        runs = runs[(runs["method"] == "ce") & (runs["condition"] == condition)]
        chosen: dict[tuple[str, ...], list[float]] = {}
        for config, error in zip(runs["config"], runs["difficulty_error_last"], strict=True):
            if all(config[name] == value for name, value in settings.items()):
                key = tuple(str(config[name]) for name in _READING)
                chosen.setdefault(key, []).append(float(error))
        return [fmean(errors) for errors in chosen.values()]


_READING: Final = ("architecture", "initialisation", "input_scaling", "loss_reduction")


def _both(texts: Sequence[str]) -> str:
    """``a at 99 and b at 199``."""
    return " and ".join(
        f"{t} at {condition}" for t, condition in zip(texts, CONDITIONS, strict=True)
    )


def mnist_findings(frame: pd.DataFrame) -> str:
    """The sentences, a numbered list in Markdown; without runs one that says so."""
    found = Findings(frame)
    if found.runs.empty:
        return "No run of MNIST-LT is recorded yet."
    weighted, sampled = PRINTED.values()
    sentences = [
        f"Ours minus the paper's at the last epoch, in points: {found.gaps(NEAR)}.",
        f"Likewise {found.gaps(OTHERS)}; runs of L2RW that end with a network that always gives "
        f"one answer: {found.fallen('l2rw')}.",
        f"CDB-W-CE as printed has {found.errors(weighted)} ({found.papers(weighted)}); with any "
        "law of τ and no steadier the network always gives one answer at the end in "
        f"{found.fallen('cdb-w-ce')} runs.",
        f"CDB-S as printed has {found.errors(sampled)} at the last epoch, "
        f"{found.errors(sampled, 'best')} at the best one of the difficulty set "
        f"({found.papers(sampled)}); one answer at the end in {found.fallen('cdb-s')} runs.",
        "With the average of the accuracies over the epochs, 0.9, which the paper does not have: "
        f"by Eq. 10 {found.averaged(weighted[1])}; with τ 2 {found.averaged(_TWO)}.",
    ]
    return "\n".join(f"{i}. {text}" for i, text in enumerate(sentences, 1))


def readings_findings(frame: pd.DataFrame) -> str:
    """What CE's readings end at, in a sentence."""
    found = Findings(frame)
    mean = {"architecture": "lenet5", "loss_reduction": "batch-size"}
    unit, standardised, stored = (
        [found.readings(c, **mean, input_scaling=scaling) for c in CONDITIONS]
        for scaling in ("unit", "standardise", "raw")
    )
    summed = {"architecture": "lenet5", "loss_reduction": "sum"}
    kinds = {
        "with the mean and pixels in [0, 1] or standardised": [
            a + b for a, b in zip(unit, standardised, strict=True)
        ],
        "with the mean and pixels as stored": stored,
        "with the sum": [found.readings(c, **summed) for c in CONDITIONS],
    }
    ren = [span(found.readings(c, architecture="lenet-ren"), 1) for c in CONDITIONS]
    texts = [f"{kind} {_both([span(e, 1) for e in errors])}" for kind, errors in kinds.items()]
    return (
        "Error of CE on the difficulty set at the last epoch, in %, lowest to highest: LeNet-5 "
        f"{'; '.join(texts)}; the network of Ren et al., with the mean, {_both(ren)}."
    )
