import pytest

from analysis.claims import claims_grid, demo_claims_grid, judge
from analysis.claims.verdict import Verdict
from analysis.detection import DEMO, LVIS
from analysis.records import paper_runs, to_frame

# Mean 0: the difference of two cells, of which one is flipped, has a half width of 0.5 points.
JITTER = (-0.1, 0.0, 0.1)
BEST = ("cdb-w-ce-clc", "lvis-cdb-w-ce")
TABLE_5 = (
    ("ce", "coco"), ("cdb-w-ce", "coco"), ("rfs", "coco"), ("eql", "coco"),
    ("focal-clc", "lvis-ce"), ("lrw-clc", "lvis-ce"), ("lrw-clc", "lvis-cdb-w-ce"),
    ("bags-clc", "lvis-ce"), ("bags-clc", "lvis-cdb-w-ce"), ("cdb-w-ce-clc", "lvis-ce"), BEST,
)  # fmt: skip


@pytest.fixture
def runs(make_detection):
    """Runs of each method and start around its averages; those of CDB deviate the other way."""

    def make(values, seeds=3, task="box", group=LVIS):
        def around(given, sign, seed):
            return {n: v + sign * JITTER[seed] for n, v in given.items() if n != "segm"}

        return [
            make_detection(
                method, start, seed, task=task, group=group,
                bbox=around(given, sign, seed),
                segm=around(given.get("segm", given), sign, seed),
            )
            for (method, start), given in values.items()
            for sign in [-1 if "cdb" in method + start else 1]
            for seed in range(seeds)
        ]  # fmt: skip

    return make


def judged(claim, records, epoch="last"):
    return judge(claim, paper_runs(to_frame(records), LVIS), epoch)


def averages(ap, rare=None, frequent=30.0):
    return {"AP": ap, "APr": ap if rare is None else rare, "APc": ap, "APf": frequent}


L1 = {("ce", "coco"): averages(21.0, 3.0), ("cdb-w-ce", "coco"): averages(23.0, 12.0)}


def test_l1_holds_when_ap_and_ap_r_are_surely_higher(runs):
    judgement = judged("L1", runs(L1))
    assert judgement.verdict is Verdict.HOLDS
    ap, rare = judgement.evidence
    # The paper's Table 5: 23.37 - 21.19 and 9.83 - 3.05.
    assert "CDB-W-CE (from COCO) − CE (from COCO), box AP = +2.00" in ap
    assert "the paper's +2.18 is inside the interval" in ap
    assert "box AP_r = +9.00" in rare
    assert "the paper's +6.78 is outside the interval" in rare


@pytest.mark.parametrize("worse", [averages(20.0, 12.0), averages(23.0, 1.0)])
def test_l1_fails_when_ap_or_ap_r_is_surely_lower(runs, worse):
    assert judged("L1", runs(L1 | {("cdb-w-ce", "coco"): worse})).verdict is Verdict.FAILS


def test_l1_is_undecided_with_two_seeds_and_not_run_without_ce(runs):
    assert judged("L1", runs(L1, seeds=2)).verdict is Verdict.UNDECIDED
    only = {("cdb-w-ce", "coco"): averages(23.0)}
    assert judged("L1", runs(only)).verdict is Verdict.NOT_RUN


def test_detectors_have_no_best_epoch_to_decide_a_claim_by(runs):
    assert judged("L1", runs(L1), "best").verdict is Verdict.NOT_RUN


def test_runs_with_masks_do_not_decide_the_claims_of_table_5(runs):
    assert judged("L1", runs(L1, task="mask")).verdict is Verdict.NOT_RUN


L2 = dict.fromkeys(TABLE_5, averages(22.0)) | {BEST: averages(26.0)}


def test_l2_holds_when_every_other_row_is_surely_lower_the_same_method_from_ce_too(runs):
    judgement = judged("L2", runs(L2))
    assert judgement.verdict is Verdict.HOLDS
    assert [text.partition(" holds")[0] for text in judgement.evidence] == ["box AP", "box AP_r"]
    rival = ("cdb-w-ce-clc", "lvis-ce")
    judgement = judged("L2", runs(L2 | {rival: averages(22.0, 28.0)}))
    assert judgement.verdict is Verdict.FAILS
    name = "CDB-W-CE-clc, from CDB-W-CE on LVIS − from CE on LVIS, box AP_r = −2.00"
    assert name in judgement.evidence[1]


def test_l2_names_the_rows_that_were_not_run_with_what_they_start_from(runs):
    left = {run: value for run, value in L2.items() if run != ("lrw-clc", "lvis-ce")}
    judgement = judged("L2", runs(left))
    assert judgement.verdict is Verdict.UNDECIDED
    assert "no runs of LRW-clc (from CE on LVIS)" in judgement.evidence[0]
    assert "from CDB-W-CE" not in judgement.evidence[0].partition("no runs of")[2]


L3 = {
    (method, start): averages(24.0 + (start != "lvis-ce"))
    for method in ("lrw-clc", "bags-clc")
    for start in ("lvis-ce", "lvis-cdb-w-ce")
}


def test_l3_needs_both_classifiers_to_gain(runs):
    judgement = judged("L3", runs(L3))
    assert judgement.verdict is Verdict.HOLDS
    lrw, bags = judgement.evidence
    assert lrw.startswith("LRW-clc holds")
    # 25.52 - 24.66 and 26.01 - 25.96.
    assert "= +1.00" in lrw
    assert "the paper's +0.86 is inside" in lrw
    assert "the paper's +0.05 is outside" in bags
    worse = L3 | {("bags-clc", "lvis-cdb-w-ce"): averages(20.0)}
    assert judged("L3", runs(worse)).verdict is Verdict.FAILS


L4 = {("bags-clc", "lvis-ce"): averages(25.0), BEST: averages(27.0)}


def test_l4_asks_for_boxes_and_masks_of_detectors_with_masks(runs):
    judgement = judged("L4", runs(L4, task="mask"))
    assert judgement.verdict is Verdict.HOLDS
    boxes, masks = judgement.evidence
    # 26.12 - 25.76, and the mask AP_r 20.22 - 17.97.
    assert "box AP = +2.00" in boxes
    assert "the paper's +0.36 is outside" in boxes
    assert "mask AP_r = +2.00" in masks
    assert "the paper's +2.25 is inside" in masks
    assert masks.endswith("no loss: the last interval has to lie above −1.0")
    assert judged("L4", runs(L4)).verdict is Verdict.NOT_RUN


@pytest.mark.parametrize(
    ("frequent", "verdict"),
    [(29.8, Verdict.HOLDS), (29.2, Verdict.UNDECIDED), (27.0, Verdict.FAILS)],
)
def test_l4_a_small_loss_on_frequent_categories_is_none_and_a_sure_one_fails(
    runs, frequent, verdict
):
    values = L4 | {BEST: averages(27.0, frequent=frequent)}
    assert judged("L4", runs(values, task="mask")).verdict is verdict


def test_l4_fails_when_masks_lose_what_boxes_gain(runs):
    values = L4 | {BEST: averages(27.0) | {"segm": averages(24.0)}}
    judgement = judged("L4", runs(values, task="mask"))
    assert judgement.verdict is Verdict.FAILS
    assert [text.partition(":")[0] for text in judgement.evidence] == [
        "boxes holds", "masks does not hold",
    ]  # fmt: skip


def test_claims_on_lvis_are_not_run_without_its_records_whatever_the_demo_says(runs):
    values = {("ce", "random"): averages(20.0), ("cdb-w-ce", "random"): averages(25.0)}
    rows = {row[0]: row for row in claims_grid(to_frame(runs(values, group=DEMO))).rows}
    for claim in ("L1", "L2", "L3", "L4"):
        assert rows[claim][3:] == ("not run", "–", "not run", "–")


@pytest.mark.parametrize(("task", "detector"), [("box", ""), ("mask", "Mask R-CNN")])
def test_demo_answers_the_questions_it_ran_at_its_one_epoch_without_the_papers_numbers(
    runs, task, detector
):
    values = {("ce", "random"): averages(20.0), ("cdb-w-ce", "random"): averages(25.0)}
    frame = to_frame(runs(values, task=task, group=DEMO))
    grid = demo_claims_grid("b", frame, DEMO)
    assert grid.header[2:] == ("Last epoch", "Evidence, last epoch")
    rows = {row[0]: row[2:] for row in grid.rows}
    assert rows["L1"][0] == "holds"
    assert rows["L1"][1].startswith(detector)
    assert "CDB-W-CE (from random weights) − CE (from random weights), box AP" in rows["L1"][1]
    assert [rows[claim] for claim in ("L2", "L3", "L4")] == [("not run", "–")] * 3
    assert "paper's" not in "".join(cell for row in grid.rows for cell in row)
    assert "not LVIS and not the paper's setting" in grid.note
