import re

import pytest

from analysis import metric_tables
from analysis.metric_tables import beside_paper_grid
from analysis.records import to_frame
from analysis.tables import Options, counted_groups, datasets_run, main, table_makers
from analysis.verbs import TABLES, chance, one_frame_sentence, verb_rows
from common.errors import UserError

DEMO = "motion-digits"


def verbs_grid(name, table, *frames):
    return beside_paper_grid(name, TABLES[table], *frames)


def demo_grid(name, table, frame):
    return metric_tables.demo_grid(name, TABLES[table], frame)


def by_row(grid):
    """Measures by method and whose (or which epoch)."""
    return {row[:2]: row[2:6] for row in grid.rows}


def test_table_7_holds_the_papers_numbers_and_empty_cells_until_someone_runs_it():
    grid = verbs_grid("b", 7, to_frame([]))
    rows = by_row(grid)
    assert [row[0] for row in grid.rows[::3]] == ["CE", "Focal", "CB", "CFS", "CDB-S", "CDB-W-CE"]
    assert rows["CE", "paper"] == ("67.41", "95.40", "61.73", "64.77")
    assert rows["CDB-W-CE", "paper"] == ("68.30", "97.03", "68.23", "66.41")
    ours = [cells for (_, whose), cells in rows.items() if whose != "paper"]
    assert len(ours) == 12
    assert set(ours) == {("–",) * 4}
    assert "No run of this experiment is recorded yet." in grid.note


def test_table_8_holds_head_and_tail_beside_the_papers():
    rows = by_row(verbs_grid("b", 8, to_frame([])))
    assert rows["CDB-S", "paper"] == ("73.33", "75.18", "60.11", "63.48")


@pytest.fixture
def two_seeds(make_verbs):
    def make(group):
        measured = [
            {
                "error": 30.0 + 2 * seed, "top5_accuracy": 0.9, "macro_precision": 0.5,
                "macro_recall": 0.25, "head": {"precision": 0.8, "recall": 0.75},
                "tail": {"precision": 0.4, "recall": 0.3 + 0.1 * seed},
            }
            for seed in range(2)
        ]  # fmt: skip
        made = [make_verbs(seed=s, group=group, values=m) for s, m in enumerate(measured)]
        for record in made:
            record["metrics"]["best"] |= {"error": 20.0, "tail": {"precision": None, "recall": 0.5}}
        return made

    return make


def test_our_rows_are_mean_and_spread_in_percent_with_the_number_of_seeds(two_seeds):
    frame = to_frame(two_seeds("egtea-verbs"))
    table_7, table_8 = (by_row(verbs_grid("b", table, frame)) for table in (7, 8))
    # 70 and 68: mean 69, s = sqrt(2)
    top5, half = "90.00 ± 0.00 (2)", "50.00 ± 0.00 (2)"
    wanted = ("69.00 ± 1.41 (2)", top5, half, "25.00 ± 0.00 (2)")
    assert table_7["CE", "ours, last epoch"] == wanted
    assert table_7["CE", "ours, best epoch"][0] == "80.00 ± 0.00 (2)"
    # 30 and 40: mean 35, s = 5 sqrt(2)
    assert table_8["CE", "ours, last epoch"][3] == "35.00 ± 7.07 (2)"
    # A part without a measured class is a dash, not 0.
    assert table_8["CE", "ours, best epoch"][2:] == ("–", half)


def test_runs_of_this_machine_have_rows_of_their_own(make_verbs):
    published, local = to_frame([]), to_frame([make_verbs(values={"error": 25.0})])
    rows = by_row(verbs_grid("b", 7, published, local))
    assert rows["CE", "ours, last epoch"][0] == "–"
    assert rows["CE", "this machine, last epoch"][0] == "75.00 (1)"


def test_method_and_tau_that_the_paper_did_not_run_get_rows_below_it(make_verbs):
    frame = to_frame([make_verbs("eql"), make_verbs("cdb-s", "tau=1.0")])
    rows = verbs_grid("b", 7, frame).rows
    assert [row[0] for row in rows[18::3]] == ["CDB-S (τ 1.0)", "EQL"]
    assert rows[18][1:] == ("paper", "–", "–", "–", "–")


def test_two_runs_of_one_cell_and_seed_are_refused(make_verbs):
    frame = to_frame([make_verbs(), make_verbs(run="again")])
    with pytest.raises(UserError, match="same method"):
        verbs_grid("b", 7, frame)


def split_of(test, head):
    return {"test": test, "head": head}


def test_chance_is_the_largest_share_and_the_random_guess():
    values = chance(split_of([50, 20, 10, 10, 5, 5], [0, 1]))
    assert values == pytest.approx({
        "top1": 50.0, "top5": 95.0, "macro_precision": 100 / 6, "macro_recall": 100 / 6,
        "head_precision": 35.0, "head_recall": 100 / 6,
        "tail_precision": 7.5, "tail_recall": 100 / 6,
    })  # fmt: skip


def test_chance_leaves_out_classes_without_a_test_sample():
    values = chance(split_of([75, 25, 0, 0], [0, 1]))
    assert values["macro_precision"] == 50.0
    assert values["macro_recall"] == 25.0
    assert values["tail_precision"] is None
    assert values["tail_recall"] is None


def test_demo_table_shows_chance_cost_and_what_was_run_only(two_seeds, make_verbs):
    records = [*two_seeds(DEMO), make_verbs("cdb-w-ce", group=DEMO)]
    grid = demo_grid("b", 7, to_frame(records))
    assert [row[:2] for row in grid.rows] == [
        ("Chance", "no model"), ("CE", "last epoch"), ("CE", "best epoch"),
        ("CDB-W-CE", "last epoch"), ("CDB-W-CE", "best epoch"),
    ]  # fmt: skip
    test = records[0]["split"]["test"]
    chance_row, last = grid.rows[:2]
    assert chance_row[2] == f"{100 * max(test) / sum(test):.2f}"
    assert chance_row[5] == "5.26"  # 1 / 19
    assert last[2] == "69.00 ± 1.41 (2)"
    assert last[6:] == ("6 epochs, 60 s, test CPU",)
    assert grid.header[6:] == ("A run",)


def test_runs_of_two_splits_have_a_chance_row_each(make_verbs):
    records = [make_verbs(seed=seed, group=DEMO) for seed in range(2)]
    records[1]["split"]["digest"] = "another"
    assert [row[0] for row in demo_grid("b", 8, to_frame(records)).rows].count("Chance") == 2


def test_no_table_of_the_demo_shows_a_number_of_the_paper(make_verbs):
    fixed = {"head": {"precision": 0.9, "recall": 0.8}, "tail": {"precision": 0.7, "recall": 0.4}}
    fixed |= {"error": 12.25, "top5_accuracy": 0.99, "macro_precision": 0.5, "macro_recall": 0.4}
    records = [
        make_verbs(row.method, row.variant, seed, group=DEMO, values=fixed)
        for row in verb_rows(7).drop_duplicates(["method", "variant"]).itertuples()
        for seed in range(3)
    ]
    makers = table_makers(to_frame(records))
    names = [name for name in makers if name.startswith(DEMO)]
    assert names == [f"{DEMO}-table-7", f"{DEMO}-table-8", f"{DEMO}-claims"]
    text = "\n".join(makers[name]().to_markdown() for name in names)
    papers = {f"{value:.2f}" for table in (7, 8) for value in verb_rows(table).value}
    assert not papers & set(re.findall(r"\d+\.\d\d", text))
    assert "paper |" not in text
    assert "the paper's +" not in text
    for name in names:
        assert "not EGTEA and not the paper's setting" in makers[name]().note


def test_demo_runs_never_enter_egteas_tables_nor_the_other_way_round(make_verbs):
    demo, egtea = make_verbs(group=DEMO), make_verbs(group="egtea-verbs")
    rows = by_row(verbs_grid("b", 7, to_frame([demo])))
    assert rows["CE", "ours, last epoch"] == ("–",) * 4
    grid = demo_grid("b", 7, to_frame([egtea]))
    assert not grid.rows
    assert grid.note == "No run of this experiment is recorded yet."


def test_tables_7_and_8_are_blocks_of_any_page(tmp_path, make_verbs, publish):
    names = [f"{kind}-table-{table}" for kind in ("egtea", DEMO) for table in (7, 8)]
    page = "\n".join(f"<!-- generated: {n} -->\n<!-- end generated -->\n" for n in names)
    path = tmp_path / "docs" / "egtea.md"
    path.parent.mkdir()
    path.write_text(page, encoding="utf-8")
    results = publish(make_verbs(group=DEMO, values={"error": 12.5}))
    main(Options(results=results, root=tmp_path, write=True))
    text = path.read_text(encoding="utf-8")
    assert "| CE | last epoch | 87.50 (1) |" in text
    assert "| CE | ours, last epoch | – | – | – | – |" in text
    main(Options(results=results, root=tmp_path, check=True))


def test_mixed_settings_of_published_demo_runs_are_refused(make_verbs, publish):
    records = [make_verbs(seed=0, group=DEMO), make_verbs(seed=1, group=DEMO)]
    records[1]["config"]["learning_rate"] = 0.5
    with pytest.raises(UserError, match="motion-digits the runs of ce split1 differ in learning_r"):
        main(Options(results=publish(*records)))


def test_demo_alone_asks_for_no_table_of_the_paper(make_verbs, publish, capsys):
    record = make_verbs(group=DEMO)
    assert datasets_run(to_frame([record])) == []
    assert datasets_run(to_frame([make_verbs()])) == ["egtea-verbs"]
    assert ("motion-digits", "motion-digits") in counted_groups()
    main(Options(results=publish(record)))
    out = capsys.readouterr().out
    assert "Rendered demo, motion digits: all methods" in out
    assert "Table 1, MNIST-LT" not in out
    assert "Table 7, EGTEA verbs" not in out


def test_readings_of_egtea_are_listed_by_split(make_verbs):
    group = "egtea-verbs-readings"
    frame = to_frame([make_verbs(group=group), make_verbs(group=group, seed=1)])
    grid = table_makers(frame)["readings-egtea"]()
    assert "split1: test" in grid.header


def test_one_frame_of_a_clip_is_told_in_a_sentence(two_seeds):
    frame = to_frame(two_seeds("motion-digits-one-frame"))
    assert one_frame_sentence(frame).startswith("On one frame of each clip CE has 69.00 % of")
    assert one_frame_sentence(frame).endswith("recall of 25.00 % (last epoch, seeds: 2).")
    assert one_frame_sentence(to_frame([])) == "No run on one frame is recorded yet."
