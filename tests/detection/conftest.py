from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.classification.trainer import fork_server
from tests.detection.runs import write_lvis
from tests.detection.trainer import DetectionTrainer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set of coloured shapes under the names of LVIS's files; not to be changed."""
    return write_lvis(tmp_path_factory.mktemp("shapes") / "set")


@pytest.fixture(scope="session")
def trainer(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetectionTrainer]:
    with fork_server("detection") as server:
        yield DetectionTrainer(server, tmp_path_factory.mktemp("trainer"), data=shapes)
