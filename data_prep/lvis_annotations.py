"""Annotations in LVIS's layout as arrays; :mod:`data_prep.lvis_format` reads and writes them.

Shapes: C categories, I images, N instances, P pairs (image, category in it). A category's *index*
0..C-1 is its place in the order of the ids, an image's its place in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Rle: TypeAlias = dict[str, Any]
"""A run-length code: ``size`` [height, width] and ``counts`` (text, or a list of runs)."""

FREQUENCIES: Final = ("r", "c", "f")
MOST_RARE, MOST_COMMON = 10, 100
"""The most training images that a rare and a common category have (LVIS, Sec. 4.2.1)."""


def frequency_letters(image_count: Ints) -> tuple[str, ...]:
    """'r' up to 10 training images, 'c' up to 100, else 'f'; of (C,) image counts.

    >>> frequency_letters(np.array([1, 10, 11, 100, 101]))
    ('r', 'r', 'c', 'c', 'f')
    """
    groups = np.searchsorted([MOST_RARE, MOST_COMMON], image_count, side="left")
    return tuple(FREQUENCIES[group] for group in groups)


@dataclass(frozen=True, eq=False)
class Lists:
    """One list of category indices for each image, end to end."""

    values: Ints
    first: Ints
    """(I + 1,) where each image's list begins in ``values``."""

    def of(self, image: int) -> Ints:
        """The list of one image."""
        return self.values[self.first[image] : self.first[image + 1]]

    def take(self, order: Ints) -> "Lists":
        """The lists of some images, in the order given."""
        places, first = gather(self.first, order)
        return Lists(self.values[places], first)


@dataclass(frozen=True, eq=False)
class Segmentations:
    """The outline of each instance: polygons, a run-length code, or none."""

    coordinates: Floats
    """x, y, x, y ... of all polygons, in pixels. A selection shares them."""
    starts: Ints
    """Where each polygon begins in ``coordinates``."""
    lengths: Ints
    """How many numbers it has: twice its points, at least 6."""
    first: Ints
    """(N + 1,) the first polygon of each instance."""
    rles: Mapping[int, Rle]
    """Run-length codes by instance."""

    def of(self, instance: int) -> list[Floats] | Rle | None:
        """Polygons (2 * points,), a run-length code, or None if the instance has no outline."""
        if instance in self.rles:
            return self.rles[instance]
        polygons = range(self.first[instance], self.first[instance + 1])
        return [self._polygon(polygon) for polygon in polygons] or None

    def _polygon(self, polygon: int) -> Floats:
        start = self.starts[polygon]
        return self.coordinates[start : start + self.lengths[polygon]]

    def take(self, order: Ints) -> "Segmentations":
        """The outlines of some instances, in the order given."""
        polygons, first = gather(self.first, order)
        rles: dict[int, Rle] = {}
        if self.rles:
            rles = {n: self.rles[old] for n, old in enumerate(order.tolist()) if old in self.rles}
        return Segmentations(
            self.coordinates, self.starts[polygons], self.lengths[polygons], first, rles
        )


def gather(first: Ints, order: Ints) -> tuple[Ints, Ints]:
    """Places of the entries of some lists that lie end to end, and where each list then begins."""
    lengths = first[order + 1] - first[order]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(first[order] - new[:-1], lengths) + np.arange(new[-1]), new


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a file says, instances in the order of the images.

    Every id is unique; every instance has a known image and category. For training every box lies
    in its image and has an area, and no instance is a crowd; :attr:`as_given` is the file's word.
    """

    source: str
    """The file, for messages."""
    # Categories, in the order of their ids.
    category_ids: Ints
    """(C,) ascending, gaps allowed."""
    names: tuple[str, ...]
    frequency: tuple[str, ...]
    """(C,) 'r', 'c' or 'f', by the images of the whole training set; by these images where the file
    has no letters."""
    category_entries: tuple[dict[str, Any], ...]
    """(C,) all that the file says of each."""
    # Images, in the order of the file.
    image_ids: Ints
    """(I,)."""
    file_names: tuple[str, ...]
    """(I,) '' where the file has only a ``coco_url``."""
    coco_urls: tuple[str, ...]
    """(I,) '' where there is none."""
    heights: Ints
    """(I,) in pixels."""
    widths: Ints
    """(I,) in pixels."""
    negative: Lists
    """Categories known to be absent from each image."""
    not_exhaustive: Lists
    """Categories of which an image may have more instances than are annotated."""
    # Instances, in the order of their images.
    instance_ids: Ints
    """(N,)."""
    image: Ints
    """(N,) image index, ascending."""
    category: Ints
    """(N,) category index."""
    bboxes: Floats
    """(N, 4) x, y, width, height in pixels."""
    areas: Floats
    """(N,) of the mask, in pixels, as in the file."""
    crowd: Bools
    """(N,) ``iscrowd``: many instances in one outline (COCO; LVIS has none)."""
    ignore: Bools
    """(N,) ``ignore``: to the evaluation neither missed nor found (LVIS has none)."""
    segmentations: Segmentations
    notes: tuple[str, ...] = ()
    """What was mended while reading, and what a reader of the numbers should know."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """``info`` and ``licenses``."""
    has_letters: bool = True
    """Whether the file has the categories' letters."""
    given: "Annotations | None" = None
    """The same before any box was mended or left out; None: none was."""

    @property
    def as_given(self) -> "Annotations":
        """The instances as the file has them, which is what an evaluation compares with."""
        return self if self.given is None else self.given

    @property
    def num_categories(self) -> int:
        """C."""
        return len(self.names)

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.image_ids)

    @property
    def num_instances(self) -> int:
        """N."""
        return len(self.instance_ids)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) x1, y1, x2, y2 in pixels."""
        corners = np.concatenate([self.bboxes[:, :2], self.bboxes[:, :2] + self.bboxes[:, 2:]], 1)
        return corners.astype(np.float32)

    @cached_property
    def first_instance(self) -> Ints:
        """(I + 1,) where each image's instances begin."""
        return np.searchsorted(self.image, np.arange(self.num_images + 1)).astype(np.int64)

    def instances_of(self, image: int) -> slice:
        """The instances of one image."""
        return slice(int(self.first_instance[image]), int(self.first_instance[image + 1]))

    @cached_property
    def image_categories(self) -> tuple[Ints, Ints]:
        """Image index (P,) and category index (P,) of each pair, by image, then by category."""
        pairs = np.unique(self.image * self.num_categories + self.category)
        return pairs // self.num_categories, pairs % self.num_categories

    @cached_property
    def image_count(self) -> Ints:
        """(C,) images with an instance of each category, in these annotations."""
        return np.bincount(self.image_categories[1], minlength=self.num_categories)

    @cached_property
    def instance_count(self) -> Ints:
        """(C,) instances of each category, in these annotations."""
        return np.bincount(self.category, minlength=self.num_categories)

    def indices_of_images(self, ids: Ints) -> Ints:
        """Index of each image id.

        Raises:
            UserError: there is no such image.
        """
        return indices_of(self.image_ids, ids, f"{self.source} has no image", "name one it has")

    def select(self, image_ids: Ints) -> "Annotations":
        """Some images with all their instances, in the order of the file.

        The letters of the categories stay those of the whole training set.
        """
        wanted = np.zeros(self.num_images, bool)
        wanted[self.indices_of_images(image_ids)] = True
        images = np.flatnonzero(wanted)
        kept = np.flatnonzero(wanted[self.image])
        new_index = np.cumsum(wanted) - 1
        return replace(
            self,
            image_ids=self.image_ids[images],
            file_names=tuple(self.file_names[n] for n in images),
            coco_urls=tuple(self.coco_urls[n] for n in images),
            heights=self.heights[images],
            widths=self.widths[images],
            negative=self.negative.take(images),
            not_exhaustive=self.not_exhaustive.take(images),
            image=new_index[self.image[kept]],
            given=None if self.given is None else self.given.select(image_ids),
            **self._instances(kept),
        )

    def _instances(self, order: Ints) -> dict[str, Any]:
        """The columns of some instances, but for their images."""
        return {
            "instance_ids": self.instance_ids[order],
            "category": self.category[order],
            "bboxes": self.bboxes[order],
            "areas": self.areas[order],
            "crowd": self.crowd[order],
            "ignore": self.ignore[order],
            "segmentations": self.segmentations.take(order),
        }


def indices_of(known: Ints, ids: Ints, words: str, remedy: str) -> Ints:
    """Place of each of ``ids`` in ``known``, which are unique.

    Raises:
        UserError: ``words``, the id, ``remedy``.
    """
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known, ids, sorter=order)
    found = order[np.minimum(places, len(known) - 1)] if len(known) else np.zeros_like(ids)
    wrong = np.flatnonzero(known[found] != ids) if len(known) else np.arange(len(ids))
    if len(wrong):
        raise UserError(f"{words} {ids[wrong[0]]}; {remedy}.")
    return found
