"""CIFAR100-LT with 500 images at the head, beside what others report."""

from analysis.bridge import GROUP, REPORTS, bridge_grid
from analysis.records import to_frame


def cells(grid, method):
    return [row[1:4] for row in grid.rows if row[0] == method]


def test_without_a_run_it_holds_what_others_report(make_record):
    grid = bridge_grid("bridge", to_frame([make_record()]))
    assert [row[3:] for row in grid.rows] == [(f"{r.accuracy:.1f}", r.source) for r in REPORTS]
    assert {row[2] for row in grid.rows} == {"–"}
    assert "No run of ours" in grid.note


def test_ours_stand_beside_what_is_reported_at_the_same_weight_decay(make_record):
    def run(decay, seed, error, **config):
        settings = {"weight_decay": decay, "head_size": 500, **config}
        return make_record(
            "ce", "", "100", seed, error=error, epochs=200, group=GROUP, config=settings,
            difficulty_set_accuracy=None, run=f"ce_{decay}_{seed}_{config}",
        )  # fmt: skip

    records = [run(5e-4, 0, 58.0), run(5e-4, 1, 60.0), run(2e-4, 0, 61.0)]
    # Other augmentation is another experiment.
    records.append(run(2e-4, 1, 11.0, augmentation="none"))
    grid = bridge_grid("bridge", to_frame(records))
    assert cells(grid, "CE") == [
        ("2e-4", "39.00 (1)", "38.3"),
        ("–", "–", "39.9"),
        ("5e-4", "41.00 ± 1.41 (2)", "–"),
    ]
    assert "No run of ours" not in grid.note


def test_a_shorter_schedule_and_another_group_stand_elsewhere(make_record):
    short = make_record(
        "ce", "", "100", error=50.0, epochs=30, group=GROUP, config={"weight_decay": 5e-4}
    )
    other = make_record("ce", "", "100", group="cifar100-lt", epochs=200)
    assert "No run of ours" in bridge_grid("bridge", to_frame([short, other])).note
