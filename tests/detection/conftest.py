import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data_prep.digit_plan import Settings
from data_prep.digit_scenes import render_set
from tests.classification.trainer import fork_server
from tests.detection.runs import write_lvis
from tests.detection.trainer import DetectionTrainer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set of coloured shapes under the names of LVIS's files; not to be changed."""
    return write_lvis(tmp_path_factory.mktemp("shapes") / "set")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts, train and val, in LVIS's layout, many categories, masks.

    The folder of photographs that CDB_COCO_MINI names, else rendered scenes, so that nothing is
    left out where there are no photographs.
    """
    if named := os.environ.get("CDB_COCO_MINI"):
        return Path(named)
    folder = tmp_path_factory.mktemp("photographs") / "scenes"
    render_set(folder, Settings(divisor=8), workers=1)
    return folder


@pytest.fixture(scope="session")
def trainer(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetectionTrainer]:
    with fork_server("detection") as server:
        yield DetectionTrainer(server, tmp_path_factory.mktemp("trainer"), data=shapes)
