"""The worked example's tables, from made-up records of three seeds, each on a split of its own."""

import pytest

from analysis.photo_crops import GROUP, RUNS, classes_grid, methods_grid
from analysis.records import mixed_settings, to_frame
from analysis.tables import block_makers

# Test errors, and by how much each seed's differs from CE's.
CE = (30.0, 32.0, 34.0)
SHIFTS = {
    "ce": (0, 0, 0), "balanced-softmax": (-9, -10, -11), "cdb-s": (-20, 14, 0),
    "cdb-w-ce": (8, 9, 10),
}  # fmt: skip


@pytest.fixture
def run(make_record):
    """A run on the lists of its seed."""

    def make(method, variant, seed, error, **split):
        record = make_record(
            method, variant, "lists", seed, error=error, dataset="image-folder", group=GROUP,
            difficulty_set_accuracy=0.4, config={"lists": f"lists {seed}", "split_seed": None},
        )  # fmt: skip
        record["split"] |= split
        return record

    return make


@pytest.fixture
def example(run):
    return [
        run(*cell, seed, CE[seed] + SHIFTS[cell[0]][seed]) for cell in RUNS for seed in range(3)
    ]


def test_a_row_a_method_has_both_sets_and_the_distance_from_ce_paired_by_seed(example):
    grid = methods_grid("b", to_frame(example))
    columns = list(zip(*grid.rows, strict=True))
    assert columns[0] == (
        "CE", "Balanced Softmax", "CDB-S (τ sigmoid-code)", "CDB-W-CE (τ sigmoid-code)",
    )  # fmt: skip
    assert set(columns[1]) == {"40.00 ± 0.00 (3)"}
    assert columns[2] == (
        "68.00 ± 2.00 (3)", "78.00 ± 1.00 (3)", "70.00 ± 18.33 (3)", "59.00 ± 3.00 (3)",
    )  # fmt: skip
    assert columns[3] == (
        "–", "+10.00 [7.52, 12.48]", "+2.00 [−40.45, 44.45]", "−9.00 [−11.48, −6.52]",
    )  # fmt: skip
    assert set(columns[4]) == {"4 epochs, 60 s, test CPU"}


def test_the_note_says_what_is_decided(example):
    note = methods_grid("b", to_frame(example)).note
    assert note.endswith(
        "Balanced Softmax: above CE; CDB-W-CE (τ sigmoid-code): below CE; "
        "CDB-S (τ sigmoid-code): not decided, the interval holds 0."
    )


def test_one_seed_decides_nothing(example):
    grid = methods_grid("b", to_frame([run for run in example if run["seed"] == 0]))
    assert [row[3] for row in grid.rows] == ["–", "+9.00", "+20.00", "−8.00"]
    assert "above CE" not in grid.note
    assert "below CE" not in grid.note


def test_accuracy_is_the_mean_of_the_classes_however_many_test_pictures_each_has(run):
    record = run("ce", "", 0, 10.0)
    record["metrics"]["last"]["class_accuracy"] = [0.5, None, 0.25]
    (row,) = methods_grid("b", to_frame([record])).rows
    assert row[2] == "37.50 (1)"


def test_blocks_of_the_page_are_made_from_the_records(example):
    makers = block_makers(to_frame(example))
    assert "| CE | 40.00" in makers["photo-crops-methods"]()
    classes = makers["photo-crops-classes"]()
    assert "| mean of the classes | 5000 | 68.0 | 78.0 | 70.0 | 59.0 |" in classes
    assert "on 3 splits" in classes
    without = block_makers(to_frame([]))
    for name in ("photo-crops-methods", "photo-crops-classes"):
        assert without[name]() == "No run of this experiment is recorded yet."


def test_classes_are_shown_of_the_splits_that_every_method_has(example):
    unfinished = [run for run in example if (run["method"], run["seed"]) != ("cdb-s", 2)]
    grid = classes_grid("b", to_frame(unfinished))
    assert "on 2 splits" in grid.note
    assert grid.rows[-1][2] == "69.0"
    # One has none in common with the others.
    apart = [run for run in example if (run["method"] == "ce") == (run["seed"] == 0)]
    assert classes_grid("b", to_frame(apart)).note.startswith("No split is common")


def test_lists_of_each_seed_are_one_setting_where_their_classes_are_as_large(run):
    same = [run("ce", "", seed, 30.0) for seed in range(3)]
    assert mixed_settings(to_frame(same)) == []
    larger = [*same[:2], run("ce", "", 2, 30.0, train=[4950, 51])]
    (sentence,) = mixed_settings(to_frame(larger))
    assert sentence == "the runs of ce lists differ in lists"
    # Two seeds on lists of their own, a third on those of the first.
    again = [*same[:2], same[2] | {"config": same[2]["config"] | {"lists": "lists 0"}}]
    assert len(mixed_settings(to_frame(again))) == 1
