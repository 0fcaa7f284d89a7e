import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import blocks
from analysis.records import to_frame
from analysis.tables import Options, main, table_makers
from common.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = """# Title

<!-- generated: mnist-table-1 -->
a stale line
<!-- end generated -->

between

<!-- generated: claims -->
<!-- end generated -->
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(PAGE, encoding="utf-8")
    return tmp_path


def test_write_fills_the_blocks_and_keeps_the_text_between(repository, make_record, publish):
    results = publish(make_record(error=8.0))
    main(Options(results=results, root=repository, write=True))
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "| CE | 99 | 8.59 ± 0.41 | 8.00 (1) | −0.59 | 8.00 (1) |" in text
    assert "a stale line" not in text
    assert text.startswith("# Title\n\n<!-- generated: mnist-table-1 -->\n")
    assert "<!-- end generated -->\n\nbetween\n\n<!-- generated: claims -->" in text
    main(Options(results=results, root=repository, check=True))


def test_check_finds_a_table_that_is_not_current(repository, make_record, publish, capsys):
    results = publish(make_record(error=8.0))
    main(Options(results=results, root=repository, write=True))
    publish(make_record(error=9.0))
    with pytest.raises(SystemExit) as stop:
        main(Options(results=results, root=repository, check=True))
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert "mnist-table-1" in out
    assert "--write" in out


def test_pages_in_docs_and_task_folders_are_written_too(repository, publish, make_record):
    page = "<!-- generated: readings-mnist -->\n<!-- end generated -->\n"
    for place in ("docs/readings.md", "classification/README.md"):
        (repository / place).parent.mkdir()
        (repository / place).write_text(page, encoding="utf-8")
    main(Options(results=publish(make_record()), root=repository, write=True))
    for place in ("docs/readings.md", "classification/README.md"):
        assert "No run of the readings" in (repository / place).read_text(encoding="utf-8")


def test_unknown_block_is_a_user_error_that_names_the_known_ones(repository, publish):
    page = PAGE.replace("claims", "mnist-tabel-1")
    (repository / "README.md").write_text(page, encoding="utf-8")
    with pytest.raises(UserError, match=r"mnist-tabel-1.*mnist-table-1"):
        main(Options(results=publish(), root=repository, check=True))


def test_unknown_block_ends_the_command_with_code_2(repository, publish):
    (repository / "README.md").write_text(PAGE.replace("claims", "nonsense"), encoding="utf-8")
    command = [sys.executable, "-m", "analysis.tables", "--check", "--root", str(repository)]
    command += ["--results", str(publish())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_block_without_an_end_is_refused(repository, publish):
    (repository / "README.md").write_text("<!-- generated: claims -->\n", encoding="utf-8")
    with pytest.raises(UserError, match="without an end"):
        main(Options(results=publish(), root=repository, write=True))


def test_two_blocks_of_which_the_first_has_no_end_are_refused():
    text = "<!-- generated: a -->\n<!-- generated: b -->\n<!-- end generated -->\n"
    with pytest.raises(UserError, match="without an end"):
        blocks.fill(text, {"a": str, "b": str}, "page")


def test_folder_named_on_the_command_line_must_exist(tmp_path):
    with pytest.raises(UserError, match="--results"):
        main(Options(results=tmp_path / "absent"))


def test_write_and_check_exclude_each_other(publish):
    with pytest.raises(UserError, match="exclude"):
        main(Options(results=publish(), write=True, check=True))


def test_published_runs_of_mixed_settings_are_refused(publish, make_record):
    results = publish(make_record(seed=0), make_record(seed=1, config={"learning_rate": 0.1}))
    with pytest.raises(UserError, match="learning_rate"):
        main(Options(results=results))


def test_published_runs_of_mixed_lengths_are_refused(publish, make_record):
    results = publish(make_record(seed=0), make_record(seed=1), make_record(seed=2, epochs=2))
    with pytest.raises(UserError, match="seed-2 has 2 epochs, where most runs have 4"):
        main(Options(results=results))


def test_a_full_disk_leaves_the_page_as_it_was(repository, publish, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No room left"):
        main(Options(results=publish(), root=repository, write=True))
    assert (repository / "README.md").read_text(encoding="utf-8") == PAGE


def test_printed_tables_hold_paper_and_ours(publish, make_record, capsys):
    main(Options(results=publish(make_record(error=7.77))))
    out = capsys.readouterr().out
    assert "8.59 ± 0.41" in out
    assert "7.77 (1)" in out
    assert "CIFAR100-LT: all methods" not in out


def test_without_runs_every_table_is_printed(publish, capsys):
    main(Options(results=publish()))
    out = capsys.readouterr().out
    assert "Table 1, MNIST-LT" in out
    assert "Table 4, CIFAR100-LT" in out


def test_named_tables_exist():
    names = set(table_makers(to_frame([])))
    wanted = {"mnist-table-1", "mnist-table-2", "mnist-table-3", "claims", "readings-mnist"}
    assert wanted <= names
    assert {f"cifar100-table-{i}{kind}" for i in (1, 2, 3, 4) for kind in ("", "-shots")} <= names
    short = {"cifar100-short", "cifar100-short-decoupled", "cifar100-short-claims"}
    assert short | {"readings-cifar100", "readings-cifar100-short"} <= names


def test_short_schedules_blocks_fill_any_page(tmp_path, make_cifar, publish):
    names = ("cifar100-short", "cifar100-short-claims", "readings-cifar100-short")
    page = "\n".join(f"<!-- generated: {n} -->\n<!-- end generated -->\n" for n in names)
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs" / "cifar100.md"
    path.write_text(page, encoding="utf-8")
    group = "cifar100-lt-short"
    results = publish(
        make_cifar(group=group, error=63.0),
        make_cifar("cdb-w-ce", "tau=sigmoid", group=f"{group}-readings"),
    )
    main(Options(results=results, root=tmp_path, write=True))
    text = path.read_text(encoding="utf-8")
    assert "| CE | 100 | 1 | 63.00 | 63.00 |" in text
    assert "| C2 | CDB-S has a lower error" in text
    assert "100: mean τ" in text
    main(Options(results=results, root=tmp_path, check=True))


def test_published_short_runs_of_mixed_settings_are_refused(publish, make_cifar):
    group = "cifar100-lt-short"
    results = publish(
        make_cifar(group=group, seed=0),
        make_cifar(group=group, seed=1, config={"precision": "float32"}),
    )
    with pytest.raises(UserError, match="cifar100-lt-short the runs of ce 100 differ in precision"):
        main(Options(results=results))


def test_printed_tables_of_short_runs_hold_no_table_of_the_paper_for_them(
    publish, make_cifar, make_record, capsys
):
    main(Options(results=publish(make_record(), make_cifar(group="cifar100-lt-short"))))
    out = capsys.readouterr().out
    assert "CIFAR100-LT, short schedule: all methods" in out
    assert "Table 1, CIFAR100-LT" not in out


def test_the_same_records_give_the_same_block(publish, make_record):
    frame = to_frame([make_record(seed=s, error=8.0 + s) for s in range(3)])
    first = {name: make().to_markdown() for name, make in table_makers(frame).items()}
    again = {name: make().to_markdown() for name, make in table_makers(frame).items()}
    assert first == again
