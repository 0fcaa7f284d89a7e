import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import common.training.provenance as provenance_module
from common.training.provenance import Clock, differences, environment, provenance

# Where the module stands below the root of a checkout.
IN_CHECKOUT = Path("common/training/provenance.py")
WITH: dict[str, Any] = {"versions": {"torch": "2.0"}, "hardware": {"threads": 1, "cores": 2}}


def test_provenance_says_where_and_with_what() -> None:
    threads = torch.get_num_threads()
    told = provenance(12.34, 2, [environment(torch.device("cpu"))])
    assert (told["seconds"], told["starts"]) == (12.3, 2)
    assert told["versions"]["torch"] == torch.__version__.split("+")[0]
    assert told["hardware"]["threads"] == threads
    assert told["hardware"]["device"] == "cpu"
    assert told["finished"].endswith("+00:00")
    assert "environments" not in told


def test_what_differs_between_two_starts_is_named_but_for_the_number_of_cores() -> None:
    before = environment(torch.device("cpu"))
    assert differences(before, before) == {}
    hardware = before["hardware"] | {"cores": 1000, "threads": 77}
    now = {"versions": before["versions"] | {"commit": "0123"}, "hardware": hardware}
    found = differences(before, now)
    assert found.keys() == {"threads", "commit"}
    assert found["threads"] == (before["hardware"]["threads"], 77)
    without = {"versions": {}, "hardware": {}}
    assert differences(without, {**without, "versions": {"commit": "0123"}}) == {
        "commit": ("none", "0123")
    }


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", folder, *words],
        check=True, capture_output=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    )  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit, and a module where the project has its own."""
    module = tmp_path / "repository" / "project" / IN_CHECKOUT
    module.parent.mkdir(parents=True)
    module.touch()
    git(module.parents[3], "init", "--quiet")
    git(module.parents[3], "add", ".")
    git(module.parents[3], "commit", "--quiet", "-m", "first")
    return module.parents[3]


def test_the_commit_is_that_of_the_checkout_itself(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit() -> str | None:
        found: str | None = environment(torch.device("cpu"))["versions"].get("commit")
        return found

    # An archive of the project, unpacked inside of somebody's repository.
    monkeypatch.setattr(provenance_module, "__file__", str(repository / "project" / IN_CHECKOUT))
    assert commit() is None
    (repository / IN_CHECKOUT.parent).mkdir(parents=True)
    (repository / IN_CHECKOUT).touch()
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "second")
    monkeypatch.setattr(provenance_module, "__file__", str(repository / IN_CHECKOUT))
    told = commit()
    assert told is not None
    assert len(told) == 12
    # As within a hook of git: it says which repository every git is to work on.
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert commit() == told
    (repository / "common" / "new.py").touch()
    assert commit() == f"{told}+changes"


# Over all starts.


def test_the_clock_counts_starts_and_adds_up_their_seconds(tmp_path: Path) -> None:
    clock = Clock(WITH)
    assert (clock.starts, clock.seconds() >= 0) == (1, True)
    other = Clock(WITH)
    other.load_state_dict({"seconds": 100.0, "starts": 2})
    assert other.starts == 3
    assert 100 <= other.seconds() < 160
    assert other.state_dict()["seconds"] >= 100


def test_a_checkpoint_is_due_after_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(WITH)
    found = []
    for now in (54.0, 60.0, 69.0, 70.5, 71.0):  # noqa: B007
        found.append(clock.due(10.0))
    assert found == [False, True, False, True, False]


def test_a_checkpoint_of_before_means_were_kept_is_gone_on_with() -> None:
    clock = Clock(WITH)
    clock.load_state_dict({"seconds": 100.0, "starts": 2})
    assert clock.provenance()["starts"] == 3
    assert clock.environments == [{"from_start": 3, **WITH}]
