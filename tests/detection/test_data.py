"""Images, targets and batches of a detection set."""

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco_masks
from torch import Tensor

from common.errors import UserError
from data_prep.lvis_format import Annotations, read_lvis
from detection.data import (
    SHORT_SIDES,
    DetectionData,
    Item,
    Request,
    batches_of,
    batches_of_one_shape,
    draw_requests,
    images_on_disk,
    load_batches,
    plain_requests,
    rasterise,
    read_image,
    resized_size,
)
from tests.detection.synthetic import (
    HEIGHT,
    WIDTH,
    entries,
    instances_of,
    picture_of,
    write_entries,
    write_set,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set; not to be changed."""
    return write_set(tmp_path_factory.mktemp("shapes") / "set")


@pytest.fixture(scope="module")
def annotations(folder: Path) -> Annotations:
    return read_lvis(folder / "train.json", training=True)


@pytest.fixture(scope="module")
def data(folder: Path, annotations: Annotations) -> DetectionData:
    return DetectionData(annotations, images_on_disk(annotations, folder), masks=True)


def item(data: DetectionData, request: Request | int) -> Item:
    found = data[request]
    assert not isinstance(found, UserError), found
    return found


# Reading images.


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_a_png_is_read_pixel_for_pixel(folder: Path) -> None:
    image = read_image(folder / "train" / "003.png", HEIGHT, WIDTH)
    assert (image.dtype, image.shape) == (torch.uint8, (3, HEIGHT, WIDTH))
    assert (image.permute(1, 2, 0).numpy() == picture_of(3)).all()


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("L", "jpg"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "jpg"),
     ("CMYK", "tif"), ("1", "png")],
)  # fmt: skip
def test_every_kind_of_image_becomes_rgb(mode: str, suffix: str, tmp_path: Path) -> None:
    picture = Image.fromarray(GREY).convert("RGB").convert(mode)
    options = {"quality": 100} if suffix == "jpg" else {}
    path = saved(picture, tmp_path / f"a.{suffix}", **options)
    expected = np.array(Image.open(path).convert("RGB")).astype(int)
    image = read_image(path, 6, 8).permute(1, 2, 0).numpy().astype(int)
    assert image.shape == (6, 8, 3)
    assert abs(image - expected).max() <= 6


def test_a_16_bit_image_keeps_its_brightness(tmp_path: Path) -> None:
    path = saved(Image.fromarray(GREY.astype(np.uint16) * 256), tmp_path / "a.png")
    assert (read_image(path, 6, 8).numpy() == GREY).all()


def test_an_image_on_its_side_is_turned_only_if_its_annotation_is_of_the_turned_one(
    tmp_path: Path,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(GREY), tmp_path / "a.png", exif=exif)
    assert (read_image(path, 6, 8)[0].numpy() == GREY).all()
    assert (read_image(path, 8, 6)[0].numpy() == np.rot90(GREY, -1)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_exif_is_made_upright(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    """As Pillow's own transposition, of an image whose sides differ and of a square."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for pixels in (GREY, GREY[:, :6]):
        path = saved(Image.fromarray(pixels), tmp_path / f"a.{suffix}", exif=exif)
        with Image.open(path) as file:
            upright = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
            lying = np.asarray(file.convert("RGB"))
        height, width = upright.shape[:2]
        assert (read_image(path, height, width).permute(1, 2, 0).numpy() == upright).all()
        if height != width and orientation > 4:
            assert (read_image(path, width, height).permute(1, 2, 0).numpy() == lying).all()


def test_an_image_with_damaged_exif_is_read_as_it_lies(tmp_path: Path) -> None:
    path = saved(Image.fromarray(GREY), tmp_path / "a.jpg", exif=b"Exif\0\0broken header")
    assert read_image(path, 6, 8).shape == (3, 6, 8)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_an_unreadable_image_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read as an image") as refusal:
        read_image(path, 6, 8)
    assert "\n" not in str(refusal.value)


def test_a_png_cut_off_and_a_missing_image_are_refused_by_name(
    folder: Path, tmp_path: Path
) -> None:
    content = (folder / "train" / "003.png").read_bytes()
    (tmp_path / "short.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"short\.png"):
        read_image(tmp_path / "short.png", HEIGHT, WIDTH)
    with pytest.raises(UserError, match=r"none\.png"):
        read_image(tmp_path / "none.png", HEIGHT, WIDTH)


def test_an_image_of_another_size_than_its_annotation_says_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"003\.png has 56 x 40 pixels, .* says 56 x 41"):
        read_image(folder / "train" / "003.png", HEIGHT + 1, WIDTH)


def test_missing_images_are_refused_by_name_and_number(
    folder: Path, annotations: Annotations
) -> None:
    with pytest.raises(UserError, match=r"14 of the 14 images .*train/000\.png, .*\.\.\."):
        images_on_disk(annotations, folder / "val")


# Targets.


def test_a_target_has_boxes_labels_and_masks_of_the_shapes(data: DetectionData) -> None:
    image, target = item(data, 4)
    assert image.shape == (3, HEIGHT, WIDTH)
    shapes = instances_of(4)
    assert target["labels"].tolist() == [[2, 3, 7, 11].index(category) for category, _ in shapes]
    assert (target["image_id"], target["size"]) == (104, (HEIGHT, WIDTH))
    assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
    for (_, outline), box in zip(shapes, target["boxes"], strict=True):
        x, y = np.array(outline).reshape(-1, 2).T
        expected = [x.min(), y.min(), x.max(), y.max()]
        assert box.tolist() == pytest.approx(expected, abs=1e-5)
    assert target["masks"].shape == (4, HEIGHT, WIDTH)
    assert target["masks"].dtype == torch.uint8


def test_the_mask_of_a_square_is_the_square(data: DetectionData) -> None:
    """The second shape is a square of whole pixels, which has its box's colour."""
    image, target = item(data, 2)
    x1, y1, x2, y2 = (int(value) for value in target["boxes"][1].tolist())
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    expected[y1:y2, x1:x2] = 1
    assert torch.equal(target["masks"][1], expected)
    assert (image[:, expected.bool()] == torch.tensor([200, 60, 195])[:, None]).all()


def test_an_image_without_annotations_has_an_empty_target(data: DetectionData) -> None:
    _, target = item(data, (0, 20, True))
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, 20, 28)


def test_masks_are_made_only_when_asked_for(folder: Path, annotations: Annotations) -> None:
    plain = DetectionData(annotations, images_on_disk(annotations, folder))
    assert "masks" not in item(plain, 4)[1]


def test_masks_of_a_set_with_boxes_only_are_refused(tmp_path: Path) -> None:
    said = entries()
    del said["annotations"][4]["segmentation"]
    boxes_only = read_lvis(write_entries(said, tmp_path / "a.json"))
    with pytest.raises(UserError, match="annotation 5 has no segmentation"):
        DetectionData(boxes_only, [Path("a")] * 14, masks=True)
    assert len(DetectionData(boxes_only, [Path("a")] * 14)) == 14


def test_flipping_mirrors_image_boxes_and_masks(data: DetectionData) -> None:
    image, target = item(data, 4)
    flipped, mirrored = item(data, (4, 0, True))
    assert torch.equal(flipped, image.flip(2))
    assert torch.equal(mirrored["masks"], target["masks"].flip(2))
    x1, y1, x2, y2 = target["boxes"].T
    assert torch.equal(mirrored["boxes"], torch.stack([WIDTH - x2, y1, WIDTH - x1, y2], 1))


def box_of_mask(mask: Tensor) -> list[int]:
    y, x = torch.nonzero(mask, as_tuple=True)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


@pytest.mark.parametrize("flip", [False, True])
def test_image_boxes_and_masks_are_resized_together(data: DetectionData, flip: bool) -> None:
    image, target = item(data, (4, 100, flip))
    assert image.shape == (3, 100, 140)
    assert target["masks"].shape == (4, 100, 140)
    plain = item(data, (4, 0, flip))[1]
    assert torch.allclose(target["boxes"], plain["boxes"] * 2.5)
    for box, mask in zip(target["boxes"], target["masks"], strict=True):
        assert box_of_mask(mask) == pytest.approx(box.tolist(), abs=1.01)


def test_the_longest_side_bounds_the_short_one(folder: Path, annotations: Annotations) -> None:
    paths = images_on_disk(annotations, folder)
    image, target = item(DetectionData(annotations, paths, longest=70), (4, 100, False))
    assert image.shape == (3, 50, 70)
    assert target["boxes"][:, 2].max() <= 70


def test_sizes_are_those_of_detectron2() -> None:
    assert resized_size(480, 640, 800, 1333) == (800, 1067)
    assert resized_size(640, 480, 640, 1333) == (853, 640)
    assert resized_size(333, 1000, 800, 1333) == (444, 1333)
    assert resized_size(3, 4, 0, 2) == (3, 4)


def test_a_run_length_code_and_its_polygon_are_one_mask() -> None:
    outline = [np.array([2.0, 3, 12, 3, 12, 13, 2, 13])]
    mask = rasterise(outline, (20, 30), (20, 30))
    assert mask.sum() == 100
    assert mask[3:13, 2:12].all()
    code = coco_masks.encode(np.asfortranarray(mask))
    runs = {"size": [20, 30], "counts": [43, *([10] * 19), 600 - 43 - 190]}
    assert (rasterise(code, (20, 30), (20, 30)) == mask).all()
    assert (rasterise(runs, (20, 30), (20, 30)) == mask).all()
    twice = rasterise(code, (20, 30), (40, 60))
    assert (twice == mask.repeat(2, 0).repeat(2, 1)).all()
    assert (twice == rasterise(outline, (20, 30), (40, 60))).all()


def test_several_polygons_are_one_mask() -> None:
    squares = [np.array([0.0, 0, 4, 0, 4, 4, 0, 4]), np.array([5.0, 5, 9, 5, 9, 9, 5, 9])]
    assert rasterise(squares, (10, 10), (10, 10)).sum() == 32


def test_an_instance_without_outline_has_no_mask() -> None:
    with pytest.raises(ValueError, match="no outline"):
        rasterise(None, (10, 10), (10, 10))


# Requests and batches.


def test_draws_depend_on_the_generator_only_and_not_on_the_global_one() -> None:
    state = torch.get_rng_state()
    first = draw_requests(range(200), torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    assert draw_requests(torch.arange(200), torch.Generator().manual_seed(1)) == first
    torch.set_rng_state(state)
    assert [request[0] for request in first] == list(range(200))
    assert {request[1] for request in first} == set(SHORT_SIDES)
    assert 70 < sum(request[2] for request in first) < 130
    assert draw_requests([3], torch.Generator(), (5,), flip=0.0) == [(3, 5, False)]
    assert draw_requests([3], torch.Generator(), (5,), flip=1.0) == [(3, 5, True)]


def test_batches_of_one_shape_use_every_request_once(annotations: Annotations) -> None:
    draw = np.random.default_rng(0)
    tall = draw.random(annotations.num_images) < 0.4
    heights = np.where(tall, WIDTH + 1, HEIGHT)
    known = replace(annotations, heights=heights)
    requests = plain_requests(draw.permutation(annotations.num_images).tolist())
    batches = batches_of_one_shape(requests, known, 3)
    assert sorted(chain.from_iterable(batches)) == sorted(requests)
    kinds = [{bool(tall[request[0]]) for request in batch} for batch in batches]
    full = int(tall.sum()) // 3 + int((~tall).sum()) // 3
    assert all(len(kind) == 1 for kind in kinds[:full])
    assert all(len(batch) == 3 for batch in batches[:full])


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_was_asked_for_however_many_workers(
    data: DetectionData, workers: int
) -> None:
    requests = draw_requests(range(7), torch.Generator().manual_seed(2), (30, 40))
    before = torch.get_rng_state()
    batches = list(load_batches(data, batches_of(requests, 3), workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    images = [image for batch in batches for image in batch[0]]
    targets = [target for batch in batches for target in batch[1]]
    for request, image, target in zip(requests, images, targets, strict=True):
        expected, known = item(data, request)
        assert torch.equal(image, expected)
        assert target.keys() == known.keys()
        assert all(same(target[key], known[key]) for key in known)  # type: ignore[literal-required]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_ends_the_batches_with_its_name(
    workers: int, folder: Path, annotations: Annotations, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = list(images_on_disk(annotations, folder))
    paths[1] = tmp_path / "broken.png"
    broken = DetectionData(annotations, paths)
    batches = load_batches(broken, batches_of(plain_requests([0, 2, 1, 3]), 2), workers)
    assert len(next(batches)[0]) == 2
    with pytest.raises(UserError, match=r"broken\.png cannot be read"):
        next(batches)


# Real photographs.


def test_photographs_are_read_with_masks_that_fill_their_boxes(photographs: Path) -> None:
    known = read_lvis(photographs / "train.json", training=True)
    data = DetectionData(known, images_on_disk(known, photographs), masks=True)
    real = "CDB_COCO_MINI" in os.environ
    assert (known.num_images, known.num_categories) == ((100, 80) if real else (93, 40))
    requests = draw_requests(
        range(0, known.num_images, 4), torch.Generator().manual_seed(0), (160, 200)
    )
    overlaps = []
    for images, targets in load_batches(data, batches_of(requests, 4), 0):
        for image, target in zip(images, targets, strict=True):
            assert image.float().std() > 5
            assert target["masks"].shape[1:] == image.shape[1:]
            inside = [
                mask[int(y1) : int(y2) + 2, int(x1) : int(x2) + 2].sum() / mask.sum().clamp(min=1)
                for mask, (x1, y1, x2, y2) in zip(
                    target["masks"], target["boxes"].tolist(), strict=True
                )
            ]
            overlaps += [float(share) for share in inside]
    assert len(overlaps) > 50
    assert np.mean(np.array(overlaps) > 0.98) > 0.95
