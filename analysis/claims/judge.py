"""Which claim is decided by which tests, and the tables of verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pandas as pd

from analysis import detection, images, verbs
from analysis.claims import cifar100, egtea, imagenet, lvis, mnist
from analysis.claims.cells import Cells
from analysis.claims.errors import Test
from analysis.claims.shot_tests import MONOTONE, NEARLY_ALL
from analysis.claims.verdict import CLOSE, MIN_SEEDS, NOT_RUN, Judgement, Verdict, join
from analysis.comparison import tables_of
from analysis.grid import Grid
from analysis.records import EPOCHS, group_runs, paper_claims, paper_runs
from analysis.words import MISSING, dataset_name, schedule_name

TESTS: Final[dict[str, tuple[Test, ...]]] = (
    mnist.TESTS | cifar100.TESTS | imagenet.TESTS | lvis.TESTS | egtea.TESTS
)

_LOWER_RULE: Final = (
    "'Lower' holds when the whole interval lies below 0, does not hold when it lies above 0, else "
    "is undecided"
)
_PAIRING: Final = (
    "Differences of test errors are in points and paired by seed and data split, with their 95 % "
    "t-interval; "
    f"n is the number of such pairs, and fewer than {MIN_SEEDS} decide nothing. {_LOWER_RULE}"
)
_NOT_MONOTONE: Final = (
    f"'not monotone' (C11): the rank correlation's interval, over classes, lies below {MONOTONE}, "
    "and a few-shot class lies above the many-shot median."
)
_OUR_NUMBERS: Final = (
    f"'Nearly all the time' (C8, C9) is at least {100 * NEARLY_ALL:.0f} % of the epochs; "
    f"{_NOT_MONOTONE} Intervals are not corrected for the number of comparisons."
)


@dataclass(frozen=True)
class Demo:
    """The claims of one data set of the paper, asked on the data that we render in its place.

    Attributes:
        dataset: the rendered data set, which is also its group.
        stands_for: the paper's data set in a few words.
        tests: by claim.
        questions: the claims' wording without the paper's numbers.
        epochs: of :data:`analysis.records.EPOCHS` those that the runs are measured at.
        rule: what 'holds' means.
    """

    dataset: str
    stands_for: str
    tests: Mapping[str, Sequence[Test]]
    questions: Mapping[str, str]
    epochs: Sequence[str]
    rule: str


_BEST_RULE: Final = (
    "'Best' holds when the whole interval to every other method lies above 0, does not hold when "
    "one lies below 0, else is undecided"
)
DEMOS: Final = {
    demo.dataset: demo
    for demo in (
        Demo(
            verbs.DEMO, "EGTEA", egtea.TESTS, egtea.QUESTIONS, EPOCHS,
            f"{_BEST_RULE}; 'gains' likewise.",
        ),
        Demo(
            detection.DEMO, "LVIS", lvis.DEMO_TESTS, lvis.QUESTIONS, ("last",),
            f"{_BEST_RULE}; 'higher' likewise; 'no loss' likewise with −{CLOSE:.1f} in place of 0.",
        ),
        Demo(
            images.DEMO, "ImageNet-LT", imagenet.DEMO_TESTS, imagenet.QUESTIONS, EPOCHS,
            f"{_LOWER_RULE}; {_NOT_MONOTONE}",
        ),
    )
}  # fmt: skip
"""By the rendered data set."""


def _judge(tests: Sequence[Test], cells: Cells) -> Judgement:
    judgements = [test(cells) for test in tests]
    if len(judgements) == 1 and not judgements[0].condition:
        return judgements[0]
    return join(judgements)


def judge(claim: str, runs: pd.DataFrame, epoch: str) -> Judgement:
    """Decide one claim.

    Args:
        claim: its id in the paper's claims, such as ``M1``; one without a test is 'not run'.
        runs: that decide it (:func:`analysis.records.paper_runs`).
        epoch: ``last`` or ``best``.
    """
    if claim not in TESTS or runs.empty:
        return NOT_RUN
    return _judge(TESTS[claim], Cells(runs, epoch))


def _cells(judgements: Sequence[Judgement]) -> tuple[str, ...]:
    """Verdict and evidence of each, as text."""
    texts = [t for j in judgements for t in (j.verdict, "\n".join(j.evidence) or MISSING)]
    return tuple(map(str, texts))


def _header(epochs: Sequence[str] = EPOCHS) -> tuple[str, ...]:
    """A verdict and its evidence at each epoch."""
    return tuple(
        text for e in epochs for text in (f"{e.capitalize()} epoch", f"Evidence, {e} epoch")
    )


def _where(dataset: str) -> str:
    """A data set of Tables 1-4 by its name, one of Tables 5-8 as the list of claims has it."""
    return dataset_name(dataset) if tables_of(dataset) else dataset


def claims_grid(frame: pd.DataFrame, dataset: str = "") -> Grid:
    """Every claim of the paper with its verdict at the last and at the best epoch.

    Args:
        frame: runs.
        dataset: only the claims on it, without it all.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    rows = []
    claims = paper_claims()
    if dataset:
        claims = claims[claims["dataset"] == dataset]
    runs = {dataset: paper_runs(frame, dataset) for dataset in set(claims["dataset"])}
    for claim in claims.itertuples(index=False):
        judgements = [judge(claim.id, runs[claim.dataset], epoch) for epoch in EPOCHS]
        where = f"{claim.table_or_figure}, {_where(claim.dataset)}"
        rows.append((claim.id, where, claim.claim, *_cells(judgements)))
    header = ("Claim", "Where", "The paper says", *_header())
    note = (
        f"{_PAIRING}; 'close to' (M5) and 'ties' (M1 at 199) likewise with {CLOSE:.1f} in place of "
        f"0, so that a wide interval supports nothing. {_OUR_NUMBERS} "
        "'Not run': no records, or no test for this claim yet."
    )
    return Grid("claims", "The paper's claims", header, tuple(rows), note,
                words=tuple(range(len(header))))  # fmt: skip


def _epochs(runs: pd.DataFrame) -> str:
    return f"{' or '.join(map(str, sorted(set(runs['epochs']))))} epochs"


def _off_paper_rows(
    claims: Mapping[str, Sequence[Test]],
    questions: Mapping[str, str],
    runs: pd.DataFrame,
    epochs: Sequence[str] = EPOCHS,
) -> tuple[tuple[str, ...], ...]:
    """Each claim's question and answers, without the paper's numbers; no row without a run."""
    rows = []
    for claim, tests in claims.items() if len(runs) else ():
        judgements = [_judge(tests, Cells(runs, epoch, beside_paper=False)) for epoch in epochs]
        rows.append((claim, questions[claim], *_cells(judgements)))
    return tuple(rows)


def short_claims_grid(name: str, dataset: str, group: str, frame: pd.DataFrame) -> Grid:
    """The same tests on a short schedule: not the paper's setting, so without its numbers.

    Args:
        name: the block's name.
        dataset: such as ``cifar100-lt``.
        group: such as ``cifar100-lt-short``.
        frame: all runs.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    runs = group_runs(frame, dataset, group)
    rows = _off_paper_rows(cifar100.OFF_PAPER_TESTS, cifar100.QUESTIONS, runs)
    header = ("Claim", "Asked on the short schedule", *_header())
    note = (
        f"The short schedule's answer ({_epochs(runs)}), not the paper's setting: it says nothing "
        f"about the paper's claim. {_PAIRING}. {_OUR_NUMBERS}"
    )
    title = f"{schedule_name(group, dataset)}: the claims' tests, not the paper's setting"
    empty = "No run of the short schedule is recorded yet."
    return Grid(name, title, header, rows, note if rows else empty,
                words=tuple(range(len(header))))  # fmt: skip


def demo_claims_grid(name: str, frame: pd.DataFrame, dataset: str = verbs.DEMO) -> Grid:
    """The tests of a data set's claims, asked on its rendered demo: without the paper's numbers.

    Args:
        name: the block's name.
        frame: all runs.
        dataset: of :data:`DEMOS`.

    Raises:
        UserError: when two runs claim the same cell and seed.
    """
    demo = DEMOS[dataset]
    runs = group_runs(frame, dataset, dataset)
    rows = _off_paper_rows(demo.tests, demo.questions, runs, demo.epochs)
    header = ("Claim", "Asked on the rendered demo", *_header(demo.epochs))
    note = (
        f"The rendered demo's answer ({_epochs(runs)}), not {demo.stands_for} and not the paper's "
        "setting: it says nothing about the paper's claim. Differences are in points and paired by "
        "seed and data split, with their 95 % t-interval; n is the number of such pairs, and fewer "
        f"than {MIN_SEEDS} decide nothing. {demo.rule} "
        "Intervals are not corrected for the number of comparisons."
    )
    title = f"Rendered demo, {dataset_name(dataset)}: the claims' tests, not the paper's setting"
    empty = "No run of the rendered demo is recorded yet."
    return Grid(name, title, header, rows, note if rows else empty,
                words=tuple(range(len(header))))  # fmt: skip


def demo_claims_makers(frame: pd.DataFrame) -> dict[str, Callable[[], Grid]]:
    """What makes the answers of every demo, by block: ``<demo>-claims``."""
    names = {f"{dataset}-claims": dataset for dataset in DEMOS}
    return {
        name: partial(demo_claims_grid, name, frame, dataset) for name, dataset in names.items()
    }


def count_verdicts(grid: Grid) -> dict[str, int]:
    """How many claims of :func:`claims_grid` hold, fail, are undecided or not run (last epoch)."""
    verdicts = [row[3] for row in grid.rows]
    return {str(verdict): verdicts.count(str(verdict)) for verdict in Verdict}
