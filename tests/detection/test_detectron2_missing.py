"""The command of the detectron2 engine where detectron2 is not there."""

import sys
from pathlib import Path

import pytest

from common.errors import UserError, run_main
from detection.detectron2_adapter import require_detectron2, train_net


@pytest.fixture
def no_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


@pytest.mark.usefixtures("no_detectron2")
def test_without_detectron2_the_command_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_net", "--config-file", "any.yaml"])
    with pytest.raises(SystemExit) as ended:
        run_main(train_net.main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "detectron2 cannot be imported" in said
    assert "detection/README.md" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_detectron2")
def test_a_detectron2_that_cannot_be_imported_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"python -m detection\.train"):
        require_detectron2()
