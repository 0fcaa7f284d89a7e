import pytest

from analysis.comparison import comparison_grid, readings_grid, tables_of
from analysis.records import to_frame


def row_of(grid, method, condition):
    (row,) = [row for row in grid.rows if row[:2] == (method, condition)]
    return dict(zip(("paper", "last", "gap", "best"), row[2:6], strict=True))


def test_cell_shows_paper_ours_gap_and_best_epoch(make_record):
    records = [
        make_record(seed=seed, error=error, best_error=error - 1)
        for seed, error in enumerate((8.0, 9.0, 10.0))
    ]
    grid = comparison_grid("mnist-table-1", 1, "mnist-lt", to_frame(records))
    # mean 9, sample std 1; the paper has 8.59 +- 0.41: gap 0.41
    assert row_of(grid, "CE", "99") == {
        "paper": "8.59 ± 0.41",
        "last": "9.00 ± 1.00 (3)",
        "gap": "+0.41",
        "best": "8.00 ± 1.00 (3)",
    }
    assert "3 recorded runs of MNIST-LT, 4 epochs each" in grid.note


def test_cells_that_were_not_run_are_dashes(make_record):
    grid = comparison_grid("mnist-table-1", 1, "mnist-lt", to_frame([make_record()]))
    missing = row_of(grid, "EQL", "199")
    assert missing == {"paper": "3.71 ± 0.41", "last": "–", "gap": "–", "best": "–"}
    assert row_of(grid, "CE", "99")["last"] == "8.00 (1)"


def test_table_has_the_papers_rows_even_without_any_run():
    grid = comparison_grid("mnist-table-1", 1, "mnist-lt", to_frame([]))
    assert len(grid.rows) == 18
    assert "No run" in grid.note
    assert all(cell == "–" for row in grid.rows for cell in row[3:])


def test_runs_the_paper_does_not_have_are_said_to_be_so(make_record):
    frame = to_frame([make_record("cdb-w-ce", "tau=sigmoid-accv", error=3.0)])
    sweep = comparison_grid("mnist-table-2", 2, "mnist-lt", frame)
    row = row_of(sweep, "CDB-W-CE (τ sigmoid-accv)", "99")
    assert row == {"paper": "not in the paper", "last": "3.00 (1)", "gap": "–", "best": "3.00 (1)"}
    table_1 = comparison_grid("mnist-table-1", 1, "mnist-lt", frame)
    assert not [row for row in table_1.rows if "accv" in row[0]]


def test_a_method_the_paper_never_ran_appears_in_table_1(make_record):
    frame = to_frame([make_record("class-aware", error=3.0)])
    grid = comparison_grid("mnist-table-1", 1, "mnist-lt", frame)
    assert row_of(grid, "Class-aware", "99")["paper"] == "not in the paper"


def test_other_groups_never_stand_beside_the_paper(make_record):
    frame = to_frame([make_record(group="mnist-lt-readings")])
    grid = comparison_grid("mnist-table-1", 1, "mnist-lt", frame)
    assert row_of(grid, "CE", "99")["last"] == "–"


def test_this_machines_runs_get_columns_of_their_own(make_record):
    published, local = to_frame([make_record(error=8.0)]), to_frame([make_record(error=6.59)])
    grid = comparison_grid("t", 1, "mnist-lt", published, local)
    row = next(row for row in grid.rows if row[:2] == ("CE", "99"))
    assert row[3:6] == ("8.00 (1)", "−0.59", "8.00 (1)")
    assert row[6:9] == ("6.59 (1)", "−2.00", "6.59 (1)")


def test_tables_of_other_datasets_come_from_the_papers_rows():
    assert tables_of("mnist-lt") == [1, 2, 3]
    assert tables_of("cifar100-lt") == [1, 2, 3, 4]
    grid = comparison_grid("t", 2, "cifar100-lt", to_frame([]))
    assert {row[1] for row in grid.rows} == {"10", "20", "50", "100", "200"}
    assert row_of(grid, "CDB-W-CE (τ 1.0)", "10")["paper"] == "40.53"


@pytest.fixture
def readings(make_record):
    def make(initialisation, condition, seed, accuracy, error):
        return make_record(
            condition=condition, seed=seed, error=error, group="mnist-lt-readings",
            difficulty_set_accuracy=accuracy, run=f"ce_{initialisation}_{condition}_{seed}",
            config={"initialisation": initialisation, "loss_reduction": "mean"},
        )  # fmt: skip

    return to_frame(
        [
            make("default", "99", 0, 0.90, 14.0),
            make("default", "99", 1, 0.88, 16.0),
            make("xavier", "99", 0, 0.95, 9.0),
            make("xavier", "199", 0, 0.90, 15.0),
        ]
    )


def test_readings_show_the_fields_that_vary_and_the_difficulty_sets_error(readings):
    grid = readings_grid("readings-mnist", "mnist-lt", readings)
    assert grid.header[:2] == ("Method", "initialisation")
    assert "loss reduction" not in grid.header
    default, xavier = grid.rows
    # difficulty set: 100 * (1 - 0.90) = 10 and 12: mean 11, sample std sqrt(2)
    assert default[:3] == ("CE", "default", "11.00 ± 1.41 (2)")
    assert default[4] == "15.00 ± 1.41 (2)"
    assert default[6:] == ("–", "–", "–", "–")
    assert xavier[1:3] == ("xavier", "5.00 (1)")
    assert xavier[6] == "10.00 (1)"


def test_readings_without_runs_say_so():
    assert "No run" in readings_grid("readings-mnist", "mnist-lt", to_frame([])).note


def test_markdown_has_a_rule_row_and_escaped_bars(readings):
    lines = readings_grid("r", "mnist-lt", readings).to_markdown().splitlines()
    assert lines[0].startswith("| Method | initialisation |")
    assert lines[1].startswith("| :-- | :-- | --: |")
    assert lines[2].count("|") == lines[0].count("|")
