import pytest

from analysis.claims import claims_grid, demo_claims_grid, judge
from analysis.claims.verdict import Verdict
from analysis.records import paper_runs, to_frame

METHODS = ("ce", "focal", "cb", "cfs", "cdb-s", "cdb-w-ce")
# Mean 0: differences of two cells, of which one is flipped, have half widths of about 0.5 points.
JITTER = (-0.001, 0.0, 0.001)


def measures(value, offset):
    """Every measure of Tables 7 and 8 at ``value``, or by its own name."""

    def of(name):
        return value.get(name, value["all"]) + offset

    return {
        "error": 100 * (1 - of("top1")),
        "top5_accuracy": of("top5"),
        "macro_precision": of("macro_precision"),
        "macro_recall": of("macro_recall"),
        **{
            part: {kind: of(f"{part}_{kind}") for kind in ("precision", "recall")}
            for part in ("head", "tail")
        },
    }


@pytest.fixture
def runs(make_verbs):
    """Runs of each method around its measures; those of CDB deviate the other way."""

    def make(values, seeds=3, group="egtea-verbs"):
        return [
            make_verbs(m, seed=s, group=group, values=measures(v, sign * JITTER[s]))
            for m, v in values.items()
            for s in range(seeds)
            for sign in [-1 if m.startswith("cdb") else 1]
        ]

    return make


def verdict(claim, records):
    return judge(claim, paper_runs(to_frame(records), "egtea-verbs"), "last")


ALL = {method: {"all": 0.5} for method in METHODS}
E1 = ALL | {
    # CDB-S and CDB-W-CE deviate alike: their difference has no spread.
    "cdb-s": {"all": 0.55, "macro_recall": 0.6},
    "cdb-w-ce": {"all": 0.6, "macro_recall": 0.58},
}


def test_e1_holds_when_cdb_w_ce_has_three_best_measures_and_cdb_s_the_best_recall(runs):
    judgement = verdict("E1", runs(E1))
    assert judgement.verdict is Verdict.HOLDS
    assert [text.split(" holds")[0] for text in judgement.evidence] == [
        "top-1 accuracy", "top-5 accuracy", "macro precision", "macro recall",
    ]  # fmt: skip
    # The best other method is shown: the smallest lead.
    assert "CDB-W-CE − CDB-S, top-1 accuracy = +5.00 [5.00, 5.00], n = 3" in judgement.evidence[0]
    assert "CDB-S − CDB-W-CE, macro recall = +2.00" in judgement.evidence[3]


@pytest.mark.parametrize("metric", ["top1", "top5", "macro_precision"])
def test_e1_fails_when_another_method_is_surely_better_in_one_measure(runs, metric):
    values = E1 | {"focal": {"all": 0.5, metric: 0.7}}
    judgement = verdict("E1", runs(values))
    assert judgement.verdict is Verdict.FAILS
    assert sum("does not hold" in text for text in judgement.evidence) == 1
    assert any("CDB-W-CE − Focal" in text and "−10.00" in text for text in judgement.evidence)


def test_e1_fails_when_cdb_w_ce_has_the_better_recall(runs):
    values = E1 | {"cdb-w-ce": {"all": 0.6, "macro_recall": 0.65}}
    assert verdict("E1", runs(values)).verdict is Verdict.FAILS


def test_e1_is_undecided_with_two_seeds_or_without_a_method_and_names_it(runs):
    assert verdict("E1", runs(E1, seeds=2)).verdict is Verdict.UNDECIDED
    judgement = verdict("E1", runs({m: v for m, v in E1.items() if m != "cb"}))
    assert judgement.verdict is Verdict.UNDECIDED
    assert all("no runs of CB" in text for text in judgement.evidence)


E2 = {
    "ce": {"all": 0.5},
    "cdb-w-ce": {"all": 0.5, "tail_precision": 0.6, "tail_recall": 0.56, "head_precision": 0.52},
}


def test_e2_holds_when_the_tail_gains_and_more_than_the_head(runs):
    judgement = verdict("E2", runs(E2))
    assert judgement.verdict is Verdict.HOLDS
    precision, recall = judgement.evidence
    # The paper's Table 8: 78.11 - 75.62 and 64.69 - 56.75.
    assert "head precision = +2.00" in precision
    assert "the paper's +2.49 is inside the interval" in precision
    assert "tail precision = +10.00" in precision
    assert "the paper's +7.94 is outside the interval" in precision
    assert "tail minus head precision = +8.00" in precision
    assert "tail recall = +6.00" in recall


@pytest.mark.parametrize(
    "change",
    [
        {"tail_recall": 0.45},
        # The head gains more than the tail.
        {"head_recall": 0.7},
    ],
)
def test_e2_fails_when_the_tail_loses_or_gains_less_than_the_head(runs, change):
    values = E2 | {"cdb-w-ce": E2["cdb-w-ce"] | change}
    assert verdict("E2", runs(values)).verdict is Verdict.FAILS


def test_claims_on_egtea_are_not_run_without_its_records_whatever_the_demo_says(runs):
    demo = to_frame(runs(E1, group="motion-digits"))
    rows = {row[0]: row for row in claims_grid(demo).rows}
    for claim in ("E1", "E2"):
        assert rows[claim][3:] == ("not run", "–", "not run", "–")


def test_e2_without_ce_is_not_run(runs):
    assert verdict("E2", runs({"cdb-w-ce": {"all": 0.5}})).verdict is Verdict.NOT_RUN


def test_demo_answers_the_same_questions_without_the_papers_numbers(runs):
    frame = to_frame(runs(E1 | E2, group="motion-digits"))
    grid = demo_claims_grid("motion-digits-claims", frame)
    assert [row[0] for row in grid.rows] == ["E1", "E2"]
    assert grid.rows[1][2] == "holds"
    assert "paper's" not in "".join(cell for row in grid.rows for cell in row)
    assert "says nothing about the paper's claim" in grid.note
    assert "6 epochs" in grid.note


def test_demos_claims_without_a_run_say_so():
    grid = demo_claims_grid("b", to_frame([]))
    assert not grid.rows
    assert grid.note == "No run of the rendered demo is recorded yet."
