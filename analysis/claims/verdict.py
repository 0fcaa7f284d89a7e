"""What the records can say about a claim, and how a verdict follows from an interval."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from analysis.summary import Difference

MIN_SEEDS: Final = 3
CLOSE: Final = 1.0
"""Points of error up to which one method counts as 'close to' or 'tied with' another: a little less
than twice the largest spread over runs in the paper's Tables 2 and 3 at imbalance 99 (std 0.57)."""
# So many differences that leave a claim undecided are named.
NAMED: Final = 3


class Verdict(StrEnum):
    """What the records say about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on: differences, and remarks on what is missing."""

    verdict: Verdict
    evidence: tuple[str, ...] = ()
    condition: str = ""

    def __str__(self) -> str:
        """``99 holds: CDB-S − CFS = −1.20 [−1.90, −0.50], n = 5``."""
        heading = f"{self.condition} {self.verdict}".strip()
        return ":\n".join(filter(None, [heading, "\n".join(self.evidence)]))


NOT_RUN: Final = Judgement(Verdict.NOT_RUN)


def is_below(difference: Difference | None, bound: float = 0.0) -> Verdict:
    """Decide 'the difference is below ``bound``': the whole interval must lie on one side of it."""
    if difference is None:
        return Verdict.NOT_RUN
    if difference.n < MIN_SEEDS:
        return Verdict.UNDECIDED
    if difference.high < bound:
        return Verdict.HOLDS
    return Verdict.FAILS if difference.low > bound else Verdict.UNDECIDED


_OPPOSITE: Final = {Verdict.HOLDS: Verdict.FAILS, Verdict.FAILS: Verdict.HOLDS}


def is_above(difference: Difference | None, bound: float = 0.0) -> Verdict:
    """Decide 'the difference is above ``bound``', as :func:`is_below`."""
    verdict = is_below(difference, bound)
    return _OPPOSITE.get(verdict, verdict)


def is_close_or_below(difference: Difference | None) -> Verdict:
    """Decide 'the difference is below :data:`CLOSE`', a test of non-inferiority.

    An interval that merely includes 0 shows nothing: noise widens it. It has to be narrow enough
    to exclude a difference of :data:`CLOSE`.
    """
    return is_below(difference, CLOSE)


def all_hold(verdicts: Iterable[Verdict]) -> Verdict:
    """Join the parts of one claim; a part that was not run leaves the others' claim undecided."""
    parts = set(verdicts)
    if Verdict.FAILS in parts:
        return Verdict.FAILS
    if len(parts) == 1:
        return parts.pop()
    return Verdict.UNDECIDED if parts else Verdict.NOT_RUN


def join(judgements: Sequence[Judgement]) -> Judgement:
    """One judgement over several conditions."""
    verdict = all_hold(judgement.verdict for judgement in judgements)
    if verdict is Verdict.NOT_RUN:
        return NOT_RUN
    return Judgement(verdict, tuple(map(str, judgements)))


def missing(names: Iterable[str]) -> tuple[str, ...]:
    """``no runs of EQL, L2RW``; nothing when there are no names."""
    text = ", ".join(names)
    return (f"no runs of {text}",) if text else ()
