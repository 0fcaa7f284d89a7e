"""Folders of images, brought to squares of one size and read in batches.

An image of any size is squeezed, whole, into S x S pixels: its aspect ratio is not kept, but its
width and height are remembered. Crops are drawn in the image's own geometry and taken from the
square (``classification.image_augment``), so that they have the shape they would have in the file;
only resolution is lost. A batch is one tensor, and a square from the cache
(``classification.image_cache``) equals the decoded one bit for bit.

Images of one's own are turned as their EXIF says. ImageNet's are not: it is usually read by
torchvision's loader, which ignores that.

Shapes: N images, B batch, S pixels a side of a square.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from common.training.image_file import as_rgb, open_picture, orientation, upright
from common.training.read_ahead import read_batches

if TYPE_CHECKING:
    from classification.image_cache import ImageCache

Square: TypeAlias = tuple[Tensor, tuple[int, int]]
"""Pixels (S, S, 3), uint8, and the file's width and height in pixels."""
Batch: TypeAlias = tuple[Tensor, Tensor]
"""Squares (B, S, S, 3), uint8, and the files' widths and heights (B, 2), float32."""

_BATCHES_AHEAD: Final = 3


def read_square(path: Path, side: int, turn: bool = False) -> Square:
    """An image squeezed into ``side`` x ``side`` pixels, RGB, with antialiasing.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that still covers the square.

    Args:
        path: JPEG, PNG or what else Pillow reads; grey, palette, CMYK and 16-bit ones too.
        side: S, in pixels.
        turn: make it upright, as its EXIF says.

    Returns:
        (S, S, 3) uint8, and the (width, height) of the file's image, as turned.

    Raises:
        UserError: the file is missing, cut off, damaged or no image.
    """
    with open_picture(path) as picture:
        return as_square(picture, side, turn)


def as_square(picture: Image.Image, side: int, turn: bool = False) -> Square:
    """As :func:`read_square`, of a picture that is open; what is not read yet of it changes."""
    size = picture.size
    drafted = picture.draft(None, (side, side))
    # Of the smaller image the last row and column may lie in part beyond the file's.
    box = drafted[1] if drafted else None
    square = as_rgb(picture).resize((side, side), Image.Resampling.BILINEAR, box)
    if turn:
        square, size = upright(square, size, orientation(picture))
    # A copy: Pillow's own memory cannot be written to.
    return torch.from_numpy(np.array(square)), size


class ImageFiles(Dataset["Square | UserError"]):
    """Squares of the files of a list.

    What is wrong with a file is returned, not raised: a worker's exception would reach the user as
    a traceback.
    """

    def __init__(self, folder: Path, names: Sequence[str], side: int, turn: bool = False) -> None:
        """Nothing is opened yet.

        Args:
            folder: that the names are relative to.
            names: of N files, numbered 0..N-1.
            side: S, in pixels.
            turn: make each upright, as its EXIF says.

        Raises:
            ValueError: ``side`` is not positive.
        """
        if side < 1:
            raise ValueError(f"side must be at least 1 pixel, not {side}")
        self.folder, self.names, self.side, self.turn = folder, tuple(names), side, turn

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def path(self, number: int) -> Path:
        """Where an image is."""
        return self.folder / self.names[number]

    def read(self, number: int) -> Square:
        """One square.

        Raises:
            UserError: as :func:`read_square`.
        """
        return read_square(self.path(number), self.side, self.turn)

    def __getitem__(self, number: int) -> Square | UserError:
        """One square, or what is wrong with its file."""
        try:
            return self.read(number)
        except UserError as error:
            return error


def _together(squares: list[Square], side: int) -> Batch:
    if not squares:
        return torch.empty(0, side, side, 3, dtype=torch.uint8), torch.empty(0, 2)
    sizes = torch.tensor([size for _, size in squares], dtype=torch.float32)
    return torch.stack([pixels for pixels, _ in squares]), sizes


class ImageReader:
    """Batches of squares, from the cache where it has them, else decoded.

    ::

        files = ImageFiles(folder, names, side=256)
        cache = ImageCache(Path("cache"), files)
        fill([cache])
        for squares, sizes in ImageReader(files, cache).batches(order.split(512), workers=8):
            images = augmentation.apply(squares.to(device, non_blocking=True), ...)
    """

    def __init__(self, files: ImageFiles, cache: "ImageCache | None" = None) -> None:
        """``cache``: of these files; None: every image is decoded each time."""
        self.files, self.cache = files, cache

    def batches(self, indices: Sequence[Tensor], workers: int) -> Iterator[Batch]:
        """The images of each batch in turn, in page-locked memory if there is a CUDA device.

        Args:
            indices: numbers of images, (B,) int64 each; B may be 0 (a rank without a share).
            workers: that read ahead: processes that decode, or with a cache threads of this
                process; 0: this one reads when asked.

        Raises:
            UserError: a file cannot be read.
        """
        if self.cache is None:
            numbers = [index.tolist() for index in indices]
            together = partial(_together, side=self.files.side)
            return read_batches(self.files, numbers, workers, together)
        if workers == 0:
            return map(self.read, indices)
        return self._read_ahead(indices, workers)

    def read(self, index: Tensor) -> Batch:
        """The images ``index`` (B,) as one batch, read by this thread.

        Raises:
            UserError: a file cannot be read.
        """
        batch = self._empty(len(index))
        self._read_into(index.tolist(), batch)
        return batch

    def _empty(self, number: int) -> Batch:
        shape = (number, self.files.side, self.files.side, 3)
        pinned = torch.cuda.is_available()
        squares = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        return squares, torch.empty(number, 2, pin_memory=pinned)

    def _read_into(self, numbers: list[int], batch: Batch) -> None:
        squares, sizes = (tensor.numpy() for tensor in batch)
        for place, number in enumerate(numbers):
            size = None if self.cache is None else self.cache.read_into(number, squares[place])
            if size is None:
                pixels, size = self.files.read(number)
                squares[place] = pixels.numpy()
            sizes[place] = size

    def _read_ahead(self, indices: Sequence[Tensor], workers: int) -> Iterator[Batch]:
        """Threads: reading and checking leave Python's lock alone, and nothing is copied."""
        pool = ThreadPoolExecutor(workers)
        waiting: deque[Callable[[], Batch]] = deque()
        try:
            for index in indices:
                waiting.append(self._start(pool, workers, index))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, workers: int, index: Tensor) -> Callable[[], Batch]:
        """Divide a batch among the threads; the result waits for them."""
        squares, sizes = self._empty(len(index))
        share = max(1, -(-len(index) // workers))
        parts = zip(index.split(share), squares.split(share), sizes.split(share), strict=True)
        futures: list[Future[None]] = [
            pool.submit(self._read_into, numbers.tolist(), (part, part_sizes))
            for numbers, part, part_sizes in parts
        ]

        def finished() -> Batch:
            for future in futures:
                future.result()
            return squares, sizes

        return finished
