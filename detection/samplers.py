"""Samplers of images that hold several categories: RFS, CDB-S on images, episodes of SimCal.

Which image holds which category is a list of pairs: ``image_index`` (P,), 0..N-1, and ``category``
(P,), 0..C-1; a pair named twice counts once, and an image in no pair has no annotation. Samplers
draw a whole epoch as one tensor from their own CPU generator; ranks take every W-th index of it
(:mod:`common.sampler`).

Shapes: P pairs, N training images, C categories, S images drawn an epoch.
"""

import math

import torch
from torch import Tensor

from common.sampler import ClassProbabilitySampler, EpochSampler


def _check_range(values: Tensor, limit: int, what: str) -> None:
    outside = values[(values < 0) | (values >= limit)]
    if outside.numel():
        raise ValueError(f"{what} {int(outside[0])} is outside 0..{limit - 1}")


def distinct_pairs(
    image_index: Tensor, category: Tensor, num_images: int, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The pairs, each once, by image and then category, on the CPU.

    Args:
        image_index: shape (P,).
        category: shape (P,).
        num_images: N, at least 1.
        num_classes: C.

    Raises:
        ValueError: for tensors of different shapes, an index out of range, or no image.
    """
    if image_index.dim() != 1 or image_index.shape != category.shape:
        raise ValueError(
            f"image_index of shape {tuple(image_index.shape)} and category of shape "
            f"{tuple(category.shape)} are not a list of pairs"
        )
    if num_images < 1:
        raise ValueError(f"a sampler needs at least 1 image, not {num_images}")
    images, categories = image_index.cpu().long(), category.cpu().long()
    _check_range(images, num_images, "image index")
    _check_range(categories, num_classes, "category")
    pairs = torch.unique(images * num_classes + categories)
    return pairs // num_classes, pairs % num_classes


def repeat_factors(
    image_index: Tensor, category: Tensor, num_images: int, threshold: float = 0.001
) -> Tensor:
    """Repeat factor of each image (Gupta et al. 2019).

    f_c = share of the N images with c; r_c = max(1, sqrt(t / f_c)); r of an image = max over its
    categories of r_c, 1 for an image without annotation.

    Args:
        image_index: shape (P,).
        category: shape (P,), >= 0.
        num_images: N.
        threshold: t, > 0.

    Returns:
        Shape (N,), float64, >= 1.

    Raises:
        ValueError: for a threshold that is not positive, or an impossible list of pairs.

    >>> repeat_factors(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 0, 0]), 4, threshold=1.0)
    tensor([2.0000, 1.1547, 1.1547, 1.0000], dtype=torch.float64)
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be greater than 0, not {threshold}")
    num_classes = int(category.max()) + 1 if category.numel() else 1
    images, categories = distinct_pairs(image_index, category, num_images, num_classes)
    share = categories.bincount(minlength=num_classes).double() / num_images
    # r_c = max(1, sqrt(t / f_c)); a category in no image is asked for by none.
    factor = (threshold / share).sqrt().clamp_min(1.0)
    return torch.ones(num_images, dtype=torch.float64).scatter_reduce(
        0, images, factor[categories], "amax"
    )


class RepeatFactorSampler(EpochSampler):
    """RFS (Gupta et al. 2019): image i is seen r_i times an epoch on average, then shuffled.

    r_i is rounded up with the probability of its fraction, anew each epoch, so that epochs differ
    in length around :attr:`expected_length`. ``len()`` tells of the epoch drawn last, before the
    first of the expected one: for the number of steps take the length of the draw itself.

    Attributes:
        repeat_factors: r_i, shape (N,), float64, >= 1.
        expected_length: sum of r_i, mean number of images in an epoch, over all ranks.
    """

    def __init__(
        self,
        image_index: Tensor,
        category: Tensor,
        num_images: int,
        generator: torch.Generator,
        threshold: float = 0.001,
    ) -> None:
        """Compute the repeat factors.

        Args:
            image_index: shape (P,).
            category: shape (P,), >= 0.
            num_images: N.
            generator: a CPU generator of the sampler's own.
            threshold: t; 0.001 on LVIS. 0 < t; at most the smallest share repeats nothing.

        Raises:
            ValueError: as :func:`repeat_factors`.
        """
        self.repeat_factors = repeat_factors(image_index, category, num_images, threshold)
        # Of the core's sampler it needs the ranks and the loader: to it all images are one class.
        super().__init__(torch.zeros(num_images, dtype=torch.int64), 1, generator)
        self.expected_length = float(self.repeat_factors.sum())
        self.num_samples = round(self.expected_length)

    def draw(self) -> Tensor:
        """Indices of the next epoch, shape (S,), S at least N; every image at least once."""
        whole = self.repeat_factors.floor()
        numbers = torch.rand(len(whole), dtype=torch.float64, generator=self.generator)
        repeats = (whole + (numbers < self.repeat_factors - whole)).long()
        indices = torch.repeat_interleave(repeats)
        self.num_samples = indices.numel()
        return indices[torch.randperm(self.num_samples, generator=self.generator)]


class ImageDifficultySampler(ClassProbabilitySampler):
    """CDB-S for images of several categories: a category by p_c (Eq. 15), then one of its images.

    Each image with the category is equally likely; S = N, with replacement. What the paper, whose
    samples have one class, leaves open:

    - Images without annotation are a class of their own, drawn in proportion to their share of the
      images: a plain epoch's share of background, whatever the difficulties.
    - Categories without a training image cannot be drawn; the others share their probability. If
      then no probability is left, categories are equally likely (as equal weights, where Eq. 4
      gives none).

    Attributes:
        num_categories: C.
        probabilities: in use, of the categories with images in their order, and last of the images
            without annotation if there are any; float64, sums to 1.
    """

    def __init__(
        self,
        image_index: Tensor,
        category: Tensor,
        num_images: int,
        num_categories: int,
        generator: torch.Generator,
    ) -> None:
        """Sort the pairs by category; categories start equally likely.

        Args:
            image_index: shape (P,).
            category: shape (P,), 0..C-1.
            num_images: N.
            num_categories: C.
            generator: a CPU generator of the sampler's own.

        Raises:
            ValueError: for an impossible list of pairs.
        """
        images, categories = distinct_pairs(image_index, category, num_images, num_categories)
        self.num_categories = num_categories
        self._present, of_present = categories.unique(return_inverse=True)
        annotated = torch.zeros(num_images, dtype=torch.bool)
        annotated[images] = True
        empty = (~annotated).nonzero()[:, 0]
        self._empty_share = empty.numel() / num_images
        # A pair is a sample of its category; an image without annotation one of a class behind.
        self._image_of_pair = torch.cat([images, empty])
        own_class = torch.full_like(empty, self._present.numel())
        classes = self._present.numel() + bool(empty.numel())
        super().__init__(torch.cat([of_present, own_class]), classes, generator)
        self.num_samples = num_images
        self.set_class_probabilities(torch.ones(num_categories))

    def set_class_probabilities(self, probabilities: Tensor) -> None:
        """Use these category probabilities from the next epoch on.

        Args:
            probabilities: p_c, shape (C,), >= 0, with a positive sum (scaled to 1 here).

        Raises:
            ValueError: for another shape, a negative or non-finite value, or a sum of 0.
        """
        p = probabilities.detach().to("cpu", torch.float64)
        if p.shape != (self.num_categories,):
            raise ValueError(
                f"expected {self.num_categories} category probabilities, got a tensor of shape "
                f"{tuple(p.shape)}"
            )
        if not bool((p >= 0).all()) or not 0.0 < float(p.sum()) < math.inf:
            raise ValueError("category probabilities must be >= 0, finite, and not all 0")
        p = p[self._present]
        p = p / p.sum() if bool(p.sum() > 0) else torch.full_like(p, 1.0 / max(p.numel(), 1))
        if self._empty_share:
            share = torch.tensor([self._empty_share], dtype=torch.float64)
            p = torch.cat([p * (1.0 - share), share])
        super().set_class_probabilities(p)

    def _draw_by_class(self) -> Tensor:
        """S = N image indices, drawn with replacement."""
        return self._image_of_pair[super()._draw_by_class()]


def draw_episodes(
    image_index: Tensor,
    category: Tensor,
    episodes: int,
    generator: torch.Generator,
    categories_per_episode: int = 16,
) -> tuple[Tensor, Tensor]:
    """Balanced episodes of SimCal (Wang et al. 2020): categories, and an image that holds each.

    Categories are drawn uniformly with replacement, as in the authors' code, from those in at least
    one image; then one of the category's images uniformly. Which proposals of these images are
    learned from says :func:`detection.heads.calibration_proposals`.

    Args:
        image_index: shape (P,), P at least 1.
        category: shape (P,), >= 0.
        episodes: E, steps to draw for.
        generator: a CPU generator of the caller's own.
        categories_per_episode: K.

    Returns:
        Images (E, K) and the category each was drawn for (E, K).

    Raises:
        ValueError: for an impossible or empty list of pairs.
    """
    if not category.numel():
        raise ValueError("no image holds a category; episodes need at least one pair")
    images, categories = distinct_pairs(
        image_index, category, int(image_index.max()) + 1, int(category.max()) + 1
    )
    present, of_present = categories.unique(return_inverse=True)
    sampler = ClassProbabilitySampler(of_present, present.numel(), generator)
    sampler.num_samples = episodes * categories_per_episode
    pairs = sampler.draw().view(episodes, categories_per_episode)
    return images[pairs], categories[pairs]
