from analysis.comparison import comparison_grid, tables_of
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
    missing = row_of(grid, "EQL", "99")
    assert missing == {"paper": "2.60 ± 0.33", "last": "–", "gap": "–", "best": "–"}
    assert row_of(grid, "CE", "99")["last"] == "8.00 (1)"


def test_an_imbalance_without_any_run_is_named_and_has_no_rows(make_record):
    grid = comparison_grid("mnist-table-1", 1, "mnist-lt", to_frame([make_record()]))
    assert {row[1] for row in grid.rows} == {"99"}
    assert grid.note.endswith("Not run at imbalance 199.")


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


def test_table_4_has_rows_of_the_second_stage_and_the_first(make_cifar):
    records = [
        make_cifar("lws+class-aware", "stage1=cdb-w-ce", "100", s, epochs=3, error=50.0 + s)
        for s in range(3)
    ]
    grid = comparison_grid("t", 4, "cifar100-lt", to_frame([*records, make_cifar(epochs=10)]))
    row = row_of(grid, "LWS + Class-aware (after CDB-W-CE)", "100")
    assert row == {"paper": "56.41", "last": "51.00 ± 1.00 (3)", "gap": "−5.41",
                   "best": "51.00 ± 1.00 (3)"}  # fmt: skip
    assert len(grid.rows) == 18
    assert "10 epochs each, 3 epochs each in the second stage of LWS" in grid.note


def test_cifars_tables_2_and_3_hold_our_runs_of_their_method(make_cifar):
    frame = to_frame(
        [
            make_cifar("cdb-w-ce", "tau=0.5", "20", error=46.4),
            make_cifar("cdb-s", "tau=polynomial", "200", error=62.0),
        ]
    )
    weights = comparison_grid("t", 2, "cifar100-lt", frame)
    samples = comparison_grid("t", 3, "cifar100-lt", frame)
    assert row_of(weights, "CDB-W-CE (τ 0.5)", "20")["gap"] == "+1.00"
    assert row_of(samples, "CDB-S (τ polynomial)", "200")["gap"] == "−0.71"


def test_methods_of_the_first_stage_have_the_papers_names(make_cifar):
    methods = ("meta-weight-net", "ldam-drw", "class-aware")
    grid = comparison_grid("t", 1, "cifar100-lt", to_frame([make_cifar(m) for m in methods]))
    run = [row[0] for row in grid.rows if row[3] != "–"]
    assert run == ["LDAM-DRW", "Meta-Weight-Net", "Class-aware"]


def test_what_the_paper_never_ran_stands_in_no_row_of_its_own(make_cifar):
    added = ("balanced-softmax", "logit-adjustment")
    alone = ("logit-adjustment-post-hoc", "tau-normalisation", "mixup")
    first = to_frame([make_cifar(method) for method in (*added, *alone)])
    second = to_frame([make_cifar(f"crt+{method}", "stage1=ce", epochs=3) for method in added])
    names = ("Balanced Softmax", "Logit adjustment")
    of_one_stage = (*names, "Logit adjustment post hoc", "τ-normalisation", "Mixup")
    for frame, home, shown in (
        (first, 1, of_one_stage),
        (second, 4, tuple(f"cRT + {name} (after CE)" for name in names)),
    ):
        for table in (1, 2, 3, 4):
            grid = comparison_grid("t", table, "cifar100-lt", frame)
            run = {row[0]: row[2] for row in grid.rows if row[3] != "–"}
            assert run == (dict.fromkeys(shown, "not in the paper") if table == home else {})


def test_a_short_schedule_never_stands_beside_the_paper(make_cifar):
    frame = to_frame([make_cifar(group="cifar100-lt-short")])
    for table in (1, 2, 3, 4):
        grid = comparison_grid("t", table, "cifar100-lt", frame)
        assert all(row[3] == "–" for row in grid.rows)
