"""Hard instances over the training (Fig. 4), from the course that a record holds.

An instance is hard when its weight is above 0.8 (Sec. 4.1.6): under focal loss its own weight
(1 - p)^gamma, which the training counts; under CDB-W-CE its class's weight, so that either all of a
class's training samples are hard or none.

Shapes: E epochs, C classes.
"""

from typing import Final

import numpy as np
import torch

from analysis.records import Record, as_array
from common.metrics import shot_groups
from common.training.record import courses

HARD_WEIGHT: Final = 0.8


def hard_by_class(record: Record) -> np.ndarray | None:
    """Hard instances of each class in each epoch, shape (E, C); None when the record has no count.

    For a method with class weights these are w_c = d_c^tau (Eq. 4), as printed and not normalised.
    In the first epoch no class is measured yet, tau is 0 and every weight 1: all are hard.
    """
    history = record["history"]
    if "hard_instances" in history:
        return as_array(history["hard_instances"])
    if record["method"] != "cdb-w-ce":
        return None
    course = courses(record)
    # w_c = d_c^tau (Eq. 4)
    hard = np.array(course["difficulty"]) ** np.array(course["tau"])[:, None] > HARD_WEIGHT
    counts: np.ndarray = hard * np.asarray(record["split"]["train"], dtype=float)
    return counts


def group_masks(record: Record) -> dict[str, np.ndarray]:
    """For each shot group with a class, which classes it holds, shape (C,), bool."""
    groups = shot_groups(torch.tensor(record["split"]["train"])).items()
    return {name: mask.numpy() for name, mask in groups if bool(mask.any())}


def hard_by_shot(record: Record) -> dict[str, np.ndarray] | None:
    """Mean number of hard instances per class of each shot group over the epochs, shape (E,) each.

    Returns:
        None when the record has no count.
    """
    counts = hard_by_class(record)
    if counts is None:
        return None
    return {name: counts[:, mask].mean(axis=1) for name, mask in group_masks(record).items()}
