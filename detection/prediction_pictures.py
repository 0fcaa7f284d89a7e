"""Predictions beside the ground truth, as one picture that a run leaves in its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor, nn

from common.training.drawing import DOTS, class_labels, default_style, write_figure
from detection.data import DetectionData, load_batches, plain_requests

_IMAGES: Final = 4
_SHOWN_SCORE: Final = 0.3
"""Predictions that score less are left out of the picture."""
_SMALL, _LARGE = 5.0, 9.0
"""Points of a name, among several images and on one by itself."""
_LEAST_SIDE: Final = 640
"""Pixels of the longer side of one image that is drawn by itself."""


def _draw(
    axes: Axes,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    words: Sequence[str],
    size: float = _SMALL,
) -> None:
    """Boxes (n, 4) with a few words each, of ``size`` points, coloured by category."""
    colours = mpl.colormaps["tab20"]
    for (x1, y1, x2, y2), label, text in zip(boxes, labels, words, strict=True):
        colour = colours(int(label) % 20)
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour))
        axes.text(x1, y1, text, color="white", fontsize=size, va="bottom", clip_on=True,
                  parse_math=False,
                  bbox={"facecolor": colour, "pad": 0.5, "linewidth": 0})  # fmt: skip


def _outline(axes: Axes, masks: Tensor, labels: NDArray[np.int64]) -> None:
    """The edges of masks (n, H, W)."""
    colours = mpl.colormaps["tab20"]
    for mask, label in zip(masks.cpu().numpy(), labels, strict=True):
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=[colours(int(label) % 20)], linewidths=0.8)


def _panel(
    axes: Axes,
    image: Tensor,
    found: dict[str, Tensor],
    names: Sequence[str],
    size: float = _SMALL,
) -> None:
    """An image with boxes, masks and names; with scores where there are any."""
    axes.imshow(image.permute(1, 2, 0).numpy())
    axes.set_axis_off()
    labels = found["labels"].cpu().numpy()
    words = [names[label] for label in labels]
    if "scores" in found:
        pairs = zip(words, found["scores"].tolist(), strict=True)
        words = [f"{word} {score:.2f}" for word, score in pairs]
    if "masks" in found:
        _outline(axes, found["masks"], labels)
    _draw(axes, found["boxes"].cpu().numpy(), labels, words, size)


@torch.inference_mode()
def draw_pictures(model: nn.Module, data: DetectionData, images: int = _IMAGES) -> Figure:
    """The first images that have instances: ground truth on the left, predictions on the right.

    A category whose name the font cannot show has its number, as in the figures of its run.

    Args:
        model: a detector; in evaluation mode afterwards.
        data: the images.
        images: how many, at most.
    """
    known = data.annotations
    chosen = [n for n in range(len(data)) if len(known.boxes[known.instances_of(n)])][:images]
    device = next(model.parameters()).device
    model.eval()
    figure = Figure(figsize=(8, 3.2 * max(1, len(chosen))), layout="constrained")
    names = class_labels(known.names)
    panels = figure.subplots(max(1, len(chosen)), 2, squeeze=False)
    batches = load_batches(data, [[request] for request in plain_requests(chosen)], 0)
    for (left, right), (pictures, targets) in zip(panels, batches, strict=False):
        truth = {k: v for k, v in targets[0].items() if k in ("boxes", "labels", "masks")}
        _panel(left, pictures[0], truth, names)  # type: ignore[arg-type]
        found = model([pictures[0].to(device)])[0]
        sure = found["scores"] >= _SHOWN_SCORE
        _panel(right, pictures[0], {k: v[sure] for k, v in found.items()}, names)
    panels[0][0].set_title("ground truth")
    panels[0][1].set_title(f"predictions that score {_SHOWN_SCORE} or more")
    return figure


def draw_image(image: Tensor, found: dict[str, Tensor], names: Sequence[str]) -> Figure:
    """One image with what was found in it, at the image's own size or, if it is small, enlarged.

    Args:
        image: (3, H, W), uint8.
        found: ``boxes`` (n, 4), ``labels`` and ``scores`` (n,), perhaps ``masks`` (n, H, W).
        names: of the categories, (C,).
    """
    height, width = image.shape[1:]
    scale = max(1.0, _LEAST_SIDE / max(height, width)) / DOTS
    figure = Figure(figsize=(width * scale, height * scale), dpi=DOTS)
    axes = figure.add_axes((0, 0, 1, 1))
    _panel(axes, image, found, class_labels(names), _LARGE)
    for text in axes.texts:
        # What would stand above the upper edge stands below it.
        if text.get_position()[1] < 2 * _LARGE / (72 * scale):
            text.set_verticalalignment("top")
    return figure


def write_pictures(model: nn.Module, data: DetectionData, path: Path) -> None:
    """Write :func:`draw_pictures` as a PNG.

    Raises:
        UserError: when there is no room or no permission.
    """
    with default_style():
        write_figure(draw_pictures(model, data), path)
