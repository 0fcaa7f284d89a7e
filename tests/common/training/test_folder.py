import errno
import fcntl
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import classification.record  # noqa: F401  (what its records hold)
import common.training.folder as folder_module
from common.errors import UserError
from common.files import write_atomically
from common.training.folder import RunFolder, load_tensors, save_tensors
from common.training.provenance import environment, provenance

CONFIG: dict[str, Any] = {"method": "ce", "learning_rate": 0.001, "tau": None}


def no_room(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def record_of(config: dict[str, Any]) -> dict[str, Any]:
    evaluation = {"epoch": 1, "error": 50.0, "class_accuracy": [1.0, 0.0]}
    return {
        "schema": 1, "run": "r", "group": "g", "task": "classification", "dataset": "d",
        "method": "ce", "variant": "", "condition": "99", "seed": 0, "config": config,
        "split": {
            "class_names": ["4", "9"], "train": [2, 1], "difficulty": [1, 1], "test": [1, 1],
            "imbalance": 2.0, "digest": "0",
        },
        "metrics": {"last": evaluation, "best": evaluation},
        "history": {"epoch": [1], "loss": [0.5], "class_accuracy": [[1.0, 0.0]]},
        "provenance": provenance(1.0, 1, [environment(torch.device("cpu"))]),
    }  # fmt: skip


# Tensors and plain values.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    save_tensors(path, {"w": torch.arange(6.0).view(2, 3), "plain": [1, None, "x", {"k": 0.5}]})
    return path


def test_what_is_saved_is_loaded_with_its_memory_format(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x.pt", {"images": images, "counts": torch.arange(3)})
    state = load_tensors(tmp_path / "x.pt")
    assert torch.equal(state["images"], images)
    assert state["images"].stride() == images.stride()
    assert state["counts"].dtype == torch.int64


def test_torch_itself_can_read_the_file(saved: Path) -> None:
    assert torch.load(saved, weights_only=True)["plain"] == [1, None, "x", {"k": 0.5}]


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        saved.write_bytes(damaged)
        with pytest.raises(UserError, match="truncated or damaged"):
            load_tensors(saved)


def test_torch_alone_does_not_notice_a_flipped_bit(saved: Path) -> None:
    """Why there is a checksum; when this fails torch has one of its own."""
    whole = bytearray(saved.read_bytes())
    whole[whole.index(struct.pack("<2f", 4.0, 5.0))] ^= 1
    saved.write_bytes(whole)
    assert torch.load(saved, weights_only=True)["w"][1, 1] != 4.0


@pytest.mark.parametrize("length", [0, 1, 71, 72, 500, -1])
def test_a_truncated_file_is_refused_with_its_name_and_the_remedy(saved: Path, length: int) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(
        UserError, match=rf"{saved} is truncated or damaged .*; move it elsewhere and"
    ):
        load_tensors(saved)


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)

    def __init__(self, path: Path) -> None:
        self.path = str(path)


def test_a_file_that_holds_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "checkpoint.pt", tmp_path / "ran"
    save_tensors(path, {"state": Code(trace)})
    with pytest.raises(
        UserError, match=rf"{path} holds more than .*foreign code; move it elsewhere"
    ):
        load_tensors(path)
    path.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(UserError, match=f"{path} is truncated or damaged"):
        load_tensors(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # It would have run.


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    save_tensors(path, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"{path} was not written by this program; mend it"):
        load_tensors(path, remedy="mend it")
    write_atomically(path, b"text" + folder_module._checksum(b"text"))
    with pytest.raises(UserError, match=f"{path} was not written by this program"):
        load_tensors(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path / 'x.pt'}: No such file"):
        load_tensors(tmp_path / "x.pt")


# The run's folder.


def test_a_checkpoint_gives_back_its_state(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", CONFIG) as folder:
        assert folder.load_checkpoint() is None
        folder.save_checkpoint({"step": 3, "w": torch.tensor([0.1])})
    with RunFolder(tmp_path / "run", CONFIG) as folder:
        state = folder.load_checkpoint()
    assert state is not None
    assert (state["step"], float(state["w"])) == (3, float(torch.tensor(0.1)))


def test_a_checkpoint_of_another_configuration_is_refused_and_kept(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "there", CONFIG | {"learning_rate": 0.1}) as there:
        there.save_checkpoint({"step": 3})
    with RunFolder(tmp_path / "here", CONFIG) as here:
        there.checkpoint_path.rename(here.checkpoint_path)
        before = here.checkpoint_path.read_bytes()
        words = r"another configuration \(learning_rate 0.1 there, 0.001 asked for\); choose"
        with pytest.raises(UserError, match=f"{here.checkpoint_path} belongs to {words}"):
            here.load_checkpoint()
        assert here.checkpoint_path.read_bytes() == before


def test_a_checkpoint_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.save_checkpoint({})
        monkeypatch.setattr(folder_module, "CHECKPOINT_FORMAT", 99)
        with pytest.raises(UserError, match=r"checkpoint.pt is not a checkpoint of this version;"):
            folder.load_checkpoint()


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG):
        pass
    other = {**CONFIG, "tau": "sigmoid", "new": 1}
    words = r"new none there, 1 asked for, tau none there, 'sigmoid' asked for"
    with (
        pytest.raises(
            UserError, match=rf"config.json belongs to another .*\({words}\); .* move that one"
        ),
        RunFolder(tmp_path, other),
    ):
        pass


def test_a_setting_that_is_null_is_as_good_as_absent_and_equal_values_are_equal(
    tmp_path: Path,
) -> None:
    with RunFolder(tmp_path, {"method": "ce", "tau": None, "epochs": 5}) as folder:
        folder.save_checkpoint({"step": 3})
    with RunFolder(tmp_path, {"method": "ce", "new": None, "epochs": 5.0}) as folder:
        assert folder.load_checkpoint() == {"step": 3}


def test_a_folder_of_an_older_version_is_read_before_it_is_compared(tmp_path: Path) -> None:
    older = {"method": "ce", "epochs": 5, "retired": 2}
    with RunFolder(tmp_path, older) as folder:
        folder.save_checkpoint({"step": 3})
    today = {name: value for name, value in older.items() if name != "retired"}

    def read(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name != "retired"}

    with RunFolder(tmp_path, today, read) as folder:
        assert folder.load_checkpoint() == {"step": 3}
    with pytest.raises(UserError, match="epochs 5 there, 6 asked for"):
        RunFolder(tmp_path, today | {"epochs": 6}, read).__enter__()


@pytest.mark.parametrize("content", [b"", b'{"method": ', b"[1]", b"\xff\xfe", b"null"])
def test_a_damaged_config_can_be_deleted_and_the_run_continues(
    tmp_path: Path, content: bytes
) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.save_checkpoint({"step": 3})
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} is damaged .*; delete this file and start"):
        RunFolder(tmp_path, CONFIG).__enter__()
    path.unlink()
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.load_checkpoint() == {"step": 3}


def test_a_partial_file_of_a_killed_process_is_removed_and_never_read(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.save_checkpoint({"step": 3})
    whole = folder.checkpoint_path.read_bytes()
    for name in (".checkpoint.pt.4711.partial", ".record.json.4711.partial"):
        (tmp_path / name).write_bytes(whole[:100])
    with RunFolder(tmp_path, CONFIG) as folder:
        assert not list(tmp_path.glob(".*"))
        assert folder.load_checkpoint() == {"step": 3}
        assert folder.finished_record() is None


def test_a_finished_run_has_its_record_and_no_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.save_checkpoint({"step": 3})
        checkpoint = folder.checkpoint_path.read_bytes()
        folder.finish({"last": {"w": torch.ones(1)}}, record_of(CONFIG))
        assert folder.finished_record() == record_of(CONFIG) | {
            "provenance": json.loads(folder.record_path.read_text())["provenance"]
        }
    assert not folder.checkpoint_path.exists()
    # Killed between the record and the end.
    folder.checkpoint_path.write_bytes(checkpoint)
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.finished_record() is not None
    assert not folder.checkpoint_path.exists()


def test_the_checkpoint_stays_until_the_record_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.save_checkpoint({"step": 3})
        with pytest.raises(UserError, match="is not a result record"):
            folder.finish({}, {"schema": 1})
        monkeypatch.setattr(os, "fsync", no_room)
        with pytest.raises(UserError, match=f"No room left to write {folder.weights_path}"):
            folder.finish({}, record_of(CONFIG))
        assert folder.load_checkpoint() == {"step": 3}
        assert folder.finished_record() is None


def test_a_record_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.finish({}, record_of(CONFIG | {"learning_rate": 0.1}))
        with pytest.raises(UserError, match=r"record.json belongs to another configuration"):
            folder.finished_record()


def test_a_folder_below_a_file_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(UserError, match=rf"{path}: .*; check the path or choose .* --out"):
            RunFolder(path, CONFIG).__enter__()


def test_a_failed_start_releases_the_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG):
        pass
    for _ in range(2):  # The second would wait for ever.
        with pytest.raises(UserError):
            RunFolder(tmp_path, CONFIG | {"learning_rate": 0.1}).__enter__()
    with RunFolder(tmp_path, CONFIG):
        pass


def test_a_second_process_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from common.training.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), {'method': 'ce'}) as folder: print('in', flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with RunFolder(tmp_path, {"method": "ce"}):
        second = subprocess.Popen(
            command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        line = second.stdout.readline()
        assert line == f"{tmp_path} is in use by another process; waiting for it\n"
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == "in\n"
    assert second.returncode == 0


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_said_and_gone_on_with(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.finish({"last": {"w": torch.ones(1)}}, record_of(CONFIG))
    assert folder.record_path.exists()
    assert f"{tmp_path} has no locks ({os.strerror(code)})" in capsys.readouterr().err


def test_another_error_of_a_lock_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=rf"{tmp_path}/lock: Input/output error"):
        RunFolder(tmp_path, CONFIG).__enter__()


def failure_of(error: BaseException, path: Path) -> Path:
    with pytest.raises(type(error)), RunFolder(path, CONFIG) as folder:
        raise error
    return folder.failure_path


def test_an_error_leaves_its_line_in_the_folder_until_the_next_start(tmp_path: Path) -> None:
    path = failure_of(UserError("The loss is NaN at epoch 3."), tmp_path)
    told = json.loads(path.read_text())
    assert told["error"] == "The loss is NaN at epoch 3."
    assert told["time"].endswith("+00:00")
    with RunFolder(tmp_path, CONFIG):
        assert not path.exists()
    assert not path.exists()


def test_an_error_of_the_program_is_told_by_its_kind_on_one_line(tmp_path: Path) -> None:
    told = json.loads(failure_of(KeyError("a\nb"), tmp_path).read_text())
    assert told["error"] == r"KeyError: 'a\nb'"
    told = json.loads(failure_of(RuntimeError("out of\n  memory"), tmp_path).read_text())
    assert told["error"] == "RuntimeError: out of memory"


@pytest.mark.parametrize("ending", [SystemExit(143), KeyboardInterrupt()])
def test_a_stopped_run_has_not_failed(tmp_path: Path, ending: BaseException) -> None:
    assert not failure_of(ending, tmp_path).exists()


def test_a_failure_is_passed_on_where_it_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path, CONFIG) as folder:  # noqa: PT012
        monkeypatch.setattr(os, "fsync", no_room)
        raise ZeroDivisionError
    assert not folder.failure_path.exists()


def test_that_another_process_has_ended_is_no_reason_of_ones_own(tmp_path: Path) -> None:
    error = RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:1")
    assert not failure_of(error, tmp_path).exists()


def test_a_failure_is_noted_by_the_rank_that_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.training.folder.is_first_rank", lambda: False)
    path = failure_of(UserError("b.jpg cannot be read."), tmp_path)
    assert json.loads(path.read_text())["error"] == "b.jpg cannot be read."


def test_a_folder_that_belongs_to_another_run_keeps_its_failure(tmp_path: Path) -> None:
    path = failure_of(ValueError("x"), tmp_path)
    with pytest.raises(UserError):
        RunFolder(tmp_path, CONFIG | {"learning_rate": 0.1}).__enter__()
    assert path.exists()
