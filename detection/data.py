"""Images of a detection set with boxes, labels and masks, and the loaders that make batches.

Shapes: I images, n instances of an image, H x W pixels of an image as the model gets it. Boxes are
(x1, y1, x2, y2) in its pixels, labels category indices 0..C-1.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from common.errors import UserError
from common.training.image_file import as_rgb, open_picture
from common.training.read_ahead import read_batches
from data_prep.lvis_format import Annotations, Rle, find_images

SHORT_SIDES: Final = (640, 672, 704, 736, 768, 800)
"""Short sides in training, one drawn for each image; the last is that of evaluation (detectron2's
LVIS v0.5 models; Li et al., CVPR 2020, have 800 in both)."""
LONGEST: Final = 1333
"""No image gets longer: then its short side is shorter."""

Request = tuple[int, int, bool]
"""An image's index, the wanted short side (0: the image as it is), and whether it is flipped."""


class Target(TypedDict):
    """What is known of an image as the model gets it."""

    boxes: Tensor
    """(n, 4) float32."""
    labels: Tensor
    """(n,) int64, 0..C-1."""
    image_id: int
    size: tuple[int, int]
    """Height and width of the image on disk, in which detections are reported."""
    masks: NotRequired[Tensor]
    """(n, H, W) uint8, 0 or 1."""


Item = tuple[Tensor, Target]
"""Image (3, H, W), uint8, and its target."""
Batch = tuple[list[Tensor], list[Target]]


# Requests: random numbers are drawn before, in one place, so that they do not depend on workers.


def plain_requests(images: Sequence[int] | Tensor, short_side: int = 0) -> list[Request]:
    """Images as in evaluation: one short side (0: as they are), not flipped."""
    return [(int(image), short_side, False) for image in images]


def draw_requests(
    images: Sequence[int] | Tensor,
    generator: torch.Generator,
    short_sides: Sequence[int] = SHORT_SIDES,
    flip: float = 0.5,
) -> list[Request]:
    """Images as in training: each with a short side and perhaps flipped left to right.

    Args:
        images: image indices, any may be there more than once.
        generator: takes two draws for each image.
        short_sides: one is drawn for each image, all alike; 0: the image as it is.
        flip: probability in [0, 1].
    """
    sides = torch.randint(len(short_sides), (len(images),), generator=generator).tolist()
    flips = (torch.rand(len(images), generator=generator) < flip).tolist()
    return [
        (int(image), short_sides[side], flipped)
        for image, side, flipped in zip(images, sides, flips, strict=True)
    ]


def batches_of(requests: Sequence[Request], batch_size: int) -> list[list[Request]]:
    """Batches in order; the last may be smaller."""
    return [list(requests[n : n + batch_size]) for n in range(0, len(requests), batch_size)]


def batches_of_one_shape(
    requests: Sequence[Request], annotations: Annotations, batch_size: int
) -> list[list[Request]]:
    """Batches of images that are all wide or all tall: less padding.

    A batch stands where its last image was drawn; what is left of both kinds is put together at the
    end, so that every request is used once.
    """
    waiting: dict[bool, list[Request]] = {False: [], True: []}
    batches = []
    tall = annotations.heights > annotations.widths
    for request in requests:
        kind = waiting[bool(tall[request[0]])]
        kind.append(request)
        if len(kind) == batch_size:
            batches.append(kind.copy())
            kind.clear()
    return batches + batches_of(waiting[False] + waiting[True], batch_size)


# Reading.


def read_image(path: Path, height: int, width: int) -> Tensor:
    """An image as (3, height, width), uint8, RGB; grey, palette, CMYK and 16-bit ones too.

    Args:
        path: JPEG, PNG or what else Pillow reads.
        height: as the annotation says, in pixels.
        width: the same. Pixels that are mirrored or turned by the file's EXIF are made upright, as
            detectron2 and OpenCV do, unless the annotation is of the image on its side.

    Raises:
        UserError: it is missing, damaged, or of another size.
    """
    image = _read(path, (width, height))
    if image.shape[1:] != (height, width):
        found = f"{image.shape[2]} x {image.shape[1]}"
        raise UserError(
            f"{path} has {found} pixels, but its annotation says {width} x {height}; "
            "get the image or the annotation file again."
        )
    return image


def read_new_image(path: Path) -> Tensor:
    """An image without annotation as :func:`read_image` gives one, upright as its EXIF says.

    Raises:
        UserError: it is missing or damaged.
    """
    return _read(path, None)


def _read(path: Path, annotated: tuple[int, int] | None) -> Tensor:
    """The pixels (3, H, W); ``annotated`` as of :func:`_upright`."""
    with open_picture(path) as file:
        picture = as_rgb(_upright(file, annotated))
        # A copy: Pillow's own memory cannot be written to.
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


_ON_ITS_SIDE: Final = (5, 6, 7, 8)
"""EXIF's orientations that exchange width and height; 2 to 4 mirror or turn by half."""


def _upright(file: Image.Image, annotated: tuple[int, int] | None) -> Image.Image:
    """The picture as its EXIF would have it shown, if it then has the annotated width, height.

    ``annotated``: None: of whatever size.
    """
    try:
        lies = file.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Damaged EXIF raises almost anything; the pixels are whole.
        return file
    turned = file.size[::-1] if lies in _ON_ITS_SIDE else file.size
    if lies not in (2, 3, 4, *_ON_ITS_SIDE) or annotated not in (None, turned):
        return file
    return ImageOps.exif_transpose(file)


def resized_size(height: int, width: int, short_side: int, longest: int) -> tuple[int, int]:
    """Height and width with the wanted short side, or with ``longest``, whichever is smaller.

    >>> resized_size(480, 640, 800, 1333), resized_size(100, 400, 800, 1333)
    ((800, 1067), (333, 1333))
    """
    if not short_side:
        return height, width
    scale = min(short_side / min(height, width), longest / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class DetectionData(Dataset["Item | UserError"]):
    """Image and target that a request asks for.

    What is wrong with an image is returned, not raised: a worker's exception would reach the user
    as a traceback.
    """

    def __init__(
        self,
        annotations: Annotations,
        paths: Sequence[Path],
        *,
        masks: bool = False,
        longest: int = LONGEST,
    ) -> None:
        """Nothing is read yet.

        Args:
            annotations: of the I images.
            paths: (I,) their files.
            masks: whether targets have masks.
            longest: the most pixels of a side when a short side is asked for.

        Raises:
            UserError: masks are wanted and an instance has none.
        """
        self.annotations, self.paths = annotations, tuple(paths)
        self._masks, self._longest = masks, longest
        if masks:
            refuse_boxes_only(annotations)

    def __len__(self) -> int:
        """I."""
        return len(self.paths)

    def __getitem__(self, request: Request | int) -> Item | UserError:
        """One image and its target; a number alone asks for the image as it is."""
        image, short_side, flip = (request, 0, False) if isinstance(request, int) else request
        try:
            return self._read(image, short_side, flip)
        except UserError as error:
            return error

    def _read(self, image: int, short_side: int, flip: bool) -> Item:
        known = self.annotations
        height, width = int(known.heights[image]), int(known.widths[image])
        pixels = read_image(self.paths[image], height, width)
        size = resized_size(height, width, short_side, self._longest)
        if size != (height, width):
            pixels = transforms.resize(pixels, list(size), antialias=True)
        return (pixels.flip(2) if flip else pixels), self.target(image, size, flip)

    def target(self, image: int, size: tuple[int, int], flip: bool) -> Target:
        """What is known of an image that is resized to ``size`` (height, width)."""
        known = self.annotations
        mine = known.instances_of(image)
        old = int(known.heights[image]), int(known.widths[image])
        boxes = known.boxes[mine] * np.array([size[1] / old[1], size[0] / old[0]] * 2, np.float32)
        if flip:
            boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        target = Target(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(known.category[mine].copy()),
            image_id=int(known.image_ids[image]),
            size=old,
        )
        if self._masks:
            masks = np.zeros((mine.stop - mine.start, *size), np.uint8)
            for place, instance in enumerate(range(mine.start, mine.stop)):
                masks[place] = rasterise(known.segmentations.of(instance), old, size)
            target["masks"] = torch.from_numpy(masks[:, :, ::-1].copy() if flip else masks)
        return target


def refuse_boxes_only(annotations: Annotations) -> None:
    """Refuse annotations of which one has no outline.

    Raises:
        UserError: naming it.
    """
    outlines = annotations.segmentations
    without = np.diff(outlines.first) == 0
    without[list(outlines.rles)] = False
    if without.any():
        number = annotations.instance_ids[np.flatnonzero(without)[0]]
        raise UserError(
            f"{annotations.source}: annotation {number} has no segmentation; "
            "train boxes only, or take a file with masks."
        )


def rasterise(
    outline: list[NDArray[np.float64]] | Rle | None, old: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A mask (height, width) of zeros and ones.

    Args:
        outline: polygons, which are scaled and then filled, or a run-length code, which is filled
            and then scaled to the nearest pixel.
        old: height and width of the image on disk.
        size: those of the mask.

    Raises:
        ValueError: there is no outline.
    """
    mask = _coco_masks()
    if outline is None:
        raise ValueError("the instance has no outline")
    if isinstance(outline, list):
        scale = np.array([size[1] / old[1], size[0] / old[0]])
        polygons = [(part.reshape(-1, 2) * scale).ravel().tolist() for part in outline]
        filled = mask.decode(mask.merge(mask.frPyObjects(polygons, *size)))
        return cast(NDArray[np.uint8], filled)
    code = mask.frPyObjects(outline, *old) if isinstance(outline["counts"], list) else outline
    return _nearest(mask.decode(code), size)


def _nearest(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixel of the old mask under each new pixel's middle."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(int).clip(0, old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    nearest: NDArray[np.uint8] = mask[rows[:, None], columns]
    return nearest


def _coco_masks() -> Any:
    """pycocotools; imported when it is needed: boxes need none of it."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise UserError(
            "Masks need the package pycocotools; install this project's extra 'detection'."
        ) from error
    return mask


def images_on_disk(annotations: Annotations, folder: Path) -> tuple[Path, ...]:
    """The file of each image, (I,).

    Raises:
        UserError: the folder or an image is missing; it names the first few.
    """
    paths = find_images(annotations, folder)
    missing = [image for image, path in enumerate(paths) if path is None]
    if missing:
        names = ", ".join(
            annotations.file_names[image] or annotations.coco_urls[image] for image in missing[:3]
        )
        raise UserError(
            f"{len(missing)} of the {len(paths)} images of {annotations.source} are not in "
            f"{folder} ({names}{', ...' if len(missing) > 3 else ''}); name the folder of the "
            "images with --images."
        )
    return cast(tuple[Path, ...], paths)


# Batches.


def _together(items: list[Item]) -> Batch:
    """Lists of images and targets.

    Boxes and labels travel as arrays: each tensor would take a file descriptor on its way from a
    worker, some hundreds at a time.
    """
    for _, target in items:
        arrays = cast(dict[str, Any], target)
        arrays |= {key: arrays[key].numpy() for key in ("boxes", "labels")}
    return [image for image, _ in items], [target for _, target in items]


def _unpacked(batch: Batch) -> Batch:
    for target in batch[1]:
        tensors = cast(dict[str, Any], target)
        tensors |= {key: torch.from_numpy(tensors[key]) for key in ("boxes", "labels")}
    return batch


def load_batches(
    data: DetectionData, batches: list[list[Request]], workers: int
) -> Iterator[Batch]:
    """Images and targets of each batch in turn, read by worker processes.

    Args:
        data: what the requests number.
        batches: requests of each batch.
        workers: processes that read ahead; 0: this one reads.

    Raises:
        UserError: an image cannot be read.
    """
    for batch in read_batches(data, batches, workers, _together):
        yield _unpacked(batch)
