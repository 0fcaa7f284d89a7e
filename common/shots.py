"""Classes by their number of training samples; needs no torch, which has readers of records wait.

Shapes: C classes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Array = TypeVar("Array", "Tensor", "NDArray[Any]")


@dataclass(frozen=True)
class ShotGroups(Generic[Array]):
    """Classes by their number of training samples (Sec. 4.1.6): masks of shape (C,), bool."""

    many: Array
    """More than 100 samples."""
    medium: Array
    """21 to 100 samples."""
    few: Array
    """At most 20 samples."""

    def items(self) -> list[tuple[str, Array]]:
        """Name and mask of each group."""
        return [("many", self.many), ("medium", self.medium), ("few", self.few)]


def shot_groups(class_counts: Array) -> ShotGroups[Array]:
    """Split classes into many- (> 100), medium- (21..100) and few-shot (<= 20).

    Args:
        class_counts: n_c in the training set, shape (C,); the masks are of its kind.
    """
    return ShotGroups(
        many=class_counts > 100,
        medium=(class_counts > 20) & (class_counts <= 100),
        few=class_counts <= 20,
    )
