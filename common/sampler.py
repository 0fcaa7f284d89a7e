"""Samplers over classes: CDB-S (Eq. 15), frequency-based, class-aware, instance-balanced.

Each draws the indices of a whole epoch as one tensor, from its own CPU generator, so that the draw
is the same on every device and rank; nothing is done per sample in Python. Under
``torch.distributed`` every rank draws the same epoch and takes every W-th index of it (W ranks).
Any of them can be given to a ``torch.utils.data.DataLoader`` as ``sampler=``. Where something else
shares the indices among the ranks, give ``rank=0, world_size=1``.

Shapes: C classes, N training samples, S samples drawn an epoch.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from .difficulty import Labels, as_labels, check_labels, count_per_class
from .distributed import rank, world_size
from .streams import check_generator


def frequency_probabilities(class_counts: Tensor, q: float = 0.5) -> Tensor:
    """p_c proportional to n_c^q (CFS; Mikolov et al. 2013 for words).

    Args:
        class_counts: n_c, shape (C,), > 0.
        q: 1 natural, 1/2 square root (our reading of the paper's CFS), 0 class-balanced.

    Returns:
        Shape (C,), float64, sums to 1.

    >>> frequency_probabilities(torch.tensor([81, 1]))
    tensor([0.9000, 0.1000], dtype=torch.float64)
    """
    powers = class_counts.to(torch.float64) ** q
    return powers / powers.sum()


def _checked_place(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """Rank and number of ranks, or None for those of the process group.

    Raises:
        ValueError: for one without the other, or a rank that is none of the ``world_size``.
    """
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise ValueError(
            "rank and world_size belong together, 0 <= rank < world_size, not "
            f"rank={rank}, world_size={world_size}"
        )
    return rank, world_size


def _sharer() -> str:
    """The name of the sampler around this one that shares its indices among ranks again, if any.

    Other libraries put such samplers around one's own: Lightning's ``DistributedSamplerWrapper``
    and Accelerate's ``BatchSamplerShard`` among them. Only methods with the names of theirs are
    asked for their variables: that of a training loop would keep its tensors alive.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name.startswith(("__iter__", "_iter_with")):
            around = frame.f_locals.get("self")
            ranks = getattr(around, "num_replicas", getattr(around, "num_processes", 1))
            if isinstance(around, Sampler) and ranks > 1:
                return type(around).__name__
    return ""


class EpochSampler(Sampler[int], ABC):
    """Draws the indices of one epoch; a DataLoader sampler and a tensor source in one."""

    def __init__(
        self,
        labels: Labels,
        num_classes: int,
        generator: torch.Generator,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Check the labels.

        Args:
            labels: class of every training sample, shape (N,), 0..C-1; a list will do.
            num_classes: C.
            generator: a CPU generator of the sampler's own.
            rank: which share to give, 0..W-1; None: that of the process group.
            world_size: W, the number of shares; None: the process group's ranks.

        Raises:
            TypeError: for labels that are not integers, or without a generator.
            ValueError: for a label out of range, a class with no sample, a generator of another
                device, or a rank that is none of the ``world_size``.
        """
        labels = as_labels(labels).cpu()
        if labels.dim() != 1:
            raise ValueError(f"expected labels of shape (N,), got shape {tuple(labels.shape)}")
        check_labels(labels, num_classes)
        check_generator(generator)
        if generator.device.type != "cpu":
            raise ValueError(f"the generator must be one of the CPU, not of {generator.device}")
        self._place = _checked_place(rank, world_size)
        self.num_classes = num_classes
        self.num_samples = labels.numel()
        self.class_counts = count_per_class(labels, num_classes).to(torch.int64)
        empty = (self.class_counts == 0).nonzero()
        if empty.numel():
            raise ValueError(
                f"class {int(empty[0])} has no training sample; remove the class or add samples"
            )
        self.generator = generator

    @abstractmethod
    def draw(self) -> Tensor:
        """Indices of the next epoch, over all ranks: shape (S,), int64, 0..N-1."""

    def draw_for_rank(self) -> Tensor:
        """This rank's share of the next epoch: every W-th index, as many on each rank."""
        first, step = self.place
        indices = self.draw()
        # What is missing to as many on each rank is taken from the beginning again.
        positions = torch.arange(first, len(self) * step, step)
        return indices[positions % indices.numel()]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """State beyond the generator's, which is the caller's to save; most samplers have none."""
        return {}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from :meth:`state_dict`."""

    @property
    def place(self) -> tuple[int, int]:
        """Rank and number of ranks, W; as given, or the process group's at this moment."""
        return (rank(), world_size()) if self._place is None else self._place

    def __iter__(self) -> Iterator[int]:
        """Iterate over this rank's indices of a new epoch (for a DataLoader).

        Raises:
            RuntimeError: where another sampler is about to share this rank's share again.
        """
        if self.place[1] > 1 and (sharer := _sharer()):
            raise RuntimeError(
                f"this sampler gives each rank its share already, and {sharer} shares it again: "
                "make the sampler with rank=0, world_size=1, or switch the other off (Lightning: "
                "use_distributed_sampler=False)"
            )
        return iter(self.draw_for_rank().tolist())

    def __len__(self) -> int:
        """Number of indices a rank gets in an epoch."""
        return -(-self.num_samples // self.place[1])


class InstanceBalancedSampler(EpochSampler):
    """Every sample once, in random order: class c is drawn in proportion to n_c."""

    def draw(self) -> Tensor:
        """A random permutation, shape (N,)."""
        return torch.randperm(self.num_samples, generator=self.generator)


class ClassProbabilitySampler(EpochSampler):
    """Chooses a class c with probability p_c, then one of its samples uniformly (Eq. 15).

    With :attr:`ClassDifficultyBalancer.probabilities` this is CDB-S; with
    :func:`frequency_probabilities` it is class-frequency based sampling (CFS).

    >>> sampler = ClassProbabilitySampler(
    ...     torch.tensor([0, 0, 0, 1]), 2, torch.Generator().manual_seed(0)
    ... )
    >>> sampler.set_class_probabilities(torch.tensor([0.0, 1.0]))
    >>> sampler.draw()
    tensor([3, 3, 3, 3])
    """

    def __init__(
        self,
        labels: Labels,
        num_classes: int,
        generator: torch.Generator,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Start with equal class probabilities; see :class:`EpochSampler`."""
        super().__init__(labels, num_classes, generator, rank=rank, world_size=world_size)
        # Sample indices sorted by class: class c is the run [start_c, start_c + n_c).
        self._by_class = torch.argsort(as_labels(labels).cpu(), stable=True)
        self._starts = self.class_counts.cumsum(0) - self.class_counts
        self.probabilities = torch.full((num_classes,), 1.0 / num_classes, dtype=torch.float64)
        self._each_once = False

    def set_instance_balanced(self) -> None:
        """Draw every sample once an epoch, in random order, until probabilities are set again.

        What deferred re-sampling (DRS, Cao et al. 2019) does until its start. The draw is that of
        :class:`InstanceBalancedSampler`; :attr:`probabilities` stay as they were.
        """
        self._each_once = True

    def set_class_probabilities(self, probabilities: Tensor) -> None:
        """Use these class probabilities from the next epoch on.

        Args:
            probabilities: p_c, shape (C,), >= 0, with a positive sum (scaled to 1 here).

        Raises:
            ValueError: for another shape, a negative or non-finite value, or a sum of 0.
        """
        p = probabilities.detach().to("cpu", torch.float64)
        if p.shape != (self.num_classes,):
            raise ValueError(
                f"expected {self.num_classes} class probabilities, got a tensor of shape "
                f"{tuple(p.shape)}"
            )
        if not bool((p >= 0).all()) or not 0.0 < float(p.sum()) < math.inf:
            raise ValueError("class probabilities must be >= 0, finite, and not all 0")
        self.probabilities = p / p.sum()
        self._each_once = False

    def draw(self) -> Tensor:
        """S = N indices, drawn with replacement; each once while instance-balanced."""
        if self._each_once:
            return self._draw_each_once()
        return self._draw_by_class()

    def _draw_each_once(self) -> Tensor:
        return torch.randperm(self.num_samples, generator=self.generator)

    def _draw_by_class(self) -> Tensor:
        # p_{c,k} = w_{c,k-1} / sum_c' w_{c',k-1}; the class by inverting its cumulative sum
        # (linear memory for any C, unlike torch.multinomial's limit of 2^24 categories).
        cumulative = self.probabilities.cumsum(0)
        last = int(self.probabilities.nonzero()[-1])
        draws = torch.rand(2, self.num_samples, dtype=torch.float64, generator=self.generator)
        classes = torch.searchsorted(cumulative, draws[0] * cumulative[-1], right=True)
        classes.clamp_(max=last)
        counts = self.class_counts[classes]
        offsets = torch.minimum((draws[1] * counts).to(torch.int64), counts - 1)
        return self._by_class[self._starts[classes] + offsets]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The class probabilities, and whether every sample is drawn once in their place."""
        state = {"probabilities": [self.probabilities.clone()]}
        return state | ({"instance_balanced": []} if self._each_once else {})

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from :meth:`state_dict`."""
        # Not set_class_probabilities: scaling to sum 1 again could change the last bit.
        self.probabilities = state["probabilities"][0].clone()
        self._each_once = "instance_balanced" in state


class ImageWeightSampler(ClassProbabilitySampler):
    """Draws each sample in proportion to its class's weight: p_c proportional to n_c w_c.

    What ``torch.utils.data.WeightedRandomSampler`` does with ``weights[labels]``. With
    :attr:`ClassDifficultyBalancer.probabilities` it is CDB-S with d_c^tau as the weight of an
    image: equal to CDB-W in expectation, where Eq. 15 with tau = 0 draws all classes alike.

    >>> sampler = ImageWeightSampler(
    ...     torch.tensor([0, 0, 0, 1]), 2, torch.Generator().manual_seed(0)
    ... )
    >>> sampler.set_class_probabilities(torch.tensor([0.25, 0.75]))
    >>> sampler.probabilities
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        labels: Labels,
        num_classes: int,
        generator: torch.Generator,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Start with equal weights of the samples; see :class:`EpochSampler`."""
        super().__init__(labels, num_classes, generator, rank=rank, world_size=world_size)
        self.set_class_probabilities(self.probabilities)

    def set_class_probabilities(self, probabilities: Tensor) -> None:
        """Weigh each sample of class c by p_c from the next epoch on; otherwise as there."""
        super().set_class_probabilities(probabilities)
        drawn = self.probabilities * self.class_counts
        self.probabilities = drawn / drawn.sum()


class ClassAwareSampler(EpochSampler):
    """Cycles over the classes in shuffled order; every class is equally likely.

    Shen et al. 2016: go through a shuffled list of classes, take the next ``samples_per_class`` of
    each class's shuffled list, shuffle a list again when it is used up. Lists run on from epoch to
    epoch, so a rare class's samples are all seen equally often.
    """

    def __init__(
        self,
        labels: Labels,
        num_classes: int,
        generator: torch.Generator,
        samples_per_class: int = 1,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """See :class:`EpochSampler`.

        Args:
            labels: shape (N,).
            num_classes: C.
            generator: own CPU generator.
            samples_per_class: consecutive samples of a class, >= 1; 4 in the code of OLTR (Liu et
                al. 2019) and of Kang et al. 2020.
            rank: see :class:`EpochSampler`.
            world_size: likewise.
        """
        super().__init__(labels, num_classes, generator, rank=rank, world_size=world_size)
        if samples_per_class < 1:
            raise ValueError(f"samples_per_class must be at least 1, not {samples_per_class}")
        self.samples_per_class = samples_per_class
        by_class = torch.argsort(as_labels(labels).cpu(), stable=True)
        self._members = list(torch.split(by_class, self.class_counts.tolist()))
        # What is left of each class's shuffled list.
        self._left = [members[:0] for members in self._members]

    def _take(self, c: int, number: int) -> Tensor:
        """The next ``number`` samples of class ``c``."""
        left, members = self._left[c], self._members[c]
        refills = -(-max(number - left.numel(), 0) // members.numel())
        order = torch.rand(refills, members.numel(), generator=self.generator).argsort(dim=1)
        left = torch.cat([left, members[order.flatten()]])
        self._left[c] = left[number:]
        return left[:number]

    def draw(self) -> Tensor:
        """S = N indices: whole rounds over the classes, the last one cut."""
        k, c = self.samples_per_class, self.num_classes
        rounds = -(-self.num_samples // (k * c))
        slots = torch.empty(rounds, c, k, dtype=torch.int64)
        for class_index in range(c):
            slots[:, class_index] = self._take(class_index, rounds * k).view(rounds, k)
        order = torch.rand(rounds, c, generator=self.generator).argsort(dim=1)
        shuffled = slots.gather(1, order[:, :, None].expand(-1, -1, k))
        return shuffled.flatten()[: self.num_samples]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """What is left of each class's list: all of them in one tensor, and their C lengths.

        Two tensors, not C: each in a file costs 30 µs, 3 s for 100,000 classes.
        """
        lengths = torch.tensor([left.numel() for left in self._left])
        return {"left": [torch.cat(self._left)], "lengths": [lengths]}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from :meth:`state_dict`."""
        self._left = list(torch.split(state["left"][0].clone(), state["lengths"][0].tolist()))
