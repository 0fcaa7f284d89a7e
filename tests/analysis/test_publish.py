import errno
import json
import os
from pathlib import Path

import pytest

from analysis.publish import Options, main
from analysis.records import published_records
from common.errors import UserError


def files(folder: Path) -> dict[str, str]:
    """Content by relative path."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_finished_runs_become_published_records(make_record, finish, tmp_path, capsys):
    runs = finish(make_record(seed=0), make_record("eql"))
    (runs / "mnist-lt" / "unfinished").mkdir()
    main(Options(runs=runs, results=tmp_path / "new"))
    names = {"mnist-lt/ce_imbalance-99_seed-0.json", "mnist-lt/eql_imbalance-99_seed-0.json"}
    assert set(files(tmp_path / "new")) == names
    assert published_records(tmp_path / "new") == [make_record(seed=0), make_record("eql")]
    assert capsys.readouterr().out == f"{tmp_path / 'new'}: 2 new, 0 identical, 0 different\n"


def test_only_the_groups_named_are_published(make_record, finish, publish):
    runs = finish(make_record(), make_record(group="trial"))
    results = publish()
    main(Options(runs=runs, results=results, group=("trial",)))
    assert set(files(results)) == {"trial/ce_imbalance-99_seed-0.json"}


def test_a_record_of_the_same_numbers_stays_with_its_own_provenance(
    make_record, finish, publish, capsys
):
    slower = make_record()
    slower["provenance"]["seconds"] = 500.0
    results = publish(make_record())
    before = files(results)
    main(Options(runs=finish(slower, make_record(seed=1)), results=results))
    assert files(results).items() > before.items()
    assert "1 new, 1 identical, 0 different" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other", [{"error": 9.0}, {"config": {"learning_rate": 0.5}}], ids=["metrics", "settings"]
)
def test_a_published_record_that_differs_is_refused_and_nothing_is_written(
    make_record, finish, publish, other
):
    results = publish(make_record())
    before = files(results)
    runs = finish(make_record(**other), make_record(seed=1))
    with pytest.raises(UserError, match=r"1 new, 0 identical, 1 different.*seed-0.*--replace"):
        main(Options(runs=runs, results=results))
    assert files(results) == before


def test_replace_overwrites_what_differs(make_record, finish, publish, capsys):
    results = publish(make_record())
    main(Options(runs=finish(make_record(error=9.0)), results=results, replace=True))
    assert published_records(results) == [make_record(error=9.0)]
    assert "0 new, 0 identical, 1 different" in capsys.readouterr().out


def test_a_damaged_record_stops_everything(make_record, finish, publish):
    runs = finish(make_record(seed=0), make_record(seed=1))
    (runs / "mnist-lt" / "ce_imbalance-99_seed-1" / "record.json").write_text("{")
    results = publish()
    with pytest.raises(UserError, match=r"seed-1/record.json cannot be read"):
        main(Options(runs=runs, results=results))
    assert not files(results)


def test_a_record_in_a_folder_of_another_name_is_refused(make_record, finish, publish):
    runs = finish(make_record())
    folder = runs / "mnist-lt" / "ce_imbalance-99_seed-0"
    folder.rename(folder.with_name("copy"))
    with pytest.raises(UserError, match=r"copy/record.json is the record of mnist-lt/ce_"):
        main(Options(runs=runs, results=publish()))


def test_a_group_without_a_finished_run_is_named(make_record, finish, publish):
    with pytest.raises(UserError, match=r"runs/absent has no finished run"):
        main(Options(runs=finish(make_record()), results=publish(), group=("absent",)))


def test_a_full_disk_keeps_the_published_record(make_record, finish, publish, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    results, runs = publish(make_record()), finish(make_record(error=9.0))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No room left"):
        main(Options(runs=runs, results=results, replace=True))
    ((_, content),) = files(results).items()
    assert json.loads(content) == make_record()
