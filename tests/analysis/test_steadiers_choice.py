"""The rule that recommends a law and a steadier, on records made up for it."""

from collections import defaultdict

import pytest

from analysis.records import to_frame
from analysis.steadiers_choice import choice_sentences

LAWS = ("sigmoid", "sigmoid-accv", "sigmoid-code", "1.0", "2.0")
STEADIERS = ("", " average=0.9", " prior=1", " average=0.9 prior=1", " from-epoch=50")
SETTINGS = [f"tau={law}{steadier}" for law in LAWS for steadier in STEADIERS]
GROUPS = {
    "mnist-lt": ("99", "199"),
    "digit-images-steadiers": ("50",),
    "motion-digits-steadiers": ("50",),
}
DEFERRED = {"mnist-lt": 50, "digit-images-steadiers": 20, "motion-digits-steadiers": 18}
"""The epoch from which on deferred weights are in force."""
CE_ERROR = 60.0


@pytest.fixture
def runs(make_record):
    """Records of a setting in all sets: its gains by group, its seeds, its swing."""

    def make(method, variant, gain, *, seeds=None, swing=0.1, spread=0.0):
        gains = gain if isinstance(gain, dict) else defaultdict(lambda: gain)
        records = []
        for group, conditions in GROUPS.items():
            few = (0, 1) if group.startswith("mnist") else (0,)
            for condition in conditions:
                for seed in few if seeds is None else range(10 if len(few) == 2 else 3):
                    error = CE_ERROR + gains[group] + spread * (seed % 2)
                    named = variant.replace("from-epoch=50", f"from-epoch={DEFERRED[group]}")
                    record = make_record(
                        method, named, condition, seed, group=group, epochs=4,
                        difficulty_set_accuracy=1 - error / 100,
                        run=f"{group}{method}{variant}{condition}{seed}",
                    )  # fmt: skip
                    rows = [[0.9, 0.5 + swing * (e % 2)] for e in range(4)]
                    record["history"]["class_accuracy"] = rows
                    record["config"]["tau"] = None
                    records.append(record)
        return records

    return make


@pytest.fixture
def first_round(runs):
    """Every setting of CDB-W-CE with few seeds; the gain of the n-th is n."""
    records = runs("ce", "", 0.0, seeds="all")
    for gain, variant in enumerate(SETTINGS):
        records += runs("cdb-w-ce", variant, float(gain))
    return records


def lines(records):
    return choice_sentences(to_frame(records)).split("\n")


def test_before_the_first_round_it_counts_what_is_there(runs):
    records = runs("ce", "", 0.0) + runs("cdb-s", SETTINGS[1], -1.0)
    assert lines(records) == [
        "- CDB-W-CE: 0 of 25 settings have the runs of the first round.",
        "- CDB-S: 1 of 20 settings have the runs of the first round.",
    ]


def test_a_setting_whose_run_leaves_no_record_is_not_waited_for(runs):
    settled = [variant for variant in SETTINGS if "from-epoch" not in variant]
    records = runs("ce", "", 0.0)
    for gain, variant in enumerate(settled):
        records += runs("cdb-s", variant, float(gain))
    assert lines(records)[1].startswith("- CDB-S: the second round has yet to run CDB-S, τ sigmoid")


def test_the_second_round_asks_for_the_three_lowest_and_the_printed_one(first_round, runs):
    # The printed one is the worst; then comes the order of SETTINGS.
    printed = {id(r): r for r in first_round if r["variant"] == "tau=sigmoid"}
    records = [r for r in first_round if id(r) not in printed]
    records += runs("cdb-w-ce", "tau=sigmoid", 39.0)
    assert lines(records)[0] == (
        "- CDB-W-CE: the second round has yet to run CDB-W-CE, τ sigmoid, average; "
        "CDB-W-CE, τ sigmoid, prior; CDB-W-CE, τ sigmoid, both; CDB-W-CE, τ sigmoid, none."
    )


def test_later_seeds_do_not_change_who_is_asked(first_round, runs):
    more = runs("cdb-w-ce", SETTINGS[20], -50.0, seeds="all")
    known = {(r["run"]) for r in first_round}
    records = first_round + [r for r in more if r["run"] not in known]
    assert SETTINGS[20] == "tau=2.0"
    assert "2.0" not in lines(records)[0]


def decided(first_round, runs, *, swings=(0.1, 0.1, 0.1), spread=0.0):
    """The second round of the three lowest, whose gains are -3.0, -2.9 and 2."""
    asked = dict(zip(SETTINGS[:3], (-3.0, -2.9, 2.0), strict=True))
    records = [r for r in first_round if r["variant"] not in asked]
    for (variant, gain), swing in zip(asked.items(), swings, strict=True):
        records += runs("cdb-w-ce", variant, gain, seeds="all", swing=swing, spread=spread)
    return lines(records)


def test_the_lowest_gain_is_recommended(first_round, runs):
    told = decided(first_round, runs, swings=(0.4, 0.1, 0.1))
    assert told[0].startswith(
        "- Gain over cross-entropy in points, ± its standard error: "
        "CDB-W-CE, τ sigmoid, none: −3.00 ± 0.00; CDB-W-CE, τ sigmoid, average: −2.90 ± 0.00; "
    )
    assert told[1] == "- **By the rule: CDB-W-CE, τ sigmoid, none.**"


def test_within_a_standard_error_the_steadier_one_is_recommended(first_round, runs):
    told = decided(first_round, runs, swings=(0.4, 0.1, 0.05), spread=1.0)
    assert told[1] == "- **By the rule: CDB-W-CE, τ sigmoid, average.**"


def test_every_set_counts_alike_whatever_its_conditions(first_round, runs):
    # MNIST-LT's two imbalances are one set: (-9 + 3 + 3) / 3.
    uneven = {
        "mnist-lt": -9.0, "digit-images-steadiers": 3.0, "motion-digits-steadiers": 3.0,
    }  # fmt: skip
    records = first_round + runs("balanced-softmax", "", uneven, seeds="all")
    assert lines(records)[-1] == "- Beside them Balanced Softmax: −1.00 ± 0.00."
