"""Runs under several weight decays side by side."""

import pytest

from analysis.findings import Findings
from analysis.records import to_frame
from analysis.weight_decay import decay_makers, loss_before_the_drop


@pytest.fixture
def decayed(make_cifar):
    """A run on CIFAR100-LT of a weight decay, named and filed as the trainer does."""

    def make(decay, method="ce", variant="", seed=0, *, more="", group="", **fields):
        tau = (
            variant.removeprefix("tau=") if variant.startswith("tau=") else fields.pop("tau", None)
        )
        config = {"weight_decay": decay, "milestones": [8, 9], "tau": tau}
        written = decay == 0.0001 and not more
        changed = "" if decay == 0.0001 else f"_weight-decay-{decay}"
        group = group or ("cifar100-lt" if written else "cifar100-lt-recipe")
        run = f"{method}_imbalance-100{changed}{more}_seed-{seed}"
        return make_cifar(method, variant, seed=seed, config=config, group=group, run=run, **fields)

    return make


def rows_of(name, *records):
    return decay_makers(to_frame(records))[name]().rows


def test_the_written_recipe_stands_beside_what_departs_from_it(decayed):
    records = [decayed(d, seed=s, error=60.0 + s) for d in (0.0005, 0.0001) for s in range(2)]
    rows = rows_of("cifar100-decay", *records)
    assert [row[:3] for row in rows] == [
        ("CE", "1e-4", "60.50 ± 0.71 (2)"), ("CE", "5e-4", "60.50 ± 0.71 (2)"),
    ]  # fmt: skip


def test_what_was_run_by_the_written_recipe_alone_is_left_to_its_own_tables(decayed):
    records = [decayed(0.0001), decayed(0.0001, "focal"), decayed(0.0005)]
    assert {row[0] for row in rows_of("cifar100-decay", *records)} == {"CE"}


def test_a_method_is_compared_with_cross_entropy_of_its_own_decay_and_seed(decayed):
    tau = "tau=sigmoid-accv"
    records = [decayed(0.0005, seed=s, error=60.0 + s) for s in range(3)]
    records += [decayed(0.0005, "cdb-w-ce", tau, s, error=59.0 + s) for s in range(2)]
    # Not these: another decay, another schedule.
    records += [decayed(0.0001, error=10.0), decayed(0.0005, more="_epochs-240", error=20.0)]
    (row,) = [r for r in rows_of("cifar100-decay", *records) if "sigmoid-accv" in r[0]]
    assert row[4] == "−1.00 [−1.00, −1.00] (2)"


def test_other_settings_of_a_run_are_named(decayed):
    records = [decayed(0.0005, more="_epochs-240_milestones-160-210")]
    records += [decayed(0.0005, group="cifar100-lt-code")]
    names = [row[0] for row in rows_of("cifar100-decay", *records)]
    assert names == ["CE; as the authors' code", "CE; epochs 240, milestones 160-210"]


def test_a_steadied_run_is_a_row_of_its_own_and_none_of_the_methods_findings(decayed):
    steadied = decayed(
        0.0005,
        "cdb-w-ce",
        "tau=sigmoid-accv average=0.9",
        more="_difficulty-average-0.9",
        error=9.0,
    )
    steadied["config"] |= {"difficulty_average": 0.9}
    records = [
        decayed(0.0005, error=8.0),
        decayed(0.0005, "cdb-w-ce", "tau=sigmoid-accv"),
        steadied,
    ]
    rows = {row[0]: row for row in rows_of("cifar100-decay", *records)}
    assert set(rows) == {
        "CE", "CDB-W-CE (τ sigmoid-accv)", "CDB-W-CE (τ sigmoid-accv, average 0.9)",
    }  # fmt: skip
    assert rows["CDB-W-CE (τ sigmoid-accv, average 0.9)"][4] == "+1.00 (1)"
    assert set(Findings(to_frame(records)).runs["variant"]) == {"", "tau=sigmoid-accv"}


def test_second_stages_have_tables_of_their_own_with_the_tau_of_their_stages(decayed):
    records = [decayed(0.0005), decayed(0.0001, "crt+cdb-s", "stage1=ce", tau="sigmoid")]
    records += [decayed(0.0005, "crt+cdb-s", "stage1=ce", tau="sigmoid-accv")]
    rows = rows_of("cifar100-decay-decoupled", *records)
    assert [row[:2] for row in rows] == [
        ("cRT + CDB-S (after CE, τ sigmoid)", "1e-4"),
        ("cRT + CDB-S (after CE, τ sigmoid-accv)", "5e-4"),
    ]
    assert {len(row) for row in rows} == {4}
    assert [row[0] for row in rows_of("cifar100-decay", *records)] == ["CE"]


def test_the_loss_is_that_of_five_epochs_before_the_rate_first_falls(decayed):
    record = decayed(0.0005, epochs=10)
    record["history"]["loss"] = [float(epoch) for epoch in range(1, 11)]
    assert loss_before_the_drop(record) == 3.0
    (row,) = rows_of("cifar100-decay-shots", record)
    assert row[5] == "3.00"


def test_without_such_runs_the_tables_are_empty(make_cifar):
    for make in decay_makers(to_frame([make_cifar()])).values():
        assert make().rows == ()
