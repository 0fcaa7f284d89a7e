"""What MNIST-LT says, in sentences whose numbers are made from the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean
from typing import Final

import pandas as pd

from analysis.comparison import paper_summary
from analysis.readings import readings_group
from analysis.records import Record, paper_runs
from analysis.summary import Summary, summarize
from analysis.words import MISSING, number, signed

DATASET: Final = "mnist-lt"
CONDITIONS: Final = ("99", "199")
CE, FOCAL, EQL, L2RW = ("ce", ""), ("focal", ""), ("eql", ""), ("l2rw", "")
CDB_S, CDB_W = ("cdb-s", "tau=sigmoid"), ("cdb-w-ce", "tau=sigmoid")
ACCV: Final = ("cdb-w-ce", "tau=sigmoid-accv")
SWING: Final = 0.2
"""By so much the tail's accuracy differs from that of the epoch before in a swing."""
_ALL_HEAD: Final = 50.0
"""Test error in % of a network that always gives one answer."""
_TAIL: Final = 1


def swings(record: Record) -> int:
    """Epochs whose tail accuracy on the difficulty set is far from that of the epoch before."""
    tail = [accuracy[_TAIL] for accuracy in record["history"]["class_accuracy"]]
    return sum(abs(b - a) > SWING for a, b in pairwise(tail))


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

    def of(self, run: tuple[str, str], condition: str) -> pd.DataFrame:
        """The runs of one cell."""
        runs = self.runs
        same = (runs["method"] == run[0]) & (runs["variant"] == run[1])
        return runs[same & (runs["condition"] == condition)]

    def error(self, run: tuple[str, str], condition: str, epoch: str = "last") -> Summary:
        """Mean test error."""
        return summarize(list(self.of(run, condition)[f"error_{epoch}"]))

    def paper(self, run: tuple[str, str], condition: str) -> float:
        """The paper's error; NaN where it has none."""
        return paper_summary(1, DATASET, (*run, condition)).mean

    def gap(self, run: tuple[str, str], condition: str) -> str:
        """Ours at the last epoch minus the paper's."""
        return signed(self.error(run, condition).mean - self.paper(run, condition), 1)

    def swings(self, run: tuple[str, str], condition: str) -> str:
        """Fewest to most swings of a run."""
        return span([swings(record) for record in self.of(run, condition)["record"]])

    def losses(self, condition: str) -> list[float]:
        """Mean training loss of the last epoch of CE's and focal's runs."""
        records = [r for run in (CE, FOCAL) for r in self.of(run, condition)["record"]]
        return [float(record["history"]["loss"][-1]) for record in records]

    def fallen(self) -> str:
        """The runs of L2RW in which the network always gives one answer: how many, and which."""
        runs = pd.concat([self.of(L2RW, condition) for condition in CONDITIONS])
        fallen = runs[runs["error_last"] == _ALL_HEAD]
        pairs = zip(fallen["condition"], fallen["seed"], strict=True)
        where = "; ".join(f"at {condition}, seed {seed}" for condition, seed in pairs)
        return f"{len(fallen)} of {len(runs)} runs of L2RW" + (f" ({where})" if where else "")

    def above_best(self, condition: str) -> str:
        """CDB-W-CE's mean error at the last epoch minus that at the best one."""
        last, best = (self.error(CDB_W, condition, epoch).mean for epoch in ("last", "best"))
        return number(last - best, 1)

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


def _both(texts: Sequence[str], unit: str = "") -> str:
    """``a at 99 and b at 199``."""
    return " and ".join(
        f"{text}{unit} at {condition}" for text, condition in zip(texts, CONDITIONS, strict=True)
    )


def mnist_findings(frame: pd.DataFrame) -> str:
    """The sentences, a numbered list in Markdown; without runs one that says so."""
    found = Findings(frame)
    if found.runs.empty:
        return "No run of MNIST-LT is recorded yet."
    losses = [loss for condition in CONDITIONS for loss in found.losses(condition)]
    each = {name: [found.swings(run, c) for c in CONDITIONS] for name, run in _SWINGING.items()}
    accv = [found.error(ACCV, c).with_n() for c in CONDITIONS]
    printed = [found.error(CDB_W, c).with_n() for c in CONDITIONS]
    best = [f"{found.error(CDB_S, c, 'best').with_n()} (paper "
            f"{number(found.paper(CDB_S, c))})" for c in CONDITIONS]  # fmt: skip
    sentences = [
        "Ours minus the paper's at the last epoch, in points: CE "
        f"{_both([found.gap(CE, c) for c in CONDITIONS])}, focal "
        f"{_both([found.gap(FOCAL, c) for c in CONDITIONS])}, EQL "
        f"{_both([found.gap(EQL, c) for c in CONDITIONS])}.",
        "The mean training loss of the last epoch is at most "
        f"{f'{max(losses):.3g}' if losses else MISSING} in every run of CE and focal.",
        f"Epochs in which the accuracy of the tail on the difficulty set differs by more than "
        f"{SWING} from the epoch before, fewest to most in a run: "
        + "; ".join(f"{name} {_both(texts)}" for name, texts in each.items())
        + ".",
        "The last epoch of CDB-W-CE is above its best epoch by "
        f"{_both([found.above_best(c) for c in CONDITIONS], ' points')}.",
        f"At the best epoch of the difficulty set CDB-S has an error of {_both(best)}.",
        f"In {found.fallen()} the network always gives one answer at the end.",
        f"CDB-W-CE with sigmoid-accv (τ at most 2) has {_both(accv)}, with Eq. 10 (τ up to 5) "
        f"{_both(printed)}.",
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


_SWINGING: Final = {"CDB-W-CE": CDB_W, "CDB-S": CDB_S, "CE": CE}
