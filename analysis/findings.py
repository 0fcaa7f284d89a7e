"""What CIFAR100-LT says, in sentences whose numbers are made from the records."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pandas as pd

from analysis.comparison import Cell, cells_of, error_table, paper_summary, tables_of
from analysis.records import Record, paper_runs
from analysis.summary import Summary, errors_by_seed, paired_difference, summarize
from analysis.weight_decay import DATASET, cell_name, decay_runs
from analysis.words import number, run_name, signed
from common.training.record import STEADIERS

CONDITION: Final = "100"
PRINTED, CODE = 0.0001, 0.0005
ACCV: Final = ("cdb-w-ce", "tau=sigmoid-accv")
CE: Final = ("ce", "")
# They give no class a weight or a share of its own, LDAM-DRW not before the rate drops.
_PLAIN: Final = ("ce", "focal", "eql", "ldam-drw")


@dataclass(frozen=True)
class Findings:
    """The runs that the sentences are about, and what is asked of them."""

    frame: pd.DataFrame

    @cached_property
    def runs(self) -> pd.DataFrame:
        """At imbalance 100, with nothing but the weight decay departing from the recipe."""
        runs = decay_runs(self.frame, every=True)
        steadied = [any(config.get(name) for name in STEADIERS) for config in runs["config"]]
        as_written = (runs["other"] == "") & ~pd.Series(steadied, runs.index, dtype=bool)
        return runs[(runs["condition"] == CONDITION) & as_written]

    def values(self, run: tuple[str, str], decay: float, column: str = "error_last") -> pd.Series:
        """One cell's numbers, indexed by seed and split."""
        of_decay = self.runs[self.runs["weight_decay"] == decay]
        return errors_by_seed(of_decay, *run, CONDITION, column)

    def mean(self, run: tuple[str, str], decay: float, column: str = "error_last") -> Summary:
        """Mean over the seeds."""
        return summarize(list(self.values(run, decay, column)))

    def fall(self, run: tuple[str, str], column: str) -> str:
        """By how much a method's error falls from the printed weight decay to the code's."""
        printed, code = (self.values(run, decay, column) for decay in (PRINTED, CODE))
        found = paired_difference("", printed, code)
        return "–" if found is None else f"{number(found.mean)} (n = {found.n})"

    def lead(self, decay: float, column: str) -> str:
        """CDB-W-CE minus CE, of the same seeds, with the number of pairs."""
        pair = (self.values(run, decay, column) for run in (ACCV, CE))
        found = paired_difference("", *pair)
        return "–" if found is None else f"{signed(found.mean)} (n = {found.n})"

    def gaps(self, methods: Callable[[str], bool]) -> str:
        """``CE +1.5, ...``: ours minus the paper's, by the written recipe."""
        runs = paper_runs(self.frame, DATASET)
        texts = []
        for cell in cells_of(runs[runs["condition"] == CONDITION]):
            paper = paper_summary(1, DATASET, cell).mean
            if paper == paper and methods(cell[0]):
                ours = summarize(list(errors_by_seed(runs, *cell, "error_last"))).mean
                texts.append((ours - paper, f"{run_name(*cell[:2])} {signed(ours - paper, 1)}"))
        return ", ".join(text for _, text in sorted(texts))

    def second_stages(self, decay: float, stage1: str) -> str:
        """Smallest to largest test error of Table 4's second stages after a method."""
        runs = self.runs[self.runs["weight_decay"] == decay]
        of_first = runs["variant"].str.partition(",")[0] == f"stage1={stage1}"
        of_table = runs["method"].isin({cell[0] for cell in _cells(4)})
        return _range(list(runs[of_first & of_table]["error_last"]))

    def after_weights(self, decay: float) -> str:
        """Second stages after CDB-W-CE minus the same ones after CE, of the same seed."""
        runs = self.runs[self.runs["weight_decay"] == decay]
        # The same second stage has the same classifier, method, tau and seed.
        first = runs["variant"].str.extract(r"^stage1=([^,]*)(.*)$")
        runs = runs.assign(first=first[0], tau=first[1]).dropna(subset="first")
        errors = runs.pivot(index=["method", "tau", "seed"], columns="first", values="error_last")
        pairs = (errors["cdb-w-ce"] - errors["ce"]).dropna() if "cdb-w-ce" in errors else errors
        return f"{signed(float(pairs.mean()))} (pairs: {len(pairs)})" if len(pairs) else "–"

    @property
    def papers_second_stages(self) -> str:
        """The same of the paper's Table 4, after CE."""
        cells = [c for c in _cells(4) if c[1] == "stage1=ce" and c[2] == CONDITION]
        return _range([paper_summary(4, DATASET, cell).mean for cell in cells])

    @property
    def papers_best(self) -> str:
        """The lowest error of the paper's tables at this imbalance."""
        cells = [(t, c) for t in tables_of(DATASET) for c in _cells(t) if c[2] == CONDITION]
        return number(min(paper_summary(table, DATASET, cell).mean for table, cell in cells))

    @property
    def best(self) -> tuple[str, str]:
        """The run with the lowest error on the difficulty set, and its test error."""
        row = self.runs.loc[self.runs["difficulty_error_last"].idxmin()]
        return cell_name(row["cell"], row["other"]), number(row["error_last"])

    @property
    def trade(self) -> str:
        """What CDB-W-CE gives and takes by shot group at the code's weight decay."""
        texts = []
        for shot in ("many", "medium", "few"):
            pair = (self.values(run, CODE, f"{shot}_last") for run in (ACCV, CE))
            found = paired_difference("", *pair)
            texts.append(f"{shot} {signed(found.mean, 1)} (n = {found.n})" if found else "–")
        return ", ".join(texts)

    @property
    def saturated(self) -> str:
        """In how many runs of CDB every epoch leaves some class at accuracy 0."""
        records: list[Record] = [r for r in self.runs["record"] if "+" not in r["method"]]
        # No other method has a tau.
        cdb = [r for r in records if r["config"].get("tau") is not None]
        zero = [all(min(row) == 0 for row in r["history"]["class_accuracy"]) for r in cdb]
        return f"{sum(zero)} of {len(zero)}"


def _range(errors: list[float]) -> str:
    """``55.4 to 57.8``, one number where there is one."""
    ends = dict.fromkeys(number(end(errors), 1) for end in (min, max)) if errors else {"–": None}
    return " to ".join(ends)


def _cells(table: int) -> list[Cell]:
    return cells_of(error_table(table, DATASET))


def cifar100_findings(frame: pd.DataFrame) -> str:
    """The sentences, a numbered list in Markdown; without runs one that says so."""
    found = Findings(frame)
    ce, code = found.mean(CE, PRINTED, "loss"), found.mean(CE, CODE, "loss")
    if not (ce.n and code.n):
        return "No run of both weight decays is recorded yet."
    test, held_out = "error_last", "difficulty_error_last"
    best, best_error = found.best
    ce_of_paper = paper_summary(1, DATASET, ("ce", "", CONDITION)).mean
    lead_of_paper = paper_summary(1, DATASET, ("cdb-w-ce", "tau=sigmoid", CONDITION)).mean
    lead_of_paper -= ce_of_paper
    sentences = [
        "By the written recipe (weight decay 1e-4), ours minus the paper's, in points, of the "
        "methods that give no class a weight or a share of its own before the rate drops: "
        f"{found.gaps(lambda m: m in _PLAIN)}.",
        "Of those that weigh samples or change what is drawn from the first epoch on: "
        f"{found.gaps(lambda m: m not in _PLAIN)}.",
        f"Five epochs before the rate drops the training loss of CE is {number(ce.mean)} at 1e-4 "
        f"(n = {ce.n}) and {number(code.mean)} at 5e-4 (n = {code.n}).",
        f"From 1e-4 to 5e-4 the test error of CE falls by {found.fall(CE, test)} points and that "
        f"of CDB-W-CE (τ sigmoid-accv) by {found.fall(ACCV, test)}; on the difficulty set by "
        f"{found.fall(CE, held_out)} and {found.fall(ACCV, held_out)}.",
        f"CDB-W-CE minus CE is {signed(lead_of_paper)} points in the paper; with one recipe for "
        f"both it is {found.lead(CODE, test)} on the test set and {found.lead(CODE, held_out)} on "
        f"the difficulty set at 5e-4, {found.lead(PRINTED, test)} and "
        f"{found.lead(PRINTED, held_out)} at 1e-4.",
        f"CE has {found.mean(CE, PRINTED).with_n()} at 1e-4 and {found.mean(CE, CODE).with_n()} at "
        f"5e-4; the paper's row is {number(ce_of_paper)}.",
        "At 5e-4 difficulty weights change the accuracy by shot group, in points, by: "
        f"{found.trade}.",
        f"Second stages after CE end at {found.second_stages(CODE, 'ce')} % at 5e-4 and at "
        f"{found.second_stages(PRINTED, 'ce')} at 1e-4, where Table 4 has "
        f"{found.papers_second_stages}; the same ones after CDB-W-CE minus after CE: "
        f"{found.after_weights(CODE)} points at 5e-4, {found.after_weights(PRINTED)} at 1e-4.",
        f"The best of all these runs on the difficulty set is {best}, with {best_error} % on the "
        f"test set; the lowest number of the paper's tables here is {found.papers_best}.",
        f"In {found.saturated} CDB runs some class has accuracy 0 after every epoch, so that the "
        "bias (Eq. 5) is near its bound and tau a constant: 5 by Eq. 10, 2 by sigmoid-accv, 1 by "
        "sigmoid-code.",
    ]
    return "\n".join(f"{i}. {text}" for i, text in enumerate(sentences, 1))
