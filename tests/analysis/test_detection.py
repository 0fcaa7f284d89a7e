import math
import re

import pytest

from analysis.detection import (
    DEMO,
    DEMO_STARTS,
    LVIS,
    TABLES,
    detection_rows,
    our_runs_of,
    paper_runs_of,
)
from analysis.metric_tables import beside_paper_grid, demo_grid
from analysis.records import AP_METRICS, left_out, main_measure, to_frame
from analysis.reproduction import outcome, reproduction_grid
from analysis.tables import Options, counted_groups, datasets_run, main, table_makers
from analysis.words import run_name
from common.errors import UserError


def lvis_grid(table, *frames):
    return beside_paper_grid("b", TABLES[table], *frames)


def scenes_grid(table, frame):
    return demo_grid("b", TABLES[table], frame)


def by_row(grid):
    """Measures by name and whose."""
    return {row[:2]: row[2:] for row in grid.rows}


def test_table_5_holds_the_papers_numbers_and_empty_cells_until_someone_runs_it():
    grid = lvis_grid(5, to_frame([]))
    rows = by_row(grid)
    assert grid.header == ("Method", "Whose", "AP", "AP_r", "AP_c", "AP_f")
    assert len(grid.rows) == 2 * 11
    assert rows["CE (from COCO)", "paper"] == ("21.19", "3.05", "20.38", "29.44")
    name = "CDB-W-CE-clc (from CDB-W-CE on LVIS)"
    assert rows[name, "paper"] == ("26.31", "18.15", "26.37", "29.52")
    ours = [cells for (_, whose), cells in rows.items() if not whose.startswith("paper")]
    assert set(ours) == {("–",) * 4}
    assert "No run of this experiment is recorded yet." in grid.note


def test_table_6_has_boxes_and_masks_and_our_runs_below_the_papers_rows():
    grid = lvis_grid(6, to_frame([]))
    rows = by_row(grid)
    assert grid.header[2:6] == ("Box AP", "Box AP_r", "Box AP_c", "Box AP_f")
    assert grid.header[6:] == ("Mask AP", "Mask AP_r", "Mask AP_c", "Mask AP_f")
    boxes, masks = ("20.78", "3.28", "18.99", "30.00"), ("20.68", "3.73", "19.95", "28.37")
    assert rows["Mask R-CNN", "paper, copied"] == (*boxes, *masks)
    # A number that the paper does not give is a dash.
    assert rows["Calib", "paper, copied"] == (*["–"] * 4, "21.10", "–", "–", "–")
    names = [row[0] for row in grid.rows]
    assert names[1] == "CE (from COCO)"
    place = names.index("CDB-W-CE")
    assert names[place + 1 :] == ["CDB-W-CE-clc (from CDB-W-CE on LVIS)", "CDB-W-CE (from COCO)"]


def test_copied_rows_and_what_is_probably_mask_ap_are_marked():
    whose = dict(row[:2] for row in lvis_grid(5, to_frame([])).rows[::2])
    assert whose["EQL (from COCO)"] == "paper, copied; probably mask AP"
    assert whose["LRW-clc (from CE on LVIS)"] == "paper, copied"
    assert whose["LRW-clc (from CDB-W-CE on LVIS)"] == "paper"
    remarks = [row[1] for row in lvis_grid(6, to_frame([])).rows]
    assert "paper, copied; APr/c/f probably mask AP" in remarks
    assert not any("reference.md" in remark for remark in remarks)


@pytest.mark.parametrize("table", [5, 6])
def test_every_number_of_the_papers_table_is_shown(table):
    grid = lvis_grid(table, to_frame([]))
    shown = sorted(c for row in grid.rows for c in row[2:] if row[1] != "ours, last epoch")
    wanted = sorted(f"{value:.2f}" for value in detection_rows(table)["value"])
    assert [cell for cell in shown if cell != "–"] == wanted


def test_our_rows_are_mean_and_spread_in_percent_with_the_number_of_seeds(make_detection):
    records = [
        make_detection(seed=s, group=LVIS, bbox={"AP": 20.0 + 2 * s, "APr": None}) for s in range(2)
    ]
    rows = by_row(lvis_grid(5, to_frame(records)))
    # 20 and 22: mean 21, s = sqrt(2). No rare category was measured: a dash, not 0.
    wanted = ("21.00 ± 1.41 (2)", "–", "20.00 ± 0.00 (2)", "30.00 ± 0.00 (2)")
    assert rows["CE (from COCO)", "ours, last epoch"] == wanted


def test_runs_with_masks_enter_table_6_only_and_runs_without_table_5_only(make_detection):
    box = make_detection(group=LVIS, bbox={"AP": 11.25})
    mask = make_detection(group=LVIS, task="mask", bbox={"AP": 12.25}, segm={"AP": 13.25})
    frame = to_frame([box, mask])
    five, six = (by_row(lvis_grid(table, frame)) for table in (5, 6))
    assert five["CE (from COCO)", "ours, last epoch"][0] == "11.25 (1)"
    assert six["CE (from COCO)", "ours, last epoch"][::4] == ("12.25 (1)", "13.25 (1)")
    assert "1 recorded runs of LVIS v0.5, 4 epochs each." in lvis_grid(5, frame).note


def test_what_only_we_ran_and_this_machines_runs_have_rows_of_their_own(make_detection):
    published = to_frame([make_detection("cdb-s", group=LVIS)])
    local = to_frame([make_detection("rfs", "random", group=LVIS, bbox={"AP": 7.5})])
    grid = lvis_grid(5, published, local)
    rows = by_row(grid)
    assert [row[0] for row in grid.rows[33::3]] == [
        "CDB-S (from COCO)", "RFS (from random weights)",
    ]  # fmt: skip
    assert rows["CDB-S (from COCO)", "paper"] == ("–",) * 4
    assert rows["RFS (from random weights)", "this machine, last epoch"][0] == "7.50 (1)"
    assert rows["RFS (from random weights)", "ours, last epoch"][0] == "–"


def test_the_demos_variants_stand_in_the_places_of_lvis():
    assert DEMO_STARTS.translate("pretrained=coco") == "pretrained=random"
    assert DEMO_STARTS.translate("pretrained=lvis-ce") == "pretrained=digit-scenes-ce"
    variant = DEMO_STARTS.translate("pretrained=lvis-cdb-w-ce")
    assert variant == "pretrained=digit-scenes-cdb-w-ce"
    assert run_name("bags-clc", variant) == "BAGS-clc (from CDB-W-CE on digit scenes)"


def test_demo_table_shows_cost_and_what_was_run_only_in_the_papers_order(make_detection):
    methods = ("cdb-w-ce-clc", "rfs", "cdb-w-ce", "cdb-s", "ce")
    records = [make_detection(m, task="mask", seed=s) for m in methods for s in range(2)]
    grid = scenes_grid(6, to_frame(records))
    assert [row[0] for row in grid.rows] == [
        "CE (from random weights)", "RFS (from random weights)", "CDB-W-CE (from random weights)",
        "CDB-S (from random weights)", "CDB-W-CE-clc (from CE on digit scenes)",
    ]  # fmt: skip
    assert grid.header[1] == "Epoch"
    assert grid.header[-1] == "A run"
    assert grid.rows[0][1:3] == ("last epoch", "20.00 ± 0.00 (2)")
    assert grid.rows[0][-1] == "4 epochs, 60 s, test CPU"
    assert "not LVIS and not the paper's setting" in grid.note
    assert not scenes_grid(5, to_frame(records)).rows


def test_no_block_of_the_demo_shows_a_number_of_the_paper(make_detection):
    runs = {run for t in (5, 6) for row in paper_runs_of(t) for run in our_runs_of(t, *row)}
    values = {"AP": 10.0, "APr": 11.0, "APc": 12.0, "APf": 13.0}
    records = [
        make_detection(
            method, DEMO_STARTS.translate(variant).removeprefix("pretrained="), seed,
            task=task, bbox=values, segm=values,
        )
        for method, variant in sorted(runs) for seed in range(3) for task in ("box", "mask")
    ]  # fmt: skip
    makers = table_makers(to_frame(records))
    names = [name for name in makers if name.startswith(DEMO)]
    assert names == [f"{DEMO}-table-5", f"{DEMO}-table-6", f"{DEMO}-claims"]
    grids = [makers[name]() for name in names]
    assert all(grid.rows for grid in grids)
    text = "\n".join(grid.to_markdown() for grid in grids)
    papers = {f"{value:.2f}" for table in (5, 6) for value in detection_rows(table).value}
    assert not papers & set(re.findall(r"\d+\.\d\d", text))
    assert "paper |" not in text
    assert "the paper's +" not in text
    assert "COCO" not in text


def test_demo_runs_never_enter_lvis_tables_nor_the_other_way_round(make_detection):
    demo, lvis = make_detection(), make_detection(group=LVIS)
    rows = by_row(lvis_grid(5, to_frame([demo])))
    assert {c for key, c in rows.items() if key[1].startswith("ours")} == {("–",) * 4}
    grid = scenes_grid(5, to_frame([lvis]))
    assert not grid.rows
    assert grid.note == "No run of this experiment is recorded yet."


def test_tables_5_and_6_are_blocks_of_any_page(tmp_path, make_detection, publish):
    names = [f"{kind}-table-{table}" for kind in ("lvis", DEMO) for table in (5, 6)]
    names += ["digit-scenes-claims", "motion-digits-claims"]
    page = "\n".join(f"<!-- generated: {n} -->\n<!-- end generated -->\n" for n in names)
    path = tmp_path / "docs" / "lvis.md"
    path.parent.mkdir()
    path.write_text(page, encoding="utf-8")
    results = publish(make_detection(bbox={"AP": 12.5}))
    main(Options(results=results, root=tmp_path, write=True))
    text = path.read_text(encoding="utf-8")
    assert "| CE (from random weights) | last epoch | 12.50 (1) |" in text
    assert "| CE (from COCO) | ours, last epoch | – | – | – | – |" in text
    main(Options(results=results, root=tmp_path, check=True))


def test_demo_alone_asks_for_no_table_of_the_paper(make_detection, publish, capsys):
    record = make_detection()
    assert datasets_run(to_frame([record])) == []
    assert datasets_run(to_frame([make_detection(group=LVIS)])) == [LVIS]
    assert (DEMO, DEMO) in counted_groups()
    assert (LVIS, LVIS) in counted_groups()
    main(Options(results=publish(record)))
    out = capsys.readouterr().out
    assert "Rendered demo, digit scenes: object detection" in out
    assert "Table 5, LVIS v0.5" not in out
    assert "Table 1, MNIST-LT" not in out


def test_runs_of_mixed_settings_are_refused(make_detection, publish):
    records = [make_detection("cdb-w-ce", seed=0), make_detection("cdb-w-ce", seed=1)]
    records[1]["config"]["difficulty"] = "proposals"
    with pytest.raises(UserError, match=r"digit-scenes the runs of cdb-w-ce .* differ in diffic"):
        main(Options(results=publish(*records)))


def test_a_second_stage_may_have_other_epochs_than_the_detectors(make_detection):
    records = [
        make_detection(), make_detection("rfs"), make_detection("cdb-w-ce-clc", epochs=2),
        make_detection("simcal", epochs=1),
    ]  # fmt: skip
    frame = to_frame(records)
    assert left_out(frame, DEMO) == []
    note = scenes_grid(5, frame).note
    assert "2 epochs each in the second stage of -clc" in note
    assert "1 epoch each in the second stage of SimCal" in note


def test_a_detectors_ap_is_in_its_columns_and_it_has_no_error_nor_best_epoch(
    make_detection, make_record
):
    record = make_detection(task="mask", bbox={"APr": None}, segm={"APf": 31.0})
    detector, other = to_frame([record, make_record(error=8.0)]).to_dict("records")
    assert detector["bbox_AP_last"] == 20.0
    assert detector["segm_APf_last"] == 31.0
    empty = ["bbox_APr_last", "error_last", "error_best", "epoch_best", "top1_last", "many_last"]
    empty += [f"{metric}_best" for metric in AP_METRICS]
    assert all(math.isnan(detector[column]) for column in empty)
    assert all(math.isnan(other[f"{metric}_last"]) for metric in AP_METRICS)
    assert other["error_last"] == 8.0


def test_detectors_are_compared_by_the_ap_of_boxes(make_detection):
    local, published = make_detection(bbox={"AP": 20.0}), make_detection(bbox={"AP": 19.5})
    assert main_measure(local, "last") == 20.0
    assert math.isnan(main_measure(local, "best"))
    assert outcome(local, make_detection(bbox={"AP": 20.0})) == "identical"
    assert outcome(local, published) == "differs by +0.500 points"
    (row,) = reproduction_grid([local], [published]).rows
    assert row[1:5] == ("20.000", "19.500", "–", "–")
