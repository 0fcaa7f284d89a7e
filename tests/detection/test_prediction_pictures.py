"""The picture that a run leaves: ground truth beside predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

from common.errors import UserError
from detection.data import DetectionData
from detection.prediction_pictures import _draw, draw_pictures, write_pictures
from detection.sets import load_sets
from tests.detection.runs import config_of, options
from tests.detection.trainer import DetectionTrainer


@pytest.fixture(scope="module")
def train(shapes: Path) -> DetectionData:
    return load_sets(config_of("ce", task="mask"), shapes, shapes).train


class Fixed(nn.Module):
    """Finds one sure and one unsure instance in every image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        masks = torch.zeros(2, *images[0].shape[1:], dtype=torch.uint8)
        masks[0, 5:15, 5:25] = 1
        return [{
            "boxes": torch.tensor([[5.0, 5.0, 25.0, 15.0], [1.0, 1.0, 3.0, 3.0]]),
            "labels": torch.tensor([2, 0]), "scores": torch.tensor([0.875, 0.25]), "masks": masks,
        }]  # fmt: skip


def boxes_of(axes: object) -> list[tuple[float, ...]]:
    patches = [p for p in axes.patches if isinstance(p, Rectangle)]  # type: ignore[attr-defined]
    return [(*p.get_xy(), p.get_width(), p.get_height()) for p in patches]


def test_it_shows_what_is_there_beside_what_was_found_surely(train: DetectionData) -> None:
    figure = draw_pictures(Fixed(), train, images=3)
    known = train.annotations
    axes = figure.axes
    assert len(axes) == 6
    # The first image has no instance, so it is left out.
    for row, image in enumerate((1, 2, 3)):
        left, right = axes[2 * row], axes[2 * row + 1]
        mine = known.instances_of(image)
        assert boxes_of(left) == [pytest.approx(tuple(box)) for box in known.bboxes[mine]]
        assert [text.get_text() for text in left.texts] == [
            known.names[c] for c in known.category[mine]
        ]
        assert boxes_of(right) == [(5.0, 5.0, 20.0, 10.0)]
        assert [text.get_text() for text in right.texts] == ["kite 0.88"]
    assert axes[0].get_title() == "ground truth"
    assert axes[1].get_title() == "predictions that score 0.3 or more"


def test_a_categorys_name_is_no_mathematics(tmp_path: Path) -> None:
    figure = Figure()
    boxes, labels = np.array([[1, 1, 5, 5]], dtype=np.float32), np.array([0])
    _draw(figure.subplots(), boxes, labels, ["Ba$$in $x^{$"])
    figure.savefig(tmp_path / "drawn.png")


def test_a_set_without_instances_gives_an_empty_picture(
    train: DetectionData, tmp_path: Path
) -> None:
    empty = DetectionData(
        train.annotations.select(train.annotations.image_ids[:1]), train.paths[:1]
    )
    write_pictures(Fixed(), empty, tmp_path / "pictures.png")
    with Image.open(tmp_path / "pictures.png") as picture:
        picture.verify()


@pytest.mark.parametrize("task", ["box", "mask"])
def test_a_run_leaves_a_readable_picture(trainer: DetectionTrainer, task: str) -> None:
    path = trainer.reference(*options("ce", task=task)) / "pictures.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_a_folder_that_is_not_there_is_told(train: DetectionData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        write_pictures(Fixed(), train, tmp_path / "nowhere" / "pictures.png")
