"""The paper's claims on LVIS (L1-L4), and their wording without the paper's numbers.

The same tests ask the rendered demo, whose weights begin otherwise
(:class:`analysis.detection.Starts`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from analysis.claims.cells import Cells, Run
from analysis.claims.errors import Test, beside_claimed, highest_of
from analysis.claims.verdict import CLOSE, Judgement, all_hold, is_above
from analysis.detection import (
    BOXES,
    DEMO_STARTS,
    LVIS_STARTS,
    MASKS,
    Starts,
    paper_runs_of,
    paper_values,
)
from analysis.summary import Difference
from analysis.words import method_name, number

_CLC: Final = ("lrw-clc", "bags-clc")
_NAMES: Final = {"bbox": "boxes", "segm": "masks"}


def boxes_condition(cells: Cells) -> str:
    """Runs of which task decide on boxes: those of Table 5.

    Of the demo, where no detector was trained for boxes alone, those with masks.
    """
    run = set(cells.rows["condition"])
    return BOXES if cells.beside_paper or BOXES in run else MASKS


def _heading(name: str, condition: str) -> str:
    """A judgement's name; says of which detectors it is when these are not Table 5's."""
    return ", ".join(filter(None, [name, "Mask R-CNN" if condition == MASKS else ""]))


@dataclass(frozen=True)
class Comparison:
    """Two runs of ours, and the paper's differences of the same two.

    Attributes:
        first: method and variant.
        second: method and variant.
        claimed: the paper's first minus second in points, by metric.
    """

    first: Run
    second: Run
    claimed: Mapping[str, float]

    def differences(
        self, metrics: Iterable[str], condition: str, cells: Cells
    ) -> dict[str, Difference | None]:
        """Ours, by metric; None without a common run."""
        return {m: cells.difference(self.first, self.second, condition, m) for m in metrics}

    def evidence(self, found: Mapping[str, Difference | None], cells: Cells) -> tuple[str, ...]:
        """Each difference that was found, beside the paper's where that may stand."""
        pairs = [(d, self.claimed[m]) for m, d in found.items() if d is not None]
        return tuple(beside_claimed(ours, papers, cells) for ours, papers in pairs)


def higher(runs: Comparison, metrics: Sequence[str], name: str, cells: Cells) -> Judgement:
    """Each of ``metrics`` of boxes is higher with the first than with the second (L1, L3).

    The sign is judged, the size is reported.

    Args:
        runs: the two.
        metrics: of :data:`analysis.records.AP_METRICS`.
        name: the judgement's.
        cells: of our runs.
    """
    condition = boxes_condition(cells)
    found = runs.differences(metrics, condition, cells)
    verdict = all_hold(is_above(difference) for difference in found.values())
    return Judgement(verdict, runs.evidence(found, cells), _heading(name, condition))


def best_row(method: Run, others: Sequence[Run], metric: str, cells: Cells) -> Judgement:
    """``metric`` of boxes is the highest of Table 5 (L2)."""
    condition = boxes_condition(cells)
    judgement = highest_of(method, others, metric, condition, cells)
    return replace(judgement, condition=_heading(judgement.condition, condition))


def higher_without_loss(kind: str, runs: Comparison, cells: Cells) -> Judgement:
    """AP is higher, and the frequent categories lose nothing (L4).

    'No loss' is decided as 'close to': the interval has to exclude a loss of :data:`CLOSE` points.
    What the rare and common categories gain is reported.

    Args:
        kind: ``bbox`` or ``segm``.
        runs: the two.
        cells: of our runs.
    """
    metrics = [f"{kind}_{average}" for average in ("AP", "APr", "APc", "APf")]
    found = runs.differences(metrics, MASKS, cells)
    whole, frequent = found[metrics[0]], found[metrics[-1]]
    verdict = all_hold([is_above(whole), is_above(frequent, -CLOSE)])
    evidence = runs.evidence(found, cells)
    if frequent is not None:
        evidence += (f"no loss: the last interval has to lie above {number(-CLOSE, 1)}",)
    return Judgement(verdict, evidence, _NAMES[kind])


def _comparison(table: int, first: Run, second: Run, ours: tuple[Run, Run]) -> Comparison:
    """Two runs of ours for two rows of the paper."""
    a, b = paper_values(table, *first), paper_values(table, *second)
    return Comparison(*ours, {metric: a[metric] - b[metric] for metric in a if metric in b})


def tests_of(starts: Starts) -> dict[str, tuple[Test, ...]]:
    """The tests by claim, of runs whose weights begin as ``starts`` says."""

    def here(run: Run) -> Run:
        return run[0], starts.translate(run[1])

    def beside(first: Run, second: Run) -> Comparison:
        return _comparison(5, first, second, (here(first), here(second)))

    detector, from_ce = LVIS_STARTS.detector, LVIS_STARTS.classifier("ce")
    from_cdb = LVIS_STARTS.classifier("cdb-w-ce")
    best = ("cdb-w-ce-clc", from_cdb)
    others = tuple(here(run) for run in paper_runs_of(5) if run != best)
    gain = beside(("cdb-w-ce", detector), ("ce", detector))
    # Table 6 does not say which CDB-W-CE it has: taken is the best of Table 5.
    pair = here(best), here(("bags-clc", from_ce))
    masks = _comparison(6, ("cdb-w-ce", ""), ("bags", ""), pair)
    return {
        "L1": (partial(higher, gain, ("bbox_AP", "bbox_APr"), ""),),
        "L2": tuple(partial(best_row, here(best), others, m) for m in ("bbox_AP", "bbox_APr")),
        "L3": tuple(
            partial(higher, beside((m, from_cdb), (m, from_ce)), ("bbox_AP",), method_name(m))
            for m in _CLC
        ),
        "L4": tuple(partial(higher_without_loss, kind, masks) for kind in _NAMES),
    }


TESTS: Final = tests_of(LVIS_STARTS)
DEMO_TESTS: Final = tests_of(DEMO_STARTS)
QUESTIONS: Final = {
    "L1": "CDB-W-CE has a higher AP and AP_r than CE",
    "L2": "CDB-W-CE-clc from a CDB-W-CE model has the best AP and AP_r",
    "L3": "LRW-clc and BAGS-clc have a higher AP from a CDB-W-CE model than from a CE model",
    "L4": "CDB-W-CE has a higher box and mask AP than BAGS, with no loss on frequent categories",
}
"""What is asked where the paper's numbers may not stand."""
