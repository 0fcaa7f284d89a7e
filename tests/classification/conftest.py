from collections.abc import Iterator

import pytest
import torch

from tests.classification.trainer import Trainer, fork_server

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with fork_server("classification") as server:
        yield Trainer(server, tmp_path_factory.mktemp("trainer"))
