"""Cross-entropy, the baseline of every table."""

from common.training.methods.base import LogitMethod


class CrossEntropy(LogitMethod):
    """Cross-entropy (Eq. 11), every sample once an epoch: a method as it stands."""
