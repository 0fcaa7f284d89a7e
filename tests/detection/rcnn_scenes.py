"""Tiny scenes and detectors for the tests of the torchvision engine."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from detection.heads import ClassificationHead
from detection.models import LAYOUTS, Rcnn, build_rcnn, global_draws_from, total_loss
from tests.detection.heads import make_head

SIDE = 64
Target = dict[str, Tensor]

# As few proposals as still exercise every step.
TINY = replace(
    LAYOUTS["small"],
    min_size=SIDE,
    max_size=SIDE,
    proposals_before_nms=(60, 40),
    proposals=(40, 30),
    sampled_anchors=32,
    sampled_proposals=24,
    features=32,
    mask_layers=(16,),
)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(boxes: Iterable[tuple[int, int, int, int]], labels: Iterable[int]) -> Target:
    """Rectangles as instances; none of them: an image without annotations."""
    corners = list(boxes)
    masks = torch.zeros(len(corners), SIDE, SIDE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(list(labels), dtype=torch.int64),
        "masks": masks,
    }


def picture(target: Target, generator: torch.Generator) -> Tensor:
    """Bytes (3, H, W): noise, each category in a colour of its own."""
    image = torch.randint(0, 60, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    for mask, label in zip(target["masks"], target["labels"].tolist(), strict=True):
        image[label % 3][mask.bool()] = 250 - 40 * (label // 3)
    return image


def two_scenes(categories: int = 3) -> tuple[list[Tensor], list[Target]]:
    """Two images with two instances each."""
    targets = [
        scene([(4, 4, 30, 28), (34, 20, 60, 58)], [0, categories - 1]),
        scene([(10, 30, 40, 60), (36, 2, 62, 24)], [1, 0]),
    ]
    generator = stream(5)
    return [picture(target, generator) for target in targets], targets


def tiny(head: ClassificationHead | None = None, seed: int = 0, **options: Any) -> Rcnn:
    """A detector of three categories."""
    head = make_head("ce", 3) if head is None else head
    options = {"backbone": "small", "layout": TINY, **options}
    return build_rcnn(head.num_classes, head, generator=stream(seed), **options)


def train(
    model: Rcnn, images: list[Tensor], targets: list[Target], steps: int, rate: float = 2e-3
) -> list[float]:
    """The total loss before each step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    draws, totals = stream(9), []
    model.train()
    for _ in range(steps):
        with global_draws_from(draws):
            loss = total_loss(model(images, targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    return totals
