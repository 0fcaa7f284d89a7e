import re

import pytest

from analysis.comparison import error_table
from analysis.records import to_frame
from analysis.shot_tables import SHORT_GROUPS, short_grid, shots_grid
from analysis.summary import summarize
from analysis.tables import table_makers

GROUP = "cifar100-lt-short"


def with_shots(record, many, medium, few=None):
    shots = {"many": many, "medium": medium} | ({} if few is None else {"few": few})
    for evaluation in record["metrics"].values():
        evaluation["shot_accuracy"] = shots
    return record


def test_mean_with_its_t_interval_over_seeds(make_cifar):
    records = [
        with_shots(make_cifar(seed=s, error=60.0 + s), 0.5 + s / 10, 0.4, 0.1) for s in range(3)
    ]
    (row,) = shots_grid("b", 1, "cifar100-lt", to_frame(records)).rows
    # s = 1, t_{0.975, 2} = 4.302653: half width 4.302653 / sqrt(3) = 2.48; accuracy ten times that
    assert row[:4] == ("CE", "100", "3", "61.00 [58.52, 63.48]")
    assert row[5:] == ("60.00 [35.16, 84.84]", "40.00 [40.00, 40.00]", "10.00 [10.00, 10.00]")


def test_single_seed_has_no_interval_and_an_empty_group_is_not_applicable(make_cifar):
    record = with_shots(make_cifar(condition="10", error=44.0), 0.6, 0.4)
    (row,) = shots_grid("b", 1, "cifar100-lt", to_frame([record])).rows
    assert row[2:] == ("1", "44.00", "44.00", "60.00", "40.00", "n/a")


def test_interval_of_no_value_is_a_dash():
    assert summarize([]).with_interval() == "–"


def test_shots_are_shown_of_the_cells_that_were_run_and_in_their_own_table(make_cifar):
    frame = to_frame([make_cifar("cdb-s", "tau=linear", "20"), make_cifar("cb")])
    rows = {t: shots_grid("b", t, "cifar100-lt", frame).rows for t in (1, 2, 3, 4)}
    assert [row[0] for row in rows[1]] == ["CB"]
    assert [row[0] for row in rows[3]] == ["CDB-S (τ linear)"]
    assert not rows[2]
    assert not rows[4]


@pytest.fixture
def short(make_cifar):
    return [
        make_cifar("cdb-w-ce", "tau=sigmoid", "200", group=GROUP, epochs=3),
        make_cifar("class-aware", group=GROUP, epochs=3),
        make_cifar("cb", group=GROUP, epochs=3, seed=0),
        make_cifar("cb", group=GROUP, epochs=3, seed=1),
        make_cifar("crt+cdb-s", "stage1=ce", group=GROUP, epochs=2),
        make_cifar("ce", group=GROUP, epochs=3),
    ]


def test_short_table_lists_the_methods_in_the_papers_order_with_their_cost(short):
    grid = short_grid("cifar100-short", "cifar100-lt", GROUP, to_frame(short))
    names = [row[:3] for row in grid.rows]
    assert names == [
        ("CE", "100", "1"), ("CB", "100", "2"), ("Class-aware", "100", "1"),
        ("CDB-W-CE (τ sigmoid)", "200", "1"),
    ]  # fmt: skip
    assert grid.rows[0][-1] == "3 epochs, 60 s, test CPU"
    assert grid.title == "CIFAR100-LT, short schedule: all methods"
    assert "not the paper's setting" in grid.note
    assert "5 recorded runs of CIFAR100-LT, 3 epochs each." in grid.note


def test_second_stages_of_the_short_schedule_have_a_table_of_their_own(short):
    grid = short_grid("b", "cifar100-lt", GROUP, to_frame(short), second_stage=True)
    assert [row[0] for row in grid.rows] == ["cRT + CDB-S (after CE)"]
    assert grid.rows[0][-1].startswith("2 epochs, ")


def test_no_table_of_the_short_schedule_shows_a_number_of_the_paper(make_cifar):
    runs = [
        make_cifar(row.method, row.variant, "100", seed, group=GROUP, error=12.25, epochs=3)
        for row in error_table(1, "cifar100-lt").itertuples()
        if row.condition == "100"
        for seed in range(3)
    ]
    runs += [
        make_cifar(m, v, "200", seed, group=GROUP, error=12.25, epochs=3)
        for m, v in (("focal", ""), ("cdb-w-ce", "tau=sigmoid"))
        for seed in range(3)
    ]
    # Known shot accuracies: a random one may equal a number of the paper.
    makers = table_makers(to_frame([with_shots(run, 0.9, 0.8, 0.7) for run in runs]))
    names = [name for name in makers if any(short in name for short in SHORT_GROUPS)]
    assert len(names) == 4
    text = "\n".join(makers[name]().to_markdown() for name in names)
    values = {f"{value:.2f}" for t in (1, 2, 3, 4) for value in error_table(t, "cifar100-lt").value}
    values |= {"3.04", "1.43", "5.11", "7.26", "1.74"}
    assert not values & set(re.findall(r"\d+\.\d\d", text))
    assert "Paper" not in text
    assert "Gap" not in text


def test_short_tables_without_runs_say_so():
    makers = table_makers(to_frame([]))
    for name in ("cifar100-short", "cifar100-short-decoupled", "cifar100-short-claims"):
        grid = makers[name]()
        assert not grid.rows
        assert "No run" in grid.note
