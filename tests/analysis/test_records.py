import math
from pathlib import Path

import pytest

from analysis.claims.cells import Cells
from analysis.figures import run_course
from analysis.records import (
    RUNS,
    group_runs,
    left_out,
    local_records,
    mixed_settings,
    paper_claims,
    paper_runs,
    paper_table,
    published_records,
    require_folder,
    to_frame,
)
from analysis.report import Material, machines_grid
from analysis.reproduction import IDENTICAL, outcome
from common.errors import UserError
from common.training.record import check_record, config_differences


def test_frame_has_one_row_per_run_with_errors_in_percent(make_record):
    record = make_record(seed=3, error=7.5, best_error=5.25, epochs=4, difficulty_set_accuracy=0.93)
    row = to_frame([record]).iloc[0]
    assert (row["method"], row["variant"], row["condition"], row["seed"]) == ("ce", "", "99", 3)
    assert (row["error_last"], row["error_best"], row["epoch_best"]) == (7.5, 5.25, 3)
    assert row["difficulty_error_last"] == pytest.approx(7.0)
    assert row["epochs"] == 4


def test_missing_difficulty_accuracy_is_nan_and_not_zero(make_record):
    row = to_frame([make_record(difficulty_set_accuracy=None)]).iloc[0]
    assert math.isnan(row["difficulty_error_last"])


def test_only_the_group_named_like_the_dataset_stands_beside_the_paper(make_record):
    frame = to_frame([make_record(), make_record(group="mnist-lt-readings", error=50.0)])
    assert list(paper_runs(frame, "mnist-lt")["error_last"]) == [8.0]


@pytest.mark.parametrize("odd", [2, 9])
def test_shortened_and_prolonged_trial_runs_do_not_enter_the_table_and_are_named(make_record, odd):
    usual = [make_record(seed=0), make_record("eql", seed=0)]
    frame = to_frame([*usual, make_record(seed=1, epochs=odd, error=50.0)])
    assert list(paper_runs(frame, "mnist-lt")["seed"]) == [0, 0]
    (sentence,) = left_out(frame, "mnist-lt")
    assert sentence == f"ce_imbalance-99_seed-1 has {odd} epochs, where most runs have 4"


def test_of_equally_many_runs_the_longer_ones_enter_the_table(make_record):
    frame = to_frame([make_record(seed=0, epochs=2), make_record(seed=1, epochs=4)])
    assert list(paper_runs(frame, "mnist-lt")["seed"]) == [1]


def test_two_records_of_one_cell_and_seed_are_refused(make_record):
    frame = to_frame([make_record(), make_record(run="again")])
    with pytest.raises(UserError, match="again"):
        paper_runs(frame, "mnist-lt")


def test_of_several_settings_the_one_with_most_runs_is_taken(make_record):
    changed = make_record(seed=0, error=50.0, config={"learning_rate": 0.5}, run="other")
    frame = to_frame([changed, make_record(seed=0), make_record(seed=1)])
    assert list(paper_runs(frame, "mnist-lt")["error_last"]) == [8.0, 8.0]


def test_each_method_may_have_settings_of_its_own(make_record):
    frame = to_frame([make_record(), make_record("cb", config={"cb_beta": 0.9})])
    assert len(paper_runs(frame, "mnist-lt")) == 2


def test_empty_frames_give_empty_tables():
    frame = to_frame([])
    assert paper_runs(frame, "mnist-lt").empty
    assert mixed_settings(paper_runs(frame, "mnist-lt")) == []


def test_runs_of_one_cell_that_differ_in_more_than_the_seed_are_named(make_record):
    same = [make_record(seed=0), make_record(seed=1)]
    assert mixed_settings(to_frame(same)) == []
    other = make_record(seed=2, config={"learning_rate": 0.5})
    (sentence,) = mixed_settings(to_frame([*same, other]))
    assert "ce 99" in sentence
    assert "learning_rate" in sentence


def _rewritten(value):
    """``value`` as a program writes it that knows one kind of number."""
    if isinstance(value, dict):
        return {name: _rewritten(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rewritten(part) for part in value]
    return float(value) if type(value) is int else value


def test_a_record_with_5_for_5_0_is_of_the_same_configuration(make_record):
    hardware = {"processor": "a CPU", "cores": 2, "threads": 2}
    where = make_record()["provenance"] | {"hardware": hardware}
    records = [make_record(seed=s, provenance=where, config={"max": 5}) for s in (0, 1)]
    changed = _rewritten(records[1])
    check_record(changed, "the rewritten record")
    frame = to_frame([records[0], changed])
    assert mixed_settings(frame) == []
    runs = paper_runs(frame, "mnist-lt")
    assert len(runs) == 2
    assert [str(seed) for seed in runs["seed"]] == ["0", "1"]
    assert set(runs["hardware"]) == {"a CPU, 2 threads"}
    assert outcome(changed, records[1]) == IDENTICAL
    assert len(machines_grid(Material([records[0], changed], [])).rows) == 1
    assert "seed 1\n" in run_course.draw(changed).get_suptitle()


def test_what_is_mixed_in_the_note_is_mixed_in_the_table(make_record):
    frame = to_frame([make_record(seed=0), make_record(seed=1, config={"new": None})])
    assert mixed_settings(frame) == []
    assert len(paper_runs(frame, "mnist-lt")) == 2


def test_a_split_that_does_not_follow_the_seed_is_another_setting(make_record):
    same = [make_record(seed=0), make_record(seed=1)]
    fixed = make_record(seed=2, config={"split_seed": 0})
    (sentence,) = mixed_settings(to_frame([*same, fixed]))
    assert sentence == "the runs of ce 99 differ in split_seed"
    assert list(paper_runs(to_frame([*same, fixed]), "mnist-lt")["seed"]) == [0, 1]


def test_a_split_that_is_fixed_for_all_seeds_is_one_setting(make_cifar):
    frame = to_frame([make_cifar(seed=seed) for seed in (0, 1, 2)])
    assert mixed_settings(frame) == []
    assert list(paper_runs(frame, "cifar100-lt")["seed"]) == [0, 1, 2]


@pytest.mark.parametrize("seeds", [(0,), (1,), (0, 1), (0, 7)])
def test_any_choice_of_seeds_on_the_fixed_split_is_kept_whole(make_cifar, seeds):
    frame = to_frame([make_cifar(seed=seed) for seed in seeds])
    assert left_out(frame, "cifar100-lt") == []
    assert tuple(paper_runs(frame, "cifar100-lt")["seed"]) == seeds


def test_a_run_on_its_own_split_is_another_setting_than_runs_on_the_fixed_one(make_cifar):
    fixed = [make_cifar(seed=seed) for seed in (0, 1, 2)]
    own = make_cifar(seed=3, config={"split_seed": 3})
    (sentence,) = mixed_settings(to_frame([*fixed, own]))
    assert sentence == "the runs of ce 100 differ in split_seed"
    assert list(paper_runs(to_frame([*fixed, own]), "cifar100-lt")["seed"]) == [0, 1, 2]


def test_pairs_are_found_whether_the_split_follows_the_seed_or_is_fixed(make_record, make_cifar):
    for make, dataset, condition in (
        (make_record, "mnist-lt", "99"),
        (make_cifar, "cifar100-lt", "100"),
    ):
        records = [make(m, "", condition, seed=s) for m in ("ce", "cb") for s in (0, 1, 2)]
        cells = Cells(paper_runs(to_frame(records), dataset), "last")
        difference = cells.difference(("ce", ""), ("cb", ""), condition)
        assert difference is not None
        assert difference.n == 3


def test_the_second_stages_epochs_are_no_shortened_schedule(make_cifar):
    first = [make_cifar(seed=seed, epochs=10) for seed in (0, 1)]
    second = [
        make_cifar("crt+cdb-s", "stage1=ce", seed=seed, epochs=epochs)
        for seed, epochs in ((0, 3), (1, 3), (2, 2))
    ]
    frame = to_frame(first + second)
    assert len(paper_runs(frame, "cifar100-lt")) == 4
    (sentence,) = left_out(frame, "cifar100-lt")
    assert sentence.endswith("seed-2 has 2 epochs, where most runs have 3")


def test_runs_of_a_group_are_chosen_like_the_papers(make_cifar):
    group = "cifar100-lt-short"
    frame = to_frame([make_cifar(), make_cifar(group=group, epochs=3)])
    assert list(group_runs(frame, "cifar100-lt", group)["epochs"]) == [3]
    assert left_out(frame, "cifar100-lt", group) == []


def test_shot_accuracy_is_in_percent_and_nan_without_a_class(make_cifar):
    record = make_cifar(condition="10")
    row = to_frame([record]).iloc[0]
    many = record["metrics"]["last"]["shot_accuracy"]["many"]
    assert row["many_last"] == pytest.approx(100 * many)
    assert math.isnan(row["few_last"])


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        ({"device": "NVIDIA H100", "processor": "Intel"}, "NVIDIA H100"),
        ({"device": "cpu", "processor": "AMD EPYC", "threads": 1}, "AMD EPYC, 1 thread"),
        ({"device": "cpu", "processor": "AMD EPYC", "threads": 2}, "AMD EPYC, 2 threads"),
    ],
)
def test_hardware_is_what_the_run_trained_on(make_record, hardware, name):
    record = make_record()
    record["provenance"]["hardware"] = hardware
    assert to_frame([record]).iloc[0]["hardware"] == name


def test_config_differences_name_changed_and_absent_fields_and_no_equal_ones():
    assert config_differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5}) == ["b", "c"]
    assert config_differences({"a": 5, "b": None, "c": [1]}, {"a": 5.0, "c": [1.0]}) == []


def test_a_setting_without_effect_that_one_of_two_records_names_is_no_difference():
    older, newer = {"method": "ce", "focal_gamma": 1.0, "epochs": 5}, {"method": "ce", "epochs": 5}
    assert config_differences(older, newer) == config_differences(newer, older) == []
    assert config_differences(older, older | {"focal_gamma": 2.0}) == ["focal_gamma"]
    assert config_differences(older, newer | {"decay_bias": False}) == ["decay_bias"]


def test_records_that_name_what_has_no_effect_and_those_that_do_not_are_of_one_cell(make_record):
    older = make_record(seed=0, config={"focal_gamma": 1.0, "cfs_q": 0.5})
    newer = make_record(seed=1)
    frame = to_frame([older, newer])
    assert mixed_settings(frame) == []
    assert len(paper_runs(frame, "mnist-lt")) == 2


def test_local_records_are_read_from_record_json_only(make_record, finish):
    runs = finish(make_record(seed=1), make_record(seed=0))
    assert [record["seed"] for record in local_records(runs)] == [0, 1]


def test_damaged_record_is_a_user_error_naming_the_file(make_record, publish):
    results = publish(make_record())
    path = next(results.rglob("*.json"))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=path.name):
        published_records(results)


def test_only_the_default_folder_may_be_absent(tmp_path: Path):
    assert require_folder(RUNS, RUNS, "--runs") == RUNS
    with pytest.raises(UserError, match="--runs"):
        require_folder(tmp_path / "absent", RUNS, "--runs")


def test_the_papers_numbers_are_read_as_numbers_and_text():
    table = paper_table()
    row = table[(table["method"] == "ce") & (table["dataset"] == "mnist-lt")].iloc[0]
    assert (row["variant"], row["condition"], row["value"], row["std"]) == ("", "99", 8.59, 0.41)
    cifar = table[(table["table"] == 1) & (table["dataset"] == "cifar100-lt")]
    assert cifar["std"].isna().all()
    assert {"M1", "M2", "M3", "M4", "M5"} <= set(paper_claims()["id"])


def test_measures_of_tables_7_and_8_are_columns_in_percent(make_verbs, make_record):
    values = {"error": 25.0, "top5_accuracy": 0.9, "tail": {"precision": None, "recall": 0.5}}
    video, other = to_frame([make_verbs(values=values), make_record(error=8.0)]).to_dict("records")
    assert (video["top1_last"], video["top5_last"], video["tail_recall_best"]) == (75.0, 90.0, 50.0)
    assert math.isnan(video["tail_precision_last"])
    # A record of another task has a top-1 accuracy, and the rest is missing rather than 0.
    assert other["top1_last"] == 92.0
    assert math.isnan(other["macro_recall_last"])
    assert math.isnan(other["head_precision_best"])


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("metrics", "last", "confusion"), [[1, -1], [0, 2]]),
        (("metrics", "last", "macro_recall"), 50.0),
        (("metrics", "best", "head"), {"precision": 0.5}),
        (("metrics", "best", "class_precision"), [1.5]),
        (("split", "head"), [-1]),
        (("split", "notes"), "a sentence"),
    ],
)
def test_record_of_a_video_run_that_does_not_fit_the_schema_is_refused(make_verbs, where, value):
    record = make_verbs()
    check_record(record, "as made")
    part = record
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    with pytest.raises(UserError, match=where[-1]):
        check_record(record, "the record")


def test_runs_that_patience_has_ended_are_in_the_table(make_record):
    records = [make_record(seed=seed, epochs=4 - (seed == 3)) for seed in range(4)]
    for record in records:
        record["config"] |= {"patience": 1, "epochs": 4}
    frame = to_frame(records)
    assert set(paper_runs(frame, "mnist-lt")["seed"]) == {0, 1, 2, 3}
    assert left_out(frame, "mnist-lt") == []
