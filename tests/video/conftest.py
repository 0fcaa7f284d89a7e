from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.classification.trainer import fork_server
from tests.video.synthetic import write_set
from tests.video.trainer import VideoTrainer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set of six verbs; not to be changed."""
    return write_set(tmp_path_factory.mktemp("verbs") / "set")


@pytest.fixture(scope="session")
def trainer(verbs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoTrainer]:
    with fork_server("video") as server:
        yield VideoTrainer(server, tmp_path_factory.mktemp("trainer"), data=verbs)
