"""The tables of docs/scale.md."""

import json

import pytest

from analysis.scale import RECORDED, classes_grid, growth_sentences, node_grid, samples_grid, short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0204, "0.020"), (2.0, "2.0"), (17.3, "17"), (379.2, "379"), (3033.4, "3,033"), (0, "0")],
)
def test_numbers_have_two_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_a_sample_costs_what_the_file_says() -> None:
    recorded = json.loads(RECORDED.read_text())
    (one,) = (
        m
        for m in recorded["measurements"]
        if (m["task"], m["axis"], m["samples"]) == ("class-probability", "samples", 10**8)
    )
    row = samples_grid("x").rows[5]
    assert row[:2] == ("– an epoch", "epoch")
    assert row[3:5] == (
        f"{short(one['seconds']['epoch'])} (100 million)",
        f"{one['bytes']['epoch'] / 10**8:.0f}",
    )


def test_rows_that_grow_faster_than_linear_are_marked_and_counted() -> None:
    marked = [row for row in samples_grid("x").rows if "*c*" in row[-1]]
    assert f"but for {len(marked)} rows, marked *c*" in growth_sentences()
    assert marked


def test_classes_stand_in_columns() -> None:
    grid = classes_grid("x")
    assert grid.header[1:] == ("100 classes", "1,000 classes", "10,000 classes", "100,000 classes")
    assert all(len(row) == len(grid.header) for row in grid.rows)


def test_what_a_rank_holds_is_bytes_times_samples() -> None:
    rows = {row[0]: row for row in node_grid("x").rows}
    assert rows["Crops and colours of the epoch"][1:] == ("104", "0.13 GB", "1.0 GB", "10 GB")
    assert rows["Together"][1] == "220"
