"""What every dataset's split shares: its generator, its draws, its digest, its shot groups."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.shots import shot_groups
from common.streams import stream_seed


def split_generator(seed: int) -> np.random.PCG64:
    """The split's own generator, derived from (seed, 'split') and nothing else.

    Raises:
        UserError: seed < 0.
    """
    if seed < 0:
        raise UserError(f"--split-seed {seed} is negative; give a whole number of at least 0.")
    return np.random.PCG64(stream_seed(seed, "split"))


def permuted_class(labels: Tensor, label: int, generator: np.random.PCG64) -> Tensor:
    """Positions of one class, (n,) int64, in random order.

    Sorting raw 64-bit draws, not ``Generator.permutation``: numpy promises that a bit generator's
    stream stays the same in later versions, and promises no such thing for permutations.

    Args:
        labels: class of each sample, shape (N,), int64.
        label: the class wanted.
        generator: takes one draw for each sample of the class.
    """
    members = torch.nonzero(labels == label).flatten()
    draws = generator.random_raw(len(members))
    return members[torch.from_numpy(np.argsort(draws, kind="stable"))]


def joined(parts: list[Tensor]) -> Tensor:
    """All positions of the parts in one ascending list, (N,) int64."""
    return torch.cat(parts).sort().values


def index_digest(indices: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, lengths and positions, in the order given, on every machine."""
    digest = hashlib.sha256()
    for name, index in indices.items():
        digest.update(f"{name} {len(index)}\n".encode())
        digest.update(index.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def shot_group_names(counts: tuple[int, ...]) -> list[str]:
    """The shot group of each class: many, medium or few.

    >>> shot_group_names((4950, 50, 20))
    ['many', 'medium', 'few']
    """
    groups = shot_groups(torch.tensor(counts)).items()
    return [next(name for name, mask in groups if mask[c]) for c in range(len(counts))]
