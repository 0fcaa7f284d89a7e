import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import chosen_path, remove_partial_files, write_atomically


def no_room(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(UserError, match=rf"No room left to write {path} .*free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    events: list[tuple[bytes, bytes]] = []
    write_atomically(path, b"old")
    flush = os.fsync

    def watch(descriptor: int) -> None:
        flushed = Path(f"/proc/self/fd/{descriptor}").resolve()
        content = flushed.read_bytes() if flushed.is_file() else b"folder"
        events.append((content, path.read_bytes()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(path, b"new")
    assert events == [(b"new", b"old"), (b"folder", b"new")]


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    numbers = memoryview(bytes(range(6))).cast("B", (2, 3))
    write_atomically(tmp_path / "file", b"head", numbers, b"", b"end")
    assert (tmp_path / "file").read_bytes() == b"head\0\1\2\3\4\5end"


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_partial_files_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    left, other = tmp_path / ".file.123.partial", tmp_path / "file"
    for path in (left, other):
        path.write_bytes(b"")
    remove_partial_files(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_writing_a_file_needs_no_torch() -> None:
    code = "import sys, common.files; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_the_named_folder_comes_before_the_variable_and_the_variable_before_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = Path("data/usual")
    monkeypatch.delenv("CDB_SOME", raising=False)
    assert chosen_path(None, "CDB_SOME", usual) == usual
    monkeypatch.setenv("CDB_SOME", "")
    assert chosen_path(None, "CDB_SOME", usual) == usual
    monkeypatch.setenv("CDB_SOME", "/set")
    assert chosen_path(None, "CDB_SOME", usual) == Path("/set")
    assert chosen_path(Path("named"), "CDB_SOME", usual) == Path("named")


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 251}.png"
    write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert [*tmp_path.iterdir()] == [path]
